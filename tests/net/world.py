# SPDX-License-Identifier: MIT
"""A sandboxd with real guests, and an Internet for them in namespaces of the test's own:

    guest ── tap ── the daemon's namespace (up0 203.0.113.2) ── in0 203.0.113.1 the "Internet"

The Internet has public addresses, private ones and a metadata service's, a server on each, the name
server that the daemon's resolver asks, and a sniffer that sees every packet on its wire."""
import collections
import contextlib
import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time

import dnslib
import pytest

sys.path.insert(1, os.path.join(os.path.dirname(os.path.dirname(__file__)), "harness"))
import netns  # noqa: E402
from sandboxd import Daemon, wait_until  # noqa: E402

UP, IN, UPSTREAM = "203.0.113.2", "203.0.113.1", "9.9.9.9"
HOST = "93.184.220.1"       # a public address of the host's
GATEWAY, RANGE = "10.209.0.1", "10.209."
WEB, WEB2, OTHER, DNS = "93.184.216.34", "93.184.216.35", "151.101.1.69", "8.8.8.8"
PRIVATE, METADATA = "10.0.0.5", "169.254.169.254"
ADDRESSES = [WEB, WEB2, OTHER, DNS, "1.1.1.1", UPSTREAM, PRIVATE, METADATA, "192.168.1.1", "172.16.0.9",
             "100.64.0.7"]
PORTS = [22, 53, 80, 443, 853, 5432, 8080]
TCP, UDP = 6, 17

Packet = collections.namedtuple("Packet", "ethertype proto source destination port data")


def run_in(fd, fn):
    """Calls fn in another network namespace: a thread's setns is its own."""
    out = []

    def go():
        netns.enter(fd)
        out.append(fn())
    t = threading.Thread(target=go)
    t.start()
    t.join()
    return out[0]


class Names(threading.Thread):
    """The name server of the Internet: zone[name] = (addresses, ttl) or a name for a CNAME."""

    def __init__(self, fd):
        super().__init__(daemon=True)
        self.zone, self.asked, self.delay = {}, collections.Counter(), 0
        self.socket = run_in(fd, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self.socket.bind((UPSTREAM, 53))
        self.start()

    def find(self, name):
        star = "*." + name.split(".", 1)[-1]
        return self.zone.get(name, self.zone.get(star))

    def run(self):
        with contextlib.suppress(OSError):
            while True:
                data, who = self.socket.recvfrom(4096)
                if not who:             # shut down
                    return
                q = dnslib.DNSRecord.parse(data)
                name = str(q.q.qname).rstrip(".").lower()
                self.asked[name] += 1
                reply, at = q.reply(), name
                if self.find(at) is None:
                    reply.header.rcode = 3
                while self.find(at) is not None and q.q.qtype == 1:
                    found = self.find(at)
                    label = q.q.qname if at == name else dnslib.DNSLabel(at)
                    if isinstance(found, str):
                        reply.add_answer(dnslib.RR(label, 5, rdata=dnslib.CNAME(found), ttl=60))
                        at = found
                        continue
                    for a in found[0]:
                        reply.add_answer(dnslib.RR(label, 1, rdata=dnslib.A(a), ttl=found[1]))
                    break
                self.socket.sendto(reply.pack(), who)


class Sniffer(threading.Thread):
    """Every packet on the Internet's side of the wire."""

    def __init__(self, fd, device):
        super().__init__(daemon=True)
        self.packets = []
        self.socket = run_in(fd, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)))
        self.socket.bind((device, 3))
        self.start()

    def run(self):
        with contextlib.suppress(OSError):
            while True:
                data, (_, _, kind, _, _) = self.socket.recvfrom(65536)
                if kind != socket.PACKET_OUTGOING:
                    self.packets.append(self.parse(data))

    @staticmethod
    def parse(data):
        ethertype = struct.unpack_from("!H", data, 12)[0]
        if ethertype != 0x800 or len(data) < 34:
            return Packet(ethertype, 0, "", "", 0, data)
        proto, first = data[23], not struct.unpack_from("!H", data, 20)[0] & 0x1fff
        header = 14 + (data[14] & 15) * 4
        port = struct.unpack_from("!H", data, header + 2)[0] if first and proto in (TCP, UDP, 132) else 0
        return Packet(ethertype, proto, socket.inet_ntoa(data[26:30]), socket.inet_ntoa(data[30:34]), port,
                      data)


