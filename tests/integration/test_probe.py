# SPDX-License-Identifier: MIT
"""`sbx-agent probe` in a network namespace, with a gateway played in another: what each probe says
when it gets through, when it is refused, and when nothing comes back; and what really left."""
import contextlib
import ctypes
import json
import os
import shutil
import socket
import struct
import subprocess
import tempfile
import threading
import time

import pytest

AGENT = os.environ.get("SBX_BUILD", "build") + "/guest/sbx-agent"
GUEST, GATEWAY = "10.209.0.8", "10.209.0.1"
GUEST_MAC, GATEWAY_MAC = "02:5b:78:01:00:07", "02:5b:78:00:00:01"
OUT = {"closed": "192.0.2.1", "silent": "192.0.2.2", "reset": "192.0.2.3"}
RULES = f"""
table inet t {{
    chain in {{
        type filter hook input priority 0; policy accept;
        ip daddr {OUT['closed']} reject with icmp type admin-prohibited
        ip daddr {OUT['silent']} drop
        ip daddr {OUT['reset']} meta l4proto tcp reject with tcp reset
        ip daddr {OUT['reset']} reject with icmp type host-unreachable
    }}
}}
"""

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not all(map(shutil.which, ("unshare", "nsenter", "ip", "nft"))),
    reason="needs root, ip and nft")


class Space:
    """A network namespace, held by a process."""
    def __init__(self):
        self.holder = subprocess.Popen(["unshare", "-n", "sleep", "600"])
        mine = os.readlink("/proc/self/ns/net")
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{self.holder.pid}/ns/net") != mine:
                    return
            time.sleep(0.01)
        raise AssertionError("no namespace")

    def run(self, *argv, **options):
        return subprocess.run(["nsenter", "-t", str(self.holder.pid), "-n", *argv], check=True,
                              timeout=60, **options)

    def call(self, make):
        """What make() returns, called by a thread in there: sockets stay where they were made."""
        got = []

        def work():
            with open(f"/proc/{self.holder.pid}/ns/net") as f:
                assert ctypes.CDLL(None).setns(f.fileno(), 0x40000000) == 0
            got.append(make())
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        return got[0]

    def close(self):
        self.holder.kill()
        self.holder.wait()


def dns_answer(query):
    """By the name: none.* is NXDOMAIN, no.* is refused, empty.* has no records, else two."""
    first = query[13:13 + query[12]]
    if first == b"mute":
        return None
    rcode = {b"none": 3, b"no": 5, b"fail": 2, b"probe": 3}.get(first, 0)
    end = query.index(b"\0", 12) + 5
    addresses = [] if rcode or first == b"empty" else ["198.51.100.7", "198.51.100.8"]
    head = query[:2] + struct.pack(">HHHHH", 0x8180 | rcode, 1, len(addresses), 0, 0)
    return head + query[12:end] + b"".join(
        b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 60, 4) + socket.inet_aton(a) for a in addresses)


class Far:
    """The gateway: TCP on 8080, UDP echo on 9000, DNS on 53, and a record of all frames."""
    def __init__(self):
        self.space = Space()
        self.frames = []
        self.stopping = False

    def bound(self, kind, port):
        s = socket.socket(socket.AF_INET, kind)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(("0.0.0.0", port))
        if kind == socket.SOCK_STREAM:
            s.listen(16)
        return s

    def start(self):
        make = self.space.call
        self.sniffer = make(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW,
                                                  socket.htons(3)))
        self.web = make(lambda: self.bound(socket.SOCK_STREAM, 8080))
        udp, dns = (make(lambda port=p: self.bound(socket.SOCK_DGRAM, port)) for p in (9000, 53))
        dns_tcp = make(lambda: self.bound(socket.SOCK_STREAM, 53))
        for target, s in ((self.sniff, self.sniffer), (self.echo, udp), (self.dns, dns),
                          (self.dns_tcp, dns_tcp)):
            s.settimeout(0.2)
            threading.Thread(target=self.loop, args=(target, s), daemon=True).start()

    def loop(self, step, s):
        while not self.stopping:
            with contextlib.suppress(OSError):      # also: no way to who is not there
                step(s)

    def sniff(self, s):
        frame, where = s.recvfrom(65536)
        if where[2] != socket.PACKET_OUTGOING:
            self.frames.append(frame)

    def echo(self, s):
        data, who = s.recvfrom(4096)
        s.sendto(data, who)

    def dns(self, s):
        query, who = s.recvfrom(4096)
        answer = dns_answer(query)
        if answer:
            s.sendto(answer, who)

    def dns_tcp(self, s):
        c, _ = s.accept()
        with c:
            c.settimeout(5)
            query = c.recv(4096)[2:]
            answer = dns_answer(query)
            c.sendall(struct.pack(">H", len(answer)))
            time.sleep(0.05)        # in two pieces
            c.sendall(answer)

    def close(self):
        self.stopping = True
        self.space.close()


