/* SPDX-License-Identifier: MIT */
#include "client/opts.h"
#include "common/auto.h"
#include "common/parse.h"
#include <string.h>

const struct opt global_opts[] = {
    OPT(struct opts_global, host, "host", 'H', OPT_STR, "URL",
        "daemon to talk to: unix:///PATH or ssh://[USER@]HOST[:PORT][/PATH]"),
    OPT(struct opts_global, debug, "debug", 0, OPT_FLAG, NULL,
        "say on stderr what is asked of the daemon"),
    OPT(struct opts_global, help, "help", 'h', OPT_FLAG, NULL, "say how it is used"),
    OPT_END
};

/* -v is the version only before a command. */
static const struct opt first_opts[] = {
    OPT(struct opts_global, version, "version", 'v', OPT_FLAG, NULL, "say the version of sbx"),
    OPT_END
};

#define NEAREST_WORDS_MAX 64

/* Edit distance with swaps of neighbours, cut at words of 31 letters: enough for a slip. */
static unsigned word_distance(const char *a, const char *b)
{
    enum { MAX = 32 };
    unsigned d[MAX][MAX];
    size_t n = strlen(a), m = strlen(b);

    if (n >= MAX || m >= MAX)
        return MAX;
    for (size_t i = 0; i <= n; i++)
        d[i][0] = (unsigned)i;
    for (size_t j = 0; j <= m; j++)
        d[0][j] = (unsigned)j;
    for (size_t i = 1; i <= n; i++) {
        for (size_t j = 1; j <= m; j++) {
            unsigned best = d[i - 1][j - 1] + (a[i - 1] != b[j - 1]);
            if (d[i - 1][j] + 1 < best)
                best = d[i - 1][j] + 1;
            if (d[i][j - 1] + 1 < best)
                best = d[i][j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
                d[i - 2][j - 2] + 1 < best)
                best = d[i - 2][j - 2] + 1;
            d[i][j] = best;
        }
    }
    return d[n][m];
}

const char *nearest_word(const char *typed, const char *const *words, size_t n)
{
    const char *best = NULL;
    size_t len = strlen(typed);
    unsigned limit = len <= 2 ? 1 : len <= 5 ? 2 : 3;
    unsigned best_distance = limit + 1;

    if (!len)
        return NULL;
    for (size_t i = 0; i < n; i++) {
        /* The beginning of a word is what people type when they expect abbreviations. */
        unsigned distance = len >= 2 && strncmp(words[i], typed, len) == 0
                                ? 1 : word_distance(typed, words[i]);
        if (distance < best_distance && distance < strlen(words[i])) {
            best = words[i];
            best_distance = distance;
        }
    }
    return best;
}

/* ---- options ------------------------------------------------------------------------------- */

static const struct opt *opt_by_name(const struct opt *table, const char *name, size_t len)
{
    for (; table && table->name; table++)
        if (strlen(table->name) == len && strncmp(table->name, name, len) == 0)
            return table;
    return NULL;
}

static const struct opt *opt_by_letter(const struct opt *table, char letter)
{
    for (; table && table->name; table++)
        if (table->letter == letter)
            return table;
    return NULL;
}

static int opt_store(const struct opt *o, const char *value, void *base, struct err *e)
{
    void *place = (char *)base + o->offset;
    uint32_t u32 = 0;
    uint64_t u64 = 0;

    switch (o->type) {
    case OPT_FLAG:
        *(bool *)place = true;
        return 0;
    case OPT_STR:
        *(const char **)place = value;
        return 0;
    case OPT_LIST:
        return strv_add(place, value, e);
    case OPT_U32:
        if (!parse_u32(value, 1, UINT32_MAX, &u32)) {
            err_set(e, ERR_USAGE, "--%s: '%s' is not a number of 1 or more", o->name, value);
            return -1;
        }
        *(uint32_t *)place = u32;
        return 0;
    case OPT_SIZE:
        if (!parse_size(value, &u64) || !u64) {
            err_set(e, ERR_USAGE, "--%s: '%s' is not a size", o->name, value);
            return err_hint(e, "sizes are written like 512M, 2G or 1.5G");
        }
        *(uint64_t *)place = u64;
        return 0;
    case OPT_DURATION:
        if (!parse_duration(value, &u64)) {
            err_set(e, ERR_USAGE, "--%s: '%s' is not a duration", o->name, value);
            return err_hint(e, "durations are written like 90s, 500ms, 15m or 1h30m");
        }
        *(struct opt_duration *)place = (struct opt_duration){ .set = true, .ms = u64 };
        return 0;
    case OPT_TYPE_MAX:
        break;
    }
    return err_set(e, ERR_INTERNAL, "option --%s has no type", o->name);
}

/* Two tables at once: the command's own and the global one. */
struct parser {
    const struct opt *tables[2];
    void *bases[2];
    const struct command *command;  /* NULL before its name is known */
};

