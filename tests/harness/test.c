/* SPDX-License-Identifier: MIT */
#include "tests/harness/test.h"
#include "common/auto.h"
#include "common/io.h"
#include "common/strv.h"

#include <fcntl.h>
#include <limits.h>
#include <dirent.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define EXIT_SKIP 77
#define SHOWN 160   /* bytes of a value that are printed */

static struct test_case *first, **last = &first;
static char dir_name[64];   /* of the running test: chosen by the parent, which also removes it */
static bool dir_made;
static bool in_process;     /* -d: no child, for debuggers */

void test_register(struct test_case *t)
{
    *last = t;
    last = &t->next;
}

void test_fail(const char *file, int line, const char *fmt, ...)
{
    va_list ap;

    printf("# %s:%d: ", file, line);
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    printf("\n");
    fflush(stdout);
    if (in_process)
        abort();
    _exit(1);
}

void test_skip(const char *fmt, ...)
{
    va_list ap;

    printf("#SKIP ");
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    printf("\n");
    fflush(stdout);
    _exit(EXIT_SKIP);
}

static void format_int(char *buf, size_t size, __int128 v)
{
    bool negative = v < 0;
    unsigned __int128 u = negative ? -(unsigned __int128)v : (unsigned __int128)v;

    if (u <= UINT64_MAX)
        snprintf(buf, size, "%s%llu (0x%llx)", negative ? "-" : "", (unsigned long long)u,
                 (unsigned long long)u);
    else
        snprintf(buf, size, "%s0x%llx%016llx", negative ? "-" : "", (unsigned long long)(u >> 64),
                 (unsigned long long)u);
}

void test_check_int(const char *file, int line, const char *text_a, const char *op,
                    const char *text_b, __int128 a, __int128 b, bool ok)
{
    char sa[64], sb[64];

    if (ok)
        return;
    format_int(sa, sizeof(sa), a);
    format_int(sb, sizeof(sb), b);
    test_fail(file, line, "expected %s %s %s\n#   left:  %s\n#   right: %s", text_a, op, text_b, sa,
              sb);
}

/* Bytes as a C string on one line of output. */
static char *show(const void *data, size_t n)
{
    const unsigned char *p = data;
    size_t shown = n < SHOWN ? n : SHOWN;
    char *out = malloc(shown * 4 + 64), *o = out;

    if (!out)
        abort();
    *o++ = '"';
    for (size_t i = 0; i < shown; i++)
        if (p[i] == '\n')
            o += sprintf(o, "\\n");
        else if (p[i] < 0x20 || p[i] == 0x7f || p[i] == '"' || p[i] == '\\')
            o += sprintf(o, "\\x%02x", p[i]);
        else
            *o++ = (char)p[i];
    *o++ = '"';
    sprintf(o, n > shown ? "… (%zu bytes)" : " (%zu bytes)", n);
    return out;
}

void test_check_str(const char *file, int line, const char *text_a, const char *text_b,
                    const char *a, const char *b, bool want_equal)
{
    bool equal = a && b ? strcmp(a, b) == 0 : a == b;

    if (equal == want_equal)
        return;
    test_fail(file, line, "expected %s %s %s\n#   left:  %s\n#   right: %s", text_a,
              want_equal ? "equal to" : "other than", text_b, a ? show(a, strlen(a)) : "NULL",
              b ? show(b, strlen(b)) : "NULL");
}

void test_check_mem(const char *file, int line, const char *text_a, const char *text_b,
                    const void *a, size_t na, const void *b, size_t nb)
{
    const unsigned char *pa = a, *pb = b;
    size_t at = 0;

    if (na == nb && (na == 0 || memcmp(a, b, na) == 0))
        return;
    while (at < na && at < nb && pa[at] == pb[at])
        at++;
    test_fail(file, line,
              "expected %s equal to %s; first difference at byte %zu\n#   left:  %s\n#   right: %s",
              text_a, text_b, at, show(na > at ? pa + at : pa, na - at),
              show(nb > at ? pb + at : pb, nb - at));
}

void test_become(uid_t uid)
{
    ASSERT_SYS(syscall(SYS_setresuid, -1, uid, -1));
}