class Guest:
    def __init__(self, far, directory):
        self.space, self.far = Space(), far
        self.resolv = directory + "/resolv.conf"
        with open(self.resolv, "w") as f:
            f.write(f"# nameserver 9.9.9.9\nnameserver {GATEWAY}\n")
        pids = [str(s.holder.pid) for s in (self.space, far.space)]
        self.space.run("ip", "link", "add", "eth0", "address", GUEST_MAC, "type", "veth", "peer",
                       "name", "far", "address", GATEWAY_MAC, "netns", pids[1])
        for argv in (("link", "set", "lo", "up"), ("addr", "add", GUEST + "/32", "dev", "eth0"),
                     ("link", "set", "eth0", "up"),
                     ("neigh", "replace", GATEWAY, "lladdr", GATEWAY_MAC, "dev", "eth0", "nud",
                      "permanent"),
                     ("route", "add", GATEWAY, "dev", "eth0", "scope", "link"),
                     ("route", "add", "default", "via", GATEWAY, "dev", "eth0")):
            self.space.run("ip", *argv)
        for argv in (("link", "set", "lo", "up"), ("link", "set", "far", "up"),
                     ("addr", "add", GATEWAY + "/32", "dev", "far"),
                     ("route", "add", GUEST, "dev", "far"),
                     *(("addr", "add", a + "/32", "dev", "lo") for a in OUT.values())):
            far.space.run("ip", *argv)
        # else six ICMP errors, and then one a second
        far.space.run("sh", "-c", "echo 0 > /proc/sys/net/ipv4/icmp_ratelimit")
        far.space.run("nft", "-f", "-", input=RULES, text=True)

    def raw(self, text):
        r = subprocess.run(
            ["nsenter", "-t", str(self.space.holder.pid), "-n", "unshare", "-m", "sh", "-c",
             'mount --bind "$1" /etc/resolv.conf && exec "$2" probe', "sh", self.resolv,
             os.path.abspath(AGENT)],
            input=text, capture_output=True, text=True, timeout=60)
        assert r.stderr == ""
        return r.returncode, [json.loads(line) for line in r.stdout.splitlines()]

    def probe(self, *probes):
        """The answers in the order of the questions, and the frames that came out."""
        del self.far.frames[:]
        text = "".join(json.dumps({"id": i, "timeout_ms": 400, **p}) + "\n"
                       for i, p in enumerate(probes))
        status, answers = self.raw(text)
        assert status == 0
        answers.sort(key=lambda a: a["id"])
        assert [a["id"] for a in answers] == list(range(len(probes)))
        for a, p in zip(answers, probes):
            assert a["kind"] == p["kind"] and a["text"]
        time.sleep(0.1)
        return answers, list(self.far.frames)

    def one(self, kind, **p):
        (answer,), frames = self.probe({"kind": kind, **p})
        return answer, frames

    def close(self):
        self.space.close()


@pytest.fixture(scope="module")
def guest():
    far = Far()
    with tempfile.TemporaryDirectory() as d:
        g = Guest(far, d)
        try:
            far.start()
            yield g
        finally:
            g.close()
            far.close()


def mac(text):
    return bytes.fromhex(text.replace(":", ""))


def ipv4(frames, source=GUEST):
    return [f for f in frames if f[12:14] == b"\x08\x00" and f[26:30] == socket.inet_aton(source)]