static int usage_hint(const struct parser *p, struct err *e)
{
    if (e->hint[0])
        return -1;
    if (p->command)
        return err_hint(e, "see 'sbx %s --help'", p->command->name);
    return err_hint(e, "see 'sbx help'");
}

static int unknown_long(const struct parser *p, const char *name, size_t len, struct err *e)
{
    const char *words[NEAREST_WORDS_MAX];
    const char *near = NULL;
    char typed[32] = "";
    size_t n = 0;

    err_set(e, ERR_USAGE, "unknown option '--%.*s'", (int)(len < 64 ? len : 64), name);
    for (size_t t = 0; t < 2; t++)
        for (const struct opt *o = p->tables[t]; o && o->name && n < NEAREST_WORDS_MAX; o++)
            words[n++] = o->name;
    if (len < sizeof(typed)) {
        memcpy(typed, name, len);
        near = nearest_word(typed, words, n);
    }
    if (near)
        return err_hint(e, "did you mean '--%s'?", near);
    return usage_hint(p, e);
}

/* Returns the number of words used after this one (0 or 1), -1 on error. */
static int parse_long(const struct parser *p, const char *word, const char *next, struct err *e)
{
    const char *eq = strchr(word, '=');
    size_t len = eq ? (size_t)(eq - word) : strlen(word);

    for (size_t t = 0; t < 2; t++) {
        const struct opt *o = opt_by_name(p->tables[t], word, len);
        if (!o)
            continue;
        if (o->type == OPT_FLAG) {
            if (eq && strcmp(eq + 1, "true") != 0) {
                err_set(e, ERR_USAGE, "option '--%s' takes no value", o->name);
                return usage_hint(p, e);
            }
            return opt_store(o, NULL, p->bases[t], e);
        }
        if (eq)
            return opt_store(o, eq + 1, p->bases[t], e);
        if (!next) {
            err_set(e, ERR_USAGE, "option '--%s' wants a value: %s", o->name, o->arg);
            return usage_hint(p, e);
        }
        return opt_store(o, next, p->bases[t], e) < 0 ? -1 : 1;
    }
    return unknown_long(p, word, len, e);
}

/* "-itu root", "-eK=V", "-e K=V", and as docker has it "-e=K=V". */
static int parse_letters(const struct parser *p, const char *word, const char *next, struct err *e)
{
    for (const char *s = word; *s; s++) {
        const struct opt *o = NULL;
        size_t t = 0;

        for (; t < 2 && !o; t++)
            o = opt_by_letter(p->tables[t], *s);
        if (!o) {
            err_set(e, ERR_USAGE, "unknown option '-%c'", *s);
            return usage_hint(p, e);
        }
        t--;
        if (o->type == OPT_FLAG) {
            if (opt_store(o, NULL, p->bases[t], e) < 0)
                return -1;
            continue;
        }
        if (s[1])
            return opt_store(o, s[1] == '=' ? s + 2 : s + 1, p->bases[t], e);
        if (!next) {
            err_set(e, ERR_USAGE, "option '-%c' wants a value: %s", o->letter, o->arg);
            return usage_hint(p, e);
        }
        return opt_store(o, next, p->bases[t], e) < 0 ? -1 : 1;
    }
    return 0;
}

int opts_parse_global(int argc, char **argv, struct opts_global *g, int *ret_rest, struct err *e)
{
    const struct parser p = { .tables = { global_opts, first_opts }, .bases = { g, g } };
    int i = 0;

    for (; i < argc && argv[i][0] == '-' && argv[i][1]; i++) {
        const char *next = i + 1 < argc ? argv[i + 1] : NULL;
        if (strcmp(argv[i], "--") == 0) {
            i++;
            break;
        }
        int used = argv[i][1] == '-' ? parse_long(&p, argv[i] + 2, next, e)
                                     : parse_letters(&p, argv[i] + 1, next, e);
        if (used < 0)
            return -1;
        i += used;
    }
    *ret_rest = i;
    return 0;
}

static int check_count(const struct command *c, char **args, size_t n, struct err *e)
{
    autosbuf struct sbuf usage = SBUF(160);

    if (n >= c->min_args && n <= c->max_args)
        return 0;
    if (n < c->min_args)
        err_set(e, ERR_USAGE, "'sbx %s' wants %s", c->name, c->args);
    else if (c->max_args == 0)
        err_set(e, ERR_USAGE, "'sbx %s' takes no arguments, but got '%s'", c->name, args[0]);
    else
        err_set(e, ERR_USAGE, "'sbx %s': '%s' is one argument too many", c->name,
                args[c->max_args]);
    if (n > 0 && strcmp(c->name, "create") == 0)
        return err_hint(e, "did you mean '--name %s'?", args[0]);
    help_usage(&usage, c);
    return err_hint(e, "usage: %s", sbuf_str(&usage));
}

