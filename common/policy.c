/* SPDX-License-Identifier: MIT
 *
 * policy: parsing and printing of rules. The decision is policy_decide.c.
 *
 * A target is taken apart from its end, since a name may hold neither ':' nor '/': "/tcp", then
 * ":ports", then "/prefix", then name or address.
 */
#include "common/policy.h"
#include "common/auto.h"
#include "common/limits.h"
#include "common/parse.h"

#include <arpa/inet.h>
#include <idn2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LABEL_MAX 63
#define TARGET_MAX 1024             /* of text: a name in UTF-8 may be longer than its A-labels */

/* --- names --- */

static bool is_ascii(const char *s)
{
    for (; *s; s++)
        if ((unsigned char)*s >= 0x80)
            return false;
    return true;
}

static bool has_control(const char *s)
{
    for (; *s; s++)
        if ((unsigned char)*s < 0x21 || *s == 0x7f)
            return true;
    return false;
}

static bool name_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
}

static int check_label(const char *label, size_t len, const char *whole, struct err *e)
{
    if (len == 0)
        return err_set(e, ERR_INVALID, "'%s' has an empty label", whole);
    if (len > LABEL_MAX)
        return err_set(e, ERR_INVALID, "'%s' has a label of more than %d characters", whole,
                       LABEL_MAX);
    if (label[0] == '-' || label[len - 1] == '-')
        return err_set(e, ERR_INVALID, "'%s' has a label that begins or ends with a -", whole);
    for (size_t i = 0; i < len; i++)
        if (!name_char(label[i]))
            return err_set(e, ERR_INVALID, "'%s' is not the name of a host", whole);
    return 0;
}

/* A name that ends in a number is an address to some programs ("0x7f.1", "10.1"), and there are no
 * such top-level domains (RFC 3696 section 2). */
static bool ends_in_number(const char *name)
{
    const char *last = strrchr(name, '.');

    last = last ? last + 1 : name;
    return last[0] >= '0' && last[0] <= '9' &&
           (last[strspn(last, "0123456789")] == '\0' || strncmp(last, "0x", 2) == 0);
}

static int check_labels(const char *name, const char *whole, struct err *e)
{
    autofree uint8_t *again = NULL;

    for (const char *label = name;; ) {
        size_t len = strcspn(label, ".");
        if (check_label(label, len, whole, e) < 0)
            return -1;
        if (label[len] == '\0')
            break;
        label += len + 1;
    }
    if (ends_in_number(name))
        return err_set(e, ERR_INVALID, "'%s' is neither an address nor a name", whole);
    /* Punycode that no name gives could look like another's in a list: there and back again. */
    if (strstr(name, "xn--") &&
        (idn2_lookup_u8((const uint8_t *)name, &again, IDN2_NFC_INPUT | IDN2_NONTRANSITIONAL) !=
             IDN2_OK ||
         strcmp((const char *)again, name) != 0))
        return err_set(e, ERR_INVALID, "'%s' is not valid as an international name", whole);
    return 0;
}

int policy_name_canonical(const char *text, char *ret, struct err *e)
{
    autofree char *ascii = NULL;

    if (text[0] == '\0')
        return err_set(e, ERR_INVALID, "a name is empty");
    if (strlen(text) > TARGET_MAX)
        return err_set(e, ERR_INVALID, "a name is too long");
    if (has_control(text))
        return err_set(e, ERR_INVALID, "'%s' holds a blank or control character", text);
    if (!is_ascii(text)) {
        int r = idn2_to_ascii_8z(text, &ascii, IDN2_NFC_INPUT | IDN2_NONTRANSITIONAL);
        if (r != IDN2_OK)
            return err_set(e, ERR_INVALID, "'%s' is not an international name: %s", text,
                           idn2_strerror(r));
    }
    const char *from = ascii ? ascii : text;
    size_t len = strlen(from);
    if (len > 1 && from[len - 1] == '.')
        len--;
    if (len > POLICY_NAME_MAX)
        return err_set(e, ERR_INVALID, "a name has more than %d characters", POLICY_NAME_MAX);
    for (size_t i = 0; i < len; i++)
        ret[i] = from[i] >= 'A' && from[i] <= 'Z' ? (char)(from[i] - 'A' + 'a') : from[i];
    ret[len] = '\0';
    return check_labels(ret, text, e);
}

