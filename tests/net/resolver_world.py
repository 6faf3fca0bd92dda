# SPDX-License-Identifier: MIT
"""What surrounds sandboxd-resolver in its tests: a network namespace of its own with nothing but
loopback, a played sandboxd on the channel, played upstreams, and guests that ask.

    def test_x(world):
        world.upstream.a("example.com", "192.0.2.1")
        assert addresses(world.ask("example.com")) == ["192.0.2.1"]

The program is taken from SBX_BUILD (a build tree), by default the newest build*/ of the source."""
import collections
import ctypes
import glob
import os
import random
import select
import socket
import struct
import subprocess
import threading
import time

import pytest
from dnslib import EDNS0, QTYPE, RCODE, RR, SOA, A, CNAME, DNSHeader, DNSQuestion, DNSRecord

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
GATEWAY, PORT = "127.0.0.1", 53
GUEST, OTHER = "127.0.0.2", "127.0.0.3"
UPSTREAM, SECOND = "127.0.1.1", "127.0.1.2"
NOBODY = 65534

ALLOW, REFUSED, NXDOMAIN, FAIL, NO_SANDBOX = 1, 2, 3, 4, 5
ASK, SAY, ADMIT, ADMITTED = 1, 2, 3, 4
ASK_FORM, SAY_FORM = "=IIIHH254s2x", "=III"
ADMIT_FORM, ADMITTED_FORM = "=IIIIII32I254s2032s2x", "=IIII32I"

Asked = collections.namedtuple("Asked", "guest name qtype tcp at")
Admission = collections.namedtuple("Admission", "guest name aliases addresses ttl at")
Query = collections.namedtuple("Query", "name raw qtype tcp id peer at")

CLONE_NEWNET = 0x40000000
libc = ctypes.CDLL(None, use_errno=True)


def find_program():
    tree = os.environ.get("SBX_BUILD")
    found = [tree + "/resolver/sandboxd-resolver"] if tree else \
        glob.glob(os.path.join(ROOT, "build*", "resolver", "sandboxd-resolver"))
    found = [f for f in found if os.access(f, os.X_OK)]
    if not found:
        pytest.skip("no sandboxd-resolver: build it, or name the build by SBX_BUILD=")
    return max(found, key=os.path.getmtime)


@pytest.fixture(scope="module")
def namespace():
    """This thread, and what it starts, in a network of its own."""
    if os.getuid() != 0:
        pytest.skip("needs root, for a network namespace")
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    if libc.unshare(CLONE_NEWNET) != 0:
        os.close(before)
        pytest.skip("no network namespace here")
    try:
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        yield
    finally:
        libc.setns(before, CLONE_NEWNET)
        os.close(before)


def text(raw):
    return raw.split(b"\0", 1)[0].decode()


def quad(number):
    return socket.inet_ntoa(struct.pack("!I", number))


def number(address):
    return struct.unpack("!I", socket.inet_aton(address))[0]


class Daemon:
    """Allows everything, until told otherwise."""

    def __init__(self, channel):
        self.channel = channel
        self.asked, self.admissions, self.replies = [], [], []
        self.ids = {}               # name -> id of the last ASK for it
        self.verdicts = {}          # name -> verdict, None: no reply
        self.admit = lambda m: (ALLOW, m.addresses)     # None: no reply
        self.admit_delay = 0
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            try:
                data = self.channel.recv(8192)
            except OSError:
                return
            if not data:
                return
            kind = struct.unpack("=I", data[:4])[0]
            (self.on_ask if kind == ASK else self.on_admit)(data)

    def send(self, data):
        try:
            self.channel.send(data)
        except OSError:
            pass

    def on_ask(self, data):
        _, ident, guest, qtype, tcp, name = struct.unpack(ASK_FORM, data)
        self.asked.append(Asked(quad(guest), text(name), QTYPE[qtype], bool(tcp), time.monotonic()))
        self.ids[text(name)] = ident
        verdict = self.verdicts.get(text(name), ALLOW)
        if verdict is not None:
            self.send(struct.pack(SAY_FORM, SAY, ident, verdict))

    def on_admit(self, data):
        f = struct.unpack(ADMIT_FORM, data)
        _, ident, guest, ttl, n, n_aliases = f[:6]
        m = Admission(quad(guest), text(f[38]),
                      [text(f[39][254 * i:254 * (i + 1)]) for i in range(n_aliases)],
                      [quad(a) for a in f[6:6 + n]], ttl, time.monotonic())
        self.admissions.append(m)
        said = self.admit(m)
        if said is None:
            return
        verdict, addresses = said
        reply = struct.pack(ADMITTED_FORM, ADMITTED, ident, verdict, len(addresses),
                            *([number(a) for a in addresses] + [0] * (32 - len(addresses))))
        if self.admit_delay:
            threading.Timer(self.admit_delay, self.late, [reply]).start()
        else:
            self.late(reply)

    def late(self, reply):
        self.replies.append(time.monotonic())
        self.send(reply)


