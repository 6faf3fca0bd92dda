/* SPDX-License-Identifier: MIT
 *
 * Messages of DNS, byte by byte: what is read of questions and replies, and what is written.
 */
#include "common/auto.h"
#include "resolver/dns.h"
#include "tests/harness/test.h"

#include <stdlib.h>

struct bytes {
    uint8_t at[4096];
    size_t len;
};

static void put(struct bytes *b, const void *data, size_t len)
{
    ASSERT_LE(b->len + len, sizeof(b->at));
    memcpy(b->at + b->len, data, len);
    b->len += len;
}

static void put16(struct bytes *b, unsigned n)
{
    put(b, (uint8_t[]){ (uint8_t)(n >> 8), (uint8_t)n }, 2);
}

static void put_name(struct bytes *b, const char *name)
{
    uint8_t wire[DNS_NAME_WIRE], len;

    ASSERT_EQ(dns_name_wire(name, wire, &len), 0);
    put(b, wire, len);
}

static void put_head(struct bytes *b, unsigned id, unsigned flags, unsigned n_questions,
                     unsigned n_answers, unsigned n_more, unsigned n_additional)
{
    put16(b, id);
    put16(b, flags);
    put16(b, n_questions);
    put16(b, n_answers);
    put16(b, n_more);
    put16(b, n_additional);
}

static void put_question(struct bytes *b, const char *name, unsigned type)
{
    put_name(b, name);
    put16(b, type);
    put16(b, 1);
}

static void put_record(struct bytes *b, const char *name, unsigned type, uint32_t ttl,
                       const void *data, size_t len)
{
    put_name(b, name);
    put16(b, type);
    put16(b, 1);
    put16(b, ttl >> 16);
    put16(b, ttl & 0xffff);
    put16(b, (unsigned)len);
    put(b, data, len);
}

static void put_a(struct bytes *b, const char *name, uint32_t ttl, uint8_t last)
{
    put_record(b, name, DNS_A, ttl, (uint8_t[]){ 192, 0, 2, last }, 4);
}

static void put_alias(struct bytes *b, const char *name, uint32_t ttl, const char *target)
{
    struct bytes t = { .len = 0 };

    put_name(&t, target);
    put_record(b, name, DNS_CNAME, ttl, t.at, t.len);
}

static void put_opt(struct bytes *b, unsigned size, uint32_t ttl)
{
    put(b, "", 1);
    put16(b, DNS_OPT);
    put16(b, size);
    put16(b, ttl >> 16);
    put16(b, ttl & 0xffff);
    put16(b, 0);
}

/* --- names --- */

TEST(names_there_and_back)
{
    static const char *const names[] = { "a", "example.com", "_dmarc.example.com",
                                         "xn--e1afmkfd.example" };

    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        uint8_t wire[DNS_NAME_WIRE], len;
        char text[RESOLVE_NAME];
        size_t pos = 0;
        ASSERT_EQ(dns_name_wire(names[i], wire, &len), 0);
        ASSERT_EQ(dns_name_walk(wire, len, &pos, NULL, NULL), 0);
        ASSERT_EQ(pos, len);
        ASSERT_TRUE(dns_name_text(wire, len, text));
        ASSERT_STREQ(text, names[i]);
    }
}

