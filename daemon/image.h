/* SPDX-License-Identifier: MIT
 *
 * image: base images below <state>/images/<digest hex>/: kernel (bootable by PVH), initrd
 * (agent + modules), root.img (raw ext4, sparse), image.json. A directory is complete when it is
 * there (built aside, then renamed) and never changed after. Names point to digests in the store;
 * a rebuild moves the name and leaves the old image to the sandboxes that use it.
 */
#pragma once

#include "common/api.h"
#include "common/err.h"
#include "daemon/store.h"

struct image_paths {        /* owned; below `view_dir`, the read-only bind mount of images/ */
    char digest[80];        /* "sha256:" + hex */
    char *kernel, *initrd, *root;
    uint64_t root_size;     /* virtual size of root.img: the least a sandbox's disk can be */
};
void image_paths_done(struct image_paths *p);

/* name or digest (or unique digest prefix of at least 12) → paths. ERR_IMAGE_NOT_FOUND. */
int image_resolve(struct store *st, const char *view_dir, const char *ref, struct image_paths *ret,
                  struct err *e);
int image_list(struct store *st, struct api_image_list *ret, struct err *e);
int image_inspect(struct store *st, const char *ref, struct api_image *ret, struct err *e);
/* ERR_IMAGE_IN_USE while a sandbox stands on it. */
int image_remove(struct store *st, const char *state_dir, const char *ref, struct err *e);

struct image_build_opts {
    const char *name;           /* "debian" */
    const char *variant;        /* "debian"; a recipe below share_dir/image/ */
    const char *share_dir;      /* recipes, sbx-agent: the install prefix or the build tree */
    const char *agent;          /* path of the static sbx-agent */
    uint64_t root_size;         /* 0: default 20 GiB virtual */
    bool if_missing;            /* nothing to do when recipe and agent are unchanged */
    void (*progress)(void *arg, const char *step);   /* may be NULL */
    void *progress_arg;
    /* There is something to build, and nothing is made yet; a failure ends it. May be NULL. */
    int (*begins)(void *arg, struct err *e);
    void *begins_arg;
};
/* Builds and registers. Leaves nothing half-made. Prints nothing itself. Runs in a process of its
 * own (`sandboxd image build`), also beside a running daemon. */
int image_build(struct store *st, const char *state_dir, const struct image_build_opts *opts,
                char **ret_digest, struct err *e);
/* For the start of the daemon: takes away what builds and removals left that were cut off, unless a
 * build is under way. What has no row stays: a database that is put back may know it again. */
int image_tidy(const char *state_dir, struct err *e);
