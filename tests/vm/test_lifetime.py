# SPDX-License-Identifier: MIT
"""Time limits and restarts of real sandboxes, with limits of seconds."""
import datetime
import glob
import json
import os
import re
import signal
import time

import pytest
from sandboxd import alive, look, running, wait_until

LONG = 120      # seconds that something may take on a busy machine


@pytest.fixture(scope="module")
def daemon():
    with running(default_policy="none", log_level="notice") as d:
        yield d


def timestamp(text):
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def stopped(d, name):
    """Waits until it is, and says why."""
    return wait_until(lambda: (s := look(d, name))["state"] == "stopped" and s, LONG, f"end of {name}")


def qemu(d, name):
    """Its process."""
    sandbox = look(d, name)["id"]
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        try:
            with open(path, "rb") as f:
                if f"guest=sbx-{sandbox}".encode() in f.read():
                    return int(path.split("/")[2])
        except OSError:
            continue
    raise AssertionError(f"no QEMU of {name}")


def runs_again(d, name, before):
    """Waits for a run other than `before`, and gives that."""
    return wait_until(lambda: (s := look(d, name))["state"] == "running" and
                      s["started_at"] != before["started_at"] and s, LONG, f"restart of {name}")


def test_a_ttl_stops_what_works_and_warns_before(daemon):
    daemon.ok("create", "--name", "short", "--ttl", "12s")
    daemon.ok("exec", "-d", "short", "sleep", "1000")
    s = look(daemon, "short")
    assert s["ttl_ms"] == 12000 and s["stops_at"] > s["started_at"] and s["idle_since"] is None
    assert re.search(r"running \(stops in \d+s\)", daemon.ok("ls"))
    s = stopped(daemon, "short")
    assert s["reason"] == "its time of 12s was up" and s["stops_at"] is None
    log = daemon.ok("logs", "short")
    assert re.search(r"sandbox will be stopped in \d+m?s by its ttl", log), log
    assert "sandbox is being stopped: its time of 12s was up" in log
    records = [json.loads(r) for r in daemon.ok("audit", "--json").splitlines()]
    assert [r for r in records if r.get("action") == "sandbox.stop" and r["name"] == "short" and
            r.get("target") == "ttl" and "who" not in r]
    # a start gives it its time again, and a change counts from its moment on
    daemon.ok("start", "short")
    assert look(daemon, "short")["stops_at"]
    daemon.ok("update", "--ttl", "0", "short")
    s = look(daemon, "short")
    assert s["ttl_ms"] == 0 and s["stops_at"] is None
    daemon.ok("update", "--ttl", "2s", "short")
    assert stopped(daemon, "short")["reason"] == "its time of 2s was up"
    daemon.ok("rm", "short")


def test_what_idles_is_stopped_and_what_works_is_not(daemon):
    """Four at once, of which only one has nothing to do."""
    names = ["idle", "detached", "busy", "shell"]
    for name in names:
        daemon.ok("create", "--name", name)
    daemon.ok("exec", "-d", "detached", "sleep", "1000")
    # burns CPU although the command that began it has long ended
    daemon.ok("exec", "busy", "--", "sh", "-c", "setsid sh -c 'while :; do :; done' >/dev/null 2>&1 </dev/null &")
    wait_until(lambda: look(daemon, "busy")["execs_running"] == 0, LONG, "end of the command")
    shell = daemon.popen("exec", "-i", "shell", "sh")
    wait_until(lambda: look(daemon, "shell")["execs_running"] == 1, LONG, "shell")
    daemon.ok("update", "--idle-timeout", "8s", *names)
    s = stopped(daemon, "idle")
    assert s["reason"] == "idle for 8s"
    assert "sandbox is being stopped: idle for 8s" in daemon.ok("logs", "idle")
    # as long as it took that one, and longer
    daemon.ok("start", "idle")
    assert stopped(daemon, "idle")["reason"] == "idle for 8s"
    for name in names[1:]:
        s = look(daemon, name)
        assert (s["state"], s["stops_at"], s["idle_since"]) == ("running", None, None), (name, s)
    # when the work ends the countdown begins, and is shown
    shell.stdin.close()
    shell.wait(LONG)
    wait_until(lambda: look(daemon, "shell")["stops_at"], LONG, "countdown")
    assert re.search(r"running \(idle \d+s, stops in \d+s\)", daemon.ok("ls", "--filter", "name=shell"))
    begun = time.time()
    daemon.ok("exec", "shell", "true")      # and begins anew
    since = look(daemon, "shell")["idle_since"]
    assert since is None or timestamp(since) > begun - 1
    assert stopped(daemon, "shell")["reason"] == "idle for 8s"
    assert look(daemon, "busy")["state"] == "running"
    daemon.ok("rm", "-f", *names)


