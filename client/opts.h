/* SPDX-License-Identifier: MIT
 *
 * opts: commands and options by table. Parsing, --help, usage errors, completion and the command
 * part of the manual page all read the same rows, so nothing is typed twice.
 *
 * Values go into a struct of the command, at the row's offset. Words are borrowed from argv; only
 * lists own memory (opts_done). Options and names may come in any order, `--` ends the options;
 * with CMD_STOP_EARLY the first word that is no option ends them too, so that what follows it
 * belongs to another program.
 */
#pragma once

#include "common/err.h"
#include "common/sbuf.h"
#include "common/strv.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct app;

enum opt_type {
    OPT_FLAG,       /* bool */
    OPT_STR,        /* const char *, borrowed; the last one wins */
    OPT_LIST,       /* struct strv, every one in order */
    OPT_U32,        /* uint32_t, at least 1 */
    OPT_SIZE,       /* uint64_t bytes, at least 1 */
    OPT_DURATION,   /* struct opt_duration */
    OPT_TYPE_MAX
};

struct opt_duration { bool set; uint64_t ms; };

/* What a word may be completed to. */
enum complete {
    COMPLETE_NONE,
    COMPLETE_SANDBOX,   /* names of sandboxes */
    COMPLETE_SANDBOX_THEN_EXEC,
    COMPLETE_SANDBOX_THEN_COMMAND,
    COMPLETE_IMAGE,
    COMPLETE_POLICY,            /* named ones and presets, and files once there is a '/' */
    COMPLETE_POLICY_THEN_FILE,
    COMPLETE_SANDBOX_THEN_POLICY,
    COMPLETE_SANDBOX_THEN_RULE,     /* targets of its rules */
    COMPLETE_DIR,
    COMPLETE_FILE,
    COMPLETE_WORDS,     /* the row's words */
    COMPLETE_COMMAND,   /* words of the command table */
};

struct opt {
    const char *name;       /* long name; NULL ends a table */
    char letter;            /* 0: none */
    enum opt_type type;
    size_t offset;
    const char *arg;        /* what stands for the value in help; NULL for flags */
    const char *help;       /* one line, no full stop */
    enum complete complete; /* of the value */
    const char *words;      /* COMPLETE_WORDS: "a b c" */
};

#define OPT(struct_type, member, name_, letter_, type_, arg_, help_, ...)                  \
    { .name = name_, .letter = letter_, .type = type_,                                     \
      .offset = offsetof(struct_type, member), .arg = arg_, .help = help_, ##__VA_ARGS__ }
#define OPT_END { .name = NULL }

#define CMD_STOP_EARLY 1u   /* options end at the first word that is none */
#define CMD_HIDDEN 2u       /* not in lists: helpers of completion */

struct command {
    const char *name;           /* as typed: "ls", "image ls"; NULL ends a table */
    const char *alias;          /* other spelling of the last word; NULL: none */
    const char *args;           /* words after the options in the usage line; "" */
    const char *help;           /* one line, no full stop */
    const char *text;           /* paragraphs for --help and the manual; NULL: none */
    const char *examples;       /* lines; NULL: none */
    const struct opt *opts;     /* NULL: none of its own */
    size_t opts_size;           /* of the struct they fill */
    size_t min_args, max_args;  /* max 0 with min 0: none; SIZE_MAX: any number */
    unsigned flags;
    enum complete complete;     /* of its words */
    const char *words;          /* COMPLETE_WORDS */
    /* Exit status, or -1 with the error set. args is NULL-terminated. */
    int (*run)(struct app *app, void *opts, char **args, size_t n, struct err *e);
};

struct opts_global {        /* may stand before and after the command's name */
    const char *host;
    bool debug, version, help;
};

extern const struct command commands[];
extern const struct opt global_opts[];

/* Options before the command's name: fills g, *ret_rest is the index of the first other word. */
int opts_parse_global(int argc, char **argv, struct opts_global *g, int *ret_rest, struct err *e);
/* Options and words of one command. `opts` has opts_size zero bytes (defaults may be set before).
 * args gets at most argc words and a NULL, borrowed from argv. */
int opts_parse(const struct command *c, int argc, char **argv, struct opts_global *g, void *opts,
               char **args, size_t *ret_n, struct err *e);
void opts_done(const struct command *c, void *opts);

/* The command the first words of argv name, by name or alias; *ret_used words of it. NULL with the
 * error set (and a near name in the hint) if there is none. A group alone ("image") is an error
 * that names its members. */
const struct command *command_find(int argc, char **argv, int *ret_used, struct err *e);
/* Whether words of the table begin with this one, "image", and none is it, as "audit" is. */
bool command_is_group(const char *word);

/* Help for people. */
void help_overview(struct sbuf *b);
void help_group(struct sbuf *b, const char *group);
void help_command(struct sbuf *b, const struct command *c);
void help_usage(struct sbuf *b, const struct command *c);   /* "sbx exec [OPTIONS] NAME …" */
/* The command part of sbx.1 in man(7) macros. */
void help_man(struct sbuf *b);
/* "-e, --env K[=V]" */
void help_opt_left(struct sbuf *b, const struct opt *o);

/* The word of a table nearest to what was typed; NULL when none is near. */
const char *nearest_word(const char *typed, const char *const *words, size_t n);
