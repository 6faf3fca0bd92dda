# SPDX-License-Identifier: MIT
"""Guests whose first process means harm (tests/fakes/hostile-agent.c): what they can reach is that
they are of no use. Every call about them ends in its time with a code that says so, the daemon's
memory and descriptors stay what they were, a good guest beside them answers all the while, and they
can be removed."""
import contextlib
import json
import os
import re
import select
import subprocess
import threading
import time

import pytest
from conftest import BUILD, SANDBOXD, SOURCE, running, wait_until

AGENT = os.environ.get("SBX_HOSTILE", os.path.join(BUILD, "tests/fakes/hostile-agent"))
START_S = 90            # for those that come up, however busy the machine
IMPATIENT_S = 20        # for those that do not
REPLY_S = 20            # what a guest may take to say that a command runs
END_S = 30              # and that one has ended which it was told to end
# A busy machine; sanitizers on such a one.
SLACK_S = 60 if os.environ.get("SBX_TEST_SLOW") else 20
SMALL = {"memory": 256 * 2**20, "cpus": 1}

pytestmark = pytest.mark.skipif(not os.path.exists(AGENT), reason=f"no {AGENT}")


def rss(d, word="VmRSS"):
    with open(f"/proc/{d.process.pid}/status") as f:
        return int(re.search(word + r":\s+(\d+)", f.read())[1]) * 1024


def fds(d):
    return len(os.listdir(f"/proc/{d.process.pid}/fd"))


def sanitized(d):
    with open(f"/proc/{d.process.pid}/maps") as f:
        text = f.read()
    return "libasan" in text or "libtsan" in text


def build(d, kind):
    """An image whose agent is of this kind: kernel and root file system are those of the other."""
    path = f"{d.dir}/agent-{kind}"
    with open(AGENT, "rb") as f:
        program = f.read()
    mark = b"KIND=silent\0"
    assert program.count(mark) == 1
    at = program.index(mark)
    word = b"KIND=" + kind.encode() + b"\0"
    with open(path, "wb") as f:
        f.write(program[:at] + word + program[at + len(word):])
    os.chmod(path, 0o755)
    subprocess.run([SANDBOXD, "image", "build", "--config", d.dir + "/config.json", "--if-missing",
                    "--name", "hostile-" + kind, "--agent", path, "--share-dir",
                    SOURCE + "/guest"], check=True, capture_output=True, timeout=60)


@contextlib.contextmanager
def beside_a_good_guest(seconds):
    with running(start_timeout_ms=seconds * 1000) as d:
        status, _, body = d.request("POST", "/v1/sandboxes", {"name": "good", **SMALL})
        assert status == 201, body
        assert d.run_in("good", "true")["exit_code"] == 0
        yield d


@pytest.fixture(scope="module")
def daemon():
    with beside_a_good_guest(START_S) as d:
        yield d


class Watch:
    """Asks the good guest, and the daemon, all the while."""

    def __init__(self, d):
        self.d, self.done, self.rounds = d, threading.Event(), 0
        self.slowest_api = self.slowest_exec = self.peak = 0
        self.failed = None
        self.thread = threading.Thread(target=self.run)

    def run(self):
        try:
            while not self.done.wait(0.3):
                began = time.monotonic()
                self.d.get("/v1/sandboxes")
                self.slowest_api = max(self.slowest_api, time.monotonic() - began)
                began = time.monotonic()
                assert self.d.run_in("good", "echo", "fine")["stdout"] == "fine\n"
                self.slowest_exec = max(self.slowest_exec, time.monotonic() - began)
                self.peak = max(self.peak, rss(self.d))
                self.rounds += 1
        except BaseException as e:
            self.failed = e

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.done.set()
        self.thread.join()


@contextlib.contextmanager
def harmless(d, kinds):
    """Runs `with` these kinds of guests, removes them, and checks that they did no harm."""
    for kind in kinds:
        build(d, kind)
    d.run_in("good", "true")
    memory, files = rss(d), fds(d)
    with Watch(d) as w:
        yield
        there = [s["name"] for s in d.get("/v1/sandboxes")["sandboxes"] if s["name"] != "good"]
        removed = all_at_once(there, lambda k: (d.sbx("rm", k),))
    for kind, (r, took) in removed.items():     # an orderly shutdown has 10 s
        assert r.returncode == 0 and took < 10 + SLACK_S, (kind, r, took)
    assert w.failed is None, w.failed
    assert w.rounds > 0 and w.slowest_api < 5 and w.slowest_exec < 15, vars(w)
    gone = max((took for _, took in removed.values()), default=0)
    print(f"{kinds}: {w.rounds} rounds, list {w.slowest_api:.2f} s, exec {w.slowest_exec:.2f} s, "
          f"memory {memory >> 20} to {w.peak >> 20} MiB, descriptors {files} to {fds(d)}, "
          f"removed in {gone:.1f} s")
    # With sanitizers: shadow memory of what was touched, and freed blocks that are held back.
    assert w.peak < memory + (256 if sanitized(d) else 32) * 2**20
    wait_until(lambda: fds(d) <= files, 60, f"closing of descriptors ({files})")
    assert [r[0] for r in d.rows("SELECT name FROM vm")] == ["good"]
    assert len(os.listdir(d.state + "/sandboxes")) == len(os.listdir(d.run + "/sandboxes")) == 1
    wait_until(lambda: len([a for _, a in d.processes() if "sandboxd --config" not in a]) == 1, 60,
               "end of processes")


