/* SPDX-License-Identifier: MIT
 *
 * The table of commands. docs/man/sbx.1 holds what `sbx help --man` makes of it; a test compares.
 */
#include "client/app.h"
#include "client/tty.h"
#include <stdint.h>

#define ANY SIZE_MAX
#define SANDBOX .complete = COMPLETE_SANDBOX

static const struct opt create_opts[] = {
    OPT(struct create_opts, name, "name", 0, OPT_STR, "NAME",
        "name of the sandbox; made up otherwise"),
    OPT(struct create_opts, workspace, "workspace", 0, OPT_STR, "DIR[:ro]",
        "directory to share, seen at /workspace; :ro for reading only", .complete = COMPLETE_DIR),
    OPT(struct create_opts, image, "image", 0, OPT_STR, "IMAGE", "image to start from",
        .complete = COMPLETE_IMAGE),
    OPT(struct create_opts, cpus, "cpus", 0, OPT_U32, "N", "virtual processors"),
    OPT(struct create_opts, memory, "memory", 'm', OPT_SIZE, "SIZE", "memory, as in 2G"),
    OPT(struct create_opts, disk, "disk", 0, OPT_SIZE, "SIZE", "size of the root disk, as in 20G"),
    OPT(struct create_opts, env, "env", 'e', OPT_LIST, "K[=V]",
        "variable for every command; without =V as it is here"),
    OPT(struct create_opts, env_files, "env-file", 0, OPT_LIST, "FILE", "file of such variables",
        .complete = COMPLETE_FILE),
    OPT(struct create_opts, labels, "label", 'l', OPT_LIST, "K[=V]", "label, for sbx ls --filter"),
    OPT(struct create_opts, no_start, "no-start", 0, OPT_FLAG, NULL, "create it stopped"),
    OPT(struct create_opts, quiet, "quiet", 'q', OPT_FLAG, NULL, "print the id, not the name"),
    OPT_END
};

#define EXEC_ENV                                                                            \
    OPT(struct exec_opts, env, "env", 'e', OPT_LIST, "K[=V]",                               \
        "variable; without =V as it is here"),                                              \
    OPT(struct exec_opts, env_files, "env-file", 0, OPT_LIST, "FILE", "file of such variables", \
        .complete = COMPLETE_FILE)

static const struct opt exec_opts[] = {
    OPT(struct exec_opts, interactive, "interactive", 'i', OPT_FLAG, NULL, "connect stdin"),
    OPT(struct exec_opts, tty, "tty", 't', OPT_FLAG, NULL, "give it a terminal"),
    OPT(struct exec_opts, detach, "detach", 'd', OPT_FLAG, NULL,
        "leave it running and print its id"),
    EXEC_ENV,
    OPT(struct exec_opts, workdir, "workdir", 'w', OPT_STR, "DIR", "directory in the sandbox"),
    OPT(struct exec_opts, user, "user", 'u', OPT_STR, "USER", "user name or number in the sandbox"),
    OPT(struct exec_opts, timeout, "timeout", 0, OPT_DURATION, "TIME",
        "end it after this long, as in 90s or 15m"),
    OPT(struct exec_opts, detach_keys, "detach-keys", 0, OPT_STR, "KEYS",
        "keys that leave a terminal; " DETACH_KEYS_DEFAULT " unless given"),
    OPT_END
};

static const struct opt attach_opts[] = {
    OPT(struct attach_opts, no_stdin, "no-stdin", 0, OPT_FLAG, NULL,
        "only watch: no stdin, and Ctrl-C leaves without ending the command"),
    OPT(struct attach_opts, detach_keys, "detach-keys", 0, OPT_STR, "KEYS",
        "keys that leave a terminal; " DETACH_KEYS_DEFAULT " unless given"),
    OPT_END
};

#define LIST_COMMON                                                                         \
    OPT(struct list_opts, format, "format", 0, OPT_STR, "FORMAT",                           \
        "table, json (one object a line), or a template such as '{{.Name}}'",               \
        .complete = COMPLETE_WORDS, .words = "table json"),                                 \
    OPT(struct list_opts, no_trunc, "no-trunc", 0, OPT_FLAG, NULL, "cut nothing")

