# SPDX-License-Identifier: MIT
"""Many rows, many clients, and a user who wants all of it: what the others notice."""
import contextlib
import os
import re
import shutil
import signal
import socket
import sqlite3
import threading
import time

from .figures import BenchError, now, rounds, scaled, timed
from .http import FloorServer, Http

ROWS = 1000
CLIENTS = 100
ATTACKER = 60002            # a uid that nobody has
CONNECTIONS = 1000          # that he tries to hold
FLOODERS = 8                # connections on which he asks as fast as he is answered
ATTACK_MAX = 120            # seconds after which an attack ends by itself


# ---- attacks: each runs in a process of its own, as ATTACKER, until it is killed ----

def idle(path, request, until):
    hold(path, b"", until)


def slow(path, request, until):
    """The head of a request, a byte at a time, on each of them."""
    hold(path, request, until)


def hold(path, text, until):
    """As many connections as are to be had; those that were closed are asked for again."""
    held = []
    while time.monotonic() < until:
        for i, (s, sent) in enumerate(held):
            try:
                if sent < len(text) - 2:
                    s.send(text[sent:sent + 1])
                elif not s.recv(1):
                    raise OSError
                held[i] = (s, sent + 1)
            except BlockingIOError:
                pass
            except OSError:
                s.close()
                held[i] = None
        held = [h for h in held if h]
        with contextlib.suppress(OSError):
            while len(held) < CONNECTIONS:
                s = socket.socket(socket.AF_UNIX)
                s.setblocking(False)
                held.append((s, 0))
                s.connect(path)
        time.sleep(0.1)


