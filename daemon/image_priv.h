/* SPDX-License-Identifier: MIT
 *
 * image_priv: the steps of building an image, each a function that can be tested alone. Only
 * image*.c include it.
 */
#pragma once

#include "common/err.h"
#include "common/strv.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* --- image_sources.c --- */
/* Picks the entries of Debian itself for `codename` out of one file of apt's sources and appends
 * them to `out`, one line each ("deb [signed-by=…] URI SUITE main"). `deb822`: the .sources form,
 * else lines. Debian's are: type deb, enabled, suite CODENAME, -updates or -security, component
 * main, all keys by path and of the package debian-archive-keyring; without a key, those whose URI
 * is of debian.org or ends in /debian or /debian-security. Others' are passed over. */
int image_sources_parse(const char *text, bool deb822, const char *codename, struct strv *out,
                        struct err *e);
/* The same for all files below `root`/etc/apt. ERR_UNAVAILABLE when they add nothing. */
int image_sources_read(const char *root, const char *codename, struct strv *out, struct err *e);

/* --- image_kernel.c --- */
/* Takes the ELF image out of a bzImage (lz4 or zstd), so that it can be entered by PVH without the
 * guest unpacking it. 1: *ret (owned). 0: the file boots only as it is, *ret_why (static) says why.
 * -1: ERR_INVALID for a file that is no kernel, or is damaged. */
int image_kernel_unpack(const uint8_t *bz, size_t len, uint8_t **ret, size_t *ret_len,
                        const char **ret_why, struct err *e);
/* Whether a 64-bit ELF image has the note that says where PVH enters it. */
bool image_kernel_has_pvh(const uint8_t *elf, size_t len);

/* --- image_initrd.c --- */
/* Writes an initramfs to `path`: agent as /init, the wanted modules (names) of `modules_dir`
 * (…/lib/modules/RELEASE) and what they need, and the list in which order to insert them. Names
 * that are built in are passed over; one that this kernel does not have is ERR_INVALID. */
int image_initrd_write(const char *path, const char *agent, const char *modules_dir,
                       const struct strv *wanted, struct err *e);
/* Is its size as image_initrd_write() makes it, so that the firmware's tables have room? */
bool image_initrd_leaves_room(const char *path);
/* Files below modules_dir in order of insertion, by the texts of modules.dep and modules.builtin.
 * Exposed for tests. */
int image_modules_order(const char *dep, const char *builtin, const struct strv *wanted,
                        struct strv *out, struct err *e);

/* --- image_digest.c --- */
#define IMAGE_HEX 65
/* sha256 over a file's size and its pieces that are not all zeros, each with its place: the same
 * for the same content, however sparse the file is; holes are not read. Not what sha256sum says. */
int image_digest_file(const char *path, char hex[IMAGE_HEX], struct err *e);
int image_digest_text(const char *text, char hex[IMAGE_HEX]);