def all_at_once(kinds, fn):
    """The tuple fn makes of each, and the time it took, from a thread each."""
    results = {}

    def one(kind):
        began = time.monotonic()
        try:
            results[kind] = (*fn(kind), time.monotonic() - began)
        except Exception as e:
            results[kind] = e

    threads = [threading.Thread(target=one, args=(k,)) for k in kinds]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for r in results.values():
        if isinstance(r, Exception):
            raise r
    return results


def post(d, path, body):
    """Status, code or object, text."""
    status, _, text = d.request("POST", path, body)
    body = json.loads(text)
    return status, body["error"]["code"] if "error" in body else body, text.decode()


def create(d, kind):
    return post(d, "/v1/sandboxes", {"name": kind, "image": "hostile-" + kind, **SMALL})


def come_up(d, kinds):
    for kind, (status, _, text, _) in all_at_once(kinds, lambda k: create(d, k)).items():
        assert status == 201, (kind, text)


def run(d, kind, command=("true",), **fields):
    return post(d, f"/v1/sandboxes/{kind}/run", {"command": [*command], **fields})


def summary(got):
    print({k: (v[0], v[1] if v[0] != 200 else v[1]["end"], round(v[-1], 1))
           for k, v in got.items()})


def test_guests_that_do_not_come_up():
    kinds = ("silent", "garbage", "lengths", "hugehello", "sessions")
    with beside_a_good_guest(IMPATIENT_S) as d, harmless(d, kinds):
        got = all_at_once(kinds, lambda k: create(d, k))
    summary(got)
    for kind, (status, code, text, took) in got.items():
        assert (status, code) == (504, "timeout"), (kind, text)
        assert IMPATIENT_S - 1 < took < IMPATIENT_S + SLACK_S, (kind, took)
        assert "the guest did not come up: its agent" in text and kind in text
        assert "its console is empty" in text or "its console ends with: " in text


def test_a_guest_of_another_version(daemon):
    with harmless(daemon, ("version",)):
        status, code, text = create(daemon, "version")
        assert (status, code) == (502, "guest_error") and "version of the protocol" in text, text


def test_guests_that_do_not_do_what_they_are_told(daemon):
    kinds = ("mute", "deaf", "hellos", "types", "streams", "late-lengths", "epoch")
    long = ("true", "x" * 120000, "x" * 120000)     # more than a socket takes
    with harmless(daemon, kinds):
        come_up(daemon, kinds)
        got = all_at_once(kinds, lambda k: run(daemon, k, long))
    summary(got)
    for kind, (status, code, text, took) in got.items():
        assert (status, code) == (504, "timeout"), (kind, text)
        assert took < REPLY_S + SLACK_S, (kind, took)


def test_guests_that_do_not_end_what_they_began(daemon):
    kinds = ("overrun", "liar", "endless")
    with harmless(daemon, kinds):
        come_up(daemon, kinds)
        got = all_at_once(kinds, lambda k: run(daemon, k, timeout_ms=3000 if k == "endless" else 0))
        assert daemon.get("/v1/sandboxes/endless/execs")["execs"][0]["state"] == "lost"
    summary(got)
    for kind, (status, body, text, took) in got.items():
        assert status == 200, (kind, text)
        assert (body["end"], body["exit_code"]) == (("exit", 0) if kind == "liar" else ("lost", 125))
        assert END_S - 1 < took < END_S + 3 + SLACK_S, (kind, took)


def read_until(p, size, seconds):
    """Bytes of its output, until there are so many."""
    n, until = 0, time.monotonic() + seconds
    while n < size:
        ready, _, _ = select.select([p.stdout], [], [], max(0, until - time.monotonic()))
        assert ready, f"{n} bytes in {seconds} s"
        piece = os.read(p.stdout.fileno(), 2**20)
        assert piece, f"the end after {n} bytes: {p.stderr.read()}"
        n += len(piece)


