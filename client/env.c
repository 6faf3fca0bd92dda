/* SPDX-License-Identifier: MIT */
#include "client/env.h"
#include "common/auto.h"
#include "common/io.h"
#include "common/limits.h"
#include "common/name.h"
#include "common/sbuf.h"
#include <fcntl.h>
#include <string.h>

#define ENV_FILE_MAX (16 * MIB)

static int env_add(const char *s, struct strv *ret, struct err *e)
{
    const char *eq = strchr(s, '=');
    size_t len = eq ? (size_t)(eq - s) : strlen(s);
    const char *value = NULL;
    autosbuf struct sbuf b = SBUF(LIMIT_ENV_BYTES + 1);

    if (!env_key_valid(s, len)) {
        err_set(e, ERR_USAGE, "'%.*s' is not the name of a variable",
                (int)(len < 80 ? len : 80), s);
        return err_hint(e, "names are of letters, digits and _, and begin with no digit");
    }
    value = eq ? eq + 1 : getenv(s);
    if (value && !utf8_valid(value, strlen(value)))
        return err_set(e, ERR_USAGE, "the value of %.*s is not UTF-8 text",
                       (int)(len < 80 ? len : 80), s);
    if (eq || !value)
        return eq ? strv_env_set(ret, s, e) : 0;
    sbuf_fmt(&b, "%s=%s", s, value);
    if (b.failed)
        return err_set(e, ERR_USAGE, "the variable %s is too long", s);
    return strv_env_set(ret, sbuf_str(&b), e);
}

static int env_file(const char *path, struct strv *ret, struct err *e)
{
    autofree char *text = NULL;
    size_t len = 0;
    unsigned line = 0;

    if (io_read_file_at(AT_FDCWD, path, ENV_FILE_MAX, &text, &len, e) < 0)
        return err_wrap(e, "--env-file");
    if (memchr(text, '\0', len))
        return err_set(e, ERR_USAGE, "%s: holds a NUL byte", path);
    for (char *s = text; s; ) {
        char *end = strchr(s, '\n');
        char *next = end ? end + 1 : NULL;
        line++;
        if (end && end > s && end[-1] == '\r')
            end--;
        if (end)
            *end = '\0';
        s += strspn(s, " \t");
        if (*s && *s != '#' && env_add(s, ret, e) < 0)
            return err_wrap(e, "%s, line %u", path, line);
        s = next;
    }
    return 0;
}

int env_collect(const struct strv *files, const struct strv *given, struct strv *ret,
                struct err *e)
{
    for (size_t i = 0; i < files->n; i++)
        if (env_file(files->items[i], ret, e) < 0)
            return -1;
    for (size_t i = 0; i < given->n; i++)
        if (env_add(given->items[i], ret, e) < 0)
            return -1;
    return 0;
}
