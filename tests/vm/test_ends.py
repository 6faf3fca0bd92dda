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
from hostview import in_network
from sandboxd import alive, kill_all, look, running, wait_until

LONG = 120      # seconds that something may take on a busy machine
POWER_OFF = "echo o > /proc/sysrq-trigger; sleep 100"


@pytest.fixture(scope="module")
def daemon():
    with running(default_policy="none", log_level="notice") as d:
        yield d


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
    for n in range(2):
        if n:
            d.ok("start", "off")
        d.sbx("exec", "-u", "root", "off", "--", "sh", "-c", POWER_OFF)
        assert stopped(d, "off")["reason"] == "the guest powered off", n
    assert ends(d, "off") == ["the guest powered off"] * 2
    d.ok("rm", "-f", "off")


def test_a_share_that_dies_ends_its_sandbox(daemon):
    d = daemon
    reason = "the file share process ended"
    d.ok("create", "--name", "live", "--workspace", d.workspace())
    kill_all(of_sandbox(d, "live", "virtiofsd"))
    assert stopped(d, "live")["reason"] == reason and ends(d, "live") == [reason]
    d.ok("rm", "-f", "live")


def test_a_machine_that_is_slow_to_end_holds_up_nobody(daemon):
    """A QEMU may be in its guest's hands, and ignore that it is to end. Others' ends are heard of,
    and dealt with, before libvirt has killed it."""
    d = daemon
    names = ["other", "slow"]
    for name in names:
        d.ok("create", "--name", name, "--workspace", d.workspace())
    os.kill(of_sandbox(d, "slow", "qemu-system")[0], signal.SIGSTOP)
    kill_all(of_sandbox(d, "slow", "virtiofsd"))
    wait_until(lambda: look(d, "slow")["state"] == "stopping", LONG, "its end to begin")
    kill_all(of_sandbox(d, "other", "qemu-system"))
    assert stopped(d, "slow")["reason"] == "the file share process ended"
    told = [json.loads(v) for v in d.ok("events", "--json").splitlines()]
    assert [v["name"] for v in told if v["kind"] == "sandbox.stopped" and v["name"] in names] == ["other", "slow"]
    records = [json.loads(r) for r in d.ok("audit", "--json").splitlines()]
    assert [r["target"] for r in records if r.get("name") == "slow" and r.get("action") == "sandbox.stop"] == ["share"]
    d.ok("rm", "-f", *names)


def test_a_daemon_that_dies_while_it_ends_a_machine_restarts_it(daemon):
    d = daemon
    d.ok("create", "--name", "slow", "--workspace", d.workspace(), "--restart", "on-failure")
    qemu = of_sandbox(d, "slow", "qemu-system")
    os.kill(qemu[0], signal.SIGSTOP)
    kill_all(of_sandbox(d, "slow", "virtiofsd"))
    wait_until(lambda: look(d, "slow")["state"] == "stopping", LONG, "its end to begin")
    d.stop(signal.SIGKILL)
    kill_all(qemu)
    wait_until(lambda: not alive(qemu[0]), LONG, "end of QEMU")
    d.start()
    wait_until(lambda: look(d, "slow")["state"] == "running", LONG, "its restart")
    assert look(d, "slow")["restarts"] == 1
    assert d.ok("exec", "slow", "--", "echo", "again") == "again\n"
    d.ok("rm", "-f", "slow")


def test_a_share_that_died_while_no_daemon_was_there(daemon):
    d = daemon
    reason = "the file share process ended while sandboxd was not running"
    d.ok("create", "--name", "away", "--workspace", d.workspace())
    for n in range(2):
        if n:
            d.ok("start", "away")
        shares = of_sandbox(d, "away", "virtiofsd")
        d.stop(signal.SIGKILL)
        kill_all(shares)
        wait_until(lambda: not any(alive(p) for p in shares), LONG, "end of the share")
        d.start()
        assert stopped(d, "away")["reason"] == reason, n
    assert ends(d, "away") == [reason] * 2
    d.ok("rm", "-f", "away")


def test_a_daemon_that_leaves_as_sandboxes_end(daemon):
    """What it has heard of it still deals with; the next one finds the rest."""
    d = daemon
    names = ["one", "two"]
    for name in names:
        d.ok("create", "--name", name, "--workspace", d.workspace())
    kill_all(of_sandbox(d, "one", "virtiofsd") + of_sandbox(d, "two", "qemu-system"))
    p = d.process
    for _ in range(5):                  # time enough to hear of it, hardly enough to be done with it
        d.get("/v1/sandboxes")
    d.stop(signal.SIGTERM)
    assert p.returncode == 0
    d.start()
    for name in names:
        assert stopped(d, name)["reason"] and len(ends(d, name)) == 1
    d.ok("rm", "-f", *names)


def test_a_power_off_while_no_daemon_is_there(daemon):
    d = daemon
    names, share, machines = ["off", "shared"], d.workspace(), {}
    d.ok("create", "--name", "off", "--restart", "on-failure")
    d.ok("create", "--name", "shared", "--workspace", share, "--restart", "on-failure")
    for n in range(2):
        if n:
            os.unlink(share + "/now")
            d.ok("start", *names)
        for name in names:
            machines[name] = of_sandbox(d, name, "qemu-system")[0]
        d.ok("exec", "-d", "-u", "root", "shared", "--", "sh", "-c",
             "while [ ! -e /workspace/now ]; do sleep 0.1; done; " + POWER_OFF)
        d.ok("exec", "-d", "-u", "root", "off", "--", "sh", "-c", "sleep 10; " + POWER_OFF)
        d.stop(signal.SIGKILL)
        with open(share + "/now", "w"):
            pass
        for name in names:
            wait_until(lambda: query(machines[name]) == "shutdown", LONG, "power-off")
        d.start()
        for name in names:
            assert "powered off" in stopped(d, name)["reason"], n
    for name in names:
        assert len(ends(d, name)) == 2 and all("powered off" in v for v in ends(d, name)), ends(d, name)
    d.ok("rm", "-f", *names)


