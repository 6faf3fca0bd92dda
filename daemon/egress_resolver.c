/* SPDX-License-Identifier: MIT
 *
 * egress_resolver: sandboxd-resolver as a child: its sockets, its channel, its end. It gets bound
 * sockets and the addresses of upstreams, and nothing else: own uid, no capabilities, no files.
 * When it ends it is started again, a little later each time; meanwhile questions get no answer and
 * nothing new opens. It ends by itself when the channel does, so a daemon that dies leaves none.
 */
#include "daemon/egress_priv.h"

#include "common/io.h"
#include "common/log.h"
#include "common/parse.h"
#include "common/proc.h"
#include "common/strv.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <grp.h>
#include <netinet/in.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#define RESOLV_CONF "/etc/resolv.conf"
#define UPSTREAMS_MAX 8
#define TURN 64                 /* messages of one turn of the loop */
#define BACKLOG 64
#define AGAIN_MIN_MS 50
#define AGAIN_MAX_MS 5000
#define STABLE_MS 30000         /* one that lived so long is started again at once */
#define END_MS 2000

struct resolver {
    struct egress *g;           /* borrowed */
    int udp, tcp;               /* owned: bound once, handed to each process */
    int channel;                /* owned, -1 none */
    pid_t pid;                  /* 0 none */
    int pidfd;                  /* owned, -1 none */
    int64_t started, wait_ms;
    struct log_rate rate;
    _Atomic bool stop;          /* the event thread shall put it down, and post `stopped` */
    sem_t stopped;
    struct evsource *channel_source, *pid_source, *timer;   /* owned */
};

/* --- sockets --- */

static int bind_to(int type, uint32_t address, struct err *e)
{
    struct sockaddr_in sa = { .sin_family = AF_INET, .sin_port = htons(53),
                              .sin_addr.s_addr = htonl(address) };
    int on = 1, room = 1024 * 1024;
    char text[ADDRESS_TEXT];
    autoclose int fd = socket(AF_INET, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    /* The address is there as long as a sandbox is. */
    if (fd < 0 || setsockopt(fd, IPPROTO_IP, IP_FREEBIND, &on, sizeof(on)) < 0 ||
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
        bind(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0 ||
        (type == SOCK_STREAM && listen(fd, BACKLOG) < 0)) {
        err_sys(e, ERR_NETWORK, errno, "cannot listen on port 53 of %s",
                address_format(address, text));
        return err_hint(e, "does another DNS server listen there? `ss -lnp sport = 53`");
    }
    /* Some thousand questions, as all sandboxes may ask at once. */
    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room));
    return take_fd(&fd);
}

/* --- upstreams --- */

static int add_upstream(struct strv *v, const char *text, struct err *e)
{
    uint32_t address;

    return v->n == UPSTREAMS_MAX || !address_parse(text, &address) ? 0 : strv_add(v, text, e);
}

/* resolv.conf(5): lines "nameserver ADDRESS". */
static int host_upstreams(struct strv *v, struct err *e)
{
    autofree char *text = NULL;
    char *save = NULL;
    size_t len = 0;

    if (io_read_file_at(AT_FDCWD, RESOLV_CONF, 64 * KIB, &text, &len, e) < 0)
        return err_wrap(e, "which servers the host asks for names");
    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        char *rest = NULL;
        const char *word = strtok_r(line, " \t", &rest);
        const char *address = word ? strtok_r(NULL, " \t", &rest) : NULL;
        if (address && strcmp(word, "nameserver") == 0 && add_upstream(v, address, e) < 0)
            return -1;
    }
    return 0;
}

static int upstreams(const struct egress *g, struct strv *ret, struct err *e)
{
    const struct strv *own = &g->config->resolver_upstreams;

    for (size_t i = 0; i < own->n; i++)
        if (strv_add(ret, own->items[i], e) < 0)
            return -1;
    return own->n ? 0 : host_upstreams(ret, e);
}

/* The filter lets the resolver's uid ask these, and nobody else. */
static int open_upstreams(struct egress *g, const struct strv *servers, struct err *e)
{
    struct filter_upstream list[UPSTREAMS_MAX];
    size_t n = 0;

    for (size_t i = 0; i < servers->n && n < UPSTREAMS_MAX; i++) {
        char address[ADDRESS_TEXT];
        size_t len = strcspn(servers->items[i], ":");
        uint32_t port = 53;
        snprintf(address, sizeof(address), "%.*s", (int)len, servers->items[i]);
        if (servers->items[i][len] && !parse_u32(servers->items[i] + len + 1, 1, 65535, &port))
            continue;
        list[n].port = (uint16_t)port;
        n += address_parse(address, &list[n].address);
    }
    pthread_mutex_lock(&g->lock);
    int r = filter_upstreams(g->filter, list, n, e);
    pthread_mutex_unlock(&g->lock);
    return r;
}

