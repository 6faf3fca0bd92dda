/* SPDX-License-Identifier: MIT
 *
 * version and info: the client's part is shown even when the daemon is not there; then the error
 * follows, with its exit status.
 */
#include "client/api_client.h"
#include "client/app.h"
#include "client/out.h"
#include "client/template.h"
#include "common/api.h"
#include "common/auto.h"
#include "common/limits.h"
#include "common/parse.h"
#include <sys/utsname.h>
#include <string.h>

struct client_part {
    char *version, *api, *host;
};
static const struct jfield client_table[] = {
    JF(struct client_part, version, JT_STR),
    JF(struct client_part, api, JT_STR),
    JF(struct client_part, host, JT_STR),
    JF_END
};

struct both_versions {
    struct client_part client;
    struct api_version server;
};
struct both_infos {
    struct client_part client;
    struct api_info server;
};
static const struct jfield versions_table[] = {
    JF(struct both_versions, client, JT_OBJ, .table = client_table),
    JF(struct both_versions, server, JT_OBJ, .table = api_version_table),
    JF_END
};
static const struct jfield infos_table[] = {
    JF(struct both_infos, client, JT_OBJ, .table = client_table),
    JF(struct both_infos, server, JT_OBJ, .table = api_info_table),
    JF_END
};
/* The same without the daemon. */
static const struct jfield alone_table[] = {
    JF(struct both_versions, client, JT_OBJ, .table = client_table),
    JF_END
};

static struct client_part client_part(const struct app *app)
{
    return (struct client_part){ .version = (char *)(uintptr_t)SBX_VERSION,
                                 .api = (char *)(uintptr_t)API_VERSION, .host = app->host.url };
}

static void line(const char *key, const char *value)
{
    autosbuf struct sbuf b = SBUF(64 * KIB);

    if (!value || !value[0])
        return;
    sbuf_text(&b, value, strlen(value));
    printf(" %-16s %s\n", key, sbuf_str(&b));
}

static void line_u64(const char *key, uint64_t v)
{
    printf(" %-16s %llu\n", key, (unsigned long long)v);
}

static void line_size(const char *key, uint64_t v)
{
    char size[40];

    format_size(v, size);
    line(key, size);
}

static void show_client(const struct client_part *c)
{
    struct utsname u;
    autosbuf struct sbuf os = SBUF(1024);

    printf("Client:\n");
    line("Version:", c->version);
    line("API:", c->api);
    if (uname(&u) == 0) {
        sbuf_fmt(&os, "%s/%s", u.sysname, u.machine);
        line("OS/Arch:", sbuf_str(&os));
    }
    line("Host:", c->host);
}

/* json or a template. */
static int show_format(const char *format, const struct jfield *table, const void *obj,
                       struct err *e)
{
    autosbuf struct sbuf b = SBUF(MIB);

    if (strcmp(format, "json") == 0) {
        if (json_encode(table, obj, &b, e) < 0)
            return -1;
    } else if (!strstr(format, "{{")) {
        err_set(e, ERR_USAGE, "'%s' is not a format", format);
        return err_hint(e, "formats are json and templates like '{{.Server.Version}}'");
    } else if (template_fill(format, table, obj, NULL, isatty(STDOUT_FILENO), &b, e) < 0) {
        return -1;
    }
    return out_line(sbuf_str(&b), e);
}

COMMAND(cmd_version)
{
    const struct format_opts *o = opts;
    struct both_versions both = { .client = client_part(app) };
    int r = client_get(app, "/" API_VERSION "/version", api_version_table, &both.server, e);

    (void)args;
    (void)n;
    if (o->format) {
        struct err own = ERR_INIT;
        int shown = show_format(o->format, r == 0 ? versions_table : alone_table, &both, &own);
        if (shown < 0 && r == 0)
            *e = own;
        r = shown < 0 ? -1 : r;
        json_done(api_version_table, &both.server, sizeof(both.server));
        return r;
    }
    show_client(&both.client);
    if (r < 0)
        return -1;
    printf("\nServer:\n");
    line("Version:", both.server.version);
    line("API:", both.server.api);
    line("Commit:", both.server.commit);
    line("libvirt:", both.server.libvirt);
    line("QEMU:", both.server.qemu);
    line("SQLite:", both.server.sqlite);
    line("libmicrohttpd:", both.server.microhttpd);
    if (both.server.version && strcmp(both.server.version, SBX_VERSION) != 0)
        note("client and server are of different versions; what only one of them knows will fail");
    json_done(api_version_table, &both.server, sizeof(both.server));
    return 0;
}

static void show_info(const struct api_info *i)
{
    char time[40];
    autosbuf struct sbuf accel = SBUF(4096);

    printf("\nServer:\n");
    line("Version:", i->version);
    line_u64("Sandboxes:", i->sandboxes);
    line_u64(" Running:", i->sandboxes_running);
    line_u64("Images:", i->images);
    line("Host name:", i->host);
    line("Kernel:", i->kernel);
    line("CPU:", i->cpu);
    line_u64("CPUs:", i->cpus);
    line_size("Memory:", i->memory);
    line("libvirt:", i->libvirt_uri);
    line("Machine:", i->machine);
    if (i->accel) {
        const char *why = i->accel_reason;
        size_t len = strlen(i->accel);
        if (why && strncmp(why, i->accel, len) == 0 && why[len] == ':')
            why += len + 1 + (why[len + 1] == ' ');     /* it names it too */
        sbuf_fmt(&accel, "%s", i->accel);
        if (why && why[0])
            sbuf_fmt(&accel, " (%s)", why);
        line("Acceleration:", sbuf_str(&accel));
    }
    line("Control group:", i->cgroup ? i->cgroup : "none");
    line("State:", i->state_dir);
    line("Default image:", i->default_image);
    line_u64("Default CPUs:", i->default_cpus);
    line_size("Default memory:", i->default_memory);
    line_size("Default disk:", i->default_disk);
    line_u64("PID:", i->pid);
    if (i->started_at) {
        format_time(i->started_at, time);
        line("Started:", time);
    }
}

COMMAND(cmd_info)
{
    const struct format_opts *o = opts;
    struct both_infos both = { .client = client_part(app) };
    int r = client_get(app, "/" API_VERSION "/info", api_info_table, &both.server, e);

    (void)args;
    (void)n;
    if (o->format) {
        struct err own = ERR_INIT;
        int shown = show_format(o->format, r == 0 ? infos_table : alone_table, &both, &own);
        if (shown < 0 && r == 0)
            *e = own;
        r = shown < 0 ? -1 : r;
    } else {
        show_client(&both.client);
        if (r == 0)
            show_info(&both.server);
    }
    json_done(api_info_table, &both.server, sizeof(both.server));
    return r;
}
