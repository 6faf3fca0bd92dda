/* SPDX-License-Identifier: MIT
 *
 * config: /etc/sandboxd/daemon.json, by a jfield table; a missing file means defaults, an unknown
 * key is an error at start. Man page: docs/man/sandboxd.conf.5.
 */
#pragma once

#include "common/err.h"
#include "common/strv.h"
#include "daemon/accel.h"
#include "daemon/domxml.h"
#include "daemon/quota.h"
#include <stdint.h>
#include <sys/types.h>

struct config {
    char *state_dir;        /* /var/lib/sandboxd */
    char *runtime_dir;      /* /run/sandboxd */
    char *socket;           /* <runtime_dir>/sandboxd.sock */
    char *socket_group;     /* "sandbox"; "" = root's group */
    char *readonly_socket;  /* for dashboards: reads, all sandboxes; "" none */
    char *readonly_group;   /* "" = root's group */
    char *admin_group;      /* "" none: members see all sandboxes */
    char *libvirt_uri;      /* "embed" (qemu:///embed?root=<state_dir>/libvirt) or libvirt's URI */
    char *accel;            /* auto kvm tcg */
    char *machine;          /* microvm q35 */
    char *default_image;    /* debian */
    uint32_t default_cpus;  /* 2, or what the host has */
    uint64_t default_memory;/* 2 GiB */
    uint64_t default_disk;  /* 20 GiB */
    uint32_t start_timeout_ms; /* from power on to the guest that is ready: 120000 */
    uint32_t uid_base;      /* first uid of the range given to QEMU processes: 1879048192 */
    char *console;          /* "hvc0" fast and quiet, "serial" with all kernel messages */
    char *log_level;        /* err warning notice info debug */
    char *virtiofsd;        /* path; "" = found */
    bool network;           /* true; false: sandboxes have no network at all */
    char *subnet;           /* "10.209.0.0/16", or "auto" */
    char *default_policy;   /* preset, or policy of whoever creates: "agent" */
    struct strv policy_ceiling;     /* rules of which no sandbox goes beyond; empty: none */
    char *resolver;         /* path; "" = the installed one */
    struct strv resolver_upstreams; /* addresses; empty: the host's */
    uint32_t resolver_grace_s;      /* an answer's addresses stay open for its TTL and that: 60 */
    char *resolver_denied;  /* "refused" or "nxdomain" */
    uint32_t names_per_second;      /* that one sandbox may ask for: 50, four times that at once */
    uint32_t connections;   /* of one sandbox at once: 2048 */
    uint32_t connections_per_second;/* new ones: 200, twice that at once */
    char *audit;            /* required best-effort off */
    uint64_t audit_size;    /* bytes of a file of the audit log: 16 MiB */
    uint32_t audit_files;   /* old ones that are kept: 8 */
    uint32_t events;        /* that are kept, of all sandboxes: 10000 */
    struct quota_config quota;      /* of users; what is unset is filled by quota_defaults() */
    uint64_t min_free_disk; /* bytes to stay free in state_dir; SPACE_AUTO */
    uint64_t default_ttl_s, default_idle_timeout_s; /* of sandboxes that say nothing; 0 none */
    char *default_restart;  /* common/restart.h: "no" */
    uint32_t idle_cpu_percent;      /* of a host's processor: who takes more is at work: 5 */
    char *cgroup;           /* "auto", path of a control group for sandboxes; "" none */
    char *qemu_group;       /* qemu:///system only: group QEMU needs ("libvirt-qemu"); "" none */
};

/* path NULL: /etc/sandboxd/daemon.json if it is there. */
int config_load(const char *path, struct config *ret, struct err *e);
void config_done(struct config *c);
