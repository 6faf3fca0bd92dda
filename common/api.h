/* SPDX-License-Identifier: MIT
 *
 * api: requests and replies of /v1 as structs with their JSON tables; daemon and client use the
 * same ones. api/openapi.yaml says the same in the language of other people; tests/lint holds the
 * two together. Every struct is freed by json_done(table, object, size).
 *
 * On the wire `env` and `labels` are objects of strings, {"KEY": "value"}; here vectors of
 * "KEY=value".
 */
#pragma once

#include "common/jfield.h"
#include "common/strv.h"

#define API_VERSION "v1"
#define API_SOCKET_DEFAULT "/run/sandboxd/sandboxd.sock"

struct api_workspace {      /* of a request or a sandbox */
    bool present;
    char *path;             /* absolute, on the daemon's host */
    bool read_only;
};

struct api_create_req {     /* POST /v1/sandboxes */
    char *name;             /* NULL: one is made up */
    char *image;            /* NULL: the daemon's default */
    struct api_workspace workspace;
    uint32_t cpus;          /* 0: the daemon's default */
    uint64_t memory;        /* bytes, 0: default */
    uint64_t disk;          /* bytes, 0: default */
    struct strv env;
    struct strv labels;
    bool start;             /* default true */
    char *policy;           /* preset or named policy; NULL: the daemon's default */
    char *policy_rules;     /* text of a policy file instead; NULL: none */
    struct strv allow, deny;/* targets on top of it */
    uint64_t ttl_ms;        /* 0 none; JSON_UNSET: the daemon's default */
    uint64_t idle_timeout_ms;   /* the same */
    char *restart;          /* common/restart.h; NULL: the daemon's default */
};

struct api_update_req {     /* PATCH /v1/sandboxes/{ref}: what is absent stays as it is */
    uint64_t ttl_ms;        /* from now on; 0 none */
    uint64_t idle_timeout_ms;
    char *restart;
};

struct api_image_ref { char *name; char *digest; };
struct api_owner { uint32_t uid; char *user; };

struct api_network {
    bool present;           /* false: made by a sandboxd without networks */
    char *address;          /* "10.209.0.2": the guest's, seen by the host only */
    char *policy;           /* what its rules began with: preset, named policy, or "rules" */
};

struct api_sandbox {
    char *id, *name;
    char *state;            /* creating running stopping stopped removing failed */
    char *reason;           /* why it stopped or failed; NULL */
    struct api_image_ref image;
    struct api_workspace workspace;
    uint32_t cpus;
    uint64_t memory, disk;
    struct strv env, labels;
    struct api_owner owner;
    char *machine;          /* microvm or q35 */
    char *accel;            /* kvm or tcg; NULL before its first start */
    struct api_network network;
    int64_t created_at, started_at, stopped_at;
    uint32_t execs_running;
    uint64_t ttl_ms, idle_timeout_ms;   /* 0 none */
    char *restart;          /* what follows when it ends by itself */
    uint32_t restarts;      /* by that, since somebody started it */
    int64_t stops_at;       /* 0: nothing is counting; the earlier of ttl and idle timeout */
    int64_t idle_since;     /* 0: at work, or it has no idle timeout */
    int64_t starts_at;      /* 0: `restart` does not bring it back */
};
struct api_sandbox_list { struct jlist sandboxes; };

struct api_exec_req {       /* POST /v1/sandboxes/{ref}/execs */
    struct strv command;
    struct strv env;
    char *workdir, *user;
    bool tty, stdin, detach;
    uint32_t rows, cols;
    uint64_t timeout_ms;
};

struct api_exec {
    char *id, *sandbox;
    char *state;            /* running exited lost */
    struct strv command;
    char *user, *workdir;
    bool tty, stdin, detach;
    uint32_t pid;           /* in the guest */
    char *end;              /* exit signal timeout lost; NULL while running */
    int32_t exit_code;      /* as a shell says it: 128+n by signal, 124 by timeout; -1 running */
    uint32_t signal;        /* 0 none */
    uint64_t stdout_start, stdout_end, stderr_start, stderr_end;  /* offsets that can be read */
    int64_t created_at, ended_at;
};
struct api_exec_list { struct jlist execs; };

struct api_resize_req { uint32_t rows, cols; };
struct api_signal_req { char *signal; };   /* "TERM", "SIGTERM" or "15" */

