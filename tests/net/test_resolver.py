# SPDX-License-Identifier: MIT
"""sandboxd-resolver: what guests are told, and what has to happen before."""
import json
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import time

import pytest
from dnslib import QTYPE, RR, A, CNAME, DNSRecord, MX, SRV, TXT

from resolver_world import *  # noqa: F401,F403 (fixtures)
from resolver_world import (ADMITTED, ALLOW, FAIL, GUEST, NO_SANDBOX, NXDOMAIN, OTHER, REFUSED, SAY,
                            SECOND, UPSTREAM, Guest, addresses, ede, rcode, wait_for)


def test_allowed(world):
    world.upstream.a("example.com", "192.0.2.1", "192.0.2.2", ttl=77)
    m = world.ask("example.com")
    assert rcode(m) == "NOERROR" and addresses(m) == ["192.0.2.1", "192.0.2.2"]
    assert [r.ttl for r in m.rr] == [77, 77]
    (asked,), (admitted,) = world.daemon.asked, world.daemon.admissions
    assert asked[:4] == (GUEST, "example.com", "A", False)
    assert admitted[:5] == (GUEST, "example.com", [], ["192.0.2.1", "192.0.2.2"], 77)
    assert asked.at < world.upstream.queries[0].at < admitted.at


def test_by_tcp(world):
    world.upstream.a("example.com", "192.0.2.1")
    assert addresses(world.ask("example.com", tcp=True)) == ["192.0.2.1"]
    assert world.daemon.asked[0].tcp


def test_refused_asks_nobody(world):
    world.upstream.a("secret.example.com", "192.0.2.1")
    world.daemon.verdicts["secret.example.com"] = REFUSED
    m = world.ask("secret.example.com")
    assert rcode(m) == "REFUSED" and not m.rr and ede(m) == 15
    m = world.ask("secret.example.com", edns=False)
    assert rcode(m) == "REFUSED" and not m.ar
    assert not world.upstream.queries and not world.daemon.admissions


@pytest.mark.parametrize("world", [{"options": ["--nxdomain-ttl", "9"]}], indirect=True)
def test_nxdomain_where_it_is_to_look_so(world):
    world.daemon.verdicts["x.example.com"] = NXDOMAIN
    m = world.ask("x.example.com")
    assert rcode(m) == "NXDOMAIN" and m.auth[0].rtype == QTYPE.SOA and m.auth[0].ttl == 9
    assert not world.upstream.queries


def test_nobody_is_told_nothing(world):
    world.daemon.verdicts["example.com"] = NO_SANDBOX
    assert world.ask("example.com", timeout=0.5) is None
    assert world.ask("example.com", tcp=True, timeout=0.5) is None
    assert not world.upstream.queries


def test_fail(world):
    world.daemon.verdicts["example.com"] = FAIL
    assert rcode(world.ask("example.com")) == "SERVFAIL"


def test_silent_daemon(world):
    world.daemon.verdicts["example.com"] = None
    start = time.monotonic()
    assert rcode(world.ask("example.com")) == "SERVFAIL"
    assert 1.9 < time.monotonic() - start < 5
    world.upstream.a("other.example.com", "192.0.2.1")
    world.daemon.admit = lambda m: None
    start = time.monotonic()
    m = world.ask("other.example.com")
    assert rcode(m) == "SERVFAIL" and not m.rr
    assert 1.9 < time.monotonic() - start < 5


def test_upstream_has_none(world):
    world.upstream.zone["empty.example.com"] = []
    m = world.ask("nothing.example.com")
    assert rcode(m) == "NXDOMAIN" and m.auth[0].ttl == 30
    m = world.ask("empty.example.com")
    assert rcode(m) == "NOERROR" and not m.rr and m.auth[0].rtype == QTYPE.SOA
    assert not world.daemon.admissions
    n = len(world.upstream.queries)
    assert rcode(world.ask("nothing.example.com")) == "NXDOMAIN"    # remembered
    assert len(world.upstream.queries) == n


@pytest.mark.parametrize("kind", ["AAAA", "HTTPS", "SVCB", "CAA", "NS"])
def test_types_without_use(world, kind):
    m = world.ask("example.com", kind)
    assert rcode(m) == "NOERROR" and not m.rr and m.auth[0].rtype == QTYPE.SOA
    assert world.daemon.asked[0].qtype == kind and not world.upstream.queries
    world.daemon.verdicts["example.com"] = REFUSED
    assert rcode(world.ask("example.com", kind)) == "REFUSED"


