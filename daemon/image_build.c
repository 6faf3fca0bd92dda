/* SPDX-License-Identifier: MIT
 *
 * image_build: makes an image aside, in <state>/images/.build-XXXXXX, and renames it into place.
 *
 *     tree      mmdebstrap: the recipe's packages from the host's own apt sources; its `customize`
 *               hook adds kernel and modules, the user agent, and takes away what an image must not
 *               have
 *     kernel    unpacked to an ELF image
 *     initrd    agent and modules
 *     root.img  mke2fs -d of the tree, sparse
 *
 * The recipe's hash says whether an image is current: files of the recipe, release, size and agent.
 * When only the agent has changed, kernel and root are linked from the image before, and the build
 * takes a moment.
 */
#include "common/auto.h"
#include "common/io.h"
#include "common/limits.h"
#include "common/name.h"
#include "common/proc.h"
#include "common/sbuf.h"
#include "daemon/fault.h"
#include "daemon/image.h"
#include "daemon/image_priv.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#define ROOT_SIZE (20 * GIB)
#define BOOTSTRAP_MS (30 * 60 * 1000)
#define MKFS_MS (10 * 60 * 1000)
#define KERNEL_FILE_MAX (128 * MIB)
#define RECIPE_FILE_MAX (64 * KIB)

struct build {
    struct store *store;
    const struct image_build_opts *opts;
    char *images;                   /* owned: <state>/images */
    char *work;                     /* owned: <images>/.build-XXXXXX, NULL before */
    char *placed;                   /* owned: where it was put; NULL once its row is there */
    char *tree;                     /* owned: <work>/tree */
    char *recipe_dir;               /* owned */
    char *packages;                 /* owned: comma-separated */
    struct strv modules;            /* names */
    char codename[64], os[128];
    char base_hash[IMAGE_HEX], agent_hash[IMAGE_HEX];
    char kernel_release[128];
    uint64_t root_size;
    int lock;                       /* owned */
};

static void build_done(struct build *b)
{
    struct err e = ERR_INIT;

    if (b->work)
        io_remove_tree(AT_FDCWD, b->work, &e);
    if (b->placed)
        io_remove_tree(AT_FDCWD, b->placed, &e);
    free(b->images);
    free(b->work);
    free(b->placed);
    free(b->tree);
    free(b->recipe_dir);
    free(b->packages);
    strv_done(&b->modules);
    fd_close(b->lock);
}

static void step(const struct build *b, const char *what)
{
    if (b->opts->progress)
        b->opts->progress(b->opts->progress_arg, what);
}

static char *join(const char *dir, const char *name)
{
    char *s = NULL;

    return asprintf(&s, "%s/%s", dir, name) < 0 ? NULL : s;
}

/* --- the recipe --- */

static int read_recipe(const struct build *b, const char *file, char **ret, struct err *e)
{
    autofree char *path = join(b->recipe_dir, file);

    if (!path)
        return err_nomem(e);
    return io_read_file_at(AT_FDCWD, path, RECIPE_FILE_MAX, ret, NULL, e);
}

/* Words of a recipe file; '#' begins a comment. */
static int words(char *text, struct strv *out, struct err *e)
{
    char *line_save = NULL;

    for (char *line = strtok_r(text, "\n", &line_save); line;
         line = strtok_r(NULL, "\n", &line_save)) {
        char *save = NULL;
        line[strcspn(line, "#")] = '\0';
        for (char *w = strtok_r(line, " \t", &save); w; w = strtok_r(NULL, " \t", &save)) {
            if (strv_add(out, w, e) < 0)
                return -1;
        }
    }
    return 0;
}

