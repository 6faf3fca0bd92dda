/* SPDX-License-Identifier: MIT */
#include "daemon/ruleset.h"

#include "common/auto.h"
#include "common/io.h"
#include "common/limits.h"
#include "common/sbuf.h"
#include "daemon/presets.h"

#include <stdlib.h>
#include <string.h>

void ruleset_done(struct ruleset *s)
{
    free(s->base);
    free(s->rules);
    rule_rows_done(s->rows, s->n);
    *s = RULESET_INIT;
}

void rule_text(const struct policy_rule *r, char *buf)
{
    char target[POLICY_TARGET_TEXT];

    policy_target_format(&r->target, target);
    snprintf(buf, RULE_TEXT, "%s %s", r->verdict == POLICY_ALLOW ? "allow" : "deny", target);
}

static int find(const struct ruleset *s, const char *target, size_t from)
{
    for (size_t i = from; i < s->n; i++)
        if (strcmp(s->rows[i].target, target) == 0)
            return (int)i;
    return -1;
}

static int reserve(struct ruleset *s, size_t more, struct err *e)
{
    if (s->n + more > POLICY_RULES_MAX) {
        err_set(e, ERR_TOO_LARGE, "a policy has at most %d rules", POLICY_RULES_MAX);
        return err_hint(e, "a rule for a zone (*.example.com) stands for many names");
    }
    size_t n = s->n + more + 1;
    struct rule_row *rows = reallocarray(s->rows, n, sizeof(*rows));
    if (!rows)
        return err_nomem(e);
    s->rows = rows;
    struct policy_rule *rules = reallocarray(s->rules, n, sizeof(*rules));
    if (!rules)
        return err_nomem(e);
    s->rules = rules;
    return 0;
}

/* Room is there. */
static int append(struct ruleset *s, const struct policy_rule *r, const char *source, uid_t uid,
                  int64_t when, struct err *e)
{
    char target[POLICY_TARGET_TEXT];
    struct rule_row row = { .allow = r->verdict == POLICY_ALLOW, .uid = uid, .added_at = when };

    policy_target_format(&r->target, target);
    for (int i = -1; (i = find(s, target, (size_t)(i + 1))) >= 0;)
        if (s->rows[i].allow == row.allow)
            return 0;
    row.target = strdup(target);
    row.source = strdup(source);
    if (!row.target || !row.source) {
        free(row.target);
        free(row.source);
        return err_nomem(e);
    }
    s->rules[s->n] = *r;
    s->rows[s->n++] = row;
    return 1;
}

int ruleset_add_text(struct ruleset *s, const char *text, const char *source, uid_t uid,
                     struct err *e)
{
    autofree struct policy_rule *rules = NULL;
    int64_t now = now_real_us();
    size_t n = 0, before = s->n;

    if (policy_rules_parse(text, strlen(text), &rules, &n, e) < 0 || reserve(s, n, e) < 0)
        return -1;
    for (size_t i = 0; i < n; i++) {
        if (append(s, &rules[i], source, uid, now, e) < 0) {
            while (s->n > before) {
                s->n--;
                free(s->rows[s->n].target);
                free(s->rows[s->n].source);
            }
            return -1;
        }
    }
    return 0;
}

static void remove_at(struct ruleset *s, size_t i)
{
    size_t after = s->n - i - 1;

    free(s->rows[i].target);
    free(s->rows[i].source);
    memmove(&s->rows[i], &s->rows[i + 1], after * sizeof(*s->rows));
    memmove(&s->rules[i], &s->rules[i + 1], after * sizeof(*s->rules));
    s->n--;
}

int ruleset_add(struct ruleset *s, bool allow, const char *target, uid_t uid, struct err *e)
{
    struct policy_rule r = { .verdict = allow ? POLICY_ALLOW : POLICY_DENY };
    char text[POLICY_TARGET_TEXT];

    if (policy_target_parse(target, &r.target, e) < 0 || reserve(s, 1, e) < 0)
        return -1;
    policy_target_format(&r.target, text);
    for (size_t i = s->n; i-- > 0;)
        if (s->rows[i].allow != allow && strcmp(s->rows[i].target, text) == 0)
            remove_at(s, i);
    return append(s, &r, "user", uid, now_real_us(), e);
}

int ruleset_remove(struct ruleset *s, const char *target, struct err *e)
{
    struct policy_target t;
    char text[POLICY_TARGET_TEXT];
    int removed = 0;

    if (policy_target_parse(target, &t, e) < 0)
        return -1;
    policy_target_format(&t, text);
    for (int i; (i = find(s, text, 0)) >= 0; removed++)
        remove_at(s, (size_t)i);
    return removed;
}

