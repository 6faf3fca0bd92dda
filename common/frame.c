/* SPDX-License-Identifier: MIT
 *
 * The decoder collects one frame in its buffer and looks at it twice: when the header is there and
 * when the trailer is. While it hunts, the buffer holds nothing but what may still become a HELLO,
 * which is short, so that going back to look again at later bytes is cheap whatever they are.
 *
 * A frame whose trailer is wrong is thrown away whole and not searched: what it swallowed is at
 * most a HELLO, and that is repeated until it is answered.
 */
#include "common/frame.h"

#include <string.h>

#define HELLO_FRAME (FRAME_OVERHEAD + 4)    /* the daemon's: a version */

static const char *const type_names[FRAME_TYPE_MAX] = {
#define FRAME_NAME(constant, value, name) [value] = name,
    FRAME_TYPES(FRAME_NAME)
#undef FRAME_NAME
};

const char *frame_type_name(enum frame_type type)
{
    const char *name = (unsigned)type < FRAME_TYPE_MAX ? type_names[type] : NULL;

    return name ? name : "unknown";
}

static void put16(uint8_t *p, uint16_t v)
{
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
}

static void put32(uint8_t *p, uint32_t v)
{
    put16(p, (uint16_t)v);
    put16(p + 2, (uint16_t)(v >> 16));
}

static uint32_t get16(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8;
}

static uint32_t get32(const uint8_t *p)
{
    return get16(p) | get16(p + 2) << 16;
}

size_t frame_encode(uint8_t *out, uint32_t epoch, enum frame_type type, uint8_t fd, uint32_t stream,
                    const void *payload, uint32_t len)
{
    put32(out, FRAME_MAGIC);
    put32(out + 4, epoch);
    put32(out + 8, stream);
    put16(out + 12, (uint16_t)len);
    out[14] = (uint8_t)type;
    out[15] = fd;
    if (len > 0 && payload != out + FRAME_HEADER)
        memmove(out + FRAME_HEADER, payload, len);
    put32(out + FRAME_HEADER + len, epoch ^ FRAME_TRAILER);
    return FRAME_OVERHEAD + len;
}

void frame_decoder_init(struct frame_decoder *d, uint32_t epoch)
{
    /* not the buffer: it is large and never read beyond `have` */
    d->epoch = epoch;
    d->adopt = epoch == 0;
    d->hunting = true;
    d->done = 0;
    d->quiet_epoch = 0;
    d->quiet_have = 0;
    d->skipped = 0;
    d->resyncs = 0;
    d->have = 0;
}

static size_t frame_size(const uint8_t *header)
{
    return FRAME_OVERHEAD + get16(header + 12);
}

/* May these bytes, at least one, be the beginning of the HELLO it hunts for? */
static bool may_be_hello(const struct frame_decoder *d, const uint8_t *p, size_t n)
{
    uint8_t magic[4];

    put32(magic, FRAME_MAGIC);
    if (memcmp(p, magic, n < 4 ? n : 4) != 0)
        return false;
    if (n >= 8 && (get32(p + 4) == 0 || (!d->adopt && get32(p + 4) != d->epoch)))
        return false;
    if (n >= 12 && get32(p + 8) != 0)
        return false;
    if (n >= 14 && get16(p + 12) > FRAME_HELLO_MAX)
        return false;
    return (n < 15 || p[14] == FRAME_HELLO) && (n < 16 || p[15] == 0);
}

/* Is the header in the buffer, read where a frame has to begin, one of ours? */
static bool header_ok(const struct frame_decoder *d)
{
    const uint8_t *p = d->buf;

    if (get32(p) != FRAME_MAGIC || get16(p + 12) > LIMIT_FRAME)
        return false;
    return get32(p + 4) == d->epoch || (d->adopt && may_be_hello(d, p, FRAME_HEADER));
}

static bool trailer_ok(const uint8_t *p)
{
    return get32(p + frame_size(p) - 4) == (get32(p + 4) ^ FRAME_TRAILER);
}

