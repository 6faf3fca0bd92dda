/* SPDX-License-Identifier: MIT */
#include "daemon/metrics.h"

#include "common/name.h"

#include <string.h>

static void add_escaped(struct sbuf *b, const char *s, bool quoted)
{
    while (*s) {
        size_t n = utf8_step(s, strnlen(s, 4));
        if (n == 0)
            sbuf_lit(b, "\xef\xbf\xbd");
        else if (*s == '\\')
            sbuf_lit(b, "\\\\");
        else if (*s == '\n')
            sbuf_lit(b, "\\n");
        else if (*s == '"' && quoted)
            sbuf_lit(b, "\\\"");
        else
            sbuf_add(b, s, n);
        s += n ? n : 1;
    }
}

void metrics_family(struct sbuf *b, const char *name, const char *type, const char *help)
{
    sbuf_fmt(b, "# HELP %s ", name);
    add_escaped(b, help, false);
    sbuf_fmt(b, "\n# TYPE %s %s\n", name, type);
}

static void begin(struct sbuf *b, const char *name, const char *suffix,
                  const struct metrics_label *labels, size_t n)
{
    sbuf_fmt(b, "%s%s", name, suffix);
    for (size_t i = 0; i < n; i++) {
        sbuf_fmt(b, "%s%s=\"", i ? "," : "{", labels[i].name);
        add_escaped(b, labels[i].value ? labels[i].value : "", true);
        sbuf_chr(b, '"');
    }
    sbuf_lit(b, n ? "} " : " ");
}

void metrics_count(struct sbuf *b, const char *name, const char *suffix,
                   const struct metrics_label *labels, size_t n, uint64_t v)
{
    begin(b, name, suffix, labels, n);
    sbuf_u64(b, v);
    sbuf_chr(b, '\n');
}

void metrics_seconds(struct sbuf *b, const char *name, const char *suffix,
                     const struct metrics_label *labels, size_t n, uint64_t us)
{
    begin(b, name, suffix, labels, n);
    sbuf_fmt(b, "%llu.%06llu\n", (unsigned long long)(us / 1000000),
             (unsigned long long)(us % 1000000));
}
