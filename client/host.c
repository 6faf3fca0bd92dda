/* SPDX-License-Identifier: MIT */
#include "client/host.h"
#include "common/api.h"
#include "common/auto.h"
#include "common/io.h"
#include "common/limits.h"
#include "common/parse.h"
#include "common/proc.h"
#include "common/sbuf.h"
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define SSH_END_MS 1000

/* The last ssh started, so that its end can explain a broken connection. */
static pid_t ssh_pid = -1;
static int ssh_pidfd = -1;

void host_done(struct host *h)
{
    free(h->url);
    free(h->path);
    free(h->user);
    free(h->name);
    *h = (struct host){ 0 };
}

static int copy(char **ret, const char *s, size_t len, struct err *e)
{
    *ret = strndup(s, len);
    return *ret ? 0 : err_nomem(e);
}

static int host_invalid(const char *text, struct err *e)
{
    err_set(e, ERR_USAGE, "'%s' is not a host", text);
    return err_hint(e, "hosts are unix:///PATH or ssh://[USER@]HOST[:PORT][/PATH]");
}

/* Both go to ssh as words of their own, and must not look like options to it. */
static bool ssh_word_valid(const char *s)
{
    return s[0] && s[0] != '-' &&
           strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-%:") ==
               strlen(s);
}

static int parse_ssh(const char *text, const char *rest, struct host *ret, struct err *e)
{
    const char *slash = strchr(rest, '/');
    size_t len = slash ? (size_t)(slash - rest) : strlen(rest);
    autofree char *authority = strndup(rest, len);
    char *name = authority;
    char *port = NULL;

    if (!authority)
        return err_nomem(e);
    char *at = strrchr(authority, '@');
    if (at) {
        *at = '\0';
        name = at + 1;
        if (!ssh_word_valid(authority))
            return host_invalid(text, e);
        if (copy(&ret->user, authority, strlen(authority), e) < 0)
            return -1;
    }
    if (name[0] == '[') {       /* IPv6 address */
        char *end = strchr(name, ']');
        if (!end || (end[1] && end[1] != ':'))
            return host_invalid(text, e);
        port = end[1] ? end + 2 : NULL;
        *end = '\0';
        name++;
    } else {
        port = strchr(name, ':');
        if (port)
            *port++ = '\0';
    }
    if (!ssh_word_valid(name) || (port && !parse_u32(port, 1, 65535, &ret->port)))
        return host_invalid(text, e);
    if (copy(&ret->name, name, strlen(name), e) < 0)
        return -1;
    if (slash && slash[1] && copy(&ret->path, slash, strlen(slash), e) < 0)
        return -1;
    ret->kind = HOST_SSH;
    return 0;
}

int host_parse(const char *text, struct host *ret, struct err *e)
{
    struct host h = { 0 };
    int r = 0;

    if (copy(&h.url, text, strlen(text), e) < 0)
        return -1;
    if (strncmp(text, "unix://", 7) == 0 && text[7] == '/') {
        h.kind = HOST_UNIX;
        r = copy(&h.path, text + 7, strlen(text + 7), e);
    } else if (strncmp(text, "ssh://", 6) == 0) {
        r = parse_ssh(text, text + 6, &h, e);
    } else {
        r = host_invalid(text, e);
        if (text[0] == '/')
            err_hint(e, "a socket is written unix://%s", text);
        else if (strncmp(text, "tcp://", 6) == 0 || strncmp(text, "http", 4) == 0)
            err_hint(e, "sandboxd does not listen on the network; use ssh://[USER@]HOST");
    }
    if (r < 0) {
        host_done(&h);
        return -1;
    }
    *ret = h;
    return 0;
}

