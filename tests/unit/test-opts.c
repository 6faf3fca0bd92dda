/* SPDX-License-Identifier: MIT */
#include "client/opts.h"
#include "client/app.h"
#include "common/auto.h"
#include "tests/harness/test.h"
#include <ctype.h>
#include <stdlib.h>

#define MAX_WORDS 16

/* Parses words for a command of the table; the result stays in the caller's hands. */
static int parse(const char *name, void *opts, char **args, size_t *ret_n, struct err *e,
                 const char *const *words)
{
    static struct opts_global g;
    char *argv[MAX_WORDS];
    char *find[3] = { (char *)(uintptr_t)name, NULL, NULL };
    int argc = 0, used = 0;

    memset(&g, 0, sizeof(g));
    for (; words[argc]; argc++)
        argv[argc] = (char *)(uintptr_t)words[argc];
    const struct command *c = command_find(1, find, &used, e);
    ASSERT_NOT_NULL(c);
    return opts_parse(c, argc, argv, &g, opts, args, ret_n, e);
}

#define WORDS(...) ((const char *const[]){ __VA_ARGS__, NULL })

TEST(short_long_and_bundled)
{
    struct exec_opts o = { 0 };
    struct err e = ERR_INIT;
    char *args[MAX_WORDS + 1];
    size_t n = 0;

    ASSERT_OK(parse("exec", &o, args, &n, &e,
                    WORDS("-itu", "root", "-eA=1", "--env=B=2", "-e", "C", "--timeout", "1m30s",
                          "box", "-i", "--", "x")), e);
    ASSERT_TRUE(o.interactive && o.tty && !o.detach);
    ASSERT_STREQ(o.user, "root");
    ASSERT_EQ(o.env.n, 3);
    ASSERT_STREQ(o.env.items[0], "A=1");
    ASSERT_STREQ(o.env.items[1], "B=2");
    ASSERT_STREQ(o.env.items[2], "C");
    ASSERT_EQ(o.timeout.ms, 90000);
    ASSERT_EQ(n, 4);
    ASSERT_STREQ(args[1], "-i");
    ASSERT_STREQ(args[2], "--");
    ASSERT_NULL(args[4]);
    strv_done(&o.env);
}

TEST(options_after_words_unless_the_command_says_so)
{
    struct rm_opts o = { 0 };
    struct err e = ERR_INIT;
    char *args[MAX_WORDS + 1];
    size_t n = 0;

    ASSERT_OK(parse("rm", &o, args, &n, &e, WORDS("a", "-f", "--", "-b")), e);
    ASSERT_TRUE(o.force);
    ASSERT_EQ(n, 2);
    ASSERT_STREQ(args[1], "-b");
    ASSERT_OK(parse("rm", &o, args, &n, &e, WORDS("-")), e);
    ASSERT_STREQ(args[0], "-");
}

TEST(values_that_are_none)
{
    struct create_opts o = { 0 };
    struct err e = ERR_INIT;
    char *args[MAX_WORDS + 1];
    size_t n = 0;

    ASSERT_ERR(parse("create", &o, args, &n, &e, WORDS("--cpus=-1")), e, ERR_USAGE);
    ASSERT_ERR(parse("create", &o, args, &n, &e, WORDS("--cpus", "4294967296")), e, ERR_USAGE);
    ASSERT_ERR(parse("create", &o, args, &n, &e, WORDS("-m", "0")), e, ERR_USAGE);
    ASSERT_ERR(parse("create", &o, args, &n, &e, WORDS("-m99999999999T")), e, ERR_USAGE);
    ASSERT_ERR(parse("create", &o, args, &n, &e, WORDS("--name")), e, ERR_USAGE);
    ASSERT_ERR(parse("create", &o, args, &n, &e, WORDS("-n")), e, ERR_USAGE);
    ASSERT_ERR(parse("create", &o, args, &n, &e, WORDS("-qz")), e, ERR_USAGE);
    ASSERT_CONTAINS(e.hint, "sbx create --help");
    ASSERT_ERR(parse("create", &o, args, &n, &e, WORDS("---name")), e, ERR_USAGE);
    ASSERT_OK(parse("create", &o, args, &n, &e, WORDS("--name=")), e);
    ASSERT_STREQ(o.name, "");
}

TEST(near_words)
{
    static const char *const words[] = { "create", "exec", "ls", "rm", "start", "stop" };
    const size_t n = ARRAY_SIZE(words);

    ASSERT_STREQ(nearest_word("craete", words, n), "create");
    ASSERT_STREQ(nearest_word("cre", words, n), "create");
    ASSERT_STREQ(nearest_word("sl", words, n), "ls");
    ASSERT_STREQ(nearest_word("stpo", words, n), "stop");
    ASSERT_NULL(nearest_word("frobnicate", words, n));
    ASSERT_NULL(nearest_word("", words, n));
    ASSERT_NULL(nearest_word("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", words, n));
}

/* What a row promises and no compiler checks. */
TEST(rows_are_sound)
{
    for (const struct command *c = commands; c->name; c++) {
        ASSERT_NOT_NULL(c->run);
        ASSERT_TRUE(c->help && islower((unsigned char)c->help[0]));
        ASSERT_NE(c->help[strlen(c->help) - 1], '.');
        ASSERT_GE(c->max_args, c->min_args);
        ASSERT_EQ(c->max_args > 0, c->args[0] != '\0');
        ASSERT_EQ(c->complete == COMPLETE_WORDS, c->words != NULL);
        for (const struct opt *o = c->opts; o && o->name; o++) {
            ASSERT_LT(o->offset, c->opts_size);
            ASSERT_EQ(o->type == OPT_FLAG, o->arg == NULL);
            ASSERT_TRUE(o->help[0] && o->help[strlen(o->help) - 1] != '.');
            ASSERT_EQ(o->complete == COMPLETE_WORDS, o->words != NULL);
            for (const struct opt *other = o + 1; other->name; other++) {
                ASSERT_STRNE(o->name, other->name);
                ASSERT_TRUE(!o->letter || o->letter != other->letter);
            }
            for (const struct opt *g = global_opts; g->name; g++) {
                ASSERT_STRNE(o->name, g->name);
                ASSERT_TRUE(!o->letter || o->letter != g->letter);
            }
        }
        for (const struct command *other = c + 1; other->name; other++)
            ASSERT_STRNE(c->name, other->name);
    }
}
