/* SPDX-License-Identifier: MIT */
#include "resolver/cache.h"

#include <stdlib.h>
#include <string.h>

struct cache_entry {
    struct cache_entry *next;       /* of the bucket */
    TAILQ_ENTRY(cache_entry) used;
    uint64_t hash;
    int64_t until;                  /* milliseconds, monotonic */
    struct dns_answer *answer;      /* ref */
    size_t bytes;
    uint16_t qtype;
    char name[];
};

void cache_init(struct cache *c, uint64_t seed)
{
    *c = (struct cache){ .seed = seed };
    TAILQ_INIT(&c->lru);
}

uint64_t cache_hash(const struct cache *c, const char *name, uint16_t qtype)
{
    uint64_t h = c->seed ^ (uint64_t)qtype * 0x9e3779b97f4a7c15u;

    for (const char *p = name; *p; p++) {
        h = (h ^ (uint8_t)*p) * 0x9ddfea08eb382d69u;
        h ^= h >> 29;
    }
    return h ^ h >> 32;
}

static struct cache_entry **bucket(struct cache *c, uint64_t hash)
{
    return &c->buckets[hash & (CACHE_BUCKETS - 1)];
}

static void drop(struct cache *c, struct cache_entry *x)
{
    struct cache_entry **p = bucket(c, x->hash);

    while (*p != x)
        p = &(*p)->next;
    *p = x->next;
    TAILQ_REMOVE(&c->lru, x, used);
    c->n--;
    c->bytes -= x->bytes;
    dns_answer_unref(x->answer);
    free(x);
}

void cache_done(struct cache *c)
{
    while (!TAILQ_EMPTY(&c->lru))
        drop(c, TAILQ_FIRST(&c->lru));
}

static struct cache_entry *find(struct cache *c, const char *name, uint16_t qtype, uint64_t hash)
{
    struct cache_entry *x = *bucket(c, hash);

    while (x && (x->hash != hash || x->qtype != qtype || strcmp(x->name, name) != 0))
        x = x->next;
    return x;
}

struct dns_answer *cache_find(struct cache *c, const char *name, uint16_t qtype, int64_t now,
                              uint32_t *ret_ttl)
{
    struct cache_entry *x = find(c, name, qtype, cache_hash(c, name, qtype));

    if (!x)
        return NULL;
    if (x->until <= now) {
        drop(c, x);
        return NULL;
    }
    TAILQ_REMOVE(&c->lru, x, used);
    TAILQ_INSERT_HEAD(&c->lru, x, used);
    *ret_ttl = (uint32_t)((x->until - now + 999) / 1000);
    return x->answer;
}

void cache_put(struct cache *c, const char *name, uint16_t qtype, struct dns_answer *a, int64_t now)
{
    uint64_t hash = cache_hash(c, name, qtype);
    struct cache_entry *x = find(c, name, qtype, hash);
    size_t len = strlen(name) + 1;

    if (x)
        drop(c, x);
    x = calloc(1, sizeof(*x) + len);
    if (!x)
        return;
    memcpy(x->name, name, len);
    x->qtype = qtype;
    x->hash = hash;
    x->until = now + (int64_t)a->ttl * 1000;
    x->answer = dns_answer_ref(a);
    x->bytes = sizeof(*x) + len + a->bytes;
    x->next = *bucket(c, hash);
    *bucket(c, hash) = x;
    TAILQ_INSERT_HEAD(&c->lru, x, used);
    c->n++;
    c->bytes += x->bytes;
    while (c->n > CACHE_ENTRIES || c->bytes > CACHE_BYTES)
        drop(c, TAILQ_LAST(&c->lru, cache_lru));
}
