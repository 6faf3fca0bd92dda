/* SPDX-License-Identifier: MIT
 *
 * What is told to guests.
 */
#include "resolver/dns.h"
#include "common/auto.h"

#include <arpa/inet.h>
#include <ldns/ldns.h>
#include <stdlib.h>
#include <string.h>

#define EDE_OPTION 15       /* RFC 8914 */
#define EDE_TEXT_MAX 128

AUTO_DEFINE(pkt, ldns_pkt, ldns_pkt_free)
AUTO_DEFINE(rr, ldns_rr, ldns_rr_free)

struct dns_answer *dns_answer_new(void)
{
    struct dns_answer *a = calloc(1, sizeof(*a));

    if (a) {
        a->refs = 1;
        a->ttl = DNS_TTL_MAX;
        a->bytes = sizeof(*a);
    }
    return a;
}

struct dns_answer *dns_answer_ref(struct dns_answer *a)
{
    a->refs++;
    return a;
}

void dns_answer_unref(struct dns_answer *a)
{
    if (!a || --a->refs > 0)
        return;
    for (uint32_t i = 0; i < a->n_aliases; i++)
        free(a->aliases[i]);
    ldns_rr_list_deep_free(a->records);
    free(a);
}

bool dns_answer_negative(const struct dns_answer *a)
{
    return a->n_addresses == 0 && !a->records;
}

const char *dns_answer_end(const struct dns_answer *a, const char *name)
{
    return a->n_aliases > 0 ? a->aliases[a->n_aliases - 1] : name;
}

/* --- records --- */

static ldns_rdf *rdf_name(const char *name)
{
    uint8_t wire[DNS_NAME_WIRE], len;

    if (name[0] == '\0')
        return ldns_rdf_new_frm_data(LDNS_RDF_TYPE_DNAME, 1, "");
    if (dns_name_wire(name, wire, &len) < 0)
        return NULL;
    return ldns_rdf_new_frm_data(LDNS_RDF_TYPE_DNAME, len, wire);
}

static ldns_rdf *rdf_owner(const struct dns_question *q, const char *name)
{
    if (!name)
        return ldns_rdf_new_frm_data(LDNS_RDF_TYPE_DNAME, q->wire_len, q->wire);
    return rdf_name(name);
}

/* Owner NULL: the name as it was asked for. */
static ldns_rr *record(const struct dns_question *q, const char *owner, ldns_rr_type type,
                       uint32_t ttl)
{
    autotype(rr) ldns_rr *rr = ldns_rr_new();
    ldns_rdf *name = rdf_owner(q, owner);

    if (!rr || !name) {
        ldns_rdf_deep_free(name);
        return NULL;
    }
    ldns_rr_set_owner(rr, name);
    ldns_rr_set_type(rr, type);
    ldns_rr_set_class(rr, LDNS_RR_CLASS_IN);
    ldns_rr_set_ttl(rr, ttl);
    return take_ptr(rr);
}

static bool add_rdf(ldns_rr *rr, ldns_rdf *rdf)
{
    if (rr && rdf && ldns_rr_push_rdf(rr, rdf))
        return true;
    ldns_rdf_deep_free(rdf);
    return false;
}

/* Takes the record, also when it fails. */
static bool push(ldns_pkt *pkt, ldns_pkt_section section, ldns_rr *rr_)
{
    autotype(rr) ldns_rr *rr = rr_;

    if (!rr || !ldns_pkt_push_rr(pkt, section, rr))
        return false;
    rr = NULL;
    return true;
}

static bool push_question(ldns_pkt *pkt, const struct dns_question *q)
{
    ldns_rr *rr = record(q, NULL, q->qtype, 0);

    if (rr)
        ldns_rr_set_question(rr, true);
    return push(pkt, LDNS_SECTION_QUESTION, rr);
}

static bool push_alias(ldns_pkt *pkt, const struct dns_question *q, const char *owner,
                       const char *target, uint32_t ttl)
{
    autotype(rr) ldns_rr *rr = record(q, owner, LDNS_RR_TYPE_CNAME, ttl);

    return add_rdf(rr, rdf_name(target)) && push(pkt, LDNS_SECTION_ANSWER, take_ptr(rr));
}

static bool push_address(ldns_pkt *pkt, const struct dns_question *q, const char *owner,
                         uint32_t address, uint32_t ttl)
{
    autotype(rr) ldns_rr *rr = record(q, owner, LDNS_RR_TYPE_A, ttl);
    uint32_t net = htonl(address);

    return add_rdf(rr, ldns_rdf_new_frm_data(LDNS_RDF_TYPE_A, sizeof(net), &net)) &&
           push(pkt, LDNS_SECTION_ANSWER, take_ptr(rr));
}