def test_tcp(guest):
    answers, _ = guest.probe(
        {"kind": "tcp", "address": GATEWAY, "port": 8080},
        {"kind": "tcp", "address": GATEWAY, "port": 8081},
        {"kind": "tcp", "address": OUT["closed"], "port": 443},
        {"kind": "tcp", "address": OUT["silent"], "port": 443},
        {"kind": "tcp", "address": OUT["reset"], "port": 443})
    assert [a["seen"] for a in answers] == ["connected", "reset", "prohibited", "timeout", "reset"]
    assert "code 13 of " in answers[2]["text"]
    assert 390 <= answers[3]["ms"] < 2000


def test_udp(guest):
    answers, _ = guest.probe(
        {"kind": "udp", "address": GATEWAY, "port": 9000, "size": 1200},
        {"kind": "udp", "address": GATEWAY, "port": 9001},
        {"kind": "udp", "address": OUT["closed"], "port": 443},
        {"kind": "udp", "address": OUT["silent"], "port": 443},
        {"kind": "udp", "address": OUT["reset"], "port": 443})
    assert [a["seen"] for a in answers] == ["answered", "unreachable", "prohibited", "sent",
                                            "unreachable"]
    assert "1200 bytes" in answers[0]["text"] and "nobody listens" in answers[1]["text"]


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_dns(guest, transport):
    answers, _ = guest.probe(
        {"kind": "dns", "name": "example.com", "transport": transport},
        {"kind": "dns", "name": "none.example", "transport": transport},
        {"kind": "dns", "name": "no.example", "transport": transport},
        {"kind": "dns", "name": "empty.example", "transport": transport},
        {"kind": "dns", "name": "fail.example.", "transport": transport},
        {"kind": "dns", "name": "a..b", "transport": transport},
        {"kind": "dns-at", "name": "example.com", "address": OUT["closed"], "transport": transport},
        {"kind": "dns-at", "name": "example.com", "address": OUT["silent"], "transport": transport},
        {"kind": "dns-at", "name": "example.com", "address": GATEWAY, "port": 54,
         "transport": transport})
    assert [a["seen"] for a in answers] == [
        "resolved", "nxdomain", "refused", "empty", "servfail", "failed", "prohibited", "timeout",
        "reset" if transport == "tcp" else "unreachable"]
    assert answers[0]["addresses"] == ["198.51.100.7", "198.51.100.8"]
    assert [a.get("rcode") for a in answers[:5]] == [0, 3, 5, 0, 2]


def test_dns_without_an_answer(guest):
    assert guest.one("dns", name="mute.example")[0]["seen"] == "timeout"


def test_other_protocols(guest):
    answers, frames = guest.probe(
        {"kind": "icmp", "address": GATEWAY, "size": 900},
        {"kind": "icmp", "address": OUT["closed"]},
        {"kind": "icmp", "address": OUT["silent"]},
        {"kind": "ip", "address": OUT["closed"], "protocol": 47},
        {"kind": "ip", "address": OUT["silent"], "protocol": 132},
        {"kind": "ip", "address": OUT["reset"], "protocol": 50})
    assert [a["seen"] for a in answers] == ["answered", "prohibited", "sent", "prohibited", "sent",
                                            "unreachable"]
    assert {1, 47, 132, 50} <= {f[23] for f in ipv4(frames)}


def test_a_foreign_source_address_leaves(guest):
    for transport, protocol in (("udp", 17), ("tcp", 6)):
        answer, frames = guest.one("spoof-address", address=GATEWAY, port=9000, source="10.209.0.9",
                                   transport=transport)
        assert answer["seen"] == "sent"
        (f,) = ipv4(frames, "10.209.0.9")
        assert f[6:12] == mac(GUEST_MAC) and f[23] == protocol


def test_a_foreign_mac_leaves_and_its_answer_is_seen(guest):
    other = "02:5b:78:01:00:63"
    answer, frames = guest.one("spoof-mac", address=GATEWAY, port=53, mac=other)
    assert [f[6:12] for f in ipv4(frames) if f[23] == 17] == [mac(other)]
    assert answer["seen"] == "answered"     # nobody filters here
    assert guest.one("spoof-mac", address=OUT["silent"], port=53, mac=other)[0]["seen"] == "sent"
    answer, _ = guest.one("spoof-mac", address=OUT["closed"], port=1, mac=other)
    assert answer["seen"] == "prohibited"
    answer, _ = guest.one("spoof-mac", address=OUT["reset"], port=1, mac=other, transport="tcp")
    assert answer["seen"] == "reset"