static int parse_name(const char *text, struct policy_target *t, struct err *e)
{
    const char *zone = text;

    t->kind = POLICY_NAME;
    if (strcmp(text, "*") == 0 || strcmp(text, "**") == 0) {
        err_set(e, ERR_INVALID, "'%s' would be everything", text);
        return err_hint(e, "the preset 'open' is for that");
    }
    if (strncmp(text, "**.", 3) == 0) {
        t->kind = POLICY_SUBTREE;
        zone = text + 3;
    } else if (strncmp(text, "*.", 2) == 0) {
        t->kind = POLICY_ONE_LABEL;
        zone = text + 2;
    }
    if (strchr(zone, '*')) {
        err_set(e, ERR_INVALID, "'%s': a * stands for whole labels at the beginning", text);
        return err_hint(e, "as in *.example.com or **.example.com");
    }
    if (policy_name_canonical(zone, t->name, e) < 0)
        return -1;
    if (t->kind != POLICY_NAME && !strchr(t->name, '.')) {
        err_set(e, ERR_INVALID, "'%s' would be a whole top-level domain", text);
        return err_hint(e, "name the domain, as in *.example.%s", t->name);
    }
    if (t->kind != POLICY_NAME && strlen(t->name) + 2 > POLICY_NAME_MAX)
        return err_set(e, ERR_INVALID, "no name below '%s' is short enough", t->name);
    return 0;
}

/* --- addresses, ports, protocols --- */

static uint32_t mask_of(uint8_t prefix)
{
    return prefix == 0 ? 0 : UINT32_MAX << (32 - prefix);
}

static void format_address(uint32_t address, char *buf)
{
    struct in_addr a = { .s_addr = htonl(address) };

    if (!inet_ntop(AF_INET, &a, buf, INET_ADDRSTRLEN))
        buf[0] = '\0';
}

static int parse_address(const char *text, struct in_addr a, const char *prefix,
                         struct policy_target *t, struct err *e)
{
    uint32_t bits = 32;
    char net[INET_ADDRSTRLEN];

    if (prefix && !parse_u32(prefix, 0, 32, &bits))
        return err_set(e, ERR_INVALID, "'/%s' is not a prefix from /0 to /32", prefix);
    t->kind = POLICY_ADDRESS;
    t->prefix = (uint8_t)bits;
    t->address = ntohl(a.s_addr) & mask_of(t->prefix);
    if (t->address == ntohl(a.s_addr))
        return 0;
    format_address(t->address, net);
    err_set(e, ERR_INVALID, "'%s/%u' has bits beyond its prefix", text, bits);
    return err_hint(e, "is it %s/%u, or %s alone?", net, bits, text);
}

static int parse_ports(const char *text, struct policy_target *t, struct err *e)
{
    char low[8];
    uint32_t lo = 0, hi = 0;
    size_t n = strcspn(text, "-");

    if (n < sizeof(low)) {
        memcpy(low, text, n);
        low[n] = '\0';
        if (parse_u32(low, 1, 65535, &lo) &&
            (text[n] == '\0' || parse_u32(text + n + 1, 1, 65535, &hi))) {
            t->port_lo = (uint16_t)lo;
            t->port_hi = (uint16_t)(text[n] ? hi : lo);
            if (t->port_lo <= t->port_hi)
                return 0;
            return err_set(e, ERR_INVALID, "ports '%s' run backwards", text);
        }
    }
    return err_set(e, ERR_INVALID, "'%s' is not a port or range of ports from 1 to 65535", text);
}

/* Cuts "/tcp" or "/udp" off; another word is an error, a number is a prefix and stays. */
static int cut_proto(char *text, struct policy_target *t, struct err *e)
{
    char *slash = strrchr(text, '/');

    if (!slash || (slash[1] >= '0' && slash[1] <= '9'))
        return 0;
    if (strcmp(slash + 1, "tcp") == 0)
        t->protos = POLICY_TCP;
    else if (strcmp(slash + 1, "udp") == 0)
        t->protos = POLICY_UDP;
    else
        return err_set(e, ERR_INVALID, "'%s' is not a protocol: tcp or udp", slash + 1);
    *slash = '\0';
    return 0;
}

static bool looks_like_ipv6(const char *text)
{
    struct in6_addr six;
    const char *colon = strchr(text, ':');

    return text[0] == '[' || (colon && strchr(colon + 1, ':')) ||
           inet_pton(AF_INET6, text, &six) == 1;
}

int policy_target_parse(const char *text, struct policy_target *ret, struct err *e)
{
    struct policy_target t = { .port_lo = 0, .port_hi = UINT16_MAX };
    char buf[TARGET_MAX + 1];
    struct in_addr a;

    if (text[0] == '\0')
        return err_set(e, ERR_INVALID, "a target is empty");
    if (strlen(text) > TARGET_MAX)
        return err_set(e, ERR_INVALID, "a target is too long");
    if (strstr(text, "://")) {
        err_set(e, ERR_INVALID, "'%s' is a URL", text);
        return err_hint(e, "a rule names a host, as in example.com:443");
    }
    if (looks_like_ipv6(text)) {
        err_set(e, ERR_INVALID, "'%s' looks like IPv6", text);
        return err_hint(e, "sandboxes have IPv4 only, and no IPv6 leaves them");
    }
    memcpy(buf, text, strlen(text) + 1);
    if (cut_proto(buf, &t, e) < 0)
        return -1;
    char *colon = strchr(buf, ':');
    if (colon) {
        *colon = '\0';
        if (parse_ports(colon + 1, &t, e) < 0)
            return -1;
    }
    char *slash = strchr(buf, '/');
    if (slash)
        *slash = '\0';
    if (inet_pton(AF_INET, buf, &a) == 1) {
        if (parse_address(buf, a, slash ? slash + 1 : NULL, &t, e) < 0)
            return -1;
    } else if (slash) {
        return err_set(e, ERR_INVALID, "'%s' is not an address, so it has no prefix", buf);
    } else if (parse_name(buf, &t, e) < 0) {
        return -1;
    }
    *ret = t;
    return 0;
}

