/* SPDX-License-Identifier: MIT
 *
 * egress-host CONFIG N RULES: the daemon's side of N sandboxes' networks without their virtual
 * machines: links, filter, resolver, log, by the code of the daemon. The first one has the rules of
 * the file RULES, the others some of each kind.
 *
 * Says "ready ID TAP ADDRESS" of the first. Then, line by line: "settle" puts the filter in order
 * (after a tap was replaced), "set" reads RULES again, "quit" takes all down. Each is answered by
 * "ok", or by why not.
 */
#include "common/auto.h"
#include "common/io.h"
#include "common/jfield.h"
#include "common/log.h"
#include "daemon/config.h"
#include "daemon/egress.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void die(const char *what, const struct err *e)
{
    fprintf(stderr, "egress-host: %s: %s (%s)\n", what, e->msg, e->hint);
    exit(1);
}

static void insert(struct store *st, uint32_t i, char id[17], const char *rules)
{
    struct vm_row r = { .uid = 0, .groups = (char *)"", .image_name = (char *)"none",
                        .image_digest = (char *)"sha256:0", .machine = (char *)"microvm" };
    struct ruleset s = RULESET_INIT;
    char name[16], other[200];
    struct err e = ERR_INIT;

    snprintf(id, 17, "%04x%012x", i, i * 2654435761u);
    snprintf(name, sizeof(name), "n%u", i);
    snprintf(other, sizeof(other),
             "allow 93.%u.%u.0/24:443\nallow 10.77.%u.%u:22\nallow **.n%u.example\n"
             "allow a.n%u.example:80-90\ndeny 93.%u.7.0/28\n",
             i >> 8, i & 255, i >> 8, i & 255, i, i, i >> 8);
    memcpy(r.id, id, sizeof(r.id));
    r.name = name;
    if (store_vm_insert(st, &r, &e) < 0 ||
        ruleset_begin_text(&s, rules ? rules : other, 0, &e) < 0 ||
        ruleset_store(&s, st, id, &e) < 0)
        die("row", &e);
    ruleset_done(&s);
}

static char *read_rules(const char *path)
{
    char *text = NULL;
    size_t len = 0;
    struct err e = ERR_INIT;

    if (io_read_file_at(AT_FDCWD, path, POLICY_TEXT_MAX, &text, &len, &e) < 0)
        die(path, &e);
    return text;
}

static int obey(struct egress *g, const char *line, const char *id, const char *path, struct err *e)
{
    if (strcmp(line, "settle\n") == 0)
        return egress_settle(g, e);
    if (strcmp(line, "set\n") == 0) {
        autofree char *text = read_rules(path);
        return egress_set(g, id, 0, &(struct api_policy_set_req){ .rules = text }, e);
    }
    return err_set(e, ERR_INVALID, "no such word");
}

int main(int argc, char **argv)
{
    struct config config = { 0 };
    struct store *st = NULL;
    struct egress *g = NULL;
    struct image_row image = { .digest = "sha256:0", .name = (char *)"none", .variant = (char *)"",
                               .os = (char *)"", .kernel = (char *)"", .recipe = (char *)"" };
    struct err e = ERR_INIT;
    char path[512], line[64];

    if (argc != 4)
        return 2;
    uint32_t n = (uint32_t)strtoul(argv[2], NULL, 10);
    char (*ids)[17] = calloc(n + 1, sizeof(*ids));
    autofree char *rules = read_rules(argv[3]);
    struct link first = { 0 }, l;
    signal(SIGPIPE, SIG_IGN);
    json_init();
    log_init("egress-host", LOG_WARNING);
    if (!ids || config_load(argv[1], &config, &e) < 0)
        die(argv[1], &e);
    snprintf(path, sizeof(path), "%s/db", config.state_dir);
    if (store_open(path, &st, &e) < 0 || store_image_insert(st, &image, &e) < 0 ||
        egress_open(&config, st, NULL, &g, &e) < 0)
        die("open", &e);
    for (uint32_t i = 1; i <= n; i++) {
        insert(st, i, ids[i], i == 1 ? rules : NULL);
        if (egress_attach(g, ids[i], i, config.uid_base + i, i == 1 ? &first : &l, &e) < 0)
            die("attach", &e);
    }
    char address[ADDRESS_TEXT];
    printf("ready %s %s %s\n", ids[1], first.name, address_format(first.address, address));
    fflush(stdout);
    while (fgets(line, sizeof(line), stdin) && strcmp(line, "quit\n") != 0) {
        e = ERR_INIT;
        printf("%s\n", obey(g, line, ids[1], argv[3], &e) == 0 ? "ok" : e.msg);
        fflush(stdout);
    }
    for (uint32_t i = 1; i <= n; i++)
        if (egress_detach(g, ids[i], i, &e) < 0)
            die("detach", &e);
    egress_free(g);
    store_close(st);
    config_done(&config);
    free(ids);
    puts("ok");
    return 0;
}
