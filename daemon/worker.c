/* SPDX-License-Identifier: MIT */
#include "daemon/worker.h"
#include "common/auto.h"
#include "common/limits.h"
#include "common/log.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* A few kinds of jobs for each sandbox and each exec that is about to end. */
#define QUEUE_MAX (LIMIT_SANDBOXES * 8)

struct job {
    struct job *next;       /* owned */
    worker_fn fn;
    void *ctx;              /* borrowed from the poster, outlives the worker */
    char id[LIMIT_ID * 2 + 8];
    char detail[64];
};

struct worker {
    pthread_t thread;
    pthread_mutex_t lock;   /* guards all below; a leaf */
    pthread_cond_t wake;
    struct job *head, **tail;
    uint32_t n;
    bool stop;
};

static struct job *next_job(struct worker *w)
{
    pthread_mutex_lock(&w->lock);
    while (!w->head && !w->stop)
        pthread_cond_wait(&w->wake, &w->lock);
    struct job *j = w->head;
    if (j) {
        w->head = j->next;
        if (!w->head)
            w->tail = &w->head;
        w->n--;
    }
    pthread_mutex_unlock(&w->lock);
    return j;
}

static void *worker_main(void *arg)
{
    struct worker *w = arg;
    struct job *j;

    pthread_setname_np(pthread_self(), "worker");
    while ((j = next_job(w))) {
        j->fn(j->ctx, j->id, j->detail);
        free(j);
    }
    return NULL;
}

int worker_new(struct worker **ret, struct err *e)
{
    autofree struct worker *w = calloc(1, sizeof(*w));

    if (!w)
        return err_nomem(e);
    w->tail = &w->head;
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->wake, NULL);
    int r = pthread_create(&w->thread, NULL, worker_main, w);
    if (r)
        return err_sys(e, ERR_INTERNAL, r, "cannot start the worker thread");
    *ret = take_ptr(w);
    return 0;
}

void worker_free(struct worker *w)
{
    if (!w)
        return;
    pthread_mutex_lock(&w->lock);
    w->stop = true;
    pthread_cond_broadcast(&w->wake);
    pthread_mutex_unlock(&w->lock);
    pthread_join(w->thread, NULL);
    pthread_cond_destroy(&w->wake);
    pthread_mutex_destroy(&w->lock);
    free(w);
}

void worker_post(struct worker *w, worker_fn fn, void *ctx, const char *id, const char *detail)
{
    static struct log_rate rate;
    struct job *j = calloc(1, sizeof(*j));

    if (j) {
        j->fn = fn;
        j->ctx = ctx;
        snprintf(j->id, sizeof(j->id), "%s", id);
        snprintf(j->detail, sizeof(j->detail), "%s", detail ? detail : "");
    }
    pthread_mutex_lock(&w->lock);
    for (struct job *q = w->head; j && q; q = q->next) {
        if (q->fn == fn && q->ctx == ctx && strcmp(q->id, j->id) == 0) {
            pthread_mutex_unlock(&w->lock);
            free(j);
            return;
        }
    }
    bool queued = j && w->n < QUEUE_MAX;
    if (queued) {
        *w->tail = j;
        w->tail = &j->next;
        w->n++;
        pthread_cond_signal(&w->wake);
    }
    pthread_mutex_unlock(&w->lock);
    if (queued)
        return;
    free(j);
    if (log_rate_ok(&rate, 1, 10000))
        log_err(LOG_CTX(.sandbox = id), "cannot queue a job; the next reconcile will repair it");
}

uint32_t worker_waiting(struct worker *w)
{
    pthread_mutex_lock(&w->lock);
    uint32_t n = w->n;
    pthread_mutex_unlock(&w->lock);
    return n;
}
