/* SPDX-License-Identifier: MIT
 *
 * wire: what stands in payloads: integers, strings, and the structures that go to the guest.
 */
#include "common/frame.h"

#include <stdlib.h>
#include <string.h>

/* The next n bytes, or NULL for good. */
static const uint8_t *take(struct wire_in *w, size_t n)
{
    const uint8_t *p = w->p;

    if (w->bad || n > w->left) {
        w->bad = true;
        return NULL;
    }
    w->p += n;
    w->left -= n;
    return p;
}

static uint64_t get_int(struct wire_in *w, size_t n)
{
    const uint8_t *p = take(w, n);
    uint64_t v = 0;

    for (size_t i = 0; p && i < n; i++)
        v |= (uint64_t)p[i] << (8 * i);
    return v;
}

uint8_t wire_get_u8(struct wire_in *w)
{
    return (uint8_t)get_int(w, 1);
}

uint16_t wire_get_u16(struct wire_in *w)
{
    return (uint16_t)get_int(w, 2);
}

uint32_t wire_get_u32(struct wire_in *w)
{
    return (uint32_t)get_int(w, 4);
}

uint64_t wire_get_u64(struct wire_in *w)
{
    return get_int(w, 8);
}

const char *wire_get_str(struct wire_in *w, uint32_t max, uint32_t *ret_len)
{
    uint32_t len = wire_get_u32(w);
    const uint8_t *p = len <= max ? take(w, len) : NULL;

    *ret_len = 0;
    if (!p || (len > 0 && memchr(p, '\0', len))) {
        w->bad = true;
        return NULL;
    }
    *ret_len = len;
    return (const char *)p;
}

static void put(struct wire_out *w, const void *data, size_t n)
{
    if (w->bad || n > w->cap - w->len) {
        w->bad = true;
        return;
    }
    if (n > 0)
        memcpy(w->p + w->len, data, n);
    w->len += n;
}

static void put_int(struct wire_out *w, uint64_t v, size_t n)
{
    uint8_t b[8];

    for (size_t i = 0; i < n; i++)
        b[i] = (uint8_t)(v >> (8 * i));
    put(w, b, n);
}

void wire_put_u8(struct wire_out *w, uint8_t v)
{
    put_int(w, v, 1);
}

void wire_put_u16(struct wire_out *w, uint16_t v)
{
    put_int(w, v, 2);
}

void wire_put_u32(struct wire_out *w, uint32_t v)
{
    put_int(w, v, 4);
}

void wire_put_u64(struct wire_out *w, uint64_t v)
{
    put_int(w, v, 8);
}

void wire_put_str(struct wire_out *w, const char *s)
{
    size_t n = strlen(s);

    if (n > UINT32_MAX) {
        w->bad = true;
        return;
    }
    wire_put_u32(w, (uint32_t)n);
    put(w, s, n);
}

static void put_vector(struct wire_out *w, const char *const *v)
{
    uint32_t n = 0;

    while (v && v[n])
        n++;
    wire_put_u32(w, n);
    for (uint32_t i = 0; i < n; i++)
        wire_put_str(w, v[i]);
}

static int put_end(const struct wire_out *w, const char *what, size_t *ret_len, struct err *e)
{
    if (w->bad)
        return err_set(e, ERR_TOO_LARGE, "%s is longer than %zu bytes", what, w->cap);
    *ret_len = w->len;
    return 0;
}

int guest_config_encode(const struct guest_config *c, uint8_t *buf, size_t cap, size_t *ret_len,
                        struct err *e)
{
    struct wire_out w = { .p = buf, .cap = cap };

    wire_put_str(&w, c->hostname);
    wire_put_u8(&w, c->workspace);
    wire_put_u64(&w, c->realtime_ns);
    put_vector(&w, c->env);
    return put_end(&w, "the sandbox's environment", ret_len, e);
}

int exec_wire_encode(const struct exec_wire *x, uint8_t *buf, size_t cap, size_t *ret_len,
                     struct err *e)
{
    struct wire_out w = { .p = buf, .cap = cap };

    put_vector(&w, x->argv);
    put_vector(&w, x->env);
    wire_put_str(&w, x->workdir ? x->workdir : "");
    wire_put_str(&w, x->user ? x->user : "");
    wire_put_u8(&w, x->tty);
    wire_put_u8(&w, x->stdin_open);
    wire_put_u16(&w, x->rows);
    wire_put_u16(&w, x->cols);
    wire_put_u64(&w, x->timeout_ms);
    wire_put_u64(&w, x->credit);
    if (!w.bad && w.len > LIMIT_EXEC_BYTES)
        w.bad = true;
    return put_end(&w, "the command", ret_len, e);
}

static void free_vector(char **v)
{
    for (size_t i = 0; v && v[i]; i++)
        free(v[i]);
    free(v);
}

/* NULL with *ret_nomem set, or with w->bad. */
static char *get_string(struct wire_in *w, uint32_t max, bool *ret_nomem)
{
    uint32_t len;
    const char *p = wire_get_str(w, max, &len);
    char *s;

    if (!p)
        return NULL;
    s = malloc((size_t)len + 1);
    if (!s) {
        *ret_nomem = true;
        return NULL;
    }
    memcpy(s, p, len);
    s[len] = '\0';
    return s;
}