void policy_target_format(const struct policy_target *t, char *buf)
{
    static const char *const wild[] = { [POLICY_NAME] = "", [POLICY_ONE_LABEL] = "*.",
                                        [POLICY_SUBTREE] = "**.", [POLICY_ADDRESS] = "" };
    _Static_assert(ARRAY_SIZE(wild) == POLICY_ADDRESS + 1, "a text for each kind");
    char host[POLICY_NAME_MAX + 1], ports[16] = "";
    const char *proto = t->protos == POLICY_TCP ? "/tcp" : t->protos == POLICY_UDP ? "/udp" : "";

    if (t->kind == POLICY_ADDRESS) {
        char net[INET_ADDRSTRLEN];
        format_address(t->address, net);
        if (t->prefix == 32)
            snprintf(host, sizeof(host), "%s", net);
        else
            snprintf(host, sizeof(host), "%s/%u", net, t->prefix);
    } else {
        snprintf(host, sizeof(host), "%s", t->name);
    }
    if (t->port_lo == t->port_hi)
        snprintf(ports, sizeof(ports), ":%u", t->port_lo);
    else if (t->port_lo != 0 || t->port_hi != UINT16_MAX)
        snprintf(ports, sizeof(ports), ":%u-%u", t->port_lo, t->port_hi);
    snprintf(buf, POLICY_TARGET_TEXT, "%s%s%s%s", wild[t->kind], host, ports, proto);
}

/* --- files --- */

static int parse_rule(char *line, struct policy_rule *ret, struct err *e)
{
    static const char blank[] = " \t\r";
    char *word = line + strspn(line, blank);
    size_t n = strcspn(word, blank);
    char *target = word + n + strspn(word + n, blank);
    size_t len = strcspn(target, blank);

    if (n == 5 && memcmp(word, "allow", n) == 0)
        ret->verdict = POLICY_ALLOW;
    else if (n == 4 && memcmp(word, "deny", n) == 0)
        ret->verdict = POLICY_DENY;
    else
        return err_set(e, ERR_INVALID, "'%.*s' is neither allow nor deny", (int)n, word);
    if (len == 0)
        return err_set(e, ERR_INVALID, "there is nothing after %.*s", (int)n, word);
    if (target[len + strspn(target + len, blank)] != '\0')
        return err_set(e, ERR_INVALID, "there is more than one target");
    target[len] = '\0';
    return policy_target_parse(target, &ret->target, e);
}

int policy_rules_parse(const char *text, size_t len, struct policy_rule **ret, size_t *ret_n,
                       struct err *e)
{
    autofree struct policy_rule *rules = NULL;
    size_t n = 0, room = 0;
    unsigned number = 0;

    if (len > POLICY_TEXT_MAX)
        return err_set(e, ERR_TOO_LARGE, "a policy has more than %d KiB", POLICY_TEXT_MAX / 1024);
    if (memchr(text, '\0', len))
        return err_set(e, ERR_INVALID, "a policy holds a NUL byte");
    for (size_t at = 0; at < len; ) {
        const char *end = memchr(text + at, '\n', len - at);
        size_t line_len = end ? (size_t)(end - text) - at : len - at;
        autofree char *line = strndup(text + at, line_len);
        number++;
        at += line_len + 1;
        if (!line)
            return err_nomem(e);
        line[strcspn(line, "#")] = '\0';
        if (line[strspn(line, " \t\r")] == '\0')
            continue;
        if (n == POLICY_RULES_MAX)
            return err_set(e, ERR_INVALID, "line %u: more than %d rules", number,
                           POLICY_RULES_MAX);
        if (n == room) {
            room = room ? 2 * room : 16;
            struct policy_rule *more = reallocarray(rules, room, sizeof(*more));
            if (!more)
                return err_nomem(e);
            rules = more;
        }
        if (parse_rule(line, &rules[n], e) < 0)
            return err_wrap(e, "line %u", number);
        n++;
    }
    *ret = take_ptr(rules);
    *ret_n = n;
    return 0;
}
