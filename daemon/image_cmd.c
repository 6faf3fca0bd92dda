/* SPDX-License-Identifier: MIT
 *
 * image_cmd: `sandboxd image …`, run by an administrator beside a daemon or without one.
 */
#include "daemon/image_cmd.h"
#include "common/auto.h"
#include "common/io.h"
#include "common/name.h"
#include "common/parse.h"
#include "common/limits.h"
#include "common/sbuf.h"
#include "daemon/audit_beside.h"
#include "daemon/config.h"
#include "daemon/image.h"

#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef SBX_SHARE_DIR
#define SBX_SHARE_DIR "/usr/share/sandboxd"
#endif
#ifndef SBX_AGENT
#define SBX_AGENT "/usr/libexec/sandboxd/sbx-agent"
#endif

static const char usage_text[] =
    "Usage: sandboxd image build [OPTION]…   build a base image and give it a name\n"
    "       sandboxd image ls                list images\n"
    "\n"
    "  --config FILE      configuration (default /etc/sandboxd/daemon.json)\n"
    "  --name NAME        name of the image (debian)\n"
    "  --variant VARIANT  recipe (debian)\n"
    "  --if-missing       do nothing when the named image is up to date\n"
    "  --agent PATH       the guest agent (" SBX_AGENT ")\n"
    "  --share-dir DIR    where the recipes are (" SBX_SHARE_DIR ")\n"
    "  --disk SIZE        size of the root file system (20G)\n";

struct options {
    const char *config;
    struct image_build_opts build;
};

enum { O_CONFIG = 1, O_NAME, O_VARIANT, O_MISSING, O_AGENT, O_SHARE, O_DISK, O_HELP };

static int parse_options(int argc, char **argv, struct options *o)
{
    static const struct option table[] = {
        { "config", 1, NULL, O_CONFIG },   { "name", 1, NULL, O_NAME },
        { "variant", 1, NULL, O_VARIANT }, { "if-missing", 0, NULL, O_MISSING },
        { "agent", 1, NULL, O_AGENT },     { "share-dir", 1, NULL, O_SHARE },
        { "disk", 1, NULL, O_DISK },       { "help", 0, NULL, O_HELP },
        { NULL, 0, NULL, 0 },
    };
    int c;

    optind = 1;
    while ((c = getopt_long(argc, argv, "", table, NULL)) != -1) {
        switch (c) {
        case O_CONFIG:
            o->config = optarg;
            break;
        case O_NAME:
            o->build.name = optarg;
            break;
        case O_VARIANT:
            o->build.variant = optarg;
            break;
        case O_MISSING:
            o->build.if_missing = true;
            break;
        case O_AGENT:
            o->build.agent = optarg;
            break;
        case O_SHARE:
            o->build.share_dir = optarg;
            break;
        case O_DISK:
            if (!parse_size(optarg, &o->build.root_size)) {
                fprintf(stderr, "sandboxd: '%s' is not a size\n", optarg);
                return 2;
            }
            break;
        case O_HELP:
            fputs(usage_text, stdout);
            return -1;
        default:
            fputs("see `sandboxd image --help`\n", stderr);
            return 2;
        }
    }
    return 0;
}

static void show_progress(void *arg, const char *what)
{
    const int64_t *began = arg;

    fprintf(stderr, "[%4lld s] %s\n", (long long)(now_mono_ms() - *began) / 1000, what);
}

static int fail(const struct err *e)
{
    fprintf(stderr, "sandboxd: %s\n", e->msg);
    if (e->hint[0])
        fprintf(stderr, "hint: %s\n", e->hint);
    return 1;
}

/* What the audit log says of a build. */
struct note {
    const struct config *config;
    const char *image;
    char request[LIMIT_ID + 1];
    bool begun;
};

static int write_note(const struct note *n, struct api_audit_record *r, struct err *e)
{
    enum audit_mode mode = (enum audit_mode)audit_mode_parse(n->config->audit);
    struct audit_self self;
    struct err no = ERR_INIT;

    if (mode == AUDIT_OFF)
        return 0;
    r->request = (char *)n->request;
    r->action = (char *)"image.build";
    r->target = (char *)n->image;
    audit_beside_self(&self, &r->who);
    if (audit_beside_add(n->config->state_dir, r, &no) == 0)
        return 0;
    if (mode == AUDIT_REQUIRED) {
        *e = no;
        return -1;
    }
    fprintf(stderr, "sandboxd: the audit log does not have this: %s\n", no.msg);
    return 0;
}

