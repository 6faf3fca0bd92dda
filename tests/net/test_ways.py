# SPDX-License-Identifier: MIT
"""Flows that begin outside of a sandbox, and hosts whose forwarding, interfaces and names of interfaces change
while sandboxes run. The daemon's side of the network without virtual machines (egress-host); the guest is a
program that holds the tap."""
import fcntl
import json
import os
import select
import shutil
import socket
import struct
import subprocess
import tempfile
import threading
import time

import netns
import pytest
from sandboxd import BUILD, RESOLVER, wait_until
from world import run_in

GATEWAY, GUEST, LAN, HOST = "10.209.0.1", "10.209.0.2", "198.18.0.2", "198.18.0.1"
TUNSETIFF, TAP_WITHOUT_HEADER = 0x400454ca, 0x1002
GATEWAY_MAC, GUEST_MAC = bytes.fromhex("025b78000001"), bytes.fromhex("025b78010001")


def datagram(source, sport, target, dport, data):
    udp = struct.pack("!HHHH", sport, dport, 8 + len(data), 0) + data
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0, socket.inet_aton(source),
                       socket.inet_aton(target))
    total = sum(struct.unpack("!10H", head))
    total = (total & 0xffff) + (total >> 16)
    return head[:10] + struct.pack("!H", ~(total + (total >> 16)) & 0xffff) + head[12:] + udp