TEST(names_that_are_none)
{
    uint8_t wire[DNS_NAME_WIRE], len;
    char text[RESOLVE_NAME], label[66];

    memset(label, 'a', 65);
    label[64] = '\0';
    ASSERT_EQ(dns_name_wire(label, wire, &len), -1);
    label[63] = '\0';
    ASSERT_EQ(dns_name_wire(label, wire, &len), 0);
    ASSERT_EQ(dns_name_wire("", wire, &len), -1);
    ASSERT_EQ(dns_name_wire("a..b", wire, &len), -1);
    ASSERT_EQ(dns_name_wire(".a", wire, &len), -1);
    ASSERT_EQ(dns_name_wire("a.", wire, &len), -1);
    ASSERT_FALSE(dns_name_text((const uint8_t *)"", 1, text));
    ASSERT_FALSE(dns_name_text((const uint8_t *)"\3a b", 5, text));
    ASSERT_FALSE(dns_name_text((const uint8_t *)"\3a.b", 5, text));
    ASSERT_FALSE(dns_name_text((const uint8_t *)"\2a\0", 4, text));
    ASSERT_TRUE(dns_name_text((const uint8_t *)"\1A\1Z", 5, text));
    ASSERT_STREQ(text, "a.z");
}

TEST(longest_name)
{
    char name[RESOLVE_NAME + 4], text[RESOLVE_NAME];
    uint8_t wire[DNS_NAME_WIRE], len;

    memset(name, 'a', sizeof(name));
    name[63] = name[127] = name[191] = '.';
    name[253] = '\0';
    ASSERT_EQ(dns_name_wire(name, wire, &len), 0);
    ASSERT_EQ(len, 255);
    ASSERT_TRUE(dns_name_text(wire, len, text));
    ASSERT_STREQ(text, name);
    name[253] = 'a';
    name[254] = '\0';
    ASSERT_EQ(dns_name_wire(name, wire, &len), -1);
}

TEST(pointers_lead_back_only)
{
    static const uint8_t data[] = { 1, 'a', 0, 1, 'b', 0xc0, 0, 0xc0, 3, 0xc0, 9, 0xc0, 11, 0xc0 };
    uint8_t wire[DNS_NAME_WIRE], len;
    size_t pos = 7;

    ASSERT_EQ(dns_name_walk(data, sizeof(data), &pos, wire, &len), 0);
    ASSERT_EQ(pos, 9);
    ASSERT_MEMEQ(wire, len, "\1b\1a", 5);
    ASSERT_EQ(dns_name_walk(data, sizeof(data), (size_t[]){ 9 }, wire, &len), -1);  /* to itself */
    ASSERT_EQ(dns_name_walk(data, sizeof(data), (size_t[]){ 11 }, wire, &len), -1);
    ASSERT_EQ(dns_name_walk(data, sizeof(data), (size_t[]){ 13 }, wire, &len), -1); /* cut */
    ASSERT_EQ(dns_name_walk(data, sizeof(data), (size_t[]){ 14 }, wire, &len), -1); /* behind */
}

TEST(many_pointers)
{
    uint8_t data[400] = { 0 }, wire[DNS_NAME_WIRE], len;

    for (size_t i = 2; i < sizeof(data); i += 2) {      /* each to the one before */
        data[i] = 0xc0 | (uint8_t)((i - 2) >> 8);
        data[i + 1] = (uint8_t)(i - 2);
    }
    ASSERT_EQ(dns_name_walk(data, sizeof(data), (size_t[]){ 128 }, wire, &len), 0);
    ASSERT_EQ(dns_name_walk(data, sizeof(data), (size_t[]){ 130 }, wire, &len), -1);
}

/* --- questions --- */

TEST(question_plain)
{
    struct bytes b = { .len = 0 };
    struct dns_question q;

    put_head(&b, 0x1234, 0x0100, 1, 0, 0, 0);
    put_question(&b, "example.com", DNS_A);
    b.at[13] = 'E';
    ASSERT_EQ(dns_question_read(b.at, b.len, false, &q), DNS_NOERROR);
    ASSERT_EQ(q.id, 0x1234);
    ASSERT_TRUE(q.rd && !q.edns);
    ASSERT_EQ(q.qtype, DNS_A);
    ASSERT_EQ(q.room, DNS_UDP_PLAIN);
    ASSERT_STREQ(q.name, "example.com");
    ASSERT_MEMEQ(q.wire, q.wire_len, "\7Example\3com", 13);
    ASSERT_EQ(dns_question_read(b.at, b.len, true, &q), DNS_NOERROR);
    ASSERT_EQ(q.room, UINT16_MAX);
}

