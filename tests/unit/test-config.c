/* SPDX-License-Identifier: MIT */
#include "common/auto.h"
#include "common/io.h"
#include "common/limits.h"
#include "common/sbuf.h"
#include "daemon/config.h"
#include "daemon/space.h"
#include "tests/harness/test.h"

#include <fcntl.h>
#include <stdlib.h>

static const char *file(const char *text)
{
    struct err e = ERR_INIT;

    ASSERT_OK(io_write_file_at(AT_FDCWD, test_path("c.json"), text, strlen(text), 0600, &e), e);
    return test_path("c.json");
}

TEST(nothing_said_means_defaults)
{
    struct config c;
    struct err e = ERR_INIT;

    ASSERT_OK(config_load(file("{}"), &c, &e), e);
    ASSERT_STREQ(c.state_dir, "/var/lib/sandboxd");
    ASSERT_STREQ(c.runtime_dir, "/run/sandboxd");
    ASSERT_STREQ(c.socket, "/run/sandboxd/sandboxd.sock");
    ASSERT_STREQ(c.socket_group, "sandbox");
    ASSERT_STREQ(c.admin_group, "");
    ASSERT_STREQ(c.libvirt_uri, "embed");
    ASSERT_STREQ(c.accel, "auto");
    ASSERT_STREQ(c.machine, "microvm");
    ASSERT_STREQ(c.default_image, "debian");
    ASSERT_STREQ(c.qemu_group, "");
    ASSERT_EQ(c.default_memory, 2 * GIB);
    ASSERT_EQ(c.default_disk, 20 * GIB);
    ASSERT_EQ(c.start_timeout_ms, 120000);
    ASSERT_EQ(c.uid_base, 1879048192);
    ASSERT_STREQ(c.audit, "required");
    ASSERT_EQ(c.audit_size, 16 * MIB);
    ASSERT_EQ(c.audit_files, 8);
    ASSERT_EQ(c.events, 10000);
    ASSERT_TRUE(c.default_cpus == 1 || c.default_cpus == 2);
    ASSERT_EQ(c.min_free_disk, SPACE_AUTO);
    ASSERT_EQ(c.quota.fallback.limit[QUOTA_SANDBOXES], 64);
    ASSERT_EQ(c.quota.fallback.limit[QUOTA_DISK], 64 * 20 * GIB);
    ASSERT_GE(c.quota.fallback.limit[QUOTA_CPUS], 16);
    ASSERT_GE(c.quota.fallback.limit[QUOTA_MEMORY], 8 * GIB);
    config_done(&c);
}

TEST(what_is_said_counts)
{
    struct config c;
    struct err e = ERR_INIT;

    ASSERT_OK(config_load(file("{\"runtime_dir\":\"/tmp/r\",\"libvirt_uri\":\"qemu:///system\","
                               "\"default_cpus\":3,\"log_level\":\"debug\",\"socket_group\":\"\"}"),
                          &c, &e), e);
    ASSERT_STREQ(c.socket, "/tmp/r/sandboxd.sock");
    ASSERT_STREQ(c.qemu_group, "libvirt-qemu");
    ASSERT_STREQ(c.socket_group, "");
    ASSERT_EQ(c.default_cpus, 3);
    config_done(&c);
}

TEST(the_example_can_be_read)
{
    autosbuf struct sbuf path = SBUF(LIMIT_PATH);
    const char *source = getenv("SBX_TEST_SOURCE");
    struct config c;
    struct err e = ERR_INIT;

    SKIP_IF(!source, "SBX_TEST_SOURCE is not set");
    sbuf_fmt(&path, "%s/../packaging/daemon.json.example", source);
    ASSERT_OK(config_load(sbuf_str(&path), &c, &e), e);
    ASSERT_EQ(c.min_free_disk, GIB);
    ASSERT_EQ(c.quota.fallback.limit[QUOTA_SANDBOXES], 64);
    config_done(&c);
}

