/* SPDX-License-Identifier: MIT
 *
 * What clients get from the HTTP layer that are broken, greedy, slow or web pages.
 */
#include "common/auto.h"
#include "common/limits.h"
#include "tests/fakes/httpworld.h"

#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

TEST(web_pages_are_refused)
{
    static const char *const hosts[] = { "evil.example", "localhost:8080", "127.0.0.1", "[::1]",
                                         "localhost.evil.example", "LOCALHOST:80", "sandboxd:1" };

    start();
    for (size_t i = 0; i < ARRAY_SIZE(hosts); i++) {
        char text[200];
        snprintf(text, sizeof(text), "GET /echo HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n",
                 hosts[i]);
        ask(text);
        ASSERT_REFUSED(403, "origin_refused");
    }
    request("GET /echo", "Origin: http://localhost\r\n", NULL);
    ASSERT_REFUSED(403, "origin_refused");
    request("GET /echo", "Origin: null\r\n", NULL);
    ASSERT_REFUSED(403, "origin_refused");
    request("POST /echo", "Sec-Fetch-Site: cross-site\r\n", "{}");
    ASSERT_REFUSED(403, "origin_refused");
    ask("GET /echo HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\nConnection: close\r\n\r\n");
    ASSERT_REFUSED(403, "origin_refused");
    ask("POST /echo HTTP/1.1\r\nHost:\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n"
        "Connection: close\r\n\r\n{}");
    ASSERT_REFUSED(400, "invalid_request");
    for (size_t i = 0; i < 5; i++) {
        static const char *const fine[] = { "", "localhost", "Localhost:", "sandboxd",
                                            "sandboxd:" };
        char text[200];
        snprintf(text, sizeof(text), "GET /echo HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n",
                 fine[i]);
        ask(text);
        ASSERT_STATUS(200);
    }
    stop();
}

TEST(bodies_that_are_not_what_is_asked_for)
{
    static const struct { const char *body; int status; const char *code; } bad[] = {
        { "{", 400, "invalid_json" },
        { "[]", 400, "invalid_json" },
        { "nul", 400, "invalid_json" },
        { "{} {}", 400, "invalid_json" },
        { "{\"n\":1,\"n\":2}", 400, "invalid_json" },
        { "{\"text\":\"a\\u0000b\"}", 400, "" },
        { "{\"text\":\"\xff\"}", 400, "invalid_json" },
        { "{\"m\":1}", 400, "unknown_field" },
        { "{\"n\":-1}", 400, "invalid_field" },
        { "{\"n\":4294967296}", 400, "invalid_field" },
        { "{\"n\":1e3}", 400, "invalid_field" },
        { "{\"n\":\"1\"}", 400, "invalid_field" },
        { "{\"text\":[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]}",
          400, "" },
    };

    start();
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        request("POST /echo", "", bad[i].body);
        ASSERT_STATUS(bad[i].status);
        ASSERT_CONTAINS(answer, bad[i].code);
        ASSERT_CONTAINS(answer, "{\"error\":{\"code\":\"");
    }
    request("DELETE /thing/x", "", "{\"force\":true}");
    ASSERT_REFUSED(400, "unknown_field");
    stop();
}

TEST(a_body_that_is_too_long_is_not_read)
{
    start();
    /* by its announcement: not a byte of it was sent */
    ask("POST /echo HTTP/1.1\r\nHost:\r\nContent-Length: 8193\r\n\r\n");
    ASSERT_REFUSED(413, "body_too_large");
    ask("POST /echo HTTP/1.1\r\nHost:\r\nContent-Length: 18446744073709551615\r\n\r\n");
    ASSERT_STATUS(413);     /* libmicrohttpd 1.0 answers such numbers by itself */
    ask("POST /echo HTTP/1.1\r\nHost:\r\nContent-Length: 99999999999999999999999\r\n\r\n");
    ASSERT_STATUS(413);
    still_serves();
    stop();
}

