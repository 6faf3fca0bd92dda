/* SPDX-License-Identifier: MIT
 *
 * session: the execs of this guest, running and finished, until the daemon says that it has stored
 * their end. Sessions outlive the daemon: their output is read up to the credit they have, kept,
 * and sent again from where the next daemon says.
 *
 *     STARTING --report pipe closes--> RUNNING --main process reaped--> EXITED --FORGET--> gone
 *         |___ report of a failure: FAILED is sent, gone
 *
 * The end of an exec is the end of its main process. What can be read at that moment still belongs
 * to its output; what others who hold the pipe write later is read and thrown away, so that they
 * neither block nor die of it.
 *
 * Memory: per stream a ring of LIMIT_WINDOW bytes, which are touched as they are used.
 */
#pragma once

#include "common/frame.h"
#include "common/strv.h"
#include "guest/chan.h"
#include "guest/loop.h"
#include <stdbool.h>
#include <sys/types.h>

#define SESSIONS_MAX 768        /* running ones and those that are not forgotten yet */
#define SESSION_FAILURES 64     /* answers to EXEC that wait for room */
#define SESSION_DRAINS 256      /* pipes of forgotten execs that somebody still writes to */

enum session_phase { SESSION_STARTING, SESSION_RUNNING, SESSION_EXITED };

struct session;

struct session_out {            /* one output stream */
    struct session *session;
    struct source src;
    uint8_t fd;                 /* 1 or 2 on the wire */
    uint8_t *ring;              /* owned: mapped with the first byte; NULL also when given up */
    uint64_t end;               /* bytes read from the process */
    uint64_t sent;
    uint64_t credit;
    uint64_t final;             /* where it ends, with `final_known` */
    uint64_t drain_to;          /* terminal whose process has exited: how far to read at most */
    bool final_known;
    bool eof_sent;
};

struct session_in {
    struct source src;
    uint8_t *ring;
    uint64_t received, consumed, told;
    bool open;                  /* the daemon may send */
    bool eof;                   /* and has said that nothing follows */
};

struct session {
    struct sessions *table;
    uint32_t stream;
    enum session_phase phase;
    bool tty;
    pid_t pid;                  /* 0 once reaped */
    pid_t sid;                  /* the same, for good */
    struct source report;
    struct session_in in;
    struct session_out out[2];
    size_t n_out;               /* 1 with a terminal */
    int64_t timeout_at, kill_at, gone_at, tty_again_at;     /* 0 never */
    bool timed_out;
    bool killed;
    bool named;                 /* in a SESSION: the daemon counts it as running */
    bool parked;                /* between HELLO and RESUME */
    bool want_session, want_started, want_credit, want_exit;
    bool forgotten;
    uint8_t how;
    uint32_t value;
    struct session *next_dead;
};

struct session_failure {
    uint32_t stream;
    uint32_t sys;
    uint8_t kind;
    char text[120];
};

struct session_drain {
    struct source src;          /* fd -1: free */
    struct sessions *table;
};

struct sessions {
    struct loop *loop;          /* borrowed */
    struct session *list[SESSIONS_MAX];     /* owned, in order of their start */
    size_t n, turn;
    struct session *dead;       /* to be freed at the end of the turn */
    struct session_failure failures[SESSION_FAILURES];
    size_t n_failures;
    struct session_drain drains[SESSION_DRAINS];
    size_t next_drain;
    /* how to start: */
    struct strv env;            /* of the sandbox, for every exec */
    const char *user;           /* for execs that name none */
    bool become_user;
    const char *workspace;      /* NULL: none */
    void (*log)(void *arg, int level, const char *text);    /* may be NULL */
    void *log_arg;
};

void sessions_init(struct sessions *t, struct loop *loop);
/* Kills what runs, frees all. */
void sessions_done(struct sessions *t);

/* What the daemon says; about streams that are not there (any more): nothing happens. */
void sessions_exec(struct sessions *t, uint32_t stream, const struct exec_wire_in *x);
void sessions_fail(struct sessions *t, uint32_t stream, enum exec_fail kind, int sys,
                   const char *text);
void session_data(struct session *s, uint64_t offset, const uint8_t *data, size_t len);
void session_eof(struct session *s, uint64_t offset);
void session_credit(struct session *s, uint8_t fd, uint64_t credit);
void session_resume(struct session *s, uint64_t out, uint64_t err);
void session_signal(struct session *s, uint32_t signo);
void session_resize(struct session *s, uint16_t rows, uint16_t cols);
void session_end(struct session *s, uint32_t grace_ms);
void session_forget(struct session *s);
struct session *sessions_find(struct sessions *t, uint32_t stream);

/* A new HELLO: every session is to be named and parked. Returns how many. */
uint32_t sessions_hello(struct sessions *t);
/* Puts the SESSION frames that follow a HELLO; false: some are left. */
bool sessions_fill_named(struct sessions *t, struct chan *c);
/* Puts what they have to say otherwise; fair between them. */
void sessions_fill(struct sessions *t, struct chan *c);
/* A child was reaped; it may be nobody's. */
void sessions_reaped(struct sessions *t, pid_t pid, int status);
/* Deadlines: when, and doing what is due. Also frees what the turn left behind. */
int64_t sessions_deadline(const struct sessions *t);
void sessions_tick(struct sessions *t);

/* session_io.c: streams of one session */
void session_out_watch(struct session_out *o);
void session_out_pump(struct session_out *o);
void session_out_exited(struct session_out *o);
void session_out_drop(struct session_out *o);
void session_in_flush(struct session *s);
void session_in_close(struct session *s);
void session_on_out(void *arg, uint32_t events);
void session_on_in(void *arg, uint32_t events);
/* Puts a DATA or EOF frame if there is one: 1 put, 0 nothing to put, -1 no room. */
int session_out_put(struct session_out *o, struct chan *c);
