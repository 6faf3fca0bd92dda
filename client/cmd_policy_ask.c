/* SPDX-License-Identifier: MIT
 *
 * What a policy decides, and whether that holds: check, why, prove.
 */
#include "client/list.h"
#include "client/out.h"
#include "client/policies.h"
#include "common/api.h"
#include "common/auto.h"
#include <inttypes.h>
#include <string.h>

#define DENIED 1            /* exit status of check */
#define FAILED 1            /* of prove */
#define TEXT_MAX (16ULL * 1024 * 1024)

static void add_text(struct sbuf *b, const char *text)
{
    if (text)
        sbuf_text(b, text, strlen(text));
}

/* ---- check --------------------------------------------------------------------------------- */

/* 0 allow, 1 deny; a word that is neither is no answer. */
static int verdict_status(const char *verdict, struct err *e)
{
    if (strcmp(verdict, "allow") == 0)
        return 0;
    if (strcmp(verdict, "deny") == 0)
        return DENIED;
    return err_set(e, ERR_INTERNAL, "sandboxd answered with '%s', which is no verdict", verdict);
}

static int show_verdict(const struct api_policy_verdict *v, struct err *e)
{
    autosbuf struct sbuf b = SBUF(TEXT_MAX);

    add_text(&b, v->verdict);
    sbuf_chr(&b, ' ');
    add_text(&b, v->target);
    sbuf_lit(&b, "\n  ");
    if (v->rule) {
        add_text(&b, v->rule);
        sbuf_lit(&b, v->source ? " (" : "");
        add_text(&b, v->source);
        sbuf_lit(&b, v->source ? ")" : "");
    } else {
        add_text(&b, v->source ? v->source : "no rule");
    }
    sbuf_lit(&b, v->reason ? ": " : "");
    add_text(&b, v->reason);
    return b.failed ? err_nomem(e) : out_line(sbuf_str(&b), e);
}

COMMAND(cmd_policy_check)
{
    const struct json_opts *o = opts;
    struct api_policy_verdict v = { 0 };
    autosbuf struct sbuf body = SBUF(LIMIT_REPLY);
    autosbuf struct sbuf path = SBUF(8192);
    int status = -1;

    (void)n;
    url_sandbox(&path, args[0], "/policy/check");
    url_query(&path, "target", args[1]);
    const struct call call = { .method = "GET", .path = sbuf_str(&path) };
    int r = policy_fetch(app, &call, api_policy_verdict_table, &v, &body, e);
    if (r == 0)
        r = status = verdict_status(v.verdict, e);
    if (r >= 0)
        r = o->json ? policy_print_json(&body, e) : show_verdict(&v, e);
    json_done(api_policy_verdict_table, &v, sizeof(v));
    return r < 0 ? -1 : status;
}

/* ---- why ----------------------------------------------------------------------------------- */

static void add_line(struct sbuf *b, const char *key, const char *value)
{
    if (!value || !value[0])
        return;
    sbuf_fmt(b, "%-11s ", key);
    add_text(b, value);
    sbuf_chr(b, '\n');
}

static void add_rule(struct sbuf *b, const struct api_policy_why *w)
{
    const struct api_policy_rule *r = &w->rule;
    char at[40], since[64], uid[16], when[128];

    snprintf(uid, sizeof(uid), "%u", r->added_by.uid);
    add_line(b, "Added by:", r->added_by.user ? r->added_by.user : uid);
    snprintf(when, sizeof(when), "%s (%s)", local_time(r->added_at, at), ago(r->added_at, since));
    add_line(b, "Added:", r->added_at ? when : NULL);
    sbuf_fmt(b, "%-11s %" PRIu64 "\n", "Matches:", r->matches);
}

static int show_answers(const struct jlist *answers, struct err *e)
{
    static const struct column columns[] = {
        { "NAME", .flex = true }, { "ADDRESS" }, { "UNTIL" }, { "CONNECTIONS" }, { "NOW" },
    };
    autotable struct table t = { .columns = columns, .n_columns = ARRAY_SIZE(columns) };
    const struct api_policy_answer *a = answers->items;
    char time[40];

    for (size_t i = 0; i < answers->n; i++)
        if (table_cell(&t, a[i].name, e) < 0 || table_cell(&t, a[i].address, e) < 0 ||
            table_cell(&t, local_time(a[i].expires_at, time), e) < 0 ||
            table_cellf(&t, e, "%" PRIu64, a[i].packets) < 0 ||
            table_cell(&t, a[i].live ? "open" : "expired", e) < 0)
            return -1;
    return table_print(&t, e);
}

