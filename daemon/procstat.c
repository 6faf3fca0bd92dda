/* SPDX-License-Identifier: MIT */
#include "daemon/procstat.h"

#include "common/auto.h"
#include "common/io.h"
#include "common/limits.h"
#include "common/parse.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define TEXT_MAX (64 * KIB)
#define DEPTH_MAX 4             /* of children; virtiofsd has one */
#define CHILDREN_MAX 16         /* of one process that are looked at */

/* Fields of /proc/PID/stat behind the name, counted from the state, which is 0. */
enum { STAT_UTIME = 11, STAT_STIME = 12, STAT_START = 19, STAT_FIELDS = 20 };

static bool read_text(int dir, const char *name, char **ret)
{
    struct err ignored = ERR_INIT;
    size_t len = 0;

    return io_read_file_at(dir, name, TEXT_MAX, ret, &len, &ignored) == 0;
}

static bool parse_stat(const char *text, uint64_t ret[STAT_FIELDS])
{
    /* The name in parentheses may hold anything: count from the last one. */
    const char *p = strrchr(text, ')');
    char word[24];

    if (!p)
        return false;
    p++;
    for (int i = 0; i < STAT_FIELDS; i++) {
        p += strspn(p, " ");
        size_t n = strcspn(p, " \n");
        if (n == 0 || n >= sizeof(word))
            return false;
        memcpy(word, p, n);
        word[n] = '\0';
        if (!parse_u64(word, 0, UINT64_MAX, &ret[i]))
            ret[i] = 0;         /* the state, and what may be negative */
        p += n;
    }
    return true;
}

/* "Name:\t  123 kB": the number; 0 if there is none. The first line has no newline in front. */
static uint64_t field(const char *text, const char *name)
{
    const char *p = text;
    char word[24];
    uint64_t v = 0;
    size_t n = strlen(name);

    while (p && (strncmp(p, name, n) != 0 || p[n] != ':')) {
        p = strchr(p, '\n');
        p = p ? p + 1 : NULL;
    }
    if (!p)
        return 0;
    p += n + 1;
    p += strspn(p, " \t");
    n = strcspn(p, " \t\n");
    if (n == 0 || n >= sizeof(word))
        return 0;
    memcpy(word, p, n);
    word[n] = '\0';
    return parse_u64(word, 0, UINT64_MAX, &v) ? v : 0;
}

static void add_memory(int dir, const char *status, bool thorough, struct proc_use *u)
{
    uint64_t own = field(status, "RssAnon") + field(status, "RssFile");
    autofree char *rollup = NULL;

    u->rss += (own + field(status, "RssShmem")) * KIB;
    u->own += own * KIB;
    if (thorough && read_text(dir, "smaps_rollup", &rollup))
        u->pss += field(rollup, "Pss") * KIB;
}

/* Adds the process alone; *ret_children is owned: "123 456 ". */
static bool add_one(pid_t pid, uid_t uid, uint64_t start_time, bool thorough, struct proc_use *u,
                    char **ret_children)
{
    char path[64];
    autofree char *stat = NULL, *status = NULL, *io = NULL;
    uint64_t f[STAT_FIELDS];
    long hz = sysconf(_SC_CLK_TCK);

    snprintf(path, sizeof(path), "/proc/%d", (int)pid);
    autoclose int dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    /* by one descriptor, so that all of it is about one process */
    if (dir < 0 || !read_text(dir, "stat", &stat) || !read_text(dir, "status", &status) ||
        !parse_stat(stat, f) || (start_time && f[STAT_START] != start_time) ||
        (uid != (uid_t)-1 && field(status, "Uid") != uid))
        return false;
    u->cpu_us += (f[STAT_UTIME] + f[STAT_STIME]) * 1000000 / (uint64_t)(hz > 0 ? hz : 100);
    u->processes++;
    u->threads += (uint32_t)field(status, "Threads");
    add_memory(dir, status, thorough, u);
    if (read_text(dir, "io", &io)) {
        u->read_bytes += field(io, "read_bytes");
        u->written_bytes += field(io, "write_bytes");
    }
    snprintf(path, sizeof(path), "task/%d/children", (int)pid);
    (void)read_text(dir, path, ret_children);
    return true;
}

static bool add_tree(pid_t pid, uid_t uid, uint64_t start_time, bool thorough, int depth,
                     struct proc_use *u)
{
    autofree char *children = NULL;
    uint32_t child;

    if (!add_one(pid, uid, start_time, thorough, u, &children))
        return false;
    char *p = children, *rest = NULL;
    for (int i = 0; p && depth < DEPTH_MAX && i < CHILDREN_MAX; i++) {
        char *word = strtok_r(i ? NULL : p, " \n", &rest);
        if (!word || !parse_u32(word, 1, INT32_MAX, &child))
            break;
        add_tree((pid_t)child, (uid_t)-1, 0, thorough, depth + 1, u);
    }
    return true;
}

bool procstat_add(pid_t pid, uid_t uid, uint64_t start_time, bool thorough, struct proc_use *u)
{
    return pid > 0 && add_tree(pid, uid, start_time, thorough, 0, u);
}

int procstat_start(pid_t pid, uint64_t *ret, struct err *e)
{
    char path[64];
    autofree char *text = NULL;
    uint64_t f[STAT_FIELDS];

    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    if (!read_text(AT_FDCWD, path, &text) || !parse_stat(text, f))
        return err_set(e, ERR_INTERNAL, "cannot read %s", path);
    *ret = f[STAT_START];
    return 0;
}

void procstat_self(struct proc_use *u)
{
    autofree char *children = NULL;

    (void)add_one(getpid(), (uid_t)-1, 0, false, u, &children);
}
