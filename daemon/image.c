/* SPDX-License-Identifier: MIT
 *
 * image: finding, listing and removing what image_build.c has made.
 */
#include "daemon/image.h"
#include "common/auto.h"
#include "common/io.h"
#include "daemon/fault.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#define DIGEST_PREFIX "sha256:"
#define PREFIX_LEAST 12

void image_paths_done(struct image_paths *p)
{
    free(p->kernel);
    free(p->initrd);
    free(p->root);
    memset(p, 0, sizeof(*p));
}

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
#define autorows __attribute__((cleanup(rows_done)))

/* A name is looked for first: no name looks like a digest, but a short prefix could be a name. */
static const struct image_row *find(const struct rows *r, const char *ref, struct err *e)
{
    const struct image_row *hit = NULL;
    const char *hex = strncmp(ref, DIGEST_PREFIX, 7) == 0 ? ref + 7 : ref;
    size_t n = strlen(hex), hits = 0;

    for (size_t i = 0; i < r->n; i++) {
        if (r->row[i].name && strcmp(r->row[i].name, ref) == 0)
            return &r->row[i];
    }
    for (size_t i = 0; n >= PREFIX_LEAST && i < r->n; i++) {
        if (strncmp(r->row[i].digest + 7, hex, n) == 0) {
            hit = &r->row[i];
            hits++;
        }
    }
    if (hits == 1)
        return hit;
    if (hits > 1) {
        err_set(e, ERR_REF_AMBIGUOUS, "'%s' could be any of %zu images", ref, hits);
        return NULL;
    }
    err_set(e, ERR_IMAGE_NOT_FOUND, "no image '%s'", ref);
    if (r->n == 0)
        err_hint(e, "build one with `sandboxd image build`");
    else
        err_hint(e, "`sbx images` lists them, `sandboxd image build` makes them");
    return NULL;
}

static char *path_of(const char *dir, const char *digest, const char *file)
{
    char *s = NULL;

    return asprintf(&s, "%s/%s/%s", dir, digest + 7, file) < 0 ? NULL : s;
}

int image_resolve(struct store *st, const char *view_dir, const char *ref, struct image_paths *ret,
                  struct err *e)
{
    autorows struct rows r = { 0 };
    struct image_paths p = { 0 };

    if (store_image_list(st, &r.row, &r.n, e) < 0)
        return -1;
    const struct image_row *row = find(&r, ref, e);
    if (!row)
        return -1;
    memcpy(p.digest, row->digest, sizeof(p.digest));
    p.root_size = row->root_size;
    p.kernel = path_of(view_dir, p.digest, "kernel");
    p.initrd = path_of(view_dir, p.digest, "initrd");
    p.root = path_of(view_dir, p.digest, "root.img");
    if (!p.kernel || !p.initrd || !p.root) {
        image_paths_done(&p);
        return err_nomem(e);
    }
    if (access(p.root, R_OK) < 0 || access(p.kernel, R_OK) < 0 || access(p.initrd, R_OK) < 0) {
        image_paths_done(&p);
        err_set(e, ERR_IMAGE_NOT_FOUND, "the files of image '%s' are missing", ref);
        return err_hint(e, "build it again with `sandboxd image build`");
    }
    *ret = p;
    return 0;
}

static int copy(char **ret, const char *s, struct err *e)
{
    if (!s)
        return 0;
    *ret = strdup(s);
    return *ret ? 0 : err_nomem(e);
}

static int describe(const struct image_row *row, struct api_image *ret, struct err *e)
{
    ret->size = row->size;
    ret->sandboxes = row->sandboxes;
    ret->created_at = row->created_at;
    if (copy(&ret->name, row->name, e) < 0 || copy(&ret->digest, row->digest, e) < 0 ||
        copy(&ret->variant, row->variant, e) < 0 || copy(&ret->os, row->os, e) < 0 ||
        copy(&ret->kernel, row->kernel, e) < 0)
        return -1;
    return 0;
}

int image_list(struct store *st, struct api_image_list *ret, struct err *e)
{
    autorows struct rows r = { 0 };

    if (store_image_list(st, &r.row, &r.n, e) < 0)
        return -1;
    struct api_image *items = calloc(r.n + 1, sizeof(*items));
    if (!items)
        return err_nomem(e);
    *ret = (struct api_image_list){ .images = { .items = items, .n = r.n } };
    for (size_t i = 0; i < r.n; i++) {
        if (describe(&r.row[i], &items[i], e) < 0) {
            json_done(api_image_list_table, ret, sizeof(*ret));
            return -1;
        }
    }
    return 0;
}

int image_inspect(struct store *st, const char *ref, struct api_image *ret, struct err *e)
{
    autorows struct rows r = { 0 };

    if (store_image_list(st, &r.row, &r.n, e) < 0)
        return -1;
    const struct image_row *row = find(&r, ref, e);
    if (!row)
        return -1;
    if (describe(row, ret, e) < 0) {
        json_done(api_image_table, ret, sizeof(*ret));
        return -1;
    }
    return 0;
}

int image_remove(struct store *st, const char *state_dir, const char *ref, struct err *e)
{
    autorows struct rows r = { 0 };
    autofree char *dir = NULL;

    if (store_image_list(st, &r.row, &r.n, e) < 0)
        return -1;
    const struct image_row *row = find(&r, ref, e);
    if (!row)
        return -1;
    /* The row first: its foreign key is what knows whether a sandbox stands on the image. A crash
     * in between leaves a directory without a row, which the next build removes. */
    if (store_image_delete(st, row->digest, e) < 0)
        return err_wrap(e, "image '%s'", ref);
    fault_here(FAULT_IMAGE_FILES);
    if (asprintf(&dir, "%s/images", state_dir) < 0)
        return err_nomem(e);
    autoclose int fd = open(dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return err_sys(e, ERR_INTERNAL, errno, "cannot open %s", dir);
    /* At once no image any more, whatever becomes of the rest of it. */
    autofree char *gone = NULL;
    if (asprintf(&gone, ".gone-%s", row->digest + 7) < 0)
        return err_nomem(e);
    if (renameat(fd, row->digest + 7, fd, gone) < 0)
        return errno == ENOENT ? 0 : err_sys(e, ERR_INTERNAL, errno, "cannot remove %s", gone);
    fault_here(FAULT_IMAGE_GONE);
    return io_remove_tree(fd, gone, e);
}
