/* SPDX-License-Identifier: MIT
 *
 * The order of things: the kernel's file systems and a console, so that complaints are heard;
 * modules; the root disk, grown to the size of its device; from there on the system's own
 * directories; last the channel's port.
 */
#include "guest/boot.h"
#include "common/auto.h"
#include "common/io.h"
#include "common/limits.h"
#include "guest/group.h"

#include <dirent.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <termios.h>
#include <unistd.h>

#define ROOT_DISK "/dev/vda"
#define NEW_ROOT "/newroot"
#define PORT_NAME "org.sandboxd.agent.0"
#define PORTS "/sys/class/virtio-ports"
#define PROBE_WORD "sbx.probe"
#define PROBE_ANSWER "sbx-probe-ok\r\n"
#define DEVICE_MS 30000
#define CONSOLE_MS 3000
#define MANIFEST_MAX (64 * KIB)

/* ext4's superblock and request to grow; its header is not part of the kernel's interface */
#define EXT4_RESIZE _IOW('f', 16, uint64_t)
#define EXT4_SUPER_AT 1024
#define EXT4_SUPER_LEN 1024
#define EXT4_BLOCKS_LO 0x04
#define EXT4_LOG_BLOCK 0x18
#define EXT4_MAGIC_AT 0x38
#define EXT4_MAGIC 0xef53
#define EXT4_INCOMPAT 0x60
#define EXT4_INCOMPAT_64BIT 0x80
#define EXT4_BLOCKS_HI 0x150

struct mount_row {
    const char *source, *target, *type;
    unsigned long flags;
    const char *options;
    mode_t mode;            /* of the directory, made when it is not there */
};

