/* SPDX-License-Identifier: MIT */
#include "client/app.h"
#include "client/out.h"
#include "common/auto.h"
#include <string.h>

#define WRAP 78

void help_opt_left(struct sbuf *b, const struct opt *o)
{
    if (o->letter)
        sbuf_fmt(b, "-%c, ", o->letter);
    else
        sbuf_lit(b, "    ");
    sbuf_fmt(b, "--%s", o->name);
    if (o->arg)
        sbuf_fmt(b, " %s", o->arg);
}

void help_usage(struct sbuf *b, const struct command *c)
{
    sbuf_fmt(b, "sbx %s%s%s%s", c->name, c->opts ? " [OPTIONS]" : "", c->args[0] ? " " : "",
             c->args);
}

/* A paragraph broken into lines; an empty line in the text stays one. */
static void add_wrapped(struct sbuf *b, const char *text)
{
    size_t column = 0;

    while (*text) {
        size_t n = strcspn(text, " \n");
        if (column && column + 1 + n > WRAP) {
            sbuf_chr(b, '\n');
            column = 0;
        } else if (column && n) {
            sbuf_chr(b, ' ');
            column++;
        }
        sbuf_add(b, text, n);
        column += n;
        text += n;
        if (*text == '\n') {
            sbuf_chr(b, '\n');
            column = 0;
        }
        if (*text)
            text++;
    }
    sbuf_chr(b, '\n');
}

static void add_opts(struct sbuf *b, const struct opt *table)
{
    size_t width = 0;

    for (const struct opt *o = table; o && o->name; o++) {
        autosbuf struct sbuf left = SBUF(200);
        help_opt_left(&left, o);
        if (left.len > width)
            width = left.len;
    }
    for (const struct opt *o = table; o && o->name; o++) {
        autosbuf struct sbuf left = SBUF(200);
        help_opt_left(&left, o);
        sbuf_fmt(b, "  %-*s   %s\n", (int)width, sbuf_str(&left), o->help);
    }
}

void help_command(struct sbuf *b, const struct command *c)
{
    sbuf_lit(b, "usage: ");
    help_usage(b, c);
    sbuf_lit(b, "\n\n");
    sbuf_fmt(b, "%c%s.\n", c->help[0] - 'a' + 'A', c->help + 1);
    if (c->alias) {
        const char *space = strchr(c->name, ' ');
        sbuf_fmt(b, "Also: sbx %.*s%s\n", space ? (int)(space - c->name) + 1 : 0, c->name,
                 c->alias);
    }
    if (c->text) {
        sbuf_chr(b, '\n');
        add_wrapped(b, c->text);
    }
    if (c->opts) {
        sbuf_lit(b, "\nOptions:\n");
        add_opts(b, c->opts);
    }
    sbuf_lit(b, "\nEverywhere:\n");
    add_opts(b, global_opts);
    if (c->examples) {
        sbuf_lit(b, "\nExamples:\n");
        for (const char *s = c->examples; *s; s += strcspn(s, "\n") + 1)
            sbuf_fmt(b, "  %.*s\n", (int)strcspn(s, "\n"), s);
    }
}

static void add_command_line(struct sbuf *b, const struct command *c)
{
    sbuf_fmt(b, "  %-18s %s\n", c->name, c->help);
}

void help_overview(struct sbuf *b)
{
    sbuf_lit(b, "usage: sbx [-H URL] COMMAND [OPTIONS] [ARGS]\n\n"
                "Runs programs in disposable microVMs of sandboxd.\n\nCommands:\n");
    for (const struct command *c = commands; c->name; c++)
        if (!(c->flags & CMD_HIDDEN))
            add_command_line(b, c);
    sbuf_lit(b, "\nEverywhere:\n");
    add_opts(b, global_opts);
    sbuf_lit(b, "\nThe daemon is found by --host, else SBX_HOST, else SBX_SOCKET (a path), else\n"
                "at /run/sandboxd/sandboxd.sock. 'sbx help COMMAND' says more about a command.\n");
}

