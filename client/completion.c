/* SPDX-License-Identifier: MIT
 *
 * completion: the scripts for shells only hand the words over to `sbx __complete`, which answers
 * from the tables and from the daemon: "word<TAB>description" lines, or ":files" or ":dirs" where
 * the shell itself knows better. So the three of them agree, and names are the live ones.
 */
#include "client/api_client.h"
#include "client/app.h"
#include "client/out.h"
#include "common/api.h"
#include "common/auto.h"
#include "common/limits.h"
#include "common/name.h"
#include <string.h>

static const char bash_script[] =
    "# bash completion of sbx\n"
    "_sbx() {\n"
    "    local line word=${COMP_WORDS[COMP_CWORD]} IFS=$'\\n'\n"
    "    COMPREPLY=()\n"
    "    for line in $(sbx __complete -- \"${COMP_WORDS[@]:1:COMP_CWORD}\" 2>/dev/null); do\n"
    "        case $line in\n"
    "        :files) compopt -o filenames; COMPREPLY+=($(compgen -f -- \"$word\")) ;;\n"
    "        :dirs) compopt -o filenames; COMPREPLY+=($(compgen -d -- \"$word\")) ;;\n"
    "        *) COMPREPLY+=(\"${line%%$'\\t'*}\") ;;\n"
    "        esac\n"
    "    done\n"
    "    [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *= ]] && compopt -o nospace\n"
    "    return 0\n"
    "}\n"
    "complete -F _sbx sbx\n";

static const char zsh_script[] =
    "#compdef sbx\n"
    "# zsh completion of sbx\n"
    "_sbx() {\n"
    "    local line\n"
    "    local -a found\n"
    "    for line in ${(f)\"$(sbx __complete -- \"${(@)words[2,CURRENT]}\" 2>/dev/null)\"}; do\n"
    "        case $line in\n"
    "        :files) _files ;;\n"
    "        :dirs) _files -/ ;;\n"
    "        *) found+=(\"${${line%%$'\\t'*}//:/\\\\:}:${line#*$'\\t'}\") ;;\n"
    "        esac\n"
    "    done\n"
    "    (( ${#found} )) && _describe sbx found\n"
    "}\n"
    "if [[ ${funcstack[1]} == _sbx ]]; then _sbx \"$@\"; else compdef _sbx sbx; fi\n";

static const char fish_script[] =
    "# fish completion of sbx\n"
    "function __sbx_complete\n"
    "    set -l words (commandline -opc) (commandline -ct)\n"
    "    for line in (sbx __complete -- $words[2..-1] 2>/dev/null)\n"
    "        switch $line\n"
    "            case ':files'\n"
    "                __fish_complete_path (commandline -ct)\n"
    "            case ':dirs'\n"
    "                __fish_complete_directories (commandline -ct)\n"
    "            case '*'\n"
    "                printf '%s\\n' $line\n"
    "        end\n"
    "    end\n"
    "end\n"
    "complete -c sbx -f -a '(__sbx_complete)'\n";

COMMAND(cmd_completion)
{
    static const struct { const char *shell, *script; } shells[] = {
        { "bash", bash_script }, { "zsh", zsh_script }, { "fish", fish_script },
    };

    (void)app;
    (void)opts;
    (void)n;
    for (size_t i = 0; i < ARRAY_SIZE(shells); i++)
        if (strcmp(args[0], shells[i].shell) == 0)
            return out_write(shells[i].script, strlen(shells[i].script), e);
    err_set(e, ERR_USAGE, "there is no completion for '%s'", args[0]);
    return err_hint(e, "shells are bash, zsh and fish");
}

/* ---- candidates ---------------------------------------------------------------------------- */

struct words {
    const char *typed;      /* what they have to begin with */
    struct err *e;
};

static void offer(const struct words *w, const char *word, const char *help)
{
    if (strncmp(word, w->typed, strlen(w->typed)) != 0)
        return;
    printf("%s%s%s\n", word, help ? "\t" : "", help ? help : "");
}

static void offer_words(const struct words *w, const char *list)
{
    while (list && *list) {
        autofree char *word = strndup(list, strcspn(list, " "));
        if (word)
            offer(w, word, NULL);
        list += strcspn(list, " ");
        list += strspn(list, " ");
    }
}

static void offer_sandboxes(struct app *app, const struct words *w)
{
    struct { struct jlist sandboxes; } reply = { 0 };
    struct err ignored = ERR_INIT;

    if (client_get(app, "/" API_VERSION "/sandboxes", api_sandbox_list_table, &reply, &ignored) < 0)
        return;
    const struct api_sandbox *s = reply.sandboxes.items;
    for (size_t i = 0; i < reply.sandboxes.n; i++)
        if (s[i].name && name_valid(s[i].name))
            offer(w, s[i].name, s[i].state);
    json_done(api_sandbox_list_table, &reply, sizeof(reply));
}

