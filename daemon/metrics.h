/* SPDX-License-Identifier: MIT
 *
 * metrics: the text that Prometheus reads, version 0.0.4: a family's HELP and TYPE, then its
 * samples, one a line. Values of labels are whatever somebody called something: they are escaped,
 * and what is not UTF-8 becomes U+FFFD. Names of metrics and labels are literals of ours.
 */
#pragma once

#include "common/sbuf.h"

#include <stddef.h>
#include <stdint.h>

#define METRICS_TYPE "text/plain; version=0.0.4; charset=utf-8"

/* type: counter, gauge or histogram. */
void metrics_family(struct sbuf *b, const char *name, const char *type, const char *help);

struct metrics_label { const char *name, *value; };     /* value NULL: an empty one */
/* suffix: "" or what a histogram's samples have behind the name. */
void metrics_count(struct sbuf *b, const char *name, const char *suffix,
                   const struct metrics_label *labels, size_t n, uint64_t v);
/* Microseconds, written as seconds, exactly. */
void metrics_seconds(struct sbuf *b, const char *name, const char *suffix,
                     const struct metrics_label *labels, size_t n, uint64_t us);