static int show_why(const struct api_policy_why *w, struct err *e)
{
    autosbuf struct sbuf b = SBUF(TEXT_MAX);
    const struct api_policy_verdict *v = &w->decision;

    add_line(&b, "Target:", v->target);
    add_line(&b, "Verdict:", v->verdict);
    add_line(&b, "Reason:", v->reason);
    add_line(&b, "Rule:", v->rule ? v->rule : "-");
    add_line(&b, "Source:", v->source);
    if (w->rule.present)
        add_rule(&b, w);
    add_line(&b, "In filter:", w->element ? w->element : "nothing lets it through now");
    if (w->element)
        sbuf_fmt(&b, "%-11s %" PRIu64 "\n", "Packets:", w->packets);
    sbuf_fmt(&b, "%-11s %" PRIu64 " packets of this sandbox so far, whatever their target\n",
             "Rejected:", w->denied);
    sbuf_lit(&b, w->answers.n ? "\n" : "");
    if (b.failed)
        return err_nomem(e);
    if (out_write(sbuf_str(&b), b.len, e) < 0)
        return -1;
    return w->answers.n ? show_answers(&w->answers, e) : 0;
}

COMMAND(cmd_policy_why)
{
    const struct json_opts *o = opts;
    struct api_policy_why why = { 0 };
    autosbuf struct sbuf body = SBUF(LIMIT_REPLY);
    autosbuf struct sbuf path = SBUF(8192);

    (void)n;
    url_sandbox(&path, args[0], "/policy/why");
    url_query(&path, "target", args[1]);
    const struct call call = { .method = "GET", .path = sbuf_str(&path) };
    int r = policy_fetch(app, &call, api_policy_why_table, &why, &body, e);
    if (r == 0)
        r = o->json ? policy_print_json(&body, e) : show_why(&why, e);
    json_done(api_policy_why_table, &why, sizeof(why));
    return r;
}

/* ---- prove --------------------------------------------------------------------------------- */

static int show_proof(const struct api_policy_proof *p, struct err *e)
{
    autosbuf struct sbuf b = SBUF(TEXT_MAX);
    const struct api_policy_probe *probe = p->probes.items;

    for (size_t i = 0; i < p->probes.n; i++) {
        sbuf_lit(&b, probe[i].pass ? "PASS " : "FAIL ");
        add_text(&b, probe[i].probe);
        sbuf_lit(&b, ": expected ");
        add_text(&b, probe[i].expected ? probe[i].expected : "-");
        sbuf_lit(&b, ", saw ");
        add_text(&b, probe[i].seen ? probe[i].seen : "-");
        sbuf_chr(&b, '\n');
    }
    sbuf_fmt(&b, "%u passed, %u failed", p->passed, p->failed);
    return b.failed ? err_nomem(e) : out_line(sbuf_str(&b), e);
}

/* The numbers have to be those of the probes: nothing tried, or not what was counted, is no
 * proof. */
static int proof_status(const struct api_policy_proof *p, struct err *e)
{
    const struct api_policy_probe *probe = p->probes.items;
    uint32_t passed = 0;

    for (size_t i = 0; i < p->probes.n; i++)
        passed += probe[i].pass;
    if (!p->probes.n)
        return err_set(e, ERR_INTERNAL, "sandboxd tried nothing, which proves nothing");
    if (passed != p->passed || p->probes.n - passed != p->failed)
        return err_set(e, ERR_INTERNAL, "sandboxd's answer does not agree with itself: of %zu "
                       "probes %u passed, not %u", p->probes.n, passed, p->passed);
    return p->failed ? FAILED : 0;
}

COMMAND(cmd_policy_prove)
{
    const struct json_opts *o = opts;
    struct api_policy_proof proof = { 0 };
    autosbuf struct sbuf body = SBUF(LIMIT_REPLY);
    autosbuf struct sbuf path = SBUF(4096);
    int status = -1;

    (void)n;
    url_sandbox(&path, args[0], "/policy/prove");
    const struct call call = { .method = "POST", .path = sbuf_str(&path), .flags = CALL_SLOW,
                               .progress = "trying what may be reached and what may not" };
    int r = policy_fetch(app, &call, api_policy_proof_table, &proof, &body, e);
    if (r == 0)
        r = status = proof_status(&proof, e);
    if (r >= 0)
        r = o->json ? policy_print_json(&body, e) : show_proof(&proof, e);
    json_done(api_policy_proof_table, &proof, sizeof(proof));
    return r < 0 ? -1 : status;
}
