/* SPDX-License-Identifier: MIT
 *
 * The kernel of an image: the seeds of the fuzz target, by name, and the order of modules.
 */
#include "common/auto.h"
#include "common/io.h"
#include "daemon/image_priv.h"
#include "tests/harness/test.h"

#include <fcntl.h>
#include <stdio.h>

static int unpack(const char *seed, const char **why, struct err *e)
{
    char path[64];
    autofree char *data = NULL;
    autofree uint8_t *elf = NULL;
    size_t len = 0, elf_len = 0;

    *e = ERR_INIT;
    *why = NULL;
    snprintf(path, sizeof(path), "fuzz/corpus/kernel/%s", seed);
    ASSERT_OK(io_read_file_at(AT_FDCWD, test_source(path), 1 << 20, &data, &len, e), *e);
    int r = image_kernel_unpack((const uint8_t *)data, len, &elf, &elf_len, why, e);
    ASSERT_EQ(elf != NULL, r == 1);
    if (r == 1)
        ASSERT_MEMEQ(elf, 4, "\177ELF", 4);
    return r;
}

TEST(kernels_with_an_entry_are_taken_out)
{
    struct err e;
    const char *why;

    ASSERT_EQ(unpack("lz4", &why, &e), 1);
    ASSERT_EQ(unpack("zstd", &why, &e), 1);
}

TEST(kernels_packed_otherwise_stay_as_they_are)
{
    struct err e;
    const char *why;

    ASSERT_EQ(unpack("gzip", &why, &e), 0);
    ASSERT_CONTAINS(why, "packed");
    ASSERT_EQ(unpack("xz", &why, &e), 0);
}

TEST(kernels_without_an_entry_stay_as_they_are)
{
    struct err e;
    const char *why;

    ASSERT_EQ(unpack("lz4-no-note", &why, &e), 0);
    ASSERT_CONTAINS(why, "PVH");
    ASSERT_EQ(unpack("zstd-not-elf", &why, &e), 0);
    ASSERT_EQ(unpack("zstd-bad-note", &why, &e), 0);
}

TEST(damaged_kernels_are_refused)
{
    static const char *const seeds[] = { "lz4-cut",         "zstd-cut",     "zstd-wrong-size",
                                         "payload-outside", "not-a-kernel", "huge" };
    struct err e;
    const char *why;

    for (size_t i = 0; i < ARRAY_SIZE(seeds); i++) {
        if (unpack(seeds[i], &why, &e) != -1 || e.code != ERR_INVALID)
            FAIL("%s: %s", seeds[i], e.msg);
    }
}

static const char dep[] = "kernel/drivers/block/virtio_blk.ko.xz: kernel/drivers/virtio/virtio.ko\n"
                          "kernel/drivers/virtio/virtio.ko:\n"
                          "kernel/drivers/char/virtio-rng.ko: kernel/drivers/virtio/virtio.ko\n"
                          "kernel/a.ko: kernel/b.ko\nkernel/b.ko: kernel/a.ko\n";
static const char builtin[] = "kernel/fs/ext4/ext4.ko\nkernel/drivers/virtio/virtio_pci.ko\n";

TEST(modules_come_after_what_they_need)
{
    struct strv wanted = STRV_INIT, out = STRV_INIT;
    struct err e = ERR_INIT;

    ASSERT_OK(strv_add(&wanted, "virtio_blk", &e), e);
    ASSERT_OK(strv_add(&wanted, "ext4", &e), e);
    ASSERT_OK(strv_add(&wanted, "virtio_rng", &e), e);
    ASSERT_OK(image_modules_order(dep, builtin, &wanted, &out, &e), e);
    ASSERT_EQ(out.n, 3);
    ASSERT_STREQ(out.items[0], "kernel/drivers/virtio/virtio.ko");
    ASSERT_STREQ(out.items[1], "kernel/drivers/block/virtio_blk.ko.xz");
    ASSERT_STREQ(out.items[2], "kernel/drivers/char/virtio-rng.ko");
    strv_done(&wanted);
    strv_done(&out);
}

TEST(a_module_that_is_nowhere_is_an_error)
{
    struct strv wanted = STRV_INIT, out = STRV_INIT;
    struct err e = ERR_INIT;

    ASSERT_OK(strv_add(&wanted, "virtiofs", &e), e);
    ASSERT_ERR(image_modules_order(dep, builtin, &wanted, &out, &e), e, ERR_INVALID);
    ASSERT_CONTAINS(e.msg, "virtiofs");
    strv_done(&wanted);
    strv_done(&out);
}

TEST(modules_in_a_circle_are_refused)
{
    struct strv wanted = STRV_INIT, out = STRV_INIT;
    struct err e = ERR_INIT;

    ASSERT_OK(strv_add(&wanted, "a", &e), e);
    ASSERT_ERR(image_modules_order(dep, builtin, &wanted, &out, &e), e, ERR_INVALID);
    strv_done(&wanted);
    strv_done(&out);
}
