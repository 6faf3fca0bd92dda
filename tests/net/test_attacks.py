# SPDX-License-Identifier: MIT
"""What root of a guest tries in order to get out. The first line of each test is its row in
docs/SECURITY-TESTS.md."""
import os
import random
import re
import signal
import socket
import struct
import subprocess
import threading
import time

import netns
import pytest
from sandboxd import SANDBOXD, SOURCE, wait_until
from world import DNS, GATEWAY, HOST, METADATA, OTHER, PRIVATE, TCP, UP, WEB, WEB2, a_world, run_in  # noqa: F401

RULES = ["allow ok.example.com:80", "allow *.wild.example:80", "allow alias.example.com:80",
         "deny denied.example.org", "allow partly.example.com:80", "deny half.example.org:443",
         "allow rebind.example.com", f"allow {OTHER}:8080", f"deny {OTHER}:5432",
         "allow short.example.com:80", "allow moves.example.com:80"]
CLOSED = {"reset", "prohibited", "unreachable", "sent", "timeout"}


@pytest.fixture(scope="module")
def box(world):
    world.names.zone.update({
        "ok.example.com": ([WEB], 300), "*.wild.example": ([WEB2], 300), "alias.example.com": "denied.example.org",
        "denied.example.org": ([OTHER], 300),
        "partly.example.com": "half.example.org", "half.example.org": ([OTHER], 60),
        "short.example.com": (["1.1.1.1"], 1)})
    return world.box("box", *RULES)


@pytest.fixture(scope="module")
def neighbour(world):
    """Another sandbox, with the opposite of the policy."""
    return world.box("neighbour", "allow 0.0.0.0/0/tcp", f"deny {OTHER}:8080", "deny ok.example.com")


def is_late(packet, probes):
    """The end of a connection of before, to what no probe is about; nothing that could begin one."""
    if packet.proto != TCP or struct.unpack_from("!H", packet.data, 20)[0] & 0x3fff:    # a fragment
        return False
    flags = packet.data[14 + (packet.data[14] & 15) * 4 + 13]
    return not flags & 2 and (packet.destination, packet.port) not in {
        (p.get("address"), p.get("port")) for p in probes}


def nothing_got_out(world, box, *probes):
    with world.wire() as wire:
        seen = box.seen(*probes)
    wire = [p for p in wire if not is_late(p, probes)]
    assert wire == [] and set(seen) <= CLOSED, (seen, wire)
    return seen


def test_address_that_is_not_allowed(world, box, seen):
    """Connect to an address that no rule allows"""
    s = nothing_got_out(world, box, {"kind": "tcp", "address": WEB, "port": 80})
    e = box.logged(address=WEB, port=80, verdict="deny")
    seen(f"{s[0]}; log: {e['reason']}")


def test_port_that_is_not_allowed(world, box, seen):
    """Connect to another port of an allowed address"""
    assert box.tcp(OTHER, 8080) == "connected"
    s = nothing_got_out(world, box, *({"kind": "tcp", "address": OTHER, "port": p} for p in (80, 443, 5432)))
    assert box.logged(address=OTHER, port=5432)["rule"] == f"deny {OTHER}:5432"
    seen(", ".join(s))


def test_protocol_that_is_not_allowed(world, box, seen):
    """UDP to an address and port that is allowed for TCP"""
    s = nothing_got_out(world, box, {"kind": "udp", "address": OTHER, "port": 8080})
    box.logged(address=OTHER, port=8080, proto="udp", verdict="deny")
    seen(s[0])


def test_address_of_an_allowed_name_that_was_not_asked_for(world, box, seen):
    """Connect to an allowed name's address without asking for the name"""
    assert "sbx" not in WEB and not box.log(name="ok.example.com", kind="resolve")
    s = nothing_got_out(world, box, {"kind": "tcp", "address": WEB, "port": 80})
    seen(s[0])


def test_allowed_name_opens_only_its_port(world, box, seen):
    """Other ports of an allowed name's address, after it was resolved"""
    assert box.resolve("ok.example.com")["addresses"] == [WEB]
    assert box.tcp(WEB, 80) == "connected"
    s = nothing_got_out(world, box, *({"kind": "tcp", "address": WEB, "port": p} for p in (22, 443, 8080)),
                        {"kind": "udp", "address": WEB, "port": 80})
    seen(", ".join(s))


