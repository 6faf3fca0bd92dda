/* SPDX-License-Identifier: MIT
 *
 * Many sandboxes' networks come and go, in a network namespace of the test's own: links and sets of
 * the kernel equal the store. Without virtual machines; those are in tests/net.
 */
#include "common/auto.h"
#include "common/io.h"
#include "daemon/config.h"
#include "daemon/egress.h"
#include "daemon/filter.h"
#include "tests/harness/test.h"

#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#define SLOTS 12
#define ROUNDS 40           /* SBX_TEST_ROUNDS says more */
#define LOOK_EVERY 10       /* of a hundred, then */

static char dir[64];
static const char *parent = "/tmp";
static struct config config;
static struct store *st;

static struct egress *begin(void)
{
    struct image_row image = { .digest = "sha256:0", .name = (char *)"none", .variant = (char *)"",
                               .os = (char *)"", .kernel = (char *)"", .recipe = (char *)"" };
    struct egress *g = NULL;
    struct err e = ERR_INIT;
    char path[128];

    SKIP_IF(geteuid() != 0, "not root");
    SKIP_IF(unshare(CLONE_NEWNET) < 0, "no network namespaces");
    SKIP_IF(access("/dev/net/tun", F_OK) < 0, "no /dev/net/tun");
    snprintf(dir, sizeof(dir), "%s/test-egress-XXXXXX", parent);
    ASSERT_TRUE(mkdtemp(dir) != NULL);
    snprintf(path, sizeof(path), "%s/config", dir);
    FILE *f = fopen(path, "w");
    ASSERT_TRUE(f != NULL);
    fprintf(f, "{\"state_dir\": \"%s\", \"runtime_dir\": \"%s\", \"subnet\": \"10.209.0.0/16\","
               " \"resolver\": \"/nonexistent\", \"policy_ceiling\": [\"allow 0.0.0.0/0/tcp\","
               " \"allow 0.0.0.0/0/udp\", \"allow 10.0.0.0/8\", \"allow **.example.com\"]}",
            dir, dir);
    fclose(f);
    ASSERT_OK(config_load(path, &config, &e), e);
    snprintf(path, sizeof(path), "%s/db", dir);
    ASSERT_OK(store_open(path, &st, &e), e);
    ASSERT_OK(store_image_insert(st, &image, &e), e);
    ASSERT_OK(egress_open(&config, st, NULL, &g, &e), e);
    char words[400];
    if (!egress_status(g, words, sizeof(words)))
        SKIP_IF(true, "%s", words);
    return g;
}

static void end(struct egress *g)
{
    struct err e = ERR_INIT;

    egress_free(g);
    store_close(st);
    config_done(&config);
    ASSERT_EQ(io_remove_tree(AT_FDCWD, dir, &e), 0);
}

static void id_of(uint32_t slot, char id[17])
{
    snprintf(id, 17, "%06x0000000000", slot);
}

static unsigned dice(unsigned n)
{
    static uint64_t x = 88172645463325252u;

    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return (unsigned)(x % n);
}

static void insert(uint32_t slot)
{
    struct vm_row r = { .groups = (char *)"", .image_name = (char *)"none",
                        .image_digest = (char *)"sha256:0", .machine = (char *)"microvm" };
    struct ruleset s = RULESET_INIT;
    struct err e = ERR_INIT;
    char text[1024] = "", name[16];
    size_t len = 0;

    for (unsigned i = dice(8); i-- > 0;)
        len += (size_t)snprintf(text + len, sizeof(text) - len, "%s %u.%u.0.0/%u:%u-%u%s\n",
                                dice(4) ? "allow" : "deny", dice(2) ? 10 : 60 + dice(9), dice(3),
                                16,
                                1 + dice(100), 200 + dice(100), dice(2) ? "/udp" : "");
    id_of(slot, r.id);
    snprintf(name, sizeof(name), "n%u", slot);
    r.name = name;
    ASSERT_OK(store_vm_insert(st, &r, &e), e);
    ASSERT_OK(ruleset_begin_text(&s, text, 0, &e), e);
    ASSERT_OK(ruleset_store(&s, st, r.id, &e), e);
    ruleset_done(&s);
}

static void count(void *arg, const struct filter_elem *x)
{
    ++*(size_t *)arg;
}

