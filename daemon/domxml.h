/* SPDX-License-Identifier: MIT
 *
 * domxml: spec → libvirt domain XML, a pure function. tests/golden pins the output; every value
 * goes through sbuf_xml(). Why each element is there is said at its place in domxml.c.
 */
#pragma once

#include "common/err.h"
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum machine { MACHINE_MICROVM, MACHINE_Q35 };
enum accel { ACCEL_KVM, ACCEL_TCG };

struct domxml_spec {
    const char *id;             /* sandbox id */
    const char *name;           /* for the title only */
    enum machine machine;
    enum accel accel;
    uint32_t cpus;
    uint64_t memory;            /* bytes */
    const char *kernel;         /* below the read-only view */
    const char *initrd;
    const char *cmdline;
    const char *disk;           /* qcow2 overlay */
    const char *base;           /* its raw backing file, below the read-only view */
    const char *channel;        /* Unix socket QEMU listens on */
    const char *console_log;    /* file */
    const char *share_socket;   /* virtiofsd's socket; NULL: no workspace */
    uid_t uid;                  /* QEMU runs as uid:gid, never root */
    gid_t gid;
};

int domxml_build(const struct domxml_spec *spec, char **ret_xml, struct err *e);
const char *machine_name(enum machine m);
const char *accel_name(enum accel a);