def flood(path, request, until):
    def one():
        while time.monotonic() < until:
            try:
                with Http(path) as c:
                    while time.monotonic() < until:
                        c.ask(request)
            except (OSError, BenchError):
                time.sleep(0.01)
    threads = [threading.Thread(target=one) for _ in range(FLOODERS)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()


@contextlib.contextmanager
def attack(how, path, request):
    """In its full strength before anything is measured."""
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setgid(ATTACKER)
            os.setuid(ATTACKER)
            how(path, request, time.monotonic() + ATTACK_MAX)
        finally:
            os._exit(0)
    try:
        time.sleep(1.5)
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


# ---- rows ----

STOPPED = 3                 # enum vm_state of daemon/store.h


def add_rows(state):
    """Stopped sandboxes, as they would be after a thousand creates and stops."""
    with contextlib.closing(sqlite3.connect(state + "/sandboxd.db")) as db:
        db.row_factory = sqlite3.Row
        model = dict(db.execute("SELECT * FROM vm LIMIT 1").fetchone())
        used = {r[0] for r in db.execute("SELECT slot FROM vm")}
        slots = (n for n in range(1, 4097) if n not in used)
        for i in range(ROWS):
            row = {**model, "id": f"{0xbe7c << 32 | i:016x}", "name": f"row-{i:04}", "slot": next(slots),
                   "workspace": None, "state": STOPPED, "reason": None, "share_pid": 0,
                   "share_start": 0}
            db.execute(f"INSERT INTO vm({','.join(row)}) VALUES({','.join('?' * len(row))})",
                       list(row.values()))
            os.makedirs(f"{state}/sandboxes/{row['id']}/vm", 0o711)
            os.link(f"{state}/sandboxes/{model['id']}/vm/disk.qcow2",
                    f"{state}/sandboxes/{row['id']}/vm/disk.qcow2")
        db.commit()


def drop_rows(state):
    with contextlib.closing(sqlite3.connect(state + "/sandboxd.db")) as db:
        for ident, in db.execute("SELECT id FROM vm WHERE name LIKE 'row-%'").fetchall():
            shutil.rmtree(f"{state}/sandboxes/{ident}")
        db.execute("DELETE FROM vm WHERE name LIKE 'row-%'")
        db.commit()


def resident_mib(pid, what):
    with open(f"/proc/{pid}/status") as f:
        return int(re.search(rf"^{what}:\s+(\d+) kB", f.read(), re.M).group(1)) / 1024


def wave(path, request, each):
    """CLIENTS at once, each with a connection of its own: milliseconds of each answer."""
    times, failed = [], []

    def one():
        try:
            with Http(path) as c:
                for _ in range(each):
                    times.append(timed(c.ask, request) * 1000)
        except (OSError, BenchError) as e:
            failed.append(e)
    threads = [threading.Thread(target=one) for _ in range(CLIENTS)]
    t = now()
    for x in threads:
        x.start()
    for x in threads:
        x.join()
    if failed:
        raise BenchError(f"{len(failed)} of {CLIENTS} clients: {failed[0]!r}")
    return times, CLIENTS * each / (now() - t)


# ---- what is reported ----

class Crowd:
    def __init__(self, bench):
        self.bench, self.daemon, self.report = bench, bench.daemon, bench.report
        self.list = Http.get_request("/v1/sandboxes")

    def measure(self):
        floor = FloorServer(self.daemon.dir)
        try:
            self.attacks(floor)
            self.daemon.restart(lambda: add_rows(self.daemon.state))
            try:
                self.rows(floor)
            finally:
                self.daemon.restart(lambda: drop_rows(self.daemon.state))
        finally:
            floor.close()

    def attacks(self, floor):
        """What the requests of one user take while another does his worst, beside what they take
        when he does not; and what they take of a bare server under the same."""
        os.chmod(floor.path, 0o666)
        size = len(Http(self.daemon.socket).get("/v1/sandboxes"))
        ask = {"ours": (self.daemon.socket, self.list),
               "floor": (floor.path, Http.get_request(f"/{size}"))}
        run = Http.post_request("/v1/sandboxes/box/run", {"command": ["true"]})

        def fresh(path, request):
            t = now()
            with Http(path) as c:
                c.ask(request)
            return now() - t

        def sample():
            n = self.bench.size(10, 40)
            v = {k: [fresh(*a) * 1000 for _ in range(n)] for k, a in ask.items()}
            v["run"] = [fresh(self.daemon.socket, run) * 1000 for _ in range(self.bench.size(5, 15))]
            return v
        for how, name in ((idle, f"{CONNECTIONS} idle connections"),
                          (slow, f"{CONNECTIONS} connections that send a byte at a time"),
                          (flood, f"{FLOODERS} connections that ask without a pause")):
            quiet = sample()
            with attack(how, *ask["ours"]):
                v = sample()
            floors = [("the same, left alone", quiet["ours"])]
            if how is flood:        # the others are for its own limits to stand, and it has none
                with attack(how, *ask["floor"]):
                    floors.append((floor.what + " under the same", sample()["floor"]))
            self.report.add("crowd", f"GET /v1/sandboxes beside {name}", "ms",
                            ("fresh connection", v["ours"]), floors)
            self.report.add("crowd", f"POST /run beside {name}", "ms",
                            ("fresh connection", v["run"]), [("the same, left alone", quiet["run"])])

    def rows(self, floor):
        pid, n = self.daemon.pid, ROWS + self.bench.n_sandboxes
        before = resident_mib(pid, "VmRSS")
        with Http(self.daemon.socket) as ours, Http(floor.path) as other:
            size = len(ours.ask(self.list))
            same = Http.get_request(f"/{size}")
            v = rounds(self.bench.size(5, 20), {"ours": lambda: timed(ours.ask, self.list),
                                                "floor": lambda: timed(other.ask, same)},
                       self.bench.until + 20, block=3)
        self.report.add("crowd", f"a list of {n} sandboxes ({size >> 10} KiB), one client", "ms",
                        ("GET /v1/sandboxes", scaled(v["ours"], 1000)),
                        [(floor.what + ", as many bytes", scaled(v["floor"], 1000))])
        resident, rates = [before, resident_mib(pid, "VmRSS")], []
        for name, request in (("the same list", self.list),
                              ("GET /v1/version", Http.get_request("/v1/version"))):
            each = 2 if request is self.list else 20
            size = len(Http(self.daemon.socket).ask(request))
            times, floors = [], []
            for _ in range(self.bench.size(1, 3)):
                t, rate = wave(self.daemon.socket, request, each)
                times += t
                rates.append(rate)
                resident.append(resident_mib(pid, "VmRSS"))
                floors += wave(floor.path, Http.get_request(f"/{size}"), each)[0]
            self.report.add("crowd", f"{name}, {CLIENTS} clients at once", "ms", ("all answers", times),
                            [(floor.what + ", as many bytes", floors)])
        self.bench.figures["crowd"] = {"rows": n, "resident_mib": resident, "per_s": rates,
                                       "peak_mib": resident_mib(pid, "VmHWM")}
        print("  sandboxd resident: " + " -> ".join(f"{m:.0f}" for m in resident) + " MiB, at most "
              f"{self.bench.figures['crowd']['peak_mib']:.0f}; answers in a second: "
              + ", ".join(f"{r:.0f}" for r in rates))