/* RFC 2308: without it nobody may remember that there is nothing. */
static bool push_soa(ldns_pkt *pkt, const struct dns_question *q, const char *owner, uint32_t ttl)
{
    autotype(rr) ldns_rr *rr = record(q, owner, LDNS_RR_TYPE_SOA, ttl);
    const uint32_t numbers[] = { 1, 3600, 600, 86400, ttl };    /* serial … minimum */

    if (!add_rdf(rr, rdf_name("")) || !add_rdf(rr, rdf_name("")))
        return false;
    for (size_t i = 0; i < ARRAY_SIZE(numbers); i++)
        if (!add_rdf(rr, ldns_native2rdf_int32(i == 0 ? LDNS_RDF_TYPE_INT32 : LDNS_RDF_TYPE_PERIOD,
                                               numbers[i])))
            return false;
    return push(pkt, LDNS_SECTION_AUTHORITY, take_ptr(rr));
}

static bool push_records(ldns_pkt *pkt, const struct dns_question *q, const char *owner,
                         const ldns_rr_list *list, uint32_t ttl)
{
    for (size_t i = 0; i < ldns_rr_list_rr_count(list); i++) {
        autotype(rr) ldns_rr *rr = ldns_rr_clone(ldns_rr_list_rr(list, i));
        ldns_rdf *name = rdf_owner(q, owner);
        if (!rr || !name) {
            ldns_rdf_deep_free(name);
            return false;
        }
        ldns_rdf_deep_free(ldns_rr_owner(rr));
        ldns_rr_set_owner(rr, name);
        ldns_rr_set_ttl(rr, ttl);
        if (!push(pkt, LDNS_SECTION_ANSWER, take_ptr(rr)))
            return false;
    }
    return true;
}

static bool push_answer(ldns_pkt *pkt, const struct dns_question *q, const struct dns_told *t)
{
    const struct dns_answer *a = t->answer;
    const char *owner = NULL;

    for (uint32_t i = 0; a && i < a->n_aliases; i++) {
        if (!push_alias(pkt, q, owner, a->aliases[i], t->ttl))
            return false;
        owner = a->aliases[i];
    }
    for (uint32_t i = 0; i < t->n_addresses; i++)
        if (!push_address(pkt, q, owner, t->addresses[i], t->ttl))
            return false;
    if (a && a->records && !push_records(pkt, q, owner, a->records, t->ttl))
        return false;
    return !t->soa || push_soa(pkt, q, owner, t->ttl);
}

/* --- the whole --- */

static bool set_edns(ldns_pkt *pkt, const struct dns_told *t)
{
    uint8_t option[6 + EDE_TEXT_MAX] = { 0, EDE_OPTION, 0, 0, 0, (uint8_t)t->ede };
    size_t len = t->why ? strnlen(t->why, EDE_TEXT_MAX) : 0;

    ldns_pkt_set_edns_udp_size(pkt, DNS_UDP_MAX);
    ldns_pkt_set_edns_extended_rcode(pkt, (uint8_t)(t->rcode >> 4));
    if (!t->ede)
        return true;
    if (len > 0)
        memcpy(option + 6, t->why, len);
    option[3] = (uint8_t)(2 + len);
    ldns_rdf *rdf = ldns_rdf_new_frm_data(LDNS_RDF_TYPE_UNKNOWN, 6 + len, option);
    if (!rdf)
        return false;
    ldns_pkt_set_edns_data(pkt, rdf);
    return true;
}

static int write_once(const struct dns_question *q, const struct dns_told *t, bool cut,
                      uint8_t **ret, size_t *ret_len)
{
    autotype(pkt) ldns_pkt *pkt = ldns_pkt_new();

    if (!pkt)
        return -1;
    ldns_pkt_set_id(pkt, q->id);
    ldns_pkt_set_qr(pkt, true);
    ldns_pkt_set_rd(pkt, q->rd);
    ldns_pkt_set_ra(pkt, true);
    ldns_pkt_set_tc(pkt, cut);
    ldns_pkt_set_rcode(pkt, (uint8_t)(t->rcode & 0x0f));
    if (q->wire_len > 0 && (!push_question(pkt, q) || (!cut && !push_answer(pkt, q, t))))
        return -1;
    if (q->edns && !set_edns(pkt, t))
        return -1;
    return ldns_pkt2wire(ret, pkt, ret_len) == LDNS_STATUS_OK ? 0 : -1;
}

int dns_answer_write(const struct dns_question *q, const struct dns_told *told, uint8_t **ret,
                     size_t *ret_len)
{
    uint8_t *data = NULL;
    size_t len = 0;

    if (write_once(q, told, false, &data, &len) < 0)
        return -1;
    if (len > q->room) {
        free(data);
        if (write_once(q, told, true, &data, &len) < 0)
            return -1;
    }
    *ret = data;
    *ret_len = len;
    return 0;
}
