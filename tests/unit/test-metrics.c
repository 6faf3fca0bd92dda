/* SPDX-License-Identifier: MIT
 *
 * The text Prometheus reads, with names nobody would choose, and the counters of requests.
 */
#include "common/auto.h"
#include "common/name.h"
#include "daemon/meter.h"
#include "daemon/metrics.h"
#include "tests/harness/test.h"

#include <pthread.h>
#include <string.h>

#define BIG (1024 * 1024)

TEST(a_family_is_two_lines_and_samples)
{
    autosbuf struct sbuf b = SBUF(BIG);
    const struct metrics_label l[] = { { "id", "00ff" }, { "name", "box" } };

    metrics_family(&b, "x_total", "counter", "What it is.");
    metrics_count(&b, "x_total", "", l, 2, UINT64_MAX);
    metrics_count(&b, "x_total", "", NULL, 0, 0);
    metrics_seconds(&b, "x_total", "_sum", l, 1, 61000005);
    ASSERT_STREQ(sbuf_str(&b), "# HELP x_total What it is.\n"
                               "# TYPE x_total counter\n"
                               "x_total{id=\"00ff\",name=\"box\"} 18446744073709551615\n"
                               "x_total 0\n"
                               "x_total_sum{id=\"00ff\"} 61.000005\n");
}

static const char *value_of(struct sbuf *b, const char *value)
{
    const struct metrics_label l = { "n", value };

    sbuf_done(b);
    *b = SBUF(BIG);
    metrics_count(b, "x", "", &l, 1, 1);
    return sbuf_str(b);
}

TEST(no_name_gets_out_of_its_quotes)
{
    autosbuf struct sbuf b = SBUF(BIG);

    ASSERT_STREQ(value_of(&b, "a\"} 5\nx{n=\"b"), "x{n=\"a\\\"} 5\\nx{n=\\\"b\"} 1\n");
    ASSERT_STREQ(value_of(&b, "\\"), "x{n=\"\\\\\"} 1\n");
    ASSERT_STREQ(value_of(&b, "\\n\\\""), "x{n=\"\\\\n\\\\\\\"\"} 1\n");
    ASSERT_STREQ(value_of(&b, "gr\xc3\xbc\xc3\x9f \xf0\x9f\x98\x80"),
                 "x{n=\"gr\xc3\xbc\xc3\x9f \xf0\x9f\x98\x80\"} 1\n");
    ASSERT_STREQ(value_of(&b, "\xff\xc3\"\xe2\x82"),
                 "x{n=\"\xef\xbf\xbd\xef\xbf\xbd\\\"\xef\xbf\xbd\xef\xbf\xbd\"} 1\n");
    ASSERT_STREQ(value_of(&b, NULL), "x{n=\"\"} 1\n");
}

/* Any two bytes: one line, quotes that close, and UTF-8. */
TEST(all_pairs_of_bytes_stay_one_sample)
{
    for (int i = 1; i < 256; i++) {
        for (int k = 1; k < 256; k++) {
            autosbuf struct sbuf b = SBUF(BIG);
            const char value[] = { (char)i, (char)k, '\0' };
            const char *text = value_of(&b, value), *p = text + strlen("x{n=\"");
            ASSERT_TRUE(utf8_valid(text, b.len));
            while (*p != '"') {
                ASSERT_TRUE(*p && *p != '\n');
                ASSERT_TRUE(*p != '\\' || strchr("\\n\"", p[1]));
                p += *p == '\\' ? 2 : 1;
            }
            ASSERT_STREQ(p, "\"} 1\n");
        }
    }
}

TEST(help_is_one_line)
{
    autosbuf struct sbuf b = SBUF(BIG);

    metrics_family(&b, "x", "gauge", "a \\ \"b\"\nc");
    ASSERT_STREQ(sbuf_str(&b), "# HELP x a \\\\ \"b\"\\nc\n# TYPE x gauge\n");
}

TEST(answers_are_counted_by_route_class_and_time)
{
    struct meter *m = NULL;
    struct err e = ERR_INIT;
    struct meter_route r;

    ASSERT_OK(meter_new(3, &m, &e), e);
    meter_answer(m, 1, 200, 0);
    meter_answer(m, 1, 204, 1000);
    meter_answer(m, 1, 404, 1001);
    meter_answer(m, 1, 500, 3600000000);
    meter_answer(m, 1, 101, -5);
    meter_answer(m, 1, 0, 5);       /* not one */
    meter_answer(m, 1, 600, 5);
    meter_answer(m, SIZE_MAX, 404, 5);
    meter_read(m, 1, &r);
    ASSERT_EQ(r.classes[0], 1);
    ASSERT_EQ(r.classes[1], 2);
    ASSERT_EQ(r.classes[3], 1);
    ASSERT_EQ(r.classes[4], 1);
    ASSERT_EQ(r.buckets[0], 3);
    ASSERT_EQ(r.buckets[1], 1);
    ASSERT_EQ(r.buckets[METER_BUCKETS - 1], 1);
    ASSERT_EQ(r.us, 3600002001);
    meter_read(m, 3, &r);
    ASSERT_EQ(r.classes[3], 1);
    meter_read(m, 0, &r);
    ASSERT_EQ(r.us, 0);
    meter_read(m, 4, &r);           /* none of ours */
    ASSERT_EQ(r.us, 0);
    meter_free(m);
}

TEST(connections_and_refusals)
{
    struct meter *m = NULL;
    struct err e = ERR_INIT;
    struct meter_state s;

    ASSERT_OK(meter_new(0, &m, &e), e);
    meter_connection(m, 1);
    meter_connection(m, 1);
    meter_connection(m, -1);
    meter_quota(m, "memory");
    meter_quota(m, NULL);
    meter_quota(m, "what is none");
    meter_state(m, &s);
    ASSERT_EQ(s.opened, 2);
    ASSERT_EQ(s.open, 1);
    ASSERT_EQ(s.refused[QUOTA_MEMORY], 1);
    ASSERT_EQ(s.refused[QUOTA_SANDBOXES], 0);
    ASSERT_EQ(s.refused[QUOTA_MAX], 2);
    meter_free(m);
}

#define THREADS 4
#define TIMES 20000

static void *count_many(void *arg)
{
    for (int i = 0; i < TIMES; i++)
        meter_answer(arg, 0, 200, 2);
    return NULL;
}

TEST(threads_lose_no_count)
{
    struct meter *m = NULL;
    struct err e = ERR_INIT;
    struct meter_route r;
    pthread_t t[THREADS];

    ASSERT_OK(meter_new(1, &m, &e), e);
    for (int i = 0; i < THREADS; i++)
        ASSERT_EQ(pthread_create(&t[i], NULL, count_many, m), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(t[i], NULL);
    meter_read(m, 0, &r);
    ASSERT_EQ(r.classes[1], THREADS * TIMES);
    ASSERT_EQ(r.us, 2 * THREADS * TIMES);
    meter_free(m);
}

TEST(nobody_has_to_count)
{
    struct meter_state s;
    struct meter_route r;

    meter_answer(NULL, 0, 200, 1);
    meter_connection(NULL, 1);
    meter_quota(NULL, "memory");
    meter_state(NULL, &s);
    meter_read(NULL, 0, &r);
    ASSERT_EQ(s.open + r.us, 0);
    meter_free(NULL);
}
