/* SPDX-License-Identifier: MIT */
#include "common/auto.h"
#include "common/limits.h"
#include "daemon/digest.h"
#include "daemon/image_priv.h"

#include <assert.h>
#include <fcntl.h>
#include <nettle/sha2.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BUF (1 * MIB)
#define PIECE (4 * KIB)

static void finish(struct sha256_ctx *c, char hex[IMAGE_HEX])
{
    uint8_t raw[SHA256_DIGEST_SIZE];

    sha256_digest(c, sizeof(raw), raw);
    for (size_t i = 0; i < sizeof(raw); i++)
        snprintf(hex + 2 * i, 3, "%02x", raw[i]);
}

static bool all_zero(const uint8_t *p, size_t n)
{
    return n == 0 || (p[0] == 0 && memcmp(p, p + 1, n - 1) == 0);
}

/* Data from `from` to `to`, in pieces at multiples of PIECE: zeros that were written and zeros that
 * are a hole are the same, and 20 GiB of nothing cost nothing. */
static int hash_range(struct sha256_ctx *c, int fd, off_t from, off_t to, uint8_t *buf,
                      struct err *e)
{
    while (from < to) {
        size_t want = (size_t)(to - from) < BUF ? (size_t)(to - from) : BUF;
        ssize_t n = pread(fd, buf, want, from);
        if (n <= 0)
            return err_sys(e, ERR_INTERNAL, n < 0 ? errno : EIO, "read");
        if ((size_t)n < want && n > (ssize_t)PIECE)
            n -= n % (ssize_t)PIECE;
        for (size_t at = 0; at < (size_t)n; at += PIECE) {
            size_t len = (size_t)n - at < PIECE ? (size_t)n - at : PIECE;
            uint64_t where = (uint64_t)from + at;
            if (all_zero(buf + at, len))
                continue;
            sha256_update(c, sizeof(where), (const uint8_t *)&where);
            sha256_update(c, len, buf + at);
        }
        from += n;
    }
    return 0;
}

int image_digest_file(const char *path, char hex[IMAGE_HEX], struct err *e)
{
    autoclose int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    autofree uint8_t *buf = malloc(BUF);
    struct sha256_ctx c;
    struct stat sb;

    if (!buf)
        return err_nomem(e);
    if (fd < 0 || fstat(fd, &sb) < 0)
        return err_sys(e, ERR_INTERNAL, errno, "cannot read %s", path);
    sha256_init(&c);
    uint64_t size = (uint64_t)sb.st_size;
    sha256_update(&c, sizeof(size), (const uint8_t *)&size);
    for (off_t at = 0; at < sb.st_size;) {
        off_t data = lseek(fd, at, SEEK_DATA);
        if (data < 0 && errno == ENXIO)
            break;
        off_t end = data < 0 ? data : lseek(fd, data, SEEK_HOLE);
        if (end >= 0) {     /* whole pieces, whatever the file system's blocks are */
            data -= data % (off_t)PIECE;
            end += ((off_t)PIECE - end % (off_t)PIECE) % (off_t)PIECE;
            end = end < sb.st_size ? end : sb.st_size;
        }
        if (end < 0)
            return err_sys(e, ERR_INTERNAL, errno, "cannot read %s", path);
        if (hash_range(&c, fd, data, end, buf, e) < 0)
            return err_wrap(e, "%s", path);
        at = end;
    }
    finish(&c, hex);
    return 0;
}

int image_digest_text(const char *text, char hex[IMAGE_HEX])
{
    static_assert(IMAGE_HEX == DIGEST_HEX, "the same digest");
    digest_hex(text, strlen(text), hex);
    return 0;
}
