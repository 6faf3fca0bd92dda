/* SPDX-License-Identifier: MIT
 *
 * frame: records on the virtio-serial channel between sandboxd and sbx-agent; both ends use this
 * file. Prose, sequence and version rules: docs/GUEST-PROTOCOL.md.
 *
 *     offset  size
 *     0       4     magic "SBX1"
 *     4       4     epoch: chosen by the daemon at random (never 0) for each connection
 *     8       4     stream: the exec this is about, 0 for the channel itself
 *     12      2     length of the payload, at most LIMIT_FRAME
 *     14      1     type
 *     15      1     flags: for DATA, EOF and CREDIT the fd number 0, 1 or 2; else 0
 *     16      len   payload
 *     16+len  4     trailer: epoch XOR FRAME_TRAILER
 *
 * All integers little-endian. The port has no connections: a new daemon may find the tail of a
 * frame meant for the old one, and the guest may be left with half a frame. So a decoder hunts for
 * a HELLO (in the daemon: one with the epoch it chose), throws away what comes before, and goes
 * back to hunting when magic, epoch, length or trailer are wrong. The trailer makes a torn frame
 * completed by foreign bytes visible.
 */
#pragma once

#include "common/err.h"
#include "common/limits.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FRAME_MAGIC 0x31584253u /* "SBX1" */
#define FRAME_TRAILER 0x5a17e77eu
#define FRAME_HEADER 16
#define FRAME_OVERHEAD (FRAME_HEADER + 4)
#define FRAME_VERSION 1
#define FRAME_HELLO_MAX 256     /* payload of a HELLO */
#define FRAME_QUIET_MS 20       /* frame_decoder_quiet() */

/* Direction d>g daemon to guest, g>d guest to daemon. Strings are u32 length + bytes, no NUL
 * inside; vectors are u32 count + strings. Offsets are absolute byte counts since the stream began,
 * so a repeated CREDIT or RESUME does no harm. */
#define FRAME_TYPES(X)                                                                             \
    X(FRAME_HELLO, 1, "hello")       /* d>g u32 version · g>d u32 version, str agent version,      \
                                        str boot id, u32 sessions (each follows as SESSION),       \
                                        u8 configured, u32 abilities (GUEST_CAN_…; missing: 0) */  \
    X(FRAME_SESSION, 2, "session")   /* g>d after hello, one each: u8 state (0 running, 1 exited), \
                                        u64 out end, u64 err end, u64 stdin received, and for      \
                                        exited the EXIT payload */                                 \
    X(FRAME_CONFIG, 3, "config")     /* d>g struct guest_config */                                 \
    X(FRAME_READY, 4, "ready")       /* g>d u64 kernel boot us, u64 agent us */                    \
    X(FRAME_EXEC, 5, "exec")         /* d>g a part of struct exec_wire: u8 last, bytes; parts of   \
                                        one stream id are joined up to LIMIT_EXEC_BYTES */         \
    X(FRAME_STARTED, 6, "started")   /* g>d u32 pid */                                             \
    X(FRAME_FAILED, 7, "failed")     /* g>d u32 errno, u8 enum exec_fail, str text: no process */  \
    X(FRAME_DATA, 8, "data")         /* both u64 offset, bytes */                                  \
    X(FRAME_EOF, 9, "eof")           /* both u64 offset: nothing after it */                       \
    X(FRAME_CREDIT, 10, "credit")    /* both u64: the other side may send up to this offset */     \
    X(FRAME_RESUME, 11, "resume")    /* d>g u64 out, u64 err: send again from there */             \
    X(FRAME_SIGNAL, 12, "signal")    /* d>g u32 signal, to the process group in the foreground */  \
    X(FRAME_RESIZE, 13, "resize")    /* d>g u16 rows, u16 columns */                               \
    X(FRAME_EXIT, 14, "exit")        /* g>d u8 enum exit_how, u32 value, u64 out, u64 err end */   \
    X(FRAME_FORGET, 15, "forget")    /* d>g exit is stored; the session's memory may go */         \
    X(FRAME_END, 16, "end")          /* d>g u32 grace ms: SIGHUP now, SIGKILL after */             \
    X(FRAME_PING, 17, "ping")        /* both u64 cookie */                                         \
    X(FRAME_PONG, 18, "pong")        /* both u64 cookie */                                         \
    X(FRAME_TIME, 19, "time")        /* d>g u64 real time ns */                                    \
    X(FRAME_SHUTDOWN, 20, "shutdown")/* d>g u8 0 power off, 1 reboot */                            \
    X(FRAME_LOG, 21, "log")          /* g>d u8 level, text */                                      \
    X(FRAME_NET, 22, "net")          /* d>g struct guest_net; before CONFIG, at each handshake */

