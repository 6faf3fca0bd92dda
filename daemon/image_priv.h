/* SPDX-License-Identifier: MIT
 *
 * image_priv: the steps of building an image, each a function that can be tested alone. Only
 * image*.c include it.
 */
#pragma once

#include "common/err.h"
#include "common/strv.h"
#include <stddef.h>
#include <stdint.h>

/* --- image_sources.c --- */
/* Picks the entries of Debian itself for `codename` out of one file of apt's sources and appends
 * them to `out` as one-line entries ("deb URI SUITE main"). `deb822`: the .sources form, else one
 * line each. Others' repositories are passed over: a guest gets what Debian ships. */
int image_sources_parse(const char *text, bool deb822, const char *codename, struct strv *out,
                        struct err *e);
/* The same for all files below `root`/etc/apt. ERR_UNAVAILABLE when nothing is left. */
int image_sources_read(const char *root, const char *codename, struct strv *out, struct err *e);

/* --- image_kernel.c --- */
/* Takes the ELF image out of a bzImage (lz4 or zstd), so that it can be entered by PVH without the
 * guest unpacking it. Owned. ERR_INVALID for a file that is none, or is packed another way. */
int image_kernel_unpack(const uint8_t *bz, size_t len, uint8_t **ret, size_t *ret_len,
                        struct err *e);

/* --- image_initrd.c --- */
/* Writes an initramfs to `path`: agent as /init, the wanted modules (names) of `modules_dir`
 * (…/lib/modules/RELEASE) and what they need, and the list in which order to insert them. Names
 * that are built in or do not exist in this kernel are passed over. */
int image_initrd_write(const char *path, const char *agent, const char *modules_dir,
                       const struct strv *wanted, struct err *e);
/* Files below modules_dir in order of insertion. Exposed for tests. */
int image_modules_order(const char *modules_dep, const struct strv *wanted, struct strv *out,
                        struct err *e);

/* --- image_digest.c --- */
#define IMAGE_HEX 65
/* sha256 of a file's content; holes of sparse files are hashed by their extent, not read. */
int image_digest_file(const char *path, char hex[IMAGE_HEX], struct err *e);
int image_digest_text(const char *text, char hex[IMAGE_HEX]);
