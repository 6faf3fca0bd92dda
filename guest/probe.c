/* SPDX-License-Identifier: MIT */
#include "guest/probe.h"
#include "common/auto.h"
#include "common/io.h"
#include "common/parse.h"
#include "common/sbuf.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define GRACE_MS 1000           /* a probe that has not ended so long after its time is killed */
#define WRITE_MS 10000
#define LOOK_MS 20

static const char *const seen_names[PROBE_SEEN_MAX] = {
#define PROBE_ROW(constant, name) [constant] = name,
    PROBE_SEEN(PROBE_ROW)
#undef PROBE_ROW
};

struct job {                    /* a probe that runs */
    pid_t pid;                  /* 0: free */
    int64_t until;
    struct probe probe;
};

const char *probe_seen_name(enum probe_seen s)
{
    return (unsigned)s < PROBE_SEEN_MAX ? seen_names[s] : "unknown";
}

void probe_say(struct probe_result *r, enum probe_seen seen, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    r->seen = seen;
    vsnprintf(r->text, sizeof(r->text), fmt, ap);
    va_end(ap);
}

const char *probe_address(uint32_t a, char buf[20])
{
    snprintf(buf, 20, "%u.%u.%u.%u", a >> 24, a >> 16 & 255, a >> 8 & 255, a & 255);
    return buf;
}

void probe_say_icmp(struct probe_result *r, uint8_t type, uint8_t code, uint32_t from)
{
    bool prohibited = type == 3 && (code == 9 || code == 10 || code == 13);
    char buf[20];

    probe_say(r, prohibited ? SEEN_PROHIBITED : SEEN_UNREACHABLE, "%s (ICMP type %u code %u of %s)",
              prohibited                  ? "administratively prohibited"
              : type == 3 && code == 3    ? "nobody listens there"
              : type == 3 && code == 4    ? "too long for the way"
              : type == 3                 ? "not reachable"
                                          : "lost on the way",
              type, code, probe_address(from, buf));
}

void probe_make(const struct probe *p, struct probe_result *ret)
{
    *ret = (struct probe_result){ .seen = SEEN_FAILED };
    switch (p->kind) {
    case PROBE_TCP:
    case PROBE_UDP:
    case PROBE_IP:
    case PROBE_ICMP:
        probe_by_socket(p, ret);
        break;
    case PROBE_DNS:
    case PROBE_DNS_AT:
        probe_by_dns(p, ret);
        break;
    default:
        probe_by_frame(p, ret);
        break;
    }
}

/* One line, short enough for a pipe to take it whole. */
static int answer(int fd, const struct probe *p, const struct probe_result *r, int64_t ms)
{
    autosbuf struct sbuf b = SBUF(PROBE_LINE);
    struct err ignored = ERR_INIT;
    char buf[20];

    sbuf_fmt(&b, "{\"id\":%u,\"kind\":\"%s\",\"seen\":\"%s\",\"ms\":%lld", p->id,
             probe_kind_name(p->kind), probe_seen_name(r->seen), (long long)ms);
    if (r->has_rcode)
        sbuf_fmt(&b, ",\"rcode\":%u", r->rcode);
    if (r->n_addresses > 0)
        sbuf_lit(&b, ",\"addresses\":[");
    for (size_t i = 0; i < r->n_addresses; i++)
        sbuf_fmt(&b, "%s\"%s\"", i ? "," : "", probe_address(r->addresses[i], buf));
    if (r->n_addresses > 0)
        sbuf_chr(&b, ']');
    sbuf_lit(&b, ",\"text\":\"");
    for (const char *t = r->text; *t; t++)
        sbuf_chr(&b, *t < ' ' || *t > '~' || *t == '"' || *t == '\\' ? '?' : *t);
    sbuf_lit(&b, "\"}\n");
    if (b.failed)
        return -1;
    return io_write_full(fd, b.data, b.len, deadline_in(WRITE_MS), &ignored);
}

static int fail(int fd, const struct probe *p, const char *why)
{
    struct probe_result r = { 0 };

    probe_say(&r, SEEN_FAILED, "%s", why);
    return answer(fd, p, &r, 0);
}

static _Noreturn void child(const struct probe *p, int out_fd)
{
    int64_t began = now_mono_ms();
    struct probe_result r;

    probe_make(p, &r);
    _exit(answer(out_fd, p, &r, now_mono_ms() - began) < 0);
}

/* Takes those that have ended, kills those that should have. Returns how many still run. */
static size_t look_after(struct job *jobs, int out_fd)
{
    size_t running = 0;

    for (size_t i = 0; i < PROBES_AT_ONCE; i++) {
        struct job *j = &jobs[i];
        int status = 0;

        if (j->pid == 0)
            continue;
        if (now_mono_ms() > j->until)
            kill(j->pid, SIGKILL);
        if (waitpid(j->pid, &status, WNOHANG) == j->pid) {
            if (WIFSIGNALED(status))
                (void)fail(out_fd, &j->probe, "the probe did not come to its end");
            j->pid = 0;
        }
        running += j->pid != 0;
    }
    return running;
}

static void start(struct job *jobs, const struct probe *p, int out_fd)
{
    size_t i = 0;

    while (look_after(jobs, out_fd) == PROBES_AT_ONCE)
        (void)poll(NULL, 0, LOOK_MS);
    while (jobs[i].pid != 0)
        i++;
    jobs[i].probe = *p;
    jobs[i].until = deadline_in(p->timeout_ms + GRACE_MS);
    jobs[i].pid = fork();
    if (jobs[i].pid == 0)
        child(p, out_fd);
    if (jobs[i].pid < 0) {
        jobs[i].pid = 0;
        (void)fail(out_fd, p, "cannot start a process");
    }
}

int probe_main(int in_fd, int out_fd)
{
    static struct job jobs[PROBES_AT_ONCE];
    autofclose FILE *in = fdopen(fcntl(in_fd, F_DUPFD_CLOEXEC, 3), "r");
    char line[PROBE_LINE];
    size_t n = 0;

    signal(SIGPIPE, SIG_IGN);
    signal(SIGCHLD, SIG_DFL);
    while (in && fgets(line, sizeof(line), in)) {
        struct err e = ERR_INIT;
        struct probe p;
        size_t len = strlen(line);

        if (len + 1 == sizeof(line) || n++ == PROBES_MAX)
            return 1;
        while (len > 0 && (line[len - 1] == '\n' || line[len - 1] == '\r'))
            line[--len] = '\0';
        if (len == 0)
            continue;
        if (probe_parse(line, &p, &e) < 0)
            (void)fail(out_fd, &p, e.msg);
        else
            start(jobs, &p, out_fd);
    }
    while (look_after(jobs, out_fd) > 0)
        (void)poll(NULL, 0, LOOK_MS);
    return in && !ferror(in) ? 0 : 1;
}
