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
};

struct api_image_ref { char *name; char *digest; };
struct api_owner { uint32_t uid; char *user; };

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
    int64_t created_at, started_at, stopped_at;
    uint32_t execs_running;
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

struct api_version {
    char *version, *api, *commit;
    char *libvirt, *qemu, *sqlite, *microhttpd;
};
struct api_info {
    char *version, *host, *kernel, *cpu;
    uint32_t cpus;
    uint64_t memory;
    char *libvirt_uri, *machine, *accel, *accel_reason, *state_dir;
    uint32_t sandboxes, sandboxes_running, images;
    char *default_image;
    uint64_t default_memory, default_disk;
    uint32_t default_cpus;
    uint32_t pid;
    int64_t started_at;
};

struct api_error_body { char *code, *message, *hint, *request_id; };
struct api_error { struct api_error_body error; };

extern const struct jfield api_create_req_table[], api_sandbox_table[], api_sandbox_list_table[],
    api_exec_req_table[], api_exec_table[], api_exec_list_table[], api_resize_req_table[],
    api_signal_req_table[], api_run_req_table[], api_run_table[], api_image_table[],
    api_image_list_table[], api_version_table[], api_info_table[], api_error_table[];
