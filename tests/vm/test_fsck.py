# SPDX-License-Identifier: MIT
"""`sandboxd fsck`, and the database put back from a copy."""
import contextlib
import json
import os
import signal
import sqlite3
import subprocess

import netns
import pytest
from conftest import alive, kill_all, wait_until

STRAY = "00000000000000aa"


def sql(daemon, *statements):
    with contextlib.closing(sqlite3.connect(daemon.state + "/sandboxd.db")) as db:
        db.execute("PRAGMA foreign_keys = ON")
        for s in statements:
            db.execute(s)
        db.commit()


def clean(daemon):
    r = daemon.fsck()
    assert r.returncode == 0 and r.stdout.startswith("clean: "), (r.stdout, r.stderr)
    assert r.stdout.count("\n") == 1 and r.stderr == "", (r.stdout, r.stderr)


def in_network(daemon, *command):
    return subprocess.run(command, check=True, capture_output=True, text=True,
                          preexec_fn=lambda: netns.enter(daemon.network)).stdout


def repaired(daemon, *kinds):
    """Finds exactly these, repairs them, and is clean then."""
    assert set(daemon.findings()) == set(kinds)
    found = daemon.findings("--repair", status=0)
    assert {k: f["status"] for k, f in found.items()} == {k: "repaired" for k in kinds}
    assert daemon.findings(status=0) == {}


@pytest.fixture
def on(daemon):
    """A running sandbox with all that one can have; a daemon runs before and after."""
    daemon.ok("create", "--name", "on", "--workspace", daemon.workspace())
    daemon.ok("exec", "-d", "on", "--", "sleep", "1000")
    box = daemon.get("/v1/sandboxes/on")
    yield box
    if not daemon.process:
        daemon.start()
    daemon.sbx("rm", "-f", "on")


def test_clean_while_it_runs_after_a_stop_and_after_a_kill(daemon, on):
    clean(daemon)
    daemon.ok("create", "--name", "off", "--no-start")
    daemon.ok("stop", "off")
    clean(daemon)
    for sig in (signal.SIGTERM, signal.SIGKILL):
        daemon.stop(sig)
        clean(daemon)
        daemon.start()
        clean(daemon)
        assert daemon.ok("exec", "on", "--", "echo", "here") == "here\n"
    daemon.ok("rm", "off")


def test_what_is_under_way_is_no_finding(daemon):
    """Looks again and again while a sandbox comes, goes down, up, and away."""
    script = "create --name busy; stop busy; start busy; exec busy -- true; rm -f busy; " \
             "create --name busy; rm -f busy"
    looks = 0
    for words in script.split("; "):
        with daemon.popen(*words.split()) as p:
            while p.poll() is None:
                assert daemon.findings(status=0) == {}, words
                looks += 1
            assert p.returncode == 0, p.stderr.read()
    assert looks > 7


def test_nothing_is_repaired_beside_a_daemon(daemon, on):
    os.mkdir(f"{daemon.state}/sandboxes/{STRAY}")
    try:
        r = daemon.fsck("--repair")
        assert r.returncode == 2 and "stop sandboxd, or restart it: a start repairs" in r.stderr, r
        assert set(daemon.findings()) == {"state-stray"}
        assert os.path.isdir(f"{daemon.state}/sandboxes/{STRAY}")
    finally:
        os.rmdir(f"{daemon.state}/sandboxes/{STRAY}")


def test_a_domain_without_a_row_is_ended_and_its_disk_kept(daemon, on):
    ident = on["id"]
    daemon.stop(signal.SIGKILL)
    sql(daemon, f"DELETE FROM vm WHERE id = '{ident}'")
    repaired(daemon, "domain-stray", "qemu-stray", "share-stray", "tap-stray", "chain-stray",
             "tapchain-stray", "disk-stray", "runtime-stray")
    assert os.path.isfile(f"{daemon.state}/lost+found/{ident}/vm/disk.qcow2")
    assert os.stat(f"{daemon.state}/lost+found").st_mode & 0o777 == 0o700
    r = daemon.fsck()
    assert f"lost+found/{ident}" in r.stdout and "clean: " in r.stdout, r.stdout
    assert not [p for p in daemon.processes() if "qemu" in p[1]]
    daemon.start()
    assert daemon.get("/v1/sandboxes")["sandboxes"] == []