TEST(a_chunked_body_that_is_too_long_is_cut)
{
    autosbuf struct sbuf b = SBUF(MIB);

    start();
    sbuf_lit(&b, "POST /echo HTTP/1.1\r\nHost:\r\nTransfer-Encoding: chunked\r\n"
                 "Content-Type: application/json\r\n\r\n");
    for (int i = 0; i < 100; i++) {
        sbuf_lit(&b, "400\r\n");
        for (int j = 0; j < 1024; j++)
            sbuf_chr(&b, ' ');
        sbuf_lit(&b, "\r\n");
    }
    ask_bytes(b.data, b.len);
    ASSERT_REFUSED(413, "body_too_large");
    still_serves();
    ask("POST /echo HTTP/1.1\r\nHost:\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n"
        "Content-Type: application/json\r\n\r\n4\r\n{\"n\"\r\n3\r\n:3}\r\n0\r\n\r\n");
    ASSERT_STATUS(200);
    ASSERT_CONTAINS(answer, "{\"n\":3}");
    stop();
}

TEST(lengths_that_contradict_are_refused)
{
    start();
    ask("POST /echo HTTP/1.1\r\nHost:\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{} ");
    ASSERT_STATUS(400);
    ask("POST /echo HTTP/1.1\r\nHost:\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n"
        "2\r\n{}\r\n0\r\n\r\n");
    ASSERT_STATUS(400);
    ask("POST /echo HTTP/1.1\r\nHost:\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"
        "2\r\n{}\r\n0\r\n\r\n");
    ASSERT_STATUS(400);
    ask("POST /echo HTTP/1.1\r\nHost:\r\nContent-Length: -2\r\n\r\n{}");
    ASSERT_STATUS(400);
    ask("POST /echo HTTP/1.1\r\nHost:\r\nContent-Length: 2x\r\n\r\n{}");
    ASSERT_STATUS(400);
    still_serves();
    stop();
}

TEST(targets_are_decoded_with_care)
{
    static const struct { const char *target; int status; } t[] = {
        { "/thing/%61", 204 },       { "/thing/a%2fb", 204 },      { "/thing/a%2Fb/c", 404 },
        { "/thing/..", 204 },        { "/thing/%00", 400 },        { "/thing/a%", 400 },
        { "/thing/a%4", 400 },       { "/thing/%zz", 400 },        { "/thing/%ff", 400 },
        { "/thing/%c0%af", 400 },    { "/%74hing/x", 204 },        { "/thing/", 404 },
        { "/thing/x?force=true", 400 }, { "/thing/x?", 204 },      { "/thing/x?&&", 204 },
        { "/thing/x?%00", 400 },     { "/thing/%e2%98%83", 204 },
        { "/a/b/c/d/e/f/g/h/i/j/k/l/m/n/o/p/q/r", 404 },
    };

    start();
    for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
        char line[200];
        snprintf(line, sizeof(line), "DELETE %s", t[i].target);
        request(line, "", NULL);
        if (status() != t[i].status)
            FAIL("%s: %d, wanted %d", t[i].target, status(), t[i].status);
    }
    stop();
}

TEST(lines_that_are_not_http_end_the_connection)
{
    static const char *const bad[] = {
        "\r\n\r\n\r\n\r\n", "GET\r\n\r\n", "GET /echo\r\n\r\n", "GET /echo HTTP/9.9\r\n\r\n",
        "GET /echo HTTP/0.9\r\n\r\n", "\x16\x03\x01\x02\x01\x01\r\n\r\n",
        "GET /echo HTTP/1.1\r\n\r\n",
        "GET /echo HTTP/1.1\r\nHost\r\n\r\n", "GET /e cho HTTP/1.1\r\nHost:\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "GET /echo http/1.1\r\nHost:\r\n\r\n",
        " \r\n \r\n", "GET /echo HTTP/1.1\r\nHost: a\r\n b\r\n\r\n",
    };
    static const char nul[] = "GET /echo\0/../admin HTTP/1.1\r\nHost:\r\nConnection: close\r\n\r\n";

    start();
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        int fd = dial();
        say(fd, bad[i], strlen(bad[i]));
        shutdown(fd, SHUT_WR);
        read_all(fd);
        close(fd);
        if (status() == 200)
            FAIL("'%s' was served: %s", bad[i], answer);
    }
    /* a NUL ends the line for the library */
    ask_bytes(nul, sizeof(nul) - 1);
    still_serves();
    stop();
}

