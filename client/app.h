/* SPDX-License-Identifier: MIT
 *
 * app: what every command gets: where the daemon is, the connection to it, how much to say. One
 * thread, one command per process.
 */
#pragma once

#include "client/host.h"
#include "client/opts.h"
#include "common/err.h"
#include <stdbool.h>

struct client;

struct app {
    struct host host;
    struct client *client;          /* owned; made by app_client() */
    const struct command *command;  /* borrowed: the one that runs */
    bool debug;
    int interrupted;                /* signal that made a request be given up, 0 none */
};

#define EXIT_OURS 125       /* failures of sbx itself, as docker has it */

/* Says an error on stderr: "sbx: what", and "hint: what to do" on a line of its own. */
void report(const struct err *e);
/* Chatter on stderr, one line, "sbx: " in front. */
void note(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* Commands by file; their rows are in commands.c. */
#define COMMAND(name) int name(struct app *app, void *opts, char **args, size_t n, struct err *e)
COMMAND(cmd_attach);
COMMAND(cmd_audit);
COMMAND(cmd_audit_verify);
COMMAND(cmd_complete);
COMMAND(cmd_completion);
COMMAND(cmd_create);
COMMAND(cmd_dial_stdio);
COMMAND(cmd_events);
COMMAND(cmd_exec);
COMMAND(cmd_execs);
COMMAND(cmd_help);
COMMAND(cmd_image_inspect);
COMMAND(cmd_image_rm);
COMMAND(cmd_images);
COMMAND(cmd_info);
COMMAND(cmd_doctor);
COMMAND(cmd_inspect);
COMMAND(cmd_logs);
COMMAND(cmd_ls);
COMMAND(cmd_policy_allow);
COMMAND(cmd_policy_apply);
COMMAND(cmd_policy_check);
COMMAND(cmd_policy_define);
COMMAND(cmd_policy_deny);
COMMAND(cmd_policy_export);
COMMAND(cmd_policy_log);
COMMAND(cmd_policy_ls);
COMMAND(cmd_policy_prove);
COMMAND(cmd_policy_rm);
COMMAND(cmd_policy_set);
COMMAND(cmd_policy_show);
COMMAND(cmd_policy_undefine);
COMMAND(cmd_policy_why);
COMMAND(cmd_quota);
COMMAND(cmd_restart);
COMMAND(cmd_rm);
COMMAND(cmd_start);
COMMAND(cmd_stats);
COMMAND(cmd_stop);
COMMAND(cmd_update);
COMMAND(cmd_version);

/* What the options of each command fill; tables and commands share them. */
struct create_opts {
    const char *name, *workspace, *image;
    uint32_t cpus;
    uint64_t memory, disk;
    struct strv env, env_files, labels;
    const char *policy;         /* name or file */
    struct strv allow, deny;
    struct opt_duration ttl, idle_timeout;
    const char *restart;
    bool quiet, no_start;
};
struct update_opts {
    struct opt_duration ttl, idle_timeout;
    const char *restart;
};
struct exec_opts {
    bool interactive, tty, detach;
    struct strv env, env_files;
    const char *workdir, *user, *detach_keys;
    struct opt_duration timeout;
};
struct attach_opts { bool no_stdin; const char *detach_keys; };
struct list_opts {          /* ls, execs, images */
    bool all, quiet, no_trunc;
    struct strv filters;
    const char *format;
};
struct inspect_opts { const char *format; };
struct stop_opts { struct opt_duration timeout; };
struct rm_opts { bool force; };
struct logs_opts {
    bool follow, console, raw;
    const char *tail, *since;
};
struct format_opts { const char *format; };     /* version, info */
struct quota_opts { const char *uid, *format; };
struct help_opts { bool man; };
struct json_opts { bool json; };                /* policy check, why, prove, show; doctor */
struct audit_opts { bool follow, json; const char *since; };
struct stats_opts { bool all, no_stream, json, no_trunc; };
struct events_opts { bool follow, json; const char *since, *sandbox; };
struct policy_ls_opts { bool json, no_trunc; };
struct policy_apply_opts { const char *file; };
struct policy_log_opts {
    bool follow, denied, json;
    const char *tail;
};
