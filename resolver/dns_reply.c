/* SPDX-License-Identifier: MIT
 *
 * Questions to upstreams, and what they reply. Of a reply only the answer section counts, and of
 * that only what belongs to the name asked for or to where its CNAMEs lead: nothing an upstream
 * adds about other names is looked at.
 */
#include "resolver/dns.h"
#include "common/auto.h"

#include <arpa/inet.h>
#include <ldns/ldns.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define RECORDS_READ 256        /* of one reply; further ones are not looked at */

AUTO_DEFINE(rr, ldns_rr, ldns_rr_free)

int dns_query_make(struct dns_query *q, const char *name, uint16_t qtype, const uint8_t *random)
{
    q->id = dns_u16(random);
    q->qtype = qtype;
    if (dns_name_wire(name, q->wire, &q->wire_len) < 0)
        return -1;
    for (size_t i = 0; i < q->wire_len; i++)    /* bytes of length are below 'a' */
        if (q->wire[i] >= 'a' && q->wire[i] <= 'z' && (random[2 + i / 8] >> (i % 8) & 1))
            q->wire[i] ^= 0x20;
    return 0;
}

size_t dns_query_write(const struct dns_query *q, uint8_t *buf)
{
    const uint8_t head[DNS_HEADER] = { (uint8_t)(q->id >> 8), (uint8_t)q->id, 1, 0, 0, 1, 0, 0,
                                       0, 0, 0, q->plain ? 0 : 1 };
    const uint8_t tail[] = { (uint8_t)(q->qtype >> 8), (uint8_t)q->qtype, 0, LDNS_RR_CLASS_IN };
    const uint8_t opt[] = { 0, 0, DNS_OPT, DNS_UDP_MAX >> 8, DNS_UDP_MAX & 0xff, 0, 0, 0, 0, 0, 0 };
    size_t n = 0;

    memcpy(buf, head, sizeof(head));
    n += sizeof(head);
    memcpy(buf + n, q->wire, q->wire_len);
    n += q->wire_len;
    memcpy(buf + n, tail, sizeof(tail));
    n += sizeof(tail);
    if (!q->plain) {
        memcpy(buf + n, opt, sizeof(opt));
        n += sizeof(opt);
    }
    return n;
}

/* --- reading --- */

struct reader {
    const uint8_t *data;
    size_t len, at;
    unsigned n_read;
};

struct found {
    size_t start;           /* of the record */
    size_t rdata, rdlen;
    uint16_t type, class;
    uint32_t ttl;
    bool named;             /* the owner is a name in our form */
    char owner[RESOLVE_NAME];
};

/* 1, 0 for something that is no record. */
static int next_record(struct reader *r, struct found *f)
{
    uint8_t wire[DNS_NAME_WIRE], wire_len;
    size_t at = r->at;

    if (++r->n_read > RECORDS_READ || dns_name_walk(r->data, r->len, &at, wire, &wire_len) < 0 ||
        r->len - at < 10)
        return 0;
    const uint8_t *p = r->data + at;
    f->start = r->at;
    f->type = dns_u16(p);
    f->class = dns_u16(p + 2);
    f->ttl = (uint32_t)dns_u16(p + 4) << 16 | dns_u16(p + 6);
    if (f->ttl > INT32_MAX)     /* RFC 2181 8 */
        f->ttl = 0;
    f->rdlen = dns_u16(p + 8);
    f->rdata = at + 10;
    if (r->len - f->rdata < f->rdlen)
        return 0;
    f->named = dns_name_text(wire, wire_len, f->owner);
    r->at = f->rdata + f->rdlen;
    return 1;
}

/* The name at an offset of the record's data, which has to end within it. */
static bool rdata_name(const struct reader *r, const struct found *f, size_t offset, uint8_t *wire,
                       uint8_t *wire_len)
{
    size_t at = f->rdata + offset;

    return offset < f->rdlen && dns_name_walk(r->data, r->len, &at, wire, wire_len) == 0 &&
           at <= f->rdata + f->rdlen;
}

