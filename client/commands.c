/* SPDX-License-Identifier: MIT
 *
 * The table of commands. docs/man/sbx.1 holds what `sbx help --man` makes of it; a test compares.
 */
#include "client/app.h"
#include "client/tty.h"
#include <stdint.h>

#define ANY SIZE_MAX
#define SANDBOX .complete = COMPLETE_SANDBOX

#define TIME_OPTS(s, since)                                                                 \
    OPT(s, ttl, "ttl", 0, OPT_DURATION, "TIME",                                             \
        "stop it so long after " since ", as in 8h; 0 never"),                              \
    OPT(s, idle_timeout, "idle-timeout", 0, OPT_DURATION, "TIME",                           \
        "stop it when nothing happened in it for so long, as in 30m; 0 never"),             \
    OPT(s, restart, "restart", 0, OPT_STR, "POLICY",                                        \
        "when it ends by itself: no, on-failure, on-failure:N or always",                   \
        .complete = COMPLETE_WORDS, .words = "no on-failure always")

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
    OPT(struct create_opts, policy, "policy", 0, OPT_STR, "POLICY",
        "what it may reach: a preset, a policy of yours, ./FILE, or - for stdin",
        .complete = COMPLETE_POLICY),
    OPT(struct create_opts, allow, "allow", 0, OPT_LIST, "TARGET",
        "allow this as well, as in github.com:443; may be repeated"),
    OPT(struct create_opts, deny, "deny", 0, OPT_LIST, "TARGET",
        "deny this, whatever else allows it; may be repeated"),
    TIME_OPTS(struct create_opts, "each start"),
    OPT(struct create_opts, no_start, "no-start", 0, OPT_FLAG, NULL, "create it stopped"),
    OPT(struct create_opts, quiet, "quiet", 'q', OPT_FLAG, NULL, "print the id, not the name"),
    OPT_END
};

