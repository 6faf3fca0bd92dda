/* SPDX-License-Identifier: MIT
 *
 * Commands in the real agent, as an ordinary process: how they start, what they read, write and
 * see, and how they end. The channel itself is in test-guestchan.c.
 */
#include "tests/fakes/agentpeer.h"
#include "common/auto.h"
#include "common/io.h"
#include "common/proc.h"
#include "tests/harness/test.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static struct peer_exec *start(struct agentpeer *p, const struct peer_spec *s)
{
    struct peer_exec *x = peer_exec(p, s);

    peer_await_start(p, x);
    return x;
}

static void await_text(struct agentpeer *p, struct peer_exec *x, const char *text)
{
    int64_t until = deadline_in(PEER_MS);

    while (!strstr(peer_out(x), text))
        if (!peer_read(p, deadline_left(until)))
            FAIL("'%s' does not come, only '%s'", text, peer_out(x));
}

static void await_failure(struct agentpeer *p, struct peer_exec *x, enum exec_fail kind)
{
    if (!peer_until(p, &x->failed, PEER_MS))
        FAIL("exec %u does not fail", x->stream);
    ASSERT_EQ(x->kind, kind);
    ASSERT_NE(x->text[0], '\0');
}

TEST(both_outputs_and_the_exit_code)
{
    struct agentpeer *p = peer_new();
    struct peer_exec *x = peer_script(p, "printf out; printf err >&2; exit 77");

    peer_await_end(p, x);
    ASSERT_STREQ(peer_out(x), "out");
    ASSERT_STREQ(peer_err(x), "err");
    ASSERT_EQ(x->how, EXIT_CODE);
    ASSERT_EQ(x->value, 77);
    ASSERT_EQ(x->eof[0], 3);
    ASSERT_EQ(x->eof[1], 3);
    peer_free(p);
}

TEST(ends_by_signal_and_by_time)
{
    struct agentpeer *p = peer_new();
    struct peer_exec *a = peer_script(p, "kill -KILL $$");
    struct peer_exec *b = start(p, &(struct peer_spec){ .script = "exec sleep 60" });
    struct peer_exec *c = start(p, &(struct peer_spec){ .script = "trap '' TERM; echo a; sleep 60",
                                                        .timeout_ms = 150 });
    struct peer_exec *d = start(p, &(struct peer_spec){
        .script = "trap 'echo got; exit 4' USR1; echo set; while :; do sleep 0.05; done" });

    peer_await_end(p, a);
    ASSERT_EQ(a->how, EXIT_SIGNAL);
    ASSERT_EQ(a->value, SIGKILL);
    static const uint32_t none[] = { 0, 65, 1000, UINT32_MAX };
    for (size_t i = 0; i < ARRAY_SIZE(none); i++)
        peer_number(p, FRAME_SIGNAL, 0, b->stream, none[i], 4);
    peer_settle(p, 50);
    ASSERT_FALSE(b->ended);
    peer_number(p, FRAME_SIGNAL, 0, b->stream, SIGTERM, 4);
    peer_await_end(p, b);
    ASSERT_EQ(b->how, EXIT_SIGNAL);
    ASSERT_EQ(b->value, SIGTERM);
    peer_await_end(p, c);
    ASSERT_EQ(c->how, EXIT_TIMEOUT);
    ASSERT_STREQ(peer_out(c), "a\n");
    await_text(p, d, "set\n");
    peer_number(p, FRAME_SIGNAL, 0, d->stream, SIGUSR1, 4);
    peer_await_end(p, d);
    ASSERT_STREQ(peer_out(d), "set\ngot\n");
    ASSERT_EQ(d->value, 4);
    peer_free(p);
}

TEST(what_cannot_start_says_why)
{
    static const char *const none[] = { "no-such-program", NULL };
    static const char *const absolute[] = { "/no/such", NULL };
    static const char *const file[] = { "/etc/passwd", NULL };
    struct agentpeer *p = peer_new();

    await_failure(p, peer_exec(p, &(struct peer_spec){ .argv = none }), EXEC_FAIL_NOT_FOUND);
    await_failure(p, peer_exec(p, &(struct peer_spec){ .argv = absolute }), EXEC_FAIL_NOT_FOUND);
    await_failure(p, peer_exec(p, &(struct peer_spec){ .argv = file }), EXEC_FAIL_NOT_EXEC);
    await_failure(p, peer_exec(p, &(struct peer_spec){ .script = ":", .workdir = "/no/dir" }),
                  EXEC_FAIL_WORKDIR);
    await_failure(p, peer_exec(p, &(struct peer_spec){ .script = ":", .workdir = "/etc/passwd" }),
                  EXEC_FAIL_WORKDIR);
    struct peer_exec *x = peer_exec(p, &(struct peer_spec){ .script = ":", .user = "nobody-here" });
    await_failure(p, x, EXEC_FAIL_USER);
    ASSERT_CONTAINS(x->text, "nobody-here");
    await_failure(p, peer_exec(p, &(struct peer_spec){ .argv = none, .tty = true }),
                  EXEC_FAIL_NOT_FOUND);
    peer_hello(p);
    ASSERT_EQ(p->sessions, 0);          /* and leave nothing */
    peer_free(p);
}

