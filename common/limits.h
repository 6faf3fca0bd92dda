/* SPDX-License-Identifier: MIT
 *
 * limits: every maximum of the project by name. api/openapi.yaml repeats those a caller can meet.
 * Sizes in bytes, times in milliseconds unless the name says otherwise.
 */
#pragma once

#define KIB 1024ULL
#define MIB (1024ULL * KIB)
#define GIB (1024ULL * MIB)

/* names and references */
#define LIMIT_NAME 63            /* sandbox and image names: [a-z0-9][a-z0-9_.-]* */
#define LIMIT_ID 16              /* ids are 16 hex digits of random bits */
#define LIMIT_PATH 4095
#define LIMIT_LABELS 64
#define LIMIT_LABEL_KEY 128
#define LIMIT_LABEL_VALUE 1024
#define LIMIT_ENV 512            /* variables per sandbox or exec */
#define LIMIT_ENV_BYTES 32768    /* one "K=V" */
#define LIMIT_SANDBOX_ENV 24576  /* all variables of a sandbox, with 4 bytes more for each */
#define LIMIT_ARGV 1024          /* arguments of one command */
#define LIMIT_ARG_BYTES 131072   /* one argument */
#define LIMIT_EXEC_BYTES 262144  /* one encoded exec request on the guest channel */
#define LIMIT_USER 32            /* user name in the guest */

/* HTTP */
#define LIMIT_BODY (512 * KIB)         /* a request body */
#define LIMIT_HTTP_MEMORY (32 * KIB)   /* request line and headers of one connection */
#define LIMIT_CONNECTIONS 512
#define LIMIT_JSON_DEPTH 32
#define LIMIT_HTTP_IDLE_S 60           /* seconds without a byte before a connection is dropped */
#define LIMIT_IDEMPOTENCY_KEY 64
#define LIMIT_KEYS 1000                /* answers kept under such keys, of one user */
#define LIMIT_KEYS_BYTES (16 * MIB)    /* and their text */
#define LIMIT_REPLIES (1 * GIB)        /* answers in memory until they are taken, of all users */
#define LIMIT_REPLY_FREE (64 * KIB)    /* of each one, which is not counted */

/* resources of one sandbox */
#define LIMIT_CPUS 64
#define LIMIT_MEMORY_MIN (128 * MIB)
#define LIMIT_MEMORY_MAX (512 * GIB)
#define LIMIT_DISK_MIN (1 * GIB)
#define LIMIT_DISK_MAX (4096 * GIB)
#define LIMIT_SANDBOXES 4096           /* on one daemon: uids and slots are taken from this range */
#define LIMIT_TIME_MIN 1000ULL          /* of a ttl and of an idle timeout, if there is one */
#define LIMIT_TIME_MAX (366ULL * 24 * 3600 * 1000)
#define LIMIT_RESTARTS 1000            /* N of on-failure:N */
#define LIMIT_POLICIES 100             /* with names, of one user */

/* execs */
#define LIMIT_EXECS 256                /* running at once in one sandbox */
#define LIMIT_EXECS_KEPT 64            /* finished ones kept for inspection in one sandbox */
#define LIMIT_EXEC_RING (1 * MIB)      /* output kept per stream */
#define LIMIT_EXEC_TIMEOUT (7ULL * 24 * 3600 * 1000)
#define LIMIT_RUN_OUTPUT (8 * MIB)     /* stdout or stderr of the simple form */
#define LIMIT_RUN_STDIN (256 * KIB)

/* guest channel (docs/GUEST-PROTOCOL.md) */
#define LIMIT_FRAME (32 * KIB - 64)    /* payload of one frame */
#define LIMIT_WINDOW (128 * KIB)       /* bytes in flight per direction of one stream */
#define LIMIT_GUEST_OUTQ (1 * MIB)     /* bytes the daemon queues for one guest */
#define LIMIT_GUEST_LOG (1 * MIB)      /* agent log kept per sandbox */
#define LIMIT_CONSOLE_LOG (4 * MIB)    /* console log kept per sandbox */
#define LIMIT_CONSOLE_RATE (1 * MIB)   /* that is taken from it in a second */
#define LIMIT_CONSOLE_PIPE (64 * KIB)  /* between QEMU and the daemon */
#define LIMIT_LOG_KEPT (256 * KIB)     /* what stays of either when it has reached that */

/* client stream (sbx-stream) */
#define LIMIT_STREAM_FRAME (64 * KIB)

/* deadlines */
#define DEADLINE_CREATE 180000         /* the whole of create or start */
#define DEADLINE_GUEST_HELLO 120000    /* from power on to the agent's hello */
#define DEADLINE_GUEST_REPLY 20000     /* an exec's start, a signal */
#define DEADLINE_STOP 10000            /* orderly shutdown before the power is cut */
#define DEADLINE_END_GRACE 3000        /* SIGHUP before SIGKILL for an abandoned exec */
#define DEADLINE_CHILD 15000           /* helper children: workspace opener, qemu-img */
#define DEADLINE_ACCEL_PROBE 20000
