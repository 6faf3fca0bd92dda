/* SPDX-License-Identifier: MIT
 *
 * What is made in memory: each allocation of requests, tables, policies, machines' descriptions and
 * comparisons fails once, and from there on all of them. An error comes of it that says so, and
 * nothing is lost, used half-made or freed twice.
 */
#include "common/api.h"
#include "common/auto.h"
#include "common/io.h"
#include "common/limits.h"
#include "common/log.h"
#include "common/policy.h"
#include "daemon/config.h"
#include "daemon/daemon.h"
#include "daemon/domxml.h"
#include "daemon/evloop.h"
#include "daemon/fsck.h"
#include "daemon/idem.h"
#include "daemon/image.h"
#include "daemon/peer.h"
#include "daemon/presets.h"
#include "daemon/quota.h"
#include "daemon/routes.h"
#include "daemon/ruleset.h"
#include "daemon/worker.h"
#include "daemon/workspace.h"
#include "tests/harness/fault.h"
#include "tests/harness/test.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>

static void walk(const char *name, int (*run)(struct err *e))
{
    const struct fault_body b = { .name = name, .run = run };

    ASSERT_GT(fault_walk(&b, FAULT_ALLOC), 0);
    ASSERT_GT(fault_walk(&b, FAULT_MEMORY), 0);
}

static void begin(void)
{
    fault_init();
    json_init();
    log_set_level(LOG_EMERG);
}

/* --- requests and answers --- */

static const char create[] =
    "{\"name\":\"box\",\"image\":\"debian\",\"cpus\":2,\"memory\":1073741824,"
    "\"workspace\":{\"path\":\"/home/a\",\"read_only\":true},\"env\":{\"A\":\"1\",\"B\":\"2\"},"
    "\"labels\":{\"k\":\"v\"},\"start\":false,\"policy\":\"agent\",\"allow\":[\"a.example:443\"],"
    "\"deny\":[\"b.example\"]}";

static int run_decode(struct err *e)
{
    struct api_create_req r;

    if (json_decode(api_create_req_table, create, strlen(create), &r, e) < 0)
        return -1;
    json_done(api_create_req_table, &r, sizeof(r));
    return 0;
}

static int run_encode(struct err *e)
{
    autosbuf struct sbuf b = SBUF(MIB);
    struct api_create_req r = { .name = (char *)"box", .policy = (char *)"agent" };
    char *list[] = { (char *)"A=1", (char *)"B=2" };

    r.env = (struct strv){ .items = list, .n = 2 };
    r.allow = (struct strv){ .items = list, .n = 2 };
    return json_encode(api_create_req_table, &r, &b, e);
}

/* As http.c does with it: the head, the body, and the error as an answer. There is an answer in any
 * case, if only a status. */
static int run_request(struct err *e)
{
    struct call c = { .method = "POST", .caller = { .request = "0123456789abcdef" } };
    struct err missing = ERR_INIT;
    int r = dispatch_head(&c, routes_table, "/v1/sandboxes", e);

    if (r == 0) {
        c.body = calloc(1, c.route->body_size);
        r = !c.body ? err_nomem(e)
                    : json_decode(c.route->table, create, strlen(create), c.body, e);
        if (r < 0)
            free(take_ptr(c.body));
    }
    err_set(&missing, ERR_SANDBOX_NOT_FOUND, "no sandbox 'x'");
    reply_error(&c, r < 0 ? e : &missing);
    if (c.reply.status != 404 && c.reply.status != 500)
        FAIL("status %d", c.reply.status);
    if (r == 0 && !c.reply.body)
        r = err_nomem(e);
    call_done(&c);
    return r;
}

static int run_query(struct err *e)
{
    struct call c = { .method = "GET" };
    int r = dispatch_head(&c, routes_table, "/v1/sandboxes?state=running&label=a&label=b%3Dc", e);

    call_done(&c);
    return r;
}

TEST_LIMIT(requests_and_answers, 120)
{
    begin();
    walk("json_decode", run_decode);
    walk("json_encode", run_encode);
    walk("a request", run_request);
    walk("a query", run_query);
}

/* --- configuration and quotas --- */

static const char config_text[] =
    "{\"socket_group\":\"\",\"policy_ceiling\":[\"allow *.example\"],\"audit\":\"off\","
    "\"quota\":{\"default\":{\"sandboxes\":3},\"users\":{\"0\":{\"cpus\":1},\"7\":{\"execs\":1}},"
    "\"groups\":{\"0\":{\"memory\":\"4G\"}}}}";