TEST(the_environment_is_made_of_three)
{
    static const char *const sandbox[] = { "ONE=sandbox", "TWO=sandbox", "LANG=X", NULL };
    static const char *const own[] = { "TWO=exec", "THREE=a=b c", NULL };
    struct agentpeer *p = peer_start();

    setenv("SECRET_OF_THE_AGENT", "x", 1);
    peer_hello(p);
    peer_config(p, sandbox);
    struct peer_exec *x = peer_exec(p, &(struct peer_spec){
        .script = "echo \"$ONE|$TWO|$THREE|$LANG|$SECRET_OF_THE_AGENT|$TERM|$PATH\"",
        .env = own });
    peer_await_end(p, x);
    ASSERT_STREQ(peer_out(x), "sandbox|exec|a=b c|X||"
                 "|/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n");
    x = peer_exec(p, &(struct peer_spec){ .script = "echo \"$TERM\"", .tty = true });
    peer_await_end(p, x);
    ASSERT_STREQ(peer_out(x), "xterm-256color\r\n");
    peer_free(p);
}

TEST(a_command_starts_clean)
{
    struct agentpeer *p = peer_new();
    struct peer_exec *x = peer_exec(p, &(struct peer_spec){ .workdir = "/usr", .script =
        "ls /proc/self/fd | tr '\\n' ' '; umask; pwd; cat;"
        "grep -E '^Sig(Blk|Ign)' /proc/self/status | cut -f2" });

    peer_await_end(p, x);
    ASSERT_STREQ(peer_out(x), "0 1 2 3 0022\n/usr\n0000000000000000\n0000000000000000\n");
    peer_free(p);
}

TEST(other_users)
{
    SKIP_IF(geteuid() != 0, "only root can become somebody else");
    struct agentpeer *p = peer_new();
    struct peer_exec *x = peer_exec(p, &(struct peer_spec){
        .script = "id -u; id -g; id -G; echo $HOME", .user = "4000000" });

    peer_await_end(p, x);
    ASSERT_STREQ(peer_out(x), "4000000\n4000000\n4000000\n/\n");
    x = peer_exec(p, &(struct peer_spec){ .script = "id -un; echo $USER", .user = "daemon" });
    peer_await_end(p, x);
    ASSERT_STREQ(peer_out(x), "daemon\ndaemon\n");
    ASSERT_SYS(chmod(test_dir(), 0700));
    x = peer_exec(p, &(struct peer_spec){ .script = ":", .user = "daemon", .workdir = test_dir() });
    await_failure(p, x, EXEC_FAIL_WORKDIR);
    peer_free(p);
}

TEST(a_large_command_in_many_parts)
{
    static char big[LIMIT_ARG_BYTES - 10];
    const char *const argv[] = { "sh", "-c", "echo ${#1} ${#2}", "sh", big, big + 1000, NULL };
    struct agentpeer *p = peer_new();
    char want[32];

    memset(big, 'x', sizeof(big) - 1);
    struct peer_exec *x = peer_exec(p, &(struct peer_spec){ .argv = argv });
    peer_await_end(p, x);
    snprintf(want, sizeof(want), "%zu %zu\n", sizeof(big) - 1, sizeof(big) - 1001);
    ASSERT_STREQ(peer_out(x), want);
    peer_free(p);
}

TEST(input_goes_in_and_ends)
{
    static uint8_t data[700001];
    struct agentpeer *p = peer_new();
    struct peer_exec *x = start(p, &(struct peer_spec){ .script = "cat; echo end >&2; exit 3",
                                                        .stdin = true });

    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t)(i * 2654435761u >> 13);
    peer_stdin(p, x, data, sizeof(data));
    peer_await_output(p, x, sizeof(data));
    ASSERT_FALSE(x->ended);
    peer_stdin_eof(p, x);
    peer_await_end(p, x);
    ASSERT_MEMEQ(x->data[0], x->len[0], data, sizeof(data));
    ASSERT_STREQ(peer_err(x), "end\n");
    ASSERT_EQ(x->value, 3);
    peer_free(p);
}

