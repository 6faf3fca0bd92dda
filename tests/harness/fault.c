/* SPDX-License-Identifier: MIT
 *
 * Every replaced function asks hit() first, which counts those of the walk's kind. The names that
 * end in 64 are the same functions in a build with large files.
 */
#include "tests/harness/fault.h"

#include "common/auto.h"
#include "common/io.h"
#include "common/limits.h"
#include "common/sbuf.h"
#include "tests/harness/test.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define EACH 500        /* places that are all tried; beyond, one of STEP */
#define STEP 41
#define ROUNDS 4000     /* a walk that does not end */

enum what { ALLOCATION = 1, GROWTH = 2, CHANGE = 4 };    /* GROWTH needs room, CHANGE does not */

static atomic_int armed;            /* enum what: of these */
static atomic_uint count, nth_hit;
static atomic_bool hit_once;
static enum fault_kind kind_now;
static int error_now;
static unsigned limit_was;
static char where[160];             /* for a crash: which walk, which place */

static bool hit(enum what w)
{
    if (!(atomic_load(&armed) & (int)w))
        return false;
    unsigned n = atomic_fetch_add(&count, 1) + 1, nth = atomic_load(&nth_hit);
    if (n < nth || (n > nth && kind_now == FAULT_ALLOC))
        return false;
    atomic_store(&hit_once, true);
    errno = error_now;
    return true;
}

/* --- memory --- */

#define REAL(type, name, ...) type __real_##name(__VA_ARGS__); type __wrap_##name(__VA_ARGS__)

REAL(void *, malloc, size_t n);
REAL(void *, calloc, size_t n, size_t size);
REAL(void *, realloc, void *p, size_t n);
REAL(void *, reallocarray, void *p, size_t n, size_t size);
REAL(char *, strdup, const char *s);
REAL(char *, strndup, const char *s, size_t n);
REAL(int, vasprintf, char **ret, const char *fmt, va_list ap);
REAL(int, asprintf, char **ret, const char *fmt, ...);
REAL(char *, realpath, const char *path, char *buf);
REAL(DIR *, opendir, const char *path);
REAL(DIR *, fdopendir, int fd);
REAL(int, pthread_create, pthread_t *t, const pthread_attr_t *a, void *(*fn)(void *), void *arg);

void *__wrap_malloc(size_t n)
{
    return hit(ALLOCATION) ? NULL : __real_malloc(n);
}

void *__wrap_calloc(size_t n, size_t size)
{
    return hit(ALLOCATION) ? NULL : __real_calloc(n, size);
}

void *__wrap_realloc(void *p, size_t n)
{
    return hit(ALLOCATION) ? NULL : __real_realloc(p, n);
}

void *__wrap_reallocarray(void *p, size_t n, size_t size)
{
    return hit(ALLOCATION) ? NULL : __real_reallocarray(p, n, size);
}

char *__wrap_strdup(const char *s)
{
    return hit(ALLOCATION) ? NULL : __real_strdup(s);
}

char *__wrap_strndup(const char *s, size_t n)
{
    return hit(ALLOCATION) ? NULL : __real_strndup(s, n);
}

int __wrap_vasprintf(char **ret, const char *fmt, va_list ap)
{
    return hit(ALLOCATION) ? -1 : __real_vasprintf(ret, fmt, ap);
}

int __wrap_asprintf(char **ret, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    int r = hit(ALLOCATION) ? -1 : __real_vasprintf(ret, fmt, ap);
    va_end(ap);
    return r;
}

char *__wrap_realpath(const char *path, char *buf)
{
    return !buf && hit(ALLOCATION) ? NULL : __real_realpath(path, buf);
}

DIR *__wrap_opendir(const char *path)
{
    return hit(ALLOCATION) ? NULL : __real_opendir(path);
}

DIR *__wrap_fdopendir(int fd)
{
    return hit(ALLOCATION) ? NULL : __real_fdopendir(fd);
}

