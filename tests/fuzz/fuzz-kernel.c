/* SPDX-License-Identifier: MIT
 *
 * The input is a kernel file. What is taken out of it must be an ELF image that has an entry for
 * PVH; what is refused or left as it is must say why. The input is read as an ELF image as well.
 */
#include "common/auto.h"
#include "daemon/image_priv.h"
#include "tests/fuzz/fuzz.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    autofree uint8_t *elf = NULL;
    struct err e = ERR_INIT;
    const char *why = NULL;
    size_t len = 0;

    image_kernel_has_pvh(data, size);
    switch (image_kernel_unpack(data, size, &elf, &len, &why, &e)) {
    case 1:
        REQUIRE(elf && len >= 64 && memcmp(elf, "\177ELF", 4) == 0);
        REQUIRE(image_kernel_has_pvh(elf, len));
        break;
    case 0:
        REQUIRE(!elf && why && e.code == ERR_NONE);
        break;
    default:
        REQUIRE(!elf && e.msg[0] && (e.code == ERR_INVALID || e.code == ERR_NO_MEMORY));
    }
    return 0;
}
