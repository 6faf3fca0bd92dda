/* SPDX-License-Identifier: MIT
 *
 * Byte 0 chooses how the rest is cut. The rest goes to the decoder of either end: as it is, after a
 * stream of valid frames, and before one. Held to: frames lie in the decoder's buffer, and how the
 * bytes are cut makes no difference; valid frames that junk comes before are all found.
 */
#include "tests/fuzz/fuzz.h"
#include "common/auto.h"
#include "common/frame.h"

#include <string.h>

#define EPOCH 0x31584253u       /* looks like the magic, which makes it harder */
#define FRAMES 4

static struct frame_decoder dec;

struct sum {
    uint64_t hash, frames, skipped, resyncs;
};

static void add(struct sum *s, const void *data, size_t n)
{
    const uint8_t *p = data;

    for (size_t i = 0; i < n; i++)
        s->hash = (s->hash ^ p[i]) * 1099511628211u;
}

static void feed(struct sum *s, const uint8_t *data, size_t size, uint32_t cut)
{
    while (size > 0) {
        size_t n = cut > 0 ? (cut = cut * 1664525 + 1013904223, 1 + (cut >> 16) % 40) : size;
        size_t used = SIZE_MAX;
        struct frame f = { 0 };
        /* a block of its own, so that a read past the piece is seen */
        autofree uint8_t *piece = malloc(n = n < size ? n : size);

        if (!piece)
            abort();
        memcpy(piece, data, n);
        int r = frame_decode(&dec, piece, n, &used, &f);
        REQUIRE(r == 0 || r == 1);
        REQUIRE(used <= n && (used > 0 || r == 1));
        REQUIRE(r == 1 || used == n);
        REQUIRE(dec.have <= sizeof(dec.buf) && dec.done <= dec.have);
        if (r == 1) {
            REQUIRE(f.len <= LIMIT_FRAME && f.payload >= dec.buf);
            REQUIRE(f.payload + f.len + 4 <= dec.buf + dec.have);
            REQUIRE(!dec.hunting && dec.epoch != 0);
            add(s, &f.type, 1);
            add(s, &f.fd, 1);
            add(s, &f.stream, 4);
            add(s, &f.len, 4);
            add(s, f.payload, f.len);
            s->frames++;
        }
        data += used;
        size -= used;
    }
    s->skipped = dec.skipped;
    s->resyncs = dec.resyncs;
}

static void same_however_cut(uint32_t epoch, const uint8_t *data, size_t size, uint32_t cut)
{
    struct sum whole = { 0 }, cut_up = { 0 };

    frame_decoder_init(&dec, epoch);
    feed(&whole, data, size, 0);
    frame_decoder_init(&dec, epoch);
    feed(&cut_up, data, size, cut);
    REQUIRE(memcmp(&whole, &cut_up, sizeof(whole)) == 0);
    if (epoch)
        REQUIRE(dec.epoch == epoch && !frame_decoder_partial(&dec));
}

/* HELLO and frames with pieces of the input as payload. */
static size_t valid(uint8_t *out, uint32_t epoch, const uint8_t *data, size_t size)
{
    static const uint8_t version[4] = { FRAME_VERSION };
    size_t n = frame_encode(out, epoch, FRAME_HELLO, 0, 0, version, sizeof(version));

    for (uint32_t i = 1; i < FRAMES; i++) {
        size_t from = size * (i - 1) / (FRAMES - 1), len = size * i / (FRAMES - 1) - from;

        if (len > LIMIT_FRAME)
            len = LIMIT_FRAME;
        n += frame_encode(out + n, epoch, FRAME_DATA, 1, i, data + from, (uint32_t)len);
    }
    return n;
}

static void quiet(const uint8_t *data, size_t size)
{
    struct sum s = { 0 };
    struct frame f = { 0 };

    frame_decoder_init(&dec, 0);
    feed(&s, data, size, 0);
    for (int i = 0; i < 3; i++)
        if (frame_decoder_quiet(&dec, &f) == 1) {
            REQUIRE(f.type == FRAME_HELLO && f.len == 4 && f.stream == 0);
            REQUIRE(f.payload >= dec.buf && f.payload + f.len <= dec.buf + dec.have);
        }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t buf[FRAMES * (FRAME_OVERHEAD + LIMIT_FRAME)];
    uint32_t cut = size > 0 ? data[0] * 77u + 1 : 1;
    struct sum s;

    if (size < 1)
        return 0;
    data++;
    size--;
    same_however_cut(EPOCH, data, size, cut);
    same_however_cut(0, data, size, cut);
    quiet(data, size);

    /* what is valid comes through whatever is in it */
    size_t n = valid(buf, EPOCH, data, size);
    for (int known = 0; known < 2; known++) {
        s = (struct sum){ 0 };
        frame_decoder_init(&dec, known ? EPOCH : 0);
        feed(&s, buf, n, cut);
        REQUIRE(s.frames == FRAMES && s.skipped == 0 && s.resyncs == 0);
        same_however_cut(known ? EPOCH : 0, buf, n, cut);
    }

    /* and after junk without a magic all of it is found */
    autofree uint8_t *junk = malloc(size + 1);
    if (!junk)
        abort();
    for (size_t i = 0; i < size; i++)
        junk[i] = data[i] == 'S' ? 's' : data[i];
    for (int known = 0; known < 2; known++) {
        s = (struct sum){ 0 };
        frame_decoder_init(&dec, known ? EPOCH : 0);
        feed(&s, junk, size, cut);
        REQUIRE(s.frames == 0 && s.skipped == size);
        feed(&s, buf, n, cut);
        REQUIRE(s.frames == FRAMES && s.skipped == size);
    }
    return 0;
}
