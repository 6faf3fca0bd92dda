/* SPDX-License-Identifier: MIT
 *
 * Probes by the kernel's own sockets: TCP, UDP, other protocols, echo. The socket is connected and
 * has IP_RECVERR, so that the kernel says which ICMP error came, and of whom.
 */
#include "guest/probe.h"
#include "common/auto.h"
#include "common/io.h"
#include "common/parse.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/errqueue.h>
#include <netinet/in.h>
#include <netinet/ip_icmp.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* An ICMP error from the socket's queue. */
static bool take_icmp(int fd, struct probe_result *r)
{
    uint8_t data[512], control[512];
    struct iovec iov = { data, sizeof(data) };
    struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control,
                        .msg_controllen = sizeof(control) };

    if (recvmsg(fd, &m, MSG_ERRQUEUE | MSG_DONTWAIT) < 0)
        return false;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c)) {
        struct { struct sock_extended_err ee; struct sockaddr_in from; } x = { 0 };
        size_t len = c->cmsg_len - CMSG_LEN(0);

        if (c->cmsg_level != IPPROTO_IP || c->cmsg_type != IP_RECVERR || len < sizeof(x.ee))
            continue;
        memcpy(&x, CMSG_DATA(c), len < sizeof(x) ? len : sizeof(x));
        if (x.ee.ee_origin != SO_EE_ORIGIN_ICMP)
            continue;
        probe_say_icmp(r, x.ee.ee_type, x.ee.ee_code, ntohl(x.from.sin_addr.s_addr));
        return true;
    }
    return false;
}

static void say_errno(struct probe_result *r, int no)
{
    enum probe_seen seen = no == ECONNREFUSED || no == ECONNRESET  ? SEEN_RESET
                           : no == ENETUNREACH || no == EHOSTUNREACH ? SEEN_UNREACHABLE
                           : no == ETIMEDOUT                         ? SEEN_TIMEOUT
                                                                     : SEEN_FAILED;

    probe_say(r, seen, "%s", strerror(no));
}

int probe_wait(int fd, short events, int64_t deadline, struct probe_result *r)
{
    struct err e = ERR_INIT;
    int no = 0, ready = io_wait(fd, events, deadline, &e);
    socklen_t len = sizeof(no);

    if (ready < 0) {
        probe_say(r, SEEN_FAILED, "%s", e.msg);
        return -1;
    }
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &no, &len) < 0)
        no = errno;
    if (take_icmp(fd, r))
        return -1;
    if (no == 0)
        return ready;
    say_errno(r, no);
    return -1;
}

int probe_open(int type, int protocol, uint32_t address, uint16_t port, int64_t deadline,
               struct probe_result *r)
{
    struct sockaddr_in sa = { .sin_family = AF_INET, .sin_port = htons(port),
                              .sin_addr = { htonl(address) } };
    autoclose int fd = socket(AF_INET, type | SOCK_CLOEXEC | SOCK_NONBLOCK, protocol);
    int on = 1, ready;

    if (fd < 0 || setsockopt(fd, IPPROTO_IP, IP_RECVERR, &on, sizeof(on)) < 0 ||
        setsockopt(fd, SOL_SOCKET, SO_BROADCAST, &on, sizeof(on)) < 0) {
        probe_say(r, SEEN_FAILED, "cannot open a socket: %s", strerror(errno));
        return -1;
    }
    if (connect(fd, (struct sockaddr *)&sa, sizeof(sa)) == 0)
        return take_fd(&fd);
    if (errno != EINPROGRESS) {
        say_errno(r, errno);
        return -1;
    }
    ready = probe_wait(fd, POLLOUT, deadline, r);
    if (ready == 0)
        probe_say(r, SEEN_TIMEOUT, "no answer");
    return ready == 1 ? take_fd(&fd) : -1;
}

static void by_tcp(const struct probe *p, int64_t deadline, struct probe_result *r)
{
    autoclose int fd = probe_open(SOCK_STREAM, 0, p->address, p->port, deadline, r);

    if (fd >= 0)
        probe_say(r, SEEN_CONNECTED, "connected");
}

static uint16_t sum16(const uint8_t *b, size_t len)
{
    uint32_t s = 0;

    for (size_t i = 0; i < len; i++)
        s += i % 2 ? b[i] : (uint32_t)b[i] << 8;
    while (s >> 16)
        s = (s & 0xffff) + (s >> 16);
    return (uint16_t)~s;
}

/* Is what a raw socket got an answer to our echo? The IP header comes with it. */
static bool is_echo_reply(const uint8_t *b, size_t n, uint16_t id)
{
    size_t header = n > 0 ? (b[0] & 15u) * 4 : 0;

    return n >= header + 8 && header >= 20 && b[header] == ICMP_ECHOREPLY &&
           (b[header + 4] << 8 | b[header + 5]) == id;
}

static size_t build_payload(const struct probe *p, uint16_t id, uint8_t *b)
{
    static const char words[] = "sbx-probe";
    size_t n = p->size ? p->size : sizeof(words) - 1;

    for (size_t i = 0; i < n; i++)
        b[i] = (uint8_t)words[i % (sizeof(words) - 1)];
    if (p->kind != PROBE_ICMP)
        return n;
    if (n < 8)
        n = 8;
    memset(b, 0, 8);
    b[0] = ICMP_ECHO;
    b[4] = (uint8_t)(id >> 8);
    b[5] = (uint8_t)id;
    b[7] = 1;
    uint16_t sum = sum16(b, n);
    b[2] = (uint8_t)(sum >> 8);
    b[3] = (uint8_t)sum;
    return n;
}

static void by_datagram(const struct probe *p, int64_t deadline, struct probe_result *r)
{
    int type = p->kind == PROBE_UDP ? SOCK_DGRAM : SOCK_RAW;
    int protocol = p->kind == PROBE_UDP ? 0 : p->kind == PROBE_ICMP ? IPPROTO_ICMP : p->protocol;
    uint16_t id = (uint16_t)getpid();
    uint8_t b[2048];
    autoclose int fd = probe_open(type, protocol, p->address, p->port, deadline, r);

    if (fd < 0)
        return;
    if (send(fd, b, build_payload(p, id, b), 0) < 0) {
        int no = errno;

        if (!take_icmp(fd, r))
            say_errno(r, no);
        return;
    }
    for (;;) {
        int ready = probe_wait(fd, POLLIN, deadline, r);

        if (ready < 0)
            return;
        if (ready == 0)
            break;
        ssize_t n = recv(fd, b, sizeof(b), 0);
        if (n < 0 || (p->kind == PROBE_ICMP && !is_echo_reply(b, (size_t)n, id)))
            continue;
        probe_say(r, SEEN_ANSWERED, "%zd bytes came back", n);
        return;
    }
    probe_say(r, SEEN_SENT, "sent, nothing came back");
}

void probe_by_socket(const struct probe *p, struct probe_result *r)
{
    int64_t deadline = deadline_in(p->timeout_ms);

    if (p->kind == PROBE_TCP)
        by_tcp(p, deadline, r);
    else
        by_datagram(p, deadline, r);
}
