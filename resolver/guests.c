/* SPDX-License-Identifier: MIT */
#include "resolver/guests.h"

#include <stdlib.h>

struct guest {
    struct guest *next;
    uint32_t address;
    uint32_t used[GUESTS_WHAT];
};

/* Where the pointer to it is, or would be. */
static struct guest **find(struct guests *g, uint32_t address)
{
    /* Neighbours differ in their last byte; those who collide cost a few steps, as all are few. */
    struct guest **p = &g->buckets[(address ^ address >> 8) & (GUESTS_BUCKETS - 1)];

    while (*p && (*p)->address != address)
        p = &(*p)->next;
    return p;
}

bool guests_take(struct guests *g, uint32_t address, enum guests_what what, uint32_t max,
                 uint32_t n_free)
{
    struct guest **p = find(g, address);
    uint32_t used = *p ? (*p)->used[what] : 0;

    if (n_free == 0 || used >= max || used > n_free / 4)
        return false;
    if (!*p) {
        *p = calloc(1, sizeof(**p));
        if (!*p)
            return false;
        (*p)->address = address;
    }
    (*p)->used[what]++;
    return true;
}

void guests_give(struct guests *g, uint32_t address, enum guests_what what)
{
    struct guest **p = find(g, address), *x = *p;

    if (!x || x->used[what] == 0)
        return;
    x->used[what]--;
    for (unsigned i = 0; i < GUESTS_WHAT; i++)
        if (x->used[i] > 0)
            return;
    *p = x->next;
    free(x);
}

void guests_done(struct guests *g)
{
    for (unsigned i = 0; i < GUESTS_BUCKETS; i++)
        while (g->buckets[i]) {
            struct guest *x = g->buckets[i];
            g->buckets[i] = x->next;
            free(x);
        }
}
