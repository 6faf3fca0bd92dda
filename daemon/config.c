/* SPDX-License-Identifier: MIT */
#include "daemon/config.h"

#include "common/auto.h"
#include "common/io.h"
#include "common/jfield.h"
#include "common/limits.h"
#include "common/name.h"
#include "common/parse.h"
#include "common/policy.h"
#include "common/restart.h"
#include "common/sbuf.h"
#include "daemon/audit.h"
#include "daemon/space.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CONFIG_DEFAULT_PATH "/etc/sandboxd/daemon.json"
#define CONFIG_MAX (64 * KIB)
#define CONFIG_DIR_MAX 64       /* sockets lie some 45 bytes deeper, and have 107 in all */

static bool is_dir(const char *s)
{
    size_t n = strlen(s);
    return s[0] == '/' && n > 1 && n <= CONFIG_DIR_MAX && s[n - 1] != '/' && !strstr(s, "/../") &&
           (n < 3 || strcmp(s + n - 3, "/..") != 0) && !strstr(s, "//");
}

static bool is_path(const char *s)
{
    return s[0] == '/' && strlen(s) <= LIMIT_PATH;
}

static bool is_path_or_empty(const char *s)
{
    return !*s || is_path(s);
}

static bool is_cgroup(const char *s)
{
    return strcmp(s, "auto") == 0 || is_path_or_empty(s);
}

static bool is_one_of(const char *s, const char *const *words)
{
    for (; *words; words++)
        if (strcmp(s, *words) == 0)
            return true;
    return false;
}

static bool is_accel(const char *s)
{
    return is_one_of(s, (const char *const[]){ "auto", "kvm", "tcg", NULL });
}

static bool is_machine(const char *s)
{
    return is_one_of(s, (const char *const[]){ "microvm", "q35", NULL });
}

static bool is_console(const char *s)
{
    return is_one_of(s, (const char *const[]){ "hvc0", "serial", NULL });
}

static bool is_level(const char *s)
{
    return is_one_of(s, (const char *const[]){ "err", "warning", "notice", "info", "debug", NULL });
}

static bool is_uri(const char *s)
{
    return strcmp(s, "embed") == 0 || strncmp(s, "qemu:///", 8) == 0 ||
           strncmp(s, "test:///", 8) == 0;
}

static bool is_group(const char *s)
{
    return strlen(s) <= LIMIT_USER && s[strspn(s, "abcdefghijklmnopqrstuvwxyz"
                                                  "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.")] == 0;
}

static bool is_denied(const char *s)
{
    return is_one_of(s, (const char *const[]){ "refused", "nxdomain", NULL });
}

/* ADDRESS or ADDRESS:PORT */
static bool is_server(const char *s)
{
    const char *colon = strchr(s, ':');
    size_t n = colon ? (size_t)(colon - s) : strlen(s);
    char address[16];
    struct in_addr parsed;
    uint32_t port;

    if (n >= sizeof(address))
        return false;
    memcpy(address, s, n);
    address[n] = '\0';
    return inet_pton(AF_INET, address, &parsed) == 1 &&
           (!colon || parse_u32(colon + 1, 1, 65535, &port));
}

static bool is_audit(const char *s)
{
    return audit_mode_parse(s) >= 0;
}

#define RULE_MAX 400            /* bytes of one line of policy_ceiling */
#define DIR_RULE "an absolute directory of at most 64 bytes, without a slash at its end"
#define GROUP_RULE "the name of a group, or empty"