TEST(question_with_edns)
{
    static const struct { unsigned said, room; } cases[] = {
        { 0, 512 }, { 100, 512 }, { 512, 512 }, { 1000, 1000 }, { 1232, 1232 }, { 4096, 1232 },
        { 65535, 1232 },
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct bytes b = { .len = 0 };
        struct dns_question q;
        put_head(&b, 1, 0x0100, 1, 0, 0, 1);
        put_question(&b, "example.com", DNS_A);
        put_opt(&b, cases[i].said, 0);
        ASSERT_EQ(dns_question_read(b.at, b.len, false, &q), DNS_NOERROR);
        ASSERT_TRUE(q.edns);
        ASSERT_EQ(q.room, cases[i].room);
    }
}

TEST(question_with_another_edns)
{
    struct bytes b = { .len = 0 };
    struct dns_question q;

    put_head(&b, 1, 0x0100, 1, 0, 0, 1);
    put_question(&b, "example.com", DNS_A);
    put_opt(&b, 1232, 1u << 16);            /* version 1 */
    ASSERT_EQ(dns_question_read(b.at, b.len, false, &q), DNS_BADVERS);
    autofree uint8_t *answer = NULL;
    size_t len;
    ASSERT_EQ(dns_answer_write(&q, &(struct dns_told){ .rcode = DNS_BADVERS }, &answer, &len), 0);
    ASSERT_EQ(answer[3] & 15, 0);
    ASSERT_EQ(answer[len - 6], 1);          /* the upper bits are in the OPT */
}

static int read_flags(unsigned flags)
{
    struct bytes b = { .len = 0 };
    struct dns_question q;

    put_head(&b, 1, flags, 1, 0, 0, 0);
    put_question(&b, "example.com", DNS_A);
    return dns_question_read(b.at, b.len, false, &q);
}

TEST(question_flags)
{
    ASSERT_EQ(read_flags(0x0000), DNS_NOERROR);
    ASSERT_EQ(read_flags(0x0120), DNS_NOERROR);     /* AD: whether DNSSEC would be understood */
    ASSERT_EQ(read_flags(0x0110), DNS_NOERROR);     /* CD */
    ASSERT_EQ(read_flags(0x8100), DNS_SILENCE);
    ASSERT_EQ(read_flags(0x0900), DNS_NOTIMP);
    ASSERT_EQ(read_flags(0x7900), DNS_NOTIMP);
    ASSERT_EQ(read_flags(0x0300), DNS_FORMERR);     /* TC */
    ASSERT_EQ(read_flags(0x0103), DNS_FORMERR);
}

static int read_type(unsigned type)
{
    struct bytes b = { .len = 0 };
    struct dns_question q;

    put_head(&b, 1, 0x0100, 1, 0, 0, 0);
    put_question(&b, "example.com", type);
    return dns_question_read(b.at, b.len, false, &q);
}

TEST(question_types)
{
    ASSERT_EQ(read_type(DNS_HTTPS), DNS_NOERROR);
    ASSERT_EQ(read_type(65280), DNS_NOERROR);
    ASSERT_EQ(read_type(0), DNS_FORMERR);
    ASSERT_EQ(read_type(DNS_OPT), DNS_FORMERR);
    for (unsigned t = DNS_META_FIRST; t <= DNS_META_LAST; t++)
        ASSERT_EQ(read_type(t), DNS_NOTIMP);
}

