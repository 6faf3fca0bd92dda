/* SPDX-License-Identifier: MIT
 *
 * image_initrd: a newc archive, not compressed: the guest unpacks it under emulation, where reading
 * a few megabytes is cheaper than computing them.
 */
#include "common/auto.h"
#include "common/io.h"
#include "common/limits.h"
#include "common/sbuf.h"
#include "daemon/image_priv.h"

#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define MODULE_MAX (16 * MIB)
#define AGENT_MAX (64 * MIB)
#define DEP_MAX (4 * MIB)
#define ORDER_MAX 256

/* "kernel/drivers/block/virtio_blk.ko.xz" is module "virtio_blk"; '-' and '_' are the same. */
static bool is_module(const char *path, size_t len, const char *name)
{
    const char *base = memrchr(path, '/', len);
    size_t i;

    base = base ? base + 1 : path;
    len -= (size_t)(base - path);
    for (i = 0; name[i]; i++) {
        char a = i < len ? base[i] : '\0', b = name[i];
        if ((a == '-' ? '_' : a) != (b == '-' ? '_' : b))
            return false;
    }
    return len >= i + 3 && memcmp(base + i, ".ko", 3) == 0 && (len == i + 3 || base[i + 3] == '.');
}

/* The line of modules.dep for a path ("path: needs needs"), or for a name. */
static const char *dep_line(const char *dep, const char *path, size_t path_len, const char *name)
{
    for (const char *line = dep; *line;) {
        size_t n = strcspn(line, ":\n");
        if (line[n] == ':' && (name ? is_module(line, n, name)
                                    : n == path_len && memcmp(line, path, n) == 0))
            return line;
        line += strcspn(line, "\n");
        line += *line == '\n';
    }
    return NULL;
}

static int add_with_needs(const char *dep, const char *line, struct strv *out, unsigned depth,
                          struct err *e)
{
    size_t n = strcspn(line, ":"), end = strcspn(line, "\n");
    const char *p = line + n + 1;

    for (size_t i = 0; i < out->n; i++) {
        if (strlen(out->items[i]) == n && memcmp(out->items[i], line, n) == 0)
            return 0;
    }
    if (depth > 32 || out->n >= ORDER_MAX)
        return err_set(e, ERR_INVALID, "modules.dep goes in circles");
    while (p < line + end) {
        p += strspn(p, " ");
        size_t len = strcspn(p, " \n");
        const char *need = len ? dep_line(dep, p, len, NULL) : NULL;
        if (need && add_with_needs(dep, need, out, depth + 1, e) < 0)
            return -1;
        p += len;
    }
    autofree char *path = strndup(line, n);
    return strv_add_take(out, &path, e);
}

/* modules.builtin has one path a line. */
static bool is_builtin(const char *builtin, const char *name)
{
    for (const char *line = builtin; *line;) {
        size_t n = strcspn(line, "\n");
        if (is_module(line, n, name))
            return true;
        line += n + (line[n] == '\n');
    }
    return false;
}

int image_modules_order(const char *dep, const char *builtin, const struct strv *wanted,
                        struct strv *out, struct err *e)
{
    for (size_t i = 0; i < wanted->n; i++) {
        const char *line = dep_line(dep, NULL, 0, wanted->items[i]);
        if (!line && !is_builtin(builtin, wanted->items[i])) {
            err_set(e, ERR_INVALID, "this kernel has no module '%s'", wanted->items[i]);
            return err_hint(e, "the recipe's file `modules` names what the guest boots with");
        }
        if (line && add_with_needs(dep, line, out, 0, e) < 0)
            return -1;
    }
    return 0;
}

AUTO_DEFINE(reader, struct archive, archive_read_free)
AUTO_DEFINE(writer, struct archive, archive_write_free)
AUTO_DEFINE(entry, struct archive_entry, archive_entry_free)

static int archive_err(struct archive *a, const char *what, struct err *e)
{
    int no = archive_errno(a);

    return err_set(e, no == ENOSPC ? ERR_NO_SPACE : ERR_INTERNAL, "%s: %s", what,
                   archive_error_string(a) ? archive_error_string(a) : "failed");
}

static int put(struct archive *a, const char *name, mode_t mode, const void *data, size_t len,
               dev_t rdev, struct err *e)
{
    autotype(entry) struct archive_entry *en = archive_entry_new();

    if (!en)
        return err_nomem(e);
    archive_entry_set_pathname(en, name);
    archive_entry_set_mode(en, mode);
    archive_entry_set_size(en, (int64_t)len);
    archive_entry_set_rdev(en, rdev);
    archive_entry_set_mtime(en, 0, 0);      /* the same input gives the same archive */
    if (archive_write_header(a, en) != ARCHIVE_OK ||
        (len && archive_write_data(a, data, len) != (la_ssize_t)len))
        return archive_err(a, name, e);
    return 0;
}

