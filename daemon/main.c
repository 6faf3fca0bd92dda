/* SPDX-License-Identifier: MIT
 *
 * sandboxd: arguments, the stages of the start, signals, exit.
 */
#include "common/auto.h"
#include "common/io.h"
#include "common/jfield.h"
#include "common/log.h"
#include "daemon/audit_cmd.h"
#include "daemon/backup_cmd.h"
#include "daemon/cgroup_cmd.h"
#include "daemon/daemon.h"
#include "daemon/fault.h"
#include "daemon/fsck_cmd.h"
#include "daemon/image_cmd.h"
#include "daemon/notify.h"
#include "daemon/privs.h"

#include <errno.h>
#include <getopt.h>
#include <malloc.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>

#define SWEEP_MS 5000
#define STOP_ALARM_S 45     /* the kernel ends us then, whatever hangs; guests go on */

static const char help[] =
    "Usage: sandboxd [--config FILE] [--log-level LEVEL]\n"
    "       sandboxd image build|ls [OPTIONS]\n"
    "       sandboxd audit verify [--config FILE]\n"
    "       sandboxd backup [OPTIONS] FILE\n"
    "       sandboxd fsck [OPTIONS]\n"
    "\n"
    "Runs sandboxes: microVMs with a workspace of their own, driven by sbx or by HTTP\n"
    "over a Unix socket. Stays in the foreground.\n"
    "\n"
    "  --config FILE      JSON configuration (default /etc/sandboxd/daemon.json, if there)\n"
    "  --log-level LEVEL  err, warning, notice, info or debug; goes before the configuration\n"
    "  --version          print the version\n"
    "  --help             print this text\n"
    "\n"
    "`sandboxd image --help` says how to build base images; the other commands have their own\n"
    "--help too.\n";

/* Run by hand, beside a daemon or without one. */
static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
} commands[] = {
    { "image", image_cmd },
    { "audit", audit_cmd },
    { "backup", backup_cmd },
    { "fsck", fsck_cmd },
    { "cgroup", cgroup_cmd },       /* for sandboxd-guests.service, hence not in the help */
};

struct args {
    const char *config;
    const char *log_level;
};

static int level_of(const char *name)
{
    static const struct { const char *name; int level; } levels[] = {
        { "err", LOG_ERR },   { "warning", LOG_WARNING }, { "notice", LOG_NOTICE },
        { "info", LOG_INFO }, { "debug", LOG_DEBUG },
    };

    for (size_t i = 0; i < ARRAY_SIZE(levels); i++)
        if (strcmp(levels[i].name, name) == 0)
            return levels[i].level;
    return -1;
}

static int usage(const char *what)
{
    fprintf(stderr, "sandboxd: %s\nTry `sandboxd --help`.\n", what);
    return 2;
}

/* Returns -1 to go on, or the exit status. */
static int parse_args(int argc, char **argv, struct args *ret)
{
    static const struct option options[] = {
        { "config", required_argument, NULL, 'c' },  { "log-level", required_argument, NULL, 'l' },
        { "version", no_argument, NULL, 'v' },       { "help", no_argument, NULL, 'h' },
        { NULL, 0, NULL, 0 },
    };
    int o;

    opterr = 0;
    while ((o = getopt_long(argc, argv, "+:", options, NULL)) != -1) {
        switch (o) {
        case 'c':
            ret->config = optarg;
            break;
        case 'l':
            if (level_of(optarg) < 0)
                return usage("--log-level is err, warning, notice, info or debug");
            ret->log_level = optarg;
            break;
        case 'v':
            puts("sandboxd " SBX_VERSION);
            return 0;
        case 'h':
            fputs(help, stdout);
            return 0;
        case ':':
            return usage("an option lacks its value");
        default:
            return usage("unknown option");
        }
    }
    return optind < argc ? usage("too many arguments") : -1;
}

static void set_level(const struct args *args, const struct config *c)
{
    log_set_level(level_of(args->log_level ? args->log_level : c->log_level));
}

/* SIGHUP: the one thing that can change while we run. */
static void reload(const struct args *args)
{
    struct config c = { 0 };
    struct err e = ERR_INIT;

    if (config_load(args->config, &c, &e) < 0) {
        log_warn(LOG_CTX(.error = &e), "the configuration cannot be read again, ignoring");
        return;
    }
    set_level(args, &c);
    config_done(&c);
    log_info(NULL, "log level set from the configuration; other keys need a restart");
}