/* --- the process --- */

struct identity_change { uid_t uid; };

static int become(void *arg)
{
    const struct identity_change *to = arg;

    /* The bounding set needs a capability to be emptied; the program has none any more. */
    for (int cap = 0; prctl(PR_CAPBSET_READ, cap) >= 0; cap++)
        if (prctl(PR_CAPBSET_DROP, cap) < 0)
            return errno;
    if (setgroups(0, NULL) < 0 || setresgid(to->uid, to->uid, to->uid) < 0 ||
        setresuid(to->uid, to->uid, to->uid) < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return errno;
    return 0;
}

static int number(struct strv *argv, const char *option, int value, struct err *e)
{
    return strv_add(argv, option, e) < 0 ? -1 : strv_addf(argv, e, "%d", value);
}

static int arguments(struct resolver *r, int channel, struct strv *argv, struct err *e)
{
    const char *program = r->g->config->resolver;
    autostrv struct strv servers = STRV_INIT;

    if (upstreams(r->g, &servers, e) < 0 || open_upstreams(r->g, &servers, e) < 0 ||
        strv_add(argv, *program ? program : SBX_RESOLVER, e) < 0 ||
        number(argv, "--channel", channel, e) < 0 || number(argv, "--udp", r->udp, e) < 0 ||
        number(argv, "--tcp", r->tcp, e) < 0)
        return -1;
    for (size_t i = 0; i < servers.n; i++)
        if (strv_add(argv, "--upstream", e) < 0 || strv_add(argv, servers.items[i], e) < 0)
            return -1;
    if (servers.n == 0)
        log_warn(NULL, "the host has no IPv4 name server; sandboxes cannot resolve names");
    return 0;
}

static void on_channel(void *arg, uint32_t events);
static void on_end(void *arg, uint32_t events);

static int spawn(struct resolver *r, struct err *e)
{
    struct identity_change to = { r->g->config->uid_base + LIMIT_SANDBOXES + 1 };
    autostrv struct strv argv = STRV_INIT;
    int pair[2], room = 256 * 1024;

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
        return err_sys(e, ERR_INTERNAL, errno, "cannot make a socket pair");
    setsockopt(pair[0], SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof(room));
    setsockopt(pair[1], SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof(room));
    autoclose int ours = pair[0];
    autoclose int theirs = pair[1];
    if (arguments(r, theirs, &argv, e) < 0)
        return -1;
    const int keep[] = { theirs, r->udp, r->tcp };
    struct proc_spec spec = {
        .argv = (const char *const *)argv.items, .stdin_fd = -1, .stdout_fd = -1,
        .stderr_fd = STDERR_FILENO, .keep_fds = keep, .n_keep_fds = ARRAY_SIZE(keep),
        .prepare = become, .prepare_arg = &to, .new_session = true,
    };
    if (proc_spawn(&spec, &r->pid, &r->pidfd, e) < 0)
        return err_wrap(e, "cannot start the resolver");
    r->channel = take_fd(&ours);
    r->started = now_mono_ms();
    if (evloop_add_fd(r->g->loop, r->channel, EPOLLIN, on_channel, r, &r->channel_source, e) < 0 ||
        evloop_add_fd(r->g->loop, r->pidfd, EPOLLIN, on_end, r, &r->pid_source, e) < 0)
        return -1;
    return 0;
}

static void forget_process(struct resolver *r)
{
    evloop_remove(take_ptr(r->channel_source));
    evloop_remove(take_ptr(r->pid_source));
    fd_close(take_fd(&r->channel));         /* which ends it, if it has not yet */
    if (r->pid) {
        struct err e = ERR_INIT;
        int status = 0;
        if (proc_wait(r->pid, r->pidfd, deadline_in(END_MS), &status, &e) != 1) {
            kill(r->pid, SIGKILL);
            proc_wait(r->pid, r->pidfd, deadline_in(END_MS), &status, &e);
        }
        r->pid = 0;
    }
    fd_close(take_fd(&r->pidfd));
}

static void again_later(struct resolver *r)
{
    bool stable = r->started && now_mono_ms() - r->started > STABLE_MS;

    r->wait_ms = stable || !r->wait_ms ? AGAIN_MIN_MS
                 : 2 * r->wait_ms > AGAIN_MAX_MS ? AGAIN_MAX_MS : 2 * r->wait_ms;
    evloop_timer_set(r->timer, r->wait_ms);
}

static void on_again(void *arg)
{
    struct resolver *r = arg;
    struct err e = ERR_INIT;

    if (r->stop) {
        forget_process(r);
        sem_post(&r->stopped);
        return;
    }
    if (r->pid || spawn(r, &e) == 0)
        return;
    if (log_rate_ok(&r->rate, 1, 60000))
        log_err(LOG_CTX(.error = &e), "sandboxes cannot resolve names; trying again");
    forget_process(r);
    again_later(r);
}

static void on_end(void *arg, uint32_t events)
{
    struct resolver *r = arg;

    if (r->stop)
        return;
    if (log_rate_ok(&r->rate, 5, 60000))
        log_err(NULL, "the resolver (pid %d) has ended; starting another one", (int)r->pid);
    forget_process(r);
    again_later(r);
}

/* --- the channel --- */

union message {
    uint32_t type;
    struct resolve_ask ask;
    struct resolve_admit admit;
};

static bool is_text(const char *name)
{
    return name[0] && memchr(name, '\0', RESOLVE_NAME);
}

static bool admit_valid(const struct resolve_admit *a)
{
    if (a->n_addresses > RESOLVE_ADDRESSES || a->n_aliases > RESOLVE_ALIASES || !is_text(a->name))
        return false;
    for (uint32_t i = 0; i < a->n_aliases; i++)
        if (!is_text(a->aliases[i]))
            return false;
    return true;
}

/* False: it does not keep to the shapes. */
static bool answer(struct resolver *r, const union message *m, size_t n)
{
    struct egress *g = r->g;
    union { struct resolve_say say; struct resolve_admitted admitted; } out = { 0 };
    size_t len;

    if (n == sizeof(m->ask) && m->type == RESOLVE_ASK && is_text(m->ask.name)) {
        pthread_mutex_lock(&g->lock);
        out.say = (struct resolve_say){ RESOLVE_SAY, m->ask.id, names_ask(g, &m->ask) };
        pthread_mutex_unlock(&g->lock);
        len = sizeof(out.say);
    } else if (n == sizeof(m->admit) && m->type == RESOLVE_ADMIT && admit_valid(&m->admit)) {
        pthread_mutex_lock(&g->lock);
        names_admit(g, &m->admit, &out.admitted);
        pthread_mutex_unlock(&g->lock);
        len = sizeof(out.admitted);
    } else {
        return false;
    }
    /* One that does not read its answers lets its guests wait, not us. */
    if (send(r->channel, &out, len, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 && errno != EAGAIN)
        return false;
    return true;
}

static void on_channel(void *arg, uint32_t events)
{
    struct resolver *r = arg;
    static union message m;         /* event thread only */

    for (int i = 0; i < TURN; i++) {
        ssize_t n = recv(r->channel, &m, sizeof(m), MSG_DONTWAIT | MSG_TRUNC);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (n > 0 && (size_t)n <= sizeof(m) && answer(r, &m, (size_t)n))
            continue;
        if (n > 0)
            log_err(NULL, "the resolver sent what is no message; it is ended");
        evloop_remove(take_ptr(r->channel_source));
        if (r->pid > 0)
            kill(r->pid, SIGKILL);  /* on_end() does the rest */
        return;
    }
}

/* --- from egress.c --- */

int resolver_start(struct egress *g, struct err *e)
{
    struct resolver *r = calloc(1, sizeof(*r));
    struct link first;

    if (!r)
        return err_nomem(e);
    r->g = g;
    r->udp = r->tcp = r->channel = r->pidfd = -1;
    sem_init(&r->stopped, 0, 0);
    g->resolver = r;
    link_describe(&g->net, "0000000000000000", 1, g->mtu, &first);
    r->udp = bind_to(SOCK_DGRAM, first.gateway, e);
    r->tcp = r->udp < 0 ? -1 : bind_to(SOCK_STREAM, first.gateway, e);
    if (r->tcp < 0 || evloop_add_timer(g->loop, 0, on_again, r, &r->timer, e) < 0) {
        resolver_stop(g);
        return -1;
    }
    return 0;
}

void resolver_stop(struct egress *g)
{
    struct resolver *r = take_ptr(g->resolver);

    if (!r)
        return;
    /* The process and its sources are the event thread's. */
    if (r->timer) {
        r->stop = true;
        evloop_timer_set(r->timer, 0);
        while (sem_wait(&r->stopped) < 0 && errno == EINTR)
            ;
        evloop_remove(r->timer);
    }
    sem_destroy(&r->stopped);
    fd_close(r->udp);
    fd_close(r->tcp);
    free(r);
}