/* VERSION_CODENAME and PRETTY_NAME of an os-release file. */
static int read_os(const char *root, char *codename, size_t codename_size, char *pretty,
                   size_t pretty_size, struct err *e)
{
    autofree char *path = join(root, "etc/os-release");
    autofree char *text = NULL;
    char *save = NULL;

    if (!path)
        return err_nomem(e);
    if (io_read_file_at(AT_FDCWD, path, RECIPE_FILE_MAX, &text, NULL, e) < 0)
        return -1;
    codename[0] = pretty[0] = '\0';
    for (char *l = strtok_r(text, "\n", &save); l; l = strtok_r(NULL, "\n", &save)) {
        const struct {
            const char *key;
            char *buf;
            size_t size;
        } keys[] = { { "VERSION_CODENAME=", codename, codename_size },
                     { "PRETTY_NAME=", pretty, pretty_size } };
        for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
            size_t n = strlen(keys[i].key);
            if (strncmp(l, keys[i].key, n) != 0)
                continue;
            const char *v = l + n + (l[n] == '"');
            snprintf(keys[i].buf, keys[i].size, "%.*s", (int)strcspn(v, "\""), v);
        }
    }
    return 0;
}

static int load_recipe(struct build *b, struct err *e)
{
    autofree char *packages = NULL, *modules = NULL, *customize = NULL;
    autosbuf struct sbuf all = SBUF(1 * MIB), list = SBUF(64 * KIB);
    autostrv struct strv names = STRV_INIT;
    char os[128];

    if (asprintf(&b->recipe_dir, "%s/image/%s", b->opts->share_dir, b->opts->variant) < 0) {
        b->recipe_dir = NULL;
        return err_nomem(e);
    }
    if (read_recipe(b, "packages", &packages, e) < 0 ||
        read_recipe(b, "modules", &modules, e) < 0 ||
        read_recipe(b, "customize", &customize, e) < 0) {
        err_wrap(e, "variant '%s'", b->opts->variant);
        return err_hint(e, "variants are the directories in %s/image", b->opts->share_dir);
    }
    if (read_os("/", b->codename, sizeof(b->codename), os, sizeof(os), e) < 0)
        return -1;
    if (!b->codename[0])
        return err_set(e, ERR_UNAVAILABLE, "/etc/os-release names no release of Debian");
    sbuf_fmt(&all, "%s\n%s\n%s\n%s\n%llu\n", packages, modules, customize, b->codename,
             (unsigned long long)b->root_size);
    image_digest_text(sbuf_str(&all), b->base_hash);
    if (image_digest_file(b->opts->agent, b->agent_hash, e) < 0)
        return err_wrap(e, "the agent");
    if (words(packages, &names, e) < 0 || words(modules, &b->modules, e) < 0)
        return -1;
    for (size_t i = 0; i < names.n; i++)
        sbuf_fmt(&list, "%s%s", i ? "," : "", names.items[i]);
    return sbuf_take(&list, &b->packages, e);
}

/* --- steps --- */

/* The host's way through a proxy is the build's, and is not written into the image. As with apt,
 * what its configuration says comes before the environment. */
static int proxy_options(struct strv *argv, struct err *e)
{
    static const char *const schemes[] = { "http", "https" };
    const char *const dump[] = { "apt-config", "dump", "--format", "%f %v%n", "Acquire", NULL };
    autofree char *text = NULL;
    char *save = NULL;

    for (size_t i = 0; i < ARRAY_SIZE(schemes); i++) {
        char name[16];
        snprintf(name, sizeof(name), "%s_proxy", schemes[i]);
        const char *url = getenv(name);
        if (url && url[0] && !strpbrk(url, "\"\n") &&
            strv_addf(argv, e, "--aptopt=Acquire::%s::Proxy \"%s\"", schemes[i], url) < 0)
            return -1;
    }
    if (proc_run(dump, deadline_in(DEADLINE_CHILD), 64 * KIB, &text, e) < 0)
        return -1;
    for (char *l = strtok_r(text, "\n", &save); l; l = strtok_r(NULL, "\n", &save)) {
        size_t n = strcspn(l, " ");
        if (!memmem(l, n, "::Proxy", 7) || l[n] == '\0' || l[n + 1] == '\0')
            continue;
        if (strv_addf(argv, e, "--aptopt=%.*s \"%s\"", (int)n, l, l + n + 1) < 0)
            return -1;
    }
    return 0;
}

