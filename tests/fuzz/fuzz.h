/* SPDX-License-Identifier: MIT
 *
 * fuzz: what every target of this folder has. A target returns 0 and ends the program by REQUIRE()
 * where something that must always hold does not. It keeps no state from one input to the next.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define REQUIRE(x)                                                              \
    do {                                                                        \
        if (!(x)) {                                                             \
            fprintf(stderr, "%s:%d: must hold: %s\n", __FILE__, __LINE__, #x);  \
            abort();                                                            \
        }                                                                       \
    } while (0)