/* Drops bytes in front until the rest may be a HELLO; `least` at any rate. */
static void hunt_on(struct frame_decoder *d, size_t least)
{
    size_t at = least;

    while (at < d->have && !may_be_hello(d, d->buf + at, d->have - at))
        at++;
    d->skipped += at;
    d->have -= at;
    memmove(d->buf, d->buf + at, d->have);
}

static void give(struct frame_decoder *d, struct frame *ret)
{
    const uint8_t *p = d->buf;

    d->done = frame_size(p);
    d->hunting = false;
    d->epoch = get32(p + 4);
    d->quiet_epoch = 0;
    *ret = (struct frame){
        .type = (enum frame_type)p[14],
        .fd = p[15],
        .stream = get32(p + 8),
        .payload = p + FRAME_HEADER,
        .len = get16(p + 12),
    };
}

/* Looks at what is in the buffer: 1 a frame, 0 it needs *ret_need bytes there. */
static int look(struct frame_decoder *d, size_t *ret_need, struct frame *ret)
{
    for (;;) {
        if (d->hunting)
            hunt_on(d, 0);
        if (d->have < FRAME_HEADER) {
            *ret_need = FRAME_HEADER;
            return 0;
        }
        if (!d->hunting && !header_ok(d)) {
            d->hunting = true;
            d->resyncs++;
            continue;
        }
        if (d->have < frame_size(d->buf)) {
            *ret_need = frame_size(d->buf);
            return 0;
        }
        if (trailer_ok(d->buf)) {
            give(d, ret);
            return 1;
        }
        if (d->hunting) {
            hunt_on(d, 1);
        } else {
            d->hunting = true;
            d->resyncs++;
            hunt_on(d, d->have);
        }
    }
}

int frame_decode(struct frame_decoder *d, const uint8_t *data, size_t len, size_t *ret_used,
                 struct frame *ret_frame)
{
    size_t used = 0, need = 0;

    if (d->done > 0) {     /* the frame of the last call is not borrowed any more */
        d->have -= d->done;
        memmove(d->buf, d->buf + d->done, d->have);
        d->done = 0;
    }
    for (;;) {
        size_t n;

        if (look(d, &need, ret_frame) == 1) {
            *ret_used = used;
            return 1;
        }
        if (used == len)
            break;
        if (d->hunting && d->have == 0) {   /* long stretches of nothing, quickly */
            const uint8_t *p = memchr(data + used, FRAME_MAGIC & 0xff, len - used);

            n = p ? (size_t)(p - data) - used : len - used;
            d->skipped += n;
            used += n;
        }
        n = need - d->have < len - used ? need - d->have : len - used;
        if (n > 0)
            memcpy(d->buf + d->have, data + used, n);
        d->have += n;
        used += n;
    }
    *ret_used = used;
    return 0;
}

bool frame_decoder_partial(const struct frame_decoder *d)
{
    return d->adopt && !d->hunting && d->have > d->done;
}

int frame_decoder_quiet(struct frame_decoder *d, struct frame *ret_frame)
{
    const uint8_t *p;
    uint32_t epoch;

    if (!frame_decoder_partial(d) || d->done > 0 || d->have < FRAME_HEADER + HELLO_FRAME)
        return 0;
    p = d->buf + d->have - HELLO_FRAME;
    epoch = get32(p + 4);
    if (!may_be_hello(d, p, FRAME_HEADER) || frame_size(p) != HELLO_FRAME || !trailer_ok(p) ||
        epoch == d->epoch)
        return 0;
    if (d->quiet_epoch != epoch || d->quiet_have + HELLO_FRAME != d->have) {
        d->quiet_epoch = epoch;
        d->quiet_have = d->have;
        return 0;
    }
    d->skipped += d->have - HELLO_FRAME;
    d->resyncs++;
    memmove(d->buf, p, HELLO_FRAME);
    d->have = HELLO_FRAME;
    give(d, ret_frame);
    return 1;
}