static const struct jfield config_table[] = {
    JF(struct config, state_dir, JT_STR, .check = is_dir, .rule = DIR_RULE),
    JF(struct config, runtime_dir, JT_STR, .check = is_dir, .rule = DIR_RULE),
    JF(struct config, socket, JT_STR, .check = is_path, .rule = "an absolute path"),
    JF(struct config, socket_group, JT_STR, .check = is_group, .rule = GROUP_RULE),
    JF(struct config, readonly_socket, JT_STR, .check = is_path_or_empty,
       .rule = "an absolute path, or empty"),
    JF(struct config, readonly_group, JT_STR, .check = is_group, .rule = GROUP_RULE),
    JF(struct config, admin_group, JT_STR, .check = is_group, .rule = GROUP_RULE),
    JF(struct config, libvirt_uri, JT_STR, .check = is_uri, .rule = "\"embed\" or qemu:///…"),
    JF(struct config, accel, JT_STR, .check = is_accel, .rule = "auto, kvm or tcg"),
    JF(struct config, machine, JT_STR, .check = is_machine, .rule = "microvm or q35"),
    JF(struct config, default_image, JT_STR, .check = name_valid, .rule = "the name of an image"),
    JF(struct config, default_cpus, JT_U32, .max = LIMIT_CPUS),
    JF(struct config, default_memory, JT_U64, .min = LIMIT_MEMORY_MIN, .max = LIMIT_MEMORY_MAX,
       .def = 2 * GIB),
    JF(struct config, default_disk, JT_U64, .min = LIMIT_DISK_MIN, .max = LIMIT_DISK_MAX,
       .def = 20 * GIB),
    JF(struct config, start_timeout_ms, JT_U32, .min = 1000, .max = DEADLINE_CREATE,
       .def = DEADLINE_GUEST_HELLO),
    /* what ordinary users and their subordinate ranges have lies below or is not ours to take */
    JF(struct config, uid_base, JT_U32, .min = 65536, .max = UINT32_MAX - LIMIT_SANDBOXES - 2,
       .def = 1879048192),
    JF(struct config, console, JT_STR, .check = is_console, .rule = "hvc0 or serial"),
    JF(struct config, log_level, JT_STR, .check = is_level,
       .rule = "err, warning, notice, info or debug"),
    JF(struct config, virtiofsd, JT_STR, .check = is_path_or_empty,
       .rule = "an absolute path, or empty"),
    JF(struct config, qemu_group, JT_STR, .check = is_group, .rule = GROUP_RULE),
    JF(struct config, quota, JT_OBJ, .table = quota_config_table),
    JF(struct config, min_free_disk, JT_AMOUNT, .flags = JF_SIZE, .def = SPACE_AUTO),
    JF(struct config, network, JT_BOOL, .def = true),
    JF(struct config, subnet, JT_STR, .max = 32),
    JF(struct config, default_policy, JT_STR, .check = name_valid, .rule = "the name of a policy"),
    JF(struct config, policy_ceiling, JT_STRV, .max = POLICY_RULES_MAX, .item_max = RULE_MAX),
    JF(struct config, resolver, JT_STR, .check = is_path_or_empty,
       .rule = "an absolute path, or empty"),
    JF(struct config, resolver_upstreams, JT_STRV, .max = 8, .item_max = 32, .check = is_server,
       .rule = "an IPv4 address, with or without :PORT"),
    JF(struct config, resolver_grace_s, JT_U32, .max = 86400, .def = 60),
    JF(struct config, resolver_denied, JT_STR, .check = is_denied, .rule = "refused or nxdomain"),
    JF(struct config, names_per_second, JT_U32, .min = 1, .max = 100000, .def = 50),
    JF(struct config, audit, JT_STR, .check = is_audit, .rule = "required, best-effort or off"),
    JF(struct config, audit_size, JT_U64, .min = 64 * KIB, .max = 16 * GIB, .def = 16 * MIB),
    JF(struct config, audit_files, JT_U32, .min = 1, .max = 1000, .def = 8),
    JF(struct config, events, JT_U32, .min = 100, .max = 1000000, .def = 10000),
    JF(struct config, cgroup, JT_STR, .check = is_cgroup,
       .rule = "auto, an absolute path, or empty"),
    JF(struct config, default_ttl_s, JT_U64, .max = LIMIT_TIME_MAX / 1000, .def = 0),
    JF(struct config, default_idle_timeout_s, JT_U64, .max = LIMIT_TIME_MAX / 1000, .def = 0),
    JF(struct config, default_restart, JT_STR, .check = restart_valid, .rule = RESTART_RULE),
    JF(struct config, idle_cpu_percent, JT_U32, .min = 1, .max = 100, .def = 5),
    JF(struct config, connections, JT_U32, .min = 1, .max = 1000000, .def = 2048),
    JF(struct config, connections_per_second, JT_U32, .min = 1, .max = 1000000, .def = 200),
    JF_END
};