@pytest.mark.parametrize("kind", ["state", "disk", "runtime", "tap", "share"])
def test_what_nobody_has_is_found_and_repaired(daemon, kind):
    daemon.stop(signal.SIGKILL)
    process = None
    if kind in ("state", "runtime"):
        os.makedirs(f"{getattr(daemon, 'run' if kind == 'runtime' else 'state')}/sandboxes/{STRAY}/log")
    elif kind == "disk":
        os.makedirs(f"{daemon.state}/sandboxes/{STRAY}/vm")
        with open(f"{daemon.state}/sandboxes/{STRAY}/vm/disk.qcow2", "w") as f:
            f.write("precious")
        os.chown(f.name, 1879048200, 1879048200)        # of a QEMU: another's, by and by
    elif kind == "tap":
        in_network(daemon, "ip", "tuntap", "add", "sbx" + STRAY[:12], "mode", "tap")
    else:
        process = subprocess.Popen(["sleep", "600"], env={
            "SBX_SHARE": f"{daemon.run}/sandboxes/{STRAY}/share.sock"})
    try:
        repaired(daemon, kind + "-stray")
        if process:
            assert process.wait(10) == -signal.SIGKILL
        if kind == "disk":
            with open(f"{daemon.state}/lost+found/{STRAY}/vm/disk.qcow2") as f:
                assert f.read() == "precious" and os.stat(f.name).st_uid == 0
    finally:
        if process:
            process.kill()
            process.wait()
        daemon.start()


def test_a_disk_that_cannot_be_kept_aside_stays_and_keeps_no_start_away(daemon):
    daemon.stop()
    aside, there = f"{daemon.state}/lost+found", f"{daemon.state}/sandboxes/{STRAY}"
    with contextlib.suppress(FileNotFoundError):
        os.rename(aside, aside + ".before")
    os.makedirs(there + "/vm")
    with open(there + "/vm/disk.qcow2", "w") as f:
        f.write("precious")
    open(aside, "w").close()
    try:
        found = daemon.findings("--repair")
        assert {k: f["status"] for k, f in found.items()} == {"disk-stray": "remains"}
        daemon.start()
        with open(there + "/vm/disk.qcow2") as f:
            assert f.read() == "precious"
        daemon.stop()
    finally:
        os.unlink(aside)
    for name in ("", ".1"):         # and the same id twice
        daemon.findings("--repair", status=0)
        assert os.path.isfile(f"{aside}/{STRAY}{name}/vm/disk.qcow2")
        os.makedirs(there + "/vm")
        with open(there + "/vm/disk.qcow2", "w") as f:
            f.write("another")
    daemon.start()
    with open(f"{aside}/{STRAY}/vm/disk.qcow2") as f:
        assert f.read() == "precious"


def test_a_guest_that_ended_is_found_and_stopped(daemon, on):
    daemon.stop(signal.SIGKILL)
    kill_all(pid for pid, _ in daemon.processes())
    wait_until(lambda: not daemon.processes(), what="end of the sandbox")
    repaired(daemon, "qemu-missing")
    daemon.start()
    assert daemon.get("/v1/sandboxes/on")["state"] == "stopped"


def test_a_qemu_that_libvirt_does_not_know_is_ended(daemon, on):
    daemon.stop(signal.SIGKILL)
    qemu = next(p for p, args in daemon.processes() if "qemu" in args)
    os.unlink(f"{daemon.state}/libvirt/run/qemu/sbx-{on['id']}.xml")
    repaired(daemon, "domain-missing")
    assert not alive(qemu)
    daemon.start()
    assert daemon.get("/v1/sandboxes/on")["state"] == "stopped"
    daemon.ok("start", "on")


def test_rules_and_output_that_are_gone_are_made_anew(daemon, on):
    daemon.stop(signal.SIGKILL)
    execs = f"{daemon.run}/sandboxes/{on['id']}/execs"
    for name in os.listdir(execs):
        os.rename(f"{execs}/{name}", f"{execs}/{STRAY}{name[16:]}")
    in_network(daemon, "nft", "delete", "table", "netdev", "sandboxd")
    repaired(daemon, "ring-missing", "ring-stray", "tapchain-missing")
    assert not [n for n in os.listdir(execs) if n.startswith(STRAY)]
    daemon.start()
    assert daemon.ok("exec", "on", "--", "echo", "here") == "here\n"


def test_a_row_without_its_disk_fails_with_a_reason_until_it_is_removed(daemon, on):
    daemon.ok("stop", "on")
    daemon.stop(signal.SIGKILL)
    os.unlink(f"{daemon.state}/sandboxes/{on['id']}/vm/disk.qcow2")
    repaired(daemon, "disk-missing")
    for _ in range(2):          # not by any number of starts
        daemon.start()
        box = daemon.get("/v1/sandboxes/on")
        assert box["state"] == "failed" and box["reason"] == "its disk is gone", box
        daemon.stop()
    daemon.start()
    r = daemon.sbx("start", "on")
    assert r.returncode != 0 and "its disk is gone" in r.stderr, r.stderr
    daemon.ok("rm", "on")


def test_a_disk_that_goes_beside_the_daemon_is_not_made_anew_in_silence(daemon, on):
    daemon.ok("stop", "on")
    os.unlink(f"{daemon.state}/sandboxes/{on['id']}/vm/disk.qcow2")
    assert set(daemon.findings()) == {"disk-missing"}
    r = daemon.sbx("start", "on")
    assert r.returncode != 0 and "its disk is gone" in r.stderr, r.stderr
    daemon.ok("rm", "on")


