/* SPDX-License-Identifier: MIT */
#include "common/base64.h"

#include <stdlib.h>
#include <string.h>

static const char digits[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static int value_of(char c)
{
    const char *at = c ? strchr(digits, c) : NULL;

    return at ? (int)(at - digits) : -1;
}

bool base64_decode(const char *s, size_t n, uint8_t *out, size_t *ret_len)
{
    size_t len = 0;

    if (n % 4 != 0)
        return false;
    for (size_t i = 0; i < n; i += 4) {
        int pad = i + 4 == n ? (s[i + 3] == '=') + (s[i + 3] == '=' && s[i + 2] == '=') : 0;
        uint32_t v = 0;

        for (int k = 0; k < 4; k++) {
            int digit = k >= 4 - pad ? 0 : value_of(s[i + (size_t)k]);

            if (digit < 0)
                return false;
            v = v << 6 | (uint32_t)digit;
        }
        if (v & ((1u << (8 * pad)) - 1))
            return false;
        out[len++] = (uint8_t)(v >> 16);
        if (pad < 2)
            out[len++] = (uint8_t)(v >> 8);
        if (pad < 1)
            out[len++] = (uint8_t)v;
    }
    *ret_len = len;
    return true;
}

char *base64_encode(const uint8_t *in, size_t n)
{
    char *out = n > SIZE_MAX / 2 ? NULL : malloc((n + 2) / 3 * 4 + 1), *o = out;

    if (!out)
        return NULL;
    for (size_t i = 0; i < n; i += 3) {
        size_t have = n - i < 3 ? n - i : 3;
        uint32_t v = (uint32_t)in[i] << 16 | (have > 1 ? (uint32_t)in[i + 1] << 8 : 0) |
                     (have > 2 ? in[i + 2] : 0);

        *o++ = digits[v >> 18];
        *o++ = digits[v >> 12 & 63];
        *o++ = have > 1 ? digits[v >> 6 & 63] : '=';
        *o++ = have > 2 ? digits[v & 63] : '=';
    }
    *o = '\0';
    return out;
}