static int set_default(char **field, const char *value, struct err *e)
{
    if (!*field)
        *field = strdup(value);
    return *field ? 0 : err_nomem(e);
}

static int fill_defaults(struct config *c, struct err *e)
{
    autosbuf struct sbuf socket = SBUF(LIMIT_PATH);
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);

    if (set_default(&c->state_dir, "/var/lib/sandboxd", e) < 0 ||
        set_default(&c->runtime_dir, "/run/sandboxd", e) < 0)
        return -1;
    sbuf_fmt(&socket, "%s/sandboxd.sock", c->runtime_dir);
    if (c->default_cpus == 0)
        c->default_cpus = cpus == 1 ? 1 : 2;
    const struct quota_host host = {
        .cpus = (uint32_t)cpus,
        .memory = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE),
        .default_memory = c->default_memory,
        .default_disk = c->default_disk,
    };
    quota_defaults(&c->quota, &host);
    if (set_default(&c->socket, sbuf_str(&socket), e) < 0 ||
        set_default(&c->socket_group, "sandbox", e) < 0 ||
        set_default(&c->readonly_socket, "", e) < 0 ||
        set_default(&c->readonly_group, "", e) < 0 ||
        set_default(&c->admin_group, "", e) < 0 ||
        set_default(&c->libvirt_uri, "embed", e) < 0 || set_default(&c->accel, "auto", e) < 0 ||
        set_default(&c->machine, "microvm", e) < 0 ||
        set_default(&c->default_image, "debian", e) < 0 ||
        set_default(&c->console, "hvc0", e) < 0 || set_default(&c->log_level, "info", e) < 0 ||
        set_default(&c->virtiofsd, "", e) < 0 || set_default(&c->subnet, "auto", e) < 0 ||
        set_default(&c->default_policy, "agent", e) < 0 ||
        set_default(&c->default_restart, "no", e) < 0 ||
        set_default(&c->cgroup, "auto", e) < 0 ||
        set_default(&c->resolver, "", e) < 0 ||
        set_default(&c->resolver_denied, "refused", e) < 0 ||
        set_default(&c->audit, "required", e) < 0)
        return -1;
    /* Debian's name; libvirtd's directories are closed to others */
    return set_default(&c->qemu_group,
                       strcmp(c->libvirt_uri, "qemu:///system") == 0 ? "libvirt-qemu" : "", e);
}

int config_load(const char *path, struct config *ret, struct err *e)
{
    struct config c = { 0 };
    autofree char *text = NULL;
    size_t len = 0;
    const char *from = path ? path : CONFIG_DEFAULT_PATH;

    if (!path && access(from, F_OK) < 0 && errno == ENOENT) {
        if (json_decode(config_table, "{}", 2, &c, e) < 0)
            return -1;
    } else {
        if (io_read_file_at(AT_FDCWD, from, CONFIG_MAX, &text, &len, e) < 0)
            return -1;
        if (json_decode(config_table, text, len, &c, e) < 0)
            return err_wrap(e, "%s", from);
    }
    if (fill_defaults(&c, e) < 0) {
        config_done(&c);
        return -1;
    }
    *ret = c;
    return 0;
}

void config_done(struct config *c)
{
    json_done(config_table, c, sizeof(*c));
}