/* What the kernel has of it is what its rules in the store mean. */
static void compare(struct filter *f, uint32_t slot, bool attached)
{
    autofree struct policy_rule *ceiling = NULL;
    autofree struct policy_span *spans = NULL;
    autoruleset struct ruleset s = RULESET_INIT;
    struct err e = ERR_INIT;
    char id[17];
    size_t n = 0, n_ceiling = 0, have = 0;
    static const char text[] = "allow 0.0.0.0/0/tcp\nallow 0.0.0.0/0/udp\nallow 10.0.0.0/8\n"
                               "allow **.example.com\n";

    id_of(slot, id);
    ASSERT_OK(filter_read(f, id, 's', count, &have, &e), e);
    if (!attached) {
        ASSERT_EQ(have, 0);
        return;
    }
    ASSERT_OK(ruleset_load(&s, st, id, &e), e);
    ASSERT_OK(policy_rules_parse(text, sizeof(text) - 1, &ceiling, &n_ceiling, &e), e);
    struct policy p = { s.rules, s.n, ceiling, n_ceiling };
    ASSERT_OK(policy_compile(&p, false, &spans, &n, &e), e);
    ASSERT_EQ(have, n);
}

TEST(links_and_rules_equal_the_store)
{
    struct egress *g = begin();
    struct filter_options o = { .net = { 0x0ad10000, 16 }, .connections = 1, .new_per_second = 1 };
    const char *more = getenv("SBX_TEST_ROUNDS");
    unsigned rounds = more ? (unsigned)atol(more) : ROUNDS;
    bool attached[SLOTS + 1] = { false };
    struct filter *f = NULL;
    struct err e = ERR_INIT;

    ASSERT_OK(filter_open(&o, &f, &e), e);
    for (unsigned i = 1; i <= rounds; i++) {
        uint32_t slot = 1 + dice(SLOTS);
        struct link l;
        char id[17];
        id_of(slot, id);
        if (attached[slot]) {
            ASSERT_OK(egress_detach(g, id, slot, &e), e);
            ASSERT_OK(store_vm_delete(st, id, &e), e);
        } else {
            insert(slot);
            ASSERT_OK(egress_attach(g, id, slot, 1879048192 + slot, &l, &e), e);
        }
        attached[slot] = !attached[slot];
        if (i % (more ? 100 : LOOK_EVERY))
            continue;
        autofree char (*taps)[IFNAMSIZ] = NULL;
        size_t n = 0, want = 0;
        ASSERT_OK(link_list(&taps, &n, &e), e);
        for (uint32_t k = 1; k <= SLOTS; k++) {
            compare(f, k, attached[k]);
            want += attached[k];
        }
        ASSERT_EQ(n, want);
    }
    filter_close(f);
    end(g);
}

TEST(a_daemon_finds_links_again_and_removes_strays)
{
    struct egress *g = begin();
    struct link l[3];
    struct err e = ERR_INIT;
    char id[17];
    bool linked = false;
    autofree char (*taps)[IFNAMSIZ] = NULL;
    size_t n = 0;

    for (uint32_t i = 1; i <= 2; i++) {
        insert(i);
        id_of(i, id);
        ASSERT_OK(egress_attach(g, id, i, 1879048192 + i, &l[i], &e), e);
    }
    egress_free(g);
    ASSERT_TRUE(link_exists(l[1].name) && link_exists(l[2].name));
    ASSERT_OK(egress_open(&config, st, NULL, &g, &e), e);
    id_of(1, id);
    ASSERT_OK(egress_adopt(g, id, 1, &linked, &l[0], &e), e);
    ASSERT_TRUE(linked);
    ASSERT_STREQ(l[0].name, l[1].name);
    ASSERT_EQ(l[0].address, l[1].address);
    ASSERT_OK(egress_settle(g, &e), e);
    ASSERT_OK(link_list(&taps, &n, &e), e);
    ASSERT_EQ(n, 1);
    ASSERT_STREQ(taps[0], l[1].name);
    ASSERT_OK(egress_detach(g, id, 1, &e), e);
    end(g);
}

