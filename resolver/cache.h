/* SPDX-License-Identifier: MIT
 *
 * cache: answers of upstreams by name and type, for as long as they said and an hour at most.
 * Bounded by number and by bytes; what was used least recently goes first. All sandboxes share it:
 * what is in there depends on upstreams alone, and nobody gets an answer from it without the
 * daemon's leave.
 */
#pragma once

#include "resolver/dns.h"
#include <sys/queue.h>

#define CACHE_ENTRIES 2048
#define CACHE_BYTES (8u * 1024 * 1024)
#define CACHE_BUCKETS 4096      /* a power of two */

struct cache_entry;
TAILQ_HEAD(cache_lru, cache_entry);

struct cache {
    uint64_t seed;              /* so that nobody can choose names that collide */
    size_t n, bytes;
    struct cache_lru lru;       /* the last used first */
    struct cache_entry *buckets[CACHE_BUCKETS];
};

void cache_init(struct cache *c, uint64_t seed);
void cache_done(struct cache *c);
/* Borrowed until the next call; NULL: not there. *ret_ttl: what is left, at least 1. */
struct dns_answer *cache_find(struct cache *c, const char *name, uint16_t qtype, int64_t now,
                              uint32_t *ret_ttl);
/* Takes a reference. What does not fit, or finds no memory, is not kept. */
void cache_put(struct cache *c, const char *name, uint16_t qtype, struct dns_answer *a,
               int64_t now);
/* Of a name and a type; the same in one process. */
uint64_t cache_hash(const struct cache *c, const char *name, uint16_t qtype);
