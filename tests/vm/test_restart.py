# SPDX-License-Identifier: MIT
"""The daemon ends, by whatever means, and comes back: sandboxes and their execs go on."""
import glob
import os
import random
import signal
import subprocess
import time

from conftest import alive, kill_all, running, wait_until


def pids(daemon):
    return {p for p, args in daemon.processes() if "sandboxd --config" not in args}


def test_a_killed_daemon_comes_back_to_running_sandboxes_and_execs(daemon):
    d = daemon.workspace()
    daemon.ok("create", "--name", "on", "--workspace", d)
    boot_id = daemon.ok("exec", "on", "--", "cat", "/proc/sys/kernel/random/boot_id")
    ident = daemon.ok("exec", "-d", "on", "--", "sh", "-c",
                      "i=0; while [ ! -e /workspace/end ]; do i=$((i+1)); echo $i; sleep 0.02; done; "
                      "echo last; exit 7").strip()
    wait_until(lambda: b"\n3\n" in output(daemon, "on", ident), what="output")
    before = pids(daemon)
    daemon.stop(signal.SIGKILL)
    assert pids(daemon) == before                   # nothing of the sandbox went with it
    daemon.start()
    box = daemon.get("/v1/sandboxes/on")
    assert box["state"] == "running"
    assert pids(daemon) == before
    assert daemon.ok("exec", "on", "--", "cat", "/proc/sys/kernel/random/boot_id") == boot_id
    assert daemon.get(f"/v1/sandboxes/on/execs/{ident}")["state"] == "running"
    with open(d + "/end", "w"):
        pass
    r = daemon.sbx("attach", "on", ident)
    assert r.returncode == 7, r.stderr
    lines = output(daemon, "on", ident).decode().split()
    assert lines[-1] == "last" and lines[:-1] == [str(i + 1) for i in range(len(lines) - 1)]
    daemon.ok("rm", "on")


def output(daemon, ref, ident):
    _, _, body = daemon.request("GET", f"/v1/sandboxes/{ref}/execs/{ident}/output?stream=stdout&offset=0")
    return body


def test_an_orderly_stop_lets_sandboxes_live(daemon):
    daemon.ok("create", "--name", "stay")
    before = pids(daemon)
    daemon.stop(signal.SIGTERM)
    assert pids(daemon) == before and before
    daemon.start()
    assert daemon.ok("exec", "stay", "--", "echo", "here") == "here\n"
    daemon.ok("rm", "stay")


def test_what_ended_meanwhile_is_stopped_with_a_reason(daemon):
    d = daemon.workspace()
    daemon.ok("create", "--name", "dies", "--workspace", d)
    daemon.ok("exec", "-d", "dies", "--", "sleep", "1000")
    daemon.stop(signal.SIGKILL)
    kill_all(pids(daemon))
    wait_until(lambda: not pids(daemon), what="end of the sandbox")
    daemon.start()
    box = daemon.get("/v1/sandboxes/dies")
    assert box["state"] == "stopped" and "while sandboxd was not running" in box["reason"], box
    daemon.ok("start", "dies")
    assert daemon.get("/v1/sandboxes/dies/execs")["execs"] == []    # they ended with that guest
    assert daemon.ok("exec", "dies", "--", "echo", "again") == "again\n"
    daemon.ok("rm", "dies")


