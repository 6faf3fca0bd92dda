/* SPDX-License-Identifier: MIT */
#include "common/stream.h"

#include <assert.h>

static const char *const type_names[] = {
#define STREAM_NAME(constant, value, name) [constant] = name,
    STREAM_TYPES(STREAM_NAME)
#undef STREAM_NAME
};
static_assert(sizeof(type_names) / sizeof(type_names[0]) == STREAM_TYPE_MAX,
              "a name for each record type");

void stream_header(uint8_t header[STREAM_HEADER], enum stream_type type, uint32_t len)
{
    header[0] = (uint8_t)type;
    header[1] = header[2] = header[3] = 0;
    header[4] = (uint8_t)(len >> 24);
    header[5] = (uint8_t)(len >> 16);
    header[6] = (uint8_t)(len >> 8);
    header[7] = (uint8_t)len;
}

int stream_parse(const uint8_t header[STREAM_HEADER], enum stream_type *ret_type, uint32_t *ret_len,
                 struct err *e)
{
    uint32_t len = (uint32_t)header[4] << 24 | (uint32_t)header[5] << 16 |
                   (uint32_t)header[6] << 8 | header[7];

    if (header[0] >= STREAM_TYPE_MAX)
        return err_set(e, ERR_INVALID, "record of unknown type %u", header[0]);
    if (header[1] != 0 || header[2] != 0 || header[3] != 0)
        return err_set(e, ERR_INVALID, "record header with bytes that must be zero");
    if (len > LIMIT_STREAM_FRAME)
        return err_set(e, ERR_INVALID, "record of %u bytes, at most %llu are allowed", len,
                       (unsigned long long)LIMIT_STREAM_FRAME);
    *ret_type = (enum stream_type)header[0];
    *ret_len = len;
    return 0;
}

const char *stream_type_name(enum stream_type type)
{
    return (unsigned)type < STREAM_TYPE_MAX ? type_names[type] : "unknown";
}
