/* SPDX-License-Identifier: MIT
 *
 * digest: SHA-256 of bytes that are in memory, as 64 hex digits. Any thread; cannot fail.
 */
#pragma once

#include <stddef.h>

#define DIGEST_HEX 65       /* with the NUL */

void digest_hex(const void *data, size_t len, char hex[DIGEST_HEX]);
