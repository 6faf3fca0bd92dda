/* SPDX-License-Identifier: MIT
 *
 * What well-behaved clients get from the HTTP layer.
 */
#include "common/auto.h"
#include "daemon/peer.h"
#include "daemon/store.h"
#include "tests/fakes/httpworld.h"

#include <grp.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* --- what clients get --- */

TEST(an_answer_is_compact_json_with_a_request_id)
{
    start();
    request("POST /echo", "", "{ \"text\": \"hi\" }");
    ASSERT_STATUS(200);
    ASSERT_CONTAINS(answer, "\r\n\r\n{\"text\":\"hi\",\"n\":7}");
    ASSERT_CONTAINS(answer, "Content-Type: application/json\r\n");
    ASSERT_CONTAINS(answer, "Sbx-Request-Id: ");
    ASSERT_CONTAINS(answer, "Cache-Control: no-store\r\n");
    stop();
}

TEST(a_body_may_be_absent_when_all_fields_are_optional)
{
    start();
    ASSERT_CONTAINS(request("POST /echo", "Content-Length: 0\r\n", NULL), "{\"n\":7}");
    ASSERT_CONTAINS(request("POST /echo", "", NULL), "{\"n\":7}");
    ASSERT_CONTAINS(request("GET /echo", "", "{}"), "nothing");
    stop();
}

TEST(head_is_get_without_a_body)
{
    start();
    request("HEAD /echo", "", NULL);
    ASSERT_STATUS(200);
    ASSERT_CONTAINS(answer, "Content-Length: 24\r\n");
    ASSERT_STREQ(strstr(answer, "\r\n\r\n"), "\r\n\r\n");
    stop();
}

TEST(no_content_has_none)
{
    start();
    request("DELETE /thing/x", "", NULL);
    ASSERT_STATUS(204);
    ASSERT_NULL(strstr(answer, "Content-Type"));
    stop();
}

TEST(routes_and_methods_that_are_not_there)
{
    start();
    request("GET /nowhere", "", NULL);
    ASSERT_REFUSED(404, "route_not_found");
    request("GET /echo/", "", NULL);
    ASSERT_REFUSED(404, "route_not_found");
    request("GET //echo", "", NULL);
    ASSERT_REFUSED(404, "route_not_found");
    request("GET http://localhost/echo", "", NULL);
    ASSERT_REFUSED(404, "route_not_found");
    request("OPTIONS *", "", NULL);
    ASSERT_REFUSED(404, "route_not_found");
    request("PUT /echo", "Content-Length: 0\r\n", NULL);
    ASSERT_REFUSED(405, "method_not_allowed");
    ASSERT_CONTAINS(answer, "Allow: GET, HEAD, POST\r\n");
    request("BREW /echo", "", NULL);
    ASSERT_REFUSED(405, "method_not_allowed");
    request("CONNECT /echo", "", NULL);
    ASSERT_REFUSED(405, "method_not_allowed");
    stop();
}

TEST(query_names_are_checked)
{
    start();
    request("GET /echo?a=1&b=2&b=3", "", NULL);
    ASSERT_STATUS(200);
    request("GET /echo?c=1", "", NULL);
    ASSERT_REFUSED(400, "unknown_field");
    request("GET /echo?a=1&a=2", "", NULL);
    ASSERT_REFUSED(400, "invalid_field");
    request("POST /echo?a=1", "", "{}");
    ASSERT_REFUSED(400, "unknown_field");
    stop();
}

TEST(admin_routes_are_for_admins)
{
    start();
    request("GET /admin", "", NULL);
    if (getuid() == 0)
        ASSERT_STATUS(204);
    else
        ASSERT_REFUSED(403, "permission_denied");
    stop();
}

TEST(internal_errors_keep_their_text)
{
    start();
    request("GET /fail", "", NULL);
    ASSERT_REFUSED(500, "internal");
    ASSERT_NULL(strstr(answer, "secret"));
    ASSERT_CONTAINS(answer, "look for request ");
    stop();
}

TEST(a_stream_is_chunked_and_ends)
{
    start();
    request("GET /pieces", "", NULL);
    ASSERT_STATUS(200);
    ASSERT_CONTAINS(answer, "Transfer-Encoding: chunked\r\n");
    ASSERT_CONTAINS(answer, "piece;\r\n0\r\n\r\n");
    stop();
}

