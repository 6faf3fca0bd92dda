/* SPDX-License-Identifier: MIT
 *
 * What the router writes to the audit log: routes of the test's own, the real router.
 */
#include "common/api.h"
#include "common/auto.h"
#include "common/io.h"
#include "common/limits.h"
#include "common/log.h"
#include "daemon/audit.h"
#include "daemon/daemon.h"
#include "daemon/digest.h"
#include "daemon/idem.h"
#include "daemon/routes.h"
#include "tests/harness/test.h"

#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mount.h>

static struct daemon d;
static struct call c;
static struct err e;
static const char *dir;
static int n_done;
static struct api_audit_record seen[64];
static size_t n_seen;

static int h_done(struct call *call, struct err *err)
{
    n_done++;
    return reply_empty(call);
}

static int h_made(struct call *call, struct err *err)
{
    static const struct jfield table[] = {
        JF(struct api_sandbox, id, JT_STR), JF(struct api_sandbox, name, JT_STR), JF_END
    };
    struct api_sandbox s = { .id = (char *)"0123456789abcdef", .name = (char *)"made" };

    n_done++;
    return reply_json(call, 201, table, &s, err);
}

static int h_fails(struct call *call, struct err *err)
{
    return err_set(err, ERR_SANDBOX_BUSY, "no");
}

static int h_not_yours(struct call *call, struct err *err)
{
    return err_set(err, ERR_SANDBOX_NOT_FOUND, "no");
}

#define EXEC_BODY LIMIT_BODY, api_exec_req_table, sizeof(struct api_exec_req)
#define CREATE_BODY LIMIT_BODY, api_create_req_table, sizeof(struct api_create_req)
#define NONE 64, NULL, 0
#define POLICY_BODY(name) LIMIT_BODY, api_##name##_table, sizeof(struct api_##name)
static const struct route table[] = {
    { "POST", "/execs", ROLE_USER, EXEC_BODY, h_made, ROUTE_IDEM, .action = ACT_EXEC_CREATE },
    { "POST", "/sandboxes", ROLE_USER, CREATE_BODY, h_made, .action = ACT_SANDBOX_CREATE },
    { "PUT", "/policy", ROLE_USER, POLICY_BODY(policy_set_req), h_done, .action = ACT_POLICY_SET },
    { "POST", "/rules", ROLE_USER, POLICY_BODY(policy_rules_req), h_done,
      .action = ACT_POLICY_CHANGE },
    { "POST", "/refused", ROLE_USER, POLICY_BODY(policy_rules_req), h_fails,
      .action = ACT_POLICY_CHANGE },
    { "PUT", "/policies/{name}", ROLE_USER, POLICY_BODY(named_policy_req), h_done,
      .action = ACT_POLICY_DEFINE },
    { "POST", "/busy", ROLE_USER, NONE, h_fails, .action = ACT_SANDBOX_START },
    { "DELETE", "/box", ROLE_USER, NONE, h_done, .action = ACT_SANDBOX_RM },
    { "POST", "/sig/{ref}/{id}", ROLE_USER, NONE, h_done, .action = ACT_EXEC_SIGNAL },
    { "DELETE", "/images/{ref}", ROLE_ADMIN, NONE, h_done, .action = ACT_IMAGE_RM },
    { "GET", "/look/{ref}", ROLE_USER, NONE, h_not_yours },
    { "GET", "/fine", ROLE_USER, NONE, h_done },
    { NULL }
};

static void start(enum audit_mode mode)
{
    struct audit_options o = { .mode = mode, .size = 16 * MIB, .files = 8 };

    log_set_level(LOG_EMERG);
    json_init();
    if (!dir)
        dir = test_dir();
    o.dir = dir;
    ASSERT_OK(audit_open(&o, &d.audit, &e), e);
}

