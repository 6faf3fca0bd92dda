/* SPDX-License-Identifier: MIT
 *
 * sandboxd-resolver: arguments, the jail, the loop.
 */
#include "common/auto.h"
#include "common/io.h"
#include "common/log.h"
#include "common/parse.h"
#include "resolver/jail.h"
#include "resolver/server.h"

#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#define OTHER_FILES 32      /* descriptors: the standard ones, the loop, what was handed over */
#define DENIED_TTL 5
#define DENIED_TTL_MAX 3600

static const char help[] =
    "Usage: sandboxd-resolver --channel FD --udp FD --tcp FD [--upstream ADDRESS[:PORT]]...\n"
    "                         [OPTIONS]\n"
    "\n"
    "Answers the DNS questions of sandboxes as far as sandboxd allows it. Started by\n"
    "sandboxd, not by hand; ends with it.\n"
    "\n"
    "  --channel FD       connection with sandboxd (SOCK_SEQPACKET)\n"
    "  --udp FD           bound socket\n"
    "  --tcp FD           listening socket\n"
    "  --upstream ADDRESS[:PORT]\n"
    "                     server to ask, up to eight; [ADDRESS]:PORT for IPv6\n"
    "  --nxdomain-ttl N   seconds that what was denied may be remembered (default 5)\n"
    "  --uid N --gid N    whom to become, if started as root\n"
    "  --log-level LEVEL  err, warning, notice, info or debug\n"
    "  --version          print the version\n"
    "  --help             print this text\n";

struct args {
    struct server_config server;
    struct upstream_address upstreams[UPSTREAMS_MAX];
    struct jail jail;
    int log_level;
};

static int usage(const char *what)
{
    fprintf(stderr, "sandboxd-resolver: %s\nTry `sandboxd-resolver --help`.\n", what);
    return 2;
}

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

static int parse_number(const char *text, uint32_t min, uint32_t max, uint32_t *ret)
{
    return parse_u32(text, min, max, ret) ? -1 : usage("an option has an invalid number");
}

static int parse_fd(const char *text, int *ret)
{
    uint32_t n = 0;
    int r = parse_number(text, 3, INT32_MAX, &n);

    *ret = (int)n;
    return r;
}

static int parse_upstream(const char *text, struct args *ret)
{
    struct err e = ERR_INIT;

    if (ret->server.n_upstreams == UPSTREAMS_MAX)
        return usage("too many upstreams");
    if (upstream_address_parse(text, &ret->upstreams[ret->server.n_upstreams], &e) < 0)
        return usage(e.msg);
    ret->server.n_upstreams++;
    return -1;
}