void help_group(struct sbuf *b, const char *group)
{
    size_t len = strlen(group);

    sbuf_fmt(b, "usage: sbx %s COMMAND [OPTIONS] [ARGS]\n\nCommands:\n", group);
    for (const struct command *c = commands; c->name; c++)
        if (strncmp(c->name, group, len) == 0 && c->name[len] == ' ')
            add_command_line(b, c);
}

/* ---- manual -------------------------------------------------------------------------------- */

/* Text of ours for troff: no line of it may begin with a control character. */
static void add_roff(struct sbuf *b, const char *s)
{
    for (size_t i = 0; s[i]; i++) {
        if (s[i] == '\\')
            sbuf_lit(b, "\\e");
        else if (s[i] == '-')
            sbuf_lit(b, "\\-");
        else if ((s[i] == '.' || s[i] == '\'') && (i == 0 || s[i - 1] == '\n')) {
            sbuf_lit(b, "\\&");
            sbuf_chr(b, s[i]);
        } else if (strncmp(s + i, "…", 3) == 0) {
            sbuf_lit(b, "...");
            i += 2;
        } else {
            sbuf_chr(b, s[i]);
        }
    }
}

static void man_paragraphs(struct sbuf *b, const char *text)
{
    const char *gap = NULL;

    while ((gap = strstr(text, "\n\n"))) {
        autofree char *part = strndup(text, (size_t)(gap - text));
        if (part)
            add_roff(b, part);
        sbuf_lit(b, "\n.PP\n");
        text = gap + 2;
    }
    add_roff(b, text);
    sbuf_chr(b, '\n');
}

static void man_opts(struct sbuf *b, const struct opt *table)
{
    for (const struct opt *o = table; o && o->name; o++) {
        sbuf_lit(b, ".TP\n");
        if (o->letter)
            sbuf_fmt(b, "\\fB\\-%c\\fR, ", o->letter);
        sbuf_lit(b, "\\fB");
        autosbuf struct sbuf name = SBUF(64);
        sbuf_fmt(&name, "--%s", o->name);
        add_roff(b, sbuf_str(&name));
        sbuf_lit(b, "\\fR");
        if (o->arg) {
            sbuf_lit(b, " \\fI");
            add_roff(b, o->arg);
            sbuf_lit(b, "\\fR");
        }
        sbuf_chr(b, '\n');
        add_roff(b, o->help);
        sbuf_chr(b, '\n');
    }
}

void help_man(struct sbuf *b)
{
    sbuf_lit(b, ".SH GLOBAL OPTIONS\n");
    man_opts(b, global_opts);
    sbuf_lit(b, ".SH COMMANDS\n");
    for (const struct command *c = commands; c->name; c++) {
        autosbuf struct sbuf usage = SBUF(400);
        if (c->flags & CMD_HIDDEN)
            continue;
        help_usage(&usage, c);
        sbuf_lit(b, ".SS ");
        add_roff(b, sbuf_str(&usage));
        sbuf_fmt(b, "\n%c", c->help[0] - 'a' + 'A');
        add_roff(b, c->help + 1);
        sbuf_lit(b, ".\n");
        if (c->alias)
            sbuf_fmt(b, "Also called \\fB%s\\fR.\n", c->alias);
        if (c->text) {
            sbuf_lit(b, ".PP\n");
            man_paragraphs(b, c->text);
        }
        man_opts(b, c->opts);
        if (c->examples) {
            sbuf_lit(b, ".PP\n.EX\n");
            add_roff(b, c->examples);
            sbuf_lit(b, ".EE\n");
        }
    }
}

COMMAND(cmd_help)
{
    const struct help_opts *o = opts;
    autosbuf struct sbuf b = SBUF(1024 * 1024);
    int used = 0;

    (void)app;
    if (o->man) {
        help_man(&b);
    } else if (!n) {
        help_overview(&b);
    } else if (n == 1 && command_is_group(args[0])) {
        help_group(&b, args[0]);
    } else {
        const struct command *c = command_find((int)n, args, &used, e);
        if (!c)
            return -1;
        help_command(&b, c);
    }
    if (b.failed)
        return err_nomem(e);
    return out_write(b.data, b.len, e);
}