int host_init(struct host *h, const char *given, struct err *e)
{
    const char *env = getenv("SBX_HOST");
    const char *path = getenv("SBX_SOCKET");
    autosbuf struct sbuf b = SBUF(LIMIT_PATH + 16);

    if (given)
        return host_parse(given, h, e);
    if (env && env[0])
        return host_parse(env, h, e) < 0 ? err_wrap(e, "SBX_HOST") : 0;
    if (path && path[0] && path[0] != '/') {
        err_set(e, ERR_USAGE, "SBX_SOCKET: '%s' is not an absolute path", path);
        return err_hint(e, "set it to the path of sandboxd's socket, as in " API_SOCKET_DEFAULT);
    }
    if (!path || !path[0])
        path = API_SOCKET_DEFAULT;
    sbuf_lit(&b, "unix://");
    sbuf_add(&b, path, strlen(path));
    return host_parse(sbuf_str(&b), h, e);
}

/* ---- unix ---------------------------------------------------------------------------------- */

static int unreachable(const char *path, int sys, struct err *e)
{
    struct stat st;

    switch (sys) {
    case ENOENT:
    case ENOTDIR:
        err_set(e, ERR_UNREACHABLE, "cannot reach sandboxd at %s: no such socket", path);
        if (strcmp(path, API_SOCKET_DEFAULT) == 0)
            return err_hint(e, "start it with 'sudo systemctl start sandboxd', or run "
                               "'sudo scripts/quickstart' in the source tree");
        return err_hint(e, "start sandboxd with a configuration that says so, or name another "
                           "socket with --host or SBX_HOST");
    case ECONNREFUSED:
        if (stat(path, &st) == 0 && !S_ISSOCK(st.st_mode)) {
            err_set(e, ERR_UNREACHABLE, "cannot reach sandboxd at %s: not a socket", path);
            return err_hint(e, "name sandboxd's socket with --host or SBX_HOST");
        }
        err_set(e, ERR_UNREACHABLE, "cannot reach sandboxd at %s: nothing listens there", path);
        if (strcmp(path, API_SOCKET_DEFAULT) == 0)
            return err_hint(e, "start it with 'sudo systemctl start sandboxd', or, if it was "
                               "quickstart's, by that again");
        return err_hint(e, "the sandboxd of this socket has ended: start it again");
    case EACCES:
    case EPERM:
        err_set(e, ERR_UNREACHABLE, "cannot reach sandboxd at %s: permission denied", path);
        if (stat(path, &st) == 0 && (st.st_mode & 0060) && st.st_gid != 0) {
            struct group gr;
            struct group *found = NULL;
            char buf[4096];
            if (getgrgid_r(st.st_gid, &gr, buf, sizeof(buf), &found) == 0 && found)
                return err_hint(e, "join its group with 'sudo usermod -aG %s $USER' and log in "
                                   "again", gr.gr_name);
        }
        return err_hint(e, "the socket is for members of its group and for root (sudo)");
    default:
        return err_sys(e, ERR_UNREACHABLE, sys, "cannot reach sandboxd at %s", path);
    }
}