int __wrap_pthread_create(pthread_t *t, const pthread_attr_t *a, void *(*fn)(void *), void *arg)
{
    return hit(ALLOCATION) ? EAGAIN : __real_pthread_create(t, a, fn, arg);
}

/* SQLite wants to know the size of what it got, and whole multiples of eight. */
static void *sql_malloc(int n)
{
    size_t *p = hit(ALLOCATION) ? NULL : __real_malloc((size_t)n + 16);

    if (!p)
        return NULL;
    p[0] = (size_t)n;
    return p + 2;
}

static void sql_free(void *p)
{
    if (p)
        free((size_t *)p - 2);
}

static void *sql_realloc(void *old, int n)
{
    size_t *p = hit(ALLOCATION) ? NULL : __real_realloc((size_t *)old - 2, (size_t)n + 16);

    if (!p)
        return NULL;
    p[0] = (size_t)n;
    return p + 2;
}

static int sql_size(void *p)
{
    return p ? (int)((size_t *)p - 2)[0] : 0;
}

static int sql_roundup(int n)
{
    return (n + 7) & ~7;
}

static int sql_init(void *arg)
{
    return SQLITE_OK;
}

static void sql_shutdown(void *arg)
{
}

/* --- disk --- */

REAL(int, open, const char *path, int flags, ...);
REAL(int, open64, const char *path, int flags, ...);
REAL(int, openat, int dir, const char *path, int flags, ...);
REAL(int, openat64, int dir, const char *path, int flags, ...);
REAL(int, mkostemp, char *template, int flags);
REAL(int, mkostemp64, char *template, int flags);
REAL(ssize_t, write, int fd, const void *buf, size_t n);
REAL(ssize_t, pwrite, int fd, const void *buf, size_t n, off_t at);
REAL(ssize_t, pwrite64, int fd, const void *buf, size_t n, off_t at);
REAL(int, ftruncate, int fd, off_t n);
REAL(int, ftruncate64, int fd, off_t n);
REAL(int, fallocate, int fd, int mode, off_t at, off_t n);
REAL(int, fallocate64, int fd, int mode, off_t at, off_t n);
REAL(int, mkdir, const char *path, mode_t mode);
REAL(int, mkdirat, int dir, const char *path, mode_t mode);
REAL(int, rename, const char *from, const char *to);
REAL(int, renameat, int d, const char *from, int dd, const char *to);
REAL(int, renameat2, int d, const char *from, int dd, const char *to, unsigned flags);
REAL(int, unlink, const char *path);
REAL(int, unlinkat, int dir, const char *path, int flags);
REAL(int, fchmod, int fd, mode_t mode);
REAL(int, fsync, int fd);
REAL(int, fdatasync, int fd);

/* What would make a file, or open one to write while it cannot be. */
static bool hit_open(int dir, const char *path, int flags)
{
    if (flags & O_CREAT && faccessat(dir, path, F_OK, AT_SYMLINK_NOFOLLOW) < 0)
        return hit(GROWTH);
    return (flags & O_ACCMODE) != O_RDONLY && !(flags & O_PATH) && kind_now == FAULT_READONLY &&
           hit(CHANGE);
}

static bool is_file(int fd)
{
    struct stat sb;

    return fstat(fd, &sb) == 0 && S_ISREG(sb.st_mode);
}

/* -1: nothing goes in; else how much of it does: a disk gets full in the middle of a write. */
static ssize_t room(int fd, size_t n)
{
    if (!atomic_load(&armed) || !is_file(fd))
        return (ssize_t)n;
    bool first = !atomic_load(&hit_once);
    if (!hit(GROWTH))
        return (ssize_t)n;
    return first && kind_now == FAULT_FULL && n > 1 ? (ssize_t)(n / 2) : -1;
}

#define MODE_OF(flags)                          \
    ({                                      \
        mode_t mode_ = 0;                   \
        if ((flags) & (O_CREAT | __O_TMPFILE)) { \
            va_list ap_;                    \
            va_start(ap_, flags);               \
            mode_ = va_arg(ap_, mode_t);    \
            va_end(ap_);                    \
        }                                   \
        mode_;                              \
    })