/* As http.c does it; the status of the answer. */
static int ask(const char *method, const char *target, const char *body)
{
    call_done(&c);
    c = (struct call){ .daemon = &d, .method = method,
                       .caller = { .id.uid = 4000000000, .pid = getpid(), .request = "req1" } };
    e = ERR_INIT;
    if (dispatch_head(&c, table, target, &e) < 0) {
        reply_error(&c, &e);
        return c.reply.status;
    }
    c.raw = body ? strdup(body) : NULL;
    c.raw_len = body ? strlen(body) : 0;
    dispatch_run(&c);
    return c.reply.status;
}

/* Records behind the first one, which is the start. */
static char *read_log(void)
{
    struct audit_reader *r = NULL;
    const char *line;
    static char text[64 * 1024];
    size_t len, all = 0;

    ASSERT_OK(audit_reader_new(d.audit, 2, &r, &e), e);
    for (n_seen = 0; audit_reader_next(r, &line, &len, &e) == 1; n_seen++) {
        ASSERT_LT(n_seen, ARRAY_SIZE(seen));
        ASSERT_OK(json_decode(api_audit_record_table, line, len, &seen[n_seen], &e), e);
        ASSERT_LT(all + len, sizeof(text));
        memcpy(text + all, line, len);
        all += len;
    }
    text[all] = '\0';
    audit_reader_free(r);
    return text;
}

TEST(a_command_is_recorded_without_what_it_is_told)
{
    start(AUDIT_REQUIRED);
    ASSERT_EQ(ask("POST", "/execs", "{\"command\":[\"mysql\",\"-psecret1\",\"x\"],"
                                    "\"env\":{\"TOKEN\":\"secret2\"},"
                                    "\"workdir\":\"/secret3\"}"), 201);
    char *text = read_log();
    ASSERT_NULL(strstr(text, "secret"));
    ASSERT_NULL(strstr(text, "TOKEN"));
    ASSERT_EQ(n_seen, 1);
    ASSERT_STREQ(seen[0].kind, "end");
    ASSERT_STREQ(seen[0].action, "exec.create");
    ASSERT_STREQ(seen[0].command.program, "mysql");
    ASSERT_EQ(seen[0].command.arguments, 2);
    ASSERT_STREQ(seen[0].exec, "0123456789abcdef");
    ASSERT_STREQ(seen[0].request, "req1");
    ASSERT_EQ(seen[0].who.uid, 4000000000);
    ASSERT_EQ(seen[0].who.pid, getpid());
    ASSERT_EQ(seen[0].result.status, 201);
    ASSERT_FALSE(seen[0].result.denied);
}

TEST(a_create_names_what_is_mounted_and_the_policy)
{
    start(AUDIT_REQUIRED);
    ASSERT_EQ(ask("POST", "/sandboxes", "{\"workspace\":{\"path\":\"/home/ann/w\","
                                        "\"read_only\":true},"
                                        "\"policy\":\"dev\",\"allow\":[\"a.example:443\"],"
                                        "\"deny\":[\"b.example:443\",\"c.example:443\"]}"), 201);
    ASSERT_EQ(ask("POST", "/sandboxes", "{\"workspace\":{\"path\":\"/home/bob\"}}"), 201);
    ASSERT_EQ(ask("POST", "/sandboxes", "{}"), 201);
    read_log();
    ASSERT_EQ(n_seen, 6);
    for (int i = 0; i < 2; i++) {       /* the beginning as well: it may be all that is left */
        ASSERT_TRUE(seen[i].mount.present && seen[i].mount.read_only);
        ASSERT_STREQ(seen[i].mount.path, "/home/ann/w");
        ASSERT_TRUE(seen[2 + i].mount.present && !seen[2 + i].mount.read_only);
        ASSERT_STREQ(seen[2 + i].mount.path, "/home/bob");
        ASSERT_FALSE(seen[2 + i].change.present);
        ASSERT_FALSE(seen[4 + i].mount.present);
    }
    ASSERT_FALSE(seen[0].change.present);
    ASSERT_STREQ(seen[1].change.verb, "set");
    ASSERT_STREQ(seen[1].change.what,
                 "dev allow a.example:443 deny b.example:443 c.example:443");
    ASSERT_EQ(seen[1].change.targets, 3);
}

