# SPDX-License-Identifier: MIT
"""sandboxd-resolver: what guests and strangers may do to it, what it may do, and how it ends."""
import os
import random
import shutil
import socket
import struct
import subprocess
import threading
import time

import pytest

from resolver_world import *  # noqa: F401,F403 (fixtures)
from resolver_world import NOBODY, OTHER, Guest, addresses, find_program, rcode, wait_for

SANITIZED = "asan" in os.environ.get("SBX_BUILD", "") or "SBX_SANITIZED" in os.environ


# --- garbage ---

def well(world, name="good.example.com", guest=OTHER):
    world.upstream.a(name, "192.0.2.1")
    assert addresses(world.ask(name, guest=guest)) == ["192.0.2.1"]


def test_garbage_by_udp(world):
    dice = random.Random(1)
    good = bytes.fromhex("123401000001000000000000") + b"\7example\3com\0\0\1\0\1"
    with Guest() as g:
        for i in range(2000):
            data = bytearray(good if i % 2 else dice.randbytes(dice.randrange(600)))
            for _ in range(dice.randrange(1, 5)):
                if data:
                    data[dice.randrange(len(data))] = dice.randrange(256)
            g.socket.send(bytes(data[:dice.randrange(len(data) + 1)]))
            if i % 50 == 0:
                time.sleep(0.01)
    well(world)


def questions_with_a_fault():
    head, name = struct.pack("!HHHHHH", 7, 0x100, 1, 0, 0, 0), b"\7example\3com\0"
    yield "two questions", struct.pack("!HHHHHH", 7, 0x100, 2, 0, 0, 0) + 2 * (name + b"\0\1\0\1"), 1
    yield "an answer", struct.pack("!HHHHHH", 7, 0x8180, 1, 0, 0, 0) + name + b"\0\1\0\1", None
    yield "with answers", struct.pack("!HHHHHH", 7, 0x100, 1, 1, 0, 0) + name + b"\0\1\0\1" + \
        name + b"\0\1\0\1\0\0\0\1\0\4\1\2\3\4", 1
    yield "update", struct.pack("!HHHHHH", 7, 0x2800, 1, 0, 0, 0) + name + b"\0\6\0\1", 4
    yield "chaos", head + b"\7version\4bind\0\0\x10\0\3", 4
    yield "cut", head + name + b"\0\1\0", 1
    yield "pointer", head + b"\xc0\x0c\0\1\0\1", 1
    yield "long label", head + b"\x40" + 64 * b"a" + b"\0\0\1\0\1", 1
    yield "long name", head + 5 * (b"\x3f" + 63 * b"a") + b"\0\0\1\0\1", 1
    yield "root", head + b"\0\0\1\0\1", 5
    yield "space", head + b"\5a b.c\3com\0\0\1\0\1", 5
    yield "more behind", head + name + b"\0\1\0\1more", 1
    yield "short", b"\0\7\1\0\0\1", None


def test_faults(world):
    for what, data, want in questions_with_a_fault():
        with Guest() as g:
            g.raw(data)
            m = g.socket.recv(600) if g.ready(0.3) else None
            if want is None:
                assert m is None, what
            else:
                assert m and m[:2] == b"\0\7" and m[3] & 15 == want and m[2] & 0x80, what
                assert len(m) <= len(data), what    # nothing is made bigger
    assert not world.daemon.asked and not world.upstream.queries


def test_garbage_by_tcp(world):
    for data in (b"\0\0", b"\xff\xff" + 100 * b"x", b"\0\5hello", b"\0\x20" + 32 * b"\xff"):
        with Guest(tcp=True) as g:
            g.socket.sendall(data)
            g.socket.settimeout(2)
            try:
                said = g.socket.recv(600)
            except ConnectionError:
                said = b""
            except TimeoutError:
                assert data[1] == 0x20      # an answer in form: silence, the connection stays
                continue
            assert said == b"", data
    well(world)


# --- bounds ---

def test_flood_of_one_guest(world):
    """The others are served, and nothing grows without end."""
    well(world, "known.example.com")
    before = world.upstream.queries[:]
    world.upstream.silent = True
    with Guest() as g:
        for i in range(3000):
            g.send("x%d.example.com" % i)
            if i % 20 == 0:
                time.sleep(0.002)
        start = time.monotonic()
        assert addresses(world.ask("known.example.com", guest=OTHER)) == ["192.0.2.1"]
        assert time.monotonic() - start < 2.5
        assert rcode(g.read()) == "SERVFAIL"
    new = {q.name for q in world.upstream.queries[len(before):]}
    assert len(new) <= 64 + 5
    assert world.files() < 64 + 64 + 32
    assert int(world.status("VmRSS").split()[0]) < 40000 or SANITIZED
    wait_for(lambda: world.files() < 20, 12, "the end of all lookups")