def test_meta_types(world):
    assert rcode(world.ask("example.com", "ANY")) == "NOTIMP"
    assert rcode(world.ask("example.com", "AXFR", tcp=True)) == "NOTIMP"
    assert not world.daemon.asked


def test_types_passed(world):
    world.upstream.zone["example.com"] = [
        RR("example.com", QTYPE.TXT, rdata=TXT("v=1"), ttl=50),
        RR("example.com", QTYPE.MX, rdata=MX("mail.example.com", 10), ttl=50),
        RR("example.com", QTYPE.SRV, rdata=SRV(1, 2, 3, "srv.example.com"), ttl=50)]
    for kind, said in (("TXT", '"v=1"'), ("MX", "10 mail.example.com."), ("SRV", "1 2 3 srv.example.com.")):
        m = world.ask("example.com", kind)
        assert [str(r.rdata) for r in m.rr] == [said], kind
    assert not world.daemon.admissions


# --- CNAMEs ---

def test_chain(world):
    world.upstream.cname("www.example.com", "edge.example.net", ttl=40)
    world.upstream.a("edge.example.net", "192.0.2.7", ttl=20)
    m = world.ask("www.example.com")
    assert addresses(m) == ["192.0.2.7"] and {r.ttl for r in m.rr} == {20}
    assert [QTYPE[r.rtype] for r in m.rr] == ["CNAME", "A"]
    assert world.daemon.admissions[0].aliases == ["edge.example.net"]
    assert world.daemon.admissions[0].ttl == 20


def test_chain_asked_step_by_step(world):
    """A server that tells one CNAME at a time."""
    for i in range(8):
        world.upstream.zone["c%d.example.com" % i] = lambda s, q, tcp, to=i + 1: one(q, to)
    world.upstream.a("c8.example.com", "192.0.2.8")

    def one(q, to):
        m = q.reply()
        m.add_answer(RR(q.q.qname, QTYPE.CNAME, rdata=CNAME("c%d.example.com" % to), ttl=60))
        return m
    m = world.ask("c0.example.com")
    assert addresses(m) == ["192.0.2.8"] and len(m.rr) == 9
    assert len(world.daemon.asked) == 1 and len(world.daemon.admissions[0].aliases) == 8
    world.upstream.zone["more.example.com"] = lambda s, q, tcp: one(q, 0)
    assert rcode(world.ask("more.example.com")) == "SERVFAIL"     # nine


@pytest.mark.parametrize("loop", [["a", "a"], ["a", "b", "a"], ["a", "b", "c", "b"]])
def test_loops(world, loop):
    for here, there in zip(loop, loop[1:]):
        world.upstream.cname(here + ".example.com", there + ".example.com")
    start = time.monotonic()
    assert rcode(world.ask("a.example.com")) == "SERVFAIL"
    assert time.monotonic() - start < 2.5 and not world.daemon.admissions


def test_nothing_about_other_names(world):
    """What an upstream adds about names nobody asked for is not told, and not remembered."""
    def more(s, q, tcp):
        m = q.reply()
        m.add_answer(RR(q.q.qname, QTYPE.A, rdata=A("192.0.2.1"), ttl=60),
                     RR("bank.example.net", QTYPE.A, rdata=A("192.0.2.66"), ttl=60))
        m.add_ar(RR("bank.example.net", QTYPE.A, rdata=A("192.0.2.66"), ttl=60))
        return m
    world.upstream.zone["example.com"] = more
    world.upstream.a("bank.example.net", "192.0.2.5")
    assert addresses(world.ask("example.com")) == ["192.0.2.1"]
    assert addresses(world.ask("bank.example.net")) == ["192.0.2.5"]


# --- admission ---

def test_never_before_admitted(world):
    world.upstream.a("example.com", "192.0.2.1")
    world.daemon.admit_delay = 0.6
    for tcp in (False, True):
        with Guest(tcp=tcp) as g:
            g.send("example.com")
            n = len(world.daemon.replies)
            wait_for(lambda: len(world.daemon.admissions) > n, what="ADMIT")
            assert not g.ready(0.4), "told before it was admitted"
            m = g.read()
            at = time.monotonic()
            assert addresses(m) == ["192.0.2.1"] and world.daemon.replies[n] <= at


