/* SPDX-License-Identifier: MIT
 *
 * What is stored as the body of an answer is its Location, a newline, and the JSON text, which is
 * compact and so has no newline of its own. Before the answer there is a row with status 0, and the
 * id of what is to be made as its body.
 */
#include "daemon/idem.h"

#include "common/auto.h"
#include "common/io.h"
#include "common/log.h"
#include "common/name.h"
#include "daemon/fault.h"

#include <nettle/sha2.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct running {                /* a request with a key that is being done; on its thread's stack */
    struct running *next;
    uid_t uid;
    const char *key;
};

struct idem {
    struct store *store;        /* borrowed */
    pthread_mutex_t lock;       /* guards running */
    pthread_cond_t changed;     /* CLOCK_MONOTONIC */
    struct running *running;
};

int idem_new(struct store *st, struct idem **ret, struct err *e)
{
    struct idem *i = calloc(1, sizeof(*i));
    pthread_condattr_t attr;

    if (!i)
        return err_nomem(e);
    i->store = st;
    pthread_mutex_init(&i->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&i->changed, &attr);
    pthread_condattr_destroy(&attr);
    *ret = i;
    return 0;
}

void idem_free(struct idem *i)
{
    if (!i)
        return;
    pthread_cond_destroy(&i->changed);
    pthread_mutex_destroy(&i->lock);
    free(i);
}

bool idem_key_valid(const char *key)
{
    size_t n = strlen(key);

    for (size_t k = 0; k < n; k++)
        if (key[k] <= ' ' || key[k] > '~')
            return false;
    return n >= 1 && n <= LIMIT_IDEMPOTENCY_KEY;
}

/* Method, path with its parts' lengths, query and body: what makes two requests the same. */
static void request_hash(const struct call *c, char out[2 * SHA256_DIGEST_SIZE + 1])
{
    static const char digits[] = "0123456789abcdef";
    struct sha256_ctx h;
    uint8_t d[SHA256_DIGEST_SIZE];

    sha256_init(&h);
    sha256_update(&h, strlen(c->method) + 1, (const uint8_t *)c->method);
    for (size_t i = 0; i < c->target.path.n; i++)
        sha256_update(&h, strlen(c->target.path.items[i]) + 1,
                      (const uint8_t *)c->target.path.items[i]);
    sha256_update(&h, 1, (const uint8_t *)"?");
    for (size_t i = 0; i < c->target.query.n; i++)
        sha256_update(&h, strlen(c->target.query.items[i]) + 1,
                      (const uint8_t *)c->target.query.items[i]);
    sha256_update(&h, 1, (const uint8_t *)"\n");
    sha256_update(&h, c->raw_len, (const uint8_t *)(c->raw ? c->raw : ""));
    sha256_digest(&h, sizeof(d), d);
    for (size_t i = 0; i < sizeof(d); i++) {
        out[2 * i] = digits[d[i] >> 4];
        out[2 * i + 1] = digits[d[i] & 15];
    }
    out[2 * sizeof(d)] = '\0';
}

static bool taken_locked(const struct idem *i, const struct running *r)
{
    for (const struct running *o = i->running; o; o = o->next)
        if (o->uid == r->uid && strcmp(o->key, r->key) == 0)
            return true;
    return false;
}

static int enter(struct idem *i, struct running *r, struct err *e)
{
    int64_t deadline = deadline_in(DEADLINE_CREATE);
    struct timespec ts = { .tv_sec = deadline / 1000, .tv_nsec = deadline % 1000 * 1000000 };
    int rc = 0;

    pthread_mutex_lock(&i->lock);
    while (taken_locked(i, r) && rc == 0)
        rc = pthread_cond_timedwait(&i->changed, &i->lock, &ts);
    if (rc == 0) {
        r->next = i->running;
        i->running = r;
    }
    pthread_mutex_unlock(&i->lock);
    if (rc)
        return err_set(e, ERR_TIMEOUT, "another request with this Idempotency-Key still runs");
    return 0;
}