TEST(question_cut_anywhere)
{
    struct bytes b = { .len = 0 };
    struct dns_question q;

    put_head(&b, 1, 0x0100, 1, 0, 0, 1);
    put_question(&b, "example.com", DNS_A);
    put_opt(&b, 1232, 0);
    for (size_t n = 0; n < b.len; n++) {
        autofree uint8_t *exact = malloc(n + 1);    /* so that a sanitizer sees what reads beyond */
        ASSERT_NOT_NULL(exact);
        memcpy(exact, b.at, n);
        int r = dns_question_read(exact, n, false, &q);
        ASSERT_EQ(r, n < DNS_HEADER ? DNS_SILENCE : DNS_FORMERR);
    }
}

/* --- answers --- */

static void ask(struct dns_question *q, const char *name, bool edns)
{
    struct bytes b = { .len = 0 };

    put_head(&b, 7, 0x0100, 1, 0, 0, edns);
    put_question(&b, name, DNS_A);
    if (edns)
        put_opt(&b, 1232, 0);
    ASSERT_EQ(dns_question_read(b.at, b.len, false, q), DNS_NOERROR);
}

TEST(answer_of_addresses)
{
    static const uint8_t want[] = "\0\7\x81\x80\0\1\0\1\0\0\0\0\1a\1b\0\0\1\0\1"
                                  "\xc0\x0c\0\1\0\1\0\0\0\x09\0\4\xc0\0\2\1";
    const uint32_t addresses[] = { 0xc0000201 };
    autofree uint8_t *data = NULL;
    struct dns_question q;
    size_t len;

    ask(&q, "a.b", false);
    ASSERT_EQ(dns_answer_write(&q, &(struct dns_told){ .addresses = addresses, .n_addresses = 1,
                                                       .ttl = 9 }, &data, &len), 0);
    ASSERT_MEMEQ(data, len, want, sizeof(want) - 1);
}

TEST(answer_that_says_why)
{
    autofree uint8_t *data = NULL;
    struct dns_question q;
    size_t len;

    ask(&q, "a.b", true);
    ASSERT_EQ(dns_answer_write(&q, &(struct dns_told){ .rcode = DNS_REFUSED, .why = "no",
                                                       .ede = DNS_EDE_BLOCKED }, &data, &len), 0);
    ASSERT_EQ(data[3] & 15, DNS_REFUSED);
    ASSERT_MEMEQ(data + len - 8, 8, "\0\17\0\4\0\17no", 8);
    ask(&q, "a.b", false);
    free(take_ptr(data));
    ASSERT_EQ(dns_answer_write(&q, &(struct dns_told){ .rcode = DNS_REFUSED, .why = "no",
                                                       .ede = DNS_EDE_BLOCKED }, &data, &len), 0);
    ASSERT_EQ(len, 12 + 5 + 4);
}

TEST(answer_without_room)
{
    uint32_t addresses[RESOLVE_ADDRESSES] = { 0 };
    autofree uint8_t *data = NULL;
    struct dns_question q;
    size_t len;

    ask(&q, "a.b", false);
    ASSERT_EQ(dns_answer_write(&q, &(struct dns_told){ .addresses = addresses,
                                                       .n_addresses = RESOLVE_ADDRESSES },
                               &data, &len), 0);
    ASSERT_EQ(len, 12 + 5 + 4);
    ASSERT_TRUE(data[2] & 2);
}

TEST(answer_to_what_could_not_be_read)
{
    autofree uint8_t *data = NULL;
    struct dns_question q;
    size_t len;

    ASSERT_EQ(dns_question_read((const uint8_t *)"\1\2\1\0\0\1\0\0\0\0\0\0\7", 13, false, &q),
              DNS_FORMERR);
    ASSERT_EQ(dns_answer_write(&q, &(struct dns_told){ .rcode = DNS_FORMERR }, &data, &len), 0);
    ASSERT_MEMEQ(data, len, "\1\2\x81\x81\0\0\0\0\0\0\0\0", 12);
}

/* --- queries and replies --- */

struct reply {
    struct bytes b;
    struct dns_query q;
    struct dns_answer *a;
};