static const char *config_path;

static int run_config(struct err *e)
{
    struct config c = { 0 };

    if (config_load(config_path, &c, e) < 0)
        return -1;
    config_done(&c);
    return 0;
}

static int run_quota(struct err *e)
{
    static const struct identity who = { .uid = 1000 };
    static const struct quota_use one = { .n = { [QUOTA_SANDBOXES] = 1 } };
    struct config c = { 0 };
    struct quota *q = NULL;
    struct quota_charge charge = { 0 };
    int r = config_load(config_path, &c, e);

    if (r < 0)
        return -1;
    r = quota_new(&c.quota, &q, e);
    if (r == 0)
        r = quota_take(q, &who, &one, &charge, e);
    quota_drop(&charge, QUOTA_ALL);
    quota_free(q);
    config_done(&c);
    return r;
}

TEST_LIMIT(configuration_and_quotas, 120)
{
    struct err e = ERR_INIT;
    const struct fault_body files = { .name = "config_load", .run = run_config };

    begin();
    config_path = test_path("c.json");
    ASSERT_OK(io_write_file_at(AT_FDCWD, config_path, config_text, strlen(config_text),
                               0600, &e), e);
    walk("config_load", run_config);
    ASSERT_GT(fault_walk(&files, FAULT_FILES), 0);
    walk("quota_new, quota_take", run_quota);
}

/* --- policies --- */

static int run_ruleset(struct err *e)
{
    autoruleset struct ruleset s = RULESET_INIT, copy = RULESET_INIT;
    autofree char *text = NULL;

    if (ruleset_begin_text(&s, preset_find("agent")->text, 7, e) < 0 ||
        ruleset_add(&s, true, "b.example.com:443", 7, e) < 0 ||
        ruleset_add(&s, false, "b.example.com:443", 7, e) < 0 ||
        ruleset_remove(&s, "b.example.com:443", e) < 0 || ruleset_copy(&copy, &s, e) < 0)
        return -1;
    return ruleset_text(&copy, &text, e);
}

static int run_compile(struct err *e)
{
    autoruleset struct ruleset s = RULESET_INIT;
    autofree struct policy_span *spans = NULL;
    autofree struct policy_span *named = NULL;
    size_t n = 0, n_named = 0;

    if (ruleset_begin_text(&s, "allow 192.0.2.0/24:80\nallow *.a.example\ndeny 192.0.2.7\n", 7,
                           e) < 0)
        return -1;
    const struct policy p = { .rules = s.rules, .n = s.n };
    if (policy_compile(&p, false, &spans, &n, e) < 0)
        return -1;
    return policy_compile_name(&p, "b.a.example", 0xc0000207, &named, &n_named, e);
}

TEST_LIMIT(policies, 120)
{
    begin();
    walk("ruleset", run_ruleset);
    walk("policy_compile", run_compile);
}

/* --- machines --- */

static int run_domxml(struct err *e)
{
    static const uint8_t mac[6] = { 2, 1, 2, 3, 4, 5 };
    const struct domxml_spec s = {
        .id = "00112233445566aa", .name = "box", .accel = ACCEL_TCG, .cpus = 2, .memory = GIB,
        .kernel = "/k", .initrd = "/i", .cmdline = "quiet", .disk = "/d", .base = "/b",
        .channel = "/c", .console = "/l", .share_socket = "/s", .tap = "sbx0", .mac = mac,
        .uid = 5000, .gid = 5000,
    };
    autofree char *xml = NULL;
    autofree char *cmdline = NULL;

    if (domxml_cmdline(MACHINE_MICROVM, ACCEL_TCG, 2000000, false, &cmdline, e) < 0)
        return -1;
    return domxml_build(&s, &xml, e);
}

TEST_LIMIT(descriptions_of_machines, 60)
{
    begin();
    walk("domxml", run_domxml);
}

/* --- what compares and what waits --- */

static int run_compare(struct err *e)
{
    struct world w = { .uid_base = 5000 };
    struct findings f = { 0 }, again = { 0 };
    char id[LIMIT_ID + 1];

    for (unsigned i = 0; i < 40; i++) {
        snprintf(id, sizeof(id), "%016x", i);
        (void)!world_add(&w, (enum thing_kind)(i % TH_MAX), id);
    }
    int r = fsck_compare(&w, &f, e);
    if (r == 0) {
        r = fsck_compare(&w, &again, e);
        findings_keep_common(&f, &again);
    }
    if (r == 0 && findings_count(&f) < 10)
        FAIL("%zu findings", findings_count(&f));
    findings_done(&f);
    findings_done(&again);
    world_done(&w);
    return r;
}