int __wrap_open(const char *path, int flags, ...)
{
    return hit_open(AT_FDCWD, path, flags) ? -1 : __real_open(path, flags, MODE_OF(flags));
}

int __wrap_open64(const char *path, int flags, ...)
{
    return hit_open(AT_FDCWD, path, flags) ? -1 : __real_open(path, flags, MODE_OF(flags));
}

int __wrap_openat(int dir, const char *path, int flags, ...)
{
    return hit_open(dir, path, flags) ? -1 : __real_openat(dir, path, flags, MODE_OF(flags));
}

int __wrap_openat64(int dir, const char *path, int flags, ...)
{
    return hit_open(dir, path, flags) ? -1 : __real_openat(dir, path, flags, MODE_OF(flags));
}

int __wrap_mkostemp(char *template, int flags)
{
    return hit(GROWTH) ? -1 : __real_mkostemp(template, flags);
}

int __wrap_mkostemp64(char *template, int flags)
{
    return __wrap_mkostemp(template, flags);
}

ssize_t __wrap_write(int fd, const void *buf, size_t n)
{
    ssize_t some = room(fd, n);
    return some < 0 ? -1 : __real_write(fd, buf, (size_t)some);
}

ssize_t __wrap_pwrite(int fd, const void *buf, size_t n, off_t at)
{
    ssize_t some = room(fd, n);
    return some < 0 ? -1 : __real_pwrite(fd, buf, (size_t)some, at);
}

ssize_t __wrap_pwrite64(int fd, const void *buf, size_t n, off_t at)
{
    return __wrap_pwrite(fd, buf, n, at);
}

/* Cutting a file needs no room, growing one does. */
int __wrap_ftruncate(int fd, off_t n)
{
    struct stat sb;
    bool grows = fstat(fd, &sb) == 0 && n > sb.st_size;

    return hit(grows ? GROWTH : CHANGE) ? -1 : __real_ftruncate(fd, n);
}

int __wrap_ftruncate64(int fd, off_t n)
{
    return __wrap_ftruncate(fd, n);
}

int __wrap_fallocate(int fd, int mode, off_t at, off_t n)
{
    return hit(GROWTH) ? -1 : __real_fallocate(fd, mode, at, n);
}

int __wrap_fallocate64(int fd, int mode, off_t at, off_t n)
{
    return __wrap_fallocate(fd, mode, at, n);
}

int __wrap_mkdir(const char *path, mode_t mode)
{
    return hit(GROWTH) ? -1 : __real_mkdir(path, mode);
}

int __wrap_mkdirat(int dir, const char *path, mode_t mode)
{
    return hit(GROWTH) ? -1 : __real_mkdirat(dir, path, mode);
}

int __wrap_rename(const char *from, const char *to)
{
    return hit(GROWTH) ? -1 : __real_rename(from, to);
}

int __wrap_renameat(int d, const char *from, int dd, const char *to)
{
    return hit(GROWTH) ? -1 : __real_renameat(d, from, dd, to);
}

int __wrap_renameat2(int d, const char *from, int dd, const char *to, unsigned flags)
{
    return hit(GROWTH) ? -1 : __real_renameat2(d, from, dd, to, flags);
}

int __wrap_unlink(const char *path)
{
    return hit(CHANGE) ? -1 : __real_unlink(path);
}

int __wrap_unlinkat(int dir, const char *path, int flags)
{
    return hit(CHANGE) ? -1 : __real_unlinkat(dir, path, flags);
}

int __wrap_fchmod(int fd, mode_t mode)
{
    return hit(CHANGE) ? -1 : __real_fchmod(fd, mode);
}

/* Blocks that were promised only when they were written find no room here. */
int __wrap_fsync(int fd)
{
    return is_file(fd) && hit(GROWTH) ? -1 : __real_fsync(fd);
}

int __wrap_fdatasync(int fd)
{
    return is_file(fd) && hit(GROWTH) ? -1 : __real_fdatasync(fd);
}

