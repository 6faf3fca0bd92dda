/* SPDX-License-Identifier: MIT
 *
 * name: what may be a name, and new identifiers.
 */
#pragma once

#include "common/err.h"
#include "common/limits.h"
#include <stdbool.h>
#include <stddef.h>

/* Sandbox and image names: 1 to LIMIT_NAME of [a-z0-9_.-], first one a letter or digit. A name
 * that looks like an id (LIMIT_ID hex digits) is refused, so that the two cannot be confused. */
#define NAME_RULE "1 to 63 of [a-z0-9_.-], begin with a letter or digit and not look like an id"
bool name_valid(const char *s);
bool id_valid(const char *s);                 /* exactly LIMIT_ID lower-case hex digits */
bool id_prefix_valid(const char *s);          /* 1..LIMIT_ID of them */
bool env_key_valid(const char *s, size_t len);/* [A-Za-z_][A-Za-z0-9_]* */
bool env_valid(const char *assignment);       /* "KEY=value", KEY as above */
bool label_key_valid(const char *s);          /* [A-Za-z0-9][A-Za-z0-9_./-]*, LIMIT_LABEL_KEY */
bool utf8_valid(const char *s, size_t len);
/* Length of the well-formed UTF-8 sequence at s (1 to 4), 0 when there is none. */
size_t utf8_step(const char *s, size_t left);
/* The same, and 0 also for what must not reach a terminal or log as it is: C0 and C1 control
 * characters, line separators and marks that turn the direction of writing. */
size_t utf8_step_plain(const char *s, size_t left);
bool user_valid(const char *s);               /* a user name in the guest, or a decimal uid */

/* New id from getrandom(2) into buf of LIMIT_ID + 1 bytes. */
int id_new(char *buf, struct err *e);
/* A name for a sandbox that got none: two words and digits ("brisk-otter-42"), LIMIT_NAME + 1. */
int name_new(char *buf, struct err *e);