TEST(a_policy_that_cannot_be_stored_changes_nothing)
{
    struct egress *g = begin();
    struct err e = ERR_INIT;
    struct link l;
    char id[17];
    struct api_policy before = { 0 }, after = { 0 };

    insert(1);
    id_of(1, id);
    ASSERT_OK(egress_attach(g, id, 1, 1879048193, &l, &e), e);
    ASSERT_OK(egress_policy(g, id, &before, &e), e);
    static char *targets[] = { (char *)"*.example.com", (char *)"example.org:x", NULL };
    struct api_policy_rules_req req = { (char *)"allow", { targets, 2 } };
    ASSERT_EQ(egress_change(g, id, 0, &req, &e), -1);
    ASSERT_EQ(e.code, ERR_INVALID);
    e = ERR_INIT;
    static char *beyond[] = { (char *)"a.example.org", NULL };
    req.targets = (struct strv){ beyond, 1 };
    /* 0.0.0.0/0 of the ceiling is for all names */
    ASSERT_OK(egress_change(g, id, 0, &req, &e), e);
    req.verdict = (char *)"remove";
    ASSERT_OK(egress_change(g, id, 0, &req, &e), e);
    ASSERT_EQ(egress_change(g, id, 0, &req, &e), -1);
    ASSERT_EQ(e.code, ERR_POLICY_NOT_FOUND);
    e = ERR_INIT;
    struct api_policy_set_req none = { .policy = (char *)"nosuch" };
    ASSERT_EQ(egress_set(g, id, 0, &none, &e), -1);
    ASSERT_EQ(e.code, ERR_POLICY_NOT_FOUND);
    e = ERR_INIT;
    ASSERT_OK(egress_policy(g, id, &after, &e), e);
    ASSERT_STREQ(before.text, after.text);
    json_done(api_policy_table, &before, sizeof(before));
    json_done(api_policy_table, &after, sizeof(after));
    ASSERT_OK(egress_detach(g, id, 1, &e), e);
    end(g);
}

/* On a disk of its own, which is then filled. */
TEST(a_full_disk_leaves_the_old_policy)
{
    struct egress *g;
    struct filter_options o = { .net = { 0x0ad10000, 16 }, .connections = 1, .new_per_second = 1 };
    struct filter *f = NULL;
    struct api_policy before = { 0 }, after = { 0 };
    struct err e = ERR_INIT;
    struct link l;
    size_t had = 0, has = 0;
    char id[17], path[128];
    static char many[400][32], *targets[401];

    SKIP_IF(geteuid() != 0, "not root");
    SKIP_IF(unshare(CLONE_NEWNS) < 0, "no mount namespaces");
    ASSERT_EQ(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
    ASSERT_EQ(mount("small", "/mnt", "tmpfs", 0, "size=1m"), 0);
    parent = "/mnt";
    g = begin();
    insert(1);
    id_of(1, id);
    ASSERT_OK(egress_attach(g, id, 1, 1879048193, &l, &e), e);
    ASSERT_OK(filter_open(&o, &f, &e), e);
    ASSERT_OK(filter_read(f, id, 's', count, &had, &e), e);
    ASSERT_OK(egress_policy(g, id, &before, &e), e);
    snprintf(path, sizeof(path), "%s/filler", dir);
    FILE *fill = fopen(path, "w");
    while (fill && fputs("0123456789abcdef", fill) >= 0 && fflush(fill) == 0)
        ;
    for (unsigned i = 0; i < 400; i++) {
        snprintf(many[i], sizeof(many[i]), "60.%u.%u.0/24:443", i >> 8, i & 255);
        targets[i] = many[i];
    }
    struct api_policy_rules_req req = { (char *)"allow", { targets, 400 } };
    ASSERT_EQ(egress_change(g, id, 0, &req, &e), -1);
    ASSERT_EQ(e.code, ERR_NO_SPACE);
    e = ERR_INIT;
    ASSERT_OK(filter_read(f, id, 's', count, &has, &e), e);
    ASSERT_EQ(had, has);
    ASSERT_OK(egress_policy(g, id, &after, &e), e);
    ASSERT_STREQ(before.text, after.text);
    fclose(fill);
    unlink(path);
    ASSERT_OK(egress_change(g, id, 0, &req, &e), e);        /* with room it works */
    json_done(api_policy_table, &before, sizeof(before));
    json_done(api_policy_table, &after, sizeof(after));
    filter_close(f);
    ASSERT_OK(egress_detach(g, id, 1, &e), e);
    end(g);
}

TEST(a_kernel_is_probed)
{
    struct egress_probe p[EGRESS_PROBES];
    struct err e = ERR_INIT;

    SKIP_IF(geteuid() != 0, "not root");
    ASSERT_OK(egress_probe(p, &e), e);
    for (size_t i = 0; i < EGRESS_PROBES; i++) {
        ASSERT_TRUE(p[i].what && p[i].what[0]);
        ASSERT_TRUE(p[i].ok == !p[i].why[0]);
    }
}