TEST(a_change_of_a_policy_says_which)
{
    start(AUDIT_REQUIRED);
    ASSERT_EQ(ask("PUT", "/policy", "{\"policy\":\"open\"}"), 204);
    ASSERT_EQ(ask("PUT", "/policy", "{\"rules\":\"allow a.example:443 # secret\\n\"}"), 204);
    ASSERT_EQ(ask("POST", "/rules", "{\"verdict\":\"deny\",\"targets\":[\"a:1\",\"b:2\"]}"), 204);
    ASSERT_EQ(ask("PUT", "/policies/team", "{\"rules\":\"# secret\\n\"}"), 204);
    ASSERT_EQ(ask("POST", "/refused", "{\"verdict\":\"allow\","
                                      "\"targets\":[\"https://me:secret@a/\"]}"), 409);
    ASSERT_NULL(strstr(read_log(), "secret"));
    ASSERT_EQ(n_seen, 5);
    ASSERT_STREQ(seen[0].change.verb, "set");
    ASSERT_STREQ(seen[0].change.what, "open");
    ASSERT_STREQ(seen[1].change.verb, "rules");
    char hex[DIGEST_HEX];
    digest_hex("allow a.example:443 # secret\n", 29, hex);
    ASSERT_STREQ(seen[1].change.digest, hex);
    ASSERT_NULL(seen[1].change.what);
    ASSERT_STREQ(seen[2].change.verb, "deny");
    ASSERT_STREQ(seen[2].change.what, "a:1 b:2");
    ASSERT_EQ(seen[2].change.targets, 2);
    ASSERT_STREQ(seen[3].target, "team");
    ASSERT_STREQ(seen[3].change.verb, "rules");
    ASSERT_FALSE(seen[4].change.present);
}

TEST(long_texts_are_cut_and_recorded)
{
    autosbuf struct sbuf b = SBUF(256 * KIB);

    start(AUDIT_REQUIRED);
    sbuf_lit(&b, "{\"workspace\":{\"path\":\"/");
    for (int i = 0; i < 4000; i++)
        sbuf_lit(&b, "\\\"");          /* two bytes in the line for each */
    sbuf_lit(&b, "\"},\"policy\":\"dev\",\"allow\":[");
    for (int i = 0; i < 500; i++)
        sbuf_fmt(&b, "%s\"n%d.example:443\"", i ? "," : "", i);
    sbuf_lit(&b, "]}");
    ASSERT_EQ(ask("POST", "/sandboxes", sbuf_str(&b)), 201);
    read_log();
    ASSERT_EQ(n_seen, 2);
    ASSERT_EQ(strlen(seen[1].mount.path), 1023);
    ASSERT_EQ(strlen(seen[1].change.what), 383);
    ASSERT_EQ(seen[1].change.targets, 500);
}

TEST(what_is_turned_away_is_recorded_within_bounds)
{
    start(AUDIT_REQUIRED);
    for (int i = 0; i < 100; i++) {
        call_done(&c);
        c = (struct call){ .daemon = &d, .method = "POST",
                           .caller = { .id.uid = 4000000000, .pid = getpid(), .request = "r" } };
        audit_call_turned_away(&c, "/v1/sandboxes?token=secret", ERR_ORIGIN_REFUSED);
        ASSERT_NULL(c.route);
        audit_call_turned_away(&c, "/v1/sandboxes", ERR_INVALID);   /* is no denial */
    }
    ASSERT_NULL(strstr(read_log(), "secret"));
    ASSERT_EQ(n_seen, ACTION_TURNED_AWAY);
    for (size_t i = 0; i < n_seen; i++) {
        ASSERT_STREQ(seen[i].action, "turned-away");
        ASSERT_STREQ(seen[i].target, "POST /v1/sandboxes");
        ASSERT_EQ(seen[i].result.status, 403);
        ASSERT_STREQ(seen[i].result.code, "origin_refused");
        ASSERT_TRUE(seen[i].result.denied);
        ASSERT_EQ(seen[i].who.uid, 4000000000);
    }
}

