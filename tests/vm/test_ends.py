# SPDX-License-Identifier: MIT
"""What ends by itself says why, and starts again only if its policy says so of that reason: a guest that powers
off, a file share that dies, a machine that stands still, a number of a process that is somebody else's by now, a
host that was started anew; heard of while it happens, and found by the next daemon."""
import contextlib
import ctypes
import glob
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time

import pytest
from sandboxd import alive, kill_all, running, wait_until

LONG = 120      # seconds that something may take on a busy machine
POWER_OFF = "echo o > /proc/sysrq-trigger; sleep 100"


@pytest.fixture(scope="module")
def daemon():
    with running(default_policy="none", log_level="notice") as d:
        yield d


def look(d, name):
    return d.get(f"/v1/sandboxes/{name}")


def stopped(d, name):
    """Waits until it is, and says how; what would start again does not count."""
    s = wait_until(lambda: (s := look(d, name))["state"] == "stopped" and s, LONG, f"end of {name}")
    assert s["starts_at"] is None and s["restarts"] == 0, s
    return s


def ends(d, name):
    """What was told of its ends."""
    told = [json.loads(v) for v in d.ok("events", "--json", "--sandbox", name).splitlines()]
    return [v.get("detail") for v in told if v["kind"] == "sandbox.stopped"]


def of_sandbox(d, name, program):
    """Its processes that run `program`."""
    sandbox = look(d, name)["id"]
    found = []
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            with open(path, "rb") as f, open(os.path.dirname(path) + "/environ", "rb") as env:
                args, mark = f.read(), env.read()
            if sandbox.encode() in args + mark and program.encode() in args.split(b"\0")[0]:
                found.append(int(path.split("/")[2]))
    assert found, f"no {program} of {name}"
    return found


def test_a_power_off_is_none_of_its_share(daemon):
    """The share's process ends with QEMU, and may be heard of first."""
    d = daemon
    d.ok("create", "--name", "off", "--workspace", d.workspace(), "--restart", "on-failure")
    for n in range(3):
        if n:
            d.ok("start", "off")
        d.sbx("exec", "-u", "root", "off", "--", "sh", "-c", POWER_OFF)
        assert stopped(d, "off")["reason"] == "the guest powered off", n
    assert ends(d, "off") == ["the guest powered off"] * 3
    d.ok("rm", "-f", "off")


def test_a_share_that_dies_ends_its_sandbox(daemon):
    d = daemon
    reason = "the file share process ended"
    d.ok("create", "--name", "live", "--workspace", d.workspace())
    kill_all(of_sandbox(d, "live", "virtiofsd"))
    assert stopped(d, "live")["reason"] == reason and ends(d, "live") == [reason]
    d.ok("rm", "-f", "live")
