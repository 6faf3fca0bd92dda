/* SPDX-License-Identifier: MIT
 *
 * Images are built on a disk that has no room: a tmpfs of this test's own, a few pages or a file
 * larger each time, until it is enough. What fails leaves no image, no row and nothing half-made,
 * says why, and is done as soon as there is room.
 *
 * All is real but mmdebstrap, which would take a minute each time: a script of its name runs the
 * recipe's hook, as it does, on an empty tree.
 */
#include "common/auto.h"
#include "common/io.h"
#include "common/limits.h"
#include "daemon/image.h"
#include "daemon/store.h"
#include "tests/harness/test.h"

#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define MMDEBSTRAP "/usr/bin/mmdebstrap"
#define ROOM (64 * MIB)
#define FILES 4096

/* libarchive keeps its buffer when the last block of an archive finds no room; a build is a process
 * of its own. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:libarchive.so\n";
}

static struct store *st;
static char state[96], images[112];
static bool if_missing;

static void write_text(const char *name, const char *text, mode_t mode)
{
    struct err e = ERR_INIT;

    ASSERT_OK(io_write_file_at(AT_FDCWD, test_path(name), text, strlen(text), mode, &e), e);
}

static void write_agent(char c)
{
    char text[20001];

    memset(text, c, sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    write_text("agent", text, 0755);
}

static void make_recipe(void)
{
    char customize[1024];

    ASSERT_SYS(mkdir(test_path("image"), 0755));
    ASSERT_SYS(mkdir(test_path("image/tiny"), 0755));
    write_text("image/tiny/packages", "none\n", 0644);
    write_text("image/tiny/modules", "a\n", 0644);
    snprintf(customize, sizeof(customize),
             "#!/bin/sh\nset -eu\ncd \"$1\"\n"
             "mkdir -p etc boot usr/lib/modules/6.1/kernel usr/share/some\n"
             "cp /etc/os-release etc\n"
             "cp %s boot/vmlinuz-6.1\n"
             "truncate -s 40K boot/vmlinuz-6.1\n"
             "echo kernel/a.ko: > usr/lib/modules/6.1/modules.dep\n"
             "echo kernel/b.ko > usr/lib/modules/6.1/modules.builtin\n"
             "yes module | head -c 20000 > usr/lib/modules/6.1/kernel/a.ko\n"
             "yes text | head -c 50000 > usr/share/some/text\n",
             test_source("fuzz/corpus/kernel/gzip"));
    write_text("image/tiny/customize", customize, 0755);
    write_text("mmdebstrap",
               "#!/bin/sh\nset -eu\n"
               "for a in \"$@\"; do\n"
               "    case $a in --customize-hook=*) hook=${a#*=} ;; */tree) tree=$a ;; esac\n"
               "done\n"
               "mkdir \"$tree\"\nexec \"$hook\" \"$tree\"\n", 0755);
    write_agent('a');
}