def put_back(daemon, copy):
    daemon.stop()
    for part in ("-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(daemon.state + "/sandboxd.db" + part)
    subprocess.run(["cp", copy, daemon.state + "/sandboxd.db"], check=True)


def test_a_backup_beside_the_daemon_put_back_keeps_what_it_does_not_know(daemon, on):
    copy = daemon.dir + "/copy"
    r = daemon.sandboxd("backup", copy)
    assert r.returncode == 0 and os.stat(copy).st_mode & 0o777 == 0o600, r
    r = daemon.sandboxd("backup", copy)
    assert r.returncode == 1 and "--force" in r.stderr, r
    assert daemon.sandboxd("backup", "--force", copy).returncode == 0
    daemon.ok("create", "--name", "later")
    later = daemon.get("/v1/sandboxes/later")["id"]
    daemon.ok("exec", "-u", "root", "later", "--", "sh", "-c", "echo precious > /root/file; sync")
    put_back(daemon, copy)
    assert "disk-stray" in daemon.findings() and "domain-stray" in daemon.findings()
    daemon.start()
    assert [b["name"] for b in daemon.get("/v1/sandboxes")["sandboxes"]] == ["on"]
    assert daemon.ok("exec", "on", "--", "echo", "here") == "here\n"     # it went on all the while
    kept = f"{daemon.state}/lost+found/{later}/vm/disk.qcow2"
    assert os.stat(kept).st_uid == 0 and kept[:-len("/vm/disk.qcow2")] in daemon.log()
    r = daemon.fsck()
    assert r.returncode == 0 and f"lost+found/{later}" in r.stdout, (r.stdout, r.stderr)
    # As docs/RELIABILITY.md says: into a sandbox of the same image, while that is stopped.
    daemon.ok("create", "--name", "again")
    again = daemon.get("/v1/sandboxes/again")["id"]
    daemon.ok("stop", "again")
    os.rename(kept, f"{daemon.state}/sandboxes/{again}/vm/disk.qcow2")
    daemon.ok("start", "again")
    assert daemon.ok("exec", "-u", "root", "again", "--", "cat", "/root/file") == "precious\n"
    daemon.ok("rm", "-f", "again")


def test_what_was_restarted_since_the_copy_is_stopped_and_keeps_its_disk(daemon, on):
    copy = daemon.dir + "/copy3"
    assert daemon.sandboxd("backup", copy).returncode == 0
    daemon.ok("restart", "on")
    daemon.ok("exec", "-u", "root", "on", "--", "sh", "-c", "echo precious > /root/file; sync")
    put_back(daemon, copy)
    daemon.start()
    assert daemon.get("/v1/sandboxes/on")["state"] == "stopped"
    assert daemon.findings(status=0) == {}
    daemon.ok("start", "on")
    assert daemon.ok("exec", "-u", "root", "on", "--", "cat", "/root/file") == "precious\n"


def test_what_was_half_made_when_copied_keeps_its_disk_too(daemon, on):
    """The copy says "creating"; the sandbox has been whole since."""
    copy = daemon.dir + "/copy2"
    assert daemon.sandboxd("backup", copy).returncode == 0
    with contextlib.closing(sqlite3.connect(copy)) as db:
        db.execute("UPDATE vm SET state = 0, started_at = 0")
        db.commit()
    put_back(daemon, copy)
    assert "row-unsettled" in daemon.findings()
    daemon.start()
    assert daemon.get("/v1/sandboxes")["sandboxes"] == []
    assert os.path.isfile(f"{daemon.state}/lost+found/{on['id']}/vm/disk.qcow2")
    # Once: what is half made from now on is nobody's work.
    assert daemon.rows("SELECT value FROM choice WHERE key = 'copied'") == [("",)]


def test_a_damaged_database_is_told_and_not_repaired_by(daemon):
    daemon.stop()
    path = daemon.state + "/sandboxd.db"
    with open(path, "rb") as f:
        whole = f.read()
    sql(daemon, "PRAGMA foreign_keys = OFF", f"INSERT INTO rule VALUES ('{STRAY}',1,1,'x','y',0,0,0)")
    try:
        assert set(daemon.findings()) == {"database"}
        assert daemon.fsck("--repair").returncode == 2
        with open(path, "r+b") as f:
            f.write(b"x" * 4096)
        r = daemon.fsck()
        assert r.returncode == 2 and "not a database" in r.stderr, r
    finally:
        with open(path, "wb") as f:
            f.write(whole)
        daemon.start()


def test_the_words_of_the_command_line(daemon):
    assert daemon.fsck("--help").returncode == 0
    assert daemon.fsck("--other").returncode == 2
    assert daemon.fsck("more").returncode == 2
    assert json.loads(daemon.fsck("--json").stdout) == {"clean": True, "daemon": True, "findings": [
        f for f in json.loads(daemon.fsck("--json").stdout)["findings"] if f["note"]]}
