/* SPDX-License-Identifier: MIT
 *
 * The first byte chooses what the rest is taken for: 'c' a configuration of a guest, 'x' a command,
 * 'n' a network, 's' records of an sbx-stream, anything else: numbers and strings of a payload.
 * What decodes must encode to the same bytes again.
 */
#include "tests/fuzz/fuzz.h"
#include "common/auto.h"
#include "common/frame.h"
#include "common/stream.h"

#include <string.h>

static void refused(const struct err *e)
{
    REQUIRE(e->code == ERR_INVALID && e->msg[0] != '\0');
}

static size_t count(char *const *v)
{
    size_t n = 0;

    while (v[n])
        n++;
    return n;
}

static void config(const uint8_t *data, size_t size)
{
    struct guest_config_in in = { 0 };
    struct err e = ERR_INIT, no = ERR_INIT;
    autofree uint8_t *again = malloc(size + 1);
    size_t len = 0;

    if (guest_config_decode(data, size, &in, &e) < 0) {
        refused(&e);
        REQUIRE(!in.hostname && !in.env);
        return;
    }
    REQUIRE(strlen(in.hostname) <= LIMIT_NAME && in.workspace <= 2 && count(in.env) <= LIMIT_ENV);
    struct guest_config c = { in.hostname, in.workspace, in.realtime_ns,
                              (const char *const *)in.env };
    REQUIRE(guest_config_encode(&c, again, size, &len, &no) == 0);
    REQUIRE(len == size && memcmp(again, data, size) == 0);
    REQUIRE(guest_config_encode(&c, again, size - 1, &len, &no) < 0 && no.code == ERR_TOO_LARGE);
    guest_config_in_done(&in);
}

static void command(const uint8_t *data, size_t size)
{
    struct exec_wire_in in = { 0 };
    struct err e = ERR_INIT, no = ERR_INIT;
    autofree uint8_t *again = malloc(size + 1);
    size_t len = 0;

    if (exec_wire_decode(data, size, &in, &e) < 0) {
        refused(&e);
        REQUIRE(!in.argv && !in.env && !in.workdir && !in.user);
        return;
    }
    REQUIRE(count(in.argv) >= 1 && count(in.argv) <= LIMIT_ARGV && in.argv[0][0] != '\0');
    REQUIRE(strlen(in.workdir) <= LIMIT_PATH && strlen(in.user) <= LIMIT_USER);
    REQUIRE(in.tty <= 1 && in.stdin_open <= 1 && in.timeout_ms <= LIMIT_EXEC_TIMEOUT);
    struct exec_wire x = { (const char *const *)in.argv, (const char *const *)in.env, in.workdir,
                           in.user, in.tty, in.stdin_open, in.rows, in.cols, in.timeout_ms,
                           in.credit };
    if (size <= LIMIT_EXEC_BYTES) {
        REQUIRE(exec_wire_encode(&x, again, size, &len, &no) == 0);
        REQUIRE(len == size && memcmp(again, data, size) == 0);
    }
    REQUIRE(exec_wire_encode(&x, again, size - 1, &len, &no) < 0 && no.code == ERR_TOO_LARGE);
    exec_wire_in_done(&in);
}

static void network(const uint8_t *data, size_t size)
{
    struct guest_net n = { 0 };
    struct err e = ERR_INIT;
    uint8_t again[GUEST_NET_BYTES];

    if (guest_net_decode(data, size, &n, &e) < 0) {
        refused(&e);
        return;
    }
    REQUIRE(n.mtu >= 576 && n.address != n.gateway && !(n.mac[0] & 1));
    REQUIRE(guest_net_encode(&n, again, sizeof(again)) == sizeof(again));
    REQUIRE(size >= sizeof(again) && memcmp(again, data, sizeof(again)) == 0);
}

static void records(const uint8_t *data, size_t size)
{
    while (size >= STREAM_HEADER) {
        enum stream_type type = STREAM_TYPE_MAX;
        uint8_t again[STREAM_HEADER];
        struct err e = ERR_INIT;
        uint32_t len = UINT32_MAX;

        if (stream_parse(data, &type, &len, &e) < 0) {
            refused(&e);
            REQUIRE(type == STREAM_TYPE_MAX && len == UINT32_MAX);
            return;
        }
        REQUIRE((unsigned)type < STREAM_TYPE_MAX && len <= LIMIT_STREAM_FRAME);
        stream_header(again, type, len);
        REQUIRE(memcmp(again, data, STREAM_HEADER) == 0);
        if (len > size - STREAM_HEADER)
            return;
        data += STREAM_HEADER + len;
        size -= STREAM_HEADER + len;
    }
}

/* As EXIT, SESSION and FAILED are read, and whatever else: byte by byte the next field. */
static void payload(const uint8_t *data, size_t size)
{
    struct wire_in w = { .p = data, .left = size };
    uint8_t order = size > 0 ? data[0] : 0;

    for (unsigned i = 0; i < 64 && !w.bad; i++, order = (uint8_t)(order * 5 + 3)) {
        size_t before = w.left, want = 0;
        uint32_t len = 0;
        const char *s;

        switch (order >> 5 & 7) {
        case 0: case 1: wire_get_u8(&w); want = 1; break;
        case 2: wire_get_u16(&w); want = 2; break;
        case 3: wire_get_u32(&w); want = 4; break;
        case 4: wire_get_u64(&w); want = 8; break;
        default:
            s = wire_get_str(&w, 120, &len);
            want = 4 + (size_t)len;
            REQUIRE(!s == w.bad && len <= 120);
            REQUIRE(!s || ((const uint8_t *)s >= data &&
                           (const uint8_t *)s + len <= data + size && !memchr(s, '\0', len)));
        }
        REQUIRE(w.bad || before - w.left == want);
        REQUIRE(w.p + w.left == data + size);
    }
    if (w.bad)
        REQUIRE(wire_get_u64(&w) == 0 && wire_get_u8(&w) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1)
        return 0;
    switch (data[0]) {
    case 'c':
        config(data + 1, size - 1);
        break;
    case 'x':
        command(data + 1, size - 1);
        break;
    case 'n':
        network(data + 1, size - 1);
        break;
    case 's':
        records(data + 1, size - 1);
        break;
    default:
        payload(data + 1, size - 1);
    }
    return 0;
}
