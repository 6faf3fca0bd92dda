/* SPDX-License-Identifier: MIT */
#include "tests/fakes/execworld.h"
#include "common/auto.h"
#include "common/io.h"
#include "common/log.h"
#include "tests/harness/test.h"
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static void need(int rc, const struct err *e, const char *what)
{
    if (rc >= 0)
        return;
    fprintf(stderr, "execworld: %s: %s\n", what, e->msg);
    abort();
}

static void add_sandbox(struct world *w)
{
    struct err e = ERR_INIT;
    struct image_row image = {
        .digest = "sha256:00",
        .name = (char *)"debian",
        .variant = (char *)"debian",
        .os = (char *)"os",
        .kernel = (char *)"k",
        .recipe = (char *)"r",
        .created_at = 1,
    };
    need(store_image_insert(w->store, &image, &e), &e, "image");
    struct vm_row vm = {
        .id = WORLD_ID,
        .name = (char *)"box",
        .groups = (char *)"",
        .state = VM_RUNNING,
        .image_name = (char *)"debian",
        .image_digest = (char *)"sha256:00",
        .cpus = 1,
        .memory = 1,
        .disk = 1,
        .machine = (char *)"microvm",
        .created_at = 1,
    };
    need(store_vm_insert(w->store, &vm, &e), &e, "sandbox");
}

void world_init(struct world *w)
{
    struct err e = ERR_INIT;
    char path[128];
    *w = (struct world){ 0 };
    log_init("test", LOG_CRIT);
    guestpeer_init(&w->peer);
    w->socket = w->peer.path;
    snprintf(path, sizeof(path), "%s/db", w->peer.dir);
    need(store_open(path, &w->store, &e), &e, "store");
    add_sandbox(w);
    need(worker_new(&w->worker, &e), &e, "worker");
    need(evloop_new(&w->loop, &e), &e, "loop");
}

static void on_log(void *arg, int level, const char *text, size_t len)
{
    struct world *w = arg;
    __atomic_add_fetch(&w->logs, 1, __ATOMIC_SEQ_CST);
}

static void on_closed(void *arg)
{
    struct world *w = arg;
    __atomic_add_fetch(&w->closed, 1, __ATOMIC_SEQ_CST);
}

void world_open(struct world *w)
{
    struct err e = ERR_INIT;
    struct exec_deps deps = {
        .store = w->store,
        .worker = w->worker,
        .loop = w->loop,
        .quota = w->quota,
        .owner = { .uid = WORLD_UID },
        .attach_ms = w->attach_ms,
        .stall_ms = w->stall_ms,
        .end_ms = w->end_ms,
    };
    struct exec_hooks hooks = { on_log, on_closed, w };
    struct guest_config config = { .hostname = "box" };
    need(exec_table_new(&deps, WORLD_ID, w->peer.dir_fd, &hooks, &w->table, &e), &e, "table");
    need(
        agent_open(w->loop, WORLD_ID, w->socket, &config, &exec_agent_ops, w->table, &w->agent, &e),
        &e, "agent");
    exec_table_set_agent(w->table, w->agent);
}

void world_shut(struct world *w)
{
    agent_close(w->agent);
    exec_table_release(w->table);
    agent_unref(w->agent);
    exec_table_unref(w->table);
    w->agent = NULL;
    w->table = NULL;
}

void world_ready(struct world *w)
{
    struct err e = ERR_INIT;
    guestpeer_greet(&w->peer, true, NULL, 0);
    need(agent_wait_ready(w->agent, deadline_in(10000), &e), &e, "ready");
}

void world_done(struct world *w)
{
    if (w->table)
        world_shut(w);
    worker_free(w->worker);
    evloop_free(w->loop);
    store_close(w->store);
    guestpeer_done(&w->peer);
}

int start_ms = 20000;

static void *start_thread(void *arg)
{
    struct start *s = arg;
    s->rc = exec_start(s->world->table, "", &s->req, s->deadline, &s->x, &s->e);
    return NULL;
}