/* SQLite calls the system through a table of its own. */
static void hook_sqlite(void)
{
    static const struct { const char *name; sqlite3_syscall_ptr fn; } calls[] = {
        { "open", (sqlite3_syscall_ptr)__wrap_open },
        { "write", (sqlite3_syscall_ptr)__wrap_write },
        { "pwrite", (sqlite3_syscall_ptr)__wrap_pwrite },
        { "pwrite64", (sqlite3_syscall_ptr)__wrap_pwrite },
        { "ftruncate", (sqlite3_syscall_ptr)__wrap_ftruncate },
        { "fallocate", (sqlite3_syscall_ptr)__wrap_fallocate },
        { "unlink", (sqlite3_syscall_ptr)__wrap_unlink },
        { "mkdir", (sqlite3_syscall_ptr)__wrap_mkdir },
        { "fchmod", (sqlite3_syscall_ptr)__wrap_fchmod },
    };
    sqlite3_vfs *vfs = sqlite3_vfs_find(NULL);

    ASSERT_NOT_NULL(vfs);
    for (size_t i = 0; i < ARRAY_SIZE(calls); i++)
        if (vfs->xGetSystemCall(vfs, calls[i].name))
            ASSERT_EQ(vfs->xSetSystemCall(vfs, calls[i].name, calls[i].fn), SQLITE_OK);
}

/* --- the walk --- */

static void crashed(int signo)
{
    if (write(STDOUT_FILENO, where, strlen(where)) < 0)
        _exit(1);
    signal(signo, SIG_DFL);
    raise(signo);
}

void fault_init(void)
{
    static const struct sqlite3_mem_methods memory = {
        sql_malloc, sql_free, sql_realloc, sql_size, sql_roundup, sql_init, sql_shutdown, NULL,
    };

    ASSERT_EQ(sqlite3_config(SQLITE_CONFIG_MALLOC, &memory), SQLITE_OK);
    /* each allocation by itself, none out of a pool that was filled before */
    ASSERT_EQ(sqlite3_config(SQLITE_CONFIG_LOOKASIDE, 0, 0), SQLITE_OK);
    ASSERT_EQ(sqlite3_initialize(), SQLITE_OK);
    hook_sqlite();
    if (!test_sanitized()) {
        signal(SIGSEGV, crashed);
        signal(SIGABRT, crashed);
        signal(SIGBUS, crashed);
    }
}

/* The limit that leaves room for n descriptors more. */
static unsigned limit_for(unsigned n)
{
    unsigned fd = 0;

    for (unsigned open_ones = 0;; fd++) {
        if (fcntl((int)fd, F_GETFD) >= 0)
            continue;
        if (open_ones++ == n)
            return fd;
    }
}

static void set_limit(unsigned n)
{
    struct rlimit r;

    ASSERT_SYS(getrlimit(RLIMIT_NOFILE, &r));
    limit_was = (unsigned)r.rlim_cur;
    r.rlim_cur = n;
    ASSERT_SYS(setrlimit(RLIMIT_NOFILE, &r));
}

void fault_begin(enum fault_kind kind, unsigned nth)
{
    static const struct { int what, error; } kinds[] = {
        [FAULT_ALLOC] = { ALLOCATION, ENOMEM },  [FAULT_MEMORY] = { ALLOCATION, ENOMEM },
        [FAULT_FILES] = { 0, EMFILE },           [FAULT_FULL] = { GROWTH, ENOSPC },
        [FAULT_READONLY] = { GROWTH | CHANGE, EROFS },
    };

    kind_now = kind;
    error_now = kinds[kind].error;
    atomic_store(&count, 0);
    atomic_store(&nth_hit, nth);
    atomic_store(&hit_once, false);
    if (kind == FAULT_FILES)
        set_limit(limit_for(nth - 1));
    atomic_store(&armed, kinds[kind].what);
}