def test_told_is_what_was_admitted(world):
    world.upstream.a("example.com", "192.0.2.1", "10.0.0.1", "192.0.2.3")
    world.daemon.admit = lambda m: (ALLOW, [a for a in m.addresses if not a.startswith("10.")])
    assert addresses(world.ask("example.com")) == ["192.0.2.1", "192.0.2.3"]
    world.daemon.admit = lambda m: (ALLOW, [])
    m = world.ask("example.com")
    assert rcode(m) == "NOERROR" and not m.rr and ede(m) == 17 and m.auth[0].ttl == 5
    world.daemon.admit = lambda m: (REFUSED, [])
    assert rcode(world.ask("example.com")) == "REFUSED"
    world.daemon.admit = lambda m: (FAIL, [])
    assert rcode(world.ask("example.com")) == "SERVFAIL"
    world.daemon.admit = lambda m: (NO_SANDBOX, [])
    assert world.ask("example.com", timeout=0.5) is None
    world.daemon.admit = lambda m: (ALLOW, ["203.0.113.9"])       # never heard of
    assert rcode(world.ask("example.com")) == "SERVFAIL"


def test_at_most_32_addresses(world):
    world.upstream.a("example.com", *["192.0.2.%d" % i for i in range(1, 61)])
    m = world.ask("example.com", tcp=True)
    assert len(addresses(m)) == 32 == len(world.daemon.admissions[0].addresses)


# --- cache, coalescing ---

def test_cache(world):
    world.upstream.a("example.com", "192.0.2.1", ttl=30)
    world.ask("example.com")
    time.sleep(1.2)
    m = world.ask("EXAMPLE.com", guest=OTHER)
    assert addresses(m) == ["192.0.2.1"] and m.rr[0].ttl in (28, 29)
    assert len(world.upstream.queries) == 1
    assert [a.guest for a in world.daemon.admissions] == [GUEST, OTHER]
    assert world.daemon.admissions[1].ttl == m.rr[0].ttl


def test_cache_ends_with_the_ttl(world):
    world.upstream.a("example.com", "192.0.2.1", ttl=1)
    world.ask("example.com")
    time.sleep(1.1)
    world.upstream.a("example.com", "192.0.2.2", ttl=1)
    assert addresses(world.ask("example.com")) == ["192.0.2.2"]


def test_cache_gives_nothing_without_leave(world):
    world.upstream.a("example.com", "192.0.2.1")
    world.ask("example.com")
    world.daemon.verdicts["example.com"] = REFUSED
    m = world.ask("example.com", guest=OTHER)
    assert rcode(m) == "REFUSED" and not m.rr


def test_coalescing(world):
    world.upstream.a("example.com", "192.0.2.1")
    world.upstream.delay = 0.4
    guests = [Guest("127.0.0.%d" % (2 + i % 5)) for i in range(20)]
    for g in guests:
        g.send("example.com")
    for g in guests:
        assert addresses(g.read()) == ["192.0.2.1"]
        g.socket.close()
    assert len(world.upstream.queries) == 1
    assert len(world.daemon.asked) == len(world.daemon.admissions) == 20    # each for itself


def test_repeated_question(world):
    world.upstream.a("example.com", "192.0.2.1")
    world.upstream.delay = 0.3
    with Guest() as g:
        for _ in range(5):
            g.send("example.com", ident=4711)
        assert addresses(g.read()) == ["192.0.2.1"]
        assert not g.ready(0.3)
    assert len(world.daemon.asked) == 1


def test_case_is_repeated(world):
    world.upstream.a("example.com", "192.0.2.1")
    m = world.ask("eXaMPLe.cOm")
    assert str(m.q.qname) == "eXaMPLe.cOm." and str(m.rr[0].rname) == "eXaMPLe.cOm."
    assert world.daemon.asked[0].name == "example.com" == world.daemon.admissions[0].name


# --- upstreams ---



def test_truncated_is_asked_by_tcp(world):
    def big(s, q, tcp):
        m = q.reply()
        if tcp:
            m.add_answer(*[RR(q.q.qname, QTYPE.A, rdata=A("192.0.2.%d" % i), ttl=60) for i in range(1, 25)])
        m.header.tc = 0 if tcp else 1
        return m
    world.upstream.zone["big.example.com"] = big
    m = world.ask("big.example.com")
    assert len(addresses(m)) == 24
    assert [q.tcp for q in world.upstream.queries] == [False, True]


