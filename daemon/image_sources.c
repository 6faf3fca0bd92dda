/* SPDX-License-Identifier: MIT
 *
 * image_sources: which of the host's apt sources are Debian's own. Everything that comes out is
 * checked by apt against Debian's keyring (signed-by is always written), so that an entry taken for
 * Debian's by mistake makes the build fail and never puts another's packages into a guest.
 */
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
#define BLANK " \t\r\n"
#define KEYRING "/usr/share/keyrings/debian-archive-keyring.gpg"

enum field {
    TYPES, URIS, SUITES, COMPONENTS, SIGNED_BY, ENABLED, ARCHS, VALID_UNTIL, DATE, FIELDS
};

/* Names of the fields, and of the options of one line. */
static const struct {
    const char *deb822, *option;
} names[FIELDS] = {
    [TYPES] = { "Types", "" },
    [URIS] = { "URIs", "" },
    [SUITES] = { "Suites", "" },
    [COMPONENTS] = { "Components", "" },
    [SIGNED_BY] = { "Signed-By", "signed-by" },
    [ENABLED] = { "Enabled", "" },
    [ARCHS] = { "Architectures", "arch" },
    [VALID_UNTIL] = { "Check-Valid-Until", "check-valid-until" },
    [DATE] = { "Check-Date", "check-date" },
};

struct entry {
    struct sbuf value[FIELDS];
    int last;                   /* field that a folded line goes on with, -1: one not wanted */
};

static void entry_init(struct entry *en)
{
    for (int i = 0; i < FIELDS; i++)
        en->value[i] = SBUF(SOURCES_MAX);
    en->last = -1;
}

static void entry_done(struct entry *en)
{
    for (int i = 0; i < FIELDS; i++)
        sbuf_done(&en->value[i]);
}

static const char *get(const struct entry *en, enum field f)
{
    return sbuf_str(&en->value[f]);
}

/* The next word of a list: its length, 0 at the end; *p is at its beginning. */
static size_t next_word(const char **p)
{
    *p += strspn(*p, BLANK ",");
    return strcspn(*p, BLANK ",");
}

static bool equals(const char *s, size_t len, const char *word)
{
    return len == strlen(word) && memcmp(s, word, len) == 0;
}

static bool has_word(const char *list, const char *word)
{
    for (size_t n; (n = next_word(&list)) > 0; list += n) {
        if (equals(list, n, word))
            return true;
    }
    return false;
}

/* What apt takes for no. */
static bool is_no(const char *value)
{
    static const char *const words[] = { "no", "false", "without", "off", "disable", "0" };
    size_t n = next_word(&value);

    for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
        if (n == strlen(words[i]) && strncasecmp(value, words[i], n) == 0)
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

/* A keyring as the package debian-archive-keyring installs it, by its whole path. */
static bool debian_keyring(const char *path, size_t len)
{
    static const char *const dirs[] = { "/usr/share/keyrings/", "/etc/apt/trusted.gpg.d/" };
    static const char *const kinds[] = { "stable", "automatic", "security-automatic" };
    static const char *const ends[] = { ".gpg", ".pgp", ".asc" };
    const char *base = NULL;
    char name[128], want[128];

    for (size_t i = 0; i < ARRAY_SIZE(dirs); i++) {
        size_t n = strlen(dirs[i]);
        if (len > n && memcmp(path, dirs[i], n) == 0 && !memchr(path + n, '/', len - n))
            base = path + n;
    }
    if (!base || snprintf(name, sizeof(name), "%.*s", (int)(path + len - base), base) >=
                     (int)sizeof(name))
        return false;
    char *dot = strrchr(name, '.');
    bool known = false;
    for (size_t i = 0; dot && i < ARRAY_SIZE(ends); i++)
        known = known || strcmp(dot, ends[i]) == 0;
    if (!known)
        return false;
    *dot = '\0';
    if (strcmp(name, "debian-archive-keyring") == 0)
        return true;
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
        /* debian-archive-RELEASE-KIND, RELEASE being one word of letters */
        size_t release = strncmp(name, "debian-archive-", 15) == 0
                             ? strspn(name + 15, "abcdefghijklmnopqrstuvwxyz") : 0;
        snprintf(want, sizeof(want), "-%s", kinds[i]);
        if (release > 0 && strcmp(name + 15 + release, want) == 0)
            return true;
    }
    return false;
}

/* All keys that would be accepted are Debian's. Keys written out, and fingerprints, are not known
 * to be. */
static bool debian_keys(const char *signed_by)
{
    size_t n, count = 0;

    for (const char *p = signed_by; (n = next_word(&p)) > 0; p += n, count++) {
        if (!debian_keyring(p, n))
            return false;
    }
    return count > 0;
}