static int run_look(struct err *e)
{
    struct config c = { .state_dir = (char *)test_dir(), .runtime_dir = (char *)test_dir(),
                        .libvirt_uri = (char *)"embed", .uid_base = 5000 };
    struct world w = { 0 };
    int r = fsck_look(&c, &w, e);

    if (r == 0 && w.failed)
        r = err_nomem(e);
    world_done(&w);
    return r;
}

TEST_LIMIT(fsck_looks_and_compares, 120)
{
    struct store *st = NULL;
    struct err e = ERR_INIT;
    const struct fault_body files = { .name = "fsck_look", .run = run_look };

    begin();
    ASSERT_OK(store_open(test_path("sandboxd.db"), &st, &e), e);
    store_close(st);
    ASSERT_OK(io_mkdir_parents(test_path("sandboxes/00000000000000aa/vm/x"), 0700, &e), e);
    ASSERT_OK(io_mkdir_parents(test_path("images/x"), 0700, &e), e);
    walk("fsck_compare", run_compare);
    walk("fsck_look", run_look);
    ASSERT_GT(fault_walk(&files, FAULT_FILES), 0);
}

static void on_timer(void *arg)
{
}

static int run_loops(struct err *e)
{
    struct evloop *l = NULL;
    struct worker *w = NULL;
    struct evsource *s = NULL;
    int r = evloop_new(&l, e);

    if (r == 0)
        r = evloop_add_timer(l, 60000, on_timer, NULL, &s, e);
    if (r == 0)
        r = worker_new(&w, e);
    evloop_remove(s);
    if (w)
        worker_free(w);
    if (l)
        evloop_free(l);
    return r;
}

TEST_LIMIT(loops_and_workers, 60)
{
    /* a thread that is refused is no matter of memory */
    const struct fault_body b = { .name = "evloop_new, worker_new", .run = run_loops,
                                  .also = ERR_INTERNAL };

    begin();
    ASSERT_GT(fault_walk(&b, FAULT_ALLOC), 0);
    ASSERT_GT(fault_walk(&b, FAULT_MEMORY), 0);
    ASSERT_GT(fault_walk(&b, FAULT_FILES), 0);
}

/* --- images and kept answers --- */

static struct store *st;

static int run_images(struct err *e)
{
    struct api_image_list l = { 0 };
    struct api_image i = { 0 };
    struct image_paths p = { 0 };

    if (image_list(st, &l, e) < 0)
        return -1;
    json_done(api_image_list_table, &l, sizeof(l));
    if (image_inspect(st, "debian", &i, e) < 0)
        return -1;
    json_done(api_image_table, &i, sizeof(i));
    if (image_resolve(st, test_dir(), "debian", &p, e) < 0)
        return e->code == ERR_NO_MEMORY ? -1 : (*e = ERR_INIT, 0);  /* its files are not there */
    image_paths_done(&p);
    return 0;
}

static int h_once(struct call *c, struct err *e)
{
    const struct api_version v = { .version = (char *)"1", .api = (char *)"1" };

    return reply_json(c, 201, api_version_table, &v, e);
}

static int run_idem(struct err *e)
{
    static unsigned n;
    struct idem *i = NULL;
    struct call c = { .method = "POST" };
    char key[20];

    snprintf(key, sizeof(key), "key-%u", n++);      /* each try is a request of its own */
    if (idem_new(st, &i, e) < 0)
        return -1;
    int r = dispatch_head(&c, routes_table, "/v1/sandboxes", e);
    if (r == 0) {
        c.idem_key = strdup(key);
        r = !c.idem_key ? err_nomem(e) : idem_run(i, &c, h_once, e);
    }
    call_done(&c);
    idem_free(i);
    return r;
}

TEST_LIMIT(images_and_kept_answers, 120)
{
    struct err e = ERR_INIT;
    struct image_row r = { .digest = "sha256:aaaaaaaaaaaaaaaa", .name = (char *)"debian",
                           .variant = (char *)"debian", .os = (char *)"", .kernel = (char *)"",
                           .recipe = (char *)"" };

    begin();
    ASSERT_OK(store_open(test_path("db"), &st, &e), e);
    ASSERT_OK(store_image_insert(st, &r, &e), e);
    walk("images", run_images);
    walk("idem_run", run_idem);
    store_close(st);
}

TEST(the_page_about_reliability_names_what_was_walked)
{
    fault_compare("test-faultsmem");
}
