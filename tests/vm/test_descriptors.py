# SPDX-License-Identifier: MIT
"""A daemon that may open so many files more and no further: what it is asked is done whole or refused by a stable
code, what runs goes on, and all is well as soon as it may open more."""
import contextlib
import json
import os
import resource

import pytest
from sandboxd import UnixConnection, look, wait_until

PLENTY = 40         # more than anything that is asked for here takes at a time


def descriptors(daemon):
    return {int(fd) for fd in os.listdir(f"/proc/{daemon.process.pid}/fd")}


def opened(daemon):
    """How many, but for the logs of sandboxes: one that was started has them until it is removed."""
    n = 0
    for fd in descriptors(daemon):
        with contextlib.suppress(FileNotFoundError):
            n += not os.readlink(f"/proc/{daemon.process.pid}/fd/{fd}").endswith(".log")
    return n


@contextlib.contextmanager
def few(daemon, n):
    """It finds n free numbers for descriptors, and then none."""
    pid = daemon.process.pid
    was = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    taken, limit = descriptors(daemon), 0
    while n >= 0:
        n -= limit not in taken
        limit += 1
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit - 1, was[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, was)


def ask_with(d, n, method, path, body=None):
    """(status, code, message); a success has but a status. By a connection that is there before they are few: who finds none for
    a new one is told so by test-gate.c's daemon."""
    with contextlib.closing(UnixConnection(d.socket)) as c:
        c.request("GET", "/v1/version")
        c.getresponse().read()
        with few(d, n):
            c.request(method, path, json.dumps(body) if body is not None else None)
            r = c.getresponse()
            text = r.read()
    error = json.loads(text)["error"] if r.status >= 400 else {}
    return r.status, error.get("code"), error.get("message")


@pytest.fixture(scope="module")
def old(daemon, box):
    daemon.ok("create", "--name", "old", "--no-start")
    yield "old"
    daemon.ok("rm", "-f", "old")


def runs(d):
    return d.run_in("box", "echo", "on")["stdout"] == "on\n"


ASKED = {
    "run": ("POST", "/v1/sandboxes/box/run", {"command": ["true"]}),
    "exec": ("POST", "/v1/sandboxes/box/execs", {"command": ["true"]}),
    "start": ("POST", "/v1/sandboxes/old/start", None),
    "create": ("POST", "/v1/sandboxes", {"name": "new"}),
}


@pytest.mark.parametrize("what", ASKED)
def test_what_finds_no_descriptor_is_done_or_refused(daemon, box, old, what):
    before, refused = opened(daemon), 0
    for n in range(PLENTY):
        status, code, message = ask_with(daemon, n, *ASKED[what])
        assert daemon.process.poll() is None
        if status < 300:
            break
        # libvirt does not say what it lacked when it could not start a program
        assert (status, code) == (503, "unavailable") or (status, code) == (500, "internal") and \
            "cannot start the guest: internal error" in daemon.log(), (n, status, code, message)
        refused += 1
        assert look(daemon, "old")["state"] == "stopped"
        left = [s["state"] for s in daemon.get("/v1/sandboxes")["sandboxes"] if s["name"] == "new"]
        if left:            # there was none for the undo either: it is as one whose removal was cut off
            assert left == ["removing"]
            daemon.ok("rm", "-f", "new")
    assert refused > 0 and status < 300
    assert runs(daemon)
    if what in ("start", "create"):
        name = {"start": "old", "create": "new"}[what]
        assert daemon.run_in(name, "echo", "here")["stdout"] == "here\n"
        daemon.ok(*{"start": ["stop"], "create": ["rm", "-f"]}[what], name)
    assert daemon.findings(status=0) == {}
    # none is lost where it failed; connections end some time after their last answer
    wait_until(lambda: opened(daemon) <= before, what="end of what was opened")
