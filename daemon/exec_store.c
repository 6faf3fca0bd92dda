/* SPDX-License-Identifier: MIT
 *
 * Rows and files. The end of an exec is written by the worker, as the event thread must not wait
 * for the disk; only then is the guest told to forget it. So a crash anywhere in between finds the
 * exit again in the guest's SESSION frames.
 */
#include "common/auto.h"
#include "common/io.h"
#include "common/name.h"
#include "daemon/exec_priv.h"
#include "daemon/fault.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#define RING_NAME (LIMIT_ID + 8)

static void ring_name(char *buf, const char *id, int i)
{
    snprintf(buf, RING_NAME, "%s.%s", id, i == 0 ? "out" : "err");
}

int exec_open_rings(struct exec *x, struct err *e)
{
    for (int i = 0; i < 2; i++) {
        char name[RING_NAME];
        struct ring *ring = NULL;
        ring_name(name, x->row.id, i);
        if (ring_open(x->table->dir_fd, name, LIMIT_EXEC_RING, &ring, e) < 0)
            return -1;
        pthread_mutex_lock(&x->table->lock);
        x->out[i].ring = ring;
        x->out[i].end = x->hold_at[i] = ring_end(ring);
        pthread_mutex_unlock(&x->table->lock);
    }
    return 0;
}

void exec_remove_rings(struct exec_table *t, const char *id)
{
    for (int i = 0; i < 2; i++) {
        char name[RING_NAME];
        ring_name(name, id, i);
        if (unlinkat(t->dir_fd, name, 0) < 0 && errno != ENOENT)
            log_warn(LOG_CTX(.sandbox = t->sandbox, .exec = id),
                     "cannot remove an output file: %m, ignoring");
    }
}

void exec_park_locked(struct exec *x)
{
    if (!x->stored || x->readers)
        return;
    for (int i = 0; i < 2; i++)
        if (x->out[i].ring)
            ring_park(x->out[i].ring);
}

static int by_stream(const void *a, const void *b)
{
    const struct exec_row *x = a, *y = b;
    return x->stream < y->stream ? -1 : x->stream > y->stream;
}

static int load_one(struct exec_table *t, struct exec_row *row, struct err *e)
{
    struct err ring_error = ERR_INIT;
    struct exec *x = exec_new(t, e);
    if (!x)
        return -1;
    x->row = *row;
    *row = (struct exec_row){ 0 };
    x->phase = x->row.state ? EXEC_ENDED : EXEC_RUNNING;
    x->stored = x->row.state != 0;
    x->awaits_word = !x->stored;
    if (exec_open_rings(x, &ring_error) < 0) {
        log_warn(LOG_CTX(.sandbox = t->sandbox, .exec = x->row.id, .error = &ring_error),
                 "kept output cannot be used, the command is ended if it still runs");
        x->broken = true;
        exec_want_end_locked(x, 0); /* sent when the two ends are in step */
    }
    /* the most the former daemon can have promised: it never gave more than a window past the end
     */
    for (int i = 0; i < 2; i++)
        x->out[i].credit = x->out[i].end + LIMIT_WINDOW;
    if (x->phase == EXEC_RUNNING && !x->row.detach && !x->broken) {
        /* its client went with the former daemon, and may come back */
        x->held = true;
        x->attach_by = now_mono_ms() + t->deps.attach_ms;
    }
    int rc = x->stored ? 0
                       : quota_count(t->deps.quota, t->deps.owner.uid, &exec_use, &x->charge, e);
    if (rc == 0)
        rc = exec_list_add_locked(t, x, e); /* nobody else knows the table yet */
    exec_drop(x);
    return rc;
}

/* Rings of execs whose row was never written, or is not in a database that was put back. */
static void drop_foreign_rings(struct exec_table *t)
{
    int fd = fcntl(t->dir_fd, F_DUPFD_CLOEXEC, 3);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *de;

    if (!d) {
        fd_close(fd);
        return;
    }
    rewinddir(d);
    while ((de = readdir(d))) {
        char id[LIMIT_ID + 1] = "";
        bool known = false;
        if (strlen(de->d_name) <= LIMIT_ID || de->d_name[LIMIT_ID] != '.')
            continue;
        memcpy(id, de->d_name, LIMIT_ID);
        for (size_t i = 0; i < t->n && !known; i++)
            known = strcmp(t->execs[i]->row.id, id) == 0;
        if (!known && id_valid(id))
            exec_remove_rings(t, id);
    }
    closedir(d);
}

