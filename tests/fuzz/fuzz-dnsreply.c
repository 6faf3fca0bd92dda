/* SPDX-License-Identifier: MIT
 *
 * What an upstream sends, and what of it is told on. The first byte chooses what was asked; the
 * reply is given the id and, mostly, the question of the query, as others are soon thrown away.
 */
#include "common/auto.h"
#include "resolver/dns.h"
#include "tests/fuzz/fuzz.h"

#include <string.h>

#define INPUT_MAX 20000

static void tell(const struct dns_query *query, const char *name, const struct dns_answer *a)
{
    struct dns_question q = { .id = 1, .qtype = query->qtype, .room = UINT16_MAX };
    autofree uint8_t *data = NULL;
    size_t len = 0;

    REQUIRE(dns_name_wire(name, q.wire, &q.wire_len) == 0);
    const struct dns_told told = { .rcode = a->rcode, .answer = a, .ttl = a->ttl,
                                   .addresses = a->addresses, .n_addresses = a->n_addresses,
                                   .soa = dns_answer_negative(a) };
    REQUIRE(dns_answer_write(&q, &told, &data, &len) == 0);
    REQUIRE(len <= UINT16_MAX && !(data[2] & 0x02));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint16_t types[] = { DNS_A, DNS_TXT, DNS_MX, DNS_SRV };
    static const char name[] = "www.example.com";
    uint8_t random[DNS_QUERY_RANDOM] = { 0x12, 0x34, 0xaa, 0x55 };
    struct dns_query q = { .plain = false };

    if (size < 1 || size > INPUT_MAX)
        return 0;
    uint16_t type = types[data[0] % ARRAY_SIZE(types)];
    REQUIRE(dns_query_make(&q, name, type, random) == 0);
    q.plain = data[0] & 4;
    size_t len = size - 1;
    autofree uint8_t *reply = malloc(len + 1);      /* of the exact size */
    REQUIRE(reply);
    memcpy(reply, data + 1, len);
    if (!(data[0] & 8) && len >= DNS_HEADER + (size_t)q.wire_len + 4) {
        const uint8_t tail[] = { (uint8_t)(type >> 8), (uint8_t)type, 0, 1 };
        memcpy(reply, random, 2);
        reply[2] = (uint8_t)((reply[2] & 0x07) | 0x80);
        memcpy(reply + 4, "\0\1", 2);
        memcpy(reply + DNS_HEADER, q.wire, q.wire_len);
        memcpy(reply + DNS_HEADER + q.wire_len, tail, sizeof(tail));
    }
    struct dns_answer *a = dns_answer_new();
    REQUIRE(a);
    enum dns_reply r = dns_reply_read(reply, len, &q, name, 300, a);
    if (r == DNS_REPLY_DONE || r == DNS_REPLY_PARTIAL) {
        REQUIRE(a->n_addresses <= RESOLVE_ADDRESSES && a->n_aliases <= RESOLVE_ALIASES);
        REQUIRE(a->ttl >= DNS_TTL_MIN && a->ttl <= DNS_TTL_MAX);
        REQUIRE(r == DNS_REPLY_DONE || a->n_aliases > 0);
        REQUIRE(type == DNS_A ? !a->records : a->n_addresses == 0);
        for (uint32_t i = 0; i < a->n_aliases; i++)
            REQUIRE(strcmp(a->aliases[i], name) != 0 && strlen(a->aliases[i]) < RESOLVE_NAME);
        tell(&q, name, a);
    }
    dns_answer_unref(a);
    return 0;
}