static void query(struct reply *r, const char *name, uint16_t type)
{
    uint8_t random[DNS_QUERY_RANDOM] = { 0x12, 0x34, 0xff, 0x0f };

    *r = (struct reply){ .a = dns_answer_new() };
    ASSERT_NOT_NULL(r->a);
    ASSERT_EQ(dns_query_make(&r->q, name, type, random), 0);
}

/* Head and question of the reply. */
static void begin(struct reply *r, unsigned flags, unsigned n_answers, unsigned n_more)
{
    r->b.len = 0;
    put_head(&r->b, r->q.id, flags, 1, n_answers, n_more, 0);
    put(&r->b, r->q.wire, r->q.wire_len);
    put16(&r->b, r->q.qtype);
    put16(&r->b, 1);
}

static enum dns_reply finish(struct reply *r, const char *name)
{
    autofree uint8_t *exact = malloc(r->b.len + 1);

    ASSERT_NOT_NULL(exact);
    memcpy(exact, r->b.at, r->b.len);
    return dns_reply_read(exact, r->b.len, &r->q, name, 300, r->a);
}

TEST(query_mixes_upper_and_lower_case)
{
    uint8_t buf[DNS_QUERY_MAX], all[DNS_QUERY_RANDOM];
    struct reply r;

    query(&r, "ab-1.example", DNS_A);
    ASSERT_MEMEQ(r.q.wire, r.q.wire_len, "\4AB-1\7EXAMPLe", 14);
    memset(all, 0xff, sizeof(all));
    ASSERT_EQ(dns_query_make(&r.q, "ab-1.example", DNS_A, all), 0);
    ASSERT_MEMEQ(r.q.wire, r.q.wire_len, "\4AB-1\7EXAMPLE", 14);
    ASSERT_EQ(dns_query_write(&r.q, buf), 12 + 14 + 4 + 11);
    r.q.plain = true;
    ASSERT_EQ(dns_query_write(&r.q, buf), 12 + 14 + 4);
    dns_answer_unref(r.a);
}

TEST(longest_query)
{
    char name[RESOLVE_NAME];
    uint8_t buf[DNS_QUERY_MAX], random[DNS_QUERY_RANDOM] = { 0 };
    struct dns_query q = { .plain = false };

    memset(name, 'a', sizeof(name));
    name[63] = name[127] = name[191] = '.';
    name[253] = '\0';
    ASSERT_EQ(dns_query_make(&q, name, DNS_A, random), 0);
    ASSERT_LE(dns_query_write(&q, buf), sizeof(buf));
}

TEST(reply_of_addresses)
{
    struct reply r;

    query(&r, "example.com", DNS_A);
    begin(&r, 0x8180, 4, 0);
    put_a(&r.b, "example.com", 60, 1);
    put_a(&r.b, "example.com", 30, 2);
    put_a(&r.b, "example.com", 90, 1);
    put_a(&r.b, "example.net", 10, 66);
    ASSERT_EQ(finish(&r, "example.com"), DNS_REPLY_DONE);
    ASSERT_EQ(r.a->n_addresses, 2);
    ASSERT_EQ(r.a->addresses[0], 0xc0000201);
    ASSERT_EQ(r.a->addresses[1], 0xc0000202);
    ASSERT_EQ(r.a->ttl, 30);
    dns_answer_unref(r.a);
}

TEST(ttls_have_bounds)
{
    static const struct { uint32_t said, is; } cases[] = {
        { 0, 1 }, { 1, 1 }, { 3600, 3600 }, { 3601, 3600 }, { 0x7fffffff, 3600 }, { 0x80000000, 1 },
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct reply r;
        query(&r, "example.com", DNS_A);
        begin(&r, 0x8180, 1, 0);
        put_a(&r.b, "example.com", cases[i].said, 1);
        ASSERT_EQ(finish(&r, "example.com"), DNS_REPLY_DONE);
        ASSERT_EQ(r.a->ttl, cases[i].is);
        dns_answer_unref(r.a);
    }
}

