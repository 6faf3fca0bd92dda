/* SPDX-License-Identifier: MIT
 *
 * fault: the steps of the daemon's work as named points, at which a test lets it die or fail. In a
 * build with -Dfaults=true only; in any other this header is macros that are nothing, and the
 * program has no trace of it (tests/lint/check-faults).
 *
 * SANDBOXD_FAULT arms points, separated by commas:
 *
 *     NAME                 dies there by SIGKILL, as if by kill -9: no handler, no exit function
 *     NAME=ENOSPC          the point fails with this errno, if it is one that can
 *     NAME:N…              when it is passed for the Nth time (1 to 4294967295), and no other
 *     NAME:*…              each time
 *     …@start              counted from the first instruction on, not from when the daemon serves;
 *                          for what a start does. In other commands than the daemon always so.
 *
 * A point that is reached and armed says "fault: NAME" on stderr. `sandboxd --faults` lists all of
 * them with what is true there; docs/RELIABILITY.md has the same list, with what a start makes of
 * each.
 *
 * A point stands between two things that a crash can part. Its name begins with the operation; with
 * it goes what is true there. New ones are a row here, a call in the code, and a row in tests/vm/
 * test_kill.py if no operation there passes it.
 *
 * Any thread; a point takes no lock and may be passed with any held.
 */
#pragma once

#include "common/err.h"

#include <stdbool.h>
#include <stddef.h>