TEST(a_stream_for_http_1_0_ends_with_the_connection)
{
    start();
    ask("GET /pieces HTTP/1.0\r\n\r\n");
    ASSERT_STATUS(200);
    ASSERT_CONTAINS(answer, "\r\n\r\npiece;piece;piece;");
    stop();
}

TEST(a_client_that_leaves_ends_its_stream)
{
    start();
    int fd = dial();
    say(fd, "GET /ever HTTP/1.1\r\nHost:\r\n\r\n", 30);
    ASSERT_GT(recv(fd, answer, 100, 0), 0);
    close(fd);
    wait_for(&n_freed, 1);
    stop();
}

TEST(a_client_that_leaves_is_noticed_by_its_handler)
{
    start();
    int fd = dial();
    say(fd, "GET /slow HTTP/1.1\r\nHost:\r\n\r\n", 30);
    wait_for(&n_slow, 1);
    close(fd);
    wait_for(&n_slow, 0);
    stop();
}

TEST(a_client_that_has_only_finished_sending_still_gets_its_answer)
{
    start();
    int fd = dial();
    say(fd, "GET /echo HTTP/1.1\r\nHost:\r\n\r\n", 30);
    shutdown(fd, SHUT_WR);
    read_all(fd);
    ASSERT_STATUS(200);
    close(fd);
    stop();
}

/* --- upgrade --- */

static const char up[] = "GET /up HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n"
                         "Upgrade: sbx-stream\r\n\r\n";

TEST(an_upgrade_hands_the_socket_over)
{
    start();
    int fd = dial();
    say(fd, up, sizeof(up) - 1);
    read_until(fd, "\r\n\r\n");
    ASSERT_STATUS(101);
    ASSERT_CONTAINS(answer, "Upgrade: sbx-stream\r\n");
    say(fd, "ping", 4);
    read_until(fd, "ping");
    close(fd);
    wait_for(&n_freed, 1);
    stop();
}

TEST(bytes_right_behind_the_request_are_not_lost)
{
    char text[sizeof(up) + 8];

    start();
    int fd = dial();
    snprintf(text, sizeof(text), "%s1234", up);
    say(fd, text, strlen(text));
    read_until(fd, "1234");
    close(fd);
    stop();
}

TEST(an_upgrade_is_needed_and_only_by_http_1_1)
{
    start();
    request("GET /up", "", NULL);
    ASSERT_REFUSED(426, "upgrade_required");
    ask("GET /up HTTP/1.0\r\nConnection: Upgrade\r\nUpgrade: sbx-stream\r\n\r\n");
    ASSERT_REFUSED(426, "upgrade_required");
    ask("GET /up HTTP/1.1\r\nHost:\r\nConnection: close, Upgrade\r\nUpgrade: websocket\r\n\r\n");
    ASSERT_REFUSED(426, "upgrade_required");
    stop();
}

/* --- stopping --- */

TEST(stopping_ends_what_waits_and_says_so)
{
    start();
    int slow = dial(), ever = dial(), upgraded = dial(), idle = dial();
    say(slow, "GET /slow HTTP/1.1\r\nHost:\r\n\r\n", 30);
    say(ever, "GET /ever HTTP/1.1\r\nHost:\r\n\r\n", 30);
    say(upgraded, up, sizeof(up) - 1);
    read_until(upgraded, "\r\n\r\n");
    read_until(ever, "\r\n\r\n");
    wait_for(&n_slow, 1);
    int64_t begin = now_mono_ms();
    stop();
    ASSERT_LT(now_mono_ms() - begin, 5000);
    read_all(slow);
    ASSERT_REFUSED(503, "unavailable");
    ASSERT_STREQ(read_all(upgraded), "STOP");
    ASSERT_STREQ(read_all(idle), "");
    ASSERT_CONTAINS(read_all(ever), "0\r\n\r\n");
    close(slow), close(ever), close(upgraded), close(idle);
}

TEST(a_socket_in_use_is_not_taken_over)
{
    struct err e = ERR_INIT;
    int other = -1;
    struct stat sb;

    start();
    ASSERT_ERR(http_listen(test_path("s"), PEER_NO_GROUP, &other, &e), e, ERR_UNAVAILABLE);
    ASSERT_SYS(stat(test_path("s"), &sb));
    ASSERT_EQ(sb.st_mode & 07777, 0660);
    request("GET /echo", "", NULL);
    ASSERT_STATUS(200);
    stop();
    /* now it is stale */
    ASSERT_OK(http_listen(test_path("s"), PEER_NO_GROUP, &other, &e), e);
    close(other);
    FILE *f = fopen(test_path("file"), "w");
    fclose(f);
    ASSERT_ERR(http_listen(test_path("file"), PEER_NO_GROUP, &other, &e), e, ERR_INVALID);
}

