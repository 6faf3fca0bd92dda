/* SPDX-License-Identifier: MIT
 *
 * The directory of libvirt's embedded driver: what a driver that was killed left is gone before the
 * next one looks, and what belongs to a running domain stays.
 */
#include "common/auto.h"
#include "common/io.h"
#include "daemon/virt_embed.h"
#include "tests/harness/test.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define RUNS   "sbx-0000000000000001"
#define NEVER  "sbx-0000000000000002"
#define LOST   "sbx-0000000000000003"

static char root[64];

static void fresh(void)
{
    snprintf(root, sizeof(root), "/tmp/test-virtembed-XXXXXX");
    ASSERT_TRUE(mkdtemp(root) != NULL);
}

static void prepare(void)
{
    struct err e = ERR_INIT;

    if (virt_embed_prepare(root, &e) < 0)
        FAIL("%s", e.msg);
}

static void clean(void)
{
    struct err e = ERR_INIT;

    ASSERT_EQ(io_remove_tree(AT_FDCWD, root, &e), 0);
}

static const char *in_root(const char *name)
{
    static char path[256];

    snprintf(path, sizeof(path), "%s/%s", root, name);
    return path;
}

static void file(const char *name, const char *text)
{
    struct err e = ERR_INIT;
    char dir[256];

    snprintf(dir, sizeof(dir), "%s", in_root(name));
    *strrchr(dir, '/') = '\0';
    ASSERT_EQ(io_mkdir_parents(dir, 0700, &e), 0);
    ASSERT_EQ(io_write_file_at(AT_FDCWD, in_root(name), text, strlen(text), 0600, &e), 0);
}

static bool there(const char *name)
{
    return access(in_root(name), F_OK) == 0;
}

TEST(a_new_directory_gets_its_settings)
{
    fresh();
    prepare();
    ASSERT_TRUE(there("etc/qemu.conf"));
    prepare();
    clean();
}

TEST(a_domain_that_was_never_started_is_forgotten)
{
    fresh();
    file("run/qemu/" RUNS ".xml", "<!-- pid='0' -->\n<domstatus state='running' pid='77'>"
                                  "<x pid='0'/></domstatus>");
    file("run/qemu/" RUNS ".pid", "77");
    file("run/qemu/" NEVER ".xml", "<!-- > -->\n<domstatus state='paused' reason='starting up'"
                                   " pid='0'>\n</domstatus>");
    file("run/qemu/" NEVER ".pid", "78");
    file("run/qemu/" RUNS ".xml.new", "");
    file("run/qemu/other.xml", "<domstatus pid='0'>");
    prepare();
    ASSERT_TRUE(there("run/qemu/" RUNS ".xml"));
    ASSERT_TRUE(there("run/qemu/" RUNS ".pid"));
    ASSERT_TRUE(there("run/qemu/other.xml"));
    ASSERT_FALSE(there("run/qemu/" NEVER ".xml"));
    ASSERT_FALSE(there("run/qemu/" NEVER ".pid"));
    ASSERT_FALSE(there("run/qemu/" RUNS ".xml.new"));
    clean();
}

TEST(a_number_that_is_another_process_is_not_for_libvirt)
{
    char text[256];

    fresh();
    snprintf(text, sizeof(text), "<domstatus state='running' pid='%d'><label>+%u:+%u</label>",
             (int)getpid(), (unsigned)getuid(), (unsigned)getgid());
    file("run/qemu/" RUNS ".xml", text);
    file("run/qemu/" RUNS ".pid", "");
    snprintf(text, sizeof(text), "<domstatus state='running' pid='%d'><label>+%u:+%u</label>",
             (int)getpid(), (unsigned)getuid() + 1, (unsigned)getgid());
    file("run/qemu/" LOST ".xml", text);
    file("run/qemu/" LOST ".pid", "");
    file("lib/qemu/domain-9-" LOST "/monitor.sock", "");
    prepare();
    ASSERT_TRUE(there("run/qemu/" RUNS ".xml"));
    ASSERT_TRUE(there("run/qemu/" RUNS ".pid"));
    ASSERT_FALSE(there("run/qemu/" LOST ".xml"));
    ASSERT_FALSE(there("run/qemu/" LOST ".pid"));
    ASSERT_FALSE(there("lib/qemu/domain-9-" LOST));
    clean();
}

TEST(directories_of_unknown_domains_are_removed)
{
    fresh();
    file("run/qemu/" RUNS ".xml", "<domstatus state='running' pid='77'>");
    file("lib/qemu/domain-1-" RUNS "/monitor.sock", "");
    file("lib/qemu/domain-9-" LOST "/monitor.sock", "");
    file("lib/qemu/ram/9-" LOST "/x", "");
    file("lib/qemu/channel/target/domain-9-" LOST "/x", "");
    file("lib/qemu/save/x", "");
    file("lib/qemu/domain-9-sbx-notanid/x", "");
    prepare();
    ASSERT_TRUE(there("lib/qemu/domain-1-" RUNS "/monitor.sock"));
    ASSERT_TRUE(there("lib/qemu/save/x"));
    ASSERT_TRUE(there("lib/qemu/domain-9-sbx-notanid/x"));
    ASSERT_FALSE(there("lib/qemu/domain-9-" LOST));
    ASSERT_FALSE(there("lib/qemu/ram/9-" LOST));
    ASSERT_FALSE(there("lib/qemu/channel/target/domain-9-" LOST));
    clean();
}

TEST(the_log_of_a_domain_goes_with_it)
{
    struct err e = ERR_INIT;

    fresh();
    file("log/qemu/" RUNS ".log", "");
    file("log/qemu/" LOST ".log", "");
    ASSERT_EQ(virt_embed_forget(root, "0000000000000003", &e), 0);
    ASSERT_EQ(virt_embed_forget(root, "0000000000000003", &e), 0);
    ASSERT_TRUE(there("log/qemu/" RUNS ".log"));
    ASSERT_FALSE(there("log/qemu/" LOST ".log"));
    clean();
}

TEST(a_relative_root_is_refused)
{
    struct err e = ERR_INIT;

    ASSERT_EQ(virt_embed_prepare("libvirt", &e), -1);
    ASSERT_EQ(e.code, ERR_INVALID);
}