/* Waits for the signal to stop. Meanwhile the only regular work of this thread. */
static void serve(struct daemon *d, const struct args *args, int signal_fd)
{
    struct signalfd_siginfo si;
    struct pollfd p = { .fd = signal_fd, .events = POLLIN };

    for (;;) {
        if (poll(&p, 1, SWEEP_MS) > 0 && read(signal_fd, &si, sizeof(si)) == sizeof(si)) {
            if (si.ssi_signo != SIGHUP) {
                log_info(NULL, "stopping on signal %u", si.ssi_signo);
                return;
            }
            reload(args);
        }
        daemon_tick(d);
    }
}

static void handled(sigset_t *set)
{
    sigemptyset(set);
    sigaddset(set, SIGTERM);
    sigaddset(set, SIGINT);
    sigaddset(set, SIGHUP);
}

/* From here on SIGTERM and SIGINT end the process at once, and so does the alarm. */
static bool stop(struct daemon *d)
{
    sigset_t set;

    notify_stopping();
    notify_extend(STOP_ALARM_S + 5);
    handled(&set);
    sigdelset(&set, SIGHUP);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    alarm(STOP_ALARM_S);
    bool whole = daemon_stop(d);
    alarm(0);
    return whole;
}

/* One thread per connection would mean an arena for each of many, and one large answer would teach
 * malloc to keep such blocks: few arenas, and what is large goes back to the system. */
static void limit_heap(void)
{
    mallopt(M_ARENA_MAX, 4);
    mallopt(M_MMAP_THRESHOLD, 256 * 1024);
    mallopt(M_TRIM_THRESHOLD, 1024 * 1024);
}

static int fail(const struct err *e, const char *what)
{
    log_err(LOG_CTX(.error = e), "%s", what);
    if (e->hint[0])
        log_err(NULL, "hint: %s", e->hint);
    return 1;
}

static int run(const struct args *args)
{
    struct config config = { 0 };
    struct daemon d = { 0 };
    struct err e = ERR_INIT;
    sigset_t set;

    /* 1. what we inherit: descriptors, environment, signals, masks */
    struct notify_fds passed;
    if (notify_listen_fds(&passed, &e) < 0 || privs_clean(passed.n, &e) < 0)
        return fail(&e, "cannot start");
    log_init("sandboxd", LOG_INFO);     /* again: the journal's socket was among the closed ones */

    /* 2. configuration */
    if (config_load(args->config, &config, &e) < 0)
        return fail(&e, "the configuration cannot be used");
    set_level(args, &config);
    if (geteuid() != 0) {
        config_done(&config);
        err_set(&e, ERR_DENIED, "sandboxd has to be started as root");
        return fail(&e, "cannot start");
    }

    /* 3. what needs all privileges: directories, lock, mount namespace, socket */
    if (daemon_prepare(&d, &config, &passed, &e) < 0) {
        (void)stop(&d);
        return fail(&e, "cannot start");
    }

    /* 4. keep the privileges that are needed; no thread runs yet, so it holds for all */
    if (privs_drop(&e) < 0)
        return fail(&e, "cannot start");

    /* 5. threads: they inherit the blocked signals, which arrive here only */
    json_init();
    limit_heap();
    handled(&set);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    autoclose int signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (signal_fd < 0) {
        err_sys(&e, ERR_INTERNAL, errno, "signalfd");
        return fail(&e, "cannot start");
    }
    if (daemon_start(&d, &e) < 0) {
        struct err why = e;
        (void)stop(&d);
        return fail(&why, "cannot start");
    }

    /* 6. ready */
    log_info(NULL, "sandboxd " SBX_VERSION " listens on %s", d.config.socket);
    notify_status("serving");
    fault_serving();
    notify_ready();
    serve(&d, args, signal_fd);

    /* 7. the way back */
    if (!stop(&d)) {
        log_warn(NULL, "requests were still under way; the next start puts right what they left");
        _exit(0);
    }
    log_info(NULL, "stopped; running sandboxes go on");
    return 0;
}

int main(int argc, char **argv)
{
    struct args args = { 0 };

    log_init("sandboxd", LOG_INFO);
    if (fault_main(argc, argv))
        return 0;
    for (size_t i = 0; argc > 1 && i < ARRAY_SIZE(commands); i++)
        if (strcmp(argv[1], commands[i].name) == 0)
            return commands[i].run(argc - 1, argv + 1);
    int status = parse_args(argc, argv, &args);
    return status >= 0 ? status : run(&args);
}