class Monitor:
    """QEMU's, which is libvirt's while a daemon is there."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(LONG)
        self.socket.connect(path)
        self.file = self.socket.makefile("rw")
        self.file.readline()
        self.ask("qmp_capabilities")

    def ask(self, command):
        self.file.write(json.dumps({"execute": command}) + "\n")
        self.file.flush()
        while "return" not in (answer := json.loads(self.file.readline())):
            assert "error" not in answer, answer
        return answer["return"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()
        self.socket.close()


def monitor_path(pid):
    with open(f"/proc/{pid}/cmdline", "rb") as f:
        sandbox = re.search(rb"guest=(sbx-[0-9a-f]+)", f.read())[1].decode()
    for d in glob.glob(f"/var/tmp/sbxv.*/state/libvirt/lib/qemu/domain-*-{sandbox}/monitor.sock"):
        return d
    raise AssertionError(f"no monitor of {sandbox}")


def query(pid):
    with Monitor(monitor_path(pid)) as m:
        return m.ask("query-status")["status"]


def libvirts_socket(d, path):
    """A copy of the daemon's own connection to a monitor."""
    libc = ctypes.CDLL(None, use_errno=True)
    process = os.pidfd_open(d.process.pid)
    try:
        for fd in os.listdir(f"/proc/{d.process.pid}/fd"):
            with contextlib.suppress(OSError):
                if not os.readlink(f"/proc/{d.process.pid}/fd/{fd}").startswith("socket:"):
                    continue            # above all not the one that holds a lock
                s = socket.socket(fileno=libc.syscall(438, process, int(fd), 0))    # pidfd_getfd
                with contextlib.suppress(OSError):
                    if s.family == socket.AF_UNIX and s.getpeername() == path:
                        return s
                s.close()
    finally:
        os.close(process)
    raise AssertionError(f"nobody is connected to {path}")


def test_a_machine_that_stands_still_is_stopped(daemon):
    """As by an internal error of KVM, which QEMU tells nobody more about than that it stopped the machine."""
    d = daemon
    d.ok("create", "--name", "live")
    d.ok("create", "--name", "away")
    with libvirts_socket(d, monitor_path(of_sandbox(d, "live", "qemu-system")[0])) as s:
        s.sendall(b'{"execute": "stop"}\n')
    s = stopped(d, "live")
    assert "was halted" in s["reason"] and ends(d, "live") == [s["reason"]]
    path = monitor_path(of_sandbox(d, "away", "qemu-system")[0])
    d.stop(signal.SIGKILL)
    with Monitor(path) as m:
        m.ask("stop")
    d.start()
    reason = "it was halted while sandboxd was not running"
    assert stopped(d, "away")["reason"] == reason and ends(d, "away") == [reason]
    d.ok("rm", "-f", "live", "away")


def test_a_number_that_is_another_process_by_now(daemon):
    """libvirt's directory outlives the host, and names processes by their numbers only."""
    d = daemon
    d.ok("create", "--name", "box")
    sandbox, pid = look(d, "box")["id"], of_sandbox(d, "box", "qemu-system")[0]
    d.stop(signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not alive(pid), LONG, "end of QEMU")
    other = subprocess.Popen(["sleep", "600"])
    try:
        for suffix in (".xml", ".pid"):
            path = f"{d.state}/libvirt/run/qemu/sbx-{sandbox}{suffix}"
            with open(path) as f:
                text = f.read()
            assert str(pid) in text
            with open(path, "w") as f:
                f.write(re.sub(rf"\b{pid}\b", str(other.pid), text))
        d.start()
        assert other.poll() is None and alive(other.pid)
    finally:
        other.kill()
        other.wait()
    assert stopped(d, "box")["reason"] == "it ended while sandboxd was not running"
    d.ok("start", "box")
    assert d.ok("exec", "box", "--", "echo", "again") == "again\n"
    d.ok("rm", "-f", "box")


def test_a_host_that_was_started_anew():
    """No process, no link, no rule, and nothing below /run is left of before."""
    with running(log_level="notice") as d:
        d.ok("create", "--name", "shared", "--workspace", d.workspace())
        d.ok("create", "--name", "plain")
        d.ok("exec", "-u", "root", "plain", "--", "sh", "-c", "echo kept > /root/file && sync")
        d.ok("create", "--name", "down", "--no-start")
        before = {name: look(d, name)["reason"] for name in ("shared", "plain", "down")}
        d.stop(signal.SIGKILL)
        pids = [p for p, _ in d.processes()]
        kill_all(pids)
        wait_until(lambda: not any(alive(p) for p in pids), LONG, "end of all processes")
        in_network(d, "nft", "flush", "ruleset")
        for link in re.findall(r"^\d+: (sbx[^:@]*)", in_network(d, "ip", "-o", "link"), re.M):
            in_network(d, "ip", "link", "del", link)
        shutil.rmtree(d.run)
        d.start()
        for name in ("shared", "plain"):
            assert stopped(d, name)["reason"] == "it ended while sandboxd was not running"
        assert look(d, "down")["state"] == "stopped" and look(d, "down")["reason"] == before["down"]
        assert d.findings(status=0) == {} and not [a for _, a in d.processes() if "qemu-system" in a]
        d.ok("start", *before)
        for name in before:
            assert d.ok("exec", name, "--", "echo", "again") == "again\n"
        assert d.ok("exec", "-u", "root", "plain", "--", "cat", "/root/file") == "kept\n"
