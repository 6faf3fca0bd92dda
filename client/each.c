/* SPDX-License-Identifier: MIT */
#include "client/each.h"
#include "client/out.h"
#include "client/progress.h"
#include "common/auto.h"
#include "common/io.h"
#include <assert.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>

#define TICK_MS 100

struct outcome {        /* through a pipe from the child, in one piece */
    int result;
    int interrupted;
    struct err error;
};
static_assert(sizeof(struct outcome) <= 512, "written at once");

struct child {
    pid_t pid;
    int fd;
};

static volatile sig_atomic_t caught;

static void on_signal(int signo)
{
    caught = signo;
}

_Noreturn static void child_run(struct app *app, const char *name, each_fn *fn, void *arg, int fd)
{
    struct outcome o = { .error = ERR_INIT };
    struct err ignored = ERR_INIT;

    o.result = fn(app, name, arg, &o.error);
    o.interrupted = app->interrupted;
    io_write_full(fd, &o, sizeof(o), DEADLINE_NONE, &ignored);
    _exit(0);
}

static int child_start(struct app *app, const char *name, each_fn *fn, void *arg, struct child *ret,
                       struct err *e)
{
    int fds[2];

    if (pipe2(fds, O_CLOEXEC) < 0)
        return err_sys(e, ERR_INTERNAL, errno, "cannot make a pipe");
    autoclose int reads = fds[0];
    autoclose int writes = fds[1];
    pid_t pid = fork();
    if (pid < 0)
        return err_sys(e, ERR_INTERNAL, errno, "cannot start a process");
    if (pid == 0)
        child_run(app, name, fn, arg, writes);
    *ret = (struct child){ .pid = pid, .fd = take_fd(&reads) };
    return 0;
}

/* Waits for one; a signal goes on to all of them, once. */
static void child_wait(struct child *c, const struct child *all, size_t n, struct progress *p,
                       struct outcome *ret)
{
    bool told = false;
    struct err ignored = ERR_INIT;

    *ret = (struct outcome){ .result = -1, .error = ERR_INIT };
    for (;;) {
        struct pollfd wait = { .fd = c->fd, .events = POLLIN };
        if (caught && !told) {
            told = true;
            for (size_t i = 0; i < n; i++)
                if (all[i].pid > 0)
                    kill(all[i].pid, caught);
        }
        progress_tick(p);
        if (poll(&wait, 1, TICK_MS) > 0)
            break;
    }
    progress_end_line(p);
    if (io_read_full(c->fd, ret, sizeof(*ret), deadline_in(TICK_MS), &ignored) < 0) {
        ret->interrupted = caught;
        err_set(&ret->error, ERR_INTERNAL, "sbx ended before it was done");
    }
    fd_close(c->fd);
    while (waitpid(c->pid, NULL, 0) < 0 && errno == EINTR)
        ;
    *c = (struct child){ .pid = -1, .fd = -1 };
}

/* Exit status so far; -1 when stdout fails. */
static int take(struct app *app, const char *name, const struct outcome *o, int status,
                struct err *e)
{
    if (o->interrupted) {
        app->interrupted = o->interrupted;
        return status;
    }
    if (o->result < 0) {
        report(&o->error);
        return status ? status : err_exit_status(o->error.code);
    }
    if (o->result == 0 && (out_line(name, e) < 0 || out_flush(e) < 0))
        return -1;
    return status;
}

static int in_children(struct app *app, char **names, size_t n, each_fn *fn, void *arg,
                       struct progress *p, struct err *e)
{
    size_t at_once = app->host.kind == HOST_SSH ? EACH_AT_ONCE_SSH : EACH_AT_ONCE;
    autofree struct child *children = calloc(n, sizeof(*children));
    struct sigaction old_int, old_term;
    const struct sigaction act = { .sa_handler = on_signal };
    size_t started = 0;
    int status = 0;
    bool failed = false, unreachable = false;

    if (!children)
        return err_nomem(e);
    sigaction(SIGINT, &act, &old_int);
    sigaction(SIGTERM, &act, &old_term);
    for (size_t i = 0; i < n; i++) {
        struct outcome o;
        bool more = !caught && !failed && !unreachable;
        for (; more && started < n && started < i + at_once; started += more) {
            more = child_start(app, names[started], fn, arg, &children[started], e) == 0;
            failed = !more;
        }
        if (i >= started)
            break;
        child_wait(&children[i], children, started, p, &o);
        if (failed || unreachable)
            continue;       /* the others of those under way are only waited for */
        status = take(app, names[i], &o, status, e);
        failed = status < 0;
        unreachable = o.result < 0 && o.error.code == ERR_UNREACHABLE;  /* all would say the same */
    }
    sigaction(SIGINT, &old_int, NULL);
    sigaction(SIGTERM, &old_term, NULL);
    if (caught && !app->interrupted)
        app->interrupted = caught;
    return failed ? -1 : status;
}

int each_name(struct app *app, char **names, size_t n, each_fn *fn, void *arg, const char *progress,
              struct err *e)
{
    autosbuf struct sbuf words = SBUF(400);
    struct progress p;
    int r = 0;

    for (size_t i = 0; i < n; i++)
        if (!names[i][0])
            return err_set(e, ERR_USAGE, "a name is empty");
    if (n == 1)
        sbuf_text(&words, names[0], strlen(names[0]));
    else
        sbuf_fmt(&words, "%zu", n);
    autosbuf struct sbuf line = SBUF(500);
    sbuf_fmt(&line, "%s %s", progress, sbuf_str(&words));
    fflush(stdout);
    progress_start(&p, sbuf_str(&line));
    r = in_children(app, names, n, fn, arg, &p, e);
    progress_end(&p);
    if (app->interrupted)
        note("given up; sandboxd finishes %s what it began with", progress);
    return r;
}
