/* SPDX-License-Identifier: MIT
 *
 * agentpeer: the daemon's end of a channel, played by a test against the real sbx-agent (program in
 * SBX_AGENT) as an ordinary process. Frames are written by hand, right or wrong; what comes back is
 * checked and kept per exec. One thread. All functions end the test when something fails.
 */
#pragma once

#include "common/frame.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define PEER_EXECS 320
#define PEER_MS 20000           /* how long it waits for what has to come */

struct peer_exec {
    uint32_t stream;
    bool started, failed, ended;
    uint32_t pid, sys;
    uint8_t kind;               /* enum exec_fail */
    char text[256];
    uint8_t *data[2];           /* NUL-terminated */
    size_t len[2];
    uint64_t at[2];             /* where the next byte has to be: anything else is a failure */
    uint64_t eof[2];            /* UINT64_MAX: not seen */
    uint64_t in_credit;
    uint64_t in_sent;
    uint8_t how;
    uint32_t value;
    uint64_t end[2];            /* by EXIT */
    bool stingy;                /* no credit is given by itself */
    bool blind;                 /* output is counted and not kept or checked */
    /* of the last hello */
    bool named;
    uint8_t state;
    uint64_t produced[2], received;
};

struct agentpeer {
    pid_t pid;
    int fd;
    uint32_t epoch;
    struct frame_decoder dec;
    uint8_t buf[65536];
    size_t at, have;
    struct frame frame;         /* the last one read */
    uint32_t next_stream;
    struct peer_exec *execs[PEER_EXECS];
    size_t n_execs;
    uint32_t sessions;          /* by the last hello */
    bool configured;
    unsigned readies, pongs, logs;
    uint64_t cookie;
    unsigned strays;            /* frames about streams nobody knows */
    char version[65], boot_id[65];
};

struct peer_spec {
    const char *const *argv;    /* or: */
    const char *script;         /* for sh -c */
    const char *const *env;
    const char *workdir, *user;
    bool tty, stdin;
    uint16_t rows, cols;
    uint64_t timeout_ms;
    uint64_t credit;            /* 0: LIMIT_WINDOW; UINT64_MAX: none */
    bool stingy, blind;
};

struct agentpeer *peer_new(void);           /* started, greeted and configured */
struct agentpeer *peer_start(void);         /* only started */
void peer_free(struct agentpeer *p);        /* the agent ends, and has to end well */
/* As a new daemon: another epoch and nothing read so far. Returns the ms until the answer. */
int64_t peer_hello(struct agentpeer *p);
void peer_config(struct agentpeer *p, const char *const *env);
void peer_raw(struct agentpeer *p, const void *data, size_t len);
void peer_send(struct agentpeer *p, enum frame_type type, uint8_t fd, uint32_t stream,
               const void *payload, size_t len);
void peer_number(struct agentpeer *p, enum frame_type type, uint8_t fd, uint32_t stream,
                 uint64_t value, size_t bytes);
void peer_resume(struct agentpeer *p, struct peer_exec *x, uint64_t out, uint64_t err);
/* One frame; false when none comes within ms. */
bool peer_read(struct agentpeer *p, int ms);
/* Reads until *flag; false when that takes longer than ms. */
bool peer_until(struct agentpeer *p, const bool *flag, int ms);
/* Reads what comes within ms. */
void peer_settle(struct agentpeer *p, int ms);
/* Round trip: all that was sent before has been taken. */
void peer_ping(struct agentpeer *p);

struct peer_exec *peer_exec(struct agentpeer *p, const struct peer_spec *s);  /* owned by p */
struct peer_exec *peer_script(struct agentpeer *p, const char *script);
void peer_await_start(struct agentpeer *p, struct peer_exec *x);
/* Until EXIT and all the output it promises. */
void peer_await_end(struct agentpeer *p, struct peer_exec *x);
/* Until stdout holds n bytes at least. */
void peer_await_output(struct agentpeer *p, struct peer_exec *x, size_t n);
void peer_credit(struct agentpeer *p, struct peer_exec *x, int fd, uint64_t credit);
void peer_stdin(struct agentpeer *p, struct peer_exec *x, const void *data, size_t len);
void peer_stdin_eof(struct agentpeer *p, struct peer_exec *x);
void peer_forget(struct agentpeer *p, struct peer_exec *x);
const char *peer_out(const struct peer_exec *x);
const char *peer_err(const struct peer_exec *x);