class Upstream:
    """An authoritative server for everything: names map to lists of records, or to a function
    (server, query, tcp) -> a message, bytes, a list of them, or None for silence."""

    def __init__(self, address):
        self.address, self.queries, self.zone = address, [], {}
        self.delay = 0
        self.silent = False
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind((address, PORT))
        self.tcp = socket.socket()
        self.tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.tcp.bind((address, PORT))
        self.tcp.listen(64)
        self.threads = [threading.Thread(target=f, daemon=True) for f in (self.run_udp, self.run_tcp)]
        for t in self.threads:
            t.start()

    def close(self):
        for s in (self.udp, self.tcp):
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass        # woken it is all the same
        for t in self.threads:
            t.join(5)       # a call under way keeps the address in use
        for s in (self.udp, self.tcp):
            s.close()

    def a(self, name, *addresses, ttl=60):
        self.zone[name] = [RR(name, QTYPE.A, rdata=A(a), ttl=ttl) for a in addresses]

    def cname(self, name, target, ttl=60):
        self.zone[name] = [RR(name, QTYPE.CNAME, rdata=CNAME(target), ttl=ttl)]

    def reply(self, query):
        """What the zone says, following CNAMEs in it as a server does."""
        m = query.reply(ra=1)
        m.header.aa = 0
        name, seen = str(query.q.qname).rstrip(".").lower(), set()
        while name not in seen:
            seen.add(name)
            records = self.zone.get(name)
            if records is None:
                m.header.rcode = RCODE.NXDOMAIN
            if not records or callable(records):
                break
            m.add_answer(*[r for r in records if r.rtype in (query.q.qtype, QTYPE.CNAME)])
            if records[0].rtype != QTYPE.CNAME:
                break
            name = str(records[0].rdata.label).rstrip(".").lower()
        if not m.rr or m.header.rcode:
            m.add_auth(RR("test", QTYPE.SOA, ttl=90, rdata=SOA("ns.test", "root.test", (1, 2, 3, 4, 30))))
        return m

    def messages(self, data, tcp, peer):
        query = DNSRecord.parse(data)
        raw = str(query.q.qname).rstrip(".")
        self.queries.append(Query(raw.lower(), raw, QTYPE[query.q.qtype], tcp, query.header.id, peer,
                                  time.monotonic()))
        if self.silent:
            return []
        if self.delay:
            time.sleep(self.delay)
        entry = self.zone.get(raw.lower())
        said = entry(self, query, tcp) if callable(entry) else self.reply(query)
        if said is None:
            return []
        return [m if isinstance(m, bytes) else m.pack()
                for m in (said if isinstance(said, list) else [said])]

    def run_udp(self):
        while True:
            try:
                data, peer = self.udp.recvfrom(4096)
                if not peer:
                    return      # shut down
                for m in self.messages(data, False, peer):
                    self.udp.sendto(m, peer)
            except OSError:
                pass        # of who asked: gone

    def run_tcp(self):
        while True:
            try:
                c, peer = self.tcp.accept()
            except OSError:
                return
            with c:
                c.settimeout(2)
                try:
                    size = struct.unpack("!H", c.recv(2, socket.MSG_WAITALL))[0]
                    for m in self.messages(c.recv(size, socket.MSG_WAITALL), True, peer):
                        c.sendall(struct.pack("!H", len(m)) + m)
                except (OSError, struct.error):
                    pass


class Guest:
    """One socket of a guest."""

    def __init__(self, address=GUEST, tcp=False):
        self.tcp = tcp
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM)
        self.socket.bind((address, 0))
        self.socket.connect((GATEWAY, PORT))
        self.socket.settimeout(5)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, name, qtype="A", edns=True, ident=None):
        q = DNSRecord(DNSHeader(id=random.getrandbits(16) if ident is None else ident, rd=1),
                      q=DNSQuestion(name, getattr(QTYPE, qtype)))
        if edns:
            q.add_ar(EDNS0(udp_len=1232))
        self.raw(q.pack())
        return q.header.id

    def raw(self, data):
        self.socket.sendall(struct.pack("!H", len(data)) + data if self.tcp else data)

    def ready(self, seconds):
        return bool(select.select([self.socket], [], [], seconds)[0])

    def read(self, timeout=5):
        """A message; None: nothing has come, or the connection has ended."""
        self.socket.settimeout(timeout)
        try:
            if not self.tcp:
                return DNSRecord.parse(self.socket.recv(65535))
            head = self.socket.recv(2, socket.MSG_WAITALL)
            if len(head) < 2:
                return None
            return DNSRecord.parse(self.socket.recv(struct.unpack("!H", head)[0], socket.MSG_WAITALL))
        except (TimeoutError, ConnectionError):
            return None