const char *test_dir(void)
{
    if (!dir_made && mkdir(dir_name, 0700) < 0)
        FAIL("cannot make %s: %s", dir_name, strerror(errno));
    dir_made = true;
    return dir_name;
}

/* What lives to the end of the test, kept reachable for the leak checker. */
static char *keep(char *string)
{
    static struct strv kept;
    struct err e = ERR_INIT;

    if (strv_add_take(&kept, &string, &e) < 0)
        FAIL("%s", e.msg);
    return kept.items[kept.n - 1];
}

const char *test_path(const char *name)
{
    char *path;

    if (asprintf(&path, "%s/%s", test_dir(), name) < 0)
        path = NULL;
    return keep(path);
}

const char *test_source(const char *below_tests)
{
    const char *root = getenv("SBX_TEST_SOURCE");
    char *path;

    if (asprintf(&path, "%s/%s", root ? root : "tests", below_tests) < 0)
        path = NULL;
    return keep(path);
}

void test_golden(const char *file, int line, const char *name, const char *actual, size_t len)
{
    autofree char *below = NULL;
    autofree char *want = NULL;
    const char *path, *update = getenv("SBX_TEST_UPDATE");
    struct err e = ERR_INIT;
    size_t want_len = 0;

    if (asprintf(&below, "golden/%s", name) < 0)
        abort();
    path = test_source(below);
    if (update && strcmp(update, "1") == 0) {
        if (io_write_file_at(AT_FDCWD, path, actual, len, 0644, &e) < 0)
            test_fail(file, line, "%s", e.msg);
        return;
    }
    if (io_read_file_at(AT_FDCWD, path, 16 << 20, &want, &want_len, &e) < 0)
        test_fail(file, line, "%s (SBX_TEST_UPDATE=1 writes it)", e.msg);
    test_check_mem(file, line, "the output", path, actual, len, want, want_len);
}

int test_count_fds(void)
{
    DIR *d = opendir("/proc/self/fd");
    int n = 0;

    if (!d)
        FAIL("cannot read /proc/self/fd: %s", strerror(errno));
    while (readdir(d))
        n++;
    closedir(d);
    return n - 3;   /* ".", ".." and the directory's own */
}

bool test_sanitized(void)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    return true;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || \
    __has_feature(memory_sanitizer)
    return true;
#endif
#endif
    return false;
}

/* ---- running ---- */

static void name_dir(unsigned number)
{
    const char *tmp = getenv("TMPDIR");

    /* a Unix socket's path has 107 bytes, so what a long TMPDIR asks for cannot be had */
    if (!tmp || tmp[0] != '/' || strlen(tmp) > 24)
        tmp = "/tmp";
    snprintf(dir_name, sizeof(dir_name), "%s/sbxt.%d.%u", tmp, (int)getpid(), number);
}

static void remove_dir(void)
{
    struct err e = ERR_INIT;

    if (io_remove_tree(AT_FDCWD, dir_name, &e) < 0)
        printf("# left behind: %s\n", e.msg);
}

/* The child: output goes through a pipe, so that a skip's reason can be told from comments. exit()
 * and not _exit(), or the leak checker would not run. */
static _Noreturn void run_child(const struct test_case *t, int out)
{
    setpgid(0, 0);
    dup2(out, STDOUT_FILENO);
    if (out != STDOUT_FILENO)
        close(out);
    signal(SIGPIPE, SIG_IGN);
    setvbuf(stdout, NULL, _IOLBF, 0);
    t->run();
    fflush(stdout);
    exit(0);
}

static unsigned limit_of(const struct test_case *t)
{
    const char *slow = getenv("SBX_TEST_SLOW");
    unsigned seconds = t->seconds ? t->seconds : TEST_SECONDS;

    return slow && strcmp(slow, "1") == 0 ? seconds * 10 : seconds;
}

