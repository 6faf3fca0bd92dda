# SPDX-License-Identifier: MIT
"""A sandbox's way out, without its virtual machine: a guest's end in a namespace of its own, the daemon's
code in another (tests/net/egress-host), an "Internet" in a third. Nothing of it touches the machine's
network."""
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time

from .figures import BenchError, now

sys.path.insert(1, os.path.join(os.path.dirname(__file__), "../../tests/harness"))
import netns  # noqa: E402

SERVER, UPLINK, PORT = "93.184.216.34", "203.0.113", 8080
RULES = f"allow {SERVER}\nallow 10.209.0.1:5300/udp\nallow bench.example\nallow **.bench.example\n"
GUEST = "10.209.0.2"


def socket_in(fd, *kind):
    """A socket of another network namespace: it keeps it. In a thread, since setns is for one."""
    made = []

    def make():
        netns.enter(fd)
        made.append(socket.socket(*kind))
    t = threading.Thread(target=make)
    t.start()
    t.join()
    return made[0]


class World:
    """`sandboxes` 0: the same wires and routes, no filter at all."""

    def __init__(self, build, sandboxes):
        self.build, self.sandboxes = build, sandboxes
        self.dir = tempfile.mkdtemp(prefix="sbxb.", dir="/tmp")
        self.host, self.guest, self.internet = netns.new(), netns.new(), netns.new()
        self.children, self.program = [], None
        self.tap = "sbx000000000000"
        self.wire(self.host, "up0", self.internet, "in0")
        self.at(self.host, f"ip addr add {UPLINK}.2/24 dev up0; ip link set up0 up;"
                           f"ip route add default via {UPLINK}.1")
        self.at(self.internet, f"ip addr add {UPLINK}.1/24 dev in0; ip link set in0 up;"
                               f"ip addr add {SERVER}/32 dev lo; ip route add 10.209.0.0/16 via {UPLINK}.2")
        if sandboxes:
            self.daemon()
        self.guests_end()
        self.listener = socket_in(self.internet, socket.AF_INET, socket.SOCK_STREAM)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind((SERVER, PORT))
        self.listener.listen(512)
        self.greeter = socket_in(self.internet, socket.AF_INET, socket.SOCK_STREAM)
        self.greeter.bind((SERVER, PORT + 1))
        self.greeter.listen(64)
        for fn in (self.serve, self.greet):
            threading.Thread(target=fn, daemon=True).start()

    def at(self, where, script):
        r = subprocess.run(["sh", "-ec", script], capture_output=True, text=True, check=False,
                           preexec_fn=lambda: netns.enter(where))
        if r.returncode:
            raise BenchError(f"{script}: {r.stderr}")

    def wire(self, a, a_name, b, b_name):
        self.at(a, f"ip link add {a_name} type veth peer name {b_name};"
                   f"ip link set {b_name} netns /proc/{os.getpid()}/fd/{b}")

    def daemon(self):
        for d in ("state", "run"):
            os.mkdir(f"{self.dir}/{d}")
        with open(self.dir + "/rules", "w") as f:
            f.write(RULES)
        with open(self.dir + "/config.json", "w") as f:
            json.dump({"state_dir": self.dir + "/state", "runtime_dir": self.dir + "/run",
                       "resolver": self.build + "/resolver/sandboxd-resolver",
                       "resolver_upstreams": ["127.0.0.1:5353"], "names_per_second": 100000,
                       "connections": 1000000, "connections_per_second": 1000000}, f)
        self.program = subprocess.Popen(
            [self.build + "/tests/net/egress-host", self.dir + "/config.json", str(self.sandboxes),
             self.dir + "/rules"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            preexec_fn=lambda: netns.enter(self.host))
        words = self.program.stdout.readline().split()
        if words[:1] != ["ready"]:
            raise BenchError("egress-host did not start")
        self.tap = words[2]
        self.at(self.host, f"ip link del {self.tap}")

    def guests_end(self):
        """In the tap's place, so that what is measured is the filter and not a QEMU."""
        self.wire(self.host, self.tap, self.guest, "eth0")
        self.at(self.host, f"""
            ip link set {self.tap} address 02:5b:78:00:00:01 up; ip addr add 10.209.0.1/32 dev {self.tap}
            ip neigh add {GUEST} lladdr 02:5b:78:01:00:01 dev {self.tap} nud permanent
            ip route add {GUEST}/32 dev {self.tap}
            for i in {self.tap} up0; do echo 1 > /proc/sys/net/ipv4/conf/$i/forwarding; done""")
        self.at(self.guest, f"""
            ip link set eth0 address 02:5b:78:01:00:01 up; ip addr add {GUEST}/32 dev eth0
            ip neigh add 10.209.0.1 lladdr 02:5b:78:00:00:01 dev eth0 nud permanent
            ip route add 10.209.0.1/32 dev eth0; ip route add default via 10.209.0.1""")
        if self.program:
            self.program.stdin.write("settle\n")
            self.program.stdin.flush()
            word = self.program.stdout.readline()
            if word != "ok\n":
                raise BenchError("egress-host: " + word)

    def greet(self):
        """Accepts and closes."""
        with contextlib.suppress(OSError):
            while True:
                self.greeter.accept()[0].close()

    def serve(self):
        """Reads what comes."""
        def sink(c):
            buffer = bytearray(1 << 18)
            with c, contextlib.suppress(OSError):
                while c.recv_into(buffer):
                    pass
        with contextlib.suppress(OSError):
            while True:
                c, _ = self.listener.accept()
                threading.Thread(target=sink, args=(c,), daemon=True).start()

    def connect(self):
        s = socket_in(self.guest, socket.AF_INET, socket.SOCK_STREAM)
        s.settimeout(20)
        s.connect((SERVER, PORT))
        return s

    def throughput(self, seconds):
        """MiB/s of one connection."""
        piece, sent = bytes(1 << 18), 0
        with self.connect() as s:
            start = now()
            while now() - start < seconds:
                sent += s.send(piece)
            return sent / (now() - start) / (1 << 20)

    def connections(self, count):
        """Per second, one after the other: each is decided anew."""
        rate = []

        def run():
            netns.enter(self.guest)
            start = now()
            for _ in range(count):
                with socket.create_connection((SERVER, PORT + 1), 20) as s:
                    s.recv(1)               # its end
            rate.append(count / (now() - start))
        t = threading.Thread(target=run)
        t.start()
        t.join()
        return rate[0]

    def spawn(self, where, *argv):
        self.children.append(subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                              stderr=subprocess.DEVNULL,
                                              preexec_fn=lambda: netns.enter(where)))

    def name_servers(self):
        """One that knows everything, for both to ask; and dnsmasq to be compared with."""
        user = ["--user=root", "--group=", "--no-daemon", "--no-resolv", "--no-hosts", "--conf-file=/dev/null",
                "--bind-interfaces", "--pid-file="]
        self.spawn(self.host, "dnsmasq", *user, "--port=5353", "--listen-address=127.0.0.1",
                   f"--address=/bench.example/{SERVER}", "--local-ttl=300", "--cache-size=0")
        self.spawn(self.host, "dnsmasq", *user, "--port=5300", "--listen-address=10.209.0.1",
                   "--server=127.0.0.1#5353", "--cache-size=2000")
        end = time.monotonic() + 20
        while time.monotonic() < end:
            if all(self.ask(server, 50, "www.bench.example")["rcodes"].get("NOERROR") == 50
                   for server in ("10.209.0.1:53", "10.209.0.1:5300")):
                return
        raise BenchError("the name servers do not answer")

    def ask(self, server, count, *names, sockets=4):
        source = os.path.join(os.path.dirname(__file__), "../../tests/net/dnsbench.py")
        which = [x for n in names for x in ("--name", n)] if names else ["--unique", "bench.example"]
        r = subprocess.run([sys.executable, source, server, "-n", str(count), "-s", str(sockets), *which],
                           capture_output=True, text=True, check=False, timeout=120,
                           preexec_fn=lambda: netns.enter(self.guest))
        if r.returncode not in (0, 1) or not r.stdout:
            raise BenchError("dnsbench: " + r.stderr)
        return json.loads(r.stdout)

    def close(self):
        for c in self.children:
            c.kill()
            c.wait()
        self.listener.close()
        self.greeter.close()
        if self.program:
            self.program.kill()     # the namespace takes links and rules with it
            self.program.wait()
        for fd in (self.host, self.guest, self.internet):
            os.close(fd)
        shutil.rmtree(self.dir, ignore_errors=True)
