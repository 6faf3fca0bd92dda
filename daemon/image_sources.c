/* SPDX-License-Identifier: MIT */
#include "common/auto.h"
#include "common/io.h"
#include "common/limits.h"
#include "common/sbuf.h"
#include "daemon/image_priv.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#define SOURCES_MAX (256 * KIB)

/* A word of a blank-separated list. */
static bool has_word(const char *list, const char *word)
{
    size_t n = strlen(word);

    for (const char *p = list; (p = strstr(p, word)); p += n) {
        if ((p == list || strchr(" \t", p[-1])) && (p[n] == '\0' || strchr(" \t", p[n])))
            return true;
    }
    return false;
}

static bool ours(const char *suite, size_t len, const char *codename)
{
    static const char *const suffix[] = { "", "-updates", "-security" };
    size_t n = strlen(codename);

    for (size_t i = 0; i < ARRAY_SIZE(suffix); i++) {
        if (len == n + strlen(suffix[i]) && strncmp(suite, codename, n) == 0 &&
            strncmp(suite + n, suffix[i], len - n) == 0)
            return true;
    }
    return false;
}

/* Debian signs with its own keyring; an entry without a key is checked against that one as well. */
static bool debian_key(const char *signed_by)
{
    return !signed_by[0] || strstr(signed_by, "debian-archive-");
}

struct entry {
    char types[64], uris[1024], suites[512], components[256], signed_by[512];
    bool disabled;
};

static int emit(const struct entry *en, const char *codename, struct strv *out, struct err *e)
{
    char uris[sizeof(en->uris)];
    char *save = NULL;

    if (en->disabled || !has_word(en->types, "deb") || !has_word(en->components, "main") ||
        !debian_key(en->signed_by))
        return 0;
    memcpy(uris, en->uris, sizeof(uris));
    for (char *uri = strtok_r(uris, " \t", &save); uri; uri = strtok_r(NULL, " \t", &save)) {
        for (const char *s = en->suites; *s;) {
            s += strspn(s, " \t");
            size_t n = strcspn(s, " \t");
            if (n && ours(s, n, codename) &&
                strv_addf(out, e, "deb %s %.*s main", uri, (int)n, s) < 0)
                return -1;
            s += n;
        }
    }
    return 0;
}

static void set(char *buf, size_t size, const char *value)
{
    value += strspn(value, " \t");
    snprintf(buf, size, "%s", value);
}

static void field(struct entry *en, const char *line)
{
    const struct {
        const char *key;
        char *buf;
        size_t size;
    } keys[] = { { "Types:", en->types, sizeof(en->types) },
                 { "URIs:", en->uris, sizeof(en->uris) },
                 { "Suites:", en->suites, sizeof(en->suites) },
                 { "Components:", en->components, sizeof(en->components) },
                 { "Signed-By:", en->signed_by, sizeof(en->signed_by) } };

    for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
        if (strncasecmp(line, keys[i].key, strlen(keys[i].key)) == 0)
            set(keys[i].buf, keys[i].size, line + strlen(keys[i].key));
    }
    if (strncasecmp(line, "Enabled:", 8) == 0)
        en->disabled = strcasestr(line + 8, "no") != NULL;
}

/* deb [option=value …] URI SUITE COMPONENT… */
static void one_line(struct entry *en, const char *line)
{
    const char *p = line + strspn(line, " \t");
    char suite[256];
    int used = 0;

    if (strncmp(p, "deb", 3) != 0 || !strchr(" \t", p[3]))
        return;
    p += 3;
    p += strspn(p, " \t");
    if (*p == '[') {
        const char *end = strchr(p, ']');
        const char *key = strstr(p, "signed-by=");
        if (!end)
            return;
        if (key && key < end)
            snprintf(en->signed_by, sizeof(en->signed_by), "%.*s", (int)strcspn(key, " ]"), key);
        p = end + 1;
    }
    if (sscanf(p, " %1023s %255s %n", en->uris, suite, &used) < 2 || used == 0)
        return;
    snprintf(en->suites, sizeof(en->suites), "%s", suite);
    set(en->components, sizeof(en->components), p + used);
    snprintf(en->types, sizeof(en->types), "deb");
}

int image_sources_parse(const char *text, bool deb822, const char *codename, struct strv *out,
                        struct err *e)
{
    autofree char *copy = strdup(text);
    struct entry en = { .types = "" };

    if (!copy)
        return err_nomem(e);
    for (char *line = copy, *next; line; line = next) {
        next = strchr(line, '\n');
        if (next)
            *next++ = '\0';
        char *hash = line[0] == '#' ? line : deb822 ? NULL : strchr(line, '#');
        if (hash)
            *hash = '\0';
        if (!deb822) {
            en = (struct entry){ .types = "" };
            one_line(&en, line);
        } else if (line[strspn(line, " \t\r")] != '\0' || hash) {
            field(&en, line);
            if (next)
                continue;
        }
        if (emit(&en, codename, out, e) < 0)
            return -1;
        en = (struct entry){ .types = "" };
    }
    return 0;
}

static bool ends_with(const char *s, const char *suffix)
{
    size_t n = strlen(s), m = strlen(suffix);

    return n > m && strcmp(s + n - m, suffix) == 0;
}

static int read_one(int dirfd, const char *name, const char *codename, struct strv *out,
                    struct err *e)
{
    autofree char *text = NULL;

    if (io_read_file_at(dirfd, name, SOURCES_MAX, &text, NULL, e) < 0)
        return -1;
    return image_sources_parse(text, ends_with(name, ".sources"), codename, out, e);
}

int image_sources_read(const char *root, const char *codename, struct strv *out, struct err *e)
{
    autosbuf struct sbuf dir = SBUF(LIMIT_PATH);
    struct err ignored = ERR_INIT;
    struct dirent *de;
    int r = 0;

    sbuf_fmt(&dir, "%s/etc/apt", root);
    autoclose int fd = open(sbuf_str(&dir), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return err_sys(e, ERR_UNAVAILABLE, errno, "cannot read %s", sbuf_str(&dir));
    if (faccessat(fd, "sources.list", R_OK, 0) == 0 &&
        read_one(fd, "sources.list", codename, out, e) < 0)
        return -1;
    int parts = openat(fd, "sources.list.d", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = parts < 0 ? NULL : fdopendir(parts);
    while (d && r == 0 && (de = readdir(d))) {
        if (ends_with(de->d_name, ".sources") || ends_with(de->d_name, ".list"))
            r = read_one(dirfd(d), de->d_name, codename, out, &ignored) < 0 ? 0 : 0;
    }
    if (d)
        closedir(d);
    if (out->n > 0)
        return r;
    err_set(e, ERR_UNAVAILABLE, "no entry for Debian's %s among this host's apt sources", codename);
    return err_hint(e, "guest images are built from the same release as the host's");
}
