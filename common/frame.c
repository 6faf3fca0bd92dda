/* SPDX-License-Identifier: MIT */
#include "common/frame.h"
#include "common/auto.h"

#include <endian.h>
#include <string.h>

static const char *const names[] = {
#define FRAME_NAME(constant, value, name) [value] = name,
    FRAME_TYPES(FRAME_NAME)
#undef FRAME_NAME
};
_Static_assert(ARRAY_SIZE(names) == FRAME_TYPE_MAX, "a name for each type");

const char *frame_type_name(enum frame_type type)
{
    return (unsigned)type < FRAME_TYPE_MAX && names[type] ? names[type] : "unknown";
}

static void put32(uint8_t *p, uint32_t v)
{
    v = htole32(v);
    memcpy(p, &v, sizeof(v));
}

static uint32_t get32(const uint8_t *p)
{
    uint32_t v;

    memcpy(&v, p, sizeof(v));
    return le32toh(v);
}

static uint32_t get16(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8;
}

size_t frame_encode(uint8_t *out, uint32_t epoch, enum frame_type type, uint8_t fd, uint32_t stream,
                    const void *payload, uint32_t len)
{
    put32(out, FRAME_MAGIC);
    put32(out + 4, epoch);
    put32(out + 8, stream);
    out[12] = (uint8_t)len;
    out[13] = (uint8_t)(len >> 8);
    out[14] = (uint8_t)type;
    out[15] = fd;
    if (len)
        memmove(out + FRAME_HEADER, payload, len);
    put32(out + FRAME_HEADER + len, epoch ^ FRAME_TRAILER);
    return FRAME_OVERHEAD + len;
}

void frame_decoder_init(struct frame_decoder *d, uint32_t epoch)
{
    d->epoch = epoch;
    d->adopt = epoch == 0;
    d->hunting = true;
    d->skipped = d->resyncs = 0;
    d->have = d->done = 0;
}

/* Could what stands in the buffer be the beginning of a frame that is welcome now? Looks at as much
 * of the header as there is. */
static bool plausible(const struct frame_decoder *d)
{
    uint8_t magic[4];
    size_t n = d->have < 4 ? d->have : 4;

    put32(magic, FRAME_MAGIC);
    if (memcmp(d->buf, magic, n) != 0)
        return false;
    if (d->have < FRAME_HEADER)
        return true;
    uint32_t epoch = get32(d->buf + 4);
    bool hello = d->buf[14] == FRAME_HELLO;
    if (epoch == 0 || get16(d->buf + 12) > LIMIT_FRAME || d->buf[14] == 0 ||
        (d->hunting && !hello))
        return false;
    return epoch == d->epoch || (d->adopt && hello);
}

static size_t frame_size(const struct frame_decoder *d)
{
    return FRAME_OVERHEAD + get16(d->buf + 12);
}

/* Is there a whole frame at the front of the buffer? */
static bool whole(const struct frame_decoder *d)
{
    return d->have >= FRAME_HEADER && d->have >= frame_size(d);
}

static void drop(struct frame_decoder *d, size_t n)
{
    d->have -= n;
    memmove(d->buf, d->buf + n, d->have);
}

/* Throws away the first byte and all that follow until a frame could begin again. */
static void hunt(struct frame_decoder *d)
{
    if (!d->hunting) {
        d->hunting = true;
        d->resyncs++;
    }
    do {
        const uint8_t *p = d->have > 1 ? memchr(d->buf + 1, (uint8_t)FRAME_MAGIC, d->have - 1) : NULL;
        size_t n = p ? (size_t)(p - d->buf) : d->have;
        d->skipped += n;
        drop(d, n);
    } while (d->have > 0 && !plausible(d));
}

/* Takes the frame at the front, if its trailer is right; else goes hunting. */
static bool take(struct frame_decoder *d, struct frame *ret)
{
    uint32_t body = get16(d->buf + 12), epoch = get32(d->buf + 4);

    if (get32(d->buf + FRAME_HEADER + body) != (epoch ^ FRAME_TRAILER)) {
        hunt(d);
        return false;
    }
    d->epoch = epoch;
    d->hunting = false;
    d->done = frame_size(d);
    *ret = (struct frame){ .type = d->buf[14], .fd = d->buf[15], .stream = get32(d->buf + 8),
                           .payload = d->buf + FRAME_HEADER, .len = body };
    return true;
}

int frame_decode(struct frame_decoder *d, const uint8_t *data, size_t len, size_t *ret_used,
                 struct frame *ret_frame)
{
    size_t used = 0;

    drop(d, d->done);           /* the frame handed out by the call before */
    d->done = 0;
    for (;;) {
        if (d->have > 0 && !plausible(d)) {
            hunt(d);
        } else if (whole(d)) {
            if (take(d, ret_frame)) {
                *ret_used = used;
                return 1;
            }
        } else if (used < len) {
            /* Never more than this frame, so that what stands behind it stays with the caller. */
            size_t want = d->have < FRAME_HEADER ? FRAME_HEADER : frame_size(d);
            size_t n = want - d->have < len - used ? want - d->have : len - used;
            memcpy(d->buf + d->have, data + used, n);
            used += n;
            d->have += n;
        } else {
            *ret_used = used;
            return 0;
        }
    }
}