bool fault_end(void)
{
    atomic_store(&armed, 0);
    if (kind_now == FAULT_FILES)
        set_limit(limit_was);
    return atomic_load(&hit_once);
}

/* What the caller is told must say what it was: memory is memory, room is room. */
static bool code_fits(const struct fault_body *b, enum fault_kind kind, const struct err *e)
{
    static const enum err_code codes[] = {
        [FAULT_ALLOC] = ERR_NO_MEMORY, [FAULT_MEMORY] = ERR_NO_MEMORY,
        [FAULT_FILES] = ERR_UNAVAILABLE, [FAULT_FULL] = ERR_NO_SPACE,
        [FAULT_READONLY] = ERR_UNAVAILABLE,
    };

    return e->code == codes[kind] || (b->also != ERR_NONE && e->code == b->also);
}

static const char *const kind_names[] = {
    [FAULT_ALLOC] = "one allocation", [FAULT_MEMORY] = "no memory", [FAULT_FILES] = "descriptors",
    [FAULT_FULL] = "full", [FAULT_READONLY] = "read-only",
};

/* One round; false: nothing failed, so the walk is over. */
static bool round_of(const struct fault_body *b, enum fault_kind kind, unsigned n)
{
    struct err e = ERR_INIT;

    snprintf(where, sizeof(where), "# %s, %s: crashed at place %u\n", b->name, kind_names[kind], n);
    if (b->prepare)
        b->prepare();
    int fds = test_count_fds();
    fault_begin(kind, n);
    int r = b->run(&e);
    bool was_hit = fault_end();
    int now = b->look ? b->look() : r == 0;
    if (r < 0 && (e.code == ERR_NONE || e.msg[0] == '\0' || !code_fits(b, kind, &e)))
        FAIL("%s, %s, place %u: [%s] %s", b->name, kind_names[kind], n, err_wire(e.code), e.msg);
    if (r == 0 && e.code != ERR_NONE)
        FAIL("%s, %s, place %u: success with [%s] %s", b->name, kind_names[kind], n,
             err_wire(e.code), e.msg);
    if (now != 0 && now != 1)
        FAIL("%s, %s, place %u: neither as before nor done: %d", b->name, kind_names[kind], n, now);
    if (r == 0 && now != 1 && !b->survives)
        FAIL("%s, %s, place %u: success, but it is not done", b->name, kind_names[kind], n);
    if (r < 0 && now == 0) {
        e = ERR_INIT;
        if (b->run(&e) < 0 || (b->look && b->look() != 1))
            FAIL("%s, %s, place %u: does not go on afterwards: [%s] %s", b->name, kind_names[kind],
                 n, err_wire(e.code), e.msg);
    }
    if (b->done)
        b->done();
    /* prepare() may have opened some that done() closes, so fewer is fine */
    if (test_count_fds() > fds)
        FAIL("%s, %s, place %u: %d descriptors more", b->name, kind_names[kind], n,
             test_count_fds() - fds);
    return r < 0 || was_hit;
}

/* What was walked, by all tests of the program: each is a process. */
static struct walks {
    size_t n;
    struct { char name[64]; unsigned kinds; } walk[100];
} *walks;

