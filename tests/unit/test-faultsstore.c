/* SPDX-License-Identifier: MIT
 *
 * What is in the database: each write of it, and each copy, meets no memory, no descriptor, a full
 * disk and a read-only one, at each place where it can. It is done or it is as before, the caller
 * is told which, and it goes on afterwards.
 */
#include "common/auto.h"
#include "common/io.h"
#include "daemon/ruleset.h"
#include "daemon/store.h"
#include "tests/harness/fault.h"
#include "tests/harness/test.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#define VM "00000000000000aa"
#define EXEC "00000000000000ee"
#define IMAGE "sha256:a"

static char path[128];
static struct store *st;

static void fresh_dir(void)
{
    fault_fresh_dir();
    snprintf(path, sizeof(path), "%s/db", fault_dir);
}

static int run_open(struct err *e)
{
    struct store *s = NULL;

    if (store_open(path, &s, e) < 0)
        return -1;
    store_close(s);
    return 0;
}

TEST_LIMIT(a_database_is_opened, 240)
{
    fault_init();
    fault_walk_all(&(struct fault_body){ "store_open", fresh_dir, run_open, NULL, fault_drop_dir,
                                         .also = ERR_UNAVAILABLE });
}

/* A few rows; nothing of this is under faults. */
static void open_world(void)
{
    struct err e = ERR_INIT;
    struct image_row i = { .digest = IMAGE, .name = (char *)"debian", .variant = (char *)"debian",
                           .os = (char *)"", .kernel = (char *)"", .recipe = (char *)"" };
    struct vm_row r = { .id = VM, .name = (char *)"box", .uid = 1000, .groups = (char *)"4",
                        .image_name = (char *)"debian", .image_digest = (char *)IMAGE,
                        .machine = (char *)"microvm" };
    struct exec_row x = { .id = EXEC, .vm = VM, .user = (char *)"root", .workdir = (char *)"/" };
    struct rule_row rules[] = { { .allow = true, .target = (char *)"a.example", .uid = 1000,
                                  .source = (char *)"user" } };

    fresh_dir();
    ASSERT_OK(store_open(path, &st, &e), e);
    ASSERT_OK(store_image_insert(st, &i, &e), e);
    ASSERT_OK(store_vm_insert(st, &r, &e), e);
    ASSERT_OK(store_exec_insert(st, &x, &e), e);
    ASSERT_OK(store_rules_set(st, VM, "rules", rules, 1, &e), e);
    ASSERT_OK(store_choice_put(st, "subnet", "before", &e), e);
}

static void close_world(void)
{
    store_close(take_ptr(st));
    fault_drop_dir();
}

/* How many sandboxes there are; *ret is the one of this id, where there is one. */
static size_t vms(const char *id, enum vm_state *ret_state)
{
    struct vm_row *rows = NULL;
    struct err e = ERR_INIT;
    size_t n = 0;

    ASSERT_OK(store_vm_list(st, &rows, &n, &e), e);
    for (size_t i = 0; i < n; i++) {
        if (strcmp(rows[i].id, id) == 0)
            *ret_state = rows[i].state;
        vm_row_done(&rows[i]);
    }
    free(rows);
    return n;
}

static int run_insert(struct err *e)
{
    struct vm_row r = { .id = "00000000000000bb", .name = (char *)"more", .uid = 1000,
                        .groups = (char *)"4,27", .image_name = (char *)"debian",
                        .image_digest = (char *)IMAGE, .machine = (char *)"microvm",
                        .workspace = (char *)"/home/a" };

    if (strv_add(&r.env, "A=1", e) < 0 || strv_add(&r.labels, "k=v", e) < 0 ||
        store_vm_insert(st, &r, e) < 0) {
        strv_done(&r.env);
        strv_done(&r.labels);
        return -1;
    }
    strv_done(&r.env);
    strv_done(&r.labels);
    return 0;
}

static int look_insert(void)
{
    enum vm_state s = VM_FAILED;
    size_t n = vms("00000000000000bb", &s);

    return n == 1 ? 0 : n == 2 && s == VM_CREATING ? 1 : -1;
}