/* before anything else */
static const struct mount_row early[] = {
    { "devtmpfs", "/dev", "devtmpfs", MS_NOSUID, "mode=0755", 0755 },
    { "proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL, 0555 },
    { "sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL, 0555 },
};

/* on the root disk */
static const struct mount_row late[] = {
    { "devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "gid=5,mode=620,ptmxmode=666", 0755 },
    { "tmpfs", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777", 01777 },
    { "mqueue", "/dev/mqueue", "mqueue", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL, 01777 },
    { "tmpfs", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755,size=20%", 0755 },
    { "cgroup2", "/sys/fs/cgroup", "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL, 0555 },
};

static int mount_row(const struct mount_row *m, struct err *e)
{
    if (mkdir(m->target, m->mode) < 0 && errno != EEXIST)
        return err_sys(e, ERR_INTERNAL, errno, "cannot make %s", m->target);
    if (mount(m->source, m->target, m->type, m->flags, m->options) < 0 && errno != EBUSY)
        return err_sys(e, ERR_INTERNAL, errno, "cannot mount %s", m->target);
    return 0;
}

static bool open_console(void *arg)
{
    int fd = open("/dev/console", O_RDWR | O_NOCTTY);

    if (fd < 0)
        return false;
    for (int i = 0; i < 3; i++)
        if (fd != i)
            (void)dup2(fd, i);
    if (fd > 2)
        close(fd);
    return true;
}

/* Programs started without a console would get our descriptors as theirs. */
static void open_null(void)
{
    int fd;

    do
        fd = open("/dev/null", O_RDWR);
    while (fd >= 0 && fd < 2);
    if (fd > 2)
        close(fd);
}

static void complain(const char *what, const char *name, int sys)
{
    struct err e = ERR_INIT;

    err_sys(&e, ERR_INTERNAL, sys, "%s '%s'", what, name);
    boot_complain(&e);
}

/* Without a module its device is missing, which is said where it is waited for; so go on here. */
static void insert_module(const char *name)
{
    char path[LIMIT_PATH];

    snprintf(path, sizeof(path), "/modules/%s", name);
    autoclose int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) < 0 && errno != EEXIST))
        complain("cannot insert module", name, errno);
}

static int insert_modules(struct err *e)
{
    autofree char *list = NULL;
    char *line, *rest;
    size_t len = 0;

    if (access("/modules/manifest", F_OK) < 0)
        return 0;           /* all of it is in the kernel */
    if (io_read_file_at(AT_FDCWD, "/modules/manifest", MANIFEST_MAX, &list, &len, e) < 0)
        return -1;
    rest = list;
    while ((line = strsep(&rest, "\n")))
        if (line[0] != '\0' && line[0] != '#')
            insert_module(line);
    return 0;
}

static bool on_command_line(const char *word)
{
    autofree char *text = NULL;
    struct err e = ERR_INIT;
    char *rest, *w;
    size_t len = 0;

    if (io_read_file_at(AT_FDCWD, "/proc/cmdline", 64 * KIB, &text, &len, &e) < 0)
        return false;
    rest = text;
    while ((w = strsep(&rest, " \n")))
        if (strcmp(w, word) == 0)
            return true;
    return false;
}

static _Noreturn void answer_probe(bool console)
{
    struct err e = ERR_INIT;

    if (!console)
        (void)uevent_wait(open_console, NULL, deadline_in(CONSOLE_MS), &e);
    if (write(STDOUT_FILENO, PROBE_ANSWER, sizeof(PROBE_ANSWER) - 1) < 0)
        complain("cannot write to", "the console", errno);
    (void)tcdrain(STDOUT_FILENO);
    boot_end(false);
}

static bool file_there(void *arg)
{
    return access(arg, F_OK) == 0;
}

static uint32_t super32(const uint8_t *super, size_t at)
{
    uint32_t v;

    memcpy(&v, super + at, sizeof(v));
    return le32toh(v);
}

/* The disk may be larger than the image it began as. */
static int grow_root(struct err *e)
{
    uint8_t super[EXT4_SUPER_LEN];
    uint64_t bytes = 0, blocks, now;
    autoclose int disk = open(ROOT_DISK, O_RDONLY | O_CLOEXEC);
    autoclose int root = open(NEW_ROOT, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (disk < 0 || root < 0 || ioctl(disk, BLKGETSIZE64, &bytes) < 0 ||
        pread(disk, super, sizeof(super), EXT4_SUPER_AT) != (ssize_t)sizeof(super))
        return err_sys(e, ERR_INTERNAL, errno, "cannot read %s", ROOT_DISK);
    if ((super32(super, EXT4_MAGIC_AT) & 0xffff) != EXT4_MAGIC ||
        super32(super, EXT4_LOG_BLOCK) > 6)
        return err_set(e, ERR_INTERNAL, "%s is no ext4 file system", ROOT_DISK);
    now = super32(super, EXT4_BLOCKS_LO);
    if (super32(super, EXT4_INCOMPAT) & EXT4_INCOMPAT_64BIT)
        now |= (uint64_t)super32(super, EXT4_BLOCKS_HI) << 32;
    blocks = bytes >> (10 + super32(super, EXT4_LOG_BLOCK));
    if (blocks > now && ioctl(root, EXT4_RESIZE, &blocks) < 0)
        return err_sys(e, ERR_INTERNAL, errno, "cannot grow the root file system");
    return 0;
}

static int mount_root(struct err *e)
{
    int r = uevent_wait(file_there, (void *)ROOT_DISK, deadline_in(DEVICE_MS), e);
    struct err grown = ERR_INIT;

    if (r < 0)
        return -1;
    if (r == 0)
        return err_set(e, ERR_INTERNAL, "there is no root disk %s", ROOT_DISK);
    if (mkdir(NEW_ROOT, 0755) < 0 && errno != EEXIST)
        return err_sys(e, ERR_INTERNAL, errno, "cannot make %s", NEW_ROOT);
    if (mount(ROOT_DISK, NEW_ROOT, "ext4", MS_NOATIME, "noinit_itable") < 0)
        return err_sys(e, ERR_INTERNAL, errno, "cannot mount the root disk %s", ROOT_DISK);
    if (grow_root(&grown) < 0)
        boot_complain(&grown);      /* small, but it runs */
    return 0;
}

/* The initramfs is memory: give it back. Its modules are most of it. */
static void empty_initramfs(void)
{
    autoclose int root = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct err e = ERR_INIT;

    (void)io_remove_tree(root, "modules", &e);
    (void)unlinkat(root, "init", 0);
}

static int switch_root(struct err *e)
{
    for (size_t i = 0; i < ARRAY_SIZE(early); i++) {
        char target[64];

        snprintf(target, sizeof(target), "%s%s", NEW_ROOT, early[i].target);
        if (mkdir(target, early[i].mode) < 0 && errno != EEXIST)
            return err_sys(e, ERR_INTERNAL, errno, "cannot make %s", target);
        if (mount(early[i].target, target, NULL, MS_MOVE, NULL) < 0)
            return err_sys(e, ERR_INTERNAL, errno, "cannot move %s", early[i].target);
    }
    empty_initramfs();
    if (chdir(NEW_ROOT) < 0 || mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 ||
        chdir("/") < 0)
        return err_sys(e, ERR_INTERNAL, errno, "cannot change to the root disk");
    return 0;
}

static void loopback_up(void)
{
    autoclose int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct ifreq r = { .ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING };

    if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &r) < 0)
        complain("cannot start interface", "lo", errno);
}

static void make_dir(const char *path, mode_t mode)
{
    /* chmod as well: the umask, or an image that was made carelessly */
    if ((mkdir(path, mode) < 0 && errno != EEXIST) || chmod(path, mode) < 0)
        complain("cannot make", path, errno);
}

static void make_links(void)
{
    static const char *const links[][2] = {
        { "/proc/self/fd", "/dev/fd" },
        { "/proc/self/fd/0", "/dev/stdin" },
        { "/proc/self/fd/1", "/dev/stdout" },
        { "/proc/self/fd/2", "/dev/stderr" },
    };

    for (size_t i = 0; i < ARRAY_SIZE(links); i++)
        (void)!symlink(links[i][0], links[i][1]);
}

static void protect_agent(void)
{
    autoclose int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

    if (fd < 0 || write(fd, "-1000", 5) < 0)
        complain("cannot write to", "oom_score_adj", errno);
}

static void set_up_system(void)
{
    struct err e = ERR_INIT;

    for (size_t i = 0; i < ARRAY_SIZE(late); i++) {
        struct err failed = ERR_INIT;

        if (mount_row(&late[i], &failed) < 0)
            boot_complain(&failed);     /* what needs it will say so; the guest is of use without */
    }
    make_links();
    make_dir("/tmp", 01777);
    make_dir("/run/lock", 01777);
    if (group_init("/sys/fs/cgroup", &e) < 0)
        boot_complain(&e);
    loopback_up();
    protect_agent();
}

/* The device node of the channel's port in `arg` (of LIMIT_PATH bytes), once it has its name. */
static bool find_port(void *arg)
{
    DIR *d = opendir(PORTS);
    struct dirent *de;
    bool found = false;

    while (d && !found && (de = readdir(d))) {
        autofree char *name = NULL;
        struct err e = ERR_INIT;
        size_t len = 0;
        char path[300];

        if (de->d_name[0] == '.')
            continue;
        snprintf(path, sizeof(path), "%.255s/name", de->d_name);
        if (io_read_file_at(dirfd(d), path, 256, &name, &len, &e) < 0)
            continue;
        name[strcspn(name, "\n")] = '\0';
        snprintf(arg, LIMIT_PATH, "/dev/%.255s", de->d_name);
        found = strcmp(name, PORT_NAME) == 0 && access(arg, F_OK) == 0;
    }
    if (d)
        closedir(d);
    return found;
}

static int open_port(int *ret, struct err *e)
{
    char path[LIMIT_PATH];
    int r = uevent_wait(find_port, path, deadline_in(DEVICE_MS), e);

    if (r < 0)
        return -1;
    if (r == 0)
        return err_set(e, ERR_INTERNAL, "there is no port %s", PORT_NAME);
    *ret = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (*ret < 0)
        return err_sys(e, ERR_INTERNAL, errno, "cannot open %s", path);
    return 0;
}

int boot_guest(int *ret_port, struct err *e)
{
    bool console;

    umask(022);
    for (size_t i = 0; i < ARRAY_SIZE(early); i++)
        if (mount_row(&early[i], e) < 0)
            return -1;
    console = open_console(NULL);
    if (!console)
        open_null();
    if (insert_modules(e) < 0)
        return -1;
    if (!console)
        console = open_console(NULL);   /* its driver may have been one of them */
    if (on_command_line(PROBE_WORD))
        answer_probe(console);
    if (mount_root(e) < 0 || switch_root(e) < 0)
        return -1;
    set_up_system();
    return open_port(ret_port, e);
}