/* A module as the kernel takes it, unpacked (.ko.xz, .ko.zst) if need be. */
static int read_module(const char *path, char **ret, size_t *ret_len, struct err *e)
{
    autotype(reader) struct archive *a = archive_read_new();
    autofree char *buf = malloc(MODULE_MAX);
    struct archive_entry *en;
    size_t len = 0;

    if (!a || !buf)
        return err_nomem(e);
    archive_read_support_filter_all(a);
    archive_read_support_format_raw(a);
    if (archive_read_open_filename(a, path, 64 * KIB) != ARCHIVE_OK ||
        archive_read_next_header(a, &en) != ARCHIVE_OK)
        return archive_err(a, path, e);
    for (;;) {
        la_ssize_t n = archive_read_data(a, buf + len, MODULE_MAX - len);
        if (n < 0)
            return archive_err(a, path, e);
        if (n == 0)
            break;
        len += (size_t)n;
        if (len == MODULE_MAX)
            return err_set(e, ERR_TOO_LARGE, "%s is larger than %llu MiB", path, MODULE_MAX / MIB);
    }
    char *fit = realloc(buf, len ? len : 1);
    buf = NULL;
    *ret = fit;
    *ret_len = len;
    return fit ? 0 : err_nomem(e);
}

static int put_modules(struct archive *a, const char *dir, const struct strv *order, struct err *e)
{
    autosbuf struct sbuf manifest = SBUF(64 * KIB);

    sbuf_lit(&manifest, "");
    for (size_t i = 0; i < order->n; i++) {
        autosbuf struct sbuf path = SBUF(LIMIT_PATH), name = SBUF(LIMIT_PATH);
        autofree char *data = NULL;
        const char *base = strrchr(order->items[i], '/');
        size_t len = 0;
        base = base ? base + 1 : order->items[i];
        sbuf_fmt(&path, "%s/%s", dir, order->items[i]);
        int stem = (int)(strstr(base, ".ko") - base) + 3;
        sbuf_fmt(&name, "modules/%.*s", stem, base);
        sbuf_fmt(&manifest, "%.*s\n", stem, base);
        if (read_module(sbuf_str(&path), &data, &len, e) < 0 ||
            put(a, sbuf_str(&name), S_IFREG | 0644, data, len, 0, e) < 0)
            return -1;
    }
    return put(a, "modules/manifest", S_IFREG | 0644, sbuf_str(&manifest), manifest.len, 0, e);
}

static int write_archive(struct archive *a, int fd, const char *agent, size_t agent_len,
                         const char *dir, const struct strv *order, struct err *e)
{
    archive_write_set_format_cpio_newc(a);
    archive_write_add_filter_none(a);
    if (archive_write_open_fd(a, fd) != ARCHIVE_OK)
        return archive_err(a, "initrd", e);
    if (put(a, "dev", S_IFDIR | 0755, NULL, 0, 0, e) < 0 ||
        put(a, "dev/console", S_IFCHR | 0600, NULL, 0, makedev(5, 1), e) < 0 ||
        put(a, "modules", S_IFDIR | 0755, NULL, 0, 0, e) < 0 ||
        put(a, "init", S_IFREG | 0755, agent, agent_len, 0, e) < 0 ||
        put_modules(a, dir, order, e) < 0)
        return -1;
    return archive_write_close(a) == ARCHIVE_OK ? 0 : archive_err(a, "initrd", e);
}

/* QEMU puts an initrd at the top of memory, down from the last byte to a whole page, and on a
 * microvm without regard for the ACPI tables, which the firmware has put at the very top: 1 to
 * 2 KiB. What the page leaves free has to be more than that, or the kernel reads the end of the
 * initrd for its tables and does not come far. So the size is a few bytes more than whole pages;
 * the kernel passes over zeros after the archive. */
#define PAGE 4096u
#define PAGE_USED 4u

static int leave_room(int fd, struct err *e)
{
    struct stat st;

    if (fstat(fd, &st) < 0)
        return err_sys(e, ERR_INTERNAL, errno, "initrd");
    off_t size = (st.st_size - PAGE_USED + PAGE - 1) / PAGE * PAGE + PAGE_USED;
    return ftruncate(fd, size) < 0 ? err_sys(e, ERR_INTERNAL, errno, "initrd") : 0;
}

bool image_initrd_leaves_room(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 && st.st_size % PAGE == PAGE_USED;
}

int image_initrd_write(const char *path, const char *agent, const char *modules_dir,
                       const struct strv *wanted, struct err *e)
{
    autotype(writer) struct archive *a = archive_write_new();
    autofree char *dep = NULL, *builtin = NULL, *agent_data = NULL;
    autosbuf struct sbuf dep_path = SBUF(LIMIT_PATH), builtin_path = SBUF(LIMIT_PATH);
    autostrv struct strv order = STRV_INIT;
    size_t agent_len = 0;

    if (!a)
        return err_nomem(e);
    sbuf_fmt(&dep_path, "%s/modules.dep", modules_dir);
    sbuf_fmt(&builtin_path, "%s/modules.builtin", modules_dir);
    if (io_read_file_at(AT_FDCWD, sbuf_str(&dep_path), DEP_MAX, &dep, NULL, e) < 0 ||
        io_read_file_at(AT_FDCWD, sbuf_str(&builtin_path), DEP_MAX, &builtin, NULL, e) < 0 ||
        io_read_file_at(AT_FDCWD, agent, AGENT_MAX, &agent_data, &agent_len, e) < 0 ||
        image_modules_order(dep, builtin, wanted, &order, e) < 0)
        return -1;
    autoclose int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd < 0)
        return err_sys(e, ERR_INTERNAL, errno, "cannot make %s", path);
    if (write_archive(a, fd, agent_data, agent_len, modules_dir, &order, e) < 0)
        return -1;
    return leave_room(fd, e);
}