def test_flood_of_many_guests(world):
    well(world, "known.example.com")
    world.upstream.silent = True
    guests = [Guest("127.0.2.%d" % i) for i in range(1, 21)]
    for i in range(60):
        for g in guests:
            g.send("x%d-%d.example.com" % (i, id(g)))
        time.sleep(0.005)
    assert world.files() <= 512 + 64 + 32
    assert 300 < len({q.name for q in world.upstream.queries}) < 512
    start = time.monotonic()        # there is room for one more
    assert addresses(world.ask("known.example.com", guest=OTHER)) == ["192.0.2.1"]
    assert time.monotonic() - start < 2.5
    for g in guests:
        g.socket.close()
    world.upstream.silent = False
    wait_for(lambda: world.files() < 20, 12, "the end of all lookups")
    well(world)


def test_connections_of_one_guest(world):
    guests = [Guest(tcp=True) for _ in range(12)]
    time.sleep(0.2)
    ended = [g for g in guests if g.ready(0)]
    assert len(ended) == 4
    well(world)
    assert addresses(world.ask("good.example.com", guest=OTHER, tcp=True)) == ["192.0.2.1"]
    guests[0].send("good.example.com")
    assert addresses(guests[0].read()) == ["192.0.2.1"]
    for g in guests:
        g.socket.close()
    assert addresses(world.ask("good.example.com", tcp=True)) == ["192.0.2.1"]