static const struct opt ls_opts[] = {
    OPT(struct list_opts, all, "all", 'a', OPT_FLAG, NULL, "all of them, which is the default"),
    OPT(struct list_opts, filters, "filter", 'f', OPT_LIST, "K=V",
        "state=STATE, label=KEY[=VALUE] or name=PART; may be repeated",
        .complete = COMPLETE_WORDS, .words = "state= label= name="),
    OPT(struct list_opts, quiet, "quiet", 'q', OPT_FLAG, NULL, "print ids alone"),
    LIST_COMMON, OPT_END
};

static const struct opt execs_opts[] = {
    OPT(struct list_opts, quiet, "quiet", 'q', OPT_FLAG, NULL, "print ids alone"),
    LIST_COMMON, OPT_END
};

static const struct opt inspect_opts[] = {
    OPT(struct inspect_opts, format, "format", 'f', OPT_STR, "TEMPLATE",
        "fill this for each, as in '{{.State}}', instead of JSON"),
    OPT_END
};

static const struct opt stop_opts[] = {
    OPT(struct stop_opts, timeout, "time", 't', OPT_DURATION, "TIME",
        "let it shut down for this long before the power is cut"),
    OPT_END
};

static const struct opt rm_opts[] = {
    OPT(struct rm_opts, force, "force", 'f', OPT_FLAG, NULL,
        "no orderly shutdown, and no complaint if there is no such sandbox"),
    OPT_END
};

static const struct opt logs_opts[] = {
    OPT(struct logs_opts, follow, "follow", 'f', OPT_FLAG, NULL, "go on as more comes"),
    OPT(struct logs_opts, tail, "tail", 'n', OPT_STR, "N", "the last N lines alone, or all"),
    OPT(struct logs_opts, since, "since", 0, OPT_STR, "TIME",
        "from this time on (RFC 3339), or so long ago, as in 10m"),
    OPT(struct logs_opts, console, "console", 0, OPT_FLAG, NULL,
        "the machine's console instead of the agent's log"),
    OPT(struct logs_opts, raw, "raw", 0, OPT_FLAG, NULL, "as it is, control characters too"),
    OPT_END
};

static const struct opt format_opts[] = {
    OPT(struct format_opts, format, "format", 'f', OPT_STR, "FORMAT",
        "json, or a template such as '{{.Server.Version}}'", .complete = COMPLETE_WORDS,
        .words = "json"),
    OPT_END
};

static const struct opt help_opts[] = {
    OPT(struct help_opts, man, "man", 0, OPT_FLAG, NULL, "the commands' part of the manual page"),
    OPT_END
};

#define OPTS(table, type) .opts = table, .opts_size = sizeof(struct type)