/* Collects the child's output until it ends or its time is up; returns false at the limit. */
static bool collect(int from, int pidfd, int64_t deadline, char **ret_text)
{
    size_t len = 0, cap = 65536;
    char *text = calloc(1, cap);

    if (!text)
        abort();
    *ret_text = text;
    for (;;) {
        struct pollfd p[2] = { { from, POLLIN, 0 }, { pidfd, POLLIN, 0 } };
        int n = poll(p, 2, deadline_left(deadline));
        ssize_t got = -1;

        if (p[0].revents) {
            got = read(from, text + len, cap - 1 - len);
            if (got > 0 && len + (size_t)got < cap - 1)
                len += (size_t)got;     /* a flood is cut: the buffer's end is written over */
            text[len] = '\0';
        }
        if (n > 0 && p[1].revents && got <= 0)
            return true;
        if (got == 0)
            p[0].fd = from = -1;
        if (n == 0 && deadline_left(deadline) == 0)
            return false;
    }
}

static const char *skip_reason(char *text)
{
    char *at = strstr(text, "#SKIP ");
    char *end = at ? strchr(at, '\n') : NULL;

    if (end)
        *end = '\0';
    return at ? at + strlen("#SKIP ") : "no reason given";
}

/* Lines of the test become comments of TAP. */
static void print_comments(const char *text)
{
    while (*text) {
        size_t n = strcspn(text, "\n");

        printf("%s%.*s\n", text[0] == '#' ? "" : "# ", (int)n, text);
        text += n + (text[n] == '\n');
    }
}

/* False when it failed. */
static bool run_one(const struct test_case *t, unsigned number)
{
    autofree char *text = NULL;
    unsigned limit = limit_of(t);
    int out[2], status = 0;
    bool ended;
    pid_t pid;

    name_dir(number);
    fflush(stdout);
    if (pipe2(out, O_CLOEXEC) < 0 || (pid = fork()) < 0) {
        printf("Bail out! cannot start a test: %s\n", strerror(errno));
        exit(1);
    }
    if (pid == 0) {
        close(out[0]);
        run_child(t, out[1]);
    }
    setpgid(pid, pid);
    close(out[1]);
    autoclose int from = out[0];
    autoclose int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);

    ended = collect(from, pidfd, deadline_in((int64_t)limit * 1000), &text);
    /* first the group, so that nothing of the test lives on, then what is left of the test; the
     * pid is still ours, since nobody has reaped it */
    kill(-pid, SIGKILL);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    remove_dir();

    if (ended && WIFEXITED(status) && WEXITSTATUS(status) == EXIT_SKIP) {
        printf("ok %u - %s # SKIP %s\n", number, t->name, skip_reason(text));
        return true;
    }
    if (ended && WIFEXITED(status) && WEXITSTATUS(status) == 0) {
        printf("ok %u - %s\n", number, t->name);
        print_comments(text);
        return true;
    }
    printf("not ok %u - %s\n", number, t->name);
    print_comments(text);
    if (!ended)
        printf("# did not end within %u s\n", limit);
    else if (WIFSIGNALED(status))
        printf("# killed by signal %d (%s)\n", WTERMSIG(status), strsignal(WTERMSIG(status)));
    else
        printf("# exit status %d\n", WEXITSTATUS(status));
    return false;
}

static bool chosen(const struct test_case *t, int argc, char **argv)
{
    if (argc == 0)
        return true;
    for (int i = 0; i < argc; i++)
        if (strstr(t->name, argv[i]))
            return true;
    return false;
}

int main(int argc, char **argv)
{
    unsigned n = 0;
    bool failed = false;
    bool list = false;
    int opt;

    while ((opt = getopt(argc, argv, "ld")) >= 0)
        switch (opt) {
        case 'l':
            list = true;
            break;
        case 'd':
            in_process = true;
            break;
        default:
            fprintf(stderr, "usage: %s [-l] [-d] [PART-OF-NAME…]\n", argv[0]);
            return 2;
        }
    argc -= optind;
    argv += optind;

    for (struct test_case *t = first; t; t = t->next)
        n += chosen(t, argc, argv);
    if (!list)
        printf("TAP version 13\n1..%u\n", n);
    n = 0;
    for (struct test_case *t = first; t; t = t->next) {
        if (!chosen(t, argc, argv))
            continue;
        if (list) {
            printf("%s\n", t->name);
        } else if (in_process) {
            dir_made = false;
            name_dir(n + 1);
            t->run();
            remove_dir();
            printf("ok %u - %s\n", ++n, t->name);
        } else if (!run_one(t, ++n)) {
            failed = true;
        }
    }
    return failed ? 1 : 0;
}