def test_connections_of_all(world):
    guests = [Guest("127.0.2.%d" % (1 + i // 8), tcp=True) for i in range(72)]
    time.sleep(0.3)
    n = sum(not g.ready(0) for g in guests)
    assert 40 < n < 64, "some are left, for one who has none"
    well(world)
    assert addresses(world.ask("good.example.com", guest=OTHER, tcp=True)) == ["192.0.2.1"]
    for g in guests:
        g.socket.close()
    well(world)


def test_idle_connection(world):
    """Half a question is none, and a byte now and then does not keep a connection."""
    world.upstream.a("good.example.com", "192.0.2.1")
    with Guest(tcp=True) as idle, Guest(tcp=True) as slow:
        idle.send("good.example.com")
        assert addresses(idle.read()) == ["192.0.2.1"]
        start = time.monotonic()
        slow.socket.sendall(b"\0\x20")
        while not slow.ready(1) and time.monotonic() - start < 20:
            slow.socket.send(b"x")
        assert 8 < time.monotonic() - start < 13
        assert idle.read(timeout=3) is None and idle.ready(0)


def test_pipelined(world):
    for i in range(40):
        world.upstream.a("h%d.example.com" % i, "192.0.2.%d" % i)
    with Guest(tcp=True) as g:
        sent = {g.send("h%d.example.com" % i, ident=i): "192.0.2.%d" % i for i in range(40)}
        g.socket.shutdown(socket.SHUT_WR)       # what was asked is answered all the same
        got = {}
        for _ in range(40):
            m = g.read()
            got[m.header.id] = addresses(m)[0]
        assert got == sent and g.read() is None


def test_guest_that_does_not_read(world):
    world.upstream.a("many.example.com", *["192.0.2.%d" % i for i in range(1, 33)])
    with Guest(tcp=True) as g:
        g.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        g.socket.settimeout(0.5)
        q = bytes.fromhex("123401000001000000000000") + b"\4many\7example\3com\0\0\1\0\1"
        n = 0
        try:
            while n < 200000:
                g.socket.sendall((struct.pack("!H", len(q)) + q) * 50)
                n += 50
        except TimeoutError:
            pass
        assert n < 200000, "it reads on without end"
        assert int(world.status("VmRSS").split()[0]) < 40000 or SANITIZED
        well(world)


# --- the jail ---

@pytest.mark.skipif(SANITIZED, reason="sanitizers need more than the jail gives")
def test_jail(world):
    well(world)
    for key in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(world.status(key), 16) == 0, key
    assert world.status("NoNewPrivs") == "1" and world.status("Seccomp") == "2"
    assert set(world.status("Uid").split()) == set(world.status("Gid").split()) == {str(NOBODY)}
    assert world.status("Groups") == ""
    with open("/proc/%d/limits" % world.process.pid) as f:
        limits = {line[:26].strip(): line[26:].split()[0] for line in f}
    assert limits["Max processes"] == "0" and limits["Max core file size"] == "0"
    assert limits["Max open files"] == "608" and limits["Max address space"] == str(512 << 20)
    assert os.stat("/proc/%d/mem" % world.process.pid).st_uid == 0      # not dumpable
    # standard ones, loop, channel, two sockets
    assert sorted(os.listdir("/proc/%d/fd" % world.process.pid), key=int)[:3] == ["0", "1", "2"]
    assert world.files() == 7


@pytest.mark.parametrize("world", [{"start": False}], indirect=True)
def test_descriptors_that_were_left_open(world):
    extra = os.open("/etc/passwd", os.O_RDONLY)
    os.set_inheritable(extra, True)
    pass_fds = (extra, world.theirs.fileno(), world.udp.fileno(), world.tcp.fileno())
    world.process = subprocess.Popen(world.arguments() + ["--uid", str(NOBODY), "--gid", str(NOBODY)],
                                     pass_fds=pass_fds, stderr=subprocess.PIPE)
    os.close(extra)
    world.theirs.close()
    well(world)
    links = [os.readlink("/proc/%d/fd/%s" % (world.process.pid, f))
             for f in os.listdir("/proc/%d/fd" % world.process.pid)]
    assert "/etc/passwd" not in links


@pytest.mark.parametrize("world", [{"start": False}], indirect=True)
def test_started_as_its_own_user(world):
    """As sandboxd does it: no arguments about whom to become, no capabilities to drop others with."""
    pass_fds = (world.theirs.fileno(), world.udp.fileno(), world.tcp.fileno())
    world.process = subprocess.Popen(world.arguments(), pass_fds=pass_fds, stderr=subprocess.PIPE,
                                     user=NOBODY, group=NOBODY, extra_groups=[])
    for s in (world.theirs, world.udp, world.tcp):
        s.close()
    well(world)
    for key in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        assert int(world.status(key), 16) == 0, key
    assert world.status("NoNewPrivs") == "1" and (world.status("Seccomp") == "2" or SANITIZED)


@pytest.mark.parametrize("world", [{"upstreams": ()}], indirect=True)
def test_without_upstreams(world):
    assert rcode(world.ask("example.com")) == "SERVFAIL"
    assert rcode(world.ask("example.com", "AAAA")) == "NOERROR"


@pytest.mark.parametrize("world", [{"upstreams": ["127.0.1.%d" % i for i in range(2, 9)] + ["127.0.1.1"]}],
                         indirect=True)
def test_eight_upstreams(world):
    well(world)


@pytest.mark.parametrize("world", [{"start": False}], indirect=True)
@pytest.mark.parametrize("who", [(), ("--uid", str(NOBODY)), ("--uid", "0", "--gid", "0")])
def test_not_as_root(world, who):
    world.start(who)
    said = world.process.communicate(timeout=5)[1]
    assert world.process.returncode == 2 and said
    world.may_end = True


def test_arguments(namespace):
    program = find_program()

    def run(*a):
        return subprocess.run([program, *a], capture_output=True, text=True, timeout=5)
    assert run("--version").stdout.startswith("sandboxd-resolver ")
    assert run("--help").stdout.startswith("Usage:")
    for a in ([], ["--channel", "3"], ["--channel", "x"], ["--nonsense"], ["word"],
              ["--channel", "0", "--udp", "1", "--tcp", "2", "--upstream", "127.0.0.1"],
              ["--channel", "3", "--udp", "4", "--tcp", "5", "--upstream", "127.0.0.1"],
              9 * ["--upstream", "127.0.0.1"],
              ["--upstream", "example.com"], ["--upstream", "127.0.0.1:0"], ["--upstream", "::1"],
              ["--upstream", "127.0.0.1:53x"], ["--upstream", "[::1"], ["--nxdomain-ttl", "0"],
              ["--log-level", "loud"]):
        r = run(*a)
        assert r.returncode == 2 and r.stderr.startswith(("sandboxd-resolver: ", "err ")), a


# --- the end ---

def test_ends_with_the_channel(world):
    well(world)
    world.upstream.silent = True
    with Guest() as g, Guest(tcp=True) as t:
        g.send("example.com")
        t.send("example.com")
        wait_for(lambda: len(world.upstream.queries) > 1)
        assert world.end() == (0, "")


@pytest.mark.parametrize("message", [b"x", struct.pack("=III", 9, 0, 0), struct.pack("=III", 1, 0, 1),
                                     struct.pack("=IIII32I", 4, 0, 1, 33, *[0] * 32), b"y" * 4000])
def test_ends_with_a_daemon_of_another_build(world, message):
    well(world)
    world.daemon.send(message)
    assert world.process.wait(5) == 1
    assert "shape" in world.process.stderr.read().decode()
    world.may_end = True


@pytest.mark.parametrize("world", [{"start": False}], indirect=True)
def test_channel_that_is_full(world):
    """Messages wait for room, in order; none is lost."""
    world.daemon.channel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
    world.theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
    world.start()
    well(world)         # it is up: the socket alone has no room for that many
    world.upstream.a("example.com", "192.0.2.1")
    guests = [Guest("127.0.3.%d" % (1 + i // 50)) for i in range(300)]
    for g in guests:
        g.send("example.com")
    for g in guests:
        assert addresses(g.read()) == ["192.0.2.1"]
        g.socket.close()
    assert len(world.daemon.asked) == len(world.daemon.admissions) == 301



# --- the filter that docs/RESOLVER.md proposes ---

def connects(address, port):
    """Whether a process of the resolver's uid reaches something by TCP."""
    code = ("import os, socket, sys; os.setgid(%d); os.setuid(%d); s = socket.socket(); s.settimeout(1);"
            "sys.exit(s.connect_ex((%r, %d)) != 0)" % (NOBODY, NOBODY, address, port))
    return subprocess.run(["/usr/bin/python3", "-c", code], timeout=10).returncode == 0


@pytest.mark.skipif(not shutil.which("nft"), reason="no nft")
def test_filter_for_its_uid(world):
    with socket.create_server(("127.0.1.5", 8080)):
        assert connects("127.0.1.5", 8080) and connects("127.0.1.1", 53)
        rules = """table inet resolver { chain output { type filter hook output priority 0;
            meta skuid %d ct direction reply accept
            meta skuid %d ip daddr { 127.0.1.1 } meta l4proto { udp, tcp } th dport 53 accept
            meta skuid %d reject
            }
            }
            """ % (NOBODY, NOBODY, NOBODY)
        r = subprocess.run(["nft", "-f", "-"], input=rules, text=True, capture_output=True)
        if "not supported" in r.stderr or "No such file" in r.stderr:
            pytest.skip("nft: " + r.stderr)
        assert r.returncode == 0, r.stderr
        try:
            assert not connects("127.0.1.5", 8080) and connects("127.0.1.1", 53)
            well(world)
            assert addresses(world.ask("good.example.com", tcp=True)) == ["192.0.2.1"]
        finally:
            subprocess.run(["nft", "delete", "table", "inet", "resolver"], check=True)


# --- all at once ---

def test_chaos(world):
    """A daemon and an upstream in moods, guests of all kinds. Whatever happens: who is told an
    address was admitted for it before, with that name and that TTL or a longer one."""
    dice = random.Random(7)
    told = []
    names = ["n%d.example.com" % i for i in range(30)]
    for i, name in enumerate(names):
        if i % 3 == 0:
            world.upstream.cname(name, names[(i + 1) % 30])
        else:
            world.upstream.a(name, *["192.0.2.%d" % (i * 4 + k) for k in range(3)], ttl=1 + i % 4)
    ok, reply = {}, world.upstream.reply

    def moody(query):
        mood = dice.random()
        if mood < 0.05:
            return None
        m = reply(query)
        if mood < 0.1:
            m.header.rcode = 2
        if mood < 0.15:
            m.header.id ^= 1
        if mood < 0.2:
            return bytes(m.pack()[:dice.randrange(100)])
        return m
    world.upstream.reply = moody

    def admit(m):
        world.daemon.admit_delay = dice.choice((0, 0, 0.01, 0.1))
        if dice.random() < 0.03:
            return None
        some = [a for a in m.addresses if dice.random() < 0.7]
        ok.setdefault((m.guest, m.name), []).append((m.ttl, frozenset(some)))
        return 1, some
    world.daemon.admit = admit
    end = time.monotonic() + 6

    def guest(number):
        mine = random.Random(number)
        address = "127.0.4.%d" % (1 + number % 6)
        while time.monotonic() < end:
            name = mine.choice(names)
            with Guest(address, tcp=mine.random() < 0.3) as g:
                try:
                    for _ in range(mine.randrange(1, 4)):
                        g.send(name)
                    m = g.read(mine.choice((0.01, 0.5, 3)))
                except ConnectionError:
                    continue        # one too many
                if m and m.rr:
                    told.append((address, name, m.rr[0].ttl, frozenset(addresses(m))))
    threads = [threading.Thread(target=guest, args=(i,)) for i in range(12)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(told) > 100
    for address, name, ttl, some in told:
        assert some and (ttl, some) in ok[address, name]
    world.upstream.reply, world.daemon.admit_delay = reply, 0
    world.daemon.admit = lambda m: (1, m.addresses)
    wait_for(lambda: world.files() < 20, 15, "the end of all lookups and connections")
    well(world, "calm.example.com")


def test_many_names_do_not_grow_it(world):
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "dnsbench.py")

    def rss_after(n):
        subprocess.run(["/usr/bin/python3", script, "127.0.0.1", "-n", str(n), "-s", "16", "--unique", "x.example"],
                       check=True, stdout=subprocess.DEVNULL, timeout=60)
        return int(world.status("VmRSS").split()[0])
    first = rss_after(4000)
    assert rss_after(4000) < first + 512 or SANITIZED