TEST(what_takes_long_begins_and_ends)
{
    start(AUDIT_REQUIRED);
    ASSERT_EQ(ask("POST", "/sandboxes", "{\"name\":\"wish\",\"env\":{\"K\":\"secret\"}}"), 201);
    ASSERT_EQ(ask("POST", "/busy", NULL), 409);
    char *text = read_log();
    ASSERT_NULL(strstr(text, "secret"));
    ASSERT_EQ(n_seen, 4);
    ASSERT_STREQ(seen[0].kind, "begin");
    ASSERT_STREQ(seen[0].name, "wish");
    ASSERT_FALSE(seen[0].result.present);
    ASSERT_STREQ(seen[1].kind, "end");
    ASSERT_STREQ(seen[1].sandbox, "0123456789abcdef");
    ASSERT_STREQ(seen[1].name, "made");
    ASSERT_STREQ(seen[2].kind, "begin");
    ASSERT_EQ(seen[3].result.status, 409);
    ASSERT_STREQ(seen[3].result.code, "sandbox_busy");
}

TEST(what_is_denied_is_recorded_and_what_is_looked_at_is_not)
{
    start(AUDIT_REQUIRED);
    ASSERT_EQ(ask("GET", "/fine", NULL), 204);
    ASSERT_EQ(ask("GET", "/nowhere", NULL), 404);
    ASSERT_EQ(ask("GET", "/look/others%1b", NULL), 404);
    ASSERT_EQ(ask("DELETE", "/images/debian", NULL), 403);
    read_log();
    ASSERT_EQ(n_seen, 2);
    ASSERT_STREQ(seen[0].action, "read");
    ASSERT_STREQ(seen[0].target, "others?");
    ASSERT_TRUE(seen[0].result.denied);
    ASSERT_STREQ(seen[0].result.code, "sandbox_not_found");
    ASSERT_STREQ(seen[1].action, "image.rm");
    ASSERT_STREQ(seen[1].target, "debian");
    ASSERT_EQ(seen[1].result.status, 403);
    ASSERT_TRUE(seen[1].result.denied);
    ASSERT_EQ(n_done, 1);
}

/* A record has a bound, so what is in it has, or a long word would keep it out of the log. */
TEST(long_words_do_not_keep_a_record_away)
{
    char *target = NULL, *body = NULL, *word = malloc(20001);

    memset(word, 'a', 20000);
    word[20000] = '\0';
    start(AUDIT_REQUIRED);
    ASSERT_GT(asprintf(&target, "/sig/%.9000s/%.9000s", word, word), 0);
    ASSERT_EQ(ask("POST", target, NULL), 204);
    for (int i = 0; i < 20000; i += 2)
        memcpy(word + i, "\\\"", 2);
    ASSERT_GT(asprintf(&body, "{\"command\":[\"%s\"]}", word), 0);
    ASSERT_EQ(ask("POST", "/execs", body), 201);
    read_log();
    ASSERT_EQ(n_seen, 2);
    ASSERT_EQ(strlen(seen[0].target), 255);
    ASSERT_EQ(strlen(seen[0].exec), 255);
    ASSERT_EQ(strlen(seen[1].command.program), 255);
    free(target);
    free(body);
    free(word);
}

