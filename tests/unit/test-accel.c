/* SPDX-License-Identifier: MIT */
#include "common/auto.h"
#include "common/io.h"
#include "daemon/accel.h"
#include "tests/harness/test.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static struct accel_verdict probe(enum accel_choice choice, const char *kernel, bool *ret_final)
{
    struct err e = ERR_INIT;
    struct accel_verdict v = { 0 };
    ASSERT_OK(accel_probe(choice, test_dir(), kernel, kernel, &v, ret_final, &e), e);
    return v;
}

TEST(forced_verdicts_need_no_look)
{
    bool final = false;
    struct accel_verdict v = probe(ACCEL_FORCE_TCG, NULL, &final);
    ASSERT_EQ(v.accel, ACCEL_TCG);
    ASSERT_TRUE(final);
    ASSERT_CONTAINS(v.reason, "forced");
    final = false;
    v = probe(ACCEL_FORCE_KVM, NULL, &final);
    ASSERT_EQ(v.accel, ACCEL_KVM);
    ASSERT_TRUE(final);
}

TEST(without_the_device_it_is_tcg)
{
    SKIP_IF(access("/dev/kvm", F_OK) == 0, "/dev/kvm is there");
    bool final = false;
    struct accel_verdict v = probe(ACCEL_AUTO, NULL, &final);
    ASSERT_EQ(v.accel, ACCEL_TCG);
    ASSERT_TRUE(final);
    ASSERT_CONTAINS(v.reason, "/dev/kvm");
}

static void need_device(void)
{
    SKIP_IF(access("/dev/kvm", R_OK | W_OK) < 0, "no /dev/kvm to use");
    SKIP_IF(access("/usr/bin/qemu-system-x86_64", X_OK) < 0, "no QEMU");
}

TEST(not_known_before_a_boot)
{
    need_device();
    bool final = true;
    struct accel_verdict v = probe(ACCEL_AUTO, NULL, &final);
    ASSERT_EQ(v.accel, ACCEL_TCG);
    if (final) /* the device said no by itself */
        ASSERT_CONTAINS(v.reason, "/dev/kvm");
    ASSERT_NE(access(test_path("accel"), F_OK), 0);
}

/* A kernel that is none: QEMU or the guest gives up, and that is a verdict, kept for the next time.
 */
TEST_LIMIT(a_failed_boot_is_a_verdict_and_kept, 60)
{
    need_device();
    bool final = false;
    struct err e = ERR_INIT;
    autofree char *text = NULL;
    size_t len;
    ASSERT_OK(io_write_file_at(AT_FDCWD, test_path("k"), "no kernel", 9, 0644, &e), e);
    ASSERT_SYS(chmod(test_dir(), 0711));
    struct accel_verdict v = probe(ACCEL_AUTO, test_path("k"), &final);
    ASSERT_EQ(v.accel, ACCEL_TCG);
    ASSERT_TRUE(final);
    SKIP_IF(access(test_path("accel"), F_OK) < 0, "decided by the device alone: %s", v.reason);

    /* another verdict in the file, for the same key, is believed without a boot */
    ASSERT_OK(io_read_file_at(AT_FDCWD, test_path("accel"), 4096, &text, &len, &e), e);
    char *end = strchr(text, '\n');
    ASSERT_NOT_NULL(end);
    *end = '\0';
    autofree char *other = NULL;
    int n = asprintf(&other, "%s\nkvm\nkvm: so it was written\n", text);
    ASSERT_OK(io_write_file_at(AT_FDCWD, test_path("accel"), other, (size_t)n, 0644, &e), e);
    v = probe(ACCEL_AUTO, NULL, &final);
    ASSERT_EQ(v.accel, ACCEL_KVM);
    ASSERT_STREQ(v.reason, "kvm: so it was written");

    /* for another key it is not */
    free(take_ptr(other));
    n = asprintf(&other, "x%s\nkvm\nkvm: so it was written\n", text);
    ASSERT_OK(io_write_file_at(AT_FDCWD, test_path("accel"), other, (size_t)n, 0644, &e), e);
    v = probe(ACCEL_AUTO, NULL, &final);
    ASSERT_EQ(v.accel, ACCEL_TCG);
    ASSERT_FALSE(final);

    /* nonsense is not */
    ASSERT_OK(io_write_file_at(AT_FDCWD, test_path("accel"), text, strlen(text), 0644, &e), e);
    v = probe(ACCEL_AUTO, NULL, &final);
    ASSERT_FALSE(final);
}

TEST(rate_of_the_tsc)
{
#if defined(__x86_64__)
    uint32_t a = accel_tsc_khz(), b = accel_tsc_khz();
    ASSERT_GT(a, 100000);
    ASSERT_LT(a > b ? a - b : b - a, a / 500); /* within 0.2 % of itself */
#else
    ASSERT_EQ(accel_tsc_khz(), 0);
#endif
}
