/* SPDX-License-Identifier: MIT
 *
 * image_kernel: the boot protocol's header says where the packed kernel lies (Documentation/arch/
 * x86/boot.rst: setup_sects at 0x1f1, "HdrS" at 0x202, payload_offset and payload_length at 0x248
 * and 0x24c, counted from the end of the setup sectors). The payload's last four bytes are the
 * unpacked size. Every number is checked against the file before it is used.
 *
 * QEMU enters an ELF kernel by PVH, for which the kernel has a note that says where. A kernel that
 * cannot be taken out, or has no such note, boots as the bzImage it is, only slower.
 */
#include "common/auto.h"
#include "common/limits.h"
#include "daemon/image_priv.h"

#include <elf.h>
#include <lz4.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#define KERNEL_MAX (256 * MIB)
#define LZ4_LEGACY_MAGIC 0x184c2102u
#define LZ4_LEGACY_BLOCK (8 * MIB)      /* unpacked size of each block but the last */
#define ZSTD_MAGIC 0xfd2fb528u
#define XEN_ELFNOTE_PHYS32_ENTRY 18
#define NOTES_MAX (1 * MIB)

static uint32_t le32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static int find_payload(const uint8_t *bz, size_t len, const uint8_t **ret, size_t *ret_len,
                        struct err *e)
{
    if (len < 0x260 || memcmp(bz + 0x202, "HdrS", 4) != 0)
        return err_set(e, ERR_INVALID, "not a Linux kernel");
    size_t setup = ((bz[0x1f1] ? bz[0x1f1] : 4) + 1) * 512u;
    size_t offset = le32(bz + 0x248), n = le32(bz + 0x24c);
    if (((unsigned)bz[0x207] << 8 | bz[0x206]) < 0x0208)
        return err_set(e, ERR_INVALID, "a kernel of a boot protocol before 2.08");
    if (n < 8 || offset > len || setup > len - offset || n > len - offset - setup)
        return err_set(e, ERR_INVALID, "the kernel's payload lies outside of its file");
    *ret = bz + setup + offset;
    *ret_len = n;
    return 0;
}

static int unpack_lz4(const uint8_t *p, size_t n, uint8_t *out, size_t size, struct err *e)
{
    size_t done = 0;

    p += 4;
    n -= 4;
    while (done < size) {
        if (n < 4)
            return err_set(e, ERR_INVALID, "the packed kernel ends early");
        size_t block = le32(p);
        p += 4;
        n -= 4;
        if (block == LZ4_LEGACY_MAGIC)      /* another frame */
            continue;
        if (block == 0 || block > n)
            return err_set(e, ERR_INVALID, "a block of the packed kernel is too long");
        size_t room = size - done < LZ4_LEGACY_BLOCK ? size - done : LZ4_LEGACY_BLOCK;
        int got = LZ4_decompress_safe((const char *)p, (char *)out + done, (int)block, (int)room);
        if (got <= 0)
            return err_set(e, ERR_INVALID, "the packed kernel is damaged");
        done += (size_t)got;
        p += block;
        n -= block;
    }
    return 0;
}

static int unpack_zstd(const uint8_t *p, size_t n, uint8_t *out, size_t size, struct err *e)
{
    size_t frame = ZSTD_findFrameCompressedSize(p, n);
    size_t got = ZSTD_isError(frame) ? frame : ZSTD_decompress(out, size, p, frame);

    if (ZSTD_isError(got) || got != size)
        return err_set(e, ERR_INVALID, "the packed kernel is damaged: %s",
                       ZSTD_isError(got) ? ZSTD_getErrorName(got) : "wrong size");
    return 0;
}

/* One note segment: names and contents are padded to 4 bytes. */
static bool has_entry_note(const uint8_t *p, size_t n)
{
    Elf64_Nhdr h;

    while (n >= sizeof(h)) {
        memcpy(&h, p, sizeof(h));
        uint64_t name = ((uint64_t)h.n_namesz + 3) & ~3ull;
        uint64_t desc = ((uint64_t)h.n_descsz + 3) & ~3ull;
        if (name + desc > n - sizeof(h))
            return false;
        if (h.n_type == XEN_ELFNOTE_PHYS32_ENTRY && h.n_namesz == 4 && h.n_descsz >= 4 &&
            memcmp(p + sizeof(h), "Xen", 4) == 0)
            return true;
        p += sizeof(h) + name + desc;
        n -= sizeof(h) + (size_t)(name + desc);
    }
    return false;
}

bool image_kernel_has_pvh(const uint8_t *elf, size_t len)
{
    Elf64_Ehdr eh;
    Elf64_Phdr ph;

    if (len < sizeof(eh) || memcmp(elf, ELFMAG, SELFMAG) != 0 || elf[EI_CLASS] != ELFCLASS64 ||
        elf[EI_DATA] != ELFDATA2LSB)
        return false;
    memcpy(&eh, elf, sizeof(eh));
    if (eh.e_machine != EM_X86_64 || eh.e_phentsize != sizeof(ph))
        return false;
    for (size_t i = 0; i < eh.e_phnum; i++) {
        if (eh.e_phoff > len || len - eh.e_phoff < (i + 1) * sizeof(ph))
            return false;
        memcpy(&ph, elf + eh.e_phoff + i * sizeof(ph), sizeof(ph));
        if (ph.p_type != PT_NOTE || ph.p_offset > len || ph.p_filesz > len - ph.p_offset ||
            ph.p_filesz > NOTES_MAX)
            continue;
        if (has_entry_note(elf + ph.p_offset, ph.p_filesz))
            return true;
    }
    return false;
}

int image_kernel_unpack(const uint8_t *bz, size_t len, uint8_t **ret, size_t *ret_len,
                        const char **ret_why, struct err *e)
{
    const uint8_t *p = NULL;
    size_t n = 0;
    int r;

    if (find_payload(bz, len, &p, &n, e) < 0)
        return -1;
    size_t size = le32(p + n - 4);
    uint32_t magic = le32(p);
    if (magic != LZ4_LEGACY_MAGIC && magic != ZSTD_MAGIC) {
        *ret_why = "it is packed in a way that is not known here";
        return 0;
    }
    if (size < 64 || size > KERNEL_MAX)
        return err_set(e, ERR_INVALID, "the kernel claims to be %zu bytes", size);
    autofree uint8_t *out = malloc(size);
    if (!out)
        return err_nomem(e);
    r = magic == LZ4_LEGACY_MAGIC ? unpack_lz4(p, n - 4, out, size, e)
                                  : unpack_zstd(p, n - 4, out, size, e);
    if (r < 0)
        return -1;
    if (!image_kernel_has_pvh(out, size)) {
        *ret_why = "it has no entry for PVH";
        return 0;
    }
    *ret = take_ptr(out);
    *ret_len = size;
    return 1;
}
