# SPDX-License-Identifier: MIT
"""Guests whose first process means harm (tests/fakes/hostile-agent.c): what they can reach is that
they are of no use. Every call about them ends in its time with a code that says so, the daemon's
memory and descriptors stay what they were, a good guest beside them answers all the while, and they
can be removed."""
import contextlib
import json
import os
import re
import subprocess
import threading
import time

import pytest
from conftest import BUILD, SANDBOXD, SOURCE, running, wait_until

AGENT = os.environ.get("SBX_HOSTILE", os.path.join(BUILD, "tests/fakes/hostile-agent"))
START_MS = 25000
REPLY_S = 20            # what a guest may take to say that a command runs
SLACK_S = 15            # a busy machine
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


@pytest.fixture(scope="module")
def daemon():
    with running(start_timeout_ms=START_MS) as d:
        status, _, body = d.request("POST", "/v1/sandboxes", {"name": "good", **SMALL})
        assert status == 201, body
        assert d.run_in("good", "true")["exit_code"] == 0
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
    """Runs `with` these kinds of guests, and checks that they did no harm."""
    for kind in kinds:
        build(d, kind)
    d.run_in("good", "true")
    memory, files = rss(d), fds(d)
    with Watch(d) as w:
        yield
        for kind in kinds:
            d.sbx("rm", "-f", kind)
    assert w.failed is None, w.failed
    assert w.rounds > 0 and w.slowest_api < 3 and w.slowest_exec < 15, vars(w)
    print(f"{kinds}: {w.rounds} rounds, list {w.slowest_api:.2f} s, exec {w.slowest_exec:.2f} s, "
          f"memory {memory >> 20} to {w.peak >> 20} MiB, descriptors {files} to {fds(d)}")
    if not sanitized(d):
        assert w.peak < memory + 48 * 2**20
    wait_until(lambda: fds(d) <= files, 20, f"closing of descriptors ({files})")
    assert [r[0] for r in d.rows("SELECT name FROM vm")] == ["good"]
    assert len(os.listdir(d.state + "/sandboxes")) == len(os.listdir(d.run + "/sandboxes")) == 1
    assert len([a for _, a in d.processes() if "sandboxd --config" not in a]) == 1


def all_at_once(kinds, fn):
    """What fn says about each, from a thread each."""
    results = {}

    def one(kind):
        began = time.monotonic()
        try:
            results[kind] = (*fn(kind), time.monotonic() - began)
        except BaseException as e:
            results[kind] = (0, repr(e), time.monotonic() - began)

    threads = [threading.Thread(target=one, args=(k,)) for k in kinds]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return results


def post(d, path, body):
    status, _, text = d.request("POST", path, body)
    body = json.loads(text)
    return status, body["error"]["code"] if "error" in body else body, text.decode()


def create(d, kind):
    return post(d, "/v1/sandboxes", {"name": kind, "image": "hostile-" + kind, **SMALL})


def test_guests_that_do_not_come_up(daemon):
    kinds = ("silent", "garbage", "lengths", "hugehello", "sessions", "version")
    with harmless(daemon, kinds):
        got = all_at_once(kinds, lambda k: create(daemon, k))
    print({k: (v[0], v[1], round(v[-1], 1)) for k, v in got.items()})
    for kind, (status, code, text, took) in got.items():
        assert (status, code) == ((502, "guest_error") if kind == "version" else (504, "timeout")), \
            (kind, text)
        assert took < START_MS / 1000 + SLACK_S, (kind, took)
        assert "the guest" in text and kind in text


def command(d, kind):
    """Runs something there: status, code or result, text."""
    status, body, text = create(d, kind)
    if status != 201:
        return status, body, "create: " + text
    return post(d, f"/v1/sandboxes/{kind}/run", {"command": ["true"]})


def test_guests_that_do_not_do_what_they_are_told(daemon):
    kinds = ("mute", "deaf", "hellos", "types", "streams", "late-lengths")
    with harmless(daemon, kinds):
        got = all_at_once(kinds, lambda k: command(daemon, k))
    print({k: (v[0], v[1], round(v[-1], 1)) for k, v in got.items()})
    for kind, (status, code, text, took) in got.items():
        assert (status, code) == (504, "timeout"), (kind, text)
        assert took < START_MS / 1000 + REPLY_S + SLACK_S, (kind, took)


def test_guests_that_lie_about_output(daemon):
    kinds = ("overrun", "liar")
    with harmless(daemon, kinds):
        got = all_at_once(kinds, lambda k: command(daemon, k))
    print({k: (v[0], v[1], round(v[-1], 1)) for k, v in got.items()})
    for kind, (status, body, text, took) in got.items():
        assert status == 200 and body["end"] in ("lost", "exit"), (kind, text)
        assert took < START_MS / 1000 + 2 * REPLY_S + SLACK_S, (kind, took)


def test_output_without_end(daemon):
    """Whoever asked for it goes away; what was kept of it is bounded, and so is what it takes."""
    with harmless(daemon, ("flood",)):
        status, body, text = create(daemon, "flood")
        assert status == 201, text
        p = daemon.popen("exec", "flood", "--", "true", stdin=subprocess.DEVNULL)
        time.sleep(3)
        n = 0
        until = time.monotonic() + 3
        while time.monotonic() < until:
            n += len(os.read(p.stdout.fileno(), 2**20))
        p.kill()
        p.communicate()
        assert n > 2**20
        with contextlib.suppress(FileNotFoundError):
            rings = [f"{at}/{f}" for at, _, fs in os.walk(daemon.run + "/sandboxes") for f in fs
                     if "/execs" in at]
            assert sum(os.stat(r).st_blocks * 512 for r in rings) < 8 * 2**20, rings


def test_a_guest_that_ends_after_its_hello(daemon):
    with harmless(daemon, ("halt",)):
        status, code, text = create(daemon, "halt")
        assert status in (201, 409), text
        if status == 201:
            wait_until(lambda: daemon.get("/v1/sandboxes/halt")["state"] == "stopped", 30, "stop")
            assert post(daemon, "/v1/sandboxes/halt/run", {"command": ["true"]})[:2] == \
                (409, "sandbox_not_running")
        else:
            assert code == "sandbox_not_running", text


def test_words_of_a_guest_are_escaped(daemon):
    with harmless(daemon, ("escapes",)):
        status, body, text = create(daemon, "escapes")
        assert status == 201, text
        r = daemon.sbx("exec", "escapes", "--", "true")
        assert r.returncode == 125 and "the guest" in r.stderr, r
        logs = daemon.ok("logs", "escapes")
        for text in (r.stderr, logs, daemon.log()):
            assert "\033" not in text and "\007" not in text and "\x9b" not in text, text[-500:]
        assert "owned" in r.stderr and "owned" in logs
