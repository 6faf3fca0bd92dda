/* SPDX-License-Identifier: MIT
 *
 * fault: what a piece of work does when the Nth allocation fails, when there is no Nth descriptor
 * more, when the disk is full or read-only from its Nth change on. fault_walk() does the work again
 * and again, the fault one place further each time, until nothing fails any more.
 *
 * Functions of libc are replaced in what is linked to the test by the linker (--wrap: the list is
 * in tests/unit/meson.build), those of SQLite by its own hooks, and jansson calls jfield.c's; so it
 * works under sanitizers too, and what the work leaks is for address sanitizer to tell. Descriptors
 * are counted here. Functions of other libraries are left alone. Descriptors run out by
 * RLIMIT_NOFILE.
 *
 * One walk at a time in a process. Faults hit all threads.
 */
#pragma once

#include "common/err.h"
#include <stdbool.h>

enum fault_kind {
    FAULT_ALLOC,        /* one allocation fails, the next do not */
    FAULT_MEMORY,       /* it, and all that follow */
    FAULT_FILES,        /* EMFILE: so many descriptors more and no further */
    FAULT_FULL,         /* ENOSPC from the Nth change of a file system on; the first write is cut */
    FAULT_READONLY,     /* EROFS from the Nth change on, removing and renaming too */
    FAULT_KINDS
};

struct fault_body {
    const char *name;
    /* A world of its own for each round; without faults, as look() and done(). NULL: none. */
    void (*prepare)(void);
    /* The work: 0, or -1 with the error. */
    int (*run)(struct err *e);
    /* 1: all of it is there; 0: it is as before; anything else fails the test itself. NULL: what
     * run() returns is all there is. Asked after each round; and after one that failed and left
     * all as it was, run() has to succeed without faults. */
    int (*look)(void);
    void (*done)(void);
    enum err_code also;     /* besides the code that says what it was; ERR_NONE: none */
    bool survives;          /* it may succeed without having done all (look() says 0) */
};

/* Before the first use of SQLite in this process. */
void fault_init(void);
/* Returns the number of places that failed; the test fails if there is none and `some` is set. */
unsigned fault_walk(const struct fault_body *b, enum fault_kind kind);
/* All kinds, and for what only reads, so that nothing can be full, those of memory. None without a
 * place. */
void fault_walk_all(const struct fault_body *b);
void fault_walk_memory(const struct fault_body *b);
/* A directory below test_dir() for each round: prepare() makes it, and done() removes it with all
 * that is in it. */
extern char fault_dir[96];
void fault_fresh_dir(void);
void fault_drop_dir(void);
/* Compares what the tests of this program have walked with its block in docs/RELIABILITY.md, or
 * writes it there with SBX_TEST_UPDATE=1. For the last test of a program; it skips where tests were
 * chosen by name. */
void fault_compare(const char *program);
/* By hand: from now on the Nth (from 1) fails. fault_end() returns whether it did. */
void fault_begin(enum fault_kind kind, unsigned nth);
bool fault_end(void);