/* Without a key, an entry is Debian's when its host is, or when its path ends as that of a mirror:
 * …/debian or …/debian-security, or the dated form of the snapshots. */
static bool debian_uri(const char *uri, size_t len)
{
    static const char *const ends[] = { "debian", "debian-security" };
    const char *host = memmem(uri, len, "://", 3);

    if (!host)
        return false;
    host += 3;
    size_t host_len = strcspn(host, "/:" BLANK);
    if (host_len >= 10 && memcmp(host + host_len - 10, "debian.org", 10) == 0 &&
        (host_len == 10 || host[host_len - 11] == '.'))
        return true;
    while (len > 0 && uri[len - 1] == '/')
        len--;
    for (size_t i = 0; i < ARRAY_SIZE(ends); i++) {
        size_t n = strlen(ends[i]);
        if (len > n && uri[len - n - 1] == '/' && memcmp(uri + len - n, ends[i], n) == 0)
            return true;
    }
    return false;
}

/* Ways to fetch that work from where the build runs. */
static bool fetchable(const char *uri, size_t len)
{
    static const char *const schemes[] = { "http://", "https://", "file:/", "copy:/",
                                           "mirror+http://", "mirror+https://", "mirror+file:/" };

    for (size_t i = 0; i < ARRAY_SIZE(schemes); i++) {
        size_t n = strlen(schemes[i]);
        if (len > n && strncasecmp(uri, schemes[i], n) == 0)
            return true;
    }
    return false;
}

/* "[signed-by=… …]" of the line that is written. Valid-Until and Date as the host has them, for
 * those who build from a snapshot; trust without a signature is never passed on. */
static void options(const struct entry *en, struct sbuf *b)
{
    const char *p = get(en, SIGNED_BY);
    size_t n, count = 0;

    sbuf_lit(b, "[signed-by=");
    for (; (n = next_word(&p)) > 0; p += n, count++)
        sbuf_fmt(b, "%s%.*s", count ? "," : "", (int)n, p);
    if (count == 0)
        sbuf_lit(b, KEYRING);
    if (is_no(get(en, VALID_UNTIL)))
        sbuf_lit(b, " check-valid-until=no");
    if (is_no(get(en, DATE)))
        sbuf_lit(b, " check-date=no");
    sbuf_chr(b, ']');
}

static int emit(const struct entry *en, const char *codename, struct strv *out, struct err *e)
{
    autosbuf struct sbuf opts = SBUF(4 * KIB);
    const char *uri = get(en, URIS);
    bool keyed = get(en, SIGNED_BY)[strspn(get(en, SIGNED_BY), BLANK)] != '\0';
    size_t n, k;

    if (is_no(get(en, ENABLED)) || !has_word(get(en, TYPES), "deb") ||
        !has_word(get(en, COMPONENTS), "main") || (keyed && !debian_keys(get(en, SIGNED_BY))) ||
        (en->value[ARCHS].len > 0 && !has_word(get(en, ARCHS), "amd64")))
        return 0;
    options(en, &opts);
    for (; (n = next_word(&uri)) > 0; uri += n) {
        if (!fetchable(uri, n) || (!keyed && !debian_uri(uri, n)))
            continue;
        for (const char *s = get(en, SUITES); (k = next_word(&s)) > 0; s += k) {
            if (ours(s, k, codename) && strv_addf(out, e, "deb %s %.*s %.*s main", sbuf_str(&opts),
                                                  (int)n, uri, (int)k, s) < 0)
                return -1;
        }
    }
    return 0;
}

/* --- the .sources form --- */

/* One line of a stanza: "Key: value", or, beginning with a blank, more of the value before. */
static void stanza_line(struct entry *en, const char *line, size_t len)
{
    const char *colon = memchr(line, ':', len);

    if (line[0] == ' ' || line[0] == '\t') {
        if (en->last >= 0) {
            sbuf_chr(&en->value[en->last], ' ');
            sbuf_add(&en->value[en->last], line, len);
        }
        return;
    }
    en->last = -1;
    if (!colon)
        return;
    for (int i = 0; i < FIELDS; i++) {
        size_t n = strlen(names[i].deb822);
        if ((size_t)(colon - line) != n || strncasecmp(line, names[i].deb822, n) != 0)
            continue;
        en->last = i;
        sbuf_done(&en->value[i]);
        en->value[i] = SBUF(SOURCES_MAX);
        sbuf_add(&en->value[i], colon + 1, len - n - 1);
    }
}

