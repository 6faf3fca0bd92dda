/* SPDX-License-Identifier: MIT */
#include "daemon/space.h"
#include "common/limits.h"
#include "tests/harness/test.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <unistd.h>

TEST(a_floor_above_what_is_free_is_no_space)
{
    struct err e = ERR_INIT;

    ASSERT_OK(space_check(test_dir(), 0, &e), e);
    ASSERT_ERR(space_check(test_dir(), UINT64_MAX - 1, &e), e, ERR_NO_SPACE);
    ASSERT_CONTAINS(e.msg, test_dir());
    ASSERT_CONTAINS(e.hint, "min_free_disk");
    e = ERR_INIT;
    ASSERT_ERR(space_check("/nosuch", 0, &e), e, ERR_INTERNAL);
}

/* Of a small file system the default is a twentieth. */
TEST(the_default_goes_by_the_size_of_the_file_system)
{
    struct err e = ERR_INIT;
    int fd;

    SKIP_IF(unshare(CLONE_NEWNS) < 0, "needs a mount namespace");
    ASSERT_SYS(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
    ASSERT_SYS(mount("none", test_dir(), "tmpfs", 0, "size=20m"));
    ASSERT_OK(space_check(test_dir(), SPACE_AUTO, &e), e);
    fd = ASSERT_SYS(open(test_path("full"), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    ASSERT_EQ(posix_fallocate(fd, 0, (off_t)(18 * MIB)), 0);     /* 2 MiB left of 20: a tenth */
    ASSERT_OK(space_check(test_dir(), SPACE_AUTO, &e), e);
    ASSERT_EQ(posix_fallocate(fd, 0, (off_t)(19 * MIB + 512 * KIB)), 0);
    ASSERT_ERR(space_check(test_dir(), SPACE_AUTO, &e), e, ERR_NO_SPACE);
    ASSERT_CONTAINS(e.msg, "1MiB");
    close(fd);
    ASSERT_SYS(umount2(test_dir(), MNT_DETACH));
}
