/* SPDX-License-Identifier: MIT */
#include "daemon/audit_call.h"

#include "common/auto.h"
#include "common/limits.h"
#include "common/log.h"
#include "daemon/audit.h"
#include "daemon/audit_peer.h"
#include "daemon/audit_said.h"
#include "daemon/daemon.h"
#include "daemon/peer.h"
#include "daemon/routes.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define TEXT_MAX 256        /* bytes of a name of somebody's choice */

static const struct { const char *word; unsigned flags; } actions[] = {
#define AUDIT_ROW(constant, word, flags) [constant] = { word, flags },
    AUDIT_ACTIONS(AUDIT_ROW)
#undef AUDIT_ROW
};
static_assert(ARRAY_SIZE(actions) == ACT_MAX, "a word for each action");

struct audit_note {
    unsigned reserved;              /* records that room was promised for */
    char user[LIMIT_USER * 2 + 1];  /* "" none */
    struct audit_peer peer;
    char name[LIMIT_NAME + 1];      /* that the sandbox is to have; "" */
    char target[TEXT_MAX], exec[TEXT_MAX];
    char program[TEXT_MAX];
    uint32_t arguments;
    struct audit_said said;
};

const char *audit_action_name(enum audit_action a)
{
    return actions[a].word;
}

void audit_note_free(struct audit_note *n)
{
    free(n);
}

/* --- the request --- */

static void note_command(struct audit_note *n, const struct strv *command)
{
    if (command->n == 0)
        return;
    audit_text(n->program, sizeof(n->program), command->items[0]);
    n->arguments = (uint32_t)command->n - 1;
}

static void note_body(struct audit_note *n, const struct call *c)
{
    const struct jfield *table = c->route->table;

    if (!c->body)
        return;
    if (table == api_create_req_table && ((struct api_create_req *)c->body)->name)
        audit_text(n->name, sizeof(n->name), ((struct api_create_req *)c->body)->name);
    if (table == api_exec_req_table)
        note_command(n, &((struct api_exec_req *)c->body)->command);
    if (table == api_run_req_table)
        note_command(n, &((struct api_run_req *)c->body)->command);
    audit_said_note(table, c->body, &n->said);
}

/* Once for each request: at its end the client may be gone. */
static struct audit_note *note_of(struct call *c)
{
    struct err e = ERR_INIT;
    struct audit_note *n = c->note ? NULL : calloc(1, sizeof(*n));
    autofree char *user = NULL;

    if (!n)
        return c->note;
    c->note = n;
    if (peer_user_name(c->caller.id.uid, &user, &e) == 0 && user)
        audit_text(n->user, sizeof(n->user), user);
    audit_peer_read(c->caller.pid, c->caller.id.uid, &n->peer);
    if (!c->vm && c->param[0])
        audit_text(n->target, sizeof(n->target), c->param[0]);
    if (c->param[1])
        audit_text(n->exec, sizeof(n->exec), c->param[1]);
    note_body(n, c);
    return n;
}

static const char *or_null(const char *s)
{
    return *s ? s : NULL;
}

static int put(struct call *c, struct audit_note *n, struct api_audit_record *r, struct err *e)
{
    bool reserved = n->reserved > 0;

    r->request = c->caller.request;
    r->action = (char *)audit_action_name(c->route->action);
    r->who = (struct api_audit_who){ .present = true, .uid = c->caller.id.uid,
                                     .user = (char *)or_null(n->user),
                                     .pid = (uint32_t)c->caller.pid,
                                     .comm = (char *)or_null(n->peer.comm),
                                     .ssh = (char *)or_null(n->peer.ssh) };
    if (c->vm) {
        r->sandbox = (char *)vm_id(c->vm);
        r->name = (char *)vm_name(c->vm);
    }
    if (!r->name)
        r->name = (char *)or_null(n->name);
    r->target = (char *)or_null(n->target);
    if (!r->exec)
        r->exec = (char *)or_null(n->exec);
    if (n->program[0])
        r->command = (struct api_audit_exec){ .present = true, .program = n->program,
                                              .arguments = n->arguments };
    audit_said_put(&n->said, r->result.present && !r->result.code, r);
    n->reserved -= reserved;
    return audit_write(c->daemon->audit, r, reserved, e);
}

static bool is_required(const struct call *c)
{
    return audit_mode(c->daemon->audit) == AUDIT_REQUIRED;
}

static int refuse(const struct call *c, const struct err *why, struct err *e)
{
    static struct log_rate rate;

    if (log_rate_ok(&rate, 1, 60000))
        log_err(LOG_CTX(.request = c->caller.request, .error = why),
                is_required(c) ? "the audit log cannot be written, so requests are refused"
                               : "the audit log cannot be written, ignoring");
    if (!is_required(c))
        return 0;
    err_set(e, why->code == ERR_NO_SPACE ? ERR_NO_SPACE : ERR_UNAVAILABLE,
            "nothing was changed, as it cannot be recorded: %s", why->msg);
    return err_hint(e, "%s", why->hint[0] ? why->hint
                                          : "the administrator has to look after the host's disk; "
                                            "see \"audit\" in sandboxd.conf(5)");
}

