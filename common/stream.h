/* SPDX-License-Identifier: MIT
 *
 * stream: the records of an upgraded `sbx-stream` connection between client and daemon; one exec
 * per connection. Documented for other languages in api/openapi.yaml and docs/API.md.
 *
 *     byte 0     type
 *     byte 1-3   zero
 *     byte 4-7   payload length, big-endian, at most LIMIT_STREAM_FRAME
 *     then the payload
 */
#pragma once

#include "common/err.h"
#include "common/limits.h"
#include <stddef.h>
#include <stdint.h>

#define STREAM_PROTOCOL "sbx-stream"
#define STREAM_HEADER 8

/*   constant          value  name      from    payload */
#define STREAM_TYPES(X)                                                                       \
    X(STREAM_STDIN,       0, "stdin")     /* client  bytes; an empty record is end of input */ \
    X(STREAM_STDOUT,      1, "stdout")    /* daemon  bytes */                                  \
    X(STREAM_STDERR,      2, "stderr")    /* daemon  bytes */                                  \
    X(STREAM_RESIZE,      3, "resize")    /* client  u16 rows, u16 columns, big-endian */      \
    X(STREAM_SIGNAL,      4, "signal")    /* client  u8 signal number */                       \
    X(STREAM_DETACH,      5, "detach")    /* client  empty: leave, the exec goes on */         \
    X(STREAM_EXIT,        6, "exit")      /* daemon  JSON: state, exit_code, signal, …; last */ \
    X(STREAM_ERROR,       7, "error")     /* daemon  JSON error object; last */                \
    X(STREAM_GAP,         8, "gap")       /* daemon  u8 stream, u64 bytes lost before what comes */

enum stream_type {
#define STREAM_ENUM(constant, value, name) constant = value,
    STREAM_TYPES(STREAM_ENUM)
#undef STREAM_ENUM
    STREAM_TYPE_MAX
};

void stream_header(uint8_t header[STREAM_HEADER], enum stream_type type, uint32_t len);
/* Checks type, zero bytes and length. */
int stream_parse(const uint8_t header[STREAM_HEADER], enum stream_type *ret_type, uint32_t *ret_len,
                 struct err *e);
const char *stream_type_name(enum stream_type type);