static int run_update(struct err *e)
{
    struct vm_row r = { .id = VM, .state = VM_RUNNING, .reason = (char *)"because",
                        .accel = (char *)"kvm", .started_at = 7 };

    return store_vm_update(st, &r, e);
}

static int look_update(void)
{
    enum vm_state s = VM_FAILED;

    vms(VM, &s);
    return s == VM_CREATING ? 0 : s == VM_RUNNING ? 1 : -1;
}

static int run_state(struct err *e)
{
    return store_vm_set_state(st, VM, VM_RUNNING, "because", e);
}

/* The row of the sandbox; the strings are not looked at. */
static struct vm_row row_of_vm(void)
{
    struct vm_row *rows = NULL, r;
    struct err e = ERR_INIT;
    size_t n = 0;

    ASSERT_OK(store_vm_list(st, &rows, &n, &e), e);
    ASSERT_EQ(n, 1);
    r = rows[0];
    vm_row_done(&rows[0]);
    free(rows);
    return r;
}

static int run_limits(struct err *e)
{
    struct vm_row r = { .id = VM, .stop_at = 7, .stop_boot = "b", .retry = true,
                        .limits = { .ttl_ms = 1, .idle_ms = 2,
                                    .restart = { .policy = RESTART_ALWAYS, .max = 3 } } };

    return store_vm_set_limits(st, &r, e);
}

static int look_limits(void)
{
    struct vm_row r = row_of_vm();
    const struct vm_limits *l = &r.limits;
    int there = (l->ttl_ms == 1) + (l->idle_ms == 2) + (l->restart.policy == RESTART_ALWAYS) +
                (l->restart.max == 3) + (r.stop_at == 7) + (r.stop_boot[0] == 'b') + r.retry;

    return there == 0 ? 0 : there == 7 ? 1 : -1;
}

static int run_idle(struct err *e)
{
    return store_vm_set_idle(st, VM, 4711, e);
}

static int look_idle(void)
{
    struct vm_row r = row_of_vm();

    return r.idle_spent == 0 ? 0 : r.idle_spent == 4711 ? 1 : -1;
}

/* Two, and of five that there are four stay. */
static int run_events(struct err *e)
{
    struct event_row rows[] = {
        { .time = 8, .kind = (char *)"sandbox.stop", .uid = -1, .sandbox = (char *)VM, .count = 1,
          .detail = (char *)"because" },
        { .time = 9, .kind = (char *)"sandbox.stopped", .uid = 1000, .count = 2 },
    };
    int r = store_event_add(st, rows, 2, 4, e);

    for (size_t i = 0; r == 0 && i < 2; i++)
        if (rows[i].seq != 4 + i)
            FAIL("number %llu", (unsigned long long)rows[i].seq);
    return r;
}

static void open_events(void)
{
    struct err e = ERR_INIT;
    struct event_row r = { .time = 1, .kind = (char *)"daemon.start", .uid = -1, .count = 1 };

    open_world();
    for (int i = 0; i < 3; i++)
        ASSERT_OK(store_event_add(st, &r, 1, 4, &e), e);
}

static int look_events(void)
{
    struct event_range range;
    struct err e = ERR_INIT;

    ASSERT_OK(store_event_range(st, -1, &range, &e), e);
    if (range.first == 1 && range.last == 3)
        return 0;
    return range.first == 2 && range.last == 5 && strcmp(range.kind, "sandbox.stopped") == 0 ? 1
                                                                                             : -1;
}

static int run_delete(struct err *e)
{
    return store_vm_delete(st, VM, e);
}

static int look_delete(void)
{
    enum vm_state s = VM_FAILED;
    struct exec_row *rows = NULL;
    struct err e = ERR_INIT;
    size_t n = 0, left = vms(VM, &s);

    ASSERT_OK(store_exec_list(st, VM, &rows, &n, &e), e);
    for (size_t i = 0; i < n; i++)
        exec_row_done(&rows[i]);
    free(rows);
    return left == 1 && n == 1 ? 0 : left == 0 && n == 0 ? 1 : -1;
}