def test_answer_too_long_for_udp(world):
    world.upstream.a("example.com", *["192.0.2.%d" % i for i in range(1, 33)])
    m = world.ask("example.com", edns=False)
    assert m.header.tc == 1 and not m.rr
    m = world.ask("example.com", edns=False, tcp=True)
    assert m.header.tc == 0 and len(addresses(m)) == 32


@pytest.mark.parametrize("world", [{"upstreams": ("127.0.1.9", SECOND)}], indirect=True)
def test_next_where_nobody_listens(world):
    second = world.serve(SECOND)
    second.a("example.com", "192.0.2.2")
    start = time.monotonic()
    assert addresses(world.ask("example.com")) == ["192.0.2.2"]
    assert time.monotonic() - start < 2.5


@pytest.mark.parametrize("world", [{"upstreams": (UPSTREAM, SECOND)}], indirect=True)
def test_next_where_one_is_silent(world):
    world.upstream.silent = True
    second = world.serve(SECOND)
    second.a("example.com", "192.0.2.2")
    second.a("www.example.com", "192.0.2.3")
    start = time.monotonic()
    assert addresses(world.ask("example.com")) == ["192.0.2.2"]
    assert 2.9 < time.monotonic() - start < 5.5
    assert len(world.upstream.queries) == 2
    start = time.monotonic()                    # it comes last from now on
    assert addresses(world.ask("www.example.com")) == ["192.0.2.3"]
    assert time.monotonic() - start < 2.5 and len(world.upstream.queries) == 2


@pytest.mark.parametrize("world", [{"upstreams": (UPSTREAM, SECOND)}], indirect=True)
def test_next_where_one_fails(world):
    def failing(s, q, tcp):
        m = q.reply()
        m.header.rcode = 2
        return m
    world.upstream.zone["example.com"] = failing
    world.serve(SECOND).a("example.com", "192.0.2.2")
    assert addresses(world.ask("example.com")) == ["192.0.2.2"]


@pytest.mark.parametrize("world", [{"upstreams": (UPSTREAM, SECOND)}], indirect=True)
@pytest.mark.parametrize("alias", [False, True])
def test_nothing_is_kept_of_one_that_fails(world, alias):
    """An address, or an alias and an address, and then a record that ends before its time."""
    def half(s, q, tcp):
        m = q.reply()
        if alias:
            m.add_answer(RR(q.q.qname, QTYPE.CNAME, rdata=CNAME("x.example.net"), ttl=60))
        owner = "x.example.net" if alias else q.q.qname
        m.add_answer(*[RR(owner, QTYPE.A, rdata=A("192.0.2.%d" % i), ttl=1) for i in (66, 67)])
        m.ar = []
        return bytes(m.pack()[:-2])
    world.upstream.zone["example.com"] = half
    world.serve(SECOND).a("example.com", "192.0.2.2", ttl=50)
    m = world.ask("example.com")
    assert addresses(m) == ["192.0.2.2"] and len(m.rr) == 1 and m.rr[0].ttl == 50
    assert world.daemon.admissions[0].aliases == []


def test_all_silent(world):
    world.upstream.silent = True
    start = time.monotonic()
    assert rcode(world.ask("example.com")) == "SERVFAIL"
    assert 2.9 < time.monotonic() - start < 5.5 and len(world.upstream.queries) == 2


@pytest.mark.parametrize("world", [{"upstreams": ["127.0.1.%d" % i for i in range(1, 6)]}], indirect=True)
def test_an_end_to_all_tries(world):
    """Five silent servers would take 15 s."""
    for s in [world.upstream] + [world.serve("127.0.1.%d" % i) for i in range(2, 6)]:
        s.silent = True
    start = time.monotonic()
    assert rcode(world.ask("example.com", timeout=20)) == "SERVFAIL"
    assert 9.9 < time.monotonic() - start < 14


def test_upstream_without_edns(world):
    def old(s, q, tcp):
        if q.ar:
            m = q.reply()
            m.ar, m.header.rcode = [], 1
            return m
        return s.reply_for(q)
    world.upstream.reply_for = lambda q: plain(q)

    def plain(q):
        m = q.reply()
        m.add_answer(RR(q.q.qname, QTYPE.A, rdata=A("192.0.2.1"), ttl=60))
        return m
    world.upstream.zone["example.com"] = world.upstream.zone["www.example.com"] = old
    assert addresses(world.ask("example.com")) == ["192.0.2.1"]
    assert addresses(world.ask("www.example.com")) == ["192.0.2.1"]
    assert len(world.upstream.queries) == 3     # the second time it is known