int audit_call_begin(struct call *c, struct err *e)
{
    struct audit *a = c->daemon ? c->daemon->audit : NULL;
    struct err no = ERR_INIT;

    if (!a || c->route->action == ACT_NONE)
        return 0;
    unsigned flags = actions[c->route->action].flags;
    struct audit_note *n = note_of(c);
    if (!n)
        return err_nomem(e);
    unsigned records = flags & ACTION_BEGINS ? 2 : 1;
    int rc = audit_reserve(a, records, (flags & ACTION_FREES) != 0, &no);
    if (rc < 0)
        return refuse(c, &no, e);
    n->reserved = rc == 0 ? records : 0;
    struct api_audit_record r = { .kind = (char *)"begin" };
    if ((records == 1 && rc == 0) || put(c, n, &r, &no) == 0)
        return 0;
    audit_release(a, n->reserved);
    n->reserved = 0;
    return refuse(c, &no, e);
}

/* --- the answer --- */

static const char *header(const struct call *c, const char *name)
{
    for (size_t i = 0; i < c->reply.n_headers; i++)
        if (strcmp(c->reply.headers[i].name, name) == 0)
            return c->reply.headers[i].value;
    return NULL;
}

/* Whom a 404 concerns is not told apart: who reads his own records shall not learn by them what
 * others have. */
static bool is_denied(enum err_code code)
{
    return err_http(code) == 403 || code == ERR_SANDBOX_NOT_FOUND;
}

struct made { char *id, *name; };
static const struct jfield made_table[] = {
    JF(struct made, id, JT_STR),
    JF(struct made, name, JT_STR),
    JF_END
};

int audit_call_end(struct call *c, enum err_code code, struct err *e)
{
    struct err no = ERR_INIT;
    struct made made = { 0 };

    if (!c->daemon || !c->daemon->audit || !c->route ||
        (c->route->action == ACT_NONE && !is_denied(code)))
        return 0;
    struct audit_note *n = note_of(c);
    if (!n)
        return err_nomem(e);
    struct api_audit_record r = {
        .kind = (char *)"end",
        .result = { .present = true, .denied = is_denied(code),
                    .status = (uint32_t)(code ? err_http(code) : c->reply.status),
                    .code = code ? (char *)err_wire(code) : NULL,
                    .replayed = !code && header(c, "Idempotency-Replayed") },
    };
    bool creates = c->route->action == ACT_SANDBOX_CREATE;
    if (!code && (creates || c->route->action == ACT_EXEC_CREATE) && c->reply.body &&
        json_decode_lenient(made_table, c->reply.body, c->reply.len, &made, &no) == 0) {
        *(creates ? &r.sandbox : &r.exec) = made.id;
        r.name = creates ? made.name : NULL;
    }
    no = ERR_INIT;
    int rc = put(c, n, &r, &no);
    json_done(made_table, &made, sizeof(made));
    if (rc == 0)
        return 0;
    static struct log_rate rate;    /* a user can ask again and again */
    if (log_rate_ok(&rate, 5, 60000))
        log_err(LOG_CTX(.request = c->caller.request, .error = &no),
                "the end of a request is not in the audit log");
    if (!is_required(c) || code)
        return 0;
    err_set(e, no.code == ERR_NO_SPACE ? ERR_NO_SPACE : ERR_UNAVAILABLE,
            "this was done, but it could not be recorded: %s", no.msg);
    return err_hint(e, "do not repeat it without a look at what there is");
}

/* --- without a route --- */

static bool may_record(void)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static struct log_rate rate;

    pthread_mutex_lock(&lock);
    bool ok = log_rate_ok(&rate, ACTION_TURNED_AWAY, 60000);
    pthread_mutex_unlock(&lock);
    return ok;
}

void audit_call_turned_away(struct call *c, const char *raw_target, enum err_code code)
{
    static const struct route nowhere = { .method = "", .pattern = "", .action = ACT_TURNED_AWAY };
    autosbuf struct sbuf what = SBUF(LIMIT_HTTP_MEMORY);
    struct err ignored = ERR_INIT;      /* nothing was done; the log has said so */

    if (!c->daemon || !c->daemon->audit || c->route || !is_denied(code) || !may_record())
        return;
    sbuf_fmt(&what, "%s %.*s", c->method, (int)strcspn(raw_target, "?"), raw_target);
    c->param[0] = sbuf_str(&what);
    c->route = &nowhere;
    (void)audit_call_end(c, code, &ignored);
    c->route = NULL;
    c->param[0] = NULL;
}