TEST(a_request_that_came_again_is_told_apart)
{
    start(AUDIT_REQUIRED);
    ASSERT_OK(store_open(test_path("db"), &d.store, &e), e);
    ASSERT_OK(idem_new(d.store, &d.idem, &e), e);
    for (int i = 0; i < 2; i++) {
        call_done(&c);
        c = (struct call){ .daemon = &d, .method = "POST", .idem_key = strdup("key") };
        ASSERT_OK(dispatch_head(&c, table, "/execs", &e), e);
        c.raw = strdup("{\"command\":[\"x\"]}");
        c.raw_len = strlen(c.raw);
        dispatch_run(&c);
        ASSERT_EQ(c.reply.status, 201);
    }
    read_log();
    ASSERT_EQ(n_seen, 2);
    ASSERT_EQ(n_done, 1);
    ASSERT_FALSE(seen[0].result.replayed);
    ASSERT_TRUE(seen[1].result.replayed);
}

/* --- a full disk --- */

static void full_disk(enum audit_mode mode)
{
    static char block[4096];

    SKIP_IF(unshare(CLONE_NEWNS) < 0, "no mount namespaces");
    ASSERT_SYS(mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL));
    ASSERT_SYS(mount("small", "/mnt", "tmpfs", 0, "size=1m"));
    dir = "/mnt";
    start(mode);
    int fd = ASSERT_SYS(open("/mnt/filler", O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
    while (write(fd, block, sizeof(block)) > 0)
        ;
    close(fd);
}

#define COMMAND_BODY "{\"command\":[\"true\"]}"

TEST(required_refuses_before_anything_is_done)
{
    int n = 0;

    full_disk(AUDIT_REQUIRED);
    while (ask("POST", "/execs", COMMAND_BODY) == 201 && n++ < 10000)
        ;
    ASSERT_EQ(c.reply.status, 507);
    ASSERT_CONTAINS(c.reply.body, "\"code\":\"no_space\"");
    ASSERT_CONTAINS(c.reply.body, "cannot be recorded");
    ASSERT_CONTAINS(c.reply.body, "No space left on device");
    ASSERT_EQ(n_done, n);
    for (int i = 0; i < 2000; i++)      /* which do not use up what is kept for the way out */
        ASSERT_EQ(ask("POST", "/busy", NULL), 507);
    ASSERT_EQ(ask("GET", "/fine", NULL), 204);
    /* the way out */
    ASSERT_EQ(ask("DELETE", "/box", NULL), 204);
    ASSERT_EQ(n_done, n + 2);
    ASSERT_SYS(unlink("/mnt/filler"));
    ASSERT_EQ(ask("POST", "/execs", COMMAND_BODY), 201);
}

TEST(best_effort_does_it_and_says_what_is_missing)
{
    int n = 0;

    full_disk(AUDIT_BEST_EFFORT);
    /* until the room that was set aside is used up, and then some */
    for (uint64_t head = 0; n < 20000 && head != audit_head(d.audit); n++) {
        head = audit_head(d.audit);
        ASSERT_EQ(ask("POST", "/execs", COMMAND_BODY), 201);
    }
    ASSERT_LT(n, 20000);
    ASSERT_EQ(ask("POST", "/execs", COMMAND_BODY), 201);
    ASSERT_EQ(n_done, n + 1);
    uint64_t head = audit_head(d.audit);
    ASSERT_SYS(unlink("/mnt/filler"));
    ASSERT_EQ(ask("POST", "/execs", COMMAND_BODY), 201);
    ASSERT_EQ(audit_head(d.audit), head + 2);
    struct api_audit_verdict v = { 0 };
    ASSERT_OK(audit_verify(d.audit, NULL, &v, &e), e);
    ASSERT_TRUE(v.intact);
    json_done(api_audit_verdict_table, &v, sizeof(v));
}

TEST(off_is_off)
{
    start(AUDIT_OFF);
    ASSERT_NULL(d.audit);
    ASSERT_EQ(ask("POST", "/execs", COMMAND_BODY), 201);
    ASSERT_EQ(ask("DELETE", "/images/debian", NULL), 403);
    ASSERT_EQ(access(test_path("audit.log"), F_OK), -1);
}