TEST(reply_to_something_else)
{
    struct reply r;

    query(&r, "example.com", DNS_A);
    begin(&r, 0x8180, 1, 0);
    put_a(&r.b, "example.com", 60, 1);
    r.b.at[0] ^= 1;
    ASSERT_EQ(finish(&r, "example.com"), DNS_REPLY_FOREIGN);
    r.b.at[0] ^= 1;
    r.b.at[2] = 1;                          /* a question */
    ASSERT_EQ(finish(&r, "example.com"), DNS_REPLY_FOREIGN);
    r.b.at[2] = 0x81;
    r.b.at[13] ^= 0x20;
    ASSERT_EQ(finish(&r, "example.com"), DNS_REPLY_CASE);
    r.b.at[13] ^= 0x01;
    ASSERT_EQ(finish(&r, "example.com"), DNS_REPLY_FOREIGN);
    r.b.at[13] ^= 0x21;
    r.b.at[26] ^= 1;                        /* the type */
    ASSERT_EQ(finish(&r, "example.com"), DNS_REPLY_FOREIGN);
    r.b.at[26] ^= 1;
    ASSERT_EQ(finish(&r, "example.com"), DNS_REPLY_DONE);
    dns_answer_unref(r.a);
}

TEST(reply_cut_anywhere)
{
    struct reply r;

    query(&r, "example.com", DNS_A);
    begin(&r, 0x8180, 2, 0);
    put_alias(&r.b, "example.com", 60, "www.example.com");
    put_a(&r.b, "www.example.com", 60, 1);
    for (size_t n = r.b.len; n-- > 0; ) {
        r.b.len = n;
        enum dns_reply said = finish(&r, "example.com");
        ASSERT_TRUE(said == DNS_REPLY_FOREIGN || said == DNS_REPLY_FAILED);
        dns_answer_unref(r.a);
        r.a = dns_answer_new();
    }
    dns_answer_unref(r.a);
}

TEST(reply_of_aliases)
{
    struct reply r;

    query(&r, "a.example", DNS_A);
    begin(&r, 0x8180, 3, 0);
    put_a(&r.b, "c.example", 50, 1);        /* in any order */
    put_alias(&r.b, "b.example", 20, "C.example");
    put_alias(&r.b, "a.example", 60, "b.example");
    ASSERT_EQ(finish(&r, "a.example"), DNS_REPLY_DONE);
    ASSERT_EQ(r.a->n_aliases, 2);
    ASSERT_STREQ(r.a->aliases[0], "b.example");
    ASSERT_STREQ(dns_answer_end(r.a, "a.example"), "c.example");
    ASSERT_EQ(r.a->ttl, 20);
    ASSERT_EQ(r.a->n_addresses, 1);
    dns_answer_unref(r.a);
}

TEST(reply_that_leads_on)
{
    struct reply r;

    query(&r, "a.example", DNS_A);
    begin(&r, 0x8180, 1, 0);
    put_alias(&r.b, "a.example", 60, "b.example");
    ASSERT_EQ(finish(&r, "a.example"), DNS_REPLY_PARTIAL);
    ASSERT_EQ(dns_query_make(&r.q, "b.example", DNS_A, (uint8_t[DNS_QUERY_RANDOM]){ 0 }), 0);
    begin(&r, 0x8180, 1, 0);
    put_alias(&r.b, "b.example", 60, "a.example");
    ASSERT_EQ(finish(&r, "a.example"), DNS_REPLY_LOOP);
    dns_answer_unref(r.a);
}

TEST(reply_that_leads_to_no_host)
{
    struct reply r;

    query(&r, "a.example", DNS_A);
    begin(&r, 0x8180, 1, 0);
    put_record(&r.b, "a.example", DNS_CNAME, 60, "\3a b", 5);
    ASSERT_EQ(finish(&r, "a.example"), DNS_REPLY_LOOP);
    dns_answer_unref(r.a);
}