static int run_exec_insert(struct err *e)
{
    struct exec_row r = { .id = "00000000000000ef", .vm = VM, .user = (char *)"root",
                          .workdir = (char *)"/" };
    int rc = strv_add(&r.command, "true", e) < 0 ? -1 : store_exec_insert(st, &r, e);

    strv_done(&r.command);
    return rc;
}

/* Commands of the sandbox, and whether the first one has ended. */
static size_t execs(bool *ended)
{
    struct exec_row *rows = NULL;
    struct err e = ERR_INIT;
    size_t n = 0;

    ASSERT_OK(store_exec_list(st, VM, &rows, &n, &e), e);
    for (size_t i = 0; i < n; i++) {
        if (strcmp(rows[i].id, EXEC) == 0)
            *ended = rows[i].state == 1 && rows[i].value == 3;
        exec_row_done(&rows[i]);
    }
    free(rows);
    return n;
}

static int look_exec_insert(void)
{
    bool ended = false;

    return (int)execs(&ended) - 1;
}

static int run_exec_update(struct err *e)
{
    struct exec_row r = { .id = EXEC, .vm = VM, .state = 1, .value = 3, .ended_at = 9 };

    return store_exec_update(st, &r, e);
}

static int look_exec_update(void)
{
    bool ended = false;

    return execs(&ended) == 1 ? ended : -1;
}

static int run_exec_delete(struct err *e)
{
    return store_exec_delete(st, EXEC, e);
}

static int look_exec_delete(void)
{
    bool ended = false;

    return 1 - (int)execs(&ended);
}

static int run_image(struct err *e)
{
    struct image_row r = { .digest = "sha256:b", .name = (char *)"debian", .os = (char *)"",
                           .variant = (char *)"debian", .kernel = (char *)"",
                           .recipe = (char *)"" };

    return store_image_insert(st, &r, e);
}

/* The name goes from the one to the other, and is never nobody's or both's. */
static int look_image(void)
{
    struct image_row *rows = NULL;
    struct err e = ERR_INIT;
    size_t n = 0;
    int named = 0, old = 0;

    ASSERT_OK(store_image_list(st, &rows, &n, &e), e);
    for (size_t i = 0; i < n; i++) {
        named += rows[i].name != NULL;
        old += rows[i].name && strcmp(rows[i].digest, IMAGE) == 0;
        image_row_done(&rows[i]);
    }
    free(rows);
    return named != 1 ? -1 : n == 1 && old ? 0 : n == 2 && !old ? 1 : -2;
}

static int run_rules(struct err *e)
{
    autoruleset struct ruleset s = RULESET_INIT;

    if (ruleset_begin(&s, st, "agent", 1000, e) < 0 ||
        ruleset_add(&s, true, "b.example:443", 1000, e) < 0)
        return -1;
    return ruleset_store(&s, st, VM, e);
}

static int look_rules(void)
{
    autoruleset struct ruleset s = RULESET_INIT;
    struct err e = ERR_INIT;

    ASSERT_OK(ruleset_load(&s, st, VM, &e), e);
    if (s.n == 1 && strcmp(s.base, "rules") == 0)
        return 0;
    return s.n > 2 && strcmp(s.base, "agent") == 0 &&
           strcmp(s.rows[s.n - 1].target, "b.example:443") == 0;
}

static int run_count(struct err *e)
{
    const struct rule_count c = { .allow = true, .target = "a.example", .matches = 5 };

    return store_rules_count(st, VM, &c, 1, e);
}

static int look_count(void)
{
    autoruleset struct ruleset s = RULESET_INIT;
    struct err e = ERR_INIT;

    ASSERT_OK(ruleset_load(&s, st, VM, &e), e);
    return s.rows[0].matches == 0 ? 0 : s.rows[0].matches == 5 ? 1 : -1;
}

static int run_policy(struct err *e)
{
    const struct policy_row r = { .uid = 1000, .name = (char *)"mine",
                                  .rules = (char *)"allow a.example\n" };

    return store_policy_put(st, &r, e);
}