/* Nobody else sees these mounts, and they end with this process. */
static void begin(void)
{
    SKIP_IF(getuid() != 0, "needs root to mount a file system");
    SKIP_IF(access(MMDEBSTRAP, X_OK) < 0, "no " MMDEBSTRAP);
    ASSERT_SYS(unshare(CLONE_NEWNS));
    ASSERT_SYS(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
    make_recipe();
    ASSERT_SYS(mount(test_path("mmdebstrap"), MMDEBSTRAP, NULL, MS_BIND, NULL));
    snprintf(state, sizeof(state), "%s", test_path("state"));
    snprintf(images, sizeof(images), "%s/images", state);
    ASSERT_SYS(mkdir(state, 0755));
}

static void fresh_disk(void)
{
    char path[128];
    struct err e = ERR_INIT;

    ASSERT_SYS(mount("tmpfs", state, "tmpfs", 0, "mode=0755,size=64m,nr_inodes=4096"));
    snprintf(path, sizeof(path), "%s/db", state);
    ASSERT_OK(store_open(path, &st, &e), e);
}

static void drop_disk(void)
{
    store_close(take_ptr(st));
    ASSERT_SYS(umount(state));
}

/* So many bytes and files more than there are now. */
static void leave_room(uint64_t bytes, uint64_t files)
{
    struct statvfs v;
    char options[64];

    ASSERT_SYS(statvfs(state, &v));
    snprintf(options, sizeof(options), "size=%llu,nr_inodes=%llu",
             (unsigned long long)((v.f_blocks - v.f_bfree) * v.f_frsize + bytes),
             (unsigned long long)(v.f_files - v.f_ffree + files));
    ASSERT_SYS(mount("tmpfs", state, "tmpfs", MS_REMOUNT, options));
}

static const char *last_step;

static void note_step(void *arg, const char *step)
{
    last_step = step;
}

static int build(struct err *e)
{
    autofree char *digest = NULL;
    autofree char *share = strdup(test_dir());
    autofree char *agent = strdup(test_path("agent"));
    const struct image_build_opts o = { .name = "tiny", .variant = "tiny", .share_dir = share,
                                        .agent = agent, .root_size = 256 * MIB,
                                        .if_missing = if_missing, .progress = note_step };

    last_step = "nothing";
    return image_build(st, state, &o, &digest, e);
}

/* Each image that has a row is whole, and nothing is there that has none. Returns how many. */
static size_t whole_images(void)
{
    static const char *const parts[] = { "kernel", "initrd", "root.img", "image.json", "modules" };
    struct image_row *rows = NULL;
    struct err e = ERR_INIT;
    struct stat sb;
    struct dirent *de;
    size_t n = 0, named = 0, entries = 0;

    ASSERT_OK(store_image_list(st, &rows, &n, &e), e);
    for (size_t i = 0; i < n; i++) {
        for (size_t k = 0; k < ARRAY_SIZE(parts); k++) {
            char path[256];
            snprintf(path, sizeof(path), "%s/%s/%s", images, rows[i].digest + 7, parts[k]);
            ASSERT_SYS(stat(path, &sb));
            ASSERT_GT(sb.st_size, 0);
        }
        named += rows[i].name != NULL;
        image_row_done(&rows[i]);
    }
    free(rows);
    ASSERT_EQ(named, n > 0);
    DIR *d = opendir(images);
    while (d && (de = readdir(d)))
        entries += strcmp(de->d_name, ".") != 0 && strcmp(de->d_name, "..") != 0 &&
                   strcmp(de->d_name, ".lock") != 0;
    if (d)
        closedir(d);
    if (entries != n)
        FAIL("%zu directories of %zu images after '%s'", entries, n, last_step);
    return n;
}

/* With ever more room, until it is enough; each step of `steps` has to lack it at least once. */
static void walk(void (*prepare)(void), uint64_t bytes, uint64_t files, const char *const *steps)
{
    unsigned met[8] = { 0 }, rounds = 0;
    size_t had = 0;
    bool again;
    int r;

    do {
        struct err e = ERR_INIT;
        fresh_disk();
        if (prepare)
            prepare();
        had = whole_images();
        again = false;
        leave_room(bytes ? rounds * bytes : ROOM, files ? rounds * files : FILES);
        r = build(&e);
        if (r < 0) {
            if (e.code != ERR_NO_SPACE)
                FAIL("at '%s': [%s] %s", last_step, err_wire(e.code), e.msg);
            for (size_t i = 0; steps[i]; i++)
                if (strcmp(steps[i], last_step) == 0)
                    again = met[i]++ == 0;      /* once for each, as it takes as long */
            ASSERT_EQ(whole_images(), had);
            leave_room(ROOM, FILES);
            e = ERR_INIT;
            if (again)
                ASSERT_OK(build(&e), e);
        }
        ASSERT_EQ(whole_images(), had + (r == 0 || again));
        drop_disk();
        ASSERT_LT(++rounds, 600);
    } while (r < 0);
    for (size_t i = 0; steps[i]; i++) {
        printf("# %s: no room at %u places\n", steps[i], met[i]);
        ASSERT_GT(met[i], 0);
    }
}

static const char *const steps_new[] = {
    "installing Debian packages", "it is packed in a way that is not known here",
    "packing the initramfs", "writing the root file system", NULL,
};

TEST_LIMIT(a_build_without_room_leaves_nothing, 240)
{
    begin();
    walk(NULL, 16 * KIB, 0, steps_new);
}

TEST_LIMIT(a_build_that_may_make_no_file_more_leaves_nothing, 240)
{
    begin();
    walk(NULL, 0, 1, steps_new);
}

static void build_before(void)
{
    struct err e = ERR_INIT;

    write_agent('a');
    ASSERT_OK(build(&e), e);
    write_agent('b');
}

static const char *const steps_agent[] = {
    "taking kernel and root file system from the image before", "packing the initramfs",
    "computing the digest", NULL,
};

TEST_LIMIT(one_for_a_new_agent_without_room_leaves_the_image_before, 240)
{
    begin();
    if_missing = true;
    walk(build_before, 4 * KIB, 0, &steps_agent[1]);
    walk(build_before, 0, 1, steps_agent);
}