def test_ports_ids_and_case_are_random(world):
    for i in range(40):
        world.upstream.a("host%d.random-letters.example.com" % i, "192.0.2.1")
        world.ask("host%d.random-letters.example.com" % i)
    queries = world.upstream.queries
    assert len({q.id for q in queries}) >= 39 and len({q.peer for q in queries}) >= 38
    patterns = {re.sub(r".*?\.", "", q.raw, count=1) for q in queries}
    assert len(patterns) >= 39
    assert all(q.peer[1] >= 1024 for q in queries)


@pytest.mark.parametrize("forgery", ["id", "port", "case", "question", "address", "many"])
def test_forged_replies(world, forgery):
    """The wrong one comes first; the right one 100 ms later."""
    def wrong(q):
        data = bytearray(forged(q).pack())
        if forgery in ("id", "many"):
            data[1] ^= 1
        if forgery == "case":
            data[13] ^= 0x20
        if forgery == "question":
            data[13] ^= 1
        return bytes(data)

    def forged(q):
        m = q.reply()
        m.add_answer(RR(q.q.qname, QTYPE.A, rdata=A("192.0.2.66"), ttl=60))
        return m

    def both(s, q, tcp):
        if not tcp:
            peer = s.queries[-1].peer
            for _ in range(200 if forgery == "many" else 1):
                source = {"port": (UPSTREAM, 5353), "address": ("127.0.1.7", 53)}.get(forgery)
                if source:
                    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as f:
                        f.bind(source)
                        f.sendto(wrong(q), peer)
                else:
                    s.udp.sendto(wrong(q), peer)
            time.sleep(0.1)
        m = q.reply()
        m.add_answer(RR(q.q.qname, QTYPE.A, rdata=A("192.0.2.1"), ttl=60))
        return m
    world.upstream.zone["example.com"] = both
    assert addresses(world.ask("example.com")) == ["192.0.2.1"]
    assert any(q.tcp for q in world.upstream.queries) == (forgery == "many")
    assert addresses(world.ask("example.com")) == ["192.0.2.1"]     # nor was it remembered


def test_upstream_that_folds_case(world):
    def folding(s, q, tcp):
        m = DNSRecord.parse(q.pack()).reply()
        m.q.qname = str(q.q.qname).lower()
        m.add_answer(RR(str(q.q.qname).lower(), QTYPE.A, rdata=A("192.0.2.1"), ttl=60))
        return m
    for name in ("letters-are-many.example.com", "and-here-as-well.example.com"):
        world.upstream.zone[name] = folding
        assert addresses(world.ask(name)) == ["192.0.2.1"]
    assert [q.tcp for q in world.upstream.queries] == [False, True, True]


@pytest.mark.parametrize("reply", [b"", b"\0" * 11, "cut", "rdlength", "pointer", "count"])
def test_broken_replies(world, reply):
    def broken(s, q, tcp):
        if isinstance(reply, bytes):
            return reply
        m = q.reply()
        m.add_answer(RR(q.q.qname, QTYPE.A, rdata=A("192.0.2.1"), ttl=60))
        m.ar = []
        data = bytearray(m.pack())
        if reply == "cut":
            return bytes(data[:-2])
        if reply == "rdlength":
            data[-5] = 200
        if reply == "pointer":      # to itself
            at = len(data) - 16
            data[at:at + 2] = bytes([0xc0, at])
        if reply == "count":
            data[6:8] = b"\xff\xff"
        return bytes(data)
    world.upstream.zone["example.com"] = broken
    m = world.ask("example.com", timeout=6)
    assert rcode(m) == "SERVFAIL" and not world.daemon.admissions
    world.upstream.a("good.example.com", "192.0.2.1")
    assert addresses(world.ask("good.example.com")) == ["192.0.2.1"]


def test_messages_of_the_daemon_that_come_late(world):
    """A SAY or ADMITTED for a question that is over, or none, changes nothing."""
    for ident in (0, 1, 511, 512, 2 ** 32 - 1):
        world.daemon.send(struct.pack("=III", SAY, ident, ALLOW))
        world.daemon.send(struct.pack("=IIII32I", ADMITTED, ident, ALLOW, 1, *([1] * 32)))
    world.upstream.a("example.com", "192.0.2.1")
    assert addresses(world.ask("example.com")) == ["192.0.2.1"]