static int look_policy(void)
{
    struct policy_row *rows = NULL;
    struct err e = ERR_INIT;
    size_t n = 0;

    ASSERT_OK(store_policy_list(st, 1000, NULL, &rows, &n, &e), e);
    policy_rows_done(rows, n);
    return (int)n;
}

static int run_choice(struct err *e)
{
    return store_choice_put(st, "subnet", "10.1.0.0/16", e);
}

static int look_choice(void)
{
    autofree char *value = NULL;
    struct err e = ERR_INIT;

    ASSERT_OK(store_choice_get(st, "subnet", &value, &e), e);
    return !value ? -1 : strcmp(value, "before") == 0 ? 0 : strcmp(value, "10.1.0.0/16") == 0;
}

static int run_idem(struct err *e)
{
    return store_idem_put(st, 1000, "key", "hash", 201, "{}", e);
}

static int look_idem(void)
{
    autofree char *hash = NULL;
    autofree char *body = NULL;
    struct err e = ERR_INIT;
    int status = 0;

    return store_idem_get(st, 1000, "key", &hash, &status, &body, &e);
}

static int run_image_delete(struct err *e)
{
    return store_image_delete(st, "sha256:b", e);
}

/* One that no sandbox is made of, which has taken the name from the other. */
static void open_images(void)
{
    struct err e = ERR_INIT;

    open_world();
    ASSERT_OK(run_image(&e), e);
}

static int look_image_delete(void)
{
    struct image_row *rows = NULL;
    struct err e = ERR_INIT;
    size_t n = 0;
    bool old = false;

    ASSERT_OK(store_image_list(st, &rows, &n, &e), e);
    for (size_t i = 0; i < n; i++) {
        old |= strcmp(rows[i].digest, IMAGE) == 0;
        image_row_done(&rows[i]);
    }
    free(rows);
    return old ? 2 - (int)n : -1;
}

static void open_policies(void)
{
    struct err e = ERR_INIT;

    open_world();
    ASSERT_OK(run_policy(&e), e);
}

static int run_policy_delete(struct err *e)
{
    return store_policy_delete(st, 1000, "mine", e);
}

static int look_policy_delete(void)
{
    return 1 - look_policy();
}

/* A key that has no answer yet. */
static void open_key(void)
{
    struct err e = ERR_INIT;

    open_world();
    ASSERT_OK(store_idem_put(st, 1000, "key", "hash", 0, VM, &e), e);
}

static int run_idem_drop(struct err *e)
{
    return store_idem_drop(st, 1000, "key", e);
}

static int look_idem_drop(void)
{
    return 1 - look_idem();
}

TEST_LIMIT(rows_are_written, 400)
{
    static const struct fault_body bodies[] = {
        { "store_vm_insert", open_world, run_insert, look_insert, close_world },
        { "store_vm_update", open_world, run_update, look_update, close_world },
        { "store_vm_set_state", open_world, run_state, look_update, close_world },
        { "store_vm_set_limits", open_world, run_limits, look_limits, close_world },
        { "store_vm_set_idle", open_world, run_idle, look_idle, close_world },
        { "store_event_add", open_events, run_events, look_events, close_world },
        { "store_vm_delete", open_world, run_delete, look_delete, close_world },
        { "store_exec_insert", open_world, run_exec_insert, look_exec_insert, close_world },
        { "store_exec_update", open_world, run_exec_update, look_exec_update, close_world },
        { "store_exec_delete", open_world, run_exec_delete, look_exec_delete, close_world },
        { "store_image_insert", open_world, run_image, look_image, close_world },
        { "store_image_delete", open_images, run_image_delete, look_image_delete, close_world },
        { "store_rules_set", open_world, run_rules, look_rules, close_world },
        { "store_rules_count", open_world, run_count, look_count, close_world },
        { "store_policy_put", open_world, run_policy, look_policy, close_world },
        { "store_policy_delete", open_policies, run_policy_delete, look_policy_delete,
          close_world },
        { "store_choice_put", open_world, run_choice, look_choice, close_world },
        { "store_idem_put", open_world, run_idem, look_idem, close_world },
        { "store_idem_drop", open_key, run_idem_drop, look_idem_drop, close_world },
    };

    fault_init();
    for (size_t i = 0; i < ARRAY_SIZE(bodies); i++) {
        fault_walk_memory(&bodies[i]);
        ASSERT_GT(fault_walk(&bodies[i], FAULT_FULL), 0);
        ASSERT_GT(fault_walk(&bodies[i], FAULT_READONLY), 0);
    }
}