TEST(floods_of_headers_get_a_clean_answer)
{
    autosbuf struct sbuf b = SBUF(8 * MIB);

    start();
    sbuf_lit(&b, "GET /echo HTTP/1.1\r\nHost:\r\n");
    for (int i = 0; i < 20000; i++)
        sbuf_fmt(&b, "X-%d: %d\r\n", i, i);
    sbuf_lit(&b, "\r\n");
    ask_bytes(b.data, b.len);
    ASSERT_STATUS(431);
    b.len = 0;
    sbuf_lit(&b, "GET /");
    for (int i = 0; i < 100000; i++)
        sbuf_chr(&b, 'a');
    sbuf_lit(&b, " HTTP/1.1\r\nHost:\r\n\r\n");
    ask_bytes(b.data, b.len);
    ASSERT_STATUS(414);
    b.len = 0;
    sbuf_lit(&b, "GET /echo HTTP/1.1\r\nHost:\r\nX: ");
    for (int i = 0; i < 100000; i++)
        sbuf_chr(&b, 'a');
    sbuf_lit(&b, "\r\n\r\n");
    ask_bytes(b.data, b.len);
    ASSERT_STATUS(431);
    still_serves();
    stop();
}

TEST(requests_in_a_row_are_answered_in_a_row)
{
    autosbuf struct sbuf b = SBUF(MIB);
    int n = 0;

    start();
    for (int i = 0; i < 50; i++)
        sbuf_fmt(&b, "POST /echo HTTP/1.1\r\nHost:\r\nContent-Type: application/json\r\n"
                     "Content-Length: 8\r\n%s\r\n{\"n\":%2d}",
                 i == 49 ? "Connection: close\r\n" : "", i + 10);
    ask_bytes(b.data, b.len);
    for (const char *p = answer; (p = strstr(p, "{\"n\":")); p++, n++) {
        char want[32];
        snprintf(want, sizeof(want), "{\"n\":%d}", n + 10);
        ASSERT_EQ(strncmp(p, want, strlen(want)), 0);
    }
    ASSERT_EQ(n, 50);
    stop();
}

TEST(half_requests_are_cut_by_the_clock)
{
    static const char *const half[] = { "", "GET /ec", "GET /echo HTTP/1.1\r\nHost:\r\n",
        ("POST /echo HTTP/1.1\r\nHost:\r\nContent-Type: application/json\r\n"
         "Content-Length: 5\r\n\r\n{") };
    int fd[4];

    start_idle(1);
    for (int i = 0; i < 4; i++) {
        fd[i] = dial();
        say(fd[i], half[i], strlen(half[i]));
    }
    int64_t begin = now_mono_ms();
    for (int i = 0; i < 4; i++) {
        struct err e = ERR_INIT;
        /* byte by byte would keep the library's own clock from running out: that is the sweep's */
        while (io_wait(fd[i], POLLIN, deadline_in(100), &e) == 0) {
            http_sweep(server);
            if (now_mono_ms() - begin > WAIT_MS)
                FAIL("half a request holds its connection");
            say(fd[i], "x", 1);
        }
        close(fd[i]);
    }
    still_serves();
    stop();
}

TEST(a_handler_is_not_cut_by_the_clock)
{
    start_idle(1);
    int fd = dial();
    say(fd, "GET /slow HTTP/1.1\r\nHost:\r\n\r\n", 30);
    wait_for(&n_slow, 1);
    for (int i = 0; i < 25; i++) {
        usleep(100000);
        http_sweep(server);
    }
    ASSERT_EQ(atomic_load(&n_slow), 1);
    close(fd);
    stop();
}

TEST(many_connections_at_once)
{
    enum { N = 200 };
    int fd[N];
    int before = test_count_fds();

    start();
    for (int i = 0; i < N; i++)
        fd[i] = dial();
    for (int i = 0; i < N; i++)
        say(fd[i], "GET /echo HTTP/1.1\r\nHost:\r\nConnection: close\r\n\r\n", 49);
    for (int i = 0; i < N; i++) {
        read_all(fd[i]);
        ASSERT_STATUS(200);
        close(fd[i]);
    }
    stop();
    ASSERT_EQ(test_count_fds(), before);
}

/* Two answers of 2 MiB that nobody takes: what a socket holds of them is much less. Asked by
 * another user, since root has no limit. */