static int make_tree(struct build *b, struct err *e)
{
    autostrv struct strv argv = STRV_INIT;
    autofree char *hook = join(b->recipe_dir, "customize");

    step(b, "installing Debian packages");
    if (!hook)
        return err_nomem(e);
    /* In a pid and mount namespace of its own, whose end is the end of all that runs and is mounted
     * in it: a build that is killed leaves nothing but its directory. */
    static const char *const confined[] = { "unshare", "--fork", "--pid", "--mount-proc",
                                            "--kill-child=KILL", "--" };
    for (size_t i = 0; i < ARRAY_SIZE(confined); i++)
        if (strv_add(&argv, confined[i], e) < 0)
            return -1;
    if (strv_add(&argv, "mmdebstrap", e) < 0 || strv_add(&argv, "--variant=minbase", e) < 0 ||
        strv_add(&argv, "--quiet", e) < 0 ||
        strv_add(&argv, "--aptopt=APT::Install-Recommends \"false\"", e) < 0 ||
        strv_add(&argv, "--dpkgopt=path-exclude=/usr/share/man/*", e) < 0 ||
        strv_add(&argv, "--dpkgopt=path-exclude=/usr/share/locale/*", e) < 0 ||
        strv_add(&argv, "--dpkgopt=path-exclude=/usr/share/doc/*", e) < 0 ||
        strv_add(&argv, "--dpkgopt=path-include=/usr/share/doc/*/copyright", e) < 0 ||
        strv_addf(&argv, e, "--include=%s", b->packages) < 0 ||
        strv_addf(&argv, e, "--customize-hook=%s", hook) < 0 || proxy_options(&argv, e) < 0 ||
        strv_add(&argv, b->codename, e) < 0 || strv_add(&argv, b->tree, e) < 0 ||
        image_sources_read("", b->codename, &argv, e) < 0)
        return -1;
    if (proc_run((const char *const *)argv.items, deadline_in(BOOTSTRAP_MS), 0, NULL, e) < 0) {
        err_wrap(e, "cannot install Debian's packages");
        return err_hint(e, "does `apt-get update` work on this host?");
    }
    return read_os(b->tree, b->codename, sizeof(b->codename), b->os, sizeof(b->os), e);
}

static int find_kernel(struct build *b, struct err *e)
{
    autofree char *dir = join(b->tree, "boot");
    DIR *d = dir ? opendir(dir) : NULL;
    struct dirent *de;

    while (d && (de = readdir(d))) {
        if (strncmp(de->d_name, "vmlinuz-", 8) == 0)
            snprintf(b->kernel_release, sizeof(b->kernel_release), "%s", de->d_name + 8);
    }
    if (d)
        closedir(d);
    return b->kernel_release[0] ? 0 : err_set(e, ERR_INTERNAL, "the tree has no kernel");
}