TEST(negative_replies)
{
    static const uint8_t soa[] = "\0\0\0\0\0\1\0\0\0\2\0\0\0\3\0\0\0\4\0\0\0\x2d";
    struct reply r;

    query(&r, "a.example", DNS_A);
    begin(&r, 0x8183, 0, 1);
    put_record(&r.b, "example", DNS_SOA, 60, soa, sizeof(soa) - 1);
    ASSERT_EQ(finish(&r, "a.example"), DNS_REPLY_DONE);
    ASSERT_EQ(r.a->rcode, DNS_NXDOMAIN);
    ASSERT_EQ(r.a->ttl, 45);
    ASSERT_TRUE(dns_answer_negative(r.a));
    dns_answer_unref(r.a);
    query(&r, "a.example", DNS_A);
    begin(&r, 0x8180, 0, 0);                /* without a SOA: not to be remembered */
    ASSERT_EQ(finish(&r, "a.example"), DNS_REPLY_DONE);
    ASSERT_EQ(r.a->rcode, DNS_NOERROR);
    ASSERT_EQ(r.a->ttl, 1);
    dns_answer_unref(r.a);
}

TEST(replies_that_are_no_answer)
{
    struct reply r;

    query(&r, "a.example", DNS_A);
    begin(&r, 0x8380, 0, 0);
    ASSERT_EQ(finish(&r, "a.example"), DNS_REPLY_TRUNCATED);
    begin(&r, 0x8182, 0, 0);
    ASSERT_EQ(finish(&r, "a.example"), DNS_REPLY_FAILED);
    begin(&r, 0x8185, 0, 0);
    ASSERT_EQ(finish(&r, "a.example"), DNS_REPLY_FAILED);
    begin(&r, 0x8181, 0, 0);
    ASSERT_EQ(finish(&r, "a.example"), DNS_REPLY_PLAIN);
    r.q.plain = true;
    ASSERT_EQ(finish(&r, "a.example"), DNS_REPLY_FAILED);
    dns_answer_unref(r.a);
}

TEST(records_that_are_passed)
{
    struct reply r;
    struct dns_question q;
    autofree uint8_t *data = NULL;
    size_t len;

    query(&r, "a.example", DNS_MX);
    begin(&r, 0x8180, 2, 0);
    put_record(&r.b, "a.example", DNS_MX, 60, "\0\12\1b\7example", 13);
    put_record(&r.b, "a.example", DNS_TXT, 60, "\1x", 2);
    ASSERT_EQ(finish(&r, "a.example"), DNS_REPLY_DONE);
    ASSERT_FALSE(dns_answer_negative(r.a));
    ask(&q, "a.example", true);
    q.qtype = DNS_MX;
    ASSERT_EQ(dns_answer_write(&q, &(struct dns_told){ .answer = r.a, .ttl = 5 }, &data, &len), 0);
    ASSERT_EQ(dns_u16(data + 6), 1);
    dns_answer_unref(r.a);
    query(&r, "a.example", DNS_MX);         /* whose name does not end */
    begin(&r, 0x8180, 1, 0);
    put_record(&r.b, "a.example", DNS_MX, 60, "\0\12\1b\7exa", 8);
    ASSERT_EQ(finish(&r, "a.example"), DNS_REPLY_FAILED);
    dns_answer_unref(r.a);
}

TEST(many_records)
{
    struct reply r;

    query(&r, "a.example", DNS_A);
    begin(&r, 0x8180, 100, 0);
    for (int i = 0; i < 100; i++)
        put_a(&r.b, "a.example", 60, (uint8_t)i);
    ASSERT_EQ(finish(&r, "a.example"), DNS_REPLY_DONE);
    ASSERT_EQ(r.a->n_addresses, RESOLVE_ADDRESSES);
    dns_answer_unref(r.a);
}
