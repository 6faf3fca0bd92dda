/* SPDX-License-Identifier: MIT
 *
 * allocfork: fork() and the allocator of address sanitizer, in one program with threads.
 *
 * The sanitizer of gcc 12 does not take its allocator's locks before a fork, as the C library does
 * with its own. A child that is born while another thread holds one waits for ever at its first
 * allocation, and libvirt's children do allocate. So here each allocation holds a lock, shared with
 * all others, that a fork takes alone. Linked into sandboxd where it is built with that sanitizer,
 * and nowhere else.
 */
#include <malloc.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* What the sanitizer has for the functions below; no header names them. */
void *__interceptor_malloc(size_t n);
void *__interceptor_calloc(size_t n, size_t size);
void *__interceptor_realloc(void *p, size_t n);
void *__interceptor_reallocarray(void *p, size_t n, size_t size);
void *__interceptor_aligned_alloc(size_t align, size_t n);
void *__interceptor_memalign(size_t align, size_t n);
int __interceptor_posix_memalign(void **p, size_t align, size_t n);
void __interceptor_free(void *p);
char *__interceptor_strdup(const char *s);

/* A thread that holds it shared may ask again (a report allocates); so readers go first. */
static pthread_rwlock_t lock = PTHREAD_RWLOCK_INITIALIZER;

#define SHARED(type, call)                      \
    do {                                        \
        pthread_rwlock_rdlock(&lock);           \
        type r_ = (call);                       \
        pthread_rwlock_unlock(&lock);           \
        return r_;                              \
    } while (0)

void *malloc(size_t n) { SHARED(void *, __interceptor_malloc(n)); }
void *calloc(size_t n, size_t size) { SHARED(void *, __interceptor_calloc(n, size)); }
void *realloc(void *p, size_t n) { SHARED(void *, __interceptor_realloc(p, n)); }
void *reallocarray(void *p, size_t n, size_t size)
{
    SHARED(void *, __interceptor_reallocarray(p, n, size));
}
void *aligned_alloc(size_t align, size_t n)
{
    SHARED(void *, __interceptor_aligned_alloc(align, n));
}
void *memalign(size_t align, size_t n) { SHARED(void *, __interceptor_memalign(align, n)); }
int posix_memalign(void **p, size_t align, size_t n)
{
    SHARED(int, __interceptor_posix_memalign(p, align, n));
}
char *strdup(const char *s) { SHARED(char *, __interceptor_strdup(s)); }

void free(void *p)
{
    pthread_rwlock_rdlock(&lock);
    __interceptor_free(p);
    pthread_rwlock_unlock(&lock);
}

static void take(void) { pthread_rwlock_wrlock(&lock); }
static void give(void) { pthread_rwlock_unlock(&lock); }
static void give_in_child(void)
{
    /* its owner is a thread of the parent's */
    static const pthread_rwlock_t fresh = PTHREAD_RWLOCK_INITIALIZER;

    memcpy(&lock, &fresh, sizeof(lock));
}

/* Handlers run in the reverse order: with the first one, no other allocates behind it. */
__attribute__((constructor(101))) static void init(void)
{
    pthread_atfork(take, give, give_in_child);
}

/* What the dynamic linker allocates is known by who called malloc(), and here that is us. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void) { return "leak:ld-linux"; }