struct api_run_req {        /* POST /v1/sandboxes/{ref}/run */
    struct strv command, env;
    char *workdir, *user;
    uint64_t timeout_ms;
    char *stdin;            /* text */
    struct jbytes stdin_base64;
    bool base64;            /* answer in stdout_base64/stderr_base64 */
};
struct api_run {
    char *end;
    int32_t exit_code;
    uint32_t signal;
    char *stdout, *stderr;                          /* invalid UTF-8 becomes U+FFFD */
    struct jbytes stdout_base64, stderr_base64;     /* when asked for */
    bool stdout_truncated, stderr_truncated;
    uint64_t duration_ms;
};

struct api_image {
    char *name;             /* NULL: superseded by a rebuild */
    char *digest;           /* sha256:… */
    char *variant;          /* debian */
    char *os;               /* "Debian GNU/Linux 12 (bookworm)" */
    char *kernel;           /* release */
    uint64_t size;          /* bytes on disk */
    uint32_t sandboxes;     /* that use it */
    int64_t created_at;
};
struct api_image_list { struct jlist images; };

/* ---- policies: docs/POLICY.md ---- */

struct api_policy_rule {
    bool present;           /* of "why"; lists do not look at it */
    char *verdict;          /* allow deny */
    char *target;           /* canonical */
    char *source;           /* "preset agent", "policy NAME", "rules" (a file), "user" (by hand) */
    struct api_owner added_by;
    int64_t added_at;
    uint64_t matches;       /* connections and names it decided, since it was added */
};
struct api_policy {         /* GET /v1/sandboxes/{ref}/policy */
    char *sandbox;          /* id */
    char *base;             /* preset or named policy it began with, or "rules" */
    struct jlist rules;     /* struct api_policy_rule */
    struct jlist ceiling;   /* the same, of the administrator; empty: none */
    char *text;             /* all own rules in the form of a policy file */
};
struct api_policy_set_req { /* PUT /v1/sandboxes/{ref}/policy: exactly one of the two */
    char *policy;           /* preset or named policy */
    char *rules;            /* text of a policy file */
};
struct api_policy_rules_req {   /* POST /v1/sandboxes/{ref}/policy/rules */
    char *verdict;          /* "allow" or "deny": adds; "remove": takes away, whatever they say */
    struct strv targets;
};
struct api_policy_verdict { /* GET /v1/sandboxes/{ref}/policy/check?target= */
    char *target;           /* canonical, as it was judged */
    char *verdict;          /* allow deny */
    char *reason;           /* a sentence */
    char *rule;             /* "allow *.example.com:443"; NULL: none decided */
    char *source;           /* of that rule, or "ceiling", "special address", "default" */
};
struct api_policy_answer {  /* an address that a name led to */
    char *name, *address;
    int64_t expires_at;     /* in the filter: the answer's TTL and a grace */
    uint64_t packets;       /* first packets of connections, counted by the filter */
    bool live;              /* in the filter now */
};
struct api_policy_why {     /* GET /v1/sandboxes/{ref}/policy/why?target= */
    struct api_policy_verdict decision;
    struct api_policy_rule rule;    /* who added it and when; present if one decided */
    struct jlist answers;   /* struct api_policy_answer: of this name, or that led to the address */
    char *element;          /* what lets it through in the filter now; NULL: nothing */
    uint64_t packets;       /* counted by that element */
    uint64_t denied;        /* packets of this sandbox that were rejected so far, all together */
};
/* One line of GET /v1/sandboxes/{ref}/policy/log (application/x-ndjson). */
struct api_policy_event {
    int64_t time;
    char *sandbox;          /* id */
    char *kind;             /* connect resolve alert change */
    char *verdict;          /* allow deny */
    char *name;             /* NULL: unknown */
    char *address;          /* NULL: a name that was not resolved */
    uint32_t port;
    char *proto;            /* tcp udp icmp …; NULL: none */
    char *rule;             /* NULL: the default */
    char *reason;           /* a sentence */
    uint64_t count;         /* that many like this since the line before of its kind */
};
struct api_policy_probe { char *probe, *expected, *seen; bool pass; };
struct api_policy_proof {   /* POST /v1/sandboxes/{ref}/policy/prove */
    uint32_t passed, failed;
    struct jlist probes;    /* struct api_policy_probe */
};
struct api_named_policy {
    char *name;
    char *kind;             /* preset named */
    char *description;      /* NULL for named ones */
    char *rules;            /* text */
    struct api_owner owner; /* present with named ones: policies are their owner's */
    int64_t changed_at;
};
struct api_named_policy_list { struct jlist policies; };
struct api_named_policy_req { char *rules; };   /* PUT /v1/policies/{name} */

