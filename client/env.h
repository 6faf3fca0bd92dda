/* SPDX-License-Identifier: MIT
 *
 * env: variables from --env and --env-file, as docker reads them: "K=V", or "K" for the value it
 * has here (nothing if it has none). A file has one per line; empty lines and those with # are
 * passed over. What is given later wins; --env wins over files.
 */
#pragma once

#include "common/err.h"
#include "common/strv.h"

int env_collect(const struct strv *files, const struct strv *given, struct strv *ret,
                struct err *e);
