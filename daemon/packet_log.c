/* SPDX-License-Identifier: MIT */
#include "daemon/packet_log.h"

#include "common/auto.h"
#include "common/limits.h"
#include "common/parse.h"
#include "daemon/netlink.h"

#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_log.h>
#include <libnetfilter_log/libnetfilter_log.h>
#include <net/ethernet.h>
#include <netinet/in.h>
#include <string.h>

#define BUFFER (128 * 1024)
#define QUEUE_BYTES (1024 * 1024)       /* what the kernel keeps for us */
#define COPY 96                         /* bytes of a packet */
#define DELAY 5                         /* of messages put together, in hundredths of a second */
#define ROUNDS 16                       /* messages of one call, each of many packets */

struct packet_log {
    struct mnl_socket *s;       /* owned */
    char *buf;                  /* owned */
};

struct reading {
    packet_fn fn;
    void *arg;
};

bool packet_log_parse(const char *prefix, uint16_t ethertype, const uint8_t *data, size_t len,
                      struct packet_seen *ret)
{
    struct packet_seen p = { .ethertype = ethertype };
    char slot[12];
    size_t digits = strspn(prefix, "0123456789");

    if (digits == 0 || digits >= sizeof(slot) || prefix[digits] != ' ' || !prefix[digits + 1] ||
        !strchr("adfx", prefix[digits + 1]) || prefix[digits + 2])
        return false;
    memcpy(slot, prefix, digits);
    slot[digits] = '\0';
    if (!parse_u32(slot, 1, LIMIT_SANDBOXES, &p.slot))
        return false;
    p.why = (enum packet_why)prefix[digits + 1];
    *ret = p;
    if (ethertype != ETHERTYPE_IP || len < 20 || data[0] >> 4 != 4)
        return p.why == PACKET_FORGED;
    size_t header = (size_t)(data[0] & 15) * 4;
    ret->proto = data[9];
    ret->source = (uint32_t)data[12] << 24 | (uint32_t)data[13] << 16 | (uint32_t)data[14] << 8 |
                  data[15];
    ret->destination = (uint32_t)data[16] << 24 | (uint32_t)data[17] << 16 |
                       (uint32_t)data[18] << 8 | data[19];
    ret->first_fragment = ((data[6] & 0x1f) == 0 && data[7] == 0);
    if (!ret->first_fragment || header < 20 || len < header + 4)
        return true;
    const uint8_t *l4 = data + header;
    switch (ret->proto) {
    case IPPROTO_TCP:
    case IPPROTO_UDP:
    case IPPROTO_SCTP:
    case IPPROTO_UDPLITE:
        ret->port = (uint16_t)(l4[2] << 8 | l4[3]);
        break;
    case IPPROTO_ICMP:
        ret->port = l4[0];
        break;
    default:
        break;
    }
    return true;
}

/* Attributes from the kernel are well-formed; those that are missing stay NULL. */
static int on_message(const struct nlmsghdr *h, void *arg)
{
    const struct reading *r = arg;
    const struct nlattr *a, *prefix = NULL, *header = NULL, *payload = NULL, *vlan = NULL;
    struct packet_seen p;

    if ((h->nlmsg_type & 0xff) != NFULNL_MSG_PACKET)
        return MNL_CB_OK;
    mnl_attr_for_each(a, h, sizeof(struct nfgenmsg)) {
        switch (mnl_attr_get_type(a)) {
        case NFULA_PREFIX:
            prefix = mnl_attr_validate(a, MNL_TYPE_NUL_STRING) < 0 ? NULL : a;
            break;
        case NFULA_PACKET_HDR:
            header = a;
            break;
        case NFULA_PAYLOAD:
            payload = a;
            break;
        case NFULA_VLAN:        /* a tag that the device took off: the frame was no IPv4 */
            vlan = a;
            break;
        default:
            break;
        }
    }
    if (!prefix || !header || mnl_attr_get_payload_len(header) < 4)
        return MNL_CB_OK;
    const struct nfulnl_msg_packet_hdr *ph = mnl_attr_get_payload(header);
    uint16_t ethertype = vlan ? ETHERTYPE_VLAN : ntohs(ph->hw_protocol);
    if (packet_log_parse(mnl_attr_get_str(prefix), ethertype,
                         payload ? mnl_attr_get_payload(payload) : NULL,
                         payload ? mnl_attr_get_payload_len(payload) : 0, &p))
        r->fn(r->arg, &p);
    return MNL_CB_OK;
}

static int configure(struct mnl_socket *s, uint16_t group, struct err *e)
{
    char buf[NETLINK_MESSAGE];
    struct nlmsghdr *h = nflog_nlmsg_put_header(buf, NFULNL_MSG_CONFIG, AF_UNSPEC, group);

    h->nlmsg_seq = netlink_sequence(1);
    if (nflog_attr_put_cfg_cmd(h, NFULNL_CFG_CMD_BIND) < 0 ||
        netlink_do(s, h, e, "take the filter's log (group %u)", group) < 0) {
        if (e->sys == EBUSY || e->sys == EPERM)     /* the kernel's words for one that is taken */
            return err_hint(e, "another program listens to it; is another sandboxd running?");
        return err_hint(e, "the kernel needs CONFIG_NETFILTER_NETLINK_LOG (nfnetlink_log)");
    }
    h = nflog_nlmsg_put_header(buf, NFULNL_MSG_CONFIG, AF_UNSPEC, group);
    h->nlmsg_seq = netlink_sequence(1);
    nflog_attr_put_cfg_mode(h, NFULNL_COPY_PACKET, COPY);
    mnl_attr_put_u32(h, NFULA_CFG_TIMEOUT, htonl(DELAY));
    mnl_attr_put_u32(h, NFULA_CFG_QTHRESH, htonl(64));
    return netlink_do(s, h, e, "set up the filter's log");
}

int packet_log_open(uint16_t group, struct packet_log **ret, struct err *e)
{
    struct packet_log *l = calloc(1, sizeof(*l));
    int queue = QUEUE_BYTES;

    if (!l || !(l->buf = malloc(BUFFER))) {
        free(l);
        return err_nomem(e);
    }
    if (netlink_open(NETLINK_NETFILTER, 0, &l->s, e) < 0 || configure(l->s, group, e) < 0) {
        packet_log_close(l);
        return -1;
    }
    setsockopt(mnl_socket_get_fd(l->s), SOL_SOCKET, SO_RCVBUFFORCE, &queue, sizeof(queue));
    *ret = l;
    return 0;
}

void packet_log_close(struct packet_log *l)
{
    if (!l)
        return;
    netlink_close(l->s);
    free(l->buf);
    free(l);
}

int packet_log_fd(const struct packet_log *l)
{
    return mnl_socket_get_fd(l->s);
}

int packet_log_read(struct packet_log *l, packet_fn fn, void *arg, struct err *e)
{
    struct reading r = { fn, arg };
    int lost = 0;

    for (int i = 0; i < ROUNDS; i++) {
        ssize_t n = recv(mnl_socket_get_fd(l->s), l->buf, BUFFER, MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            break;
        if (n < 0 && errno == ENOBUFS)
            lost = 1;
        else if (n < 0)
            return err_sys(e, ERR_NETWORK, errno, "cannot read the filter's log");
        else
            mnl_cb_run(l->buf, (size_t)n, 0, 0, on_message, &r);
    }
    return lost;
}
