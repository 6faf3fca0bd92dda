/* SPDX-License-Identifier: MIT
 *
 * guests: how much each source address has in use at the moment, so that no sandbox can take what
 * all share: it gets a quarter of what is free at most. So there is always something left for one
 * that has nothing yet, however many take what they can. Only those that use something take
 * memory.
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

/* False where it has `max` of them already, or its share of the `n_free` that nobody has (or there
 * is no memory). */
bool guests_take(struct guests *g, uint32_t address, enum guests_what what, uint32_t max,
                 uint32_t n_free);
void guests_give(struct guests *g, uint32_t address, enum guests_what what);
void guests_done(struct guests *g);