/*   constant              name               what is true there */
#define FAULT_TABLE(X)                                                                            \
    X(FAULT_CREATE_ROW,    "create.row",      "nothing is made yet")                              \
    X(FAULT_CREATE_RULES,  "create.rules",    "its row is there, its rules are not")              \
    X(FAULT_CREATE_START,  "create.start",    "row and rules are there")                          \
    X(FAULT_CREATE_ANSWER, "create.answer",   "it runs, nobody was told")                         \
    X(FAULT_CREATE_UNDO,   "create.undo",     "its start has failed, row and logs are there")     \
    X(FAULT_START_IMAGE,   "start.image",     "a start begins")                                   \
    X(FAULT_START_ACCEL,   "start.accel",     "its image is found")                               \
    X(FAULT_START_WORKSPACE, "start.workspace", "it is known what runs it")                       \
    X(FAULT_START_FILES,   "start.files",     "its workspace is open")                            \
    X(FAULT_START_DISK,    "start.disk",      "its disk is made, under another name")             \
    X(FAULT_START_NETWORK, "start.network",   "directories and disk are made")                    \
    X(FAULT_START_TAP,     "start.tap",       "a tap without rules")                              \
    X(FAULT_START_LINK,    "start.link",      "tap and rules, the link is down")                  \
    X(FAULT_START_LIMITS,  "start.limits",    "its network is made")                              \
    X(FAULT_START_SHARE,   "start.share",     "its control group is made, if any")                \
    X(FAULT_START_SHARE_ROW, "start.share-row", "virtiofsd runs, the row does not know it")       \
    X(FAULT_START_DOMAIN,  "start.domain",    "virtiofsd runs")                                   \
    X(FAULT_START_GUEST,   "start.guest",     "QEMU runs")                                        \
    X(FAULT_START_BOOT,    "start.boot",      "the guest boots, its channel is open")             \
    X(FAULT_START_ROW,     "start.row",       "the guest is ready, its row does not say so")      \
    X(FAULT_START_ANSWER,  "start.answer",    "its row says that it runs")                        \
    X(FAULT_UNDO_DOMAIN,   "undo.domain",     "a start has failed, QEMU runs")                    \
    X(FAULT_UNDO_SHARE,    "undo.share",      "a start has failed, QEMU is gone")                 \
    X(FAULT_UNDO_LIMITS,   "undo.limits",     "a start has failed, virtiofsd is gone")            \
    X(FAULT_UNDO_NETWORK,  "undo.network",    "a start has failed, its control group is gone")    \
    X(FAULT_UNDO_FILES,    "undo.files",      "a start has failed, tap and rules are gone")       \
    X(FAULT_EXEC_RINGS,    "exec.rings",      "a command was asked for")                          \
    X(FAULT_EXEC_ROW,      "exec.row",        "its output files are there, its row is not")       \
    X(FAULT_EXEC_SEND,     "exec.send",       "its row is there, the guest knows nothing")        \
    X(FAULT_EXEC_SENT,     "exec.sent",       "the guest was told to start it")                   \
    X(FAULT_EXEC_ANSWER,   "exec.answer",     "it runs, its caller was not told")                 \
    X(FAULT_EXEC_OUTPUT,   "exec.output",     "output has come")                                  \
    X(FAULT_EXEC_COUNT,    "exec.count",      "output is in its file, its header does not say so") \
    X(FAULT_EXEC_CREDIT,   "exec.credit",     "output is kept, the guest was not told")           \
    X(FAULT_EXEC_END,      "exec.end",        "the guest has said how it ended, its row does not") \
    X(FAULT_EXEC_FORGET,   "exec.forget",     "its row says how it ended, the guest keeps it yet") \
    X(FAULT_EXEC_OLD,      "exec.old",        "the row of an old one is gone, its output is not") \
    X(FAULT_STOP_ROW,      "stop.row",        "a stop was asked for")                             \
    X(FAULT_STOP_ASK,      "stop.ask",        "its row says stopping")                            \
    X(FAULT_STOP_POWER,    "stop.power",      "the guest was asked to power off")                 \
    X(FAULT_STOP_CLOSE,    "stop.close",      "QEMU is gone")                                     \
    X(FAULT_STOP_SHARE,    "stop.share",      "the rows of its commands are gone, virtiofsd runs") \
    X(FAULT_STOP_NETWORK,  "stop.network",    "virtiofsd is gone")                                \
    X(FAULT_STOP_RULES,    "stop.rules",      "its tap is gone, its rules are not")               \
    X(FAULT_STOP_FILES,    "stop.files",      "tap and rules are gone")                           \
    X(FAULT_STOP_NOTE,     "stop.note",       "its runtime directory is gone")                    \
    X(FAULT_STOP_ANSWER,   "stop.answer",     "its row says that it is stopped")                  \
    X(FAULT_RM_ROW,        "rm.row",          "a removal was asked for")                          \
    X(FAULT_RM_STOP,       "rm.stop",         "its row says removing, it runs")                   \
    X(FAULT_RM_DOMAIN,     "rm.domain",       "it does not run, libvirt has its log")             \
    X(FAULT_RM_FILES,      "rm.files",        "disk and logs are there")                          \
    X(FAULT_RM_DELETE,     "rm.delete",       "disk and logs are gone, its row is not")           \
    X(FAULT_RM_ANSWER,     "rm.answer",       "its row is gone, nobody was told")                 \
    X(FAULT_POLICY_STORE,  "policy.store",    "new rules were asked for")                         \
    X(FAULT_POLICY_FILTER, "policy.filter",   "the new rules are stored, the old ones in force")  \
    X(FAULT_POLICY_FLOWS,  "policy.flows",    "the new rules are in force, old connections go on") \
    X(FAULT_POLICY_ANSWER, "policy.answer",   "connections are cut, nobody was told")             \
    X(FAULT_POLICY_UNDO,   "policy.undo",     "the kernel refused the new rules, they are stored") \
    X(FAULT_KEY_BEGIN,     "key.begin",       "its Idempotency-Key knows the id to come")         \
    X(FAULT_KEY_KEEP,      "key.keep",        "a request is done, its answer is not kept")        \
    X(FAULT_KEY_ANSWER,    "key.answer",      "its answer is kept for its Idempotency-Key")       \
    X(FAULT_AUDIT_WRITE,   "audit.write",     "a record is to be written")                        \
    X(FAULT_AUDIT_TORN,    "audit.torn",      "half of a record is written")                      \
    X(FAULT_AUDIT_SYNC,    "audit.sync",      "a record is written, not on the disk yet")         \
    X(FAULT_AUDIT_ROTATE,  "audit.rotate",    "the next log has its first record")                \
    X(FAULT_AUDIT_RENAME,  "audit.rename",    "the old logs are renamed, the new one is not")     \
    X(FAULT_IMAGE_SWEEP,   "image.sweep",     "a build has begun")                                \
    X(FAULT_IMAGE_BASE,    "image.base",      "its directory is made")                            \
    X(FAULT_IMAGE_INITRD,  "image.initrd",    "kernel and root file system are in it")            \
    X(FAULT_IMAGE_DIGEST,  "image.digest",    "all its parts are made")                           \
    X(FAULT_IMAGE_PLACE,   "image.place",     "its digest is known")                              \
    X(FAULT_IMAGE_ROW,     "image.row",       "it is in its place, without a row")                \
    X(FAULT_IMAGE_ANSWER,  "image.answer",    "its row is there")                                 \
    X(FAULT_IMAGE_FILES,   "image.files",     "the row of an image is gone, its files are not")   \
    X(FAULT_IMAGE_GONE,    "image.gone",      "its directory has the name of what is removed")    \
    X(FAULT_BACKUP_COPY,   "backup.copy",     "a file for the copy is made")                      \
    X(FAULT_BACKUP_MARK,   "backup.mark",     "it is copied, not checked")                        \
    X(FAULT_BACKUP_NAME,   "backup.name",     "it is whole, under another name")                  \
    X(FAULT_BACKUP_DONE,   "backup.done",     "it has its name")                                  \
    X(FAULT_REPAIR_DOMAINS, "repair.domains", "a start has read the rows")                        \
    X(FAULT_REPAIR_QEMUS,  "repair.qemus",    "domains of nobody are ended")                      \
    X(FAULT_REPAIR_ONE,    "repair.one",      "a sandbox is to be settled")                       \
    X(FAULT_REPAIR_NETWORK, "repair.network", "all sandboxes are settled")                        \
    X(FAULT_REPAIR_SHARES, "repair.shares",   "filter and taps are in order")                     \
    X(FAULT_REPAIR_FILES,  "repair.files",    "virtiofsds of nobody are ended")                   \
    X(FAULT_REPAIR_DONE,   "repair.done",     "all is in order, nobody is served yet")

