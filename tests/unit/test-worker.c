/* SPDX-License-Identifier: MIT */
#include "common/auto.h"
#include "daemon/worker.h"
#include "tests/harness/test.h"

#include <pthread.h>
#include <stdio.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static unsigned ran, entered;
static bool gate_open = true;
static char order[64];

static void job(void *ctx, const char *id, const char *detail)
{
    pthread_mutex_lock(&lock);
    entered++;
    pthread_cond_broadcast(&changed);
    while (!gate_open)
        pthread_cond_wait(&changed, &lock);
    ran++;
    strncat(order, id, sizeof(order) - strlen(order) - 1);
    pthread_mutex_unlock(&lock);
}

static void set_gate(bool open)
{
    pthread_mutex_lock(&lock);
    gate_open = open;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

static void wait_entered(unsigned n)
{
    pthread_mutex_lock(&lock);
    while (entered < n)
        pthread_cond_wait(&changed, &lock);
    pthread_mutex_unlock(&lock);
}

TEST(jobs_run_in_order_and_all_before_free_returns)
{
    struct worker *w = NULL;
    struct err e = ERR_INIT;

    ASSERT_EQ(worker_new(&w, &e), 0);
    worker_post(w, job, NULL, "a", NULL);
    worker_post(w, job, NULL, "b", "x");
    worker_post(w, job, NULL, "c", NULL);
    worker_free(w);
    ASSERT_STREQ(order, "abc");
}

TEST(a_job_that_waits_is_not_queued_twice)
{
    struct worker *w = NULL;
    struct err e = ERR_INIT;

    ASSERT_EQ(worker_new(&w, &e), 0);
    set_gate(false);
    worker_post(w, job, NULL, "a", NULL);
    wait_entered(1);                        /* a runs and is held; what follows waits */
    worker_post(w, job, NULL, "b", NULL);
    worker_post(w, job, NULL, "b", NULL);
    /* runs already: news that came since must not be lost */
    worker_post(w, job, NULL, "a", NULL);
    set_gate(true);
    worker_free(w);
    ASSERT_STREQ(order, "aba");
}

static void post_again(void *ctx, const char *id, const char *detail)
{
    struct worker **w = ctx;

    if (strlen(id) < 3) {
        char next[8];
        snprintf(next, sizeof(next), "%sx", id);
        worker_post(*w, post_again, ctx, next, NULL);
    }
    ran++;
}

TEST(a_job_may_post)
{
    static struct worker *w;
    struct err e = ERR_INIT;

    ASSERT_EQ(worker_new(&w, &e), 0);
    worker_post(w, post_again, &w, "x", NULL);
    worker_free(w);
    ASSERT_EQ(ran, 3);
}