static int set_base(struct ruleset *s, const char *base, struct err *e)
{
    s->base = strdup(base);
    return s->base ? 0 : err_nomem(e);
}

int ruleset_begin(struct ruleset *s, struct store *st, const char *name, uid_t uid, struct err *e)
{
    const struct preset *p = preset_find(name);
    struct policy_row *rows = NULL;
    char source[LIMIT_NAME + 16];
    size_t n = 0;

    snprintf(source, sizeof(source), "%s %s", p ? "preset" : "policy", name);
    if (set_base(s, name, e) < 0)
        return -1;
    if (p)
        return ruleset_add_text(s, p->text, source, uid, e);
    if (store_policy_list(st, uid, name, &rows, &n, e) < 0)
        return -1;
    int r = ruleset_add_text(s, rows[0].rules, source, uid, e);
    policy_rows_done(rows, n);
    return r < 0 ? err_wrap(e, "policy '%s'", name) : 0;
}

int ruleset_begin_text(struct ruleset *s, const char *text, uid_t uid, struct err *e)
{
    if (set_base(s, RULESET_BASE_FILE, e) < 0)
        return -1;
    return ruleset_add_text(s, text, "rules", uid, e);
}

int ruleset_load(struct ruleset *s, struct store *st, const char *vm, struct err *e)
{
    struct ruleset x = RULESET_INIT;

    if (store_rules_list(st, vm, &x.base, &x.rows, &x.n, e) < 0)
        return -1;
    x.rules = calloc(x.n + 1, sizeof(*x.rules));
    int r = x.rules ? 0 : err_nomem(e);
    for (size_t i = 0; r == 0 && i < x.n; i++) {
        x.rules[i].verdict = x.rows[i].allow ? POLICY_ALLOW : POLICY_DENY;
        r = policy_target_parse(x.rows[i].target, &x.rules[i].target, e);
    }
    if (r < 0) {
        ruleset_done(&x);
        return err_wrap(e, "database: policy of sandbox %s", vm);
    }
    *s = x;
    return 0;
}

int ruleset_store(const struct ruleset *s, struct store *st, const char *vm, struct err *e)
{
    return store_rules_set(st, vm, s->base, s->rows, s->n, e);
}

int ruleset_copy(struct ruleset *dst, const struct ruleset *src, struct err *e)
{
    struct ruleset x = RULESET_INIT;
    int r = set_base(&x, src->base, e);

    if (r == 0)
        r = reserve(&x, src->n, e);
    for (size_t i = 0; r >= 0 && i < src->n; i++) {
        r = append(&x, &src->rules[i], src->rows[i].source, src->rows[i].uid,
                   src->rows[i].added_at, e);
        if (r == 1)
            x.rows[x.n - 1].matches = src->rows[i].matches;
    }
    if (r < 0) {
        ruleset_done(&x);
        return -1;
    }
    *dst = x;
    return 0;
}

int ruleset_text(const struct ruleset *s, char **ret, struct err *e)
{
    autosbuf struct sbuf b = SBUF(POLICY_RULES_MAX * (RULE_TEXT + 1));
    char line[RULE_TEXT];

    sbuf_lit(&b, "");
    for (size_t i = 0; i < s->n; i++) {
        rule_text(&s->rules[i], line);
        sbuf_fmt(&b, "%s\n", line);
    }
    return sbuf_take(&b, ret, e);
}

int ruleset_check_ceiling(const struct policy_rule *r, const struct policy_rule *ceiling, size_t n,
                          struct err *e)
{
    const struct policy p = { .rules = r, .n = 1, .ceiling = ceiling, .n_ceiling = n };
    char target[POLICY_TARGET_TEXT];
    bool below = true;

    if (!ceiling || r->verdict != POLICY_ALLOW)
        return 0;
    if (r->target.kind == POLICY_NAME) {
        below = policy_judge_name(&p, r->target.name).verdict == POLICY_ALLOW;
    } else if (r->target.kind == POLICY_ADDRESS) {
        autofree struct policy_span *world = NULL, *host = NULL;
        size_t n_world = 0, n_host = 0;
        if (policy_compile(&p, false, &world, &n_world, e) < 0 ||
            policy_compile(&p, true, &host, &n_host, e) < 0)
            return -1;
        below = n_world + n_host > 0;
    }
    if (below)
        return 0;
    policy_target_format(&r->target, target);
    err_set(e, ERR_POLICY_CEILING, "'%s' is beyond what the administrator allows here", target);
    return err_hint(e, "\"policy_ceiling\" of daemon.json says what is; "
                       "`sbx policy ls --json NAME` shows it");
}
