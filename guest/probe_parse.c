/* SPDX-License-Identifier: MIT
 *
 * One line of the list: a flat JSON object of strings and whole numbers. Written here, as the agent
 * is linked with nothing but libc; it takes the part of JSON that such a line needs and refuses the
 * rest.
 */
#include "guest/probe.h"
#include "common/parse.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

struct value {
    bool is_number;
    char text[PROBE_NAME + 1];
};

static const struct { const char *name; unsigned needs; } kinds[PROBE_KIND_MAX] = {
#define PROBE_ROW(constant, name, needs) [constant] = { name, needs },
    PROBE_KINDS(PROBE_ROW)
#undef PROBE_ROW
};

const char *probe_kind_name(enum probe_kind k)
{
    return (unsigned)k < PROBE_KIND_MAX ? kinds[k].name : "unknown";
}

static void skip(const char **p)
{
    while (**p == ' ' || **p == '\t' || **p == '\r')
        (*p)++;
}

/* No escapes but those of '"', '\\' and '/', and printable ASCII only: names and addresses. */
static bool take_string(const char **p, char *ret, size_t cap)
{
    size_t n = 0;

    if (*(*p)++ != '"')
        return false;
    for (; **p != '"'; (*p)++) {
        if (**p == '\\' && strchr("\"\\/", (*p)[1]) && (*p)[1])
            (*p)++;
        else if (**p == '\\')
            return false;
        if (**p < ' ' || **p > '~' || n + 1 >= cap)     /* also the end of the line */
            return false;
        ret[n++] = **p;
    }
    (*p)++;
    ret[n] = '\0';
    return true;
}

static bool take_value(const char **p, struct value *ret)
{
    size_t n;

    ret->is_number = **p != '"';
    if (!ret->is_number)
        return take_string(p, ret->text, sizeof(ret->text));
    n = strspn(*p, "0123456789");
    if (n == 0 || n > 10 || (n > 1 && **p == '0'))
        return false;
    memcpy(ret->text, *p, n);
    ret->text[n] = '\0';
    *p += n;
    return true;
}

static bool number(const struct value *v, uint32_t min, uint32_t max, uint32_t *ret)
{
    return v->is_number && parse_u32(v->text, min, max, ret);
}

static bool number16(const struct value *v, uint16_t min, uint16_t max, uint16_t *ret)
{
    uint32_t n;

    if (!number(v, min, max, &n))
        return false;
    *ret = (uint16_t)n;
    return true;
}

static bool address(const struct value *v, uint32_t *ret)
{
    struct in_addr a;

    if (v->is_number || inet_pton(AF_INET, v->text, &a) != 1)
        return false;
    *ret = ntohl(a.s_addr);
    return true;
}

static int hex(char c)
{
    const char *digits = "0123456789abcdef", *at = c ? strchr(digits, c) : NULL;

    return at ? (int)(at - digits) : -1;
}