void start_begin(struct start *s, struct world *w, bool detach, bool with_stdin,
                 const char *const *argv)
{
    struct err e = ERR_INIT;
    *s = (struct start){ .world = w, .deadline = deadline_in(start_ms) };
    for (size_t i = 0; argv[i]; i++)
        need(strv_add(&s->req.command, argv[i], &e), &e, "argv");
    s->req.detach = detach;
    s->req.stdin = with_stdin;
    s->req.timeout_ms = w->timeout_ms;
    if (pthread_create(&s->thread, NULL, start_thread, s) != 0)
        abort();
}

int start_end(struct start *s)
{
    pthread_join(s->thread, NULL);
    strv_done(&s->req.command);
    return s->rc;
}

struct exec *world_start(struct world *w, bool detach, bool with_stdin, uint32_t *ret_stream)
{
    static const char *const argv[] = { "prog", "arg", NULL };
    struct start s;
    start_begin(&s, w, detach, with_stdin, argv);
    if (!guestpeer_expect(&w->peer, FRAME_EXEC, 10000))
        abort();
    *ret_stream = w->peer.frame.stream;
    guestpeer_started(&w->peer, *ret_stream, 1234);
    need(start_end(&s), &s.e, "start");
    return s.x;
}

static void nap(int ms)
{
    struct timespec ts = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L };
    nanosleep(&ts, NULL);
}

void world_begin(struct world *w)
{
    world_init(w);
    world_open(w);
    world_ready(w);
}

/* Waits for the reader's descriptor and reads one piece. */
int64_t world_take(struct exec_reader *r, void *buf, size_t cap, int *fd, uint64_t *lost,
                   bool *ended)
{
    struct err e = ERR_INIT;
    for (;;) {
        int64_t n = exec_read(r, buf, cap, fd, lost, ended, &e);
        if (n != 0 || *ended)
            return n;
        struct pollfd p = { .fd = exec_reader_fd(r), .events = POLLIN };
        if (poll(&p, 1, 5000) != 1)
            return -2;
    }
}

uint8_t world_byte(uint64_t offset)
{
    return (uint8_t)(offset * 7 + offset / 251);
}

/* The guest writes len bytes from offset on, in frames. */
void world_pour(struct world *w, uint32_t stream, uint8_t fd, uint64_t offset, uint64_t len)
{
    uint8_t buf[16384];
    while (len > 0) {
        size_t n = len < sizeof(buf) ? (size_t)len : sizeof(buf);
        for (size_t i = 0; i < n; i++)
            buf[i] = world_byte(offset + i);
        guestpeer_data(&w->peer, stream, fd, offset, buf, n);
        offset += n;
        len -= n;
    }
}

bool world_output_is(struct exec *x, int fd, uint64_t end)
{
    struct err e = ERR_INIT;
    int64_t deadline = deadline_in(5000);
    for (;;) {
        struct api_exec d = { 0 };
        ASSERT_EQ(exec_describe(x, &d, &e), 0);
        uint64_t is = fd == 1 ? d.stdout_end : d.stderr_end;
        json_done(api_exec_table, &d, sizeof(d));
        if (is >= end || now_mono_ms() >= deadline)
            return is == end;
        nap(5);
    }
}

struct exec_row world_row(struct world *w, const char *id)
{
    struct err e = ERR_INIT;
    struct exec_row *rows = NULL, found = { 0 };
    size_t n = 0;
    ASSERT_EQ(store_exec_list(w->store, WORLD_ID, &rows, &n, &e), 0);
    for (size_t i = 0; i < n; i++) {
        if (strcmp(rows[i].id, id) == 0) {
            found = rows[i];
            found.command = STRV_INIT;
            found.user = found.workdir = NULL;
        }
        exec_row_done(&rows[i]);
    }
    free(rows);
    return found;
}

bool world_row_ended(struct world *w, const char *id, int how, uint32_t value)
{
    int64_t deadline = deadline_in(5000);
    struct exec_row r;
    while ((r = world_row(w, id)).state != 1 && now_mono_ms() < deadline)
        nap(5);
    return r.state == 1 && r.how == how && r.value == value;
}
