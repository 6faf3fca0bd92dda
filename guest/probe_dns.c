/* SPDX-License-Identifier: MIT
 *
 * Probes by DNS: one question, by UDP or TCP, without a resolver library between.
 */
#include "guest/probe.h"
#include "common/auto.h"
#include "common/io.h"
#include "common/limits.h"
#include "common/parse.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>

#define RESOLV_CONF "/etc/resolv.conf"
#define HEADER 12
#define LABEL_MAX 63
#define TYPE_A 1

static void put16(uint8_t *p, uint16_t v)
{
    p[0] = (uint8_t)(v >> 8);
    p[1] = (uint8_t)v;
}

static uint16_t get16(const uint8_t *p)
{
    return (uint16_t)(p[0] << 8 | p[1]);
}

size_t probe_dns_query(const struct probe *p, uint16_t id, uint8_t *b, size_t cap)
{
    size_t len = strlen(p->name), at = HEADER;

    if (len > 0 && p->name[len - 1] == '.')
        len--;
    if (len == 0 || cap < HEADER + len + 6)
        return 0;
    memset(b, 0, HEADER);
    put16(b, id);
    b[2] = 1;                   /* recursion desired */
    b[5] = 1;                   /* one question */
    for (size_t i = 0; i < len;) {
        size_t n = 0;

        while (i + n < len && p->name[i + n] != '.')
            n++;
        if (n == 0 || n > LABEL_MAX || i + n + 1 == len)
            return 0;
        b[at++] = (uint8_t)n;
        memcpy(b + at, p->name + i, n);
        at += n;
        i += n + 1;
    }
    b[at++] = 0;
    put16(b + at, p->qtype);
    put16(b + at + 2, 1);       /* IN */
    return at + 4;
}

/* Where a name ends; 0 when it does not. A pointer is the end of it. */
static size_t skip_name(const uint8_t *b, size_t len, size_t at)
{
    while (at < len) {
        if (b[at] == 0)
            return at + 1;
        if ((b[at] & 0xc0) == 0xc0)
            return at + 2 <= len ? at + 2 : 0;
        if (b[at] & 0xc0)
            return 0;
        at += 1u + b[at];
    }
    return 0;
}

static void take_addresses(const uint8_t *b, size_t len, struct probe_result *r)
{
    size_t at = HEADER, answers = get16(b + 6);

    for (unsigned q = get16(b + 4); q > 0; q--) {
        at = skip_name(b, len, at);
        if (at == 0 || len - at < 4)
            return;
        at += 4;
    }
    for (; answers > 0; answers--) {
        at = skip_name(b, len, at);
        if (at == 0 || len - at < 10)
            return;
        uint16_t type = get16(b + at), size = get16(b + at + 8);
        at += 10;
        if (size > len - at)
            return;
        if (type == TYPE_A && size == 4 && r->n_addresses < PROBE_ADDRESSES)
            r->addresses[r->n_addresses++] = (uint32_t)get16(b + at) << 16 | get16(b + at + 2);
        at += size;
    }
}

bool probe_dns_answer(const uint8_t *b, size_t len, uint16_t id, struct probe_result *r)
{
    static const struct { uint8_t rcode; enum probe_seen seen; const char *text; } codes[] = {
        { 2, SEEN_SERVFAIL, "the resolver failed (SERVFAIL)" },
        { 3, SEEN_NXDOMAIN, "there is no such name (NXDOMAIN)" },
        { 5, SEEN_REFUSED, "the resolver refused (REFUSED)" },
    };

    if (len < HEADER || get16(b) != id || !(b[2] & 0x80))
        return false;
    r->has_rcode = true;
    r->rcode = b[3] & 15;
    for (size_t i = 0; i < ARRAY_SIZE(codes); i++) {
        if (codes[i].rcode == r->rcode) {
            probe_say(r, codes[i].seen, "%s", codes[i].text);
            return true;
        }
    }
    if (r->rcode != 0) {
        probe_say(r, SEEN_DNSERROR, "rcode %u", r->rcode);
        return true;
    }
    take_addresses(b, len, r);
    if (r->n_addresses > 0)
        probe_say(r, SEEN_RESOLVED, "%zu address%s", r->n_addresses,
                  r->n_addresses > 1 ? "es" : "");
    else if (get16(b + 6) > 0)
        probe_say(r, SEEN_RESOLVED, "%u records, none an address", get16(b + 6));
    else
        probe_say(r, SEEN_EMPTY, "no error and no records");
    return true;
}

