/* SPDX-License-Identifier: MIT */
#include "common/api.h"
#include "common/auto.h"
#include "common/io.h"
#include "daemon/accel.h"
#include "daemon/daemon.h"
#include "daemon/egress.h"
#include "daemon/firewalls.h"
#include "daemon/guard.h"
#include "daemon/handlers.h"
#include "daemon/http.h"
#include "daemon/image.h"

#include <fcntl.h>
#include <string.h>
#include <sys/utsname.h>

#ifdef SBX_COMMIT
#define COMMIT SBX_COMMIT
#else
#define COMMIT NULL
#endif

int h_version(struct call *c, struct err *e)
{
    struct vms_info vi = { 0 };

    if (vms_info(c->daemon->vms, &vi, e) < 0)
        return -1;
    /* all borrowed */
    struct api_version v = {
        .version = (char *)SBX_VERSION,
        .api = (char *)API_VERSION,
        .commit = (char *)COMMIT,
        .libvirt = vi.libvirt,
        .qemu = vi.qemu,
        .sqlite = (char *)store_library_version(),
        .microhttpd = (char *)http_library_version(),
    };
    int r = reply_json(c, 200, api_version_table, &v, e);
    free(vi.libvirt);
    free(vi.qemu);
    return r;
}

/* "model name" of the first processor, or "". */
static char *cpu_model(void)
{
    autofree char *text = NULL;
    struct err e = ERR_INIT;
    size_t len = 0;
    autoclose int fd = open("/proc/cpuinfo", O_RDONLY | O_CLOEXEC);

    /* one processor's worth: the file is long on large hosts */
    text = calloc(1, 4096);
    if (fd < 0 || !text || io_wait(fd, 0, 0, &e) < 0)
        return strdup("");
    while (len < 4095) {
        ssize_t n = read(fd, text + len, 4095 - len);
        if (n <= 0)
            break;
        len += (size_t)n;
    }
    char *line = strstr(text, "model name");
    char *value = line ? strchr(line, ':') : NULL;
    if (!value)
        return strdup("");
    value += 1 + (value[1] == ' ');
    value[strcspn(value, "\n")] = '\0';
    return strdup(value);
}

static int count_images(struct store *st, uint32_t *ret, struct err *e)
{
    struct api_image_list l = { 0 };

    if (image_list(st, &l, e) < 0)
        return -1;
    *ret = (uint32_t)l.images.n;
    json_done(api_image_list_table, &l, sizeof(l));
    return 0;
}

/* What networks need, tried anew at each question. */
int h_checks(struct call *c, struct err *e)
{
    struct egress_probe p[EGRESS_PROBES];
    struct api_check items[EGRESS_PROBES + 3] = { 0 };
    struct api_check_list l = { .checks = { .items = items, .n = ARRAY_SIZE(items) } };
    char status[400], firewall[400], guard[400];
    int in_the_way = 0, weak = 0;

    if (egress_probe(p, e) < 0 ||
        (egress_enabled(c->daemon->egress) &&
         ((in_the_way = firewalls_in_the_way(firewall, sizeof(firewall), e)) < 0 ||
          (weak = guard_weakness(guard, sizeof(guard), e)) < 0)))
        return -1;
    for (size_t i = 0; i < EGRESS_PROBES; i++)      /* all borrowed */
        items[i] = (struct api_check){ (char *)p[i].what, p[i].ok, p[i].ok ? NULL : p[i].why };
    items[EGRESS_PROBES].name = (char *)"networks of sandboxes";
    items[EGRESS_PROBES].ok = egress_status(c->daemon->egress, status, sizeof(status));
    items[EGRESS_PROBES].detail = status;
    items[EGRESS_PROBES + 1] = (struct api_check){ (char *)"other firewalls let sandboxes pass",
                                                   !in_the_way, in_the_way ? firewall : NULL };
    items[EGRESS_PROBES + 2] = (struct api_check){ (char *)"the guard holds without the filter",
                                                   !weak, weak ? guard : NULL };
    return reply_json(c, 200, api_check_list_table, &l, e);
}

int h_info(struct call *c, struct err *e)
{
    const struct daemon *d = c->daemon;
    autofree char *cpu = cpu_model();
    struct vms_info vi = { 0 };
    struct utsname host;
    uint32_t images = 0;

    if (count_images(d->store, &images, e) < 0 || vms_info(d->vms, &vi, e) < 0)
        return -1;
    uname(&host);
    /* all borrowed */
    struct api_info i = {
        .version = (char *)SBX_VERSION,
        .host = host.nodename,
        .kernel = host.release,
        .cpu = cpu,
        .cpus = (uint32_t)sysconf(_SC_NPROCESSORS_ONLN),
        .memory = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE),
        .libvirt_uri = d->config.libvirt_uri,
        .machine = d->config.machine,
        .accel = (char *)accel_name(vi.accel.accel),
        .accel_reason = vi.accel.reason,
        .state_dir = d->config.state_dir,
        .cgroup = (char *)vms_cgroup(d->vms),
        .sandboxes = vi.sandboxes,
        .sandboxes_running = vi.running,
        .images = images,
        .default_image = d->config.default_image,
        .default_memory = d->config.default_memory,
        .default_disk = d->config.default_disk,
        .default_cpus = d->config.default_cpus,
        .pid = (uint32_t)getpid(),
        .started_at = d->started_at,
    };
    int r = reply_json(c, 200, api_info_table, &i, e);
    free(vi.libvirt);
    free(vi.qemu);
    return r;
}