static void offer_images(struct app *app, const struct words *w)
{
    struct api_image_list reply = { 0 };
    struct err ignored = ERR_INIT;

    if (client_get(app, "/" API_VERSION "/images", api_image_list_table, &reply, &ignored) < 0)
        return;
    const struct api_image *s = reply.images.items;
    for (size_t i = 0; i < reply.images.n; i++)
        if (s[i].name && name_valid(s[i].name))
            offer(w, s[i].name, s[i].variant && name_valid(s[i].variant) ? s[i].variant : NULL);
    json_done(api_image_list_table, &reply, sizeof(reply));
}

static void offer_execs(struct app *app, const struct words *w, const char *sandbox)
{
    struct api_exec_list reply = { 0 };
    struct err ignored = ERR_INIT;
    autosbuf struct sbuf path = SBUF(4096);

    url_sandbox(&path, sandbox, "/execs");
    if (client_get(app, sbuf_str(&path), api_exec_list_table, &reply, &ignored) < 0)
        return;
    const struct api_exec *x = reply.execs.items;
    for (size_t i = 0; i < reply.execs.n; i++)
        if (x[i].id && id_valid(x[i].id))
            offer(w, x[i].id, NULL);
    json_done(api_exec_list_table, &reply, sizeof(reply));
}

static void offer_policies(struct app *app, const struct words *w)
{
    struct api_named_policy_list reply = { 0 };
    struct err ignored = ERR_INIT;

    if (strchr(w->typed, '/')) {
        printf(":files\n");
        return;
    }
    if (client_get(app, "/" API_VERSION "/policies", api_named_policy_list_table, &reply,
                   &ignored) < 0)
        return;
    const struct api_named_policy *p = reply.policies.items;
    for (size_t i = 0; i < reply.policies.n; i++)
        if (p[i].name && name_valid(p[i].name))
            offer(w, p[i].name, p[i].kind && name_valid(p[i].kind) ? p[i].kind : NULL);
    json_done(api_named_policy_list_table, &reply, sizeof(reply));
}

/* Targets have colons, at which bash takes words apart: what comes after one is left alone. */
static void offer_rules(struct app *app, const struct words *w, char **given, size_t n)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyz0123456789-_.:*/";
    struct api_policy reply = { 0 };
    struct err ignored = ERR_INIT;
    autosbuf struct sbuf path = SBUF(4096);

    if (strcmp(given[n - 1], ":") == 0 || strcmp(w->typed, ":") == 0)
        return;
    url_sandbox(&path, given[0], "/policy");
    if (client_get(app, sbuf_str(&path), api_policy_table, &reply, &ignored) < 0)
        return;
    const struct api_policy_rule *r = reply.rules.items;
    for (size_t i = 0; i < reply.rules.n; i++)
        if (r[i].target && !r[i].target[strspn(r[i].target, plain)])
            offer(w, r[i].target, NULL);
    json_done(api_policy_table, &reply, sizeof(reply));
}

static void offer_commands(const struct words *w, const char *group)
{
    size_t len = group ? strlen(group) : 0;
    const char *last_group = "";

    for (const struct command *c = commands; c->name; c++) {
        const char *space = strchr(c->name, ' ');
        if (c->flags & CMD_HIDDEN)
            continue;
        if (group) {
            if (strncmp(c->name, group, len) == 0 && c->name[len] == ' ')
                offer(w, c->name + len + 1, c->help);
        } else if (!space) {
            offer(w, c->name, c->help);
        } else if (strncmp(c->name, last_group, (size_t)(space - c->name) + 1) != 0) {
            autofree char *word = strndup(c->name, (size_t)(space - c->name));
            last_group = c->name;
            if (word && command_is_group(word))
                offer(w, word, "more commands");
        }
    }
}

static void offer_options(const struct words *w, const struct opt *table)
{
    char word[80];

    for (; table && table->name; table++) {
        snprintf(word, sizeof(word), "--%s", table->name);
        offer(w, word, table->help);
        if (table->letter && strlen(w->typed) < 2) {
            snprintf(word, sizeof(word), "-%c", table->letter);
            offer(w, word, table->help);
        }
    }
}

