/* SPDX-License-Identifier: MIT */
#include "common/strv.h"
#include "common/auto.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void strv_done(struct strv *v)
{
    for (size_t i = 0; i < v->n; i++)
        free(v->items[i]);
    free(v->items);
    *v = STRV_INIT;
}

int strv_add_take(struct strv *v, char **s, struct err *e)
{
    autofree char *item = take_ptr(*s);

    if (!item)
        return err_nomem(e);
    if (v->n + 2 > v->room) {       /* doubled: tables of thousands of cells are built with this */
        size_t room = (v->n + 2) * 2;
        char **grown = reallocarray(v->items, room, sizeof(char *));
        if (!grown)
            return err_nomem(e);
        v->items = grown;
        v->room = room;
    }
    v->items[v->n++] = take_ptr(item);
    v->items[v->n] = NULL;
    return 0;
}

int strv_add(struct strv *v, const char *s, struct err *e)
{
    char *copy = strdup(s);

    return strv_add_take(v, &copy, e);
}

int strv_addf(struct strv *v, struct err *e, const char *fmt, ...)
{
    char *s = NULL;
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vasprintf(&s, fmt, ap);
    va_end(ap);
    if (n < 0)
        s = NULL;
    return strv_add_take(v, &s, e);
}

int strv_copy(struct strv *dst, const struct strv *src, struct err *e)
{
    autostrv struct strv copy = STRV_INIT;

    for (size_t i = 0; i < src->n; i++)
        if (strv_add(&copy, src->items[i], e) < 0)
            return -1;
    *dst = copy;
    copy = STRV_INIT;
    return 0;
}

/* Length of the key, with the '='; the whole length where there is none. */
static size_t key_length(const char *assignment)
{
    const char *eq = strchr(assignment, '=');

    return eq ? (size_t)(eq - assignment) + 1 : strlen(assignment) + 1;
}

int strv_env_set(struct strv *v, const char *assignment, struct err *e)
{
    size_t key = key_length(assignment);

    for (size_t i = 0; i < v->n; i++)
        if (strncmp(v->items[i], assignment, key) == 0) {
            char *copy = strdup(assignment);

            if (!copy)
                return err_nomem(e);
            free(v->items[i]);
            v->items[i] = copy;
            return 0;
        }
    return strv_add(v, assignment, e);
}

const char *strv_env_get(const struct strv *v, const char *key)
{
    size_t len = strlen(key);

    for (size_t i = 0; i < v->n; i++)
        if (strncmp(v->items[i], key, len) == 0 && v->items[i][len] == '=')
            return v->items[i] + len + 1;
    return NULL;
}
