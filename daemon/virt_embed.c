/* SPDX-License-Identifier: MIT */
#include "daemon/virt_embed.h"

#include "common/auto.h"
#include "common/io.h"
#include "common/log.h"
#include "common/name.h"
#include "common/parse.h"
#include "common/sbuf.h"
#include "daemon/procstat.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LIBVIRT_LOG_MAX (1 << 20)
#define STATUS_MAX      (1 << 20)

/* libvirt writes warnings to stderr in a format of its own. They go to a file here, unless the
 * administrator asked for something else by the same variable. Read once, by virInitialize(). */
static int log_prepare(const char *root, struct err *e)
{
    autosbuf struct sbuf file = SBUF(4096), old = SBUF(4096), output = SBUF(4096);
    struct stat st;

    sbuf_fmt(&file, "%s/libvirt.log", root);
    sbuf_fmt(&old, "%s/libvirt.log.old", root);
    sbuf_fmt(&output, "3:file:%s", sbuf_str(&file));
    if (file.failed || old.failed || output.failed)
        return err_nomem(e);
    if (stat(sbuf_str(&file), &st) == 0 && st.st_size > LIBVIRT_LOG_MAX)
        rename(sbuf_str(&file), sbuf_str(&old));
    if (setenv("LIBVIRT_LOG_OUTPUTS", sbuf_str(&output), 0) < 0)
        return err_nomem(e);
    return 0;
}

/* ---- what a driver that was killed left ---- */

/* Directories of libvirt's with one entry for each domain, named "<number>-sbx-<id>". */
static const char *const domain_dirs[] = { "lib/qemu", "lib/qemu/channel/target", "lib/qemu/ram" };

/* The id at the end of such a name; NULL when it is no such name. */
static const char *id_of(const char *name)
{
    const char *at = strstr(name, "-" VIRT_NAME_PREFIX);

    if (!at || !id_valid(at + strlen("-" VIRT_NAME_PREFIX)))
        return NULL;
    return at + strlen("-" VIRT_NAME_PREFIX);
}

/* A number behind `key` in [from, end). */
static bool number_after(const char *from, const char *end, const char *key, uint32_t *ret)
{
    const char *at = strstr(from, key);
    char digits[16] = "";

    if (!at || at >= end)
        return false;
    at += strlen(key);
    size_t n = strspn(at, "0123456789");
    if (n >= sizeof(digits))
        return false;
    memcpy(digits, at, n);
    return parse_u32(digits, 0, INT32_MAX, ret);
}

/* What a domain's status says: QEMU's process, and the uid it was given, which no other process
 * has. False: it cannot be told. */
static bool read_status(int dir, const char *name, uint32_t *ret_pid, bool *ret_has_uid,
                        uint32_t *ret_uid)
{
    struct err ignored = ERR_INIT;
    autofree char *text = NULL;
    size_t len = 0;

    if (io_read_file_at(dir, name, STATUS_MAX, &text, &len, &ignored) < 0)
        return false;
    const char *tag = strstr(text, "<domstatus ");
    const char *end = tag ? strchr(tag, '>') : NULL;
    if (!end || !number_after(tag, end, " pid='", ret_pid))
        return false;
    *ret_has_uid = number_after(end, text + len, "<label>+", ret_uid);
    return true;
}

/* libvirt writes a domain's status before it runs QEMU, with pid 0. When it is killed there, its
 * next instance takes the domain for one that is being started, by nobody, and waits for that at
 * every call about it (seen with 9.0: "cannot acquire state change lock", for ever). QEMU itself
 * waits for libvirt's word before its first instruction and ends when libvirt does. */
static bool never_ran(int dir, const char *name)
{
    uint32_t pid, uid;
    bool has_uid;

    return read_status(dir, name, &pid, &has_uid, &uid) && pid == 0;
}

/* A status names its QEMU by a number only, and this directory outlives the host: libvirt would
 * kill whoever has that number by now, when it finds no monitor. */
