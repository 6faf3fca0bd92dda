/* SPDX-License-Identifier: MIT
 *
 * The environment is memory of the other process, and reading it makes the kernel fetch the page:
 * one that the process has put a file system of its own behind never comes. So a thread reads, and
 * nobody waits long for it. Of one user READERS_USER such threads may hang, READERS in all: when
 * they do, there is no hint, and with the first that is so for that user only.
 */
#include "daemon/audit_peer.h"

#include "common/auto.h"
#include "common/io.h"
#include "common/limits.h"
#include "common/name.h"
#include "common/sbuf.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#define PEER_MS 20
#define ENVIRON_MAX (32 * KIB)
#define READERS 64
#define READERS_USER 4          /* more than one: honest users ask at the same time, too */

struct reading {
    pthread_mutex_t lock;
    pthread_cond_t changed;     /* CLOCK_MONOTONIC */
    bool done, left;            /* left: nobody waits; the thread frees it */
    int fd;                     /* owned: environ */
    uid_t uid;
    char ssh[AUDIT_SSH];
};

static pthread_mutex_t readers_lock = PTHREAD_MUTEX_INITIALIZER;    /* a leaf, for the next two */
static uid_t readers[READERS];      /* whose environment each of them reads */
static size_t n_readers;

static bool enter(uid_t uid)
{
    unsigned own = 0;

    pthread_mutex_lock(&readers_lock);
    for (size_t i = 0; i < n_readers; i++)
        own += readers[i] == uid;
    bool room = own < READERS_USER && n_readers < READERS;
    if (room)
        readers[n_readers++] = uid;
    pthread_mutex_unlock(&readers_lock);
    return room;
}

static void leave(uid_t uid)
{
    pthread_mutex_lock(&readers_lock);
    for (size_t i = 0; i < n_readers; i++) {
        if (readers[i] == uid) {
            readers[i] = readers[--n_readers];
            break;
        }
    }
    pthread_mutex_unlock(&readers_lock);
}

void audit_text(char *dst, size_t cap, const char *text)
{
    size_t n = 0, left = strlen(text);

    while (left > 0) {
        size_t plain = utf8_step_plain(text, left), any = utf8_step(text, left);
        size_t take = plain ? plain : any ? any : 1, put = plain ? plain : 1;
        if (n + put >= cap)
            break;
        memcpy(dst + n, plain ? text : "?", put);
        n += put;
        text += take;
        left -= take;
    }
    dst[n] = '\0';
}

static void reading_free(struct reading *r)
{
    leave(r->uid);
    fd_close(r->fd);
    pthread_cond_destroy(&r->changed);
    pthread_mutex_destroy(&r->lock);
    free(r);
}

static void find_ssh(int fd, char *ret)
{
    static const char key[] = "SSH_CONNECTION=";
    autofree char *env = calloc(1, ENVIRON_MAX + 1);
    size_t len = 0;

    while (env && len < ENVIRON_MAX) {
        ssize_t n = read(fd, env + len, ENVIRON_MAX - len);
        if (n <= 0)
            break;
        len += (size_t)n;
    }
    for (size_t at = 0; at < len; at += strlen(env + at) + 1)
        if (strncmp(env + at, key, sizeof(key) - 1) == 0)
            audit_text(ret, AUDIT_SSH, env + at + sizeof(key) - 1);
}

static void *read_environ(void *arg)
{
    struct reading *r = arg;
    char ssh[AUDIT_SSH] = "";

    find_ssh(r->fd, ssh);
    pthread_mutex_lock(&r->lock);
    memcpy(r->ssh, ssh, sizeof(ssh));
    r->done = true;
    bool left = r->left;
    pthread_cond_signal(&r->changed);
    pthread_mutex_unlock(&r->lock);
    if (left)
        reading_free(r);
    return NULL;
}

/* NULL: there are too many, or no memory. */
static struct reading *reading_new(int *fd, uid_t uid)
{
    pthread_condattr_t attr;

    if (!enter(uid))
        return NULL;
    struct reading *r = calloc(1, sizeof(*r));
    if (!r) {
        leave(uid);
        return NULL;
    }
    r->uid = uid;
    pthread_mutex_init(&r->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&r->changed, &attr);
    pthread_condattr_destroy(&attr);
    r->fd = take_fd(fd);
    return r;
}

/* True: it has come, and r is ours again. */
static bool await(struct reading *r)
{
    int64_t deadline = deadline_in(PEER_MS);
    struct timespec ts = { .tv_sec = deadline / 1000, .tv_nsec = deadline % 1000 * 1000000 };
    int rc = 0;

    pthread_mutex_lock(&r->lock);
    while (!r->done && rc == 0)
        rc = pthread_cond_timedwait(&r->changed, &r->lock, &ts);
    bool done = r->done;
    r->left = !done;
    pthread_mutex_unlock(&r->lock);
    return done;
}

void audit_peer_ssh(int *fd, uid_t uid, char ret[AUDIT_SSH])
{
    struct reading *r = reading_new(fd, uid);
    pthread_attr_t attr;
    pthread_t thread;

    if (!r)
        return;
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attr, 128 * KIB);
    bool runs = pthread_create(&thread, &attr, read_environ, r) == 0;
    pthread_attr_destroy(&attr);
    if (runs && !await(r))
        return;
    memcpy(ret, r->ssh, AUDIT_SSH);
    reading_free(r);
}

void audit_peer_read(pid_t pid, uid_t uid, struct audit_peer *ret)
{
    autosbuf struct sbuf path = SBUF(64);
    char comm[AUDIT_COMM];
    struct stat sb;

    *ret = (struct audit_peer){ 0 };
    if (pid <= 0)
        return;
    sbuf_fmt(&path, "/proc/%d", (int)pid);
    autoclose int dir = open(sbuf_str(&path), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0 || fstat(dir, &sb) < 0 || sb.st_uid != uid)
        return;
    autoclose int fd = openat(dir, "comm", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, comm, sizeof(comm) - 1);
    if (n > 0) {
        comm[n - (comm[n - 1] == '\n')] = '\0';
        audit_text(ret->comm, sizeof(ret->comm), comm);
    }
    autoclose int environ_fd = openat(dir, "environ", O_RDONLY | O_CLOEXEC);
    if (environ_fd >= 0)
        audit_peer_ssh(&environ_fd, uid, ret->ssh);
}
