/* SPDX-License-Identifier: MIT
 *
 * auto: cleanup at the end of a scope.
 *
 * Every owning local carries one of these attributes and an initial value on the same line.
 * Ownership leaves by take_ptr()/take_fd(), which also clear the variable. Types of other modules
 * declare their own attribute beside the type, by AUTO_DEFINE.
 */
#pragma once

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <errno.h>

#define AUTO_DEFINE(name, type, destroy)                  \
    static inline void name##_cleanup(type **p)           \
    {                                                     \
        if (*p)                                           \
            destroy(*p);                                  \
    }

static inline void auto_free_cleanup(void *p)
{
    void **pp = p;
    free(*pp);
}

/* Closes and keeps errno, so that it can stand before a report of the failure. */
static inline void fd_close(int fd)
{
    if (fd >= 0) {
        int saved = errno;
        close(fd);
        errno = saved;
    }
}

static inline void auto_close_cleanup(int *fd)
{
    fd_close(*fd);
}

static inline void auto_fclose_cleanup(FILE **f)
{
    if (*f)
        fclose(*f);
}

#define autofree __attribute__((cleanup(auto_free_cleanup)))
#define autoclose __attribute__((cleanup(auto_close_cleanup)))
#define autofclose __attribute__((cleanup(auto_fclose_cleanup)))
#define autotype(name) __attribute__((cleanup(name##_cleanup)))

#define take_ptr(p)                \
    ({                             \
        __typeof__(p) take_ = (p); \
        (p) = NULL;                \
        take_;                     \
    })

static inline int take_fd(int *fd)
{
    int f = *fd;
    *fd = -1;
    return f;
}

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