def test_reply_of_the_daemon_to_one_before(world):
    """The place in the table is used again, for another question; the reply is not."""
    world.daemon.verdicts = {"first.example.com": None, "later.example.com": None}
    world.upstream.a("later.example.com", "192.0.2.1")
    assert rcode(world.ask("first.example.com")) == "SERVFAIL"
    late = world.daemon.ids["first.example.com"]
    for i in range(511):
        assert rcode(world.ask("n%d.example.com" % i, "AAAA")) == "NOERROR"
    with Guest() as g:
        g.send("later.example.com")
        wait_for(lambda: "later.example.com" in world.daemon.ids)
        assert world.daemon.ids["later.example.com"] % 512 == late % 512
        world.daemon.send(struct.pack("=III", SAY, late, ALLOW))
        assert not g.ready(0.5) and not world.upstream.queries
        world.daemon.send(struct.pack("=III", SAY, world.daemon.ids["later.example.com"], ALLOW))
        assert addresses(g.read()) == ["192.0.2.1"]


def test_two_guests_are_told_apart(world):
    world.upstream.a("example.com", "192.0.2.1")
    world.ask("example.com")
    world.ask("example.com", guest=OTHER, tcp=True)
    assert [(a.guest, a.tcp) for a in world.daemon.asked] == [(GUEST, False), (OTHER, True)]



def test_bench_helper(world):
    """dnsbench.py counts what there is to count."""
    world.upstream.a("example.com", "192.0.2.1")
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "dnsbench.py")

    def bench(*a):
        r = subprocess.run([sys.executable, script, "127.0.0.1:53", *a], capture_output=True, text=True, timeout=30)
        assert r.returncode == 0, r.stderr
        return json.loads(r.stdout)
    r = bench("-n", "300", "-s", "4", "--source", GUEST, "--source", OTHER, "--pid", str(world.process.pid))
    assert r["questions"] == r["answered"] == 300 and r["lost"] == 0 and r["rcodes"] == {"NOERROR": 300}
    assert 0 < r["ms"]["p50"] <= r["ms"]["p99"] <= r["ms"]["max"]
    assert {a.guest for a in world.daemon.asked} == {GUEST, OTHER}
    r = bench("-n", "50", "--unique", "none.example")
    assert r["rcodes"] == {"NXDOMAIN": 50}
    assert len({a.name for a in world.daemon.asked}) == 51
    world.daemon.verdicts["example.com"] = NO_SANDBOX
    r = bench("-n", "3", "-s", "3", "--timeout", "0.3")
    assert r["lost"] == 3 and r["answered"] == 0


@pytest.mark.skipif(not shutil.which("dnsmasq"), reason="no dnsmasq")
@pytest.mark.parametrize("world", [{"upstreams": ("127.0.1.3",)}], indirect=True)
def test_with_dnsmasq(world):
    """A server that others have written."""
    p = subprocess.Popen(["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts",
                          "--listen-address=127.0.1.3", "--bind-interfaces", "--user=root", "--pid-file=",
                          "--host-record=host.example.com,192.0.2.9", "--cname=www.example.com,host.example.com",
                          "--txt-record=host.example.com,some text", "--mx-host=host.example.com,mx.example.com,5",
                          "--srv-host=_x._tcp.example.com,host.example.com,80,1,2", "--local=/example.com/",
                          "--local-ttl=100"], stderr=subprocess.DEVNULL)
    try:
        with socket.socket() as s:
            wait_for(lambda: s.connect_ex(("127.0.1.3", 53)) == 0, what="dnsmasq")
        assert addresses(world.ask("host.example.com")) == ["192.0.2.9"]
        m = world.ask("WWW.example.com")
        assert addresses(m) == ["192.0.2.9"] and m.rr[0].rtype == QTYPE.CNAME and m.rr[0].ttl == 100
        assert world.daemon.admissions[-1].aliases == ["host.example.com"]
        assert str(world.ask("host.example.com", "TXT").rr[0].rdata) == '"some text"'
        assert str(world.ask("host.example.com", "MX").rr[0].rdata) == "5 mx.example.com."
        assert str(world.ask("_x._tcp.example.com", "SRV").rr[0].rdata) == "1 2 80 host.example.com."
        assert rcode(world.ask("none.example.com")) == "NXDOMAIN"
    finally:
        p.terminate()
        p.wait(5)
