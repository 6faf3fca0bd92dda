/* SPDX-License-Identifier: MIT
 *
 * policies: what the commands about policies have in common. A policy is named (a preset, or one of
 * the user's), or it is a file: a word with a '/' in it, or "-" for stdin. What a file says is the
 * daemon's to judge; here it only has to be text that a request can carry.
 */
#pragma once

#include "client/api_client.h"
#include "client/app.h"
#include "common/err.h"
#include "common/jfield.h"
#include "common/sbuf.h"
#include <stdbool.h>
#include <stdint.h>

bool policy_is_file(const char *word);
/* The text of a file, or of stdin for "-". Any word is a path here. */
int policy_file_read(const char *path, char **ret, struct err *e);
/* An error of a request that named a policy by `word`: says so if a file of that name is here.
 * Always -1. */
int policy_explain(const char *word, struct err *e);

/* A call whose answer is decoded into `out` and, as it came, is left in `body`. */
int policy_fetch(struct app *app, const struct call *call, const struct jfield *table, void *out,
                 struct sbuf *body, struct err *e);
/* JSON that was decoded before, on one line. */
int policy_print_json(const struct sbuf *body, struct err *e);
/* Sends a struct as the body of a request and throws the answer away. */
int policy_send(struct app *app, const char *method, const char *path, const struct jfield *table,
                const void *req, struct err *e);
/* "/v1/policies/NAME" */
void url_policy(struct sbuf *b, const char *name);

/* "2026-01-31 08:00:00" here, or "-" for no time. buf of 40 bytes. */
const char *local_time(int64_t us, char *buf);