class World:
    def __init__(self, **config):
        self.internet = netns.new()
        # names_per_second: generous, but for the test that asks for a flood
        self.d = Daemon(resolver_upstreams=[UPSTREAM], resolver_grace_s=1, default_policy="none", **config)
        self.at(self.d.network, f"ip link add up0 type veth peer name in0;"
                f"ip link set in0 netns /proc/{os.getpid()}/fd/{self.internet};"
                f"ip addr add {UP}/24 dev up0; ip addr add {HOST}/32 dev lo; ip link set up0 up; ip route add default via {IN}")
        self.at(self.internet, f"ip addr add {IN}/24 dev in0; ip link set in0 up;"
                f"ip route add {RANGE}0.0/16 via {UP};" +
                "".join(f"ip addr add {a}/32 dev lo;" for a in ADDRESSES))
        self.names = Names(self.internet)
        self.sniffer = Sniffer(self.internet, "in0")
        self.marker = run_in(self.d.network, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self.marks = 0
        self.sockets = []
        for port in PORTS:
            self.serve(self.internet, port)
        self.d.start()

    def at(self, where, script):
        r = subprocess.run(["sh", "-ec", script], capture_output=True, text=True, check=False,
                           preexec_fn=lambda: netns.enter(where))
        assert r.returncode == 0, (script, r.stderr)
        return r.stdout

    def host(self, script):
        return self.at(self.d.network, script)

    def serve(self, where, port, address="0.0.0.0"):
        """A greeting by TCP, an echo by UDP."""
        def tcp(s):
            with contextlib.suppress(OSError):
                while True:
                    c, _ = s.accept()
                    threading.Thread(target=talk, args=(c,), daemon=True).start()

        def talk(c):
            with c, contextlib.suppress(OSError):
                c.settimeout(60)
                line = c.recv(4096)
                if line.startswith(b"GET /"):
                    size = int(line.split(b"/")[1].split()[0] or 2)
                    c.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n" % size + bytes(size))
                elif line:
                    while line:         # a flow that goes on
                        c.sendall(line)
                        line = c.recv(4096)

        def udp(s):
            with contextlib.suppress(OSError):
                while True:
                    data, who = s.recvfrom(4096)
                    if not who:         # shut down
                        return
                    s.sendto(data, who)
        for kind, fn in ((socket.SOCK_STREAM, tcp), (socket.SOCK_DGRAM, udp)):
            s = run_in(where, lambda k=kind: socket.socket(socket.AF_INET, k))
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):      # the name server's own port
                s.bind((address, port))
                if kind == socket.SOCK_STREAM:
                    s.listen(256)
                self.sockets.append(s)
                threading.Thread(target=fn, args=(s,), daemon=True).start()

    # -- guests --

    def box(self, name, *rules, policy=None):
        path = self.d.dir + "/rules"
        with open(path, "w") as f:
            f.write("".join(r + "\n" for r in rules))
        self.d.ok("create", "--name", name, "--policy", policy or path)
        return Guest(self, name)

    # -- the wire --

    def caught_up(self):
        """Everything sent before has been seen by the sniffer."""
        self.marks += 1
        text = b"mark %d" % self.marks
        self.marker.sendto(text, (IN, 9))
        wait_until(lambda: any(p.data.endswith(text) for p in reversed(self.sniffer.packets)),
                   20, "mark on the wire")

    @contextlib.contextmanager
    def wire(self):
        """Packets of guests (all that is not the resolver's, the marks', ARP or ICMP of the host) seen
        on the way out meanwhile."""
        self.caught_up()
        start, seen = len(self.sniffer.packets), []
        yield seen
        self.caught_up()
        seen += [p for p in self.sniffer.packets[start:]
                 if not (p.proto == UDP and p.port == 53 and p.destination == UPSTREAM) and
                 not (p.proto == UDP and p.port == 9) and p.ethertype == 0x800]
        foreign = [p for p in self.sniffer.packets[start:] if p.ethertype not in (0x800, 0x806)]
        seen += [p for p in foreign if p.data[6:9] == b"\x02\x5b\x78"]

    def close(self):
        left = self.d.close()
        for s in [self.names.socket, self.sniffer.socket, self.marker, *self.sockets]:
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)
            s.close()
        os.close(self.internet)
        return left


@pytest.fixture(scope="module", name="world")
def a_world():
    """One sandboxd with an Internet per module. Not in conftest.py: the resolver's tests have a world of
    their own."""
    w = World()
    try:
        yield w
    finally:
        left = w.close()
    assert not left, left


class Guest:
    def __init__(self, world, name):
        self.world, self.d, self.name = world, world.d, name
        self.about = self.d.get(f"/v1/sandboxes/{name}")
        self.id, self.address = self.about["id"], self.about["network"]["address"]

    def root(self, script, **fields):
        return self.d.run_in(self.name, "bash", "-c", script, user="root", **fields)

    def python(self, script, **fields):
        return self.d.run_in(self.name, "python3", "-c", script, user="root", **fields)

    def probe(self, *probes):
        """Answers of `sbx-agent probe`, in order."""
        lines = "".join(json.dumps({"id": i + 1, **p}) + "\n" for i, p in enumerate(probes))
        r = self.d.run_in(self.name, "/proc/1/exe", "probe", user="root", workdir="/", stdin=lines)
        assert r["exit_code"] == 0, r
        answers = {a["id"]: a for a in map(json.loads, r["stdout"].splitlines())}
        return [answers[i + 1] for i in range(len(probes))]

    def seen(self, *probes):
        return [a["seen"] for a in self.probe(*probes)]

    def resolve(self, name):
        return self.probe({"kind": "dns", "name": name})[0]

    def tcp(self, address, port):
        return self.seen({"kind": "tcp", "address": address, "port": port})[0]

    def policy(self, *args):
        return self.d.ok("policy", *args[:1], self.name, *args[1:])

    def log(self, **want):
        """Lines of its log that have these members."""
        status, _, body = self.d.request("GET", f"/v1/sandboxes/{self.name}/policy/log")
        assert status == 200
        events = [json.loads(x) for x in body.splitlines()]
        assert all(e["sandbox"] == self.id for e in events)
        return [e for e in events if all(e[k] == v for k, v in want.items())]

    def logged(self, **want):
        """The kernel holds its packets for 50 ms."""
        return wait_until(lambda: self.log(**want), 10, f"line {want} in the log")[-1]

    def http(self, address, port=80, size=2):
        """Bytes that came by plain HTTP."""
        r = self.root(f"exec 3<>/dev/tcp/{address}/{port} && printf 'GET /{size} HTTP/1.0\\r\\n\\r\\n' >&3 &&"
                      " cat <&3 | wc -c")
        return int(r["stdout"] or 0) if r["exit_code"] == 0 else 0


def elapsed(fn):
    t = time.monotonic()
    fn()
    return time.monotonic() - t
