/* SPDX-License-Identifier: MIT
 *
 * guests: how much each source address has in use at the moment, so that no sandbox can take what
 * all share. Only those that use something take memory.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define GUESTS_BUCKETS 256

enum guests_what { GUESTS_QUESTIONS, GUESTS_CONNECTIONS, GUESTS_WHAT };

struct guest;
struct guests {
    struct guest *buckets[GUESTS_BUCKETS];
};

/* False where it has `max` of them already (or there is no memory). */
bool guests_take(struct guests *g, uint32_t address, enum guests_what what, uint32_t max);
void guests_give(struct guests *g, uint32_t address, enum guests_what what);
void guests_done(struct guests *g);
