/* SPDX-License-Identifier: MIT
 *
 * strv: an owned, NULL-terminated vector of owned strings (argv, environment, rules).
 */
#pragma once

#include "common/err.h"
#include <stddef.h>

struct strv {
    char **items;   /* owned, NULL-terminated; NULL while empty */
    size_t n;
    size_t room;    /* of items, the NULL included; 0 where somebody else made them */
};

#define STRV_INIT ((struct strv){ 0 })
#define autostrv __attribute__((cleanup(strv_done)))

void strv_done(struct strv *v);
int strv_add(struct strv *v, const char *s, struct err *e);
int strv_addf(struct strv *v, struct err *e, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
int strv_add_take(struct strv *v, char **s, struct err *e);   /* *s is NULL afterwards either way */
int strv_copy(struct strv *dst, const struct strv *src, struct err *e); /* dst is empty before */
/* For "K=V" vectors: sets K, replacing an earlier K=…. */
int strv_env_set(struct strv *v, const char *assignment, struct err *e);
const char *strv_env_get(const struct strv *v, const char *key);