/* ---- the audit log: docs/AUDIT.md ---- */

struct api_audit_sudo { bool present; uint32_t uid; char *user; };
struct api_audit_who {      /* at the other end of the socket, or who ran a command as root */
    bool present;           /* false: the daemon itself */
    uint32_t uid;
    char *user;             /* NULL: nobody has this uid */
    uint32_t pid;
    char *comm;             /* what the process calls itself, as all below: it can call itself */
    char *ssh;              /* anything; SSH_CONNECTION; NULL: none, or not to be had */
    struct api_audit_sudo sudo;     /* SUDO_UID of a command's environment */
};
struct api_audit_exec {     /* of exec.create and run */
    bool present;
    char *program;          /* argv[0], cut */
    uint32_t arguments;     /* their number, without it */
};
struct api_audit_mount {    /* of sandbox.create: the workspace that was asked for */
    bool present;
    char *path;             /* cut */
    bool read_only;
};
/* Of what changed a policy or set one, or built an image; only where it was done, so that what is
 * no policy at all (a URL with a password) is not kept. */
struct api_audit_change {
    bool present;
    char *verb;             /* set (its name is `what`), rules (a text), allow, deny, remove; of an
                             * image: build */
    char *what;             /* the policy's name, or targets with spaces between; cut; the image's
                             * digest; NULL: none */
    uint32_t targets;       /* their number */
    char *digest;           /* SHA-256 of a text of rules, hex; NULL: none */
};
struct api_audit_result {
    bool present;           /* false: it has only begun */
    uint32_t status;        /* HTTP */
    char *code;             /* of the error; NULL: none */
    bool denied;            /* 403, or somebody else's sandbox as far as the caller can tell */
    bool replayed;          /* an Idempotency-Key came again: nothing was done */
};
struct api_audit_torn { bool present; uint64_t length; char *digest; };
struct api_audit_waited { bool present; int64_t since; };
struct api_audit_lost { bool present; uint64_t count; };
/* One line of the file, and of GET /v1/audit (application/x-ndjson). */
struct api_audit_record {
    uint64_t seq;           /* from 1 on, without a gap */
    int64_t time;
    char *kind;             /* start repair rotate torn lost begin end */
    char *request;          /* its id; NULL: none */
    struct api_audit_who who;
    char *action;           /* sandbox.create …; "read" when something was denied to look at */
    char *sandbox, *name;   /* id and name; NULL: none */
    char *target;           /* what was asked for by this name: policy, image, no such sandbox */
    char *exec;             /* id */
    struct api_audit_exec command;
    struct api_audit_mount mount;
    struct api_audit_change change;
    struct api_audit_result result;
    struct api_audit_torn torn;     /* a line that was not written to its end */
    struct api_audit_lost lost;     /* records that could not be written */
    struct api_audit_waited waited; /* a command beside the daemon wrote it then */
    char *prev;             /* SHA-256 of the line before, its newline included; hex */
};
struct api_audit_break {
    bool present;           /* false: none */
    char *file;
    uint64_t line;          /* in that file, from 1 on */
    uint64_t seq;           /* that belongs there */
    char *reason;           /* a sentence */
};
struct api_audit_verdict {  /* GET /v1/audit/verify */
    bool intact;
    uint64_t count;         /* records up to the break */
    uint64_t first, last;   /* their sequence numbers; 0: none */
    char *head;             /* SHA-256 of the last of them */
    struct api_audit_break broken;
};

/* ---- what happens, and figures: docs/OPERATIONS.md ---- */

struct api_event_owner { bool present; uint32_t uid; };
/* One line of GET /v1/events (application/x-ndjson). */
struct api_event {
    uint64_t seq;           /* each is its predecessor's and one; others' are left out */
    int64_t time;
    char *kind;             /* sandbox.running …, or "gone": what was before is not kept any more */
    struct api_event_owner owner;   /* absent: about the daemon itself */
    char *sandbox, *name;   /* id and name; NULL: none */
    char *exec;             /* id */
    char *detail;           /* words */
    uint64_t count;         /* that many alike */
};

