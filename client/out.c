/* SPDX-License-Identifier: MIT */
#include "client/out.h"
#include "client/tty.h"
#include "common/auto.h"
#include "common/parse.h"
#include <limits.h>
#include <signal.h>
#include <string.h>
#include <wchar.h>

#define FLEX_MIN 8          /* columns a cut cell keeps */
#define CELL_MAX (1024 * 1024)

/* ---- stdout -------------------------------------------------------------------------------- */

static int write_failed(struct err *e)
{
    if (errno == EPIPE) {
        signal(SIGPIPE, SIG_DFL);
        raise(SIGPIPE);
    }
    return err_sys(e, ERR_INTERNAL, errno, "cannot write to stdout");
}

int out_write(const char *data, size_t len, struct err *e)
{
    return fwrite(data, 1, len, stdout) == len ? 0 : write_failed(e);
}

int out_line(const char *text, struct err *e)
{
    return out_write(text, strlen(text), e) < 0 || out_write("\n", 1, e) < 0 ? -1 : 0;
}

int out_flush(struct err *e)
{
    return fflush(stdout) == 0 && !ferror(stdout) ? 0 : write_failed(e);
}

size_t out_width(void)
{
    const char *columns = getenv("COLUMNS");
    uint16_t rows = 0, cols = 0;
    uint32_t n = 0;

    if (!isatty(STDOUT_FILENO))
        return 0;
    if (columns && parse_u32(columns, 20, 10000, &n))
        return n;
    return tty_size(&rows, &cols) ? cols : 80;
}

/* ---- widths -------------------------------------------------------------------------------- */

/* Length and width of the character at s. */
static size_t next_char(const char *s, size_t *ret_width)
{
    mbstate_t state = { 0 };
    wchar_t c = 0;
    size_t n = mbrtowc(&c, s, MB_LEN_MAX, &state);
    int width = n && n < (size_t)-2 ? wcwidth(c) : 1;

    *ret_width = width < 0 ? 1 : (size_t)width;
    return n && n < (size_t)-2 ? n : 1;
}

size_t text_width(const char *s)
{
    size_t total = 0, w = 0;

    while (*s) {
        s += next_char(s, &w);
        total += w;
    }
    return total;
}

size_t text_fit(const char *s, size_t width)
{
    size_t at = 0, used = 0, w = 0;

    while (s[at]) {
        size_t n = next_char(s + at, &w);
        if (used + w > width)
            break;
        used += w;
        at += n;
    }
    return at;
}

/* ---- tables -------------------------------------------------------------------------------- */

void table_done(struct table *t)
{
    strv_done(&t->cells);
}

int table_cell(struct table *t, const char *text, struct err *e)
{
    autosbuf struct sbuf b = SBUF(CELL_MAX);
    char *cell = NULL;

    if (text)
        sbuf_text(&b, text, strlen(text));
    else
        sbuf_lit(&b, "");
    if (b.len == 0)
        return strv_add(&t->cells, "", e);
    if (sbuf_take(&b, &cell, e) < 0)
        return -1;
    return strv_add_take(&t->cells, &cell, e);
}

int table_cellf(struct table *t, struct err *e, const char *fmt, ...)
{
    autosbuf struct sbuf b = SBUF(CELL_MAX);
    va_list ap;

    va_start(ap, fmt);
    sbuf_vfmt(&b, fmt, ap);
    va_end(ap);
    return table_cell(t, sbuf_str(&b), e);
}

static bool colour_wanted(void)
{
    const char *no = getenv("NO_COLOR");
    const char *term = getenv("TERM");

    return isatty(STDOUT_FILENO) && !(no && no[0]) && term && strcmp(term, "dumb") != 0;
}

static const char *state_colour(const char *state)
{
    static const struct { const char *word, *colour; } colours[] = {
        { "running", "\033[32m" }, { "failed", "\033[31m" }, { "lost", "\033[31m" },
        { "creating", "\033[33m" }, { "stopping", "\033[33m" }, { "removing", "\033[33m" },
    };
    for (size_t i = 0; i < ARRAY_SIZE(colours); i++)
        if (strncmp(state, colours[i].word, strlen(colours[i].word)) == 0)
            return colours[i].colour;
    return NULL;
}

/* Takes columns away from the widest flexible ones until the line fits. */
static void shrink(const struct table *t, size_t *width, size_t room)
{
    for (;;) {
        size_t total = 0, widest = SIZE_MAX;
        for (size_t i = 0; i < t->n_columns; i++) {
            total += width[i] + (i ? 2 : 0);
            if (t->columns[i].flex && width[i] > FLEX_MIN &&
                (widest == SIZE_MAX || width[i] > width[widest]))
                widest = i;
        }
        if (total <= room || widest == SIZE_MAX)
            return;
        width[widest]--;
    }
}

static void add_cell(struct sbuf *b, const char *text, size_t width, bool last, const char *colour)
{
    size_t w = text_width(text);

    if (colour)
        sbuf_add(b, colour, strlen(colour));
    if (w > width) {
        sbuf_add(b, text, text_fit(text, width - 1));
        sbuf_lit(b, "…");
        w = text_width(text) > width ? width : w;
    } else {
        sbuf_add(b, text, strlen(text));
    }
    if (colour)
        sbuf_lit(b, "\033[0m");
    if (!last)
        for (size_t i = w; i < width + 2; i++)
            sbuf_chr(b, ' ');
}

int table_print(struct table *t, struct err *e)
{
    size_t width[COLUMNS_MAX];
    size_t room = t->no_trunc ? 0 : out_width();
    bool colour = colour_wanted();
    autosbuf struct sbuf b = SBUF(1024ULL * 1024 * 1024);

    for (size_t i = 0; i < t->n_columns; i++)
        width[i] = text_width(t->columns[i].title);
    for (size_t i = 0; i < t->cells.n; i++) {
        size_t w = text_width(t->cells.items[i]);
        if (w > width[i % t->n_columns])
            width[i % t->n_columns] = w;
    }
    if (room)
        shrink(t, width, room);
    for (size_t i = 0; i < t->n_columns; i++)
        add_cell(&b, t->columns[i].title, width[i], i + 1 == t->n_columns, NULL);
    sbuf_chr(&b, '\n');
    for (size_t i = 0; i < t->cells.n; i++) {
        size_t c = i % t->n_columns;
        bool last = c + 1 == t->n_columns;
        const char *text = t->cells.items[i];
        add_cell(&b, text, width[c], last,
                 colour && t->columns[c].state ? state_colour(text) : NULL);
        if (last)
            sbuf_chr(&b, '\n');
    }
    if (b.failed)
        return err_nomem(e);
    return out_write(b.data, b.len, e);
}

int format_parse(const char *given, struct format *ret, struct err *e)
{
    if (!given || strcmp(given, "table") == 0)
        *ret = (struct format){ .kind = FORMAT_TABLE };
    else if (strcmp(given, "json") == 0)
        *ret = (struct format){ .kind = FORMAT_JSON };
    else if (strstr(given, "{{"))
        *ret = (struct format){ .kind = FORMAT_TEMPLATE, .text = given };
    else {
        err_set(e, ERR_USAGE, "'%s' is not a format", given);
        return err_hint(e, "formats are table, json, or a template like '{{.Name}} {{.State}}'");
    }
    return 0;
}
