/* SPDX-License-Identifier: MIT
 *
 * wire: what stands in payloads: integers, strings, and the two structures that go to the guest.
 */
#include "common/auto.h"
#include "common/frame.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>

static const uint8_t *get(struct wire_in *w, size_t n)
{
    if (w->bad || w->left < n) {
        w->bad = true;
        return NULL;
    }
    const uint8_t *p = w->p;
    w->p += n;
    w->left -= n;
    return p;
}

uint8_t wire_get_u8(struct wire_in *w)
{
    const uint8_t *p = get(w, 1);

    return p ? p[0] : 0;
}

uint16_t wire_get_u16(struct wire_in *w)
{
    const uint8_t *p = get(w, 2);

    return p ? (uint16_t)(p[0] | p[1] << 8) : 0;
}

uint32_t wire_get_u32(struct wire_in *w)
{
    const uint8_t *p = get(w, 4);
    uint32_t v = 0;

    if (p)
        memcpy(&v, p, sizeof(v));
    return le32toh(v);
}

uint64_t wire_get_u64(struct wire_in *w)
{
    const uint8_t *p = get(w, 8);
    uint64_t v = 0;

    if (p)
        memcpy(&v, p, sizeof(v));
    return le64toh(v);
}

const char *wire_get_str(struct wire_in *w, uint32_t max, uint32_t *ret_len)
{
    uint32_t n = wire_get_u32(w);

    if (n > max)
        w->bad = true;
    const uint8_t *p = get(w, n);
    if (p && memchr(p, 0, n)) {
        w->bad = true;
        p = NULL;
    }
    *ret_len = p ? n : 0;
    return (const char *)p;
}

static void put(struct wire_out *w, const void *data, size_t n)
{
    if (w->bad || w->cap - w->len < n) {
        w->bad = true;
        return;
    }
    memcpy(w->p + w->len, data, n);
    w->len += n;
}

void wire_put_u8(struct wire_out *w, uint8_t v)
{
    put(w, &v, 1);
}

void wire_put_u16(struct wire_out *w, uint16_t v)
{
    v = htole16(v);
    put(w, &v, 2);
}

void wire_put_u32(struct wire_out *w, uint32_t v)
{
    v = htole32(v);
    put(w, &v, 4);
}

void wire_put_u64(struct wire_out *w, uint64_t v)
{
    v = htole64(v);
    put(w, &v, 8);
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

static int finish(const struct wire_out *w, const char *what, size_t *ret_len, struct err *e)
{
    if (w->bad)
        return err_set(e, ERR_TOO_LARGE, "%s is larger than %zu bytes", what, w->cap);
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
    return finish(&w, "the sandbox's environment", ret_len, e);
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
    return finish(&w, "the command", ret_len, e);
}

static char *get_string(struct wire_in *w, uint32_t max)
{
    uint32_t n;
    const char *p = wire_get_str(w, max, &n);
    char *s = p ? strndup(p, n) : NULL;

    if (!s)
        w->bad = true;
    return s;
}

/* The count is checked against what is left before anything is allocated for it: each string takes
 * at least the four bytes of its length. */
static char **get_vector(struct wire_in *w, uint32_t max_items, uint32_t max_bytes)
{
    uint32_t n = wire_get_u32(w);

    if (w->bad || n > max_items || n > w->left / 4) {
        w->bad = true;
        return NULL;
    }
    char **v = calloc((size_t)n + 1, sizeof(*v));
    if (!v) {
        w->bad = true;
        return NULL;
    }
    for (uint32_t i = 0; i < n && !w->bad; i++)
        v[i] = get_string(w, max_bytes);
    return v;
}

static void free_vector(char **v)
{
    for (char **p = v; p && *p; p++)
        free(*p);
    free(v);
}

void guest_config_in_done(struct guest_config_in *c)
{
    free(c->hostname);
    free_vector(c->env);
    *c = (struct guest_config_in){ 0 };
}

void exec_wire_in_done(struct exec_wire_in *x)
{
    free_vector(x->argv);
    free_vector(x->env);
    free(x->workdir);
    free(x->user);
    *x = (struct exec_wire_in){ 0 };
}

int guest_config_decode(const uint8_t *p, size_t len, struct guest_config_in *ret, struct err *e)
{
    struct wire_in w = { .p = p, .left = len };
    struct guest_config_in c = { 0 };

    c.hostname = get_string(&w, LIMIT_NAME);
    c.workspace = wire_get_u8(&w);
    c.realtime_ns = wire_get_u64(&w);
    c.env = get_vector(&w, LIMIT_ENV, LIMIT_ENV_BYTES);
    if (w.bad || w.left || c.workspace > 2) {
        guest_config_in_done(&c);
        return err_set(e, ERR_INVALID, "a configuration that makes no sense");
    }
    *ret = c;
    return 0;
}

int exec_wire_decode(const uint8_t *p, size_t len, struct exec_wire_in *ret, struct err *e)
{
    struct wire_in w = { .p = p, .left = len };
    struct exec_wire_in x = { 0 };

    x.argv = get_vector(&w, LIMIT_ARGV, LIMIT_ARG_BYTES);
    x.env = get_vector(&w, LIMIT_ENV + 16, LIMIT_ENV_BYTES);
    x.workdir = get_string(&w, LIMIT_PATH);
    x.user = get_string(&w, LIMIT_USER);
    x.tty = wire_get_u8(&w);
    x.stdin_open = wire_get_u8(&w);
    x.rows = wire_get_u16(&w);
    x.cols = wire_get_u16(&w);
    x.timeout_ms = wire_get_u64(&w);
    x.credit = wire_get_u64(&w);
    if (w.bad || w.left || !x.argv[0] || !x.argv[0][0] || x.tty > 1 || x.stdin_open > 1) {
        exec_wire_in_done(&x);
        return err_set(e, ERR_INVALID, "a command that makes no sense");
    }
    *ret = x;
    return 0;
}
