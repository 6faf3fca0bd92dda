/* SPDX-License-Identifier: MIT */
#include "daemon/backup_cmd.h"
#include "common/auto.h"
#include "common/limits.h"
#include "common/sbuf.h"
#include "daemon/config.h"
#include "daemon/store.h"

#include <getopt.h>
#include <stdio.h>

static const char usage_text[] =
    "Usage: sandboxd backup [OPTION]… FILE\n"
    "\n"
    "Copies the database to FILE, whole and checked; sandboxd may run meanwhile. Disks of\n"
    "sandboxes are not in it. To put it back: stop sandboxd, copy FILE over\n"
    "STATE_DIR/sandboxd.db, remove sandboxd.db-wal and -shm beside it, start sandboxd.\n"
    "\n"
    "  --config FILE   configuration (default /etc/sandboxd/daemon.json)\n"
    "  --force         replace FILE if it is there\n"
    "  --help          print this text\n";

static int run(const char *config, const char *to, bool force, struct err *e)
{
    __attribute__((cleanup(config_done))) struct config cf = { 0 };
    autosbuf struct sbuf db = SBUF(LIMIT_PATH);

    if (config_load(config, &cf, e) < 0)
        return -1;
    sbuf_fmt(&db, "%s/sandboxd.db", cf.state_dir);
    return store_backup(sbuf_str(&db), to, force, e);
}

int backup_cmd(int argc, char **argv)
{
    static const struct option table[] = {
        { "config", 1, NULL, 'c' }, { "force", 0, NULL, 'f' }, { "help", 0, NULL, 'h' },
        { NULL, 0, NULL, 0 },
    };
    const char *config = NULL;
    struct err e = ERR_INIT;
    bool force = false;
    int c;

    while ((c = getopt_long(argc, argv, "", table, NULL)) != -1) {
        switch (c) {
        case 'c':
            config = optarg;
            break;
        case 'f':
            force = true;
            break;
        case 'h':
            fputs(usage_text, stdout);
            return 0;
        default:
            fputs("see `sandboxd backup --help`\n", stderr);
            return 2;
        }
    }
    if (argc - optind != 1) {
        fputs(usage_text, stderr);
        return 2;
    }
    if (run(config, argv[optind], force, &e) == 0)
        return 0;
    fprintf(stderr, "sandboxd: no backup was made: %s\n", e.msg);
    if (e.hint[0])
        fprintf(stderr, "hint: %s\n", e.hint);
    return 1;
}