def test_other_resolvers(world, box, seen):
    """Ask another resolver: 53 by UDP and TCP, 853, mDNS, LLMNR"""
    s = nothing_got_out(
        world, box, {"kind": "dns-at", "address": DNS, "name": "ok.example.com"},
        {"kind": "dns-at", "address": DNS, "name": "ok.example.com", "transport": "tcp"},
        {"kind": "tcp", "address": "1.1.1.1", "port": 853}, {"kind": "udp", "address": "224.0.0.251", "port": 5353},
        {"kind": "udp", "address": "224.0.0.252", "port": 5355})
    box.logged(address="1.1.1.1", port=853)
    seen(", ".join(s))


def test_data_in_names_of_a_denied_zone(world, box, seen):
    """1,000 random labels under a zone that is not allowed"""
    before = sum(world.names.asked.values())
    names = [f"{random.getrandbits(64):x}.exfil.example" for _ in range(1000)]
    answers = set()
    for i in range(0, 1000, 100):       # in parts, since a guest may ask for 200 at once
        answers |= {a["seen"] for a in box.probe(*({"kind": "dns", "name": n, "timeout_ms": 5000}
                                                  for n in names[i:i + 100]))}
    assert answers <= {"refused", "servfail", "timeout", "prohibited"} and "refused" in answers
    assert sum(world.names.asked.values()) == before
    assert box.log(name=names[0], verdict="deny", kind="resolve")
    seen("0 questions at the authoritative server; " + ", ".join(sorted(answers)))


def test_flood_of_an_allowed_wildcard(world, box, seen):
    """A flood of names under an allowed wildcard"""
    before = sum(world.names.asked.values())
    t = time.monotonic()
    for _ in range(4):
        box.seen(*({"kind": "dns", "name": f"{random.getrandbits(64):x}.wild.example", "timeout_ms": 1000}
                   for _ in range(250)))
    took, asked = time.monotonic() - t, sum(world.names.asked.values()) - before
    assert asked <= 200 + 50 * took + 10, (asked, took)
    e = box.logged(kind="alert")        # the resolver's, or the kernel's, which counts flows to it
    assert "faster" in e["reason"] or "too many connections" in e["reason"]
    seen(f"{asked} of 1,000 asked within the limit; alert: {e['reason']}")


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0", PRIVATE, METADATA, GATEWAY, UP, HOST, "neighbour",
                                     "192.168.1.1", "100.64.0.7", "224.0.0.1", "255.255.255.255"])
def test_rebinding(world, box, neighbour, seen, address):
    """An allowed name's answer points to a special address, the host or another sandbox"""
    address = neighbour.address if address == "neighbour" else address
    world.names.zone["rebind.example.com"] = ([address], 0)
    time.sleep(1.1)                     # out of the cache: the least TTL is a second
    answer = box.resolve("rebind.example.com")
    assert answer["seen"] == "empty" and not answer.get("addresses"), answer
    box.logged(name="rebind.example.com", address=address, verdict="deny")
    s = nothing_got_out(world, box, {"kind": "tcp", "address": address, "port": 80})
    seen(f"{address}: removed, then {s[0]}")


def test_rebinding_among_good_ones(world, box, seen):
    """An answer with a good address and a private one"""
    world.names.zone["rebind.example.com"] = ([WEB2, PRIVATE], 1)
    time.sleep(1.1)
    assert box.resolve("rebind.example.com")["addresses"] == [WEB2]
    seen("the private one is removed")


def test_address_after_its_time(world, box, seen):
    """An address is used after TTL and grace"""
    assert box.resolve("short.example.com")["addresses"] == ["1.1.1.1"]
    assert box.tcp("1.1.1.1", 80) == "connected"
    wait_until(lambda: box.d.get("/v1/sandboxes/box/policy/why?target=1.1.1.1:80")["element"] is None, 20,
               "end of the address")
    s = nothing_got_out(world, box, {"kind": "tcp", "address": "1.1.1.1", "port": 80})
    seen(s[0])


def test_alias_to_a_denied_name(world, box, seen):
    """A CNAME from an allowed to a denied name"""
    answer = box.resolve("alias.example.com")
    assert answer["seen"] == "refused"
    e = box.logged(name="alias.example.com", verdict="deny")
    assert box.resolve("partly.example.com")["seen"] == "refused"      # if only for a port
    seen(f"refused; log: {e['reason']}")