static void offer_kind(struct app *app, const struct words *w, enum complete kind, const char *list,
                       char **given, size_t n)
{
    switch (kind) {
    case COMPLETE_SANDBOX:
        offer_sandboxes(app, w);
        break;
    case COMPLETE_SANDBOX_THEN_EXEC:
        if (n == 0)
            offer_sandboxes(app, w);
        else if (n == 1)
            offer_execs(app, w, given[0]);
        break;
    case COMPLETE_SANDBOX_THEN_COMMAND:     /* files of the guest are not ours to know */
        if (n == 0)
            offer_sandboxes(app, w);
        break;
    case COMPLETE_IMAGE:
        offer_images(app, w);
        break;
    case COMPLETE_POLICY:
        if (n == 0)
            offer_policies(app, w);
        break;
    case COMPLETE_POLICY_THEN_FILE:
        if (n == 0)
            offer_policies(app, w);
        else
            printf(":files\n");
        break;
    case COMPLETE_SANDBOX_THEN_POLICY:
        if (n == 0)
            offer_sandboxes(app, w);
        else
            offer_policies(app, w);
        break;
    case COMPLETE_SANDBOX_THEN_RULE:
        if (n == 0)
            offer_sandboxes(app, w);
        else
            offer_rules(app, w, given, n);
        break;
    case COMPLETE_DIR:
        printf(":dirs\n");
        break;
    case COMPLETE_FILE:
        printf(":files\n");
        break;
    case COMPLETE_WORDS:
        if (n == 0)
            offer_words(w, list);
        break;
    case COMPLETE_COMMAND:
        if (n == 0)
            offer_commands(w, NULL);
        else if (n == 1 && command_is_group(given[0]))
            offer_commands(w, given[0]);
        break;
    case COMPLETE_NONE:
        break;
    }
}

/* The option a word stands for if its value is the next word. */
static const struct opt *wants_value(const struct command *c, const char *word)
{
    const struct opt *tables[2] = { c ? c->opts : NULL, global_opts };
    bool is_long = word[0] == '-' && word[1] == '-' && word[2];

    if (word[0] != '-' || !word[1] || (is_long && strchr(word, '=')))
        return NULL;
    for (size_t t = 0; t < 2; t++) {
        for (const struct opt *o = tables[t]; o && o->name; o++) {
            if (o->type == OPT_FLAG)
                continue;
            if (is_long ? strcmp(word + 2, o->name) == 0
                        : o->letter && word[strlen(word) - 1] == o->letter &&
                              strspn(word + 1, "itdqaf") >= strlen(word) - 2)
                return o;
        }
    }
    return NULL;
}

/* What the word at the cursor may be, given the words before it. */
static void complete(struct app *app, const struct command *c, char **before, size_t n_before,
                     const struct words *w)
{
    autofree char **given = calloc(n_before + 1, sizeof(*given));
    const struct opt *open = NULL;
    bool ended = false;
    size_t n = 0;

    if (!given)
        return;
    for (size_t i = 0; i < n_before; i++) {
        if (open) {
            open = NULL;
        } else if (!ended && strcmp(before[i], "--") == 0) {
            ended = true;
        } else if (!ended && before[i][0] == '-' && before[i][1]) {
            open = wants_value(c, before[i]);
        } else {
            given[n++] = before[i];
            ended = ended || (c->flags & CMD_STOP_EARLY);
        }
    }
    if (open) {
        offer_kind(app, w, open->complete, open->words, NULL, 0);
    } else if (!ended && w->typed[0] == '-') {
        offer_options(w, c->opts);
        offer_options(w, global_opts);
    } else {
        if (n == 0 && !ended)
            offer_commands(w, c->name);     /* "audit" is a command, and "audit verify" one */
        if (n < c->max_args)
            offer_kind(app, w, c->complete, c->words, given, n);
    }
}

/* args: the words after "sbx", the last one being typed. */
COMMAND(cmd_complete)
{
    size_t i = 0;
    int used = 0;
    struct err ignored = ERR_INIT;
    const struct words w = { .typed = n ? args[n - 1] : "", .e = e };

    (void)opts;
    while (i + 1 < n && args[i][0] == '-') {
        const struct opt *o = wants_value(NULL, args[i]);
        if (o && i + 2 < n && strcmp(o->name, "host") == 0) {
            host_done(&app->host);
            if (host_init(&app->host, args[i + 1], e) < 0)
                return -1;
        }
        i += o ? 2 : 1;
    }
    if (i + 1 > n || n == 0)
        return 0;
    if (i + 1 == n) {
        if (w.typed[0] == '-')
            offer_options(&w, global_opts);
        else
            offer_commands(&w, NULL);
        return 0;
    }
    if (i + 2 == n && command_is_group(args[i])) {
        offer_commands(&w, args[i]);
        return 0;
    }
    const struct command *c = command_find((int)(n - i - 1), args + i, &used, &ignored);
    if (c)
        complete(app, c, args + i + used, n - i - 1 - (size_t)used, &w);
    return 0;
}