static bool mac(const struct value *v, uint8_t ret[6])
{
    if (v->is_number || strlen(v->text) != 17)
        return false;
    for (size_t i = 0; i < 6; i++) {
        int high = hex(v->text[3 * i]), low = hex(v->text[3 * i + 1]);

        if (high < 0 || low < 0 || (i < 5 && v->text[3 * i + 2] != ':'))
            return false;
        ret[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

/* --- members --- */

static bool m_id(const struct value *v, struct probe *p)
{
    return number(v, 0, UINT32_MAX, &p->id);
}

static bool m_kind(const struct value *v, struct probe *p)
{
    for (unsigned i = 0; i < PROBE_KIND_MAX && !v->is_number; i++) {
        if (strcmp(v->text, kinds[i].name) == 0) {
            p->kind = (enum probe_kind)i;
            return true;
        }
    }
    return false;
}

static bool m_address(const struct value *v, struct probe *p)
{
    return address(v, &p->address);
}

static bool m_source(const struct value *v, struct probe *p)
{
    return address(v, &p->source);
}

static bool m_port(const struct value *v, struct probe *p)
{
    return number16(v, 1, 65535, &p->port);
}

static bool m_name(const struct value *v, struct probe *p)
{
    if (v->is_number || !v->text[0])
        return false;
    memcpy(p->name, v->text, sizeof(p->name));
    return true;
}

static bool m_protocol(const struct value *v, struct probe *p)
{
    uint16_t n;

    if (!number16(v, 1, 254, &n))
        return false;
    p->protocol = (uint8_t)n;
    return true;
}

static bool m_mac(const struct value *v, struct probe *p)
{
    return mac(v, p->mac);
}

static bool m_vlan(const struct value *v, struct probe *p)
{
    return number16(v, 0, 4095, &p->vlan);
}

static bool m_ethertype(const struct value *v, struct probe *p)
{
    return number16(v, 0x600, 0xffff, &p->ethertype);
}

static bool m_transport(const struct value *v, struct probe *p)
{
    p->tcp = strcmp(v->text, "tcp") == 0;
    return p->tcp || strcmp(v->text, "udp") == 0;
}

static bool m_qtype(const struct value *v, struct probe *p)
{
    return number16(v, 1, 65535, &p->qtype);
}

static bool m_size(const struct value *v, struct probe *p)
{
    return number16(v, 0, PROBE_PAYLOAD, &p->size);
}

static bool m_timeout(const struct value *v, struct probe *p)
{
    return number(v, 10, PROBE_MS_MAX, &p->timeout_ms);
}

static const struct {
    const char *name;
    unsigned given;
    bool (*take)(const struct value *v, struct probe *p);
} members[] = {
    { "id", 0, m_id },
    { "kind", 0, m_kind },
    { "address", PN_ADDRESS, m_address },
    { "port", PN_PORT, m_port },
    { "name", PN_NAME, m_name },
    { "protocol", PN_PROTOCOL, m_protocol },
    { "source", PN_SOURCE, m_source },
    { "mac", PN_MAC, m_mac },
    { "vlan", PN_VLAN, m_vlan },
    { "ethertype", PN_ETHERTYPE, m_ethertype },
    { "transport", 0, m_transport },
    { "qtype", 0, m_qtype },
    { "size", 0, m_size },
    { "timeout_ms", 0, m_timeout },
};

static int take_member(const char **at, struct probe *p, struct err *e)
{
    char key[32];
    struct value v;

    skip(at);
    if (!take_string(at, key, sizeof(key)))
        return err_set(e, ERR_INVALID, "not a flat JSON object");
    skip(at);
    if (*(*at)++ != ':')
        return err_set(e, ERR_INVALID, "not a flat JSON object");
    skip(at);
    if (!take_value(at, &v))
        return err_set(e, ERR_INVALID, "'%s' is no plain string or number", key);
    skip(at);
    for (size_t i = 0; i < sizeof(members) / sizeof(members[0]); i++) {
        if (strcmp(members[i].name, key) != 0)
            continue;
        p->given |= members[i].given;
        return members[i].take(&v, p) ? 0 : err_set(e, ERR_INVALID, "'%s' makes no sense", key);
    }
    return err_set(e, ERR_INVALID, "'%s' is not known", key);
}

int probe_parse(const char *line, struct probe *ret, struct err *e)
{
    const char *at = line;

    *ret = (struct probe){ .kind = PROBE_KIND_MAX, .timeout_ms = PROBE_MS, .qtype = 1 };
    skip(&at);
    if (*at++ != '{')
        return err_set(e, ERR_INVALID, "not a flat JSON object");
    do {
        if (take_member(&at, ret, e) < 0)
            return -1;
    } while (*at++ == ',');
    if (at[-1] != '}')
        return err_set(e, ERR_INVALID, "not a flat JSON object");
    skip(&at);
    if (*at)
        return err_set(e, ERR_INVALID, "something follows the object");
    if (ret->kind == PROBE_KIND_MAX)
        return err_set(e, ERR_INVALID, "no kind is given");
    if (kinds[ret->kind].needs & ~ret->given)
        return err_set(e, ERR_INVALID, "'%s' needs more to be given", kinds[ret->kind].name);
    return 0;
}
