# SPDX-License-Identifier: MIT
"""The host's disk is full: a guest that writes is paused with a reason, loses nothing, and goes on by itself
when there is room; what else one does with a sandbox works meanwhile."""
import contextlib
import glob
import json
import os
import signal
import subprocess
import threading
import time

import pytest
from sandboxd import Daemon, alive, wait_until


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


def qemu(d, name):
    with open(f"{d.state}/libvirt/run/qemu/sbx-{d.get('/v1/sandboxes/' + name)['id']}.pid") as f:
        return int(f.read())


def others_go_on(d):
    """Another user's sandbox begins, works, and the news of its end are heard: the worker has nothing in its way."""
    d.ok("create", "--name", "other", uid=4242)
    assert d.ok("exec", "other", "echo", "well", uid=4242) == "well\n"
    d.sbx("exec", "-u", "root", "other", "--", "sh", "-c", "echo o > /proc/sysrq-trigger; sleep 100", uid=4242)
    other, = [s["id"] for s in d.get("/v1/sandboxes")["sandboxes"] if s["name"] == "other"]
    wait_until(lambda: said(d, other) == "the guest powered off" or None, 60, "the news")
    d.ok("rm", "-f", "other", uid=4242)


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


def test_one_that_waits_for_room_is_not_idle(daemon):
    """Nothing runs in it that a client has started, and its QEMU takes no time."""
    resize(daemon, "100m")
    daemon.ok("create", "--name", "full")
    daemon.ok("create", "--name", "idle")
    daemon.ok("exec", "-u", "root", "full", "--", "sh", "-c",
              "setsid sh -c 'yes | head -c 120M > /var/tmp/x' >/dev/null 2>&1 </dev/null &")
    wait_until(lambda: said(daemon, "full").startswith("paused: the host's disk is full"), 60, "the pause")
    assert daemon.get("/v1/sandboxes/full")["execs_running"] == 0
    daemon.ok("update", "--idle-timeout", "6s", "full", "idle")
    wait_until(lambda: daemon.get("/v1/sandboxes/idle")["state"] == "stopped", 120, "the end of what idles")
    s = daemon.get("/v1/sandboxes/full")
    assert (s["state"], s["idle_since"]) == ("running", None), s
    daemon.ok("rm", "-f", "full", "idle")


def is_told_to_go_on(d):
    """A thread of the daemon waits for a monitor."""
    for path in glob.glob(f"/proc/{d.process.pid}/task/*/comm"):
        with contextlib.suppress(OSError), open(path) as f:
            if f.read() == "resume\n":
                return True
    return False


@pytest.mark.parametrize("how", ["the daemon stays", "the daemon is killed", "the daemon stops meanwhile"])
def test_one_that_does_not_answer_is_ended_and_in_nobodys_way(daemon, how):
    """A QEMU that was taken over, told to go on, does not answer: nor to a daemon that finds it."""
    resize(daemon, "64m")
    daemon.ok("create", "--name", "full")
    t, _ = fill(daemon, "full", 90)
    pid = qemu(daemon, "full")
    os.kill(pid, signal.SIGSTOP)
    if how == "the daemon stays":
        resize(daemon, "600m")
        wait_until(lambda: is_told_to_go_on(daemon), 60, "the thread")
    else:
        if how == "the daemon is killed":
            daemon.stop(signal.SIGKILL)
            resize(daemon, "600m")
        else:
            resize(daemon, "600m")
            wait_until(lambda: is_told_to_go_on(daemon), 60, "the thread")
            process = daemon.process
            daemon.stop()
            assert process.returncode == 0      # not by its alarm
        t.join(60)
        begun = time.monotonic()
        daemon.start()
        assert time.monotonic() - begun < 15      # libvirt would wait 30 s for each
        assert daemon.get("/v1/sandboxes/full")["state"] == "running"
    others_go_on(daemon)
    s = wait_until(lambda: (s := daemon.get("/v1/sandboxes/full"))["state"] == "stopped" and s, 120, "its end")
    assert s["reason"] == "its QEMU did not answer when there was room again", s
    assert not alive(pid)
    t.join(60)
    daemon.ok("start", "full")
    daemon.ok("rm", "-f", "full")
