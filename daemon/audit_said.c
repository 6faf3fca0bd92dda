/* SPDX-License-Identifier: MIT */
#include "daemon/audit_said.h"

#include "common/auto.h"
#include "common/limits.h"
#include "daemon/audit_peer.h"

#include <string.h>

/* "allow a:443 b:443" behind what is there; the word is left out where it is the verb itself. */
static void add_targets(struct sbuf *b, struct audit_said *s, const char *word,
                        const struct strv *targets)
{
    if (targets->n && word)
        sbuf_fmt(b, "%s%s", b->len ? " " : "", word);
    for (size_t i = 0; i < targets->n; i++)
        sbuf_fmt(b, "%s%s", b->len ? " " : "", targets->items[i]);
    s->targets += (uint32_t)targets->n;
}

static void note_rules(struct audit_said *s, const char *text)
{
    s->verb = "rules";
    digest_hex(text, strlen(text), s->digest);
}

static void note_create(struct audit_said *s, struct sbuf *b, const struct api_create_req *r)
{
    s->mounts = r->workspace.present;
    s->read_only = r->workspace.read_only;
    if (r->workspace.path)
        audit_text(s->path, sizeof(s->path), r->workspace.path);
    if (r->policy || r->allow.n || r->deny.n)
        s->verb = "set";
    if (r->policy_rules)
        note_rules(s, r->policy_rules);
    sbuf_fmt(b, "%s", r->policy ? r->policy : "");
    add_targets(b, s, "allow", &r->allow);
    add_targets(b, s, "deny", &r->deny);
}

static void note_set(struct audit_said *s, struct sbuf *b, const struct api_policy_set_req *r)
{
    s->verb = "set";
    sbuf_fmt(b, "%s", r->policy ? r->policy : "");
    if (r->rules)
        note_rules(s, r->rules);
}

static void note_change(struct audit_said *s, struct sbuf *b, const struct api_policy_rules_req *r)
{
    static const char *const verbs[] = { "allow", "deny", "remove" };

    for (size_t i = 0; i < ARRAY_SIZE(verbs); i++)
        if (r->verdict && strcmp(r->verdict, verbs[i]) == 0)
            s->verb = verbs[i];     /* another is refused */
    add_targets(b, s, NULL, &r->targets);
}

void audit_said_note(const struct jfield *table, const void *body, struct audit_said *ret)
{
    autosbuf struct sbuf what = SBUF(LIMIT_BODY);

    *ret = (struct audit_said){ 0 };
    if (table == api_create_req_table)
        note_create(ret, &what, body);
    else if (table == api_policy_set_req_table)
        note_set(ret, &what, body);
    else if (table == api_policy_rules_req_table)
        note_change(ret, &what, body);
    else if (table == api_named_policy_req_table &&
             ((const struct api_named_policy_req *)body)->rules)
        note_rules(ret, ((const struct api_named_policy_req *)body)->rules);
    audit_text(ret->what, sizeof(ret->what), sbuf_str(&what));
}

void audit_said_put(struct audit_said *s, bool done, struct api_audit_record *r)
{
    if (s->mounts)
        r->mount = (struct api_audit_mount){ .present = true, .path = s->path,
                                             .read_only = s->read_only };
    if (s->verb && done)
        r->change = (struct api_audit_change){
            .present = true, .verb = (char *)s->verb, .what = s->what[0] ? s->what : NULL,
            .targets = s->targets, .digest = s->digest[0] ? s->digest : NULL,
        };
}