def test_output_without_end(daemon):
    """Whoever asked for it goes away; what was kept of it is bounded, and so is what it takes."""
    with harmless(daemon, ("flood",)):
        come_up(daemon, ("flood",))
        p = daemon.popen("exec", "flood", "--", "true", stdin=subprocess.DEVNULL)
        read_until(p, 16 * 2**20, 120)
        rings = [f"{at}/{f}" for at, _, names in os.walk(daemon.run + "/sandboxes") for f in names
                 if "/execs" in at]
        assert rings and sum(os.stat(r).st_blocks * 512 for r in rings) < 8 * 2**20, rings
        p.kill()
        p.communicate()


def test_a_guest_that_ends_after_its_hello(daemon):
    with harmless(daemon, ("halt",)):
        status, code, text = create(daemon, "halt")     # gone before or after the answer
        assert status == 201 or (status, code) == (409, "sandbox_not_running"), text
        if status == 201:
            wait_until(lambda: daemon.get("/v1/sandboxes/halt")["state"] == "stopped", 60, "stop")
            assert run(daemon, "halt")[:2] == (409, "sandbox_not_running")


def test_words_of_a_guest_are_escaped(daemon):
    with harmless(daemon, ("escapes",)):
        come_up(daemon, ("escapes",))
        r = daemon.sbx("exec", "escapes", "--", "true")
        assert r.returncode == 125 and "the guest" in r.stderr, r
        logs = daemon.ok("logs", "escapes")
        for text in (r.stderr, logs, daemon.log()):
            assert "\033" not in text and "\007" not in text and "\x9b" not in text, text[-500:]
        assert "owned" in r.stderr and "owned" in logs


def test_a_guest_that_speaks_of_commands_that_have_ended(daemon):
    """The first end of a command is its end, whatever is said of it later, or of others that do not exist; what runs
    beside it in the same guest is as before."""
    with harmless(daemon, ("after-exit",)):
        come_up(daemon, ("after-exit",))
        box = daemon.get("/v1/sandboxes/after-exit")["id"]
        beside = daemon.ok("exec", "-d", "after-exit", "--", "true").strip()
        for _ in range(3):      # the guest has begun to talk of the one before by then
            r = daemon.sbx("exec", "after-exit", "--", "true")
            assert (r.returncode, r.stdout) == (7, "first\nlast\n"), r
        assert daemon.get(f"/v1/sandboxes/{box}/execs/{beside}")["state"] == "running"
        assert daemon.request("POST", f"/v1/sandboxes/{box}/execs/{beside}/signal", {"signal": "TERM"})[0] == 204
        # Frames come in their order: when this one has ended, all that was said of the others has been heard.
        wait_until(lambda: daemon.get(f"/v1/sandboxes/{box}/execs/{beside}")["state"] == "exited", 60, "its end")
        execs = daemon.get(f"/v1/sandboxes/{box}/execs")["execs"]
        outputs = [daemon.request("GET", f"/v1/sandboxes/{box}/execs/{x['id']}/output?stream=stdout")[2] for x in execs]
        assert sorted((x["id"] == beside, x["end"], x["exit_code"], out) for x, out in zip(execs, outputs)) == \
            [(False, "exit", 7, b"first\nlast\n")] * 3 + [(True, "exit", 3, b"beside\n")]
        told = [json.loads(line) for line in daemon.request("GET", "/v1/events?sandbox=" + box)[2].splitlines()]
        for kind in ("exec.start", "exec.exit"):
            assert sorted(e["exec"] for e in told if e["kind"] == kind) == sorted(x["id"] for x in execs), told


def test_a_guest_that_opens_its_port_again_and_again(daemon):
    """With a greeting, garbage or nothing each time. What the daemon says of it is bounded, however often it is."""
    def opened():
        return max([0, *map(int, re.findall(r"opened (\d+) times", daemon.ok("logs", "--console", "reopen")))])
    with harmless(daemon, ("reopen",)):
        said, began = len(daemon.log()), time.monotonic()
        come_up(daemon, ("reopen",))
        box = daemon.get("/v1/sandboxes/reopen")["id"]
        status, code, text = run(daemon, "reopen")
        assert (status, code) in ((504, "timeout"), (502, "guest_error")), text
        at = opened()
        wait_until(lambda: opened() > at + 10000, 240, "a storm")
        warnings = [line for line in daemon.log()[said:].splitlines()
                    if line.startswith("warning ") and box in line and "/v1/" not in line]
        minutes = int((time.monotonic() - began) / 60) + 1
        print(f"{opened()} times, in minute {minutes}:", *warnings, sep="\n")
        assert any("sends nonsense" in w for w in warnings) and len(warnings) <= 5 * minutes, warnings
