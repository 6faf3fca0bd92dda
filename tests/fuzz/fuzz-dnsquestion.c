/* SPDX-License-Identifier: MIT
 *
 * What a guest sends, and the answers to it. The first byte says by what it comes.
 */
#include "common/auto.h"
#include "common/policy.h"
#include "resolver/dns.h"
#include "tests/fuzz/fuzz.h"

#include <string.h>

static void answer(const struct dns_question *q, const struct dns_told *told, bool tcp)
{
    autofree uint8_t *data = NULL;
    size_t len = 0;

    REQUIRE(dns_answer_write(q, told, &data, &len) == 0);
    REQUIRE(len >= DNS_HEADER && len <= UINT16_MAX);
    REQUIRE(dns_u16(data) == q->id && (data[2] & 0x80));
    REQUIRE(tcp || len <= q->room);
    if (q->wire_len > 0)        /* letter by letter */
        REQUIRE(len >= (size_t)DNS_HEADER + q->wire_len + 4 &&
                memcmp(data + DNS_HEADER, q->wire, q->wire_len) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint32_t addresses[RESOLVE_ADDRESSES];
    struct dns_question q;

    if (size == 0)
        return 0;
    bool tcp = data[0] & 1;
    int r = dns_question_read(data + 1, size - 1, tcp, &q);
    if (r == DNS_SILENCE)
        return 0;
    answer(&q, &(struct dns_told){ .rcode = r }, tcp);
    if (r != DNS_NOERROR)
        return 0;

    char canonical[RESOLVE_NAME];
    uint8_t wire[DNS_NAME_WIRE], wire_len;
    REQUIRE(strlen(q.name) > 0 && strlen(q.name) < RESOLVE_NAME);
    REQUIRE(dns_name_wire(q.name, wire, &wire_len) == 0 && wire_len == q.wire_len);
    REQUIRE(dns_name_text(wire, wire_len, canonical) && strcmp(canonical, q.name) == 0);
    REQUIRE(q.room >= DNS_UDP_PLAIN && (tcp || q.room <= DNS_UDP_MAX));
    answer(&q, &(struct dns_told){ .rcode = DNS_REFUSED, .ede = DNS_EDE_BLOCKED, .why = "no" },
           tcp);
    answer(&q, &(struct dns_told){ .rcode = DNS_NXDOMAIN, .soa = true, .ttl = 5 }, tcp);
    answer(&q, &(struct dns_told){ .addresses = addresses, .n_addresses = RESOLVE_ADDRESSES,
                                   .ttl = 5 }, tcp);
    return 0;
}