def test_a_daemon_killed_in_the_middle_of_a_create_leaves_nothing(daemon):
    """At a different moment each time; whatever was half made is gone after the next start."""
    d = daemon.workspace()
    for moment in ("sandboxes", "socket", "share", "qemu"):
        p = daemon.popen("create", "--name", "half", "--workspace", d)
        wait_until(lambda: {
            "sandboxes": lambda: os.listdir(daemon.run + "/sandboxes"),
            "socket": lambda: glob.glob(daemon.run + "/sandboxes/*/share.sock"),
            "share": lambda: any("virtiofsd" in a for _, a in daemon.processes()),
            "qemu": lambda: any("qemu-system" in a for _, a in daemon.processes()),
        }[moment](), what=moment)
        daemon.stop(signal.SIGKILL)
        _, text = p.communicate(timeout=60)
        assert p.returncode == 125, text
        daemon.start()
        assert daemon.get("/v1/sandboxes")["sandboxes"] == [], moment
        assert pids(daemon) == set(), moment
        assert os.listdir(daemon.run + "/sandboxes") == [] == os.listdir(daemon.state + "/sandboxes")
    daemon.ok("create", "--name", "half", "--workspace", d)          # the name is free
    assert daemon.ok("exec", "half", "--", "echo", "whole") == "whole\n"
    daemon.ok("rm", "half")


def test_killed_at_any_moment_it_comes_back_in_order(daemon):
    """SBX_TEST_SEED repeats a run, SBX_TEST_KILLS makes it longer."""
    seed = int(os.environ.get("SBX_TEST_SEED", time.time_ns() % 100000))
    dice = random.Random(seed)
    d = daemon.workspace()
    words = [("create", "--name", "any", "--workspace", d), ("rm", "any"), ("rm", "-f", "any"),
             ("stop", "any"), ("start", "any"), ("restart", "any"), ("exec", "any", "--", "true")]
    for n in range(int(os.environ.get("SBX_TEST_KILLS", "20"))):
        op = dice.choice(words)
        what = f"seed {seed}, round {n}, {op}"
        p = daemon.popen(*op)
        time.sleep(dice.choice([0.02, 0.1, 0.3, 1, 4]) * dice.random())
        daemon.stop(signal.SIGKILL)
        p.communicate(timeout=30)               # no client hangs
        daemon.start()
        assert daemon.findings(status=0) == {}, what
        for box in daemon.get("/v1/sandboxes")["sandboxes"]:
            assert box["state"] in ("running", "stopped"), (what, box)
            if box["state"] == "running":
                assert daemon.ok("exec", "any", "--", "echo", "here") == "here\n", what
            else:
                assert not pids(daemon), what
    daemon.sbx("rm", "-f", "any")
    assert pids(daemon) == set(), f"seed {seed}"


def test_a_share_whose_row_was_never_written_is_ended(daemon):
    daemon.stop()
    stray = subprocess.Popen(["sleep", "600"], env={
        **os.environ, "SBX_SHARE": daemon.run + "/sandboxes/0123456789abcdef/share.sock"})
    other = subprocess.Popen(["sleep", "600"], env={
        **os.environ, "SBX_SHARE": daemon.run + "-other/sandboxes/0123456789abcdef/share.sock"})
    try:
        daemon.start()
        assert stray.wait(10) == -signal.SIGKILL
        assert other.poll() is None and alive(other.pid)
    finally:
        for p in (stray, other):
            p.kill()
            p.wait()


def test_two_daemons_do_not_share_a_directory(daemon):
    from conftest import SANDBOXD
    r = subprocess.run([SANDBOXD, "--config", daemon.dir + "/config.json"], capture_output=True, text=True,
                       stdin=subprocess.DEVNULL, timeout=60)
    assert r.returncode != 0 and "another sandboxd uses" in r.stderr, r.stderr
    assert daemon.get("/v1/sandboxes")["sandboxes"] == []


def test_a_newer_database_is_refused():
    import sqlite3
    with running() as d:
        d.stop()
        with sqlite3.connect(d.state + "/sandboxd.db") as db:
            version = db.execute("PRAGMA user_version").fetchone()[0]
            db.execute(f"PRAGMA user_version = {version + 1}")
        db.close()
        assert d.start(expect_failure=True) != 0
        assert "newer" in d.log()
        with sqlite3.connect(d.state + "/sandboxd.db") as db:
            db.execute(f"PRAGMA user_version = {version}")
        db.close()
        d.start()