TEST(answers_that_are_not_taken_have_an_end)
{
    static const char get[] = "GET /big HTTP/1.1\r\nHost:\r\nConnection: close\r\n\r\n";
    int fd[2];

    SKIP_IF(getuid() != 0, "needs root to become somebody else");
    replies = 5 * MIB;
    start();
    ASSERT_SYS(chmod(test_dir(), 0755));
    ASSERT_SYS(chmod(test_path("s"), 0666));
    test_become(65534);
    for (int i = 0; i < 2; i++) {
        fd[i] = dial();
        say(fd[i], get, strlen(get));
        read_until(fd[i], "200 OK");
    }
    request("GET /big", "", NULL);
    ASSERT_REFUSED(429, "quota_exceeded");
    ASSERT_CONTAINS(answer, "\"details\":{\"quota\":\"replies\",\"limit\":5242880,"
                            "\"used\":4194304,\"requested\":2097152}");
    request("GET /echo", "", NULL);         /* small ones are not counted */
    ASSERT_STATUS(200);
    request("POST /big", "", NULL);         /* has been done, so it is answered */
    ASSERT_STATUS(200);
    test_become(0);
    request("GET /big", "", NULL);          /* others have their own */
    ASSERT_STATUS(200);
    test_become(65534);
    close(fd[0]);
    int64_t deadline = deadline_in(WAIT_MS);
    do
        request("GET /big", "", NULL);
    while (status() == 429 && now_mono_ms() < deadline);
    ASSERT_STATUS(200);
    test_become(0);
    close(fd[1]);
    stop();
}

TEST(one_user_cannot_take_all_requests)
{
    static const char slow[] = "GET /slow HTTP/1.1\r\nHost:\r\n\r\n";
    int fd[3];

    SKIP_IF(getuid() != 0, "needs root to become somebody else");
    requests = 3;
    start();
    ASSERT_SYS(chmod(test_dir(), 0755));
    ASSERT_SYS(chmod(test_path("s"), 0666));
    test_become(65534);
    for (int i = 0; i < 3; i++) {
        fd[i] = dial();
        say(fd[i], slow, strlen(slow));
    }
    wait_for(&n_slow, 3);
    /* refused before its body is read */
    ask("POST /echo HTTP/1.1\r\nHost:\r\nConnection: close\r\nContent-Type: application/json\r\n"
        "Content-Length: 4000\r\nExpect: 100-continue\r\n\r\n");
    ASSERT_REFUSED(429, "quota_exceeded");
    ASSERT_CONTAINS(answer, "\"details\":{\"quota\":\"requests\",\"limit\":3,\"used\":3,"
                            "\"requested\":1}");
    request("GET /free", "", NULL);         /* tells about quotas, so is none itself */
    ASSERT_STATUS(200);
    test_become(0);
    still_serves();
    test_become(65534);
    close(fd[0]);                           /* gone in the middle: given back too */
    wait_for(&n_slow, 2);
    int64_t deadline = deadline_in(WAIT_MS);
    do
        request("GET /echo", "", NULL);
    while (status() == 429 && now_mono_ms() < deadline);
    ASSERT_STATUS(200);
    /* the same connection again and again is one at a time; answers of all kinds give back */
    for (int i = 0; i < 10; i++) {
        request("GET /echo", "", NULL);
        ASSERT_STATUS(200);
        request("GET /fail", "", NULL);
        ASSERT_STATUS(500);
        request("GET /pieces", "", NULL);
        ASSERT_STATUS(200);
        request("GET /nowhere", "", NULL);
        ASSERT_STATUS(404);
    }
    test_become(0);
    close(fd[1]);
    close(fd[2]);
    stop();
}

/* Other users have connections of their own to use up; root has no limit but the total. */
TEST(one_user_cannot_take_all_connections)
{
    enum { N = LIMIT_CONNECTIONS / 2 + 20 };
    int fd[N], refused = 0;

    start();
    SKIP_IF(getuid() != 0, "needs root to become somebody else");
    ASSERT_SYS(chmod(test_dir(), 0755));
    ASSERT_SYS(chmod(test_path("s"), 0666));
    test_become(65534);
    for (int i = 0; i < N; i++)
        fd[i] = dial();
    test_become(0);
    /* Until as many were refused as should be, and once more around for those that should not. */
    int64_t end = deadline_in(15000);
    for (bool last = false; !last;) {
        last = refused >= 20 || now_mono_ms() > end;
        for (int i = 0; i < N; i++) {
            struct err e = ERR_INIT;
            if (fd[i] < 0 || io_wait(fd[i], POLLIN, deadline_in(1), &e) != 1)
                continue;
            read_all(fd[i]);
            ASSERT_REFUSED(429, "quota_exceeded");
            refused++;
            close(fd[i]);
            fd[i] = -1;
        }
    }
    ASSERT_EQ(refused, 20);
    still_serves();     /* as root */
    for (int i = 0; i < N; i++)
        if (fd[i] >= 0)
            close(fd[i]);
    stop();
}
