#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Asks a DNS server many questions and prints how long the answers took, as one line of JSON.

    dnsbench.py 10.209.0.1 -n 20000 -s 16 --name example.com --name www.example.com
    dnsbench.py 127.0.0.1:5353 -n 5000 -s 64 --unique bench.example     # each name once: no cache

Each of the sockets has one question on its way at a time, so -s is how many there are at once; the
rate is what comes of it and not what was asked for. --pid measures the processor time that the
server takes meanwhile; with several processes name each. Speaks plain DNS by UDP and knows nothing
of the server, so it serves for any."""
import argparse
import collections
import itertools
import json
import os
import random
import select
import socket
import struct
import sys
import time

TYPES = {"A": 1, "TXT": 16, "AAAA": 28, "HTTPS": 65}
RCODES = {0: "NOERROR", 1: "FORMERR", 2: "SERVFAIL", 3: "NXDOMAIN", 4: "NOTIMP", 5: "REFUSED"}


def wire(name):
    return b"".join(struct.pack("B", len(x)) + x for x in name.encode().split(b".")) + b"\0"


def cpu_seconds(pids):
    total = 0
    for pid in pids:
        with open("/proc/%d/stat" % pid) as f:
            fields = f.read().rsplit(")", 1)[1].split()
        total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


class Bench:
    def __init__(self, args):
        self.args = args
        self.tail = struct.pack("!HH", TYPES[args.type], 1)
        if not args.plain:      # EDNS, 1232 bytes
            self.tail += b"\0\0\x29" + struct.pack("!HIH", 1232, 0, 0)
        self.more = 0 if args.plain else 1
        if args.unique:
            run = "%08x" % random.getrandbits(32)
            self.names = (wire("n%d-%s.%s" % (i, run, args.unique)) for i in itertools.count())
        else:
            self.names = itertools.cycle([wire(n) for n in args.name])
        self.times, self.rcodes = [], collections.Counter()
        self.sent = self.lost = self.foreign = 0
        self.waiting = {}           # fd -> (id, when it was sent)

    def ask(self, s):
        if self.sent == self.args.n:
            self.waiting.pop(s.fileno(), None)
            return
        ident = random.getrandbits(16)
        data = struct.pack("!HHHHHH", ident, 0x100, 1, 0, 0, self.more) + next(self.names) + self.tail
        self.sent += 1
        self.waiting[s.fileno()] = (ident, time.perf_counter())
        try:
            s.send(data)
        except OSError:
            pass                    # it is lost, then

    def read(self, s):
        try:
            data = s.recv(4096)
        except OSError:             # nobody listens: counted as lost when its time is over
            return
        ident, at = self.waiting[s.fileno()]
        if len(data) < 12 or struct.unpack("!H", data[:2])[0] != ident:
            self.foreign += 1       # late
            return
        self.times.append(time.perf_counter() - at)
        self.rcodes[RCODES.get(data[3] & 15, str(data[3] & 15)) + ("+TC" if data[2] & 2 else "")] += 1
        self.ask(s)

    def give_up(self, sockets):
        now = time.perf_counter()
        for fd, (_, at) in list(self.waiting.items()):
            if now - at > self.args.timeout:
                self.lost += 1
                self.ask(sockets[fd])

    def run(self):
        sockets, poller = {}, select.epoll()
        for i in range(self.args.s):
            s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            s.setblocking(False)
            if self.args.source:
                s.bind((self.args.source[i % len(self.args.source)], 0))
            s.connect(self.args.server)
            sockets[s.fileno()] = s
            poller.register(s, select.EPOLLIN)
        cpu, start, looked = cpu_seconds(self.args.pid), time.perf_counter(), 0
        for s in sockets.values():
            self.ask(s)
        while self.waiting:
            for fd, _ in poller.poll(0.05):
                if fd in self.waiting:
                    self.read(sockets[fd])
            if time.perf_counter() - looked > 0.05:
                looked = time.perf_counter()
                self.give_up(sockets)
        seconds = time.perf_counter() - start
        cpu = cpu_seconds(self.args.pid) - cpu
        for s in sockets.values():
            s.close()
        return self.report(seconds, cpu)

    def report(self, seconds, cpu):
        t = sorted(self.times)

        def at(share):
            return round(t[min(len(t) - 1, int(share * len(t)))] * 1000, 3) if t else None
        r = {"server": "%s:%d" % self.args.server, "sockets": self.args.s, "questions": self.sent,
             "answered": len(t), "lost": self.lost, "foreign": self.foreign,
             "rcodes": dict(self.rcodes), "seconds": round(seconds, 3),
             "per_second": round(len(t) / seconds), "ms": {
                 "min": at(0), "p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "p99.9": at(0.999),
                 "max": at(1), "mean": round(sum(t) / len(t) * 1000, 3) if t else None}}
        if self.args.pid:
            r["server_cpu_seconds"] = round(cpu, 2)
            r["server_us_per_question"] = round(cpu * 1e6 / len(t), 1) if t else None
        return r


def server(text):
    host, _, port = text.partition(":")
    return socket.gethostbyname(host), int(port or 53)


def main(argv=None):
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("server", type=server, metavar="ADDRESS[:PORT]")
    p.add_argument("-n", type=int, default=1000, metavar="N", help="questions in all (1000)")
    p.add_argument("-s", type=int, default=1, metavar="M", help="sockets (1)")
    p.add_argument("--name", action="append", metavar="NAME", help="to ask for, in turn; repeatable")
    p.add_argument("--unique", metavar="ZONE", help="ask for another name below it each time")
    p.add_argument("--type", choices=sorted(TYPES), default="A")
    p.add_argument("--plain", action="store_true", help="without EDNS")
    p.add_argument("--source", action="append", metavar="ADDRESS", help="to ask from; repeatable")
    p.add_argument("--timeout", type=float, default=5, metavar="SECONDS", help="then it is lost (5)")
    p.add_argument("--pid", type=int, action="append", default=[], metavar="PID", help="of the server")
    args = p.parse_args(argv)
    if not args.name and not args.unique:
        args.name = ["example.com"]
    print(json.dumps(Bench(args).run()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