static const struct opt update_opts[] = {
    TIME_OPTS(struct update_opts, "now"),
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

static const struct opt quota_opts[] = {
    OPT(struct quota_opts, uid, "uid", 0, OPT_STR, "UID",
        "of this user; for root and members of the admin group"),
    OPT(struct quota_opts, format, "format", 0, OPT_STR, "FORMAT",
        "table, json (one object a line), or a template such as '{{.Quota}}'",
        .complete = COMPLETE_WORDS, .words = "table json"),
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

static const struct opt policy_ls_opts[] = {
    OPT(struct policy_ls_opts, json, "json", 0, OPT_FLAG, NULL, "JSON, with all there is"),
    OPT(struct policy_ls_opts, no_trunc, "no-trunc", 0, OPT_FLAG, NULL, "cut nothing"),
    OPT_END
};

static const struct opt json_opts[] = {
    OPT(struct json_opts, json, "json", 0, OPT_FLAG, NULL, "JSON, with all there is"),
    OPT_END
};

static const struct opt policy_apply_opts[] = {
    OPT(struct policy_apply_opts, file, "file", 'f', OPT_STR, "FILE",
        "file of rules, or - for stdin; has to be given", .complete = COMPLETE_FILE),
    OPT_END
};

static const struct opt policy_log_opts[] = {
    OPT(struct policy_log_opts, follow, "follow", 'f', OPT_FLAG, NULL, "go on as more comes"),
    OPT(struct policy_log_opts, denied, "denied", 0, OPT_FLAG, NULL, "only what was denied"),
    OPT(struct policy_log_opts, tail, "tail", 'n', OPT_STR, "N", "the last N lines alone, or all"),
    OPT(struct policy_log_opts, json, "json", 0, OPT_FLAG, NULL, "lines of JSON"),
    OPT_END
};

static const struct opt audit_opts[] = {
    OPT(struct audit_opts, follow, "follow", 'f', OPT_FLAG, NULL, "go on as more comes"),
    OPT(struct audit_opts, since, "since", 0, OPT_STR, "SEQ|TIME",
        "from the record of this number on, or from this time (RFC 3339), or so long ago, as in "
        "10m"),
    OPT(struct audit_opts, json, "json", 0, OPT_FLAG, NULL, "lines of JSON, with all there is"),
    OPT_END
};

static const struct opt events_opts[] = {
    OPT(struct events_opts, follow, "follow", 'f', OPT_FLAG, NULL, "go on as more comes"),
    OPT(struct events_opts, since, "since", 0, OPT_STR, "SEQ|TIME",
        "from the event of this number on, or from this time (RFC 3339), or so long ago, as in "
        "10m"),
    OPT(struct events_opts, sandbox, "sandbox", 0, OPT_STR, "NAME", "of this sandbox only",
        .complete = COMPLETE_SANDBOX),
    OPT(struct events_opts, json, "json", 0, OPT_FLAG, NULL, "lines of JSON, with all there is"),
    OPT_END
};

static const struct opt stats_opts[] = {
    OPT(struct stats_opts, all, "all", 'a', OPT_FLAG, NULL, "those that do not run, too"),
    OPT(struct stats_opts, no_stream, "no-stream", 0, OPT_FLAG, NULL, "once, also on a terminal"),
    OPT(struct stats_opts, json, "json", 0, OPT_FLAG, NULL,
        "once, one JSON object a line, with all there is"),
    OPT(struct stats_opts, no_trunc, "no-trunc", 0, OPT_FLAG, NULL, "cut nothing"),
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
      "machine; with a daemon reached by ssh the directory is over there and has to be absolute."
      "\n\nWhat it may reach over the network is what its policy allows: see 'sbx help policy'.",
      "sbx create --name box --workspace .\n"
      "sbx create --workspace ~/src/project:ro --cpus 4 --memory 8G --label team=web\n"
      "sbx create --policy agent --allow registry.example.com:443\n",
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
      "sbx ls --format '{{.Name}}\\t{{.Image.Name}}\\t{{.Labels.team}}'\n"
      "sbx ls --format '{{.Name}}\\t{{.Network.Policy}}\\t{{.Network.Address}}'\n",
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
    { "update", NULL, "NAME...", "change the time limits of sandboxes",
      "What is not given stays as it is. Running ones too.",
      "sbx update --ttl 2h box\n"
      "sbx update --idle-timeout 0 --restart always box\n",
      OPTS(update_opts, update_opts), .min_args = 1, .max_args = ANY, SANDBOX,
      .run = cmd_update },
    { "rm", NULL, "NAME...", "remove sandboxes and their disks",
      "Running ones too. The workspace is a directory of yours and stays as it is.", NULL,
      OPTS(rm_opts, rm_opts), .min_args = 1, .max_args = ANY, SANDBOX, .run = cmd_rm },
    { "logs", NULL, "NAME", "show the log of a sandbox",
      "The log of the agent in the guest, or with --console what the machine printed. Control "
      "characters are shown and not obeyed, unless --raw is given.", NULL,
      OPTS(logs_opts, logs_opts), .min_args = 1, .max_args = 1, SANDBOX, .run = cmd_logs },
    { "stats", NULL, "[NAME...]", "show what sandboxes use",
      "Of the sandboxes named, or of all that run. On a terminal the table is drawn anew each "
      "second until it is interrupted. Processor time is that of the second before, 100% is one "
      "processor. Memory and processor time are those of the machine's processes on the host, NET "
      "I/O is what the guest received and sent, DISK what its disk takes on the host and its size, "
      "DENIED counts packets and names that its policy refused.",
      "sbx stats\n"
      "sbx stats --json box | jq .memory.used\n",
      OPTS(stats_opts, stats_opts), .max_args = ANY, SANDBOX, .run = cmd_stats },
    { "events", NULL, "", "show what happened to sandboxes",
      "Creations, starts, ends and their reasons, commands, changes of policies, what was denied, "
      "and quotas that were met. Each event has a number, its predecessor's and one, also over "
      "restarts of sandboxd; those of other users' sandboxes are left out. Without --since, -f "
      "shows what comes from now on.",
      "sbx events --since 1h --sandbox box\n"
      "sbx events -f --json\n",
      OPTS(events_opts, events_opts), .run = cmd_events },
    { "images", NULL, "", "list images", NULL, NULL, OPTS(execs_opts, list_opts),
      .run = cmd_images },
    { "image ls", "list", "", "list images", NULL, NULL, OPTS(execs_opts, list_opts),
      .run = cmd_images },
    { "image inspect", NULL, "IMAGE...", "show all that is known of images", NULL, NULL,
      OPTS(inspect_opts, inspect_opts), .min_args = 1, .max_args = ANY,
      .complete = COMPLETE_IMAGE, .run = cmd_image_inspect },
    { "image rm", NULL, "IMAGE...", "remove images that no sandbox uses", NULL, NULL, .min_args = 1,
      .max_args = ANY, .complete = COMPLETE_IMAGE, .run = cmd_image_rm },
    { "policy ls", "list", "[NAME]", "list the rules of a sandbox, or the policies there are",
      "Without a name: presets, and the policies you defined.", NULL,
      OPTS(policy_ls_opts, policy_ls_opts), .max_args = 1, SANDBOX, .run = cmd_policy_ls },
    { "policy allow", NULL, "NAME TARGET...", "allow a sandbox to reach something",
      "A target is a name, *.ZONE, **.ZONE, an address or ADDRESS/PREFIX, and after it :PORT or "
      ":PORT-PORT, and /tcp or /udp. Without a port all are meant, and without a protocol "
      "TCP is. It holds at once.\n\n"
      "All targets are taken, or none.",
      "sbx policy allow box github.com:443 '*.githubusercontent.com:443'\n"
      "sbx policy allow box 10.1.2.0/24:5432\n",
      .min_args = 2, .max_args = ANY, .complete = COMPLETE_SANDBOX_THEN_COMMAND,
      .run = cmd_policy_allow },
    { "policy deny", NULL, "NAME TARGET...", "deny a sandbox to reach something",
      "Wins over whatever allows it, and ends connections that are open.", NULL, .min_args = 2,
      .max_args = ANY, .complete = COMPLETE_SANDBOX_THEN_COMMAND, .run = cmd_policy_deny },
    { "policy rm", "remove", "NAME TARGET...", "take rules of a sandbox away",
      "Those of just these targets, whether they allow or deny.", NULL, .min_args = 2,
      .max_args = ANY, .complete = COMPLETE_SANDBOX_THEN_RULE, .run = cmd_policy_rm },
    { "policy set", NULL, "NAME POLICY", "give a sandbox another policy",
      "A preset, a policy of yours, ./FILE, or - for stdin. Takes the place of all rules it has.",
      "sbx policy set box none\n", .min_args = 2, .max_args = 2,
      .complete = COMPLETE_SANDBOX_THEN_POLICY, .run = cmd_policy_set },
    { "policy check", NULL, "NAME TARGET", "say whether a sandbox may reach something",
      "One name or address; without a port, whether any port of it is open. Exit status 0 if it is "
      "allowed, 1 if it is denied, 125 if that cannot be told. Nothing is sent.",
      "sbx policy check box github.com:443 && echo yes\n",
      OPTS(json_opts, json_opts), .min_args = 2, .max_args = 2,
      .complete = COMPLETE_SANDBOX_THEN_COMMAND, .run = cmd_policy_check },
    { "policy why", NULL, "NAME TARGET", "say why, and what the filter knows of it",
      "The rule and who added it, the addresses a name led to and until when they are open, and "
      "what was counted.", NULL,
      OPTS(json_opts, json_opts), .min_args = 2, .max_args = 2,
      .complete = COMPLETE_SANDBOX_THEN_COMMAND, .run = cmd_policy_why },
    { "policy log", NULL, "NAME", "show what a sandbox reached, and what it was denied",
      "Names and addresses are as the guest made them up; control characters are shown and not "
      "obeyed.", "sbx policy log -f --denied box\n",
      OPTS(policy_log_opts, policy_log_opts), .min_args = 1, .max_args = 1, SANDBOX,
      .run = cmd_policy_log },
    { "policy prove", NULL, "NAME", "try from inside that the policy holds",
      "Exit status 0 if all probes passed, 1 if one failed, 125 if they could not be made. Takes "
      "up to a minute.", NULL,
      OPTS(json_opts, json_opts), .min_args = 1, .max_args = 1, SANDBOX, .run = cmd_policy_prove },
    { "policy export", NULL, "NAME", "print the rules of a sandbox as a file",
      NULL, "sbx policy export box > policy.txt\nsbx policy apply other -f policy.txt\n",
      .min_args = 1, .max_args = 1, SANDBOX, .run = cmd_policy_export },
    { "policy apply", NULL, "NAME", "give a sandbox the rules of a file",
      "Takes the place of all rules it has; the file is taken whole or not at all.", NULL,
      OPTS(policy_apply_opts, policy_apply_opts), .min_args = 1, .max_args = 1, SANDBOX,
      .run = cmd_policy_apply },
    { "policy define", NULL, "POLICY FILE", "keep a file as a policy by name",
      "For --policy and 'sbx policy set', from now on; sandboxes that were made of an older one "
      "stay as they are. FILE may be - for stdin.", "sbx policy define team ./policy.txt\n",
      .min_args = 2, .max_args = 2, .complete = COMPLETE_POLICY_THEN_FILE,
      .run = cmd_policy_define },
    { "policy undefine", NULL, "POLICY", "forget a policy of yours",
      "Sandboxes that were made of it stay as they are.", NULL, .min_args = 1, .max_args = 1,
      .complete = COMPLETE_POLICY, .run = cmd_policy_undefine },
    { "policy show", NULL, "POLICY", "print a preset or a policy of yours",
      NULL, NULL, OPTS(json_opts, json_opts), .min_args = 1, .max_args = 1,
      .complete = COMPLETE_POLICY, .run = cmd_policy_show },
    { "version", NULL, "", "show the versions of sbx and sandboxd", NULL, NULL,
      OPTS(format_opts, format_opts), .run = cmd_version },
    { "info", NULL, "", "show what the daemon and its host are like", NULL, NULL,
      OPTS(format_opts, format_opts), .run = cmd_info },
    { "quota", NULL, "", "show what you use, and how much of it you may",
      "Processors and memory count while a sandbox starts or runs, disks as long as it is there.",
      NULL, OPTS(quota_opts, quota_opts), .run = cmd_quota },
    { "doctor", NULL, "", "check whether the host has what networks of sandboxes need",
      "Exits with 1 if something is missing.", NULL, OPTS(json_opts, json_opts),
      .run = cmd_doctor },
    /* before "audit", which is a command as well */
    { "audit verify", NULL, "", "check that the audit log is whole",
      "Of root and the admin group. Exit status 0 if every record fits to the one before it, 1 if "
      "one was changed, removed or put in, 125 if that cannot be told.", NULL,
      OPTS(json_opts, json_opts), .run = cmd_audit_verify },
    { "audit", NULL, "", "show who did what",
      "The records of the daemon's audit log: root and members of the admin group see all of them, "
      "others what was done under their own name. Names of programs and sandboxes are as they were "
      "given; control characters are shown and not obeyed.",
      "sbx audit --since 1h\n"
      "sbx audit -f --json\n",
      OPTS(audit_opts, audit_opts), .run = cmd_audit },
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
