/* SPDX-License-Identifier: MIT */
#include "common/api.h"
#include "common/auto.h"
#include "daemon/daemon.h"
#include "daemon/handlers.h"

#include <string.h>

#define STOP_TIMEOUT_MAX (10 * 60 * 1000)

static int reply_sandbox_done(struct call *c, int status, struct api_sandbox *s, struct err *e)
{
    int r = reply_json(c, status, api_sandbox_table, s, e);

    json_done(api_sandbox_table, s, sizeof(*s));
    return r;
}

/* Who comes by the read-only socket sees which variables there are, and no value. */
static void veil(const struct call *c, struct api_sandbox *s)
{
    for (size_t i = 0; c->caller.read_only && i < s->env.n; i++) {
        char *value = strchr(s->env.items[i], '=');
        if (value)
            value[1] = '\0';
    }
}

static int reply_vm(struct call *c, struct err *e)
{
    struct api_sandbox s = { 0 };

    if (vm_describe(c->vm, &s, e) < 0)
        return -1;
    veil(c, &s);
    return reply_sandbox_done(c, 200, &s, e);
}

/* --- list --- */

static int check_state(const char *state, struct err *e)
{
    for (int s = 0; state && s < VM_STATE_MAX; s++)
        if (strcmp(state, vm_state_name((enum vm_state)s)) == 0)
            return 0;
    return state ? err_set(e, ERR_FIELD_INVALID, "there is no state '%s'", state) : 0;
}

/* "K" asks whether there is such a label, "K=V" for its value. */
static bool has_label(const struct strv *labels, const char *wanted)
{
    size_t n = strlen(wanted);

    for (size_t i = 0; i < labels->n; i++) {
        const char *l = labels->items[i];
        if (strcmp(l, wanted) == 0 ||
            (!strchr(wanted, '=') && strncmp(l, wanted, n) == 0 && l[n] == '='))
            return true;
    }
    return false;
}

static bool is_wanted(const struct call *c, const struct api_sandbox *s)
{
    const char *state = call_query(c, "state");

    if (state && strcmp(state, s->state) != 0)
        return false;
    for (size_t i = 0; i < c->target.query.n; i++) {
        const char *q = c->target.query.items[i];
        if (strncmp(q, "label=", 6) == 0 && !has_label(&s->labels, q + 6))
            return false;
    }
    return true;
}

int h_sandbox_list(struct call *c, struct err *e)
{
    struct api_sandbox_list l = { 0 };

    if (check_state(call_query(c, "state"), e) < 0 ||
        vms_list(c->daemon->vms, &c->caller, &l, e) < 0)
        return -1;
    struct api_sandbox *s = l.sandboxes.items;
    size_t kept = 0;
    for (size_t i = 0; i < l.sandboxes.n; i++) {
        veil(c, &s[i]);
        if (is_wanted(c, &s[i]))
            s[kept++] = s[i];
        else
            json_done(api_sandbox_table, &s[i], sizeof(s[i]));
    }
    l.sandboxes.n = kept;
    int r = reply_json(c, 200, api_sandbox_list_table, &l, e);
    json_done(api_sandbox_list_table, &l, sizeof(l));
    return r;
}

/* --- one sandbox --- */

AUTO_DEFINE(vmref, struct vm, vm_unref)

int h_sandbox_create(struct call *c, struct err *e)
{
    autotype(vmref) struct vm *made = NULL;
    struct api_sandbox s = { 0 };
    struct err none = ERR_INIT;

    if (c->again)
        (void)vms_find(c->daemon->vms, &c->caller, c->object, &made, &none);
    if (made && reply_header(c, "Idempotency-Replayed", e, "true") < 0)
        return -1;
    if ((made ? vm_describe(made, &s, e)
              : vms_create(c->daemon->vms, &c->caller, c->body, c->object, &s, e)) < 0)
        return -1;
    if (reply_header(c, "Location", e, "/v1/sandboxes/%s", s.id) < 0) {
        json_done(api_sandbox_table, &s, sizeof(s));
        return -1;
    }
    return reply_sandbox_done(c, 201, &s, e);
}

int h_sandbox_get(struct call *c, struct err *e)
{
    return reply_vm(c, e);
}

int h_sandbox_update(struct call *c, struct err *e)
{
    return vm_update(c->vm, c->body, e) < 0 ? -1 : reply_vm(c, e);
}

int h_sandbox_delete(struct call *c, struct err *e)
{
    bool force = false;

    if (call_query_bool(c, "force", &force, e) < 0 || vm_remove(c->vm, force, e) < 0)
        return -1;
    return reply_empty(c);
}

int h_sandbox_start(struct call *c, struct err *e)
{
    return vm_start(c->vm, &c->caller, e) < 0 ? -1 : reply_vm(c, e);
}

int h_sandbox_stop(struct call *c, struct err *e)
{
    uint64_t timeout_ms = DEADLINE_STOP;

    if (call_query_u64(c, "timeout_ms", STOP_TIMEOUT_MAX, &timeout_ms, e) < 0 ||
        vm_stop(c->vm, (uint32_t)timeout_ms, e) < 0)
        return -1;
    return reply_vm(c, e);
}

int h_sandbox_restart(struct call *c, struct err *e)
{
    return vm_restart(c->vm, &c->caller, e) < 0 ? -1 : reply_vm(c, e);
}