TEST(input_that_nobody_reads)
{
    static uint8_t data[600000];
    struct agentpeer *p = peer_new();
    struct peer_exec *closed = start(p, &(struct peer_spec){
        .script = "exec <&-; echo closed; sleep 60", .stdin = true });
    struct peer_exec *idle = start(p, &(struct peer_spec){ .script = "sleep 60", .stdin = true });
    struct peer_exec *ended = start(p, &(struct peer_spec){ .script = "exit 0", .stdin = true });

    await_text(p, closed, "closed");
    peer_stdin(p, closed, data, sizeof(data));      /* is taken and dropped */
    peer_await_end(p, ended);
    peer_number(p, FRAME_DATA, 0, ended->stream, 0, 8);
    /* more than it may, at wrong places, and at the end of all numbers */
    for (uint64_t at = 0; at < 400000; at += 30000) {
        uint8_t part[30008] = { 0 };
        struct wire_out w = { .p = part, .cap = 8 };

        wire_put_u64(&w, at);
        peer_send(p, FRAME_DATA, 0, idle->stream, part, sizeof(part));
    }
    peer_number(p, FRAME_EOF, 0, idle->stream, UINT64_MAX, 8);
    peer_send(p, FRAME_DATA, 0, idle->stream, "\xff\xff\xff\xff\xff\xff\xff\xff" "abcd", 12);
    peer_ping(p);
    peer_hello(p);
    ASSERT_TRUE(idle->named);
    ASSERT_LE(idle->received, 65536 + 2 * LIMIT_WINDOW);
    ASSERT_GE(idle->received, 90000);
    ASSERT_EQ(idle->received % 30000, 0);
    peer_free(p);
}

TEST(a_terminal_has_size_line_discipline_and_keys)
{
    struct agentpeer *p = peer_new();
    struct peer_exec *x = start(p, &(struct peer_spec){
        .tty = true, .stdin = true, .rows = 33, .cols = 101,
        .script = "stty size; read a; stty size; echo got-$a; "
                  "tty -s && echo tty; exec cat" });

    await_text(p, x, "33 101\r\n");
    static const uint8_t size[] = { 44, 0, 0xc8, 0 }, zero[] = { 0, 0, 9, 0 };
    peer_send(p, FRAME_RESIZE, 0, x->stream, size, 4);
    peer_send(p, FRAME_RESIZE, 0, x->stream, zero, 4);
    peer_send(p, FRAME_RESIZE, 0, x->stream, size, 3);
    peer_stdin(p, x, "hi\r", 3);
    await_text(p, x, "44 200\r\n");
    await_text(p, x, "got-hi\r\ntty\r\n");
    peer_stdin(p, x, "echo\r", 5);
    await_text(p, x, "echo\r\necho\r\n");
    peer_stdin_eof(p, x);               /* typed, as a terminal has no other end */
    peer_await_end(p, x);
    ASSERT_EQ(x->how, EXIT_CODE);
    ASSERT_EQ(x->value, 0);
    ASSERT_EQ(x->end[1], 0);
    x = start(p, &(struct peer_spec){ .tty = true, .stdin = true,
                                      .script = "stty size; trap 'stty size' WINCH;"
                                                "while :; do sleep 0.05; done" });
    await_text(p, x, "24 80\r\n");
    peer_settle(p, 100);
    peer_send(p, FRAME_RESIZE, 0, x->stream, size, 4);      /* and the command hears of it */
    await_text(p, x, "44 200\r\n");
    peer_stdin(p, x, "\x03", 1);
    peer_await_end(p, x);
    ASSERT_EQ(x->how, EXIT_SIGNAL);
    ASSERT_EQ(x->value, SIGINT);
    peer_free(p);
}