/* The record as ldns reads it; names within were walked before, so that it ends. */
static ldns_rr *read_record(const struct reader *r, const struct found *f)
{
    ldns_rr *rr = NULL;
    size_t at = f->start;

    if (f->type == DNS_MX && !rdata_name(r, f, 2, NULL, NULL))
        return NULL;
    if (f->type == DNS_SRV && !rdata_name(r, f, 6, NULL, NULL))
        return NULL;
    if (ldns_wire2rr(&rr, r->data, r->len, &at, LDNS_SECTION_ANSWER) != LDNS_STATUS_OK)
        return NULL;
    return rr;
}

static void less(uint32_t *ttl, uint32_t than)
{
    if (than < *ttl)
        *ttl = than;
    if (*ttl < DNS_TTL_MIN)
        *ttl = DNS_TTL_MIN;
}

/* --- what it says --- */

/* 1 an alias, 0 none, -1 a loop, too many, or no name of ours. */
static int follow_alias(struct reader r, unsigned n, const char *name, struct dns_answer *a)
{
    const char *end = dns_answer_end(a, name);

    for (struct found f; n > 0 && next_record(&r, &f); n--) {
        uint8_t wire[DNS_NAME_WIRE], wire_len;
        char target[RESOLVE_NAME];

        if (f.type != DNS_CNAME || f.class != LDNS_RR_CLASS_IN || !f.named ||
            strcmp(f.owner, end) != 0)
            continue;
        if (a->n_aliases == RESOLVE_ALIASES || !rdata_name(&r, &f, 0, wire, &wire_len) ||
            !dns_name_text(wire, wire_len, target) || strcmp(target, name) == 0)
            return -1;
        for (uint32_t i = 0; i < a->n_aliases; i++)
            if (strcmp(target, a->aliases[i]) == 0)
                return -1;
        a->aliases[a->n_aliases] = strdup(target);
        if (!a->aliases[a->n_aliases])
            return -1;
        a->bytes += strlen(target) + 1;
        a->n_aliases++;
        less(&a->ttl, f.ttl);
        return 1;
    }
    return 0;
}

static void add_address(struct dns_answer *a, const uint8_t *p)
{
    uint32_t address = (uint32_t)dns_u16(p) << 16 | dns_u16(p + 2);

    for (uint32_t i = 0; i < a->n_addresses; i++)
        if (a->addresses[i] == address)
            return;
    if (a->n_addresses < RESOLVE_ADDRESSES)
        a->addresses[a->n_addresses++] = address;
}

static int add_record(struct dns_answer *a, const struct reader *r, const struct found *f,
                      size_t *bytes)
{
    if (!a->records)
        a->records = ldns_rr_list_new();
    if (!a->records)
        return -1;
    if (ldns_rr_list_rr_count(a->records) >= DNS_RECORDS || *bytes + f->rdlen > DNS_RECORD_BYTES)
        return 0;
    autotype(rr) ldns_rr *rr = read_record(r, f);
    if (!rr || !ldns_rr_list_push_rr(a->records, rr))
        return -1;
    rr = NULL;
    *bytes += f->rdlen;
    a->bytes += sizeof(ldns_rr) + 300 + 2 * f->rdlen;   /* with what malloc and ldns add */
    return 0;
}

/* 1 something, 0 nothing, -1 unreadable. */
static int collect(struct reader r, unsigned n, const char *end, uint16_t qtype,
                   struct dns_answer *a)
{
    size_t bytes = 0;

    for (struct found f; n > 0; n--) {
        if (!next_record(&r, &f))
            return r.n_read > RECORDS_READ ? !dns_answer_negative(a) : -1;
        if (f.type != qtype || f.class != LDNS_RR_CLASS_IN || !f.named ||
            strcmp(f.owner, end) != 0)
            continue;
        if (qtype == DNS_A && f.rdlen != 4)
            return -1;
        if (qtype == DNS_A)
            add_address(a, r.data + f.rdata);
        else if (add_record(a, &r, &f, &bytes) < 0)
            return -1;
        less(&a->ttl, f.ttl);
    }
    return !dns_answer_negative(a);
}