def test_metadata_under_open(world, neighbour, seen):
    """A metadata service, private and special addresses under `open`"""
    opened = world.box("opened", policy="open")
    assert opened.tcp(WEB, 443) == "connected"
    s = nothing_got_out(world, opened, *({"kind": "tcp", "address": a, "port": 80} for a in (
        METADATA, PRIVATE, "192.168.1.1", "172.16.0.9", "100.64.0.7", "169.254.1.1", "127.0.0.1", GATEWAY, UP, HOST,
        neighbour.address)))
    opened.logged(address=METADATA, verdict="deny")
    world.d.ok("rm", "-f", "opened")
    seen(", ".join(sorted(set(s))))


def test_every_port_of_every_host_address(world, box, seen):
    """Every port of every address of the host, by TCP and UDP"""
    for port in (22, 111, 5555):
        world.serve(world.d.network, port)
    for address in (GATEWAY, UP):
        r = box.root(f"for p in 53 22 111 5555; do (exec 3<>/dev/tcp/{address}/$p) 2>/dev/null && echo $p; done")
        assert r["stdout"].split() == (["53"] if address == GATEWAY else []), r
    # All of them: refused or silent, and whatever is sent, the host's sockets hear nothing.
    r = box.python(f"""import socket
for a in ("{GATEWAY}", "{UP}"):
    for p in range(1, 65536, 16):
        with socket.socket() as s:
            s.settimeout(2)
            if s.connect_ex((a, p)) == 0 and p != 53:
                print("open", a, p)""", timeout_ms=600000)
    assert r["exit_code"] == 0 and r["stdout"] == "", r
    s = nothing_got_out(world, box, *({"kind": "udp", "address": a, "port": p}
                                      for a in (GATEWAY, UP) for p in (22, 111, 5555)))
    seen("nothing but the resolver's port answers; " + ", ".join(sorted(set(s))))


def test_another_sandbox(world, box, neighbour, seen):
    """Another sandbox, by address, by ARP and by way of the gateway"""
    box_sees = box.seen({"kind": "tcp", "address": neighbour.address, "port": 22},
                        {"kind": "udp", "address": neighbour.address, "port": 53},
                        {"kind": "icmp", "address": neighbour.address},
                        {"kind": "arp", "address": neighbour.address})
    assert set(box_sees) <= CLOSED, box_sees
    back = neighbour.seen({"kind": "tcp", "address": box.address, "port": 22})
    assert set(back) <= CLOSED
    seen(", ".join(box_sees))


def test_forged_senders(world, box, neighbour, seen):
    """Another's source address, another's MAC, a VLAN tag"""
    s = nothing_got_out(
        world, box,
        {"kind": "spoof-address", "address": OTHER, "port": 8080, "source": neighbour.address},
        {"kind": "spoof-address", "address": OTHER, "port": 8080, "source": WEB, "transport": "tcp"},
        {"kind": "spoof-mac", "address": OTHER, "port": 8080, "mac": "02:5b:78:01:00:99", "transport": "tcp"},
        {"kind": "vlan", "address": OTHER, "port": 8080, "vlan": 5, "transport": "tcp"})
    e = box.logged(kind="connect", verdict="deny", address=OTHER, reason="its sender's MAC is not the sandbox's")
    box.logged(reason="VLAN tags do not leave a sandbox")
    seen(f"{', '.join(s)}; log: {e['reason']}")


def test_gratuitous_arp(world, box, neighbour, seen):
    """ARP that claims the gateway's or another sandbox's address"""
    def neighbours():       # without the kernel's doubts about them, which come and go by themselves
        return sorted(line.split()[:-1] for line in world.host("ip neigh").splitlines())
    before = neighbours()
    s = box.seen({"kind": "arp-announce", "address": GATEWAY}, {"kind": "arp-announce", "address": neighbour.address})
    box.logged(reason="ARP that speaks for another, or too much of it")
    assert neighbours() == before
    assert neighbour.tcp(WEB, 443) == "connected"
    seen(", ".join(s) + "; the host's neighbours stay as they were")


