/* SPDX-License-Identifier: MIT
 *
 * parse: one parser per kind of word. Each takes a whole NUL-terminated word, accepts nothing
 * around it, and leaves the output untouched on failure. No locale, no octal, no sign where none
 * can be meant.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

bool parse_u64(const char *s, uint64_t min, uint64_t max, uint64_t *ret);  /* decimal only */
bool parse_u32(const char *s, uint32_t min, uint32_t max, uint32_t *ret);
/* "512", "64K", "512m", "2G", "1.5G", "2GiB", "2GB" (powers of 1024, as docker reads them) */
bool parse_size(const char *s, uint64_t *ret_bytes);
/* "90" or "90s", "500ms", "15m", "2h", "1d", "1h30m" */
bool parse_duration(const char *s, uint64_t *ret_ms);
/* "500ms", "45s", "1h30m", "2d": the two largest units; buf of at least 32 bytes */
void format_duration(uint64_t ms, char *buf);
/* RFC 3339 "2026-01-02T03:04:05.678Z" or with offset; microseconds since the epoch */
bool parse_time(const char *s, int64_t *ret_us);
/* Same instant as RFC 3339 in UTC with microseconds; buf of at least 32 bytes. */
void format_time(int64_t us, char *buf);
/* "1.5GiB", "2 minutes ago"-style words for people; buf of at least 32 bytes. */
void format_size(uint64_t bytes, char *buf);
void format_ago(int64_t us_ago, char *buf);