static int parse_option(int o, struct args *ret)
{
    switch (o) {
    case 'c':
        return parse_fd(optarg, &ret->server.channel);
    case 'u':
        return parse_fd(optarg, &ret->server.udp);
    case 't':
        return parse_fd(optarg, &ret->server.tcp);
    case 's':
        return parse_upstream(optarg, ret);
    case 'n':
        return parse_number(optarg, 1, DENIED_TTL_MAX, &ret->server.denied_ttl);
    case 'U':
        return parse_number(optarg, 1, UINT32_MAX - 1, &ret->jail.uid);
    case 'G':
        return parse_number(optarg, 1, UINT32_MAX - 1, &ret->jail.gid);
    case 'l':
        if (level_of(optarg) < 0)
            return usage("--log-level is err, warning, notice, info or debug");
        ret->log_level = level_of(optarg);
        return -1;
    case 'v':
        puts("sandboxd-resolver " SBX_VERSION);
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

/* Returns -1 to go on, or the exit status. */
static int parse_args(int argc, char **argv, struct args *ret)
{
    static const struct option options[] = {
        { "channel", required_argument, NULL, 'c' },  { "udp", required_argument, NULL, 'u' },
        { "tcp", required_argument, NULL, 't' },      { "upstream", required_argument, NULL, 's' },
        { "uid", required_argument, NULL, 'U' },      { "gid", required_argument, NULL, 'G' },
        { "nxdomain-ttl", required_argument, NULL, 'n' },
        { "log-level", required_argument, NULL, 'l' },
        { "version", no_argument, NULL, 'v' },        { "help", no_argument, NULL, 'h' },
        { NULL, 0, NULL, 0 },
    };
    int o, r;

    opterr = 0;
    while ((o = getopt_long(argc, argv, "+:", options, NULL)) != -1)
        if ((r = parse_option(o, ret)) >= 0)
            return r;
    if (optind < argc)
        return usage("too many arguments");
    if (ret->server.channel < 0 || ret->server.udp < 0 || ret->server.tcp < 0)
        return usage("--channel, --udp and --tcp are needed");
    return -1;
}

static int check_socket(int fd, int domain, int type, const char *name, struct err *e)
{
    int is_domain = -1, is_type = -1;
    socklen_t size = sizeof(int);

    if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &is_domain, &size) < 0 ||
        getsockopt(fd, SOL_SOCKET, SO_TYPE, &is_type, &size) < 0 || is_domain != domain ||
        is_type != type)
        return err_set(e, ERR_USAGE, "descriptor %d is not what %s is to be", fd, name);
    return fd_set_nonblock(fd, true, e);
}

static int check_sockets(const struct server_config *c, struct err *e)
{
    if (c->channel == c->udp || c->channel == c->tcp || c->udp == c->tcp)
        return err_set(e, ERR_USAGE, "a descriptor is named twice");
    if (check_socket(c->channel, AF_UNIX, SOCK_SEQPACKET, "--channel", e) < 0 ||
        check_socket(c->udp, AF_INET, SOCK_DGRAM, "--udp", e) < 0)
        return -1;
    return check_socket(c->tcp, AF_INET, SOCK_STREAM, "--tcp", e);
}

static int prepare(struct args *a, struct err *e)
{
    const int keep[] = { a->server.channel, a->server.udp, a->server.tcp };

    if (jail_close_others(keep, ARRAY_SIZE(keep), e) < 0 || check_sockets(&a->server, e) < 0)
        return -1;
    log_init("sandboxd-resolver", a->log_level);
    return jail_become(&a->jail, e);
}

/* Until sandboxd ends it. */
static int serve(struct loop *l, const struct server *s, struct err *e)
{
    while (server_state(s, e) == CHANNEL_OPEN)
        if (loop_turn(l, -1, e) < 0)
            return -1;
    return server_state(s, e) == CHANNEL_ENDED ? 0 : -1;
}

static int run(struct args *a, struct err *e)
{
    struct loop l;

    if (loop_init(&l, e) < 0)
        return -1;
    struct server *s = server_new(&l, &a->server, e);
    if (!s)
        return -1;
    int r = jail_enter(&a->jail, e);
    if (r == 0) {
        log_debug(NULL, "ready, %zu upstreams", a->server.n_upstreams);
        r = serve(&l, s, e);
    }
    server_free(s);
    loop_done(&l);
    return r;
}

int main(int argc, char **argv)
{
    struct args a = {
        .server = { .channel = -1, .udp = -1, .tcp = -1, .denied_ttl = DENIED_TTL },
        .log_level = LOG_INFO,
        .jail.files = OTHER_FILES + UPSTREAM_LOOKUPS + TCP_CONNECTIONS,
    };
    struct err e = ERR_INIT;
    int r = parse_args(argc, argv, &a);

    if (r >= 0)
        return r;
    a.server.upstreams = a.upstreams;
    signal(SIGPIPE, SIG_IGN);
    if (prepare(&a, &e) == 0 && run(&a, &e) == 0)
        return 0;
    log_err(LOG_CTX(.error = &e), "sandboxd-resolver ends");
    return e.code == ERR_USAGE ? 2 : 1;
}