def test_ipv6(world, box, seen):
    """IPv6: router and neighbour solicitations, datagrams, a router's advertisement"""
    s = nothing_got_out(world, box, {"kind": "ipv6-rs"}, {"kind": "ipv6-ns"}, {"kind": "ipv6-udp", "port": 53},
                        {"kind": "ethertype", "ethertype": 0x88cc})
    box.logged(reason="IPv6 does not leave a sandbox")
    seen(", ".join(s))


def test_fragments_and_tunnels(world, box, seen):
    """Fragments, GRE, SCTP, IP in IP, data in ICMP"""
    s = nothing_got_out(
        world, box, {"kind": "fragments", "address": WEB2, "port": 53, "size": 1200},
        {"kind": "fragments", "address": OTHER, "port": 80, "size": 1200, "transport": "tcp"},
        {"kind": "ip", "address": OTHER, "protocol": 47}, {"kind": "ip", "address": OTHER, "protocol": 132},
        {"kind": "ip", "address": OTHER, "protocol": 4}, {"kind": "icmp", "address": OTHER, "size": 1000})
    box.logged(proto="gre", verdict="deny")
    box.logged(proto="icmp", verdict="deny")
    seen(", ".join(s))


def icmp_error(source, sport, target, dport):
    """Type 3, code 3, quoting a UDP packet; with bytes of our own in it."""
    udp = struct.pack("!HHHH", sport, dport, 16, 0) + b"leakleak"
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0, socket.inet_aton(source),
                     socket.inet_aton(target))

    def checksum(data):
        n = sum(struct.unpack(f"!{len(data) // 2}H", data))
        n = (n & 0xffff) + (n >> 16)
        return ~((n & 0xffff) + (n >> 16)) & 0xffff
    ip = ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:]
    body = struct.pack("!BBHI", 3, 3, 0, 0) + ip + udp
    return body[:2] + struct.pack("!H", checksum(body)) + body[4:]