TEST(credit_is_kept_to_the_byte_and_stops_only_its_own)
{
    struct agentpeer *p = peer_new();
    struct peer_exec *slow = start(p, &(struct peer_spec){
        .script = "yes >&2 & exec yes", .credit = 1000, .stingy = true });
    struct peer_exec *none = start(p, &(struct peer_spec){
        .script = "echo hi", .credit = UINT64_MAX, .stingy = true });

    if (!peer_until(p, &none->ended, PEER_MS))
        FAIL("no end without credit");
    ASSERT_EQ(none->end[0], 3);
    ASSERT_EQ(none->len[0], 0);
    peer_credit(p, none, 1, 2);
    peer_await_output(p, none, 2);
    peer_settle(p, 50);
    ASSERT_EQ(none->len[0], 2);
    peer_credit(p, none, 1, 100);
    peer_await_end(p, none);

    peer_await_output(p, slow, 1000);
    for (int i = 0; i < 5; i++) {
        struct peer_exec *quick = peer_script(p, "seq 1 30000");

        peer_await_end(p, quick);
        ASSERT_EQ(quick->len[0], 168894);
    }
    ASSERT_EQ(slow->len[0], 1000);
    ASSERT_EQ(slow->len[1], 1000);
    peer_credit(p, slow, 1, 500);       /* taking credit back does nothing */
    peer_credit(p, slow, 1, 700000);
    peer_credit(p, slow, 0, 700000);    /* there are streams 1 and 2 only */
    peer_credit(p, slow, 3, 700000);
    peer_await_output(p, slow, 700000);
    peer_settle(p, 50);
    ASSERT_EQ(slow->len[0], 700000);
    ASSERT_EQ(slow->len[1], 1000);
    peer_number(p, FRAME_END, 0, slow->stream, 0, 4);
    if (!peer_until(p, &slow->ended, PEER_MS))
        FAIL("no end");
    ASSERT_EQ(slow->value, SIGKILL);
    peer_free(p);
}

/* What is not to be sent yet is not read either: the command waits, not the agent's memory. */
TEST(nothing_is_read_beyond_the_credit)
{
    struct agentpeer *p = peer_new();
    struct peer_exec *x = start(p, &(struct peer_spec){ .script = "exec yes", .credit = 1000,
                                                        .stingy = true });

    peer_await_output(p, x, 1000);
    peer_settle(p, 50);
    for (uint64_t credit = 1000; credit < 400000; credit = credit * 3 + 1) {
        peer_hello(p);
        ASSERT_EQ(x->produced[0], x->len[0]);
        peer_resume(p, x, x->len[0], 0);
        peer_credit(p, x, 1, credit);
        peer_await_output(p, x, credit);
        peer_settle(p, 20);
        ASSERT_EQ(x->len[0], credit);
    }
    peer_free(p);
}

TEST_LIMIT(many_at_once, 60)
{
    struct agentpeer *p = peer_new();
    struct peer_exec *x[100];
    char script[64], want[64];

    for (int i = 0; i < 100; i++) {
        snprintf(script, sizeof(script), "echo %d; cat; exit %d", i, i);
        x[i] = peer_exec(p, &(struct peer_spec){ .script = script, .stdin = true });
    }
    for (int i = 0; i < 100; i++) {
        peer_await_start(p, x[i]);
        peer_stdin(p, x[i], "input", 5);
        peer_stdin_eof(p, x[i]);
    }
    for (int i = 0; i < 100; i++) {
        peer_await_end(p, x[i]);
        snprintf(want, sizeof(want), "%d\ninput", i);
        ASSERT_STREQ(peer_out(x[i]), want);
        ASSERT_EQ(x[i]->value, i);
        peer_forget(p, x[i]);
    }
    peer_hello(p);
    ASSERT_EQ(p->sessions, 0);
    peer_free(p);
}

TEST_LIMIT(there_is_a_limit_and_it_is_survived, 60)
{
    struct agentpeer *p = peer_new();
    static const char *const argv[] = { "sleep", "100", NULL };
    struct peer_exec *x = NULL;

    for (unsigned i = 0; i < LIMIT_EXECS; i++)
        x = peer_exec(p, &(struct peer_spec){ .argv = argv });
    struct peer_exec *over = peer_script(p, ":");
    await_failure(p, over, EXEC_FAIL_RESOURCE);
    peer_await_start(p, x);
    peer_number(p, FRAME_END, 0, x->stream, 0, 4);
    peer_await_end(p, x);
    x = peer_script(p, "echo again");
    peer_await_end(p, x);
    ASSERT_STREQ(peer_out(x), "again\n");
    peer_free(p);
}

static bool lives(pid_t pid)
{
    autofree char *stat = NULL;
    struct err e = ERR_INIT;
    char path[40];

    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    return io_read_file_at(AT_FDCWD, path, 4096, &stat, NULL, &e) == 0 && !strstr(stat, ") Z ");
}

