/* SPDX-License-Identifier: MIT
 *
 * domxml: spec → libvirt domain XML, and accelerator → kernel command line; pure functions.
 * tests/golden pins the output; every value goes through sbuf_xml(). Why each element is there is
 * said at its place in domxml.c. Any thread.
 *
 * The network device sits on a tap that link_create() has made. What libvirt does with it (9.0, the
 * embedded driver, measured on both machines):
 *   - start: opens it as root, which sets its flag vnet_hdr (link.c makes it without, which is
 *     fine: the kernel takes that flag at each open; multi_queue would have to agree and is off at
 *     both), and hands the descriptor to QEMU. It stays down if it was down; name, MAC, addresses,
 *     owner and MTU stay as they were. Up, it has a carrier from now on.
 *   - a domain that ends: nothing. It stays up or down, with its addresses, without a carrier; it
 *     may be used for another start. Whoever made it deletes it.
 *   - a tap that is not there is an error of the start, and none is made.
 */
#pragma once

#include "common/err.h"
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum machine { MACHINE_MICROVM, MACHINE_Q35, MACHINE_MAX };
enum accel { ACCEL_KVM, ACCEL_TCG, ACCEL_MAX };

struct domxml_spec {
    const char *id;   /* sandbox id */
    const char *name; /* for the title only */
    enum machine machine;
    enum accel accel;
    uint32_t cpus;
    uint64_t memory;    /* bytes */
    const char *kernel; /* below the read-only view */
    const char *initrd;
    const char *cmdline;
    const char *disk;         /* qcow2 overlay; NULL: none */
    const char *base;         /* its raw backing file, below the read-only view; NULL: none */
    const char *channel;      /* Unix socket QEMU listens on; NULL: none */
    const char *console;      /* of its pipes, without .in and .out */
    bool serial;              /* the console is an ISA serial port (ttyS0), not hvc0 */
    const char *share_socket; /* virtiofsd's socket; NULL: no workspace */
    const char *tap;          /* an interface of the host's, see below; NULL: no network */
    const uint8_t *mac;       /* of the guest's end, six bytes; with tap */
    uint16_t mtu;             /* 0: the guest is told none */
    uid_t uid;                /* QEMU runs as uid:gid, never root */
    gid_t gid;
};

/* ERR_INVALID for a spec that makes no sense (uid 0, no kernel, a path that is not absolute),
 * ERR_TOO_LARGE for text XML cannot carry. */
int domxml_build(const struct domxml_spec *spec, char **ret_xml, struct err *e);

/* The kernel command line that belongs to such a domain (owned by the caller). tsc_khz: as
 * accel_tsc_khz() says, 0 when unknown; only a guest without hardware virtualisation is told. */
int domxml_cmdline(enum machine machine, enum accel accel, uint32_t tsc_khz, bool serial,
                   char **ret, struct err *e);

const char *machine_name(enum machine m); /* "microvm", "q35" */
enum machine machine_of(const char *name); /* microvm for any other */
const char *accel_name(enum accel a);     /* "kvm", "tcg" */