def test_vlan(guest):
    answer, frames = guest.one("vlan", address=GATEWAY, port=53, vlan=7)
    assert answer["seen"] == "sent"
    # the receiving kernel takes the tag off, or leaves it where it is
    assert any(f[12:14] in (b"\x08\x00", b"\x81\x00") for f in frames)


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_fragments(guest, transport):
    answer, frames = guest.one("fragments", address=GATEWAY, port=9000 if transport == "udp" else
                               8080, transport=transport)
    assert answer["seen"] == "answered", "a host puts them together"
    offsets = [struct.unpack(">H", f[20:22])[0] for f in ipv4(frames)]
    assert offsets[0] & 0x2000 and offsets[1] == (3 if transport == "udp" else 1)
    answer, _ = guest.one("fragments", address=OUT["silent"], port=53, transport=transport)
    assert answer["seen"] == "sent"


def test_arp(guest):
    answer, frames = guest.one("arp", address=GATEWAY)
    assert answer["seen"] == "answered" and GATEWAY_MAC in answer["text"]
    answer, frames = guest.one("arp-announce", address=GATEWAY)
    (f,) = [f for f in frames if f[12:14] == b"\x08\x06"]
    assert answer["seen"] == "sent" and f[28:32] == f[38:42] == socket.inet_aton(GATEWAY)


def test_ipv6_and_other_frames(guest):
    answers, frames = guest.probe({"kind": "ipv6-rs"}, {"kind": "ethertype", "ethertype": 0x88cc})
    assert answers[1]["seen"] == "sent" and answers[0]["seen"] in ("sent", "answered")
    assert any(f[12:14] == b"\x88\xcc" for f in frames)
    rs = [f for f in frames if f[12:14] == b"\x86\xdd" and f[54] == 133]
    assert rs and rs[0][:6] == mac("33:33:00:00:00:02")
    # the gateway of this test has IPv6 and knows its neighbours
    answer, _ = guest.one("ipv6-ns", timeout_ms=3000)
    assert answer["seen"] == "answered"
    answer, frames = guest.one("ipv6-udp", port=53)
    assert any(f[12:14] == b"\x86\xdd" and f[20] == 17 for f in frames)


def test_many_at_once_take_the_time_of_a_few(guest):
    began = time.monotonic()
    answers, _ = guest.probe(*[{"kind": "udp", "address": OUT["silent"], "port": 1000 + i}
                               for i in range(60)])
    assert {a["seen"] for a in answers} == {"sent"}
    assert time.monotonic() - began < 10


def test_what_makes_no_sense_is_said_and_the_rest_is_done(guest):
    status, answers = guest.raw('nonsense\n\n{"id":3,"kind":"teleport"}\n{"id":4,"kind":"tcp"}\n'
                                f'{{"id":5,"kind":"udp","address":"{GATEWAY}","port":9000}}')
    assert status == 0
    assert sorted((a["id"], a["seen"]) for a in answers) == [(0, "failed"), (3, "failed"),
                                                             (4, "failed"), (5, "answered")]
    assert guest.raw("x" * 5000)[0] == 1
    assert guest.raw("") == (0, [])
    status, answers = guest.raw('{"kind":"x"}\n' * 513)
    assert status == 1 and len(answers) == 512


def test_without_a_network():
    space = Space()
    try:
        r = subprocess.run(["nsenter", "-t", str(space.holder.pid), "-n", os.path.abspath(AGENT),
                            "probe"], capture_output=True, text=True, timeout=60,
                           input='{"id":1,"kind":"tcp","address":"192.0.2.1","port":80}\n'
                                 '{"id":2,"kind":"vlan","address":"192.0.2.1","port":80,"vlan":1}\n')
        answers = sorted(map(json.loads, r.stdout.splitlines()), key=lambda a: a["id"])
        assert [a["seen"] for a in answers] == ["unreachable", "failed"]
    finally:
        space.close()
