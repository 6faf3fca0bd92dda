# SPDX-License-Identifier: MIT
"""The host's disk is full: a guest that writes is paused with a reason, loses nothing, and goes on by itself
when there is room; what else one does with a sandbox works meanwhile."""
import json
import os
import subprocess
import threading

import pytest
from sandboxd import Daemon, wait_until


@pytest.fixture(scope="module")
def daemon():
    """Its sandboxes lie on a file system of their own, a small one."""
    d = Daemon(network=False)
    where = d.state + "/sandboxes"
    os.mkdir(where, 0o711)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m,mode=0711", "small", where], check=True)
    d.small = where
    d.start()
    yield d
    for s in d.get("/v1/sandboxes")["sandboxes"]:
        d.ok("rm", "-f", s["id"])
    d.stop()
    subprocess.run(["umount", where], check=True)
    left = d.close()
    assert not left, left


def resize(d, size):
    subprocess.run(["mount", "-o", f"remount,size={size}", d.small], check=True)


def said(d, name):
    return d.get(f"/v1/sandboxes/{name}")["reason"] or ""


def fill(d, name, mib):
    """Writes in the guest what does not fit, to the end; the result comes when it goes on."""
    out = []
    data = f"yes it grows | head -c {mib}M"
    script = f"{data} > /var/tmp/x && sync && echo 3 > /proc/sys/vm/drop_caches && {data} | cmp - /var/tmp/x && echo whole"
    t = threading.Thread(target=lambda: out.append(d.sbx("exec", "-u", "root", name, "--", "sh", "-c", script)))
    t.start()
    wait_until(lambda: said(d, name).startswith("paused: the host's disk is full") or None, 60, "the pause")
    return t, out


def test_paused_and_goes_on(daemon):
    resize(daemon, "64m")
    daemon.ok("create", "--name", "full")
    t, out = fill(daemon, "full", 90)
    assert daemon.get("/v1/sandboxes/full")["state"] == "running"
    assert "running (paused: the host's disk is full" in daemon.ok("ls", "--no-trunc")
    r = daemon.sbx("exec", "full", "true")
    assert r.returncode == 125 and "the host's disk is full" in r.stderr and "make room" in r.stderr, r
    resize(daemon, "600m")
    t.join(60)
    assert out and out[0].returncode == 0 and out[0].stdout == "whole\n", out
    assert said(daemon, "full") == ""
    told = [json.loads(v) for v in daemon.ok("events", "--json", "--sandbox", "full").splitlines()]
    told = [v for v in told if v["kind"] in ("sandbox.stall", "sandbox.resume")]
    assert told[0]["kind"] == "sandbox.stall" and told[0]["detail"].startswith("paused: the host's disk is full")
    assert told[-1]["kind"] == "sandbox.resume"
    assert daemon.ok("exec", "full", "--", "sh", "-c", "dmesg | grep -ci 'i/o error' || true").strip() == "0"
    daemon.ok("rm", "-f", "full")


def test_a_new_daemon_knows_and_lets_it_go_on(daemon):
    resize(daemon, "64m")
    daemon.ok("create", "--name", "full")
    t, _ = fill(daemon, "full", 90)
    daemon.stop(9)
    t.join(60)                      # its client has nobody to talk to
    resize(daemon, "600m")
    daemon.start()
    assert daemon.get("/v1/sandboxes/full")["state"] == "running"
    size = "test $(stat -c %s /var/tmp/x) = " + str(90 << 20)
    wait_until(lambda: daemon.sbx("exec", "full", "--", "sh", "-c", size).returncode == 0 or None, 60, "all of it")
    daemon.ok("rm", "-f", "full")


def test_removed_while_it_is_paused(daemon):
    resize(daemon, "64m")
    daemon.ok("create", "--name", "full")
    t, out = fill(daemon, "full", 90)
    daemon.ok("rm", "-f", "full")
    t.join(60)
    assert out and out[0].returncode == 125, out
    resize(daemon, "600m")
    daemon.ok("create", "--name", "next")
    assert daemon.ok("exec", "next", "echo", "well") == "well\n"