const struct command commands[] = {
    { "create", NULL, "", "create a sandbox and start it",
      "Makes a virtual machine from an image and starts it. The name goes to stdout once commands "
      "can be run in it.\n\n"
      "Without --workspace no directory of the host is shared. A relative directory is one of this "
      "machine; with a daemon reached by ssh the directory is over there and has to be absolute.",
      "sbx create --name box --workspace .\n"
      "sbx create --workspace ~/src/project:ro --cpus 4 --memory 8G --label team=web\n",
      OPTS(create_opts, create_opts), .run = cmd_create },
    { "exec", NULL, "NAME [--] COMMAND [ARG...]", "run a command in a sandbox",
      "Options end at the name, so that those after it are the command's; a -- after the name is "
      "passed over. Without -i stdin is closed, without -t stdout and stderr stay apart.\n\n"
      "The exit status is the command's own: 128 and the number of a signal if one ended it, 124 "
      "when --timeout did, 126 if it cannot be executed, 127 if there is no such command, and 125 "
      "if sbx or sandboxd failed.\n\n"
      "SIGINT, SIGTERM, SIGQUIT, SIGUSR1 and SIGUSR2 go to the command unless it has a terminal; "
      "the same one for the third time ends sbx. A command ends when its sbx does, unless it was "
      "left by the detach keys or started with --detach.",
      "sbx exec box make test\n"
      "sbx exec -it box bash\n"
      "tar c . | sbx exec -i box tar x -C /tmp\n",
      OPTS(exec_opts, exec_opts), .min_args = 2, .max_args = ANY, .flags = CMD_STOP_EARLY,
      .complete = COMPLETE_SANDBOX_THEN_COMMAND, .run = cmd_exec },
    { "attach", NULL, "NAME EXEC", "connect to a command that runs already",
      "Shows the output that is still kept and goes on with what comes. "
      "'sbx execs' lists the ids.\n"
      "Ctrl-C is the command's, as if it ran here; with --no-stdin it only leaves.",
      NULL, OPTS(attach_opts, attach_opts), .min_args = 2, .max_args = 2,
      .complete = COMPLETE_SANDBOX_THEN_EXEC, .run = cmd_attach },
    { "execs", NULL, "NAME", "list the commands of a sandbox",
      "They are forgotten, with their output, when the sandbox stops.", NULL,
      OPTS(execs_opts, list_opts), .min_args = 1, .max_args = 1, SANDBOX, .run = cmd_execs },
    { "ls", "ps", "", "list sandboxes", NULL,
      "sbx ls --filter state=running\n"
      "sbx ls --format '{{.Name}}\\t{{.Image.Name}}\\t{{.Labels.team}}'\n",
      OPTS(ls_opts, list_opts), .run = cmd_ls },
    { "inspect", NULL, "NAME...", "show all that is known of sandboxes",
      "A JSON array, or text by --format.",
      NULL, OPTS(inspect_opts, inspect_opts), .min_args = 1, .max_args = ANY, SANDBOX,
      .run = cmd_inspect },
    { "start", NULL, "NAME...", "start sandboxes that are stopped", NULL, NULL, .min_args = 1,
      .max_args = ANY, SANDBOX, .run = cmd_start },
    { "stop", NULL, "NAME...", "shut sandboxes down",
      "The disk is kept; 'sbx start' goes on from it.",
      NULL, OPTS(stop_opts, stop_opts), .min_args = 1, .max_args = ANY, SANDBOX, .run = cmd_stop },
    { "restart", NULL, "NAME...", "stop sandboxes and start them again", NULL, NULL, .min_args = 1,
      .max_args = ANY, SANDBOX, .run = cmd_restart },
    { "rm", NULL, "NAME...", "remove sandboxes and their disks",
      "Running ones too. The workspace is a directory of yours and stays as it is.", NULL,
      OPTS(rm_opts, rm_opts), .min_args = 1, .max_args = ANY, SANDBOX, .run = cmd_rm },
    { "logs", NULL, "NAME", "show the log of a sandbox",
      "The log of the agent in the guest, or with --console what the machine printed. Control "
      "characters are shown and not obeyed, unless --raw is given.", NULL,
      OPTS(logs_opts, logs_opts), .min_args = 1, .max_args = 1, SANDBOX, .run = cmd_logs },
    { "images", NULL, "", "list images", NULL, NULL, OPTS(execs_opts, list_opts),
      .run = cmd_images },
    { "image ls", "list", "", "list images", NULL, NULL, OPTS(execs_opts, list_opts),
      .run = cmd_images },
    { "image inspect", NULL, "IMAGE...", "show all that is known of images", NULL, NULL,
      OPTS(inspect_opts, inspect_opts), .min_args = 1, .max_args = ANY,
      .complete = COMPLETE_IMAGE, .run = cmd_image_inspect },
    { "image rm", NULL, "IMAGE...", "remove images that no sandbox uses", NULL, NULL, .min_args = 1,
      .max_args = ANY, .complete = COMPLETE_IMAGE, .run = cmd_image_rm },
    { "version", NULL, "", "show the versions of sbx and sandboxd", NULL, NULL,
      OPTS(format_opts, format_opts), .run = cmd_version },
    { "info", NULL, "", "show what the daemon and its host are like", NULL, NULL,
      OPTS(format_opts, format_opts), .run = cmd_info },
    { "completion", NULL, "bash|zsh|fish", "print a completion script for a shell",
      "For one shell: eval \"$(sbx completion bash)\" in ~/.bashrc.", NULL, .min_args = 1,
      .max_args = 1, .complete = COMPLETE_WORDS, .words = "bash zsh fish", .run = cmd_completion },
    { "system dial-stdio", NULL, "", "connect stdin and stdout to the daemon's socket",
      "What a host of ssh://… runs at the other end.", NULL, .run = cmd_dial_stdio },
    { "help", NULL, "[COMMAND]", "say how a command is used", NULL, NULL,
      OPTS(help_opts, help_opts), .max_args = 2, .complete = COMPLETE_COMMAND, .run = cmd_help },
    { "__complete", NULL, "[WORD...]", "words a shell may complete to", NULL, NULL, .max_args = ANY,
      .flags = CMD_HIDDEN, .run = cmd_complete },
    { .name = NULL }
};
