/* SPDX-License-Identifier: MIT
 *
 * base64: bytes as text for JSON (RFC 4648, with padding).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Decodes n characters into out, which has room for n / 4 * 3 bytes. Strict: whole groups, padding
 * only at the end, nothing in between, no bits set that belong to no byte. */
bool base64_decode(const char *s, size_t n, uint8_t *out, size_t *ret_len);
/* A new string; NULL when out of memory. */
char *base64_encode(const uint8_t *in, size_t n);