int opts_parse(const struct command *c, int argc, char **argv, struct opts_global *g, void *opts,
               char **args, size_t *ret_n, struct err *e)
{
    const struct parser p = { .tables = { c->opts, global_opts }, .bases = { opts, g },
                              .command = c };
    bool ended = false;
    size_t n = 0;

    for (int i = 0; i < argc; i++) {
        const char *next = i + 1 < argc ? argv[i + 1] : NULL;
        if (ended || argv[i][0] != '-' || !argv[i][1]) {
            args[n++] = argv[i];
            ended = ended || (c->flags & CMD_STOP_EARLY);
            continue;
        }
        if (strcmp(argv[i], "--") == 0) {
            ended = true;
            continue;
        }
        int used = argv[i][1] == '-' ? parse_long(&p, argv[i] + 2, next, e)
                                     : parse_letters(&p, argv[i] + 1, next, e);
        if (used < 0)
            return -1;
        i += used;
    }
    args[n] = NULL;
    *ret_n = n;
    return g->help ? 0 : check_count(c, args, n, e);
}

void opts_done(const struct command *c, void *opts)
{
    for (const struct opt *o = c->opts; o && o->name; o++)
        if (o->type == OPT_LIST)
            strv_done((struct strv *)(void *)((char *)opts + o->offset));
}

/* ---- commands ------------------------------------------------------------------------------ */

static const char *last_word(const char *name)
{
    const char *space = strrchr(name, ' ');
    return space ? space + 1 : name;
}

bool command_is_group(const char *word)
{
    size_t len = strlen(word);
    bool found = false;

    for (const struct command *c = commands; c->name; c++) {
        if (strcmp(c->name, word) == 0)
            return false;
        found |= strncmp(c->name, word, len) == 0 && c->name[len] == ' ';
    }
    return found;
}

static bool command_matches(const struct command *c, int argc, char **argv, int *ret_used)
{
    const char *space = strchr(c->name, ' ');
    const char *last = last_word(c->name);
    const char *typed = argv[0];

    if (space) {
        size_t len = (size_t)(space - c->name);
        if (argc < 2 || strlen(argv[0]) != len || strncmp(argv[0], c->name, len) != 0)
            return false;
        typed = argv[1];
    }
    if (strcmp(typed, last) != 0 && !(c->alias && strcmp(typed, c->alias) == 0))
        return false;
    *ret_used = space ? 2 : 1;
    return true;
}

/* What people who know docker type first. */
static const struct {
    const char *word, *hint;
} elsewhere[] = {
    { "run", "'sbx create --name NAME --workspace DIR', then 'sbx exec -it NAME -- bash'" },
    { "cp", "'tar c FILE | sbx exec -i NAME -- tar x -C DIR', or share a workspace" },
    { "kill", "'sbx stop -t 0 NAME' cuts the power, 'sbx rm -f NAME' removes it as well" },
    { "pull", "images are made on the host: 'sudo sandboxd image build'" },
    { "build", "images are made on the host: 'sudo sandboxd image build'" },
    { "rmi", "did you mean 'sbx image rm'?" },
    { "network", "what a sandbox may reach is its policy: 'sbx policy ls NAME'" },
    { "ssh", "'sbx exec -it NAME -- bash'" },
    { "shell", "'sbx exec -it NAME -- bash'" },
};

const struct command *command_find(int argc, char **argv, int *ret_used, struct err *e)
{
    const char *words[NEAREST_WORDS_MAX];
    const char *near = NULL;
    size_t n = 0;
    bool group = command_is_group(argv[0]);
    size_t len = strlen(argv[0]);

    for (const struct command *c = commands; c->name; c++)
        if (command_matches(c, argc, argv, ret_used))
            return c;
    for (const struct command *c = commands; c->name && n + 1 < NEAREST_WORDS_MAX; c++) {
        if ((c->flags & CMD_HIDDEN) ||
            (group && (strncmp(c->name, argv[0], len) != 0 || c->name[len] != ' ')) ||
            (!group && strchr(c->name, ' ')))
            continue;
        words[n++] = last_word(c->name);
        if (c->alias)
            words[n++] = c->alias;
    }
    if (group && argc < 2) {
        err_set(e, ERR_USAGE, "'sbx %s' wants a word more", argv[0]);
        err_hint(e, "see 'sbx help %s'", argv[0]);
        return NULL;
    }
    err_set(e, ERR_USAGE, "'%s%s%s' is not an sbx command", argv[0], group ? " " : "",
            group ? argv[1] : "");
    for (size_t i = 0; i < ARRAY_SIZE(elsewhere) && !group; i++)
        if (strcmp(argv[0], elsewhere[i].word) == 0) {
            err_hint(e, "%s", elsewhere[i].hint);
            return NULL;
        }
    near = nearest_word(argv[group ? 1 : 0], words, n);
    if (near)
        err_hint(e, "did you mean 'sbx %s%s%s'?", group ? argv[0] : "", group ? " " : "", near);
    else
        err_hint(e, "see 'sbx help'");
    return NULL;
}