enum fault_point {
#define FAULT_ENUM(constant, name, truth) constant,
    FAULT_TABLE(FAULT_ENUM)
#undef FAULT_ENUM
    FAULT_MAX
};

#ifdef SBX_FAULTS

/* At the very beginning of main(), which clears the environment later: reads SANDBOXD_FAULT. true:
 * `--faults` was asked for and answered, main() is to return 0. What SANDBOXD_FAULT has wrong ends
 * the process with status 2: a test that arms nothing shows nothing. */
bool fault_main(int argc, char **argv);

/* The daemon serves: points count from here on, those with @start have before. */
void fault_serving(void);

/* The same by hand, for tests of units: like SANDBOXD_FAULT with @start at each; NULL or "" arms
 * nothing. Returns false for what it does not understand. */
bool fault_arm(const char *spec);

/* A point that can fail: 0, or -1 and the error, as err_sys() sets it for an errno. */
int fault_at(enum fault_point p, struct err *e);

/* A point where nothing can go wrong but death. Armed with an errno it says so and aborts. */
void fault_here(enum fault_point p);

/* How much of `len` bytes to write before fault_at(p): half, when p would be met by something
 * now; else all of it. The one who writes meets p behind. */
size_t fault_part(enum fault_point p, size_t len);

#else

#define fault_main(argc, argv) false
#define fault_serving() ((void)0)
#define fault_at(p, e) 0
#define fault_here(p) ((void)0)
#define fault_part(p, len) (len)

#endif