/* The first of /etc/resolv.conf. */
static bool resolver_of_system(uint32_t *ret)
{
    autofree char *text = NULL;
    struct err e = ERR_INIT;
    size_t len = 0;
    char *line, *rest;

    if (io_read_file_at(AT_FDCWD, RESOLV_CONF, 64 * KIB, &text, &len, &e) < 0)
        return false;
    rest = text;
    while ((line = strsep(&rest, "\n"))) {
        char *word = strtok_r(line, " \t", &line);
        struct in_addr a;

        if (!word || strcmp(word, "nameserver") != 0)
            continue;
        word = strtok_r(NULL, " \t", &line);
        if (word && inet_pton(AF_INET, word, &a) == 1) {
            *ret = ntohl(a.s_addr);
            return true;
        }
    }
    return false;
}

/* By TCP the length goes ahead; what does not come in one piece is waited for. */
static ssize_t receive(int fd, bool tcp, uint8_t *b, size_t cap, int64_t deadline,
                       struct probe_result *r)
{
    size_t have = 0;

    for (;;) {
        int ready = probe_wait(fd, POLLIN, deadline, r);
        ssize_t n;

        if (ready < 0)
            return -1;
        if (ready == 0) {
            probe_say(r, SEEN_TIMEOUT, "no answer");
            return -1;
        }
        n = recv(fd, b + have, cap - have, 0);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            continue;
        if (n <= 0) {
            probe_say(r, n == 0 ? SEEN_DNSERROR : SEEN_RESET, "the connection was closed");
            return -1;
        }
        have += (size_t)n;
        if (!tcp)
            return (ssize_t)have;
        if (have >= 2 && (have >= get16(b) + 2u || have == cap)) {
            have -= 2;
            memmove(b, b + 2, have);
            return (ssize_t)have;
        }
    }
}

void probe_by_dns(const struct probe *p, struct probe_result *r)
{
    int64_t deadline = deadline_in(p->timeout_ms);
    uint32_t server = p->address;
    uint8_t b[4096];
    uint16_t id = 0;
    size_t head = p->tcp ? 2 : 0, len;

    if (!(p->given & PN_ADDRESS) && !resolver_of_system(&server)) {
        probe_say(r, SEEN_FAILED, "there is no resolver in " RESOLV_CONF);
        return;
    }
    if (getrandom(&id, sizeof(id), GRND_NONBLOCK) < 0)
        id = (uint16_t)now_mono_us();
    len = probe_dns_query(p, id, b + head, sizeof(b) - head);
    if (len == 0) {
        probe_say(r, SEEN_FAILED, "this cannot be a name");
        return;
    }
    if (p->tcp)
        put16(b, (uint16_t)len);
    autoclose int fd = probe_open(p->tcp ? SOCK_STREAM : SOCK_DGRAM, 0, server,
                                  p->given & PN_PORT ? p->port : 53, deadline, r);
    if (fd < 0)
        return;
    if (send(fd, b, head + len, MSG_NOSIGNAL) < 0) {
        if (probe_wait(fd, 0, now_mono_ms(), r) == 0)
            probe_say(r, SEEN_FAILED, "cannot send: %s", strerror(errno));
        return;
    }
    for (;;) {
        ssize_t n = receive(fd, p->tcp, b, sizeof(b), deadline, r);

        if (n < 0 || probe_dns_answer(b, (size_t)n, id, r))
            return;
        if (p->tcp) {
            probe_say(r, SEEN_DNSERROR, "what came back is no answer");
            return;
        }
    }
}