def test_icmp_about_the_flow_of_another(world, box, neighbour, seen):
    """ICMP errors, with data in them, about flows of the host or of another sandbox"""
    s = run_in(world.d.network, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    with s:
        s.bind((UP, 5000))
        s.settimeout(10)
        s.sendto(b"x", (WEB, 5432))
        assert s.recv(10) == b"x"           # a flow of the host's
        send = ("perl -MSocket -e 'socket(S,PF_INET,SOCK_RAW,1) or die; "
                "send(S,pack(\"H*\",$ARGV[0]),0,pack_sockaddr_in(0,inet_aton($ARGV[1]))) or die' ")
        with world.wire() as wire:
            r = box.root(send + icmp_error(WEB, 5432, UP, 5000).hex() + " " + WEB)
            assert r["exit_code"] == 0, r
    assert wire == [], wire
    box.logged(proto="icmp", address=WEB, verdict="deny")
    seen("refused, and logged")


def test_another_sandbox_by_a_rule(world, box, neighbour, seen):
    """A policy that names the address of another sandbox"""
    box.policy("allow", f"{neighbour.address}:22")
    s = box.tcp(neighbour.address, 22)
    verdict = box.d.get(f"/v1/sandboxes/box/policy/check?target={neighbour.address}:22")
    box.policy("rm", f"{neighbour.address}:22")
    assert s == "reset" and verdict["verdict"] == "deny"
    seen(f"{s}: {verdict['reason']}")


def test_guard_taken_away(world, box, seen):
    """Somebody removes the guard behind the filter"""
    world.host("ip xfrm policy flush")
    wait_until(lambda: "block" in world.host("ip xfrm policy"), 10, "guard")
    seen("put back at once")


def test_two_with_opposite_policies(world, box, neighbour, seen):
    """Two sandboxes at once, what the one may the other may not"""
    box.resolve("ok.example.com")
    assert (box.tcp(OTHER, 8080), neighbour.tcp(OTHER, 8080)) == ("connected", "reset")
    assert (box.tcp(WEB2, 443), neighbour.tcp(WEB2, 443)) == ("reset", "connected")
    assert (box.tcp(WEB, 80), neighbour.resolve("ok.example.com")["seen"]) == ("connected", "refused")
    seen("each as its own policy says")


def test_half_open_connections(world, box, neighbour, seen):
    """10,000 half-open connections from one sandbox while another works"""
    def quick():
        return min(neighbour.d.run_in("neighbour", "bash", "-c",
                                      f"exec 3<>/dev/tcp/{WEB}/443 && echo ok")["duration_ms"] for _ in range(5))
    quiet = quick()
    # to a port that may be reached, each with a source of its own, and none waited for
    flood = f"""import resource, socket
resource.setrlimit(resource.RLIMIT_NOFILE, (11000, 11000))
kept = []
for i in range(10000):
    kept.append(socket.socket())
    kept[-1].setblocking(False)
    kept[-1].connect_ex(("{OTHER}", 8080))"""
    done = []
    t = threading.Thread(target=lambda: done.append(box.python(flood, timeout_ms=300000)))
    t.start()
    busy = quick()
    t.join()
    assert done[0]["exit_code"] == 0, done
    count = int(world.host("cat /proc/sys/net/netfilter/nf_conntrack_count"))
    assert count < 20000 and busy < quiet + 2000, (count, quiet, busy)
    assert neighbour.tcp(WEB, 443) == "connected"
    box.logged(kind="alert", reason="too many connections at once, or new ones too fast")
    seen(f"the other's connection took {quiet} ms before, {busy} ms meanwhile; alert in the log")


def keep_trying(box):
    """Root of the guest connects and sends without pause, until told."""
    box.root("rm -f /tmp/stop; (while [ ! -e /tmp/stop ]; do "
             f"for a in {WEB2} {PRIVATE} {METADATA} {DNS}; do "
             "(exec 3<>/dev/tcp/$a/443) 2>/dev/null & echo x > /dev/udp/$a/53; done; sleep 0.05; done) "
             "> /dev/null 2>&1 &")


def stop_trying(box):
    box.root("touch /tmp/stop")


def test_while_the_daemon_is_killed_and_started(world, box, seen):
    """Packets while the daemon is killed and started in a loop"""
    keep_trying(box)
    with world.wire() as wire:
        for _ in range(5):
            world.d.stop(signal.SIGKILL)
            world.d.start()
        stop_trying(box)
    assert wire == [], wire
    assert box.tcp(OTHER, 8080) == "connected"
    seen("5 times killed: nothing got out")


def test_at_a_flush_of_the_ruleset(world, box, seen):
    """Packets at `nft flush ruleset`, with the daemon alive"""
    keep_trying(box)
    with world.wire() as wire:
        for _ in range(10):
            world.host("nft flush ruleset")
            wait_until(lambda: "from_guests" in world.host("nft list tables; nft list ruleset"), 10, "repair")
        stop_trying(box)
    assert wire == [], wire
    wait_until(lambda: "somebody else changed the filter" in world.d.log(), 10, "line in the daemon's log")
    assert box.tcp(OTHER, 8080) == "connected"
    seen("repaired 10 times, said in the daemon's log; nothing got out")


def test_at_a_flush_with_the_daemon_dead(world, box, seen):
    """Packets after `nft flush ruleset`, with the daemon dead"""
    keep_trying(box)
    world.d.stop(signal.SIGKILL)
    with world.wire() as wire:
        world.host("nft flush ruleset")
        run_in(world.d.network, lambda: time.sleep(1.5))      # what the guest sends meanwhile is the test
    world.d.start()
    stop_trying(box)
    assert wire == [], wire
    assert box.tcp(OTHER, 8080) == "connected"
    seen("closed by the guard; after the start as before")


def test_parts_of_the_ruleset_changed(world, box, seen):
    """Somebody deletes our rules, chains or elements one by one"""
    chain = f"box-{box.id}"
    for change in (f"flush chain inet sandboxd {chain}", f"flush set inet sandboxd s-{box.id}",
                   f"insert rule inet sandboxd {chain} accept", "flush chain inet sandboxd from_guests",
                   "delete table netdev sandboxd"):
        world.host(f"nft '{change}'")
        wait_until(lambda: "sbx" in world.host("nft list table netdev sandboxd 2> /dev/null || true") and
                   f"goto no-{box.id}" in world.host(f"nft list chain inet sandboxd {chain}") and
                   OTHER in world.host(f"nft list set inet sandboxd s-{box.id}"), 10, "repair of " + change)
        nothing_got_out(world, box, {"kind": "tcp", "address": PRIVATE, "port": 80})
        assert box.tcp(OTHER, 8080) == "connected"
    seen("repaired each time")


def test_from_the_first_instruction(world, seen):
    """Packets of a guest from its first instruction on"""
    with world.wire() as wire:
        early = world.box("early", "allow 1.2.3.4:1")
        assert early.tcp(WEB, 80) == "reset"
        world.d.ok("restart", "early")
        world.d.ok("rm", "-f", "early")
    assert wire == [], wire
    seen("from create to rm nothing got out; the link is up only when its rules are in force")


def test_flow_that_a_new_policy_denies(world, box, seen):
    """A connection goes on after the policy was changed against it"""
    box.root(f"(exec 3<>/dev/tcp/{OTHER}/8080; while echo ping >&3; do read -r -t 5 x <&3 || break; "
             "echo $x >> /tmp/flow; sleep 0.05; done; echo over >> /tmp/flow) > /dev/null 2>&1 &")
    wait_until(lambda: "ping" in box.root("cat /tmp/flow")["stdout"], 20, "flow")
    box.policy("deny", f"{OTHER}:8080")
    with world.wire() as wire:
        wait_until(lambda: "over" in box.root("cat /tmp/flow")["stdout"], 20, "end of the flow")
    box.policy("allow", f"{OTHER}:8080")
    assert [p for p in wire if p.destination == OTHER] == []
    seen("cut at once, with a reset at its next packet")


@pytest.mark.parametrize("point", ["policy.filter", "policy.flows"])
def test_flow_denied_by_a_change_that_was_cut_off(world, box, point):
    """The daemon is killed between storing new rules and cutting what they deny: the next one cuts."""
    if subprocess.run([SANDBOXD, "--faults"], capture_output=True).returncode != 0:
        pytest.skip("sandboxd was built without -Dfaults=true")
    world.d.stop()
    world.d.env = {"SANDBOXD_FAULT": point}
    world.d.start()
    world.d.env = {}
    box.root(f"rm -f /tmp/cut; (exec 3<>/dev/tcp/{OTHER}/8080; while echo ping >&3; do read -r -t 5 x <&3 || break; "
             "echo $x >> /tmp/cut; sleep 0.05; done; echo over >> /tmp/cut) > /dev/null 2>&1 &")
    wait_until(lambda: "ping" in box.root("cat /tmp/cut")["stdout"], 20, "flow")
    assert world.d.sbx("policy", "deny", "box", f"{OTHER}:8080").returncode == 125
    world.d.process.wait(30)
    world.d.start()
    wait_until(lambda: "over" in box.root("cat /tmp/cut")["stdout"], 20, "end of the flow")
    box.policy("allow", f"{OTHER}:8080")


def test_qemu_has_no_network(world, box, seen):
    """A QEMU that its guest has taken over opens sockets of its own"""
    (pid, _), = [p for p in world.d.processes() if f"sbx-{box.id}" in p[1]]
    uid = os.stat(f"/proc/{pid}").st_uid

    r, w = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            netns.enter(world.d.network)
            os.setresuid(uid, uid, uid)
            s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            try:
                s.sendto(b"x", (WEB, 53))
                os.write(w, b"sent")
            except OSError as e:
                os.write(w, str(e.errno).encode())
        finally:
            os._exit(0)
    os.close(w)
    os.waitpid(pid, 0)
    result = os.read(r, 20)
    os.close(r)
    assert result == b"1", result           # EPERM
    seen("EPERM")


def test_nothing_is_left_of_a_sandbox(world, seen):
    """What stays in the kernel when sandboxes are gone"""
    names = [f"gone{i}" for i in range(3)]
    for n in names:
        world.box(n, f"allow {OTHER}:80")
    ids = [world.d.get(f"/v1/sandboxes/{n}")["id"] for n in names]
    world.d.ok("rm", "-f", *names)
    left = world.host("nft list ruleset; ip -o link; cat /proc/net/nf_conntrack 2> /dev/null || true")
    assert not [i for i in ids if i[:12] in left]
    seen("nothing")


def test_every_attack_is_in_the_table():
    """The table of attacks is complete"""
    with open(SOURCE + "/docs/SECURITY-TESTS.md") as f:
        table = f.read()
    with open(__file__) as f:
        names = re.findall(r"^def (test_\w+)\(", f.read(), re.M)
    names.remove("test_every_attack_is_in_the_table")
    assert [n for n in names if f"`{n}" not in table] == []
    assert "**" not in table.split("|---")[1]