static bool has_ended(int dir, const char *name)
{
    struct proc_use unused = { 0 };
    uint32_t pid, uid;
    bool has_uid;

    return read_status(dir, name, &pid, &has_uid, &uid) && has_uid &&
           !procstat_add((pid_t)pid, uid, 0, false, &unused);
}

static bool has_suffix(const char *s, const char *suffix)
{
    size_t n = strlen(s), m = strlen(suffix);

    return n > m && strcmp(s + n - m, suffix) == 0;
}

static void drop_file(int dir, const char *name)
{
    if (unlinkat(dir, name, 0) < 0 && errno != ENOENT)
        log_warn(NULL, "cannot remove %s from libvirt's directory, ignoring: %m", name);
}

static int sweep_status(const char *root, struct err *e)
{
    autosbuf struct sbuf path = SBUF(4096);
    struct dirent *de;

    sbuf_fmt(&path, "%s/run/qemu", root);
    if (path.failed)
        return err_nomem(e);
    DIR *d = opendir(sbuf_str(&path));
    if (!d)
        return errno == ENOENT
                   ? 0 : err_sys(e, ERR_INTERNAL, errno, "cannot read %s", sbuf_str(&path));
    while ((de = readdir(d))) {
        if (strncmp(de->d_name, VIRT_NAME_PREFIX, strlen(VIRT_NAME_PREFIX)) != 0)
            continue;
        if (has_suffix(de->d_name, ".xml.new"))
            drop_file(dirfd(d), de->d_name);
        if (!has_suffix(de->d_name, ".xml") ||
            (!never_ran(dirfd(d), de->d_name) && !has_ended(dirfd(d), de->d_name)))
            continue;
        autosbuf struct sbuf pid = SBUF(256);
        sbuf_fmt(&pid, "%.*s.pid", (int)(strlen(de->d_name) - strlen(".xml")), de->d_name);
        drop_file(dirfd(d), de->d_name);
        drop_file(dirfd(d), sbuf_str(&pid));
    }
    closedir(d);
    return 0;
}

/* Removes the entries of domains that have no status: nobody knows them. */
static int drop_entries(const char *root, const char *dir, struct err *e)
{
    autosbuf struct sbuf path = SBUF(4096);
    struct dirent *de;
    int r = 0;

    sbuf_fmt(&path, "%s/%s", root, dir);
    if (path.failed)
        return err_nomem(e);
    DIR *d = opendir(sbuf_str(&path));
    if (!d)
        return errno == ENOENT
                   ? 0 : err_sys(e, ERR_INTERNAL, errno, "cannot read %s", sbuf_str(&path));
    while (r == 0 && (de = readdir(d))) {
        const char *found = id_of(de->d_name);
        autosbuf struct sbuf status = SBUF(4096);
        if (!found)
            continue;
        sbuf_fmt(&status, "%s/run/qemu/" VIRT_NAME_PREFIX "%s.xml", root, found);
        if (!status.failed && access(sbuf_str(&status), F_OK) < 0)
            r = io_remove_tree(dirfd(d), de->d_name, e);
    }
    closedir(d);
    return r;
}

static int sweep(const char *root, struct err *e)
{
    int r = sweep_status(root, e);

    for (size_t i = 0; i < ARRAY_SIZE(domain_dirs) && r == 0; i++)
        r = drop_entries(root, domain_dirs[i], e);
    return r;
}

int virt_embed_list(const char *root, void (*fn)(void *arg, const char *sandbox_id), void *arg,
                    struct err *e)
{
    autosbuf struct sbuf path = SBUF(4096);
    struct dirent *de;

