/* SPDX-License-Identifier: MIT
 *
 * Digests of an image's files, and what is left of builds that were cut off.
 */
#include "common/auto.h"
#include "daemon/image.h"
#include "daemon/image_priv.h"
#include "tests/harness/test.h"

#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
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

static void make_dir(const char *name)
{
    ASSERT_SYS(mkdir(test_path(name), 0755));
}

static bool there(const char *name)
{
    return access(test_path(name), F_OK) == 0;
}

TEST(what_was_cut_off_is_taken_away_unless_somebody_builds)
{
    static const char kept[] = "images/"
        "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    struct err e = ERR_INIT;

    ASSERT_OK(image_tidy(test_dir(), &e), e);       /* nothing was ever built */
    make_dir("images");
    make_dir("images/.build-abc");
    make_dir("images/.build-abc/tree");
    make_dir("images/.gone-abc");
    make_dir(kept);
    ASSERT_OK(image_tidy(test_dir(), &e), e);
    ASSERT_TRUE(there("images/.build-abc"));
    autoclose int lock = ASSERT_SYS(open(test_path("images/.lock"), O_RDWR | O_CREAT | O_CLOEXEC,
                                         0600));
    ASSERT_SYS(flock(lock, LOCK_EX));
    ASSERT_OK(image_tidy(test_dir(), &e), e);
    ASSERT_TRUE(there("images/.build-abc") && there("images/.gone-abc"));
    ASSERT_SYS(flock(lock, LOCK_UN));
    ASSERT_OK(image_tidy(test_dir(), &e), e);
    ASSERT_FALSE(there("images/.build-abc") || there("images/.gone-abc"));
    ASSERT_TRUE(there(kept));       /* a database that is put back may know it */
}
