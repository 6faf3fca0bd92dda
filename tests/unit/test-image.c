/* SPDX-License-Identifier: MIT
 *
 * Digests of an image's files.
 */
#include "common/auto.h"
#include "daemon/image_priv.h"
#include "tests/harness/test.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define SIZE (1 << 20)

static void digest(const char *name, char hex[IMAGE_HEX])
{
    struct err e = ERR_INIT;

    ASSERT_OK(image_digest_file(test_path(name), hex, &e), e);
}

static int make(const char *name)
{
    int fd = ASSERT_SYS(open(test_path(name), O_RDWR | O_CREAT | O_CLOEXEC, 0644));

    ASSERT_SYS(ftruncate(fd, SIZE));
    return fd;
}

TEST(a_digest_does_not_see_holes)
{
    static const char zeros[SIZE];
    char a[IMAGE_HEX], b[IMAGE_HEX], c[IMAGE_HEX];
    autoclose int sparse = make("sparse");
    autoclose int full = make("full");
    autoclose int moved = make("moved");

    ASSERT_EQ(pwrite(sparse, "x", 1, 70000), 1);
    ASSERT_EQ(pwrite(full, zeros, SIZE, 0), SIZE);
    ASSERT_EQ(pwrite(full, "x", 1, 70000), 1);
    ASSERT_EQ(pwrite(moved, "x", 1, 80000), 1);
    digest("sparse", a);
    digest("full", b);
    digest("moved", c);
    ASSERT_STREQ(a, b);
    ASSERT_STRNE(a, c);
}