struct api_stats_cpu {
    uint32_t cpus;
    uint64_t usage_us;      /* of the machine's processes on the host, since it started */
};
struct api_stats_memory {   /* bytes */
    uint64_t limit;         /* the guest's memory */
    uint64_t used;          /* on the host, by the machine's processes; the guest's counted once */
    uint64_t rss;           /* their resident sets; what they share counts in each */
    uint64_t pss;           /* what is shared counts in parts; of one sandbox only, else 0 */
};
struct api_stats_disk {     /* bytes */
    uint64_t size;          /* as the guest sees it */
    uint64_t allocated;     /* on the host */
    uint64_t read_bytes, written_bytes;     /* from and to the host's disks */
};
struct api_stats_network {
    bool present;           /* false: it has none, or does not run */
    uint64_t rx_bytes, rx_packets;          /* received by the guest */
    uint64_t tx_bytes, tx_packets;
    uint64_t denied;        /* packets and names */
};
/* GET /v1/sandboxes/{ref}/stats. Counters begin anew with each start of the sandbox; `denied` with
 * those of sandboxd, too. */
struct api_stats {
    char *id, *name, *state;
    struct api_owner owner;
    int64_t time;           /* when it was looked at */
    int64_t started_at;
    uint64_t uptime_ms;     /* 0: it does not run, and all that is used is 0 but the disk */
    struct api_stats_cpu cpu;
    struct api_stats_memory memory;
    struct api_stats_disk disk;
    struct api_stats_network network;
    uint32_t execs_running;
    uint32_t processes, threads;            /* on the host */
};
struct api_stats_list { struct jlist stats; };  /* GET /v1/stats */

struct api_check {          /* something that networks of sandboxes need */
    char *name;
    bool ok;
    char *detail;           /* NULL: nothing to say */
};
struct api_check_list { struct jlist checks; };    /* GET /v1/checks */

struct api_version {
    char *version, *api, *commit;
    char *libvirt, *qemu, *sqlite, *microhttpd;
};
struct api_info {
    char *version, *host, *kernel, *cpu;
    uint32_t cpus;
    uint64_t memory;
    char *libvirt_uri, *machine, *accel, *accel_reason, *state_dir;
    char *cgroup;           /* of which each sandbox has a part; NULL none */
    uint32_t sandboxes, sandboxes_running, images;
    char *default_image;
    uint64_t default_memory, default_disk;
    uint32_t default_cpus;
    uint32_t pid;
    int64_t started_at;
};

struct api_quota_item {
    char *quota;            /* sandboxes cpus memory disk execs connections requests replies */
    char *unit;             /* bytes count */
    uint64_t used, limit;   /* limit JSON_UNLIMITED: none */
    char *source;           /* what of the configuration says so: default, users.X, groups.X */
};
struct api_quota {          /* GET /v1/quota */
    struct jlist quotas;    /* struct api_quota_item */
    struct api_owner owner;
};

struct api_error_details {  /* of quota_exceeded, when it is a user's quota */
    bool present;
    char *quota;
    uint64_t limit, used, requested;
};
struct api_error_body {
    char *code, *message, *hint, *request_id;
    struct api_error_details details;
};
struct api_error { struct api_error_body error; };

extern const struct jfield api_create_req_table[], api_update_req_table[],
    api_sandbox_table[], api_sandbox_list_table[],
    api_exec_req_table[], api_exec_table[], api_exec_list_table[], api_resize_req_table[],
    api_signal_req_table[], api_run_req_table[], api_run_table[], api_image_table[],
    api_image_list_table[], api_version_table[], api_info_table[], api_error_table[],
    api_owner_table[], api_policy_table[], api_policy_rule_table[], api_policy_set_req_table[],
    api_policy_rules_req_table[], api_policy_verdict_table[], api_policy_why_table[],
    api_policy_event_table[], api_policy_proof_table[], api_named_policy_table[],
    api_named_policy_list_table[], api_named_policy_req_table[], api_check_list_table[],
    api_audit_record_table[], api_audit_verdict_table[], api_event_table[],
    api_stats_table[], api_stats_list_table[],
    api_quota_table[], api_quota_item_table[];