static int make_kernel(struct build *b, struct err *e)
{
    autofree char *from = NULL, *bz = NULL;
    autofree uint8_t *elf = NULL;
    autoclose int dir = open(b->work, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    size_t bz_len = 0, elf_len = 0;
    const char *why = NULL;

    step(b, "unpacking the kernel");
    if (find_kernel(b, e) < 0)
        return -1;
    if (asprintf(&from, "%s/boot/vmlinuz-%s", b->tree, b->kernel_release) < 0)
        return err_nomem(e);
    if (dir < 0)
        return err_sys(e, ERR_INTERNAL, errno, "%s", b->work);
    if (io_read_file_at(AT_FDCWD, from, KERNEL_FILE_MAX, &bz, &bz_len, e) < 0)
        return -1;
    int r = image_kernel_unpack((const uint8_t *)bz, bz_len, &elf, &elf_len, &why, e);
    if (r < 0)
        return -1;
    if (r == 0)
        step(b, why);   /* boots as Debian ships it */
    return r ? io_write_file_at(dir, "kernel", elf, elf_len, 0644, e)
             : io_write_file_at(dir, "kernel", bz, bz_len, 0644, e);
}

/* The modules stay in a corner of the image: an initrd can be made again without the tree. */
static int keep_modules(struct build *b, struct err *e)
{
    autofree char *from = NULL, *to = join(b->work, "modules");

    if (asprintf(&from, "%s/usr/lib/modules/%s", b->tree, b->kernel_release) < 0)
        return err_nomem(e);
    const char *const argv[] = { "cp", "-a", "--reflink=auto", from, to, NULL };
    return to ? proc_run(argv, deadline_in(MKFS_MS), 0, NULL, e) : err_nomem(e);
}

static int make_initrd(struct build *b, const char *modules_dir, struct err *e)
{
    autofree char *path = join(b->work, "initrd");

    step(b, "packing the initramfs");
    if (!path)
        return err_nomem(e);
    if (fault_at(FAULT_IMAGE_INITRD, e) < 0)
        return -1;
    return image_initrd_write(path, b->opts->agent, modules_dir, &b->modules, e);
}

static int make_root(struct build *b, struct err *e)
{
    autofree char *path = join(b->work, "root.img");
    autosbuf struct sbuf size = SBUF(32);

    step(b, "writing the root file system");
    if (!path)
        return err_nomem(e);
    sbuf_fmt(&size, "%lluk", (unsigned long long)(b->root_size / KIB));
    /* The journal is small and the inode tables are written when needed: what is not written here
     * is not copied into every sandbox's overlay. */
    const char *const argv[] = { "mke2fs", "-q", "-t", "ext4", "-m", "0", "-L", "root", "-J",
                                 "size=64", "-E", "lazy_itable_init=1,lazy_journal_init=1", "-d",
                                 b->tree, path, sbuf_str(&size), NULL };
    if (proc_run(argv, deadline_in(MKFS_MS), 0, NULL, e) < 0)
        return err_wrap(e, "cannot write the root file system");
    return chmod(path, 0644) < 0 ? err_sys(e, ERR_INTERNAL, errno, "%s", path) : 0;
}

static int link_part(const struct build *b, const char *old_hex, const char *part, struct err *e)
{
    autofree char *from = NULL, *to = join(b->work, part);

    if (!to || asprintf(&from, "%s/%s/%s", b->images, old_hex, part) < 0)
        return err_nomem(e);
    return link(from, to) < 0 ? err_sys(e, ERR_INTERNAL, errno, "%s", from) : 0;
}

/* --- putting it in place --- */

static int fsync_path(const char *path, struct err *e)
{
    autoclose int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0 || fsync(fd) < 0)
        return err_sys(e, ERR_INTERNAL, errno, "cannot write %s", path);
    return 0;
}

static int add_part(const struct build *b, const char *part, struct sbuf *all, uint64_t *size,
                    struct err *e)
{
    autofree char *path = join(b->work, part);
    char hex[IMAGE_HEX];
    struct stat sb;

    if (!path)
        return err_nomem(e);
    if (fsync_path(path, e) < 0 || image_digest_file(path, hex, e) < 0)
        return -1;
    if (stat(path, &sb) < 0)
        return err_sys(e, ERR_INTERNAL, errno, "%s", path);
    *size += (uint64_t)sb.st_blocks * 512;
    sbuf_fmt(all, "%s %s\n", hex, part);
    return 0;
}