TEST(end_hangs_up_and_then_kills_all_of_it)
{
    struct agentpeer *p = peer_new();
    struct peer_exec *soft = start(p, &(struct peer_spec){ .script = "exec sleep 60" });
    struct peer_exec *hard = start(p, &(struct peer_spec){
        .script = "trap '' HUP TERM; sleep 60 & echo $!; wait; wait; sleep 60" });
    int64_t before = now_mono_ms();

    await_text(p, hard, "\n");
    pid_t child = (pid_t)strtol(peer_out(hard), NULL, 10);
    ASSERT_TRUE(lives(child));
    peer_number(p, FRAME_END, 0, soft->stream, 5000, 4);
    peer_await_end(p, soft);
    ASSERT_EQ(soft->how, EXIT_SIGNAL);
    ASSERT_EQ(soft->value, SIGHUP);
    peer_number(p, FRAME_END, 0, hard->stream, 200, 4);
    peer_number(p, FRAME_END, 0, hard->stream, 60000, 4);   /* cannot be put off */
    if (!peer_until(p, &hard->ended, PEER_MS))
        FAIL("no end");
    ASSERT_EQ(hard->value, SIGKILL);
    ASSERT_GE(now_mono_ms() - before, 190);
    ASSERT_LT(now_mono_ms() - before, 5000);
    for (int i = 0; i < 200 && lives(child); i++)
        usleep(10000);
    ASSERT_FALSE(lives(child));
    peer_free(p);
}

TEST(what_others_write_after_the_end_is_not_its_output)
{
    struct agentpeer *p = peer_new();
    struct peer_exec *x = peer_exec(p, &(struct peer_spec){
        .script = "(sleep 0.2; echo late; head -c 1000000 /dev/zero; touch done) & echo own",
        .workdir = test_dir() });

    peer_await_end(p, x);
    ASSERT_STREQ(peer_out(x), "own\n");
    peer_forget(p, x);
    for (int i = 0; i < 500 && access(test_path("done"), F_OK) < 0; i++)
        peer_settle(p, 10);
    ASSERT_EQ(access(test_path("done"), F_OK), 0);      /* it was not held up, nor killed */
    ASSERT_STREQ(peer_out(x), "own\n");
    peer_free(p);
}

/* As the first process of a process namespace: what nobody else reaps is reaped. */
TEST(orphans_are_reaped)
{
    struct err e = ERR_INIT;
    autofree char *wrapper = NULL;
    const char *agent = getenv("SBX_AGENT");

    SKIP_IF(!agent, "SBX_AGENT does not name the agent");
    static const char *const attempt[] = { "unshare", "-pf", "--mount-proc", "true", NULL };
    SKIP_IF(proc_run(attempt, deadline_in(5000), 0, NULL, &e) < 0, "no namespaces: %s", e.msg);
    int n = asprintf(&wrapper, "#!/bin/sh\nexec unshare -pf --mount-proc '%s' \"$@\"\n", agent);
    ASSERT_GT(n, 0);
    ASSERT_OK(io_write_file_at(AT_FDCWD, test_path("agent"), wrapper, (size_t)n, 0755, &e), e);
    setenv("SBX_AGENT", test_path("agent"), 1);
    struct agentpeer *p = peer_new();
    struct peer_exec *x = peer_script(p, "for i in 1 2 3 4 5; do (setsid sleep 0.1 &); done");
    peer_await_end(p, x);
    peer_settle(p, 500);
    x = peer_script(p, "grep -l '^State:.Z' /proc/[0-9]*/status; set -- /proc/[0-9]*; echo $#");
    peer_await_end(p, x);
    ASSERT_STREQ(peer_out(x), "2\n");       /* the agent and the shell */
    peer_free(p);
}

TEST(a_network_is_heard_and_one_without_sense_is_said)
{
    const struct guest_net n = { { 2, 1 }, { 2, 2 }, 0x0ad10008, 0x0ad10001, 0x0ad10001, 1450 };
    struct agentpeer *p = peer_new();
    uint8_t b[GUEST_NET_BYTES + 4] = { 0 };

    ASSERT_EQ(guest_net_encode(&n, b, sizeof(b)), GUEST_NET_BYTES);
    peer_send(p, FRAME_NET, 0, 0, b, GUEST_NET_BYTES);
    peer_send(p, FRAME_NET, 0, 0, b, sizeof(b));
    peer_ping(p);
    peer_ping(p);               /* log lines come after the first answer */
    ASSERT_EQ(p->logs, 0);
    peer_send(p, FRAME_NET, 0, 0, b, GUEST_NET_BYTES - 1);
    peer_ping(p);
    peer_ping(p);
    ASSERT_EQ(p->logs, 1);
    peer_free(p);
}