int exec_load(struct exec_table *t, struct err *e)
{
    struct exec_row *rows = NULL;
    size_t n = 0;
    uint32_t first = 0;
    if (store_exec_list(t->deps.store, t->sandbox, &rows, &n, e) < 0)
        return -1;
    if (n > 1)
        qsort(rows, n, sizeof(*rows), by_stream);
    int rc = 0;
    for (size_t i = 0; i < n && rc == 0; i++) {
        t->next_stream = rows[i].stream < UINT32_MAX ? rows[i].stream + 1 : UINT32_MAX;
        rc = load_one(t, &rows[i], e);
    }
    for (size_t i = 0; i < n; i++)
        exec_row_done(&rows[i]);
    free(rows);
    if (rc == 0)
        drop_foreign_rings(t);
    if (n == 0) {
        /* anywhere but 0, with room above: ids of an earlier table are not met again */
        if (getrandom(&first, sizeof(first), 0) != sizeof(first))
            first = (uint32_t)now_real_us();
        t->next_stream = 1 + (first & 0x3fffffff);
    }
    return rc;
}

/* The next exec whose row has to be written, as a copy whose strings are x's; NULL: none. */
static struct exec *next_dirty(struct exec_table *t, struct exec_row *ret_row,
                               unsigned *ret_version)
{
    struct exec *found = NULL;
    pthread_mutex_lock(&t->lock);
    for (size_t i = 0; i < t->n && !found; i++) {
        struct exec *x = t->execs[i];
        if (x->dirty) {
            found = x;
            exec_hold(x);
            *ret_row = x->row;
            /* the exit of one whose output is still coming is not its end */
            if (x->phase != EXEC_ENDED) {
                ret_row->how = 0;
                ret_row->value = 0;
            }
            *ret_version = x->version;
        }
    }
    pthread_mutex_unlock(&t->lock);
    return found;
}

/* Takes the oldest of more than LIMIT_EXECS_KEPT ended execs out of the table; NULL: none. Not one
 * that somebody holds, nor one whose client is still expected, unless there are far too many. */
static struct exec *next_too_old(struct exec_table *t)
{
    struct exec *oldest = NULL, *any = NULL;
    size_t ended = 0;
    pthread_mutex_lock(&t->lock);
    for (size_t i = 0; i < t->n; i++) {
        struct exec *x = t->execs[i];
        if (x->phase != EXEC_ENDED || !x->stored)
            continue;
        ended++;
        bool idle = __atomic_load_n(&x->refs, __ATOMIC_ACQUIRE) == 1;
        if (!idle || !(x->forgotten || !t->agent))
            continue;
        if (!any)
            any = x;
        if (!oldest && !x->held)
            oldest = x;
    }
    if (ended > LIMIT_EXECS && !oldest)
        oldest = any;
    if (ended <= LIMIT_EXECS_KEPT)
        oldest = NULL;
    if (oldest) {
        exec_hold(oldest);
        exec_list_remove_locked(t, oldest);
    }
    pthread_mutex_unlock(&t->lock);
    return oldest;
}

static void store_failed(struct exec_table *t, const struct exec *x, const struct err *e)
{
    log_err(LOG_CTX(.sandbox = t->sandbox, .exec = x->row.id, .error = e),
            "cannot store the state of a command, trying again");
    pthread_mutex_lock(&t->lock);
    t->store_again = now_mono_ms() + EXEC_STORE_RETRY_MS;
    exec_arm_locked(t, EXEC_STORE_RETRY_MS);
    pthread_mutex_unlock(&t->lock);
}

static void store_job(void *ctx, const char *id, const char *detail)
{
    struct exec_table *t = ctx;
    struct exec_row row;
    unsigned version = 0;
    struct exec *x;
    struct err e = ERR_INIT;
    bool failed = false;
    (void)id;
    (void)detail;
    pthread_mutex_lock(&t->lock);
    t->posted = false; /* what becomes dirty from here on is posted again */
    pthread_mutex_unlock(&t->lock);
    while (!failed && (x = next_dirty(t, &row, &version))) {
        failed = (row.state && fault_at(FAULT_EXEC_END, &e) < 0) ||
                 store_exec_update(t->deps.store, &row, &e) < 0;
        if (failed) {
            store_failed(t, x, &e);
        } else {
            if (row.state)
                fault_here(FAULT_EXEC_FORGET);
            pthread_mutex_lock(&t->lock);
            if (x->version == version)
                x->dirty = false;
            if (row.state)
                x->stored = true;
            exec_push_forget_locked(x);
            exec_park_locked(x);
            pthread_mutex_unlock(&t->lock);
        }
        exec_drop(x);
    }
    while (!failed && (x = next_too_old(t))) {
        if (store_exec_delete(t->deps.store, x->row.id, &e) < 0) {
            log_warn(LOG_CTX(.sandbox = t->sandbox, .exec = x->row.id, .error = &e),
                     "cannot remove the row of an old command, ignoring");
            failed = true;
        }
        fault_here(FAULT_EXEC_OLD);
        exec_remove_rings(t, x->row.id);
        exec_drop(x);
    }
    exec_table_unref(t);
}

void exec_post_locked(struct exec_table *t)
{
    if (t->posted)
        return;
    t->posted = true;
    exec_table_ref(t);
    worker_post(t->deps.worker, store_job, t, t->job, NULL);
}
