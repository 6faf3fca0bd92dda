/* SPDX-License-Identifier: MIT */
#include "daemon/digest.h"

#include <nettle/sha2.h>
#include <stdint.h>
#include <stdio.h>

void digest_hex(const void *data, size_t len, char hex[DIGEST_HEX])
{
    struct sha256_ctx c;
    uint8_t raw[SHA256_DIGEST_SIZE];

    sha256_init(&c);
    sha256_update(&c, len, data);
    sha256_digest(&c, sizeof(raw), raw);
    for (size_t i = 0; i < sizeof(raw); i++)
        snprintf(hex + 2 * i, 3, "%02x", raw[i]);
}