static int parse_stanzas(const char *text, const char *codename, struct strv *out, struct err *e)
{
    __attribute__((cleanup(entry_done))) struct entry en;

    entry_init(&en);
    for (const char *line = text;; ) {
        size_t n = strcspn(line, "\n");
        bool end = line[n] == '\0', blank = strspn(line, " \t\r") >= n;
        if (!blank && line[0] != '#')
            stanza_line(&en, line, n);
        if (blank || end) {
            if (emit(&en, codename, out, e) < 0)
                return -1;
            entry_done(&en);
            entry_init(&en);
        }
        if (end)
            return 0;
        line += n + 1;
    }
}

/* --- the one-line form: deb [option=value …] URI SUITE COMPONENT… --- */

static void line_options(struct entry *en, const char *p, const char *end)
{
    while (p < end) {
        p += strspn(p, " \t");
        size_t n = strcspn(p, " \t]");
        for (int i = 0; i < FIELDS; i++) {
            size_t k = strlen(names[i].option);
            if (k > 0 && n > k && strncasecmp(p, names[i].option, k) == 0 && p[k] == '=')
                sbuf_add(&en->value[i], p + k + 1, n - k - 1);
        }
        p += n ? n : 1;
    }
}

static void one_line(struct entry *en, const char *p)
{
    size_t n;

    p += strspn(p, " \t");
    if (strncmp(p, "deb", 3) != 0 || (p[3] != ' ' && p[3] != '\t'))
        return;
    p += 3;
    p += strspn(p, " \t");
    if (*p == '[') {
        const char *end = strchr(p, ']');
        if (!end)
            return;
        line_options(en, p + 1, end);
        p = end + 1;
    }
    sbuf_lit(&en->value[TYPES], "deb");
    p += strspn(p, BLANK);
    n = strcspn(p, BLANK);
    sbuf_add(&en->value[URIS], p, n);
    p += n;
    p += strspn(p, BLANK);
    n = strcspn(p, BLANK);
    sbuf_add(&en->value[SUITES], p, n);
    sbuf_add(&en->value[COMPONENTS], p + n, strlen(p + n));
}

static int parse_lines(char *text, const char *codename, struct strv *out, struct err *e)
{
    char *save = NULL;

    for (char *l = strtok_r(text, "\n", &save); l; l = strtok_r(NULL, "\n", &save)) {
        __attribute__((cleanup(entry_done))) struct entry en;
        entry_init(&en);
        l[strcspn(l, "#")] = '\0';
        one_line(&en, l);
        if (emit(&en, codename, out, e) < 0)
            return -1;
    }
    return 0;
}

int image_sources_parse(const char *text, bool deb822, const char *codename, struct strv *out,
                        struct err *e)
{
    autofree char *copy = strdup(text);

    if (!copy)
        return err_nomem(e);
    return deb822 ? parse_stanzas(copy, codename, out, e) : parse_lines(copy, codename, out, e);
}

/* --- the files --- */

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
        return err_wrap(e, "apt's sources");
    return image_sources_parse(text, ends_with(name, ".sources"), codename, out, e);
}

static int wanted(const struct dirent *de)
{
    return de->d_name[0] != '.' &&
           (ends_with(de->d_name, ".sources") || ends_with(de->d_name, ".list"));
}

static int read_parts(int dirfd, const char *codename, struct strv *out, struct err *e)
{
    autoclose int fd = openat(dirfd, "sources.list.d", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct dirent **names_found = NULL;
    int r = 0, n = fd < 0 ? 0 : scandirat(fd, ".", &names_found, wanted, alphasort);

    for (int i = 0; i < n; i++) {
        if (r == 0)
            r = read_one(fd, names_found[i]->d_name, codename, out, e);
        free(names_found[i]);
    }
    free(names_found);
    return r;
}

int image_sources_read(const char *root, const char *codename, struct strv *out, struct err *e)
{
    autosbuf struct sbuf dir = SBUF(LIMIT_PATH);
    autostrv struct strv found = STRV_INIT;

    sbuf_fmt(&dir, "%s/etc/apt", root);
    autoclose int fd = open(sbuf_str(&dir), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return err_sys(e, ERR_UNAVAILABLE, errno, "cannot read %s", sbuf_str(&dir));
    if (faccessat(fd, "sources.list", R_OK, 0) == 0 &&
        read_one(fd, "sources.list", codename, &found, e) < 0)
        return -1;
    if (read_parts(fd, codename, &found, e) < 0)
        return -1;
    if (found.n == 0) {
        err_set(e, ERR_UNAVAILABLE, "no entry for Debian's %s among this host's apt sources",
                codename);
        return err_hint(e, "name the release, and Signed-By: " KEYRING);
    }
    for (size_t i = 0; i < found.n; i++) {
        if (strv_add(out, found.items[i], e) < 0)
            return -1;
    }
    return 0;
}