enum frame_type {
#define FRAME_ENUM(constant, value, name) constant = value,
    FRAME_TYPES(FRAME_ENUM)
#undef FRAME_ENUM
    FRAME_TYPE_MAX
};

#define GUEST_CAN_NET 1u         /* knows NET */

enum exit_how { EXIT_CODE = 0, EXIT_SIGNAL = 1, EXIT_TIMEOUT = 2, EXIT_LOST = 3 };
enum exec_fail { EXEC_FAIL_NOT_FOUND = 1, EXEC_FAIL_NOT_EXEC, EXEC_FAIL_WORKDIR, EXEC_FAIL_USER,
                 EXEC_FAIL_RESOURCE, EXEC_FAIL_PROTOCOL };

struct frame {
    enum frame_type type;
    uint8_t fd;              /* flags byte */
    uint32_t stream;
    const uint8_t *payload;  /* borrowed from the decoder until the next call */
    uint32_t len;
};

/* Encodes into out (at least FRAME_OVERHEAD + len bytes); returns the bytes written. */
size_t frame_encode(uint8_t *out, uint32_t epoch, enum frame_type type, uint8_t fd, uint32_t stream,
                    const void *payload, uint32_t len);

/* Incremental decoder with a fixed buffer of its own; no allocation. */
struct frame_decoder {
    uint32_t epoch;          /* 0: take the epoch of the first HELLO (guest); else only this one */
    bool adopt;              /* the guest: a HELLO may bring a new epoch */
    bool hunting;
    uint64_t skipped;        /* bytes thrown away while hunting, for the log */
    uint64_t resyncs;        /* times it lost the thread */
    uint32_t quiet_epoch;    /* of a HELLO that may be one, see frame_decoder_quiet() */
    size_t quiet_have;
    size_t have, done;       /* bytes in buf, and those of the frame handed out */
    uint8_t buf[FRAME_OVERHEAD + LIMIT_FRAME];
};
void frame_decoder_init(struct frame_decoder *d, uint32_t epoch);

/* Takes up to len bytes, at most to the end of one frame; *ret_used says how many. Returns 1 with a
 * frame, 0 when it needs more. Never fails: bytes that make no sense are skipped and counted. A
 * HELLO with a new epoch is accepted wherever a frame may begin in the guest's form (epoch 0 at
 * init): the decoder then adopts the epoch. Inside of a frame it is not: that may be what somebody
 * wrote to a command's input. May be called with len 0. */
int frame_decode(struct frame_decoder *d, const uint8_t *data, size_t len, size_t *ret_used,
                 struct frame *ret_frame);
/* The guest's form: is it in the middle of a frame? Then, when no byte has come for FRAME_QUIET_MS,
 * frame_decoder_quiet() is to be called. A daemon that dies in the middle of a frame leaves us
 * waiting for the rest, and the HELLOs of the next one look like it. They stand alone, though: when
 * the same HELLO comes twice in a row with silence after each, the frame around it is given up and
 * the HELLO returned (1). No stream of bytes that keeps flowing can be taken for that. */
bool frame_decoder_partial(const struct frame_decoder *d);
int frame_decoder_quiet(struct frame_decoder *d, struct frame *ret_frame);
const char *frame_type_name(enum frame_type type);