static void leave(struct idem *i, struct running *r)
{
    pthread_mutex_lock(&i->lock);
    for (struct running **pp = &i->running; *pp; pp = &(*pp)->next) {
        if (*pp == r) {
            *pp = r->next;
            break;
        }
    }
    pthread_cond_broadcast(&i->changed);
    pthread_mutex_unlock(&i->lock);
}

static int begin(struct idem *i, struct call *c, const char *hash, const char *former,
                 struct err *e)
{
    c->again = former && id_valid(former);
    if (c->again) {
        memcpy(c->object, former, sizeof(c->object));
        return 0;
    }
    if (id_new(c->object, e) < 0 ||
        store_idem_put(i->store, c->caller.id.uid, c->idem_key, hash, 0, c->object, e) < 0)
        return -1;
    fault_here(FAULT_KEY_BEGIN);
    return 0;
}

/* It failed, so nothing was made. If this fails too, a second try looks for nothing. */
static void forget(struct idem *i, const struct call *c)
{
    struct err e = ERR_INIT;

    if (store_idem_drop(i->store, c->caller.id.uid, c->idem_key, &e) < 0)
        log_warn(LOG_CTX(.request = c->caller.request, .error = &e),
                 "the key of a failed request stays, ignoring");
}

static int replay(struct call *c, int status, const char *stored, struct err *e)
{
    const char *nl = strchr(stored, '\n');
    size_t location = nl ? (size_t)(nl - stored) : 0;

    if (reply_header(c, "Idempotency-Replayed", e, "true") < 0 ||
        (location && reply_header(c, "Location", e, "%.*s", (int)location, stored) < 0))
        return -1;
    char *body = strdup(nl ? nl + 1 : stored);
    if (!body)
        return err_nomem(e);
    c->reply.status = status;
    return reply_take(c, "application/json", &body, strlen(body), e);
}

static void keep(struct idem *i, const struct call *c, const char *hash)
{
    autosbuf struct sbuf b = SBUF(MIB);
    struct err e = ERR_INIT;

    for (size_t k = 0; k < c->reply.n_headers; k++)
        if (strcmp(c->reply.headers[k].name, "Location") == 0)
            sbuf_fmt(&b, "%s", c->reply.headers[k].value);
    sbuf_chr(&b, '\n');
    sbuf_add(&b, c->reply.body, c->reply.len);
    if (b.failed || store_idem_put(i->store, c->caller.id.uid, c->idem_key, hash, c->reply.status,
                                   sbuf_str(&b), &e) < 0)
        log_warn(LOG_CTX(.request = c->caller.request, .error = &e),
                 "an answer could not be kept for its Idempotency-Key, ignoring");
}

static int run_entered(struct idem *i, struct call *c, route_fn handler, struct err *e)
{
    char hash[2 * SHA256_DIGEST_SIZE + 1];
    autofree char *old_hash = NULL, *old_body = NULL;
    int status = 0;
    int known = store_idem_get(i->store, c->caller.id.uid, c->idem_key, &old_hash, &status,
                               &old_body, e);

    if (known < 0)
        return -1;
    request_hash(c, hash);
    if (known) {
        if (strcmp(hash, old_hash) != 0) {
            err_set(e, ERR_IDEMPOTENCY, "this Idempotency-Key was used for another request");
            return err_hint(e, "take a new key for each new request");
        }
        if (status)
            return replay(c, status, old_body, e);
    }
    if (begin(i, c, hash, old_body, e) < 0)
        return -1;
    if (handler(c, e) < 0) {
        forget(i, c);
        return -1;
    }
    fault_here(FAULT_KEY_KEEP);
    if (c->reply.status >= 200 && c->reply.status < 300 && c->reply.body)
        keep(i, c, hash);
    fault_here(FAULT_KEY_ANSWER);
    return 0;
}

int idem_run(struct idem *i, struct call *c, route_fn handler, struct err *e)
{
    struct running r = { .uid = c->caller.id.uid, .key = c->idem_key };

    if (enter(i, &r, e) < 0)
        return -1;
    int rc = run_entered(i, c, handler, e);
    leave(i, &r);
    return rc;
}