class World:
    def __init__(self, upstreams=(UPSTREAM,), options=(), start=True):
        self.process = None
        self.servers = []
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.udp.bind((GATEWAY, PORT))
        self.tcp = socket.socket()
        self.tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.tcp.bind((GATEWAY, PORT))
        self.tcp.listen(64)
        ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.daemon = Daemon(ours)
        self.upstreams = upstreams
        self.upstream = self.serve(UPSTREAM)
        self.options = list(options)
        if start:
            self.start()

    def arguments(self):
        a = [find_program(), "--channel", str(self.theirs.fileno()), "--udp", str(self.udp.fileno()),
             "--tcp", str(self.tcp.fileno())]
        for u in self.upstreams:
            a += ["--upstream", u]
        return a + self.options

    def start(self, who=("--uid", str(NOBODY), "--gid", str(NOBODY))):
        files = (self.theirs.fileno(), self.udp.fileno(), self.tcp.fileno())
        self.process = subprocess.Popen(self.arguments() + list(who), pass_fds=files,
                                        stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
        for s in (self.theirs, self.udp, self.tcp):
            s.close()

    def serve(self, address):
        self.servers.append(Upstream(address))
        return self.servers[-1]

    def ask(self, name, qtype="A", guest=GUEST, tcp=False, edns=True, timeout=5, ident=None):
        with Guest(guest, tcp) as g:
            sent = g.send(name, qtype, edns, ident)
            m = g.read(timeout)
            if m is not None:
                assert m.header.id == sent and m.header.qr == 1 and m.header.ra == 1
                assert str(m.q.qname).rstrip(".") == name and m.q.qtype == getattr(QTYPE, qtype)
            return m

    def status(self, key):
        with open("/proc/%d/status" % self.process.pid) as f:
            for line in f:
                if line.startswith(key + ":"):
                    return line.split(":", 1)[1].strip()
        return None

    def files(self):
        return len(os.listdir("/proc/%d/fd" % self.process.pid))

    def end(self):
        """Ends the channel; the program's exit status and what it said."""
        self.daemon.channel.shutdown(socket.SHUT_RDWR)
        self.daemon.channel.close()
        said = self.process.communicate(timeout=5)[1]
        return self.process.returncode, said.decode()

    def close(self):
        for s in (self.udp, self.tcp, self.theirs):
            s.close()
        for s in self.servers:
            s.close()
        if self.process and self.process.poll() is None:
            try:
                self.daemon.channel.shutdown(socket.SHUT_RDWR)
                self.process.communicate(timeout=5)
            except (OSError, subprocess.TimeoutExpired):
                self.process.kill()
                self.process.communicate()
        self.daemon.channel.close()


@pytest.fixture
def world(namespace, request):
    """@pytest.mark.parametrize("world", [dict(...)], indirect=True) gives arguments to World."""
    w = World(**getattr(request, "param", {}))
    yield w
    alive = w.process is None or w.process.poll() is None or w.process.returncode == 0
    said = ""
    w.close()
    if alive and w.process:
        assert w.process.returncode == 0, w.process.returncode
    if not alive and w.process.stderr and not w.process.stderr.closed:
        said = w.process.stderr.read().decode()
    assert alive or getattr(w, "may_end", False), "ended by %s: %s" % (w.process.returncode, said)


def addresses(m):
    return sorted(str(r.rdata) for r in m.rr if r.rtype == QTYPE.A)


def rcode(m):
    return RCODE[m.header.rcode]


def ede(m):
    """The extended error's number (RFC 8914), or None."""
    for r in m.ar:
        if r.rtype == QTYPE.OPT:
            for option in r.rdata:
                if option.code == 15:
                    return struct.unpack("!H", option.data[:2])[0]
    return None


def wait_for(condition, seconds=5, what="it"):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "%s has not happened in %s s" % (what, seconds)
        time.sleep(0.02)