/* *ret_hold: the directory a path too long for an address is reached by; -1 for others. */
static int unix_address(const char *path, struct sockaddr_un *ret, int *ret_hold, struct err *e)
{
    struct sockaddr_un sa = { .sun_family = AF_UNIX };
    const char *base = strrchr(path, '/');
    int hold = -1;
    int n = 0;

    if (strlen(path) < sizeof(sa.sun_path)) {
        memcpy(sa.sun_path, path, strlen(path) + 1);
    } else {
        autofree char *parent = strndup(path, (size_t)(base - path) + 1);
        if (!parent)
            return err_nomem(e);
        hold = open(parent, O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (hold < 0)
            return unreachable(path, errno, e);
        n = snprintf(sa.sun_path, sizeof(sa.sun_path), "/proc/self/fd/%d%s", hold, base);
        if (n < 0 || (size_t)n >= sizeof(sa.sun_path)) {
            fd_close(hold);
            return unreachable(path, ENAMETOOLONG, e);
        }
    }
    *ret = sa;
    *ret_hold = hold;
    return 0;
}

static int connect_unix(const char *path, int *ret_fd, struct err *e)
{
    struct sockaddr_un sa;
    autoclose int fd = -1;
    autoclose int hold = -1;

    if (unix_address(path, &sa, &hold, e) < 0)
        return -1;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return err_sys(e, ERR_INTERNAL, errno, "cannot make a socket");
    while (connect(fd, (const struct sockaddr *)&sa, sizeof(sa)) < 0)
        if (errno != EINTR)
            return unreachable(path, errno, e);
    *ret_fd = take_fd(&fd);
    return 0;
}

/* ---- ssh ----------------------------------------------------------------------------------- */

static int find_program(const char *name, char **ret, struct err *e)
{
    const char *path = getenv("PATH");
    autofree char *dirs = strdup(path && path[0] ? path : "/usr/bin:/bin");
    char *save = NULL;

    if (!dirs)
        return err_nomem(e);
    for (char *dir = strtok_r(dirs, ":", &save); dir; dir = strtok_r(NULL, ":", &save)) {
        autofree char *file = NULL;
        if (dir[0] != '/')
            continue;
        if (asprintf(&file, "%s/%s", dir, name) < 0) {
            file = NULL;
            return err_nomem(e);
        }
        if (access(file, X_OK) == 0) {
            *ret = take_ptr(file);
            return 0;
        }
    }
    err_set(e, ERR_UNREACHABLE, "cannot find '%s' in PATH", name);
    return err_hint(e, "install it, for instance with 'sudo apt install openssh-client'");
}

/* Ctrl-C is for the command at the other end; ssh goes when its input ends. */
static int ignore_sigint(void *arg)
{
    (void)arg;
    signal(SIGINT, SIG_IGN);
    return 0;
}

/* One word for the shell over there. */
static void add_shell_word(struct sbuf *b, const char *s)
{
    sbuf_chr(b, '\'');
    for (; *s; s++) {
        if (*s == '\'')
            sbuf_lit(b, "'\\''");
        else
            sbuf_chr(b, *s);
    }
    sbuf_chr(b, '\'');
}

static int ssh_arguments(const struct host *h, const char *program, struct strv *argv,
                         struct err *e)
{
    static const char *const first[] = { "-T", "-o", "ConnectTimeout=30", "-o",
                                         "ServerAliveInterval=30" };
    autosbuf struct sbuf remote = SBUF(2 * LIMIT_PATH + 64);

    sbuf_lit(&remote, "sbx");
    if (h->path) {
        autosbuf struct sbuf url = SBUF(LIMIT_PATH + 16);
        sbuf_lit(&url, "unix://");
        sbuf_add(&url, h->path, strlen(h->path));
        sbuf_lit(&remote, " -H ");
        add_shell_word(&remote, sbuf_str(&url));
    }
    sbuf_lit(&remote, " system dial-stdio");
    if (strv_add(argv, program, e) < 0)
        return -1;
    for (size_t i = 0; i < ARRAY_SIZE(first); i++)
        if (strv_add(argv, first[i], e) < 0)
            return -1;
    if (h->user && (strv_add(argv, "-l", e) < 0 || strv_add(argv, h->user, e) < 0))
        return -1;
    if (h->port && (strv_add(argv, "-p", e) < 0 || strv_addf(argv, e, "%u", h->port) < 0))
        return -1;
    if (strv_add(argv, "--", e) < 0 || strv_add(argv, h->name, e) < 0)
        return -1;
    return strv_add(argv, sbuf_str(&remote), e);
}

/* `end` becomes stdin and stdout of ssh; borrowed. */
static int start_ssh(const struct host *h, int end, struct err *e)
{
    autostrv struct strv argv = STRV_INIT;
    autofree char *program = NULL;

    if (find_program("ssh", &program, e) < 0 || ssh_arguments(h, program, &argv, e) < 0)
        return -1;
    const struct proc_spec spec = {
        .argv = (const char *const *)argv.items,
        .env = (const char *const *)environ,
        .stdin_fd = end,
        .stdout_fd = end,
        .stderr_fd = STDERR_FILENO,
        .prepare = ignore_sigint,
    };
    fd_close(ssh_pidfd);
    ssh_pidfd = -1;
    return proc_spawn(&spec, &ssh_pid, &ssh_pidfd, e);
}

static int connect_ssh(const struct host *h, int *ret_fd, struct err *e)
{
    int pair[2] = { -1, -1 };

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        return err_sys(e, ERR_INTERNAL, errno, "cannot make a socket pair");
    autoclose int ours = pair[0];
    autoclose int theirs = pair[1];
    if (start_ssh(h, theirs, e) < 0)
        return -1;
    *ret_fd = take_fd(&ours);
    return 0;
}

int host_dial_prepare(const struct host *h, struct host_dial *d, struct err *e)
{
    *d = (struct host_dial){ .len = sizeof(d->address), .hold = -1 };
    if (h->kind == HOST_UNIX)
        return unix_address(h->path, &d->address, &d->hold, e);
    /* A name the kernel makes up, outside of any directory. Others could connect to it too, so
     * host_dial_accept() asks who does. */
    autoclose int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    const sa_family_t family = AF_UNIX;
    if (fd < 0 || bind(fd, (const struct sockaddr *)(const void *)&family, sizeof(family)) < 0 ||
        listen(fd, 4) < 0 || getsockname(fd, (struct sockaddr *)&d->address, &d->len) < 0)
        return err_sys(e, ERR_INTERNAL, errno, "cannot make a socket for ssh");
    d->hold = take_fd(&fd);
    d->pending = true;
    return 0;
}

int host_dial_accept(const struct host *h, struct host_dial *d, struct err *e)
{
    autoclose int end = accept4(d->hold, NULL, NULL, SOCK_CLOEXEC);
    struct ucred peer = { 0 };
    socklen_t len = sizeof(peer);

    if (end < 0)
        return errno == EAGAIN || errno == EINTR || errno == ECONNABORTED
                   ? 0 : err_sys(e, ERR_INTERNAL, errno, "cannot connect to ssh");
    if (getsockopt(end, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0 || peer.pid != getpid())
        return 0;
    d->pending = false;
    return start_ssh(h, end, e);
}

void host_dial_done(struct host_dial *d)
{
    fd_close(d->hold);
    d->hold = -1;
    d->pending = false;
}

void host_explain(const struct host *h, struct err *e)
{
    struct err ignored = ERR_INIT;
    int status = 0;

    if (h->kind != HOST_SSH || ssh_pid <= 0)
        return;
    /* Its output ends a moment before it does. */
    if (proc_wait(ssh_pid, ssh_pidfd, deadline_in(SSH_END_MS), &status, &ignored) <= 0)
        return;
    ssh_pid = -1;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 127) {
        err_set(e, ERR_UNREACHABLE, "cannot reach sandboxd through %s: sbx is not installed there",
                h->url);
        err_hint(e, "install sbx over there, in the PATH of a shell that is not interactive");
    } else if (WIFEXITED(status) && WEXITSTATUS(status) == 255) {
        err_set(e, ERR_UNREACHABLE, "cannot reach sandboxd through %s: ssh failed", h->url);
        err_hint(e, "try 'ssh %s%s%s sbx version' by hand", h->user ? h->user : "",
                 h->user ? "@" : "", h->name);
    } else if (WIFEXITED(status) && WEXITSTATUS(status) == err_exit_status(ERR_UNREACHABLE)) {
        err_set(e, ERR_UNREACHABLE, "cannot reach sandboxd through %s", h->url);
        err_hint(e, "what sbx said over there stands above");
    }
}

int host_connect(const struct host *h, int *ret_fd, struct err *e)
{
    return h->kind == HOST_SSH ? connect_ssh(h, ret_fd, e) : connect_unix(h->path, ret_fd, e);
}