/* Cursor over a payload: each get checks the rest and fails once for all ("sticky"). */
struct wire_in { const uint8_t *p; size_t left; bool bad; };
uint8_t wire_get_u8(struct wire_in *w);
uint16_t wire_get_u16(struct wire_in *w);
uint32_t wire_get_u32(struct wire_in *w);
uint64_t wire_get_u64(struct wire_in *w);
/* Borrowed bytes; a NUL inside or a length over max is bad. */
const char *wire_get_str(struct wire_in *w, uint32_t max, uint32_t *ret_len);

/* Builder into a caller's buffer; sticky overflow. */
struct wire_out { uint8_t *p; size_t cap, len; bool bad; };
void wire_put_u8(struct wire_out *w, uint8_t v);
void wire_put_u16(struct wire_out *w, uint16_t v);
void wire_put_u32(struct wire_out *w, uint32_t v);
void wire_put_u64(struct wire_out *w, uint64_t v);
void wire_put_str(struct wire_out *w, const char *s);

/* The guest's network: one interface, found by its MAC, that leads to the gateway only. Addresses
 * in host order. */
struct guest_net {
    uint8_t mac[6];           /* of the guest's interface */
    uint8_t gateway_mac[6];   /* a permanent neighbour: nobody is asked for it */
    uint32_t address;         /* the guest's, /32 */
    uint32_t gateway;
    uint32_t resolver;        /* for /etc/resolv.conf; 0: that is left alone */
    uint16_t mtu;
};
#define GUEST_NET_BYTES 26

/* Fails for nothing but lack of room (GUEST_NET_BYTES). */
size_t guest_net_encode(const struct guest_net *n, uint8_t *buf, size_t cap);
/* ERR_INVALID for what cannot be. Bytes after it are a newer daemon's, and passed over. */
int guest_net_decode(const uint8_t *p, size_t len, struct guest_net *ret, struct err *e);

/* What the daemon tells a guest after hello. Strings are borrowed. */
struct guest_config {
    const char *hostname;
    uint8_t workspace;        /* 0 none, 1 read-write, 2 read-only: virtiofs tag "workspace" */
    uint64_t realtime_ns;
    const char *const *env;   /* NULL-terminated "K=V", given to every exec */
    const struct guest_net *net;  /* NULL: none. Not part of CONFIG: it goes ahead, as NET */
};

/* A command to run. */
struct exec_wire {
    const char *const *argv;  /* at least one */
    const char *const *env;   /* on top of the sandbox's */
    const char *workdir;      /* "" = /workspace if there is one, else the user's home */
    const char *user;         /* "" = agent; a name or a decimal uid */
    uint8_t tty;
    uint8_t stdin_open;       /* 0: stdin is /dev/null (or the tty with no input) */
    uint16_t rows, cols;      /* with tty; 0 = 24x80 */
    uint64_t timeout_ms;      /* 0 none */
    uint64_t credit;          /* the output the guest may send at once, absolute, both streams */
};

/* Encode both; -1 when they do not fit (ERR_TOO_LARGE). */
int guest_config_encode(const struct guest_config *c, uint8_t *buf, size_t cap, size_t *ret_len,
                        struct err *e);
int exec_wire_encode(const struct exec_wire *x, uint8_t *buf, size_t cap, size_t *ret_len,
                     struct err *e);
/* Decode into vectors owned by *ret (free with …_done): used by the agent. Counts and lengths are
 * held to limits.h; trailing bytes are an error. */
struct guest_config_in { char *hostname; uint8_t workspace; uint64_t realtime_ns; char **env; };
struct exec_wire_in {
    char **argv, **env; char *workdir, *user;
    uint8_t tty, stdin_open; uint16_t rows, cols; uint64_t timeout_ms, credit;
};
int guest_config_decode(const uint8_t *p, size_t len, struct guest_config_in *ret, struct err *e);
int exec_wire_decode(const uint8_t *p, size_t len, struct exec_wire_in *ret, struct err *e);
void guest_config_in_done(struct guest_config_in *c);
void exec_wire_in_done(struct exec_wire_in *x);