class Guest:
    """Whoever has the tap's other end."""

    def __init__(self, net, tap):
        self.fd = run_in(net, lambda: os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK))
        run_in(net, lambda: fcntl.ioctl(self.fd, TUNSETIFF, struct.pack("16sH22x", tap.encode(), TAP_WITHOUT_HEADER)))

    def send(self, target, dport, data, sport=9000):
        os.write(self.fd, GATEWAY_MAC + GUEST_MAC + b"\x08\x00" + datagram(GUEST, sport, target, dport, data))

    def got(self, data, seconds=0.5):
        """Whether that comes in a datagram."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and select.select([self.fd], [], [], max(0, end - time.monotonic()))[0]:
            frame = os.read(self.fd, 4096)
            if frame[12:14] == b"\x08\x00" and frame[23] == 17 and data in frame:
                return True
        return False


class Host:
    """A host with a neighbour on its LAN, and one sandbox's network."""

    def __init__(self, forwards, rules="deny 0.0.0.0/0\n"):
        self.net, self.lan = netns.new(), netns.new()
        self.dir = tempfile.mkdtemp(prefix="sbxw.", dir="/var/tmp")
        self.process = None
        self.rules = rules
        self.sh(f"ip link add up0 type veth peer name lan0; ip link set lan0 netns /proc/{os.getpid()}/fd/{self.lan};"
                f"ip addr add {HOST}/24 dev up0; ip link set up0 up; ip route add default via {LAN};"
                f"sysctl -qw net.ipv4.ip_forward={forwards}")
        self.sh(f"ip addr add {LAN}/24 dev lan0; ip link set lan0 up; ip route add default via {HOST}", self.lan)

    def sh(self, script, net=None):
        r = subprocess.run(["sh", "-ec", script], capture_output=True, text=True, check=False,
                           preexec_fn=lambda: netns.enter(net or self.net))
        assert r.returncode == 0, (script, r.stderr)
        return r.stdout

    def start(self):
        with open(self.dir + "/config", "w") as f:
            json.dump({"state_dir": tempfile.mkdtemp(dir=self.dir), "runtime_dir": self.dir, "subnet": "10.209.0.0/16", "resolver": RESOLVER,
                       "resolver_upstreams": ["192.0.2.53"]}, f)
        with open(self.dir + "/rules", "w") as f:
            f.write(self.rules)
        self.process = subprocess.Popen(
            [os.path.join(BUILD, "tests/net/egress-host"), self.dir + "/config", "1", self.dir + "/rules"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=lambda: netns.enter(self.net),
            stderr=open(self.dir + "/log", "w"))
        word, _, tap, address = self.process.stdout.readline().split()
        assert (word, address) == ("ready", GUEST)
        return Guest(self.net, tap)

    def udp(self, net, address="0.0.0.0", port=0):
        s = run_in(net, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        s.bind((address, port))
        s.settimeout(0.7)
        return s

    def close(self):
        if self.process and self.process.poll() is None:
            self.process.stdin.write("quit\n")
            self.process.stdin.flush()
            assert self.process.stdout.readline() == "ok\n"
            assert self.process.wait(20) == 0
        os.close(self.net)
        os.close(self.lan)
        shutil.rmtree(self.dir)


@pytest.fixture
def host(request):
    h = Host(*request.param)
    yield h
    h.close()


def received(s):
    try:
        return s.recv(2000)
    except TimeoutError:
        return None


FORWARDS, DOES_NOT = pytest.param((1,), id="forwards"), pytest.param((0,), id="does-not")


@pytest.mark.parametrize("host", [FORWARDS], indirect=True)
def test_a_flow_begun_before_the_link_is_nobodys_way_out(host):
    """A neighbour sends to the address before the sandbox has it: what the host then forwards elsewhere is a flow
    of the kernel's, and to answer it would be to go on with it."""
    peer, stop = host.udp(host.lan, LAN, 7777), threading.Event()
    host.sh("nft 'add table ip t; add chain ip t c { type filter hook prerouting priority 0; };"
            "add rule ip t c ct state new accept'")        # flows are known only where somebody asks for them

    def trickle():
        while not stop.wait(0.0005):
            peer.sendto(b"hello", (GUEST, 9000))
    t = threading.Thread(target=trickle)
    t.start()
    try:
        guest = host.start()
    finally:
        stop.set()
        t.join()
    assert not guest.got(b"hello")
    guest.send(LAN, 7777, b"secret")
    assert received(peer) is None
    peer.sendto(b"back in", (GUEST, 9000))
    assert not guest.got(b"back in")


@pytest.mark.parametrize("host", [FORWARDS], indirect=True)
def test_a_flow_begun_while_the_filter_was_gone(host):
    guest, peer = host.start(), host.udp(host.lan, LAN, 7777)
    os.kill(host.process.pid, 19)
    host.sh("nft flush ruleset; nft 'add table ip t; add chain ip t c { type filter hook prerouting priority 0; };"
            "add rule ip t c ct state new accept'")
    peer.sendto(b"in", (GUEST, 9000))
    assert guest.got(b"in")             # the guard is about what guests send
    os.kill(host.process.pid, 18)
    wait_until(lambda: "box-" in host.sh("nft list ruleset") or None, 10, "the repair")
    guest.send(LAN, 7777, b"secret")
    assert received(peer) is None
    peer.sendto(b"again", (GUEST, 9000))
    assert not guest.got(b"again")


@pytest.mark.parametrize("host", [FORWARDS], indirect=True)
def test_untracked_packets_do_not_come_in(host):
    guest, peer = host.start(), host.udp(host.lan)
    host.sh("nft 'add table ip raw; add chain ip raw p { type filter hook prerouting priority -300; };"
            "add rule ip raw p iifname up0 udp dport 9000 notrack'")
    peer.sendto(b"untracked", (GUEST, 9000))
    assert not guest.got(b"untracked")


@pytest.mark.parametrize("host", [FORWARDS, DOES_NOT], indirect=True)
def test_what_is_allowed_goes_both_ways(host):
    host.rules = f"allow {LAN}:7777/udp\nallow {HOST}:7778/udp\n"
    guest, peer, here = host.start(), host.udp(host.lan, LAN, 7777), host.udp(host.net, HOST, 7778)
    for s, to in ((peer, (LAN, 7777)), (here, (HOST, 7778))):
        guest.send(*to, b"question")
        data, who = s.recvfrom(100)
        assert data == b"question"
        s.sendto(b"answer", who)
        assert guest.got(b"answer")
    guest.send(LAN, 7779, b"no")
    out = host.udp(host.lan, LAN, 7779)
    assert received(out) is None


@pytest.mark.parametrize("host", [DOES_NOT], indirect=True)
def test_sockets_of_the_daemon_have_the_same_bounds(host):
    """The resolver's are opened by the daemon as root; taken over, it would send what it likes by them."""
    host.start()
    s = host.udp(host.net, GATEWAY, 5353)
    with pytest.raises(PermissionError):
        s.sendto(b"x", (LAN, 7777))
    assert run_in(host.net, lambda: is_refused((GATEWAY, 5354), (LAN, 7777)))
    s.sendto(b"x", (GUEST, 53))


def is_refused(source, target):
    with socket.socket() as s:
        s.bind(source)
        s.settimeout(2)
        try:
            s.connect(target)
        except (PermissionError, TimeoutError):     # the kernel tries again what an output chain dropped
            return True
    return False


class Stranger:
    """Another network of the host's, behind an interface that appears while sandboxes run."""

    def __init__(self, host, name):
        self.net = netns.new()
        host.sh(f"ip link add {name} type veth peer name there0;"
                f"ip link set there0 netns /proc/{os.getpid()}/fd/{self.net}; ip addr add 198.19.0.1/24 dev {name};"
                f"ip link set {name} up")
        host.sh("ip addr add 198.19.0.2/24 dev there0; ip link set there0 up; ip route add default via 198.19.0.1", self.net)

    def reaches(self, host):
        s = host.udp(host.lan, LAN, 7000)
        host.udp(self.net).sendto(b"through", (LAN, 7000))
        r = received(s)
        s.close()
        return r == b"through"

    def close(self):
        os.close(self.net)


def forwarding(host, name):
    return host.sh(f"cat /proc/sys/net/ipv4/conf/{name}/forwarding").strip() == "1"


@pytest.mark.parametrize("host", [DOES_NOT], indirect=True)
def test_interfaces_forward_for_sandboxes_only_whatever_they_are_called(host):
    host.start()
    x = Stranger(host, "new0")
    wait_until(lambda: forwarding(host, "new0") or None, 10, "forwarding")
    assert not x.reaches(host)
    host.sh("ip link set new0 down; ip link set new0 name lan7; ip link set lan7 up")
    assert forwarding(host, "lan7")
    assert not x.reaches(host)
    host.process.kill()                 # and by a daemon that starts later
    host.process.wait()
    host.sh("ip link set lan7 down; ip link set lan7 name lan8; ip link set lan8 up")
    host.start()
    assert not x.reaches(host)
    x.close()


@pytest.mark.parametrize("host", [DOES_NOT], indirect=True)
def test_a_host_that_begins_to_forward_does(host):
    """Docker comes to the host: its containers are none of our business."""
    guest = host.start()
    x = Stranger(host, "docker0")
    wait_until(lambda: forwarding(host, "docker0") or None, 10, "forwarding")
    host.sh("sysctl -qw net.ipv4.ip_forward=1")
    wait_until(lambda: x.reaches(host) or None, 10, "its own forwarding")
    peer = host.udp(host.lan, LAN, 7777)
    guest.send(LAN, 7777, b"no")
    assert received(peer) is None
    host.sh("sysctl -qw net.ipv4.ip_forward=0")     # and back: sandboxes go on, strangers do not
    tap = host.sh("ip -o link | grep -o 'sbx[0-9a-f]*' | head -n 1").strip()
    wait_until(lambda: forwarding(host, tap) and forwarding(host, "up0") or None, 10, "forwarding for sandboxes")
    assert not x.reaches(host)
    x.close()