static int run_lists(struct err *e)
{
    struct vm_row *v = NULL;
    struct exec_row *x = NULL;
    struct image_row *i = NULL;
    struct policy_row *p = NULL;
    struct rule_row *r = NULL;
    autofree char *base = NULL;
    autofree char *choice = NULL;
    autofree char *hash = NULL;
    autofree char *body = NULL;
    size_t nv = 0, nx = 0, ni = 0, np = 0, nr = 0;
    int status;
    int rc = store_vm_list(st, &v, &nv, e) < 0 || store_exec_list(st, VM, &x, &nx, e) < 0 ||
             store_image_list(st, &i, &ni, e) < 0 ||
             store_policy_list(st, 1000, NULL, &p, &np, e) < 0 ||
             store_rules_list(st, VM, &base, &r, &nr, e) < 0 ||
             store_choice_get(st, "subnet", &choice, e) < 0 ||
             store_idem_get(st, 1000, "key", &hash, &status, &body, e) < 0 ? -1 : 0;

    for (size_t k = 0; k < nv; k++)
        vm_row_done(&v[k]);
    for (size_t k = 0; k < nx; k++)
        exec_row_done(&x[k]);
    for (size_t k = 0; k < ni; k++)
        image_row_done(&i[k]);
    free(v);
    free(x);
    free(i);
    policy_rows_done(p, np);
    rule_rows_done(r, nr);
    return rc;
}

static void open_filled(void)
{
    struct err e = ERR_INIT;

    open_world();
    ASSERT_OK(run_insert(&e), e);
    ASSERT_OK(run_exec_insert(&e), e);
    ASSERT_OK(run_policy(&e), e);
    ASSERT_OK(run_idem(&e), e);
}

TEST_LIMIT(rows_are_read, 120)
{
    fault_init();
    fault_walk_memory(&(struct fault_body){ "lists of the store", open_filled, run_lists, NULL,
                                            close_world });
}

static int run_backup(struct err *e)
{
    char to[160];

    snprintf(to, sizeof(to), "%s/copy", fault_dir);
    return store_backup(path, to, false, e);
}

/* 1: there and whole; and whatever happened, nothing half-made is beside it. */
static int look_backup(void)
{
    char to[160];
    struct stat sb;
    struct store *copy = NULL;
    struct err e = ERR_INIT;

    snprintf(to, sizeof(to), "%s/copy", fault_dir);
    if (lstat(to, &sb) < 0)
        return 0;
    ASSERT_OK(store_open_look(to, &copy, &e), e);
    store_close(copy);
    return 1;
}

TEST_LIMIT(a_copy_is_made, 240)
{
    /* SQLite does not say why it could not make a file; a bad place for a copy is the caller's */
    const struct fault_body b = { "store_backup", open_world, run_backup, look_backup,
                                  close_world, .also = ERR_UNAVAILABLE };
    const struct fault_body ro = { "store_backup", open_world, run_backup, look_backup,
                                   close_world, .also = ERR_INVALID };

    fault_init();
    fault_walk_memory(&b);
    ASSERT_GT(fault_walk(&b, FAULT_FILES), 0);
    ASSERT_GT(fault_walk(&b, FAULT_FULL), 0);
    ASSERT_GT(fault_walk(&ro, FAULT_READONLY), 0);
}

TEST(the_page_about_reliability_names_what_was_walked)
{
    fault_compare("test-faultsstore");
}