/* --- Idempotency-Key --- */

TEST(a_key_makes_a_request_happen_once)
{
    start();
    request("POST /count", "Idempotency-Key: k1\r\n", "{\"text\":\"a\"}");
    ASSERT_STATUS(201);
    ASSERT_CONTAINS(answer, "{\"n\":0}");
    ASSERT_NULL(strstr(answer, "Replayed"));
    request("POST /count", "Idempotency-Key: k1\r\n", "{\"text\":\"a\"}");
    ASSERT_STATUS(201);
    ASSERT_CONTAINS(answer, "{\"n\":0}");
    ASSERT_CONTAINS(answer, "Location: /count/0\r\n");
    ASSERT_CONTAINS(answer, "Idempotency-Replayed: true\r\n");
    request("POST /count", "Idempotency-Key: k1\r\n", "{\"text\":\"b\"}");
    ASSERT_REFUSED(422, "idempotency_mismatch");
    request("POST /count", "Idempotency-Key: k2\r\n", "{\"text\":\"a\"}");
    ASSERT_CONTAINS(answer, "{\"n\":1}");
    ASSERT_EQ(atomic_load(&n_counted), 2);
    stop();
}

TEST(a_failure_is_not_kept_for_a_key)
{
    start();
    request("POST /count", "Idempotency-Key: k\r\n", "{\"n\":666}");
    ASSERT_REFUSED(409, "name_in_use");
    request("POST /count", "Idempotency-Key: k\r\n", "{\"n\":1}");
    ASSERT_STATUS(201);
    ASSERT_CONTAINS(answer, "first\r\n");
    stop();
}

/* Makes the database what a daemon leaves that is killed before it keeps the answer. */
static void forget_answer(const char *key, char id[LIMIT_ID + 1])
{
    struct store *st = NULL;
    autofree char *hash = NULL, *body = NULL;
    struct err e = ERR_INIT;
    int code = 0;

    const char *object = strstr(answer, "Object: ");
    ASSERT_NOT_NULL(object);
    memcpy(id, object + strlen("Object: "), LIMIT_ID);
    id[LIMIT_ID] = '\0';
    ASSERT_OK(store_open(test_path("db"), &st, &e), e);
    ASSERT_EQ(store_idem_get(st, getuid(), key, &hash, &code, &body, &e), 1);
    ASSERT_EQ(code, 201);
    ASSERT_OK(store_idem_put(st, getuid(), key, hash, 0, id, &e), e);
    store_close(st);
}

TEST(a_request_that_was_cut_off_is_told_what_it_may_have_made)
{
    char id[LIMIT_ID + 1], line[64];

    start();
    request("POST /count", "Idempotency-Key: k\r\n", "{\"text\":\"a\"}");
    ASSERT_CONTAINS(answer, "first\r\n");
    forget_answer("k", id);
    request("POST /count", "Idempotency-Key: k\r\n", "{\"text\":\"a\"}");
    ASSERT_STATUS(201);
    snprintf(line, sizeof(line), "Object: %s again\r\n", id);
    ASSERT_CONTAINS(answer, line);
    request("POST /count", "Idempotency-Key: k\r\n", "{\"text\":\"b\"}");
    ASSERT_REFUSED(422, "idempotency_mismatch");
    request("POST /count", "", "{}");
    ASSERT_CONTAINS(answer, "Object:  first\r\n");
    stop();
}

static void *ask_with_key(void *arg)
{
    char text[1000];
    int fd = dial();
    int n = snprintf(text, sizeof(text), "POST /count HTTP/1.1\r\nHost:\r\nConnection: close\r\n"
                     "Idempotency-Key: same\r\nContent-Length: 2\r\n\r\n{}");
    say(fd, text, (size_t)n);
    while (recv(fd, text, sizeof(text), 0) > 0)
        ;
    close(fd);
    return NULL;
}

TEST(requests_with_one_key_at_once_happen_once)
{
    pthread_t t[8];

    start();
    for (int i = 0; i < 8; i++)
        ASSERT_EQ(pthread_create(&t[i], NULL, ask_with_key, NULL), 0);
    for (int i = 0; i < 8; i++)
        pthread_join(t[i], NULL);
    ASSERT_EQ(atomic_load(&n_counted), 1);
    stop();
}