def test_a_restart_policy_brings_back_what_ended_by_itself(daemon):
    d = daemon
    d.ok("create", "--name", "always", "--restart", "always")
    d.ok("create", "--name", "failing", "--restart", "on-failure:1")
    d.ok("create", "--name", "never")
    before = {name: look(d, name) for name in ("always", "failing", "never")}
    assert before["failing"]["restart"] == "on-failure:1" and before["never"]["restart"] == "no"
    # the guest powers itself off: that is well for "on-failure"
    for name in before:
        d.sbx("exec", "-u", "root", name, "--", "sh", "-c", "echo o > /proc/sysrq-trigger; sleep 100")
    s = runs_again(d, "always", before["always"])
    assert s["restarts"] == 1 and s["reason"] is None and s["starts_at"] is None
    for name in ("failing", "never"):
        s = stopped(d, name)
        assert s["reason"] == "the guest powered off" and s["starts_at"] is None, s
    # crashes, one more than it may
    d.ok("start", "failing")
    s = look(d, "failing")
    os.kill(qemu(d, "failing"), signal.SIGKILL)
    s = runs_again(d, "failing", s)
    assert s["restarts"] == 1
    os.kill(qemu(d, "failing"), signal.SIGKILL)
    s = stopped(d, "failing")
    assert "machine" in s["reason"] and s["starts_at"] is None, s
    # a start by hand counts anew, and a crash is on its way back until somebody stops it
    d.ok("start", "failing")
    assert look(d, "failing")["restarts"] == 0
    d.ok("update", "--restart", "always", "failing")
    os.kill(qemu(d, "failing"), signal.SIGKILL)
    s = wait_until(lambda: (s := look(d, "failing"))["starts_at"] and s, LONG, "wait for a restart")
    assert s["state"] == "stopped"
    assert re.search(r"stopped \(.*, starts in \d+m?s\)", d.ok("ls", "--filter", "name=failing"))
    d.ok("stop", "failing")
    s = look(d, "failing")
    assert s["state"] == "stopped" and s["starts_at"] is None
    records = [json.loads(r) for r in d.ok("audit", "--json").splitlines()]
    assert [r for r in records if r.get("action") == "sandbox.start" and r["name"] == "failing" and
            r.get("target") == "restart" and r["result"]["status"] == 200]
    d.ok("rm", "-f", *before)


def test_restarts_and_limits_outlive_the_daemon(daemon):
    """kill -9, and while it is away: one is killed, one powers off, others go on or were stopped."""
    d = daemon
    d.ok("create", "--name", "killed", "--restart", "always")
    d.ok("create", "--name", "failing", "--restart", "on-failure")
    d.ok("create", "--name", "byhand", "--restart", "always")
    d.ok("create", "--name", "late", "--restart", "always", "--ttl", "25s")
    d.ok("create", "--name", "goes-on", "--restart", "always", "--idle-timeout", "3h", "--ttl", "2h")
    d.ok("stop", "byhand")
    pid = {name: qemu(d, name) for name in ("killed", "failing", "late", "goes-on")}
    before = {name: look(d, name) for name in pid}
    wait_until(lambda: look(d, "goes-on")["idle_since"], LONG, "countdown")
    d.stop(signal.SIGKILL)
    for name in ("killed", "failing"):
        os.kill(pid[name], signal.SIGKILL)
        wait_until(lambda: not alive(pid[name]), LONG, "its end")
    wait_until(lambda: time.time() > timestamp(before["late"]["stops_at"]), LONG, "ttl")
    d.start()
    for name in ("killed", "failing"):
        s = runs_again(d, name, before[name])
        assert s["restarts"] == 1
    # its time was up meanwhile; a policy does not bring back what a limit stopped
    assert stopped(d, "late")["reason"] == "its time of 25s was up"
    assert look(d, "late")["starts_at"] is None
    assert look(d, "byhand")["state"] == "stopped"
    s = look(d, "goes-on")
    assert s["started_at"] == before["goes-on"]["started_at"] and alive(pid["goes-on"])
    with open("/proc/sys/kernel/random/boot_id") as f:
        boot = f.read().strip()
    (at, where), = d.rows("SELECT stop_at, stop_boot FROM vm WHERE name = 'goes-on'")
    left = at - time.clock_gettime(time.CLOCK_BOOTTIME) * 1000
    assert where == boot and 0 < left <= 2 * 3600 * 1000
    # the end is where it was, to the second
    assert abs(timestamp(s["stops_at"]) - time.time() - left / 1000) < 5
    assert abs(timestamp(s["stops_at"]) - timestamp(before["goes-on"]["stops_at"])) < 5
    # what is on its way back when the daemon ends comes back with the next one
    d.ok("update", "--restart", "always", "failing")
    for _ in range(3):
        s = look(d, "failing")
        os.kill(qemu(d, "failing"), signal.SIGKILL)
        s = wait_until(lambda: (x := look(d, "failing"))["starts_at"] and x, LONG, "wait for a restart")
        d.stop(signal.SIGKILL)
        d.start()
        runs_again(d, "failing", s)
    d.ok("rm", "-f", "killed", "failing", "byhand", "late", "goes-on")


def test_an_idle_time_is_not_lost_by_a_restart_of_the_daemon(daemon):
    d = daemon
    d.ok("create", "--name", "box", "--idle-timeout", "1h")
    wait_until(lambda: (s := look(d, "box"))["idle_since"] and
               time.time() - timestamp(s["idle_since"]) >= 6, LONG, "six idle seconds")
    d.stop(signal.SIGTERM)
    idle = d.rows("SELECT idle_spent FROM vm WHERE name = 'box'")[0][0]
    assert 4000 <= idle <= 60000
    d.start()
    s = look(d, "box")
    assert time.time() - timestamp(s["idle_since"]) >= idle / 1000
    d.ok("exec", "box", "true")
    wait_until(lambda: d.rows("SELECT idle_spent FROM vm WHERE name = 'box'")[0][0] == 0, LONG, "zero")
    d.ok("rm", "-f", "box")