static __attribute__((constructor)) void share_walks(void)
{
    void *p = mmap(NULL, sizeof(*walks), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    walks = p == MAP_FAILED ? NULL : p;
}

static void note_walk(const char *name, enum fault_kind kind)
{
    size_t i = 0;

    ASSERT_NOT_NULL(walks);
    while (i < walks->n && strcmp(walks->walk[i].name, name) != 0)
        i++;
    ASSERT_LT(i, ARRAY_SIZE(walks->walk));
    ASSERT_LT(strlen(name), sizeof(walks->walk[i].name));
    snprintf(walks->walk[i].name, sizeof(walks->walk[i].name), "%s", name);
    walks->walk[i].kinds |= 1u << kind;
    walks->n += i == walks->n;
}

unsigned fault_walk(const struct fault_body *b, enum fault_kind kind)
{
    unsigned n = 1, rounds = 0;

    while (round_of(b, kind, n)) {
        if (++rounds > ROUNDS)
            FAIL("%s, %s: no end in sight at place %u", b->name, kind_names[kind], n);
        n += n < EACH ? 1 : STEP;
    }
    printf("# %s, %s: %u places\n", b->name, kind_names[kind], rounds);
    if (rounds)
        note_walk(b->name, kind);
    return rounds;
}

void fault_walk_all(const struct fault_body *b)
{
    for (int kind = 0; kind < FAULT_KINDS; kind++)
        ASSERT_GT(fault_walk(b, (enum fault_kind)kind), 0);
}

void fault_walk_memory(const struct fault_body *b)
{
    ASSERT_GT(fault_walk(b, FAULT_ALLOC), 0);
    ASSERT_GT(fault_walk(b, FAULT_MEMORY), 0);
}

char fault_dir[96];

void fault_fresh_dir(void)
{
    static unsigned rounds;

    snprintf(fault_dir, sizeof(fault_dir), "%s/%u", test_dir(), rounds++);
    ASSERT_SYS(mkdir(fault_dir, 0700));
}

void fault_drop_dir(void)
{
    struct err e = ERR_INIT;

    ASSERT_OK(io_remove_tree(AT_FDCWD, fault_dir, &e), e);
}

/* --- the page --- */

#define PAGE "../docs/RELIABILITY.md"

static bool all_tests_run(void)
{
    autofree char *args = NULL;
    struct err e = ERR_INIT;
    size_t len = 0;

    ASSERT_OK(io_read_file_at(AT_FDCWD, "/proc/self/cmdline", MIB, &args, &len, &e), e);
    return strlen(args) + 1 == len;
}

/* A line for each set of kinds, in the order in which they came first. */
static void put_walks(struct sbuf *b)
{
    unsigned done = 0;

    for (size_t i = 0; i < walks->n; i++) {
        unsigned kinds = walks->walk[i].kinds;
        if (done & 1u << kinds)
            continue;
        done |= 1u << kinds;
        sbuf_lit(b, "-");
        for (int k = 0, n = 0; k < FAULT_KINDS; k++)
            if (kinds & 1u << k)
                sbuf_fmt(b, "%s %s", n++ ? "," : "", kind_names[k]);
        for (size_t k = i, n = 0; k < walks->n; k++)
            if (walks->walk[k].kinds == kinds)
                sbuf_fmt(b, "%s%s", n++ ? ", " : ": ", walks->walk[k].name);
        sbuf_lit(b, "\n");
    }
}

void fault_compare(const char *program)
{
    autosbuf struct sbuf ours = SBUF(64 * KIB), mark = SBUF(KIB), page = SBUF(MIB);
    autofree char *text = NULL;
    const char *path = test_source(PAGE), *update = getenv("SBX_TEST_UPDATE");
    struct err e = ERR_INIT;
    size_t len = 0;

    SKIP_IF(!all_tests_run(), "tests were chosen by name");
    put_walks(&ours);
    sbuf_fmt(&mark, "<!-- walked by %s: begin -->\n", program);
    autoclose int docs = open(test_source("../docs"), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    ASSERT_SYS(flock(docs, LOCK_EX));       /* tests of another program may be at it */
    ASSERT_OK(io_read_file_at(AT_FDCWD, path, MIB, &text, &len, &e), e);
    char *begin = strstr(text, sbuf_str(&mark));
    ASSERT_NOT_NULL(begin);
    begin += mark.len;
    char *end = strstr(begin, "<!-- end -->");
    ASSERT_NOT_NULL(end);
    if (!update || strcmp(update, "1") != 0) {
        ASSERT_MEMEQ(sbuf_str(&ours), ours.len, begin, (size_t)(end - begin));
        return;
    }
    sbuf_fmt(&page, "%.*s%s%s", (int)(begin - text), text, sbuf_str(&ours), end);
    ASSERT_OK(io_write_file_at(AT_FDCWD, path, sbuf_str(&page), page.len, 0644, &e), e);
}
