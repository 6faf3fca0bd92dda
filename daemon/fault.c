/* SPDX-License-Identifier: MIT */
#include "daemon/fault.h"

#include "common/auto.h"
#include "common/parse.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ARMED_MAX 8
#define ERRNO_MAX 133           /* EHWPOISON, the last one of Linux */

static const struct {
    const char *name, *truth;
} points[] = {
#define FAULT_ROW(constant, name, truth) [constant] = { name, truth },
    FAULT_TABLE(FAULT_ROW)
#undef FAULT_ROW
};
static_assert(ARRAY_SIZE(points) == FAULT_MAX, "a row for each point");

/* Written before there are threads, but for what counts. */
static struct armed {
    enum fault_point point;
    uint32_t nth;               /* 0: each time */
    int error;                  /* 0: dies */
    bool early;                 /* counts from the start on */
    uint32_t passed;            /* atomic */
} armed[ARMED_MAX];
static size_t n_armed;
static bool serving;            /* atomic */

static int errno_of(const char *name)
{
    for (int no = 1; no <= ERRNO_MAX; no++) {
        const char *s = strerrorname_np(no);
        if (s && strcmp(s, name) == 0)
            return no;
    }
    return 0;
}

/* Cuts the text behind the last `mark` off and returns it; NULL: there is none. */
static char *cut(char *s, char mark)
{
    char *at = strrchr(s, mark);

    if (at)
        *at++ = '\0';
    return at;
}

static bool parse_one(char *s, struct armed *ret)
{
    const char *when = cut(s, '@'), *error = cut(s, '='), *nth = cut(s, ':');
    struct armed a = { .point = FAULT_MAX, .nth = 1, .early = when != NULL };

    for (enum fault_point p = 0; p < FAULT_MAX; p++)
        if (strcmp(points[p].name, s) == 0)
            a.point = p;
    if (a.point == FAULT_MAX || (when && strcmp(when, "start") != 0))
        return false;
    if (error && !(a.error = errno_of(error)))
        return false;
    if (nth && strcmp(nth, "*") == 0)
        a.nth = 0;
    else if (nth && !parse_u32(nth, 1, UINT32_MAX, &a.nth))
        return false;
    *ret = a;
    return true;
}

static bool parse(const char *spec)
{
    autofree char *copy = strdup(spec);
    char *save = NULL;

    n_armed = 0;
    if (!copy)
        return false;
    for (char *s = strtok_r(copy, ",", &save); s; s = strtok_r(NULL, ",", &save))
        if (n_armed == ARMED_MAX || !parse_one(s, &armed[n_armed++]))
            return false;
    return true;
}

bool fault_arm(const char *spec)
{
    serving = true;
    return parse(spec ? spec : "");
}

bool fault_main(int argc, char **argv)
{
    const char *spec = getenv("SANDBOXD_FAULT");

    if (argc == 2 && strcmp(argv[1], "--faults") == 0) {
        for (size_t i = 0; i < FAULT_MAX; i++)
            printf("%s\t%s\n", points[i].name, points[i].truth);
        return true;
    }
    if (!parse(spec ? spec : "")) {
        fprintf(stderr, "sandboxd: SANDBOXD_FAULT=%s cannot be understood\n", spec);
        exit(2);
    }
    /* the daemon has options at most, the other commands are words */
    serving = argc > 1 && argv[1][0] != '-';
    return false;
}

void fault_serving(void)
{
    __atomic_store_n(&serving, true, __ATOMIC_RELEASE);
}

/* What is armed for this passing of the point; NULL: nothing is. Counts it, or only looks. */
static const struct armed *met(enum fault_point p, bool count)
{
    for (size_t i = 0; i < n_armed; i++) {
        struct armed *a = &armed[i];
        if (a->point != p || (!a->early && !__atomic_load_n(&serving, __ATOMIC_ACQUIRE)))
            continue;
        uint32_t n = count ? __atomic_add_fetch(&a->passed, 1, __ATOMIC_ACQ_REL)
                           : __atomic_load_n(&a->passed, __ATOMIC_ACQUIRE) + 1;
        if (a->nth == 0 || a->nth == n)
            return a;
    }
    return NULL;
}

/* One write, past whatever stdio has: a reader of the log sees it before the end. */
static void say(enum fault_point p, const char *more)
{
    dprintf(STDERR_FILENO, "fault: %s%s\n", points[p].name, more);
}

static int act(enum fault_point p)
{
    const struct armed *a = met(p, true);

    if (!a)
        return 0;
    say(p, "");
    if (a->error)
        return a->error;
    kill(getpid(), SIGKILL);
    for (;;)
        pause();
}

int fault_at(enum fault_point p, struct err *e)
{
    int no = act(p);

    return no ? err_sys(e, ERR_INTERNAL, no, "fault %s", points[p].name) : 0;
}

void fault_here(enum fault_point p)
{
    if (act(p) == 0)
        return;
    say(p, ": cannot fail");
    abort();
}

size_t fault_part(enum fault_point p, size_t len)
{
    return len > 1 && met(p, false) ? len / 2 : len;
}