static int on_begins(void *arg, struct err *e)
{
    struct note *n = arg;

    if (id_new(n->request, e) < 0)
        return -1;
    if (write_note(n, &(struct api_audit_record){ .kind = (char *)"begin" }, e) < 0)
        return err_wrap(e, "nothing was built, as it cannot be recorded");
    n->begun = true;
    return 0;
}

/* `digest` NULL: it failed. */
static int note_end(const struct note *n, char *digest, enum err_code code, struct err *e)
{
    struct api_audit_record r = {
        .kind = (char *)"end",
        .result = { .present = true, .status = (uint32_t)(digest ? 201 : err_http(code)),
                    .code = digest ? NULL : (char *)err_wire(code) },
        .change = { .present = digest, .verb = (char *)"build", .what = digest },
    };

    return n->begun ? write_note(n, &r, e) : 0;
}

static int do_build(struct store *st, const struct config *cf, struct options *o, struct err *e)
{
    autofree char *digest = NULL;
    int64_t began = now_mono_ms();
    struct note note = { .config = cf, .image = o->build.name };
    struct err no = ERR_INIT;

    o->build.progress = show_progress;
    o->build.progress_arg = &began;
    o->build.begins = on_begins;
    o->build.begins_arg = &note;
    if (image_build(st, cf->state_dir, &o->build, &digest, e) < 0) {
        if (note_end(&note, NULL, e->code, &no) < 0)
            fprintf(stderr, "sandboxd: the audit log does not have the end: %s\n", no.msg);
        return -1;
    }
    printf("%s\n", digest);
    if (note_end(&note, digest, ERR_NONE, e) < 0)
        return err_wrap(e, "the image is built, but that could not be recorded");
    return 0;
}

static int do_list(struct store *st, struct err *e)
{
    struct api_image_list l = { 0 };

    if (image_list(st, &l, e) < 0)
        return -1;
    for (size_t i = 0; i < l.images.n; i++) {
        const struct api_image *m = (const struct api_image *)l.images.items + i;
        char size[32];
        format_size(m->size, size);
        printf("%-20s %.19s  %-8s  %2u sandboxes  %s\n", m->name ? m->name : "<none>", m->digest,
               size, m->sandboxes, m->os);
    }
    json_done(api_image_list_table, &l, sizeof(l));
    return 0;
}

static int with_store(struct options *o, bool build, struct err *e)
{
    __attribute__((cleanup(config_done))) struct config cf = { 0 };
    autosbuf struct sbuf path = SBUF(LIMIT_PATH);
    struct store *st = NULL;

    if (config_load(o->config, &cf, e) < 0 || io_mkdir_parents(cf.state_dir, 0711, e) < 0)
        return -1;
    sbuf_fmt(&path, "%s/sandboxd.db", cf.state_dir);
    if (store_open(sbuf_str(&path), &st, e) < 0)
        return -1;
    int r = build ? do_build(st, &cf, o, e) : do_list(st, e);
    store_close(st);
    return r;
}

int image_cmd(int argc, char **argv)
{
    struct options o = { .build = { .name = "debian", .variant = "debian", .agent = SBX_AGENT,
                                    .share_dir = SBX_SHARE_DIR } };
    struct err e = ERR_INIT;
    const char *verb = argc > 1 ? argv[1] : "";
    bool build = strcmp(verb, "build") == 0;

    if (strcmp(verb, "--help") == 0) {
        fputs(usage_text, stdout);
        return 0;
    }
    if (!build && strcmp(verb, "ls") != 0) {
        fputs(usage_text, stderr);
        return 2;
    }
    int r = parse_options(argc - 1, argv + 1, &o);
    if (r)
        return r < 0 ? 0 : r;
    return with_store(&o, build, &e) < 0 ? fail(&e) : 0;
}