    sbuf_fmt(&path, "%s/run/qemu", root);
    if (path.failed)
        return err_nomem(e);
    DIR *d = opendir(sbuf_str(&path));
    if (!d)
        return errno == ENOENT
                   ? 0 : err_sys(e, ERR_INTERNAL, errno, "cannot read %s", sbuf_str(&path));
    while ((de = readdir(d))) {
        const size_t prefix = strlen(VIRT_NAME_PREFIX);
        char id[LIMIT_ID + 1] = "";
        if (strncmp(de->d_name, VIRT_NAME_PREFIX, prefix) != 0 ||
            strlen(de->d_name) != prefix + LIMIT_ID + strlen(".xml") ||
            !has_suffix(de->d_name, ".xml") || never_ran(dirfd(d), de->d_name))
            continue;
        memcpy(id, de->d_name + prefix, LIMIT_ID);
        if (id_valid(id))
            fn(arg, id);
    }
    closedir(d);
    return 0;
}

int virt_embed_forget(const char *root, const char *sandbox_id, struct err *e)
{
    autosbuf struct sbuf path = SBUF(4096);

    sbuf_fmt(&path, "%s/log/qemu/" VIRT_NAME_PREFIX "%s.log", root, sandbox_id);
    if (path.failed)
        return err_nomem(e);
    if (unlink(sbuf_str(&path)) < 0 && errno != ENOENT)
        return err_sys(e, ERR_INTERNAL, errno, "cannot remove %s", sbuf_str(&path));
    return 0;
}

/* What is there as it should be is not written again: a full disk keeps no daemon from starting. */
static int write_if_other(const char *path, const struct sbuf *text, struct err *e)
{
    autofree char *was = NULL;
    struct err ignored = ERR_INIT;
    struct stat sb;
    size_t len = 0;

    if (lstat(path, &sb) == 0 && S_ISREG(sb.st_mode) && (sb.st_mode & 07777) == 0600 &&
        io_read_file_at(AT_FDCWD, path, text->len, &was, &len, &ignored) == 0 &&
        len == text->len && memcmp(was, sbuf_str(text), len) == 0)
        return 0;
    return io_write_file_at(AT_FDCWD, path, sbuf_str(text), text->len, 0600, e);
}

int virt_embed_prepare(const char *root, struct err *e)
{
    autosbuf struct sbuf conf = SBUF(4096), dir = SBUF(4096), file = SBUF(4096);

    if (root[0] != '/')
        return err_set(e, ERR_INVALID, "libvirt's root directory must be an absolute path");
    sbuf_fmt(&dir, "%s/etc", root);
    sbuf_fmt(&file, "%s/etc/qemu.conf", root);
    if (dir.failed || file.failed)
        return err_set(e, ERR_INVALID, "libvirt's root directory has too long a path");

    sbuf_lit(
        &conf,
        "# Written by sandboxd at each start; changes are lost.\n"
        "# Logs go to plain files: there is no virtlogd beside an embedded driver.\n"
        "stdio_handler = \"file\"\n"
        "# No AppArmor or SELinux label; separation by uid (the DAC driver) is always on.\n"
        "security_driver = \"none\"\n"
        "# Owner of the driver's own directories, which no guest's QEMU may change. Each guest's\n"
        "# XML names a uid of its own; sandboxd makes no domain without one.\n"
        "user = \"root\"\n"
        "group = \"root\"\n"
        "# Former owners of files are not remembered: all files of a guest are made for it.\n"
        "remember_owner = 0\n"
        "# QEMU stays in our own control group: without systemd nobody can be asked for another,\n"
        "# and in a service the control groups are read-only.\n"
        "cgroup_controllers = []\n"
        "seccomp_sandbox = 1\n"
        "dump_guest_core = 0\n"
        "max_core = 0\n"
        "set_process_name = 1\n");
    if (conf.failed)
        return err_nomem(e);

    /* QEMU's own uid walks through here to the files libvirt makes for it. */
    if (io_mkdir_parents(root, 0711, e) < 0 || io_mkdir(sbuf_str(&dir), 0711, e) < 0 ||
        log_prepare(root, e) < 0)
        return -1;
    if (write_if_other(sbuf_str(&file), &conf, e) < 0)
        return -1;
    return sweep(root, e);
}
