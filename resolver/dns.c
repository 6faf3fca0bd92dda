/* SPDX-License-Identifier: MIT
 *
 * Names, and the questions of guests.
 */
#include "resolver/dns.h"
#include "common/auto.h"

#include <ldns/ldns.h>
#include <string.h>

#define JUMPS_MAX 64
#define LABEL_MAX 63

AUTO_DEFINE(pkt, ldns_pkt, ldns_pkt_free)

int dns_name_walk(const uint8_t *data, size_t len, size_t *pos, uint8_t *wire, uint8_t *wire_len)
{
    size_t at = *pos, end = 0, n = 0;
    unsigned jumps = 0;

    for (;;) {
        if (at >= len)
            return -1;
        uint8_t label = data[at];
        if ((label & 0xc0) == 0xc0) {
            if (at + 1 >= len || ++jumps > JUMPS_MAX)
                return -1;
            size_t to = (size_t)(label & 0x3f) << 8 | data[at + 1];
            if (end == 0)
                end = at + 2;
            if (to >= at)
                return -1;
            at = to;
            continue;
        }
        if (label > LABEL_MAX || at + 1 + label > len || n + 1 + label > DNS_NAME_WIRE)
            return -1;
        if (wire)
            memcpy(wire + n, data + at, (size_t)label + 1);
        n += (size_t)label + 1;
        at += (size_t)label + 1;
        if (label == 0)
            break;
    }
    *pos = end ? end : at;
    if (wire_len)
        *wire_len = (uint8_t)n;
    return 0;
}

static bool host_byte(uint8_t c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
}

bool dns_name_text(const uint8_t *wire, size_t len, char *ret)
{
    size_t n = 0;

    if (len < 2 || len > DNS_NAME_WIRE)
        return false;
    for (size_t at = 0; at < len && wire[at] != 0; at += (size_t)wire[at] + 1) {
        if (at > 0)
            ret[n++] = '.';
        for (size_t i = at + 1; i <= at + wire[at]; i++) {
            uint8_t c = wire[i] >= 'A' && wire[i] <= 'Z' ? wire[i] | 0x20 : wire[i];
            if (!host_byte(c))
                return false;
            ret[n++] = (char)c;
        }
    }
    ret[n] = '\0';
    return n > 0;
}

int dns_name_wire(const char *name, uint8_t *wire, uint8_t *wire_len)
{
    size_t n = 0;

    for (const char *p = name;;) {
        size_t label = strcspn(p, ".");
        if (label == 0 || label > LABEL_MAX || n + label + 2 > DNS_NAME_WIRE)
            return -1;
        wire[n] = (uint8_t)label;
        memcpy(wire + n + 1, p, label);
        n += label + 1;
        p += label;
        if (*p == '\0')
            break;
        p++;
    }
    wire[n++] = 0;
    *wire_len = (uint8_t)n;
    return 0;
}

/* The name without pointers, as nothing stands before it that one could lead to. */
static size_t question_end(const uint8_t *data, size_t len)
{
    size_t at = DNS_HEADER;

    while (at < len && data[at] != 0) {
        if (data[at] > LABEL_MAX)
            return 0;
        at += (size_t)data[at] + 1;
    }
    at++;
    return at - DNS_HEADER <= DNS_NAME_WIRE && at + 4 <= len ? at : 0;
}

static int read_edns(const ldns_pkt *pkt, bool tcp, struct dns_question *q)
{
    if (!ldns_pkt_edns(pkt))
        return DNS_FORMERR;     /* an additional record that is none of OPT */
    q->edns = true;
    if (ldns_pkt_edns_version(pkt) != 0)
        return DNS_BADVERS;
    uint16_t size = ldns_pkt_edns_udp_size(pkt);
    if (!tcp && size > q->room)
        q->room = size < DNS_UDP_MAX ? size : DNS_UDP_MAX;
    return DNS_NOERROR;
}

int dns_question_read(const uint8_t *data, size_t len, bool tcp, struct dns_question *ret)
{
    autotype(pkt) ldns_pkt *pkt = NULL;
    size_t end;

    *ret = (struct dns_question){ .room = tcp ? UINT16_MAX : DNS_UDP_PLAIN };
    if (len < DNS_HEADER || (data[2] & 0x80))
        return DNS_SILENCE;
    ret->id = dns_u16(data);
    ret->rd = data[2] & 1;
    if ((data[2] & 0x78) != 0)
        return DNS_NOTIMP;
    if (len > (tcp ? DNS_QUESTION_TCP : DNS_QUESTION_MAX) || dns_u16(data + 4) != 1 ||
        dns_u16(data + 6) != 0 || dns_u16(data + 8) != 0 || dns_u16(data + 10) > 1 ||
        (data[2] & 0x02) || (data[3] & 0x0f))
        return DNS_FORMERR;
    end = question_end(data, len);
    if (end == 0)
        return DNS_FORMERR;
    bool more = dns_u16(data + 10) == 1;
    if (more ? (end + 4 >= len || data[end + 4] != 0) : len != end + 4)
        return DNS_FORMERR;
    if (ldns_wire2pkt(&pkt, data, len) != LDNS_STATUS_OK)
        return DNS_FORMERR;

    ret->wire_len = (uint8_t)(end - DNS_HEADER);
    memcpy(ret->wire, data + DNS_HEADER, ret->wire_len);
    ret->qtype = dns_u16(data + end);
    if (more) {
        int rcode = read_edns(pkt, tcp, ret);
        if (rcode != DNS_NOERROR)
            return rcode;
    }
    if (dns_u16(data + end + 2) != LDNS_RR_CLASS_IN)
        return DNS_NOTIMP;
    if (ret->qtype == 0 || ret->qtype == DNS_OPT)
        return DNS_FORMERR;
    if (ret->qtype >= DNS_META_FIRST && ret->qtype <= DNS_META_LAST)
        return DNS_NOTIMP;
    if (!dns_name_text(ret->wire, ret->wire_len, ret->name))
        return DNS_REFUSED;
    return DNS_NOERROR;
}