TEST(keys_have_a_form)
{
    char long_key[200];

    start();
    request("POST /count", "Idempotency-Key: a b\r\n", "{}");
    ASSERT_REFUSED(400, "invalid_request");
    request("POST /count", "Idempotency-Key:\r\n", "{}");
    ASSERT_REFUSED(400, "invalid_request");
    snprintf(long_key, sizeof(long_key), "Idempotency-Key: %0100d\r\n", 1);
    request("POST /count", long_key, "{}");
    ASSERT_REFUSED(400, "invalid_request");
    stop();
}

/* --- peers --- */

TEST(the_caller_is_who_the_kernel_says)
{
    struct caller c;
    struct err e = ERR_INIT;
    int pair[2];

    ASSERT_SYS(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    ASSERT_OK(peer_read(pair[0], PEER_NO_GROUP, &c, &e), e);
    ASSERT_EQ(c.id.uid, geteuid());
    ASSERT_EQ(c.id.gid, getegid());
    ASSERT_EQ(c.pid, getpid());
    ASSERT_EQ(c.admin, geteuid() == 0);
    ASSERT_OK(peer_read(pair[0], getegid(), &c, &e), e);
    ASSERT_TRUE(c.admin);
    gid_t g;
    ASSERT_OK(peer_group("", &g, &e), e);
    ASSERT_EQ(g, PEER_NO_GROUP);
    ASSERT_OK(peer_group("root", &g, &e), e);
    ASSERT_EQ(g, 0);
    ASSERT_ERR(peer_group("no-such-group-here", &g, &e), e, ERR_INVALID);
}

/* Whether a process of that uid, primary group and these other groups is an administrator where
 * `admin` is the group of them. */
static bool is_admin(uid_t uid, gid_t gid, const gid_t *groups, size_t n, gid_t admin)
{
    int how = 0;
    pid_t pid = ASSERT_SYS(fork());

    if (pid == 0) {
        struct caller c;
        struct err e = ERR_INIT;
        int pair[2];

        /* who called is who made the socket */
        if (setgroups(n, groups) < 0 || setresgid(gid, gid, gid) < 0 ||
            setresuid(uid, uid, uid) < 0 || socketpair(AF_UNIX, SOCK_STREAM, 0, pair) < 0 ||
            peer_read(pair[0], admin, &c, &e) < 0 || c.id.uid != uid || c.id.gid != gid ||
            c.id.n_groups != n || (n && memcmp(c.id.groups, groups, n * sizeof(*groups)) != 0))
            _exit(2);
        _exit(c.admin ? 1 : 0);
    }
    ASSERT_EQ(waitpid(pid, &how, 0), pid);
    ASSERT_TRUE(WIFEXITED(how));
    ASSERT_LT(WEXITSTATUS(how), 2);
    return WEXITSTATUS(how);
}

TEST(who_is_in_the_admin_group_by_either_way_is_an_administrator)
{
    enum { UID = 65533, OWN = 65532, ADMIN = 4711 };
    const gid_t with[] = { 7, ADMIN, 65000 }, without[] = { 7, ADMIN - 1, ADMIN + 1 };

    SKIP_IF(getuid() != 0, "needs root to become somebody else");
    ASSERT_TRUE(is_admin(UID, ADMIN, NULL, 0, ADMIN));
    ASSERT_TRUE(is_admin(UID, ADMIN, without, ARRAY_SIZE(without), ADMIN));
    ASSERT_TRUE(is_admin(UID, OWN, with, ARRAY_SIZE(with), ADMIN));
    ASSERT_FALSE(is_admin(UID, OWN, without, ARRAY_SIZE(without), ADMIN));
    ASSERT_FALSE(is_admin(UID, OWN, NULL, 0, ADMIN));
    /* a uid of that number is no group */
    ASSERT_FALSE(is_admin(ADMIN, OWN, NULL, 0, ADMIN));
    /* no admin group: root alone, whatever groups another has */
    ASSERT_FALSE(is_admin(UID, 0, with, ARRAY_SIZE(with), PEER_NO_GROUP));
    ASSERT_TRUE(is_admin(0, OWN, NULL, 0, PEER_NO_GROUP));
    ASSERT_TRUE(is_admin(0, OWN, without, ARRAY_SIZE(without), ADMIN));
}
