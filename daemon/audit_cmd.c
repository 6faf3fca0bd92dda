/* SPDX-License-Identifier: MIT */
#include "daemon/audit_cmd.h"

#include "common/auto.h"
#include "daemon/audit.h"
#include "daemon/config.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const char usage_text[] =
    "Usage: sandboxd audit verify [--config FILE]\n"
    "\n"
    "Checks the chain of the audit log as it is on the disk. While a daemon runs, `sbx audit\n"
    "verify` says more: only the daemon knows which record is the last one.\n"
    "\n"
    "  --config FILE      configuration (default /etc/sandboxd/daemon.json)\n";

static int show(const struct api_audit_verdict *v)
{
    const struct api_audit_break *b = &v->broken;

    printf("%" PRIu64 " records, %" PRIu64 " to %" PRIu64 "\n", v->count, v->first, v->last);
    if (v->head && v->intact)
        printf("the last one's hash is %s\n", v->head);
    if (!v->intact)
        printf("broken at line %" PRIu64 " of %s, record %" PRIu64 ": %s\n", b->line, b->file,
               b->seq, b->reason);
    return v->intact ? 0 : 1;
}

static int verify(const char *path)
{
    __attribute__((cleanup(config_done))) struct config cf = { 0 };
    struct api_audit_verdict v = { 0 };
    struct err e = ERR_INIT;

    if (config_load(path, &cf, &e) < 0 || audit_verify(NULL, cf.state_dir, &v, &e) < 0) {
        fprintf(stderr, "sandboxd: %s\n", e.msg);
        return 1;
    }
    int status = show(&v);
    json_done(api_audit_verdict_table, &v, sizeof(v));
    return status;
}

int audit_cmd(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "--help") == 0) {
        fputs(usage_text, stdout);
        return 0;
    }
    bool config = argc == 4 && strcmp(argv[2], "--config") == 0;
    if (argc < 2 || strcmp(argv[1], "verify") != 0 || (argc != 2 && !config)) {
        fputs(usage_text, stderr);
        return 2;
    }
    return verify(config ? argv[3] : NULL);
}