static int write_json(const struct build *b, const struct image_row *row, struct err *e)
{
    struct api_image image = {
        .name = row->name, .digest = (char *)(uintptr_t)row->digest, .variant = row->variant,
        .os = row->os, .kernel = row->kernel, .size = row->size, .created_at = row->created_at,
    };
    autosbuf struct sbuf text = SBUF(64 * KIB);
    autoclose int dir = open(b->work, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (dir < 0)
        return err_sys(e, ERR_INTERNAL, errno, "%s", b->work);
    if (json_encode(api_image_table, &image, &text, e) < 0)
        return -1;
    sbuf_chr(&text, '\n');
    return io_write_file_at(dir, "image.json", sbuf_str(&text), text.len, 0644, e);
}

/* The first BASE_PARTS take long to make. */
static const char *const image_parts[] = { "kernel", "root.img", "modules", "initrd",
                                           "image.json" };
#define BASE_PARTS 3

/* Has `dir` the first n parts of an image, and, with `like`, each as large as there? */
static bool has_parts(const char *dir, size_t n, const char *like)
{
    for (size_t i = 0; i < n; i++) {
        autofree char *part = join(dir, image_parts[i]);
        autofree char *other = like ? join(like, image_parts[i]) : NULL;
        struct stat a, b;
        if (!part || stat(part, &a) < 0)
            return false;
        if (S_ISDIR(a.st_mode))
            continue;
        if (a.st_size == 0 || (like && (!other || stat(other, &b) < 0 || a.st_size != b.st_size)))
            return false;
    }
    return true;
}

static int place(struct build *b, const char *hex, struct err *e)
{
    autofree char *to = join(b->images, hex);
    struct err ignored = ERR_INIT;

    if (!to)
        return err_nomem(e);
    if (chmod(b->work, 0755) < 0 || fsync_path(b->work, e) < 0)
        return err_sys(e, ERR_INTERNAL, errno, "%s", b->work);
    if (rename(b->work, to) == 0) {
        b->placed = take_ptr(to);
    } else {
        if (errno != EEXIST && errno != ENOTEMPTY)
            return err_sys(e, ERR_INTERNAL, errno, "cannot place %s", to);
        /* The very same is there already; if it was damaged since, it is exchanged. Machines that
         * run on it keep what they have open. */
        if (!has_parts(to, ARRAY_SIZE(image_parts), b->work) &&
            renameat2(AT_FDCWD, b->work, AT_FDCWD, to, RENAME_EXCHANGE) < 0)
            return err_sys(e, ERR_INTERNAL, errno, "cannot place %s", to);
        io_remove_tree(AT_FDCWD, b->work, &ignored);
    }
    free(take_ptr(b->work));
    return fsync_path(b->images, e);
}

static int copy(char **ret, const char *s, struct err *e)
{
    *ret = strdup(s);
    return *ret ? 0 : err_nomem(e);
}

static void row_cleanup(struct image_row *r)
{
    image_row_done(r);
}

static int register_image(struct build *b, char **ret_digest, struct err *e)
{
    __attribute__((cleanup(row_cleanup))) struct image_row row = { .root_size = b->root_size,
                                                                   .created_at = now_real_us() };
    autosbuf struct sbuf all = SBUF(4 * KIB), recipe = SBUF(256);
    char hex[IMAGE_HEX];

    step(b, "computing the digest");
    if (fault_at(FAULT_IMAGE_DIGEST, e) < 0 ||
        add_part(b, "kernel", &all, &row.size, e) < 0 ||
        add_part(b, "initrd", &all, &row.size, e) < 0 ||
        add_part(b, "root.img", &all, &row.size, e) < 0)
        return -1;
    image_digest_text(sbuf_str(&all), hex);
    snprintf(row.digest, sizeof(row.digest), "sha256:%s", hex);
    sbuf_fmt(&recipe, "%s %s", b->base_hash, b->agent_hash);
    if (copy(&row.name, b->opts->name, e) < 0 || copy(&row.variant, b->opts->variant, e) < 0 ||
        copy(&row.os, b->os, e) < 0 || copy(&row.kernel, b->kernel_release, e) < 0 ||
        sbuf_take(&recipe, &row.recipe, e) < 0 || write_json(b, &row, e) < 0 ||
        fault_at(FAULT_IMAGE_PLACE, e) < 0 || place(b, hex, e) < 0 ||
        fault_at(FAULT_IMAGE_ROW, e) < 0 || store_image_insert(b->store, &row, e) < 0)
        return -1;
    free(take_ptr(b->placed));
    fault_here(FAULT_IMAGE_ANSWER);
    return copy(ret_digest, row.digest, e);
}

/* --- from what is there --- */

struct rows {
    struct image_row *row;
    size_t n;
};

static void rows_done(struct rows *r)
{
    for (size_t i = 0; i < r->n; i++)
        image_row_done(&r->row[i]);
    free(r->row);
}

/* An image of the same recipe: its digest in hex, and whether the agent is the same too. */
static const struct image_row *same_base(const struct build *b, const struct rows *r,
                                         bool agent_too)
{
    for (size_t i = r->n; i-- > 0;) {
        const struct image_row *row = &r->row[i];
        autofree char *dir = NULL, *initrd = NULL;
        bool same = strncmp(row->recipe, b->base_hash, IMAGE_HEX - 1) == 0;
        if (agent_too)
            same = same && strlen(row->recipe) == 2 * IMAGE_HEX - 1 && row->name &&
                   strcmp(row->recipe + IMAGE_HEX, b->agent_hash) == 0 &&
                   strcmp(row->name, b->opts->name) == 0;
        /* Images of an earlier version may lack the room. */
        if (same && agent_too)
            same = asprintf(&initrd, "%s/%s/initrd", b->images, row->digest + 7) >= 0 &&
                   image_initrd_leaves_room(initrd);
        if (same && asprintf(&dir, "%s/%s", b->images, row->digest + 7) >= 0 &&
            has_parts(dir, agent_too ? ARRAY_SIZE(image_parts) : BASE_PARTS, NULL))
            return row;
    }
    return NULL;
}

static int build_on(struct build *b, const struct image_row *old, struct err *e)
{
    const char *hex = old->digest + 7;
    autofree char *modules = NULL, *kept = join(b->work, "modules");

    step(b, "taking kernel and root file system from the image before");
    snprintf(b->os, sizeof(b->os), "%s", old->os);
    snprintf(b->kernel_release, sizeof(b->kernel_release), "%s", old->kernel);
    if (!kept || asprintf(&modules, "%s/%s/modules", b->images, hex) < 0)
        return err_nomem(e);
    const char *const argv[] = { "cp", "-al", modules, kept, NULL };
    if (link_part(b, hex, "kernel", e) < 0 || link_part(b, hex, "root.img", e) < 0 ||
        proc_run(argv, deadline_in(DEADLINE_CHILD), 0, NULL, e) < 0)
        return -1;
    return make_initrd(b, kept, e);
}

static int build_new(struct build *b, struct err *e)
{
    struct err ignored = ERR_INIT;
    autofree char *kept = join(b->work, "modules");

    if (!kept)
        return err_nomem(e);
    if (make_tree(b, e) < 0 || make_kernel(b, e) < 0 || keep_modules(b, e) < 0 ||
        make_initrd(b, kept, e) < 0 || make_root(b, e) < 0)
        return -1;
    return io_remove_tree(AT_FDCWD, b->tree, &ignored);
}

/* One build at a time; what a killed one left is removed by the next. */
static int begin(struct build *b, struct err *e)
{
    autofree char *lock = join(b->images, ".lock");

    if (!lock || io_mkdir(b->images, 0755, e) < 0)
        return lock ? -1 : err_nomem(e);
    b->lock = open(lock, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (b->lock < 0)
        return err_sys(e, ERR_INTERNAL, errno, "cannot open %s", lock);
    if (flock(b->lock, LOCK_EX | LOCK_NB) == 0)
        return 0;
    step(b, "another build is under way, waiting for its end");
    return flock(b->lock, LOCK_EX) == 0
               ? 0 : err_sys(e, ERR_INTERNAL, errno, "cannot lock %s", lock);
}

/* What builds and removals left that were cut off, and, given rows, directories that none of them
 * names. Under the lock, so nobody else's. */
static int sweep(const char *images, const struct rows *r, struct err *e)
{
    DIR *d = opendir(images);
    struct dirent *de;
    int rc = 0;

    if (!d)
        return err_sys(e, ERR_INTERNAL, errno, "cannot read %s", images);
    while (rc == 0 && (de = readdir(d))) {
        bool left = strncmp(de->d_name, ".build-", 7) == 0 ||
                    strncmp(de->d_name, ".gone-", 6) == 0;
        if (r && strlen(de->d_name) == IMAGE_HEX - 1 &&
            strspn(de->d_name, "0123456789abcdef") == IMAGE_HEX - 1) {
            left = true;
            for (size_t i = 0; i < r->n && left; i++)
                left = strcmp(r->row[i].digest + 7, de->d_name) != 0;
        }
        if (left)
            rc = io_remove_tree(dirfd(d), de->d_name, e);
    }
    closedir(d);
    return rc;
}

int image_tidy(const char *state_dir, struct err *e)
{
    autofree char *images = join(state_dir, "images");
    autofree char *path = images ? join(images, ".lock") : NULL;

    if (!path)
        return err_nomem(e);
    autoclose int lock = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (lock < 0)       /* nothing was ever built, or images come from elsewhere, read-only */
        return errno == ENOENT || errno == EROFS
                   ? 0
                   : err_sys(e, ERR_INTERNAL, errno, "cannot open %s", path);
    if (flock(lock, LOCK_EX | LOCK_NB) < 0)
        return errno == EWOULDBLOCK ? 0 : err_sys(e, ERR_INTERNAL, errno, "cannot lock %s", path);
    return sweep(images, NULL, e);
}

static int make_work(struct build *b, struct err *e)
{
    char *work = join(b->images, ".build-XXXXXX");

    if (!work)
        return err_nomem(e);
    if (!mkdtemp(work)) {
        err_sys(e, ERR_INTERNAL, errno, "cannot make %s", work);
        free(work);
        return -1;
    }
    b->work = work;
    b->tree = join(work, "tree");
    return b->tree ? 0 : err_nomem(e);
}

int image_build(struct store *st, const char *state_dir, const struct image_build_opts *opts,
                char **ret_digest, struct err *e)
{
    __attribute__((cleanup(build_done))) struct build b = { .store = st, .opts = opts, .lock = -1 };
    __attribute__((cleanup(rows_done))) struct rows r = { 0 };

    b.root_size = opts->root_size ? opts->root_size : ROOT_SIZE;
    b.images = join(state_dir, "images");
    if (!b.images)
        return err_nomem(e);
    if (!name_valid(opts->name) || !name_valid(opts->variant))
        return err_set(e, ERR_INVALID, "'%s' cannot be the name of an image", opts->name);
    if (load_recipe(&b, e) < 0 || begin(&b, e) < 0 || store_image_list(st, &r.row, &r.n, e) < 0 ||
        fault_at(FAULT_IMAGE_SWEEP, e) < 0 || sweep(b.images, &r, e) < 0)
        return -1;
    const struct image_row *current = opts->if_missing ? same_base(&b, &r, true) : NULL;
    if (current)
        return copy(ret_digest, current->digest, e);
    if (opts->begins && opts->begins(opts->begins_arg, e) < 0)
        return -1;
    const struct image_row *base = opts->if_missing ? same_base(&b, &r, false) : NULL;
    if (make_work(&b, e) < 0 || fault_at(FAULT_IMAGE_BASE, e) < 0 ||
        (base ? build_on(&b, base, e) : build_new(&b, e)) < 0)
        return -1;
    return register_image(&b, ret_digest, e);
}