static char **get_vector(struct wire_in *w, uint32_t max_items, uint32_t max_bytes, bool *ret_nomem)
{
    uint32_t n = wire_get_u32(w);
    char **v;

    /* each needs four bytes at least: a count alone makes nobody allocate */
    if (w->bad || n > max_items || n > w->left / 4) {
        w->bad = true;
        return NULL;
    }
    v = calloc((size_t)n + 1, sizeof(*v));
    if (!v) {
        *ret_nomem = true;
        return NULL;
    }
    for (uint32_t i = 0; i < n; i++) {
        v[i] = get_string(w, max_bytes, ret_nomem);
        if (!v[i]) {
            free_vector(v);
            return NULL;
        }
    }
    return v;
}

static bool env_ok(char *const *env)
{
    for (; *env; env++) {
        const char *eq = strchr(*env, '=');

        if (!eq || eq == *env)
            return false;
    }
    return true;
}

void guest_config_in_done(struct guest_config_in *c)
{
    free(c->hostname);
    free_vector(c->env);
    *c = (struct guest_config_in){ 0 };
}

int guest_config_decode(const uint8_t *p, size_t len, struct guest_config_in *ret, struct err *e)
{
    struct wire_in w = { .p = p, .left = len };
    struct guest_config_in c = { 0 };
    bool nomem = false;

    c.hostname = get_string(&w, LIMIT_NAME, &nomem);
    c.workspace = wire_get_u8(&w);
    c.realtime_ns = wire_get_u64(&w);
    if (c.hostname)
        c.env = get_vector(&w, LIMIT_ENV, LIMIT_ENV_BYTES, &nomem);
    if (!c.env || w.bad || w.left > 0 || c.workspace > 2 || !env_ok(c.env)) {
        guest_config_in_done(&c);
        return nomem ? err_nomem(e) : err_set(e, ERR_INVALID, "a configuration without sense");
    }
    *ret = c;
    return 0;
}

void exec_wire_in_done(struct exec_wire_in *x)
{
    free_vector(x->argv);
    free_vector(x->env);
    free(x->workdir);
    free(x->user);
    *x = (struct exec_wire_in){ 0 };
}

static bool exec_ok(const struct exec_wire_in *x)
{
    return x->argv[0] && x->argv[0][0] != '\0' && env_ok(x->env) && x->tty <= 1 &&
           x->stdin_open <= 1 && x->timeout_ms <= LIMIT_EXEC_TIMEOUT;
}

int exec_wire_decode(const uint8_t *p, size_t len, struct exec_wire_in *ret, struct err *e)
{
    struct wire_in w = { .p = p, .left = len };
    struct exec_wire_in x = { 0 };
    bool nomem = false;

    x.argv = get_vector(&w, LIMIT_ARGV, LIMIT_ARG_BYTES, &nomem);
    if (x.argv)     /* and room for what the client adds by itself, such as TERM */
        x.env = get_vector(&w, LIMIT_ENV + 16, LIMIT_ENV_BYTES, &nomem);
    if (x.env)
        x.workdir = get_string(&w, LIMIT_PATH, &nomem);
    if (x.workdir)
        x.user = get_string(&w, LIMIT_USER, &nomem);
    x.tty = wire_get_u8(&w);
    x.stdin_open = wire_get_u8(&w);
    x.rows = wire_get_u16(&w);
    x.cols = wire_get_u16(&w);
    x.timeout_ms = wire_get_u64(&w);
    x.credit = wire_get_u64(&w);
    if (!x.user || w.bad || w.left > 0 || !exec_ok(&x)) {
        exec_wire_in_done(&x);
        return nomem ? err_nomem(e) : err_set(e, ERR_INVALID, "a command without sense");
    }
    *ret = x;
    return 0;
}

size_t guest_net_encode(const struct guest_net *n, uint8_t *buf, size_t cap)
{
    struct wire_out w = { .p = buf, .cap = cap };

    put(&w, n->mac, sizeof(n->mac));
    put(&w, n->gateway_mac, sizeof(n->gateway_mac));
    wire_put_u32(&w, n->address);
    wire_put_u32(&w, n->gateway);
    wire_put_u32(&w, n->resolver);
    wire_put_u16(&w, n->mtu);
    return w.bad ? 0 : w.len;
}

static bool is_unicast_mac(const uint8_t mac[6])
{
    static const uint8_t none[6];

    return !(mac[0] & 1) && memcmp(mac, none, sizeof(none)) != 0;
}

static bool is_host_address(uint32_t a)
{
    return a >> 24 != 0 && a >> 24 != 127 && a >> 28 < 0xe;
}

int guest_net_decode(const uint8_t *p, size_t len, struct guest_net *ret, struct err *e)
{
    struct wire_in w = { .p = p, .left = len };
    struct guest_net n = { 0 };
    const uint8_t *mac = take(&w, sizeof(n.mac)), *gateway = take(&w, sizeof(n.gateway_mac));

    n.address = wire_get_u32(&w);
    n.gateway = wire_get_u32(&w);
    n.resolver = wire_get_u32(&w);
    n.mtu = wire_get_u16(&w);
    if (w.bad || !is_unicast_mac(mac) || !is_unicast_mac(gateway) || !is_host_address(n.address) ||
        !is_host_address(n.gateway) || n.address == n.gateway || n.mtu < 576 ||
        (n.resolver && !is_host_address(n.resolver)))
        return err_set(e, ERR_INVALID, "a network without sense");
    memcpy(n.mac, mac, sizeof(n.mac));
    memcpy(n.gateway_mac, gateway, sizeof(n.gateway_mac));
    *ret = n;
    return 0;
}
