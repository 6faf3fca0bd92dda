/* SPDX-License-Identifier: MIT
 *
 * What the agent's probes read: 'd' and two bytes of id, then an answer of a DNS server, which
 * anybody may have written; anything else is a line of the list.
 */
#include "tests/fuzz/fuzz.h"
#include "common/auto.h"
#include "guest/probe.h"

#include <string.h>

static void answer(const uint8_t *data, size_t size)
{
    struct probe_result r = { .seen = PROBE_SEEN_MAX };

    if (size < 2)
        return;
    bool taken = probe_dns_answer(data + 2, size - 2, (uint16_t)(data[0] << 8 | data[1]), &r);
    REQUIRE(taken == (r.seen != PROBE_SEEN_MAX) && taken == r.has_rcode);
    REQUIRE(r.n_addresses <= PROBE_ADDRESSES);
    REQUIRE(!taken || r.text[0] != '\0');
}

static void line(const uint8_t *data, size_t size)
{
    autofree char *text = malloc(size + 1);
    struct err e = ERR_INIT;
    struct probe p;
    uint8_t query[512];

    REQUIRE(text != NULL);
    memcpy(text, data, size);
    text[size] = '\0';
    if (probe_parse(text, &p, &e) < 0) {
        REQUIRE(e.code == ERR_INVALID && e.msg[0] != '\0');
        return;
    }
    REQUIRE((unsigned)p.kind < PROBE_KIND_MAX && p.size <= PROBE_PAYLOAD && p.vlan < 4096);
    REQUIRE(p.timeout_ms > 0 && p.timeout_ms <= PROBE_MS_MAX && strlen(p.name) <= PROBE_NAME);
    REQUIRE(probe_dns_query(&p, 1, query, sizeof(query)) <= 12 + PROBE_NAME + 6);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > 0 && data[0] == 'd')
        answer(data + 1, size - 1);
    else
        line(data, size);
    return 0;
}