TEST(quotas_are_read_with_their_entries)
{
    struct config c;
    struct err e = ERR_INIT;

    ASSERT_OK(config_load(file("{\"quota\":{\"default\":{\"memory\":\"16G\",\"execs\":-1},"
                               "\"users\":{\"alice\":{\"disk\":\"unlimited\"}},"
                               "\"groups\":{\"ci\":{\"cpus\":9}}},\"min_free_disk\":\"2G\"}"),
                          &c, &e), e);
    ASSERT_EQ(c.quota.fallback.limit[QUOTA_MEMORY], 16 * GIB);
    ASSERT_EQ(c.quota.fallback.limit[QUOTA_EXECS], QUOTA_UNLIMITED);
    ASSERT_EQ(c.quota.fallback.limit[QUOTA_SANDBOXES], 64);
    const struct quota_entry *alice = c.quota.users.items, *ci = c.quota.groups.items;
    ASSERT_STREQ(alice->name, "alice");
    ASSERT_EQ(alice->limit[QUOTA_DISK], QUOTA_UNLIMITED);
    ASSERT_EQ(alice->limit[QUOTA_CPUS], QUOTA_UNSET);
    ASSERT_STREQ(ci->name, "ci");
    ASSERT_EQ(ci->limit[QUOTA_CPUS], 9);
    ASSERT_EQ(c.min_free_disk, 2 * GIB);
    config_done(&c);
}

TEST(mistakes_are_named)
{
    static const struct { const char *text; enum err_code code; const char *word; } bad[] = {
        { "{\"audit\":\"maybe\"}", ERR_FIELD_INVALID, "required, best-effort or off" },
        { "", ERR_JSON, "c.json" },
        { "{\"state_dri\":\"/x\"}", ERR_FIELD_UNKNOWN, "state_dri" },
        { "{\"state_dir\":\"x\"}", ERR_FIELD_INVALID, "state_dir" },
        { "{\"state_dir\":\"/\"}", ERR_FIELD_INVALID, "state_dir" },
        { "{\"state_dir\":\"/a/../b\"}", ERR_FIELD_INVALID, "state_dir" },
        { "{\"state_dir\":\"/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"}",
          ERR_FIELD_INVALID, "state_dir" },
        { "{\"accel\":\"hvf\"}", ERR_FIELD_INVALID, "accel" },
        { "{\"machine\":\"pc\"}", ERR_FIELD_INVALID, "machine" },
        { "{\"libvirt_uri\":\"qemu+ssh://host/system\"}", ERR_FIELD_INVALID, "libvirt_uri" },
        { "{\"uid_base\":0}", ERR_FIELD_INVALID, "uid_base" },
        { "{\"uid_base\":4294967295}", ERR_FIELD_INVALID, "uid_base" },
        { "{\"default_memory\":1}", ERR_FIELD_INVALID, "default_memory" },
        { "{\"socket_group\":\"a b\"}", ERR_FIELD_INVALID, "socket_group" },
        { "{\"log_level\":\"loud\"}", ERR_FIELD_INVALID, "log_level" },
        { "{\"min_free_disk\":-1}", ERR_FIELD_INVALID, "min_free_disk" },
        { "{\"min_free_disk\":\"5 %\"}", ERR_FIELD_INVALID, "min_free_disk" },
        { "{\"quota\":{\"all\":{}}}", ERR_FIELD_UNKNOWN, "quota.all" },
        { "{\"quota\":{\"default\":{\"ram\":1}}}", ERR_FIELD_UNKNOWN, "quota.default.ram" },
        { "{\"quota\":{\"default\":{\"cpus\":-2}}}", ERR_FIELD_INVALID, "quota.default.cpus" },
        { "{\"quota\":{\"default\":{\"cpus\":\"2G\"}}}", ERR_FIELD_INVALID, "quota.default.cpus" },
        { "{\"quota\":{\"users\":{\"al\":{\"disk\":\"x\"}}}}", ERR_FIELD_INVALID,
          "quota.users.al.disk" },
        { "{\"quota\":{\"groups\":{\"a/b\":{}}}}", ERR_FIELD_INVALID, "quota.groups.a/b" },
    };

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct config c;
        struct err e;
        ASSERT_ERR(config_load(file(bad[i].text), &c, &e), e, bad[i].code);
        ASSERT_CONTAINS(e.msg, bad[i].word);
    }
}

TEST(a_file_that_was_named_must_be_there)
{
    struct config c;
    struct err e = ERR_INIT;

    ASSERT_TRUE(config_load(test_path("none"), &c, &e) < 0);
    ASSERT_CONTAINS(e.msg, "none");
}