/* RFC 2308 5: the less of the SOA's own TTL and its last field; without one nothing is known. */
static void negative(struct reader r, unsigned n_answers, unsigned n, uint32_t limit,
                     struct dns_answer *a)
{
    uint32_t ttl = DNS_TTL_MIN;

    for (struct found f; n_answers + n > 0 && next_record(&r, &f); ) {
        if (n_answers > 0) {
            n_answers--;
            continue;
        }
        n--;
        if (f.type == DNS_SOA && f.class == LDNS_RR_CLASS_IN && f.rdlen >= 22) {
            const uint8_t *p = r.data + f.rdata + f.rdlen - 4;
            ttl = (uint32_t)dns_u16(p) << 16 | dns_u16(p + 2);
            less(&ttl, f.ttl);
            break;
        }
    }
    less(&ttl, limit);
    less(&a->ttl, ttl);
}

/* Where the question of the reply is the one of the query: behind it, else 0. */
static size_t same_question(const uint8_t *data, size_t len, const struct dns_query *q, bool *exact)
{
    size_t end = DNS_HEADER + (size_t)q->wire_len;

    if (len < end + 4 || dns_u16(data + 4) != 1 || dns_u16(data + end) != q->qtype ||
        dns_u16(data + end + 2) != LDNS_RR_CLASS_IN)
        return 0;
    *exact = memcmp(data + DNS_HEADER, q->wire, q->wire_len) == 0;
    for (size_t i = 0; i < q->wire_len; i++) {
        uint8_t a = data[DNS_HEADER + i], b = q->wire[i];
        if (a != b && ((a ^ b) != 0x20 || (a | 0x20) < 'a' || (a | 0x20) > 'z'))
            return 0;
    }
    return end + 4;
}

enum dns_reply dns_reply_read(const uint8_t *data, size_t len, const struct dns_query *q,
                              const char *name, uint32_t negative_ttl, struct dns_answer *a)
{
    bool exact = false;

    if (len < DNS_HEADER || dns_u16(data) != q->id || (data[2] & 0xf8) != 0x80)
        return DNS_REPLY_FOREIGN;
    unsigned rcode = data[3] & 0x0f, n = dns_u16(data + 6), n_more = dns_u16(data + 8);
    if (rcode == DNS_FORMERR && !q->plain && dns_u16(data + 4) == 0)
        return DNS_REPLY_PLAIN;
    struct reader r = { .data = data, .len = len, .at = same_question(data, len, q, &exact) };
    if (r.at == 0)
        return DNS_REPLY_FOREIGN;
    if (!exact)
        return DNS_REPLY_CASE;
    if ((rcode == DNS_FORMERR || rcode == DNS_NOTIMP) && !q->plain)
        return DNS_REPLY_PLAIN;
    if (data[2] & 0x02)
        return DNS_REPLY_TRUNCATED;
    if (rcode != DNS_NOERROR && rcode != DNS_NXDOMAIN)
        return DNS_REPLY_FAILED;

    uint32_t before = a->n_aliases;
    int some;
    do {
        some = follow_alias(r, n, name, a);
    } while (some > 0);
    if (some < 0)
        return DNS_REPLY_LOOP;
    if (rcode == DNS_NOERROR) {
        some = collect(r, n, dns_answer_end(a, name), q->qtype, a);
        if (some < 0)
            return DNS_REPLY_FAILED;
        if (some > 0)
            return DNS_REPLY_DONE;
        if (a->n_aliases > before)
            return DNS_REPLY_PARTIAL;
    }
    a->rcode = (int)rcode;
    negative(r, n, n_more, negative_ttl, a);
    return DNS_REPLY_DONE;
}
