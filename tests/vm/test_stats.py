# SPDX-License-Identifier: MIT
"""What sandboxes use: a guest that works is seen to work, by the figures and by sbx stats, and one that
hangs delays nobody."""
import json
import os
import pty
import re
import signal
import threading
import time

import pytest
from conftest import Box, wait_until

MIB = 1024 * 1024
ANN, BOB = 70127, 70128


@pytest.fixture(scope="module")
def box(daemon):
    workspace = daemon.workspace()
    daemon.ok("create", "--name", "box", "--workspace", workspace, "--policy", "none")
    yield Box(daemon, "box", workspace)
    daemon.ok("rm", "-f", "box")


def stats(daemon, ref="box"):
    return daemon.get(f"/v1/sandboxes/{ref}/stats")


def table(daemon, *args, **kw):
    """The rows by name, cells by title."""
    lines = daemon.ok("stats", *args, **kw).splitlines()
    titles = re.split(r"\s{2,}", lines[0].strip())
    return {row[1]: dict(zip(titles, row)) for row in (re.split(r"\s{2,}", line.strip()) for line in lines[1:])}


def test_an_idle_machine(daemon, box):
    s = stats(daemon)
    assert s["state"] == "running" and s["uptime_ms"] > 0 and s["owner"]["uid"] == 0
    assert s["cpu"]["cpus"] == 2 and s["cpu"]["usage_us"] > 100_000      # it has booted
    assert s["memory"]["limit"] == 2048 * MIB
    assert 50 * MIB < s["memory"]["used"] <= s["memory"]["rss"]
    assert 0 < s["memory"]["pss"] <= s["memory"]["rss"]
    assert s["disk"]["size"] == 20480 * MIB and 0 < s["disk"]["allocated"] < 2048 * MIB
    assert s["execs_running"] == 0 and s["processes"] >= 2 and s["threads"] > s["processes"]
    assert s["network"]["denied"] == 0


def test_work_is_seen(daemon, box):
    before = stats(daemon)
    ident = daemon.ok("exec", "-d", "box", "--", "sh", "-c", "while :; do :; done").strip()
    wait_until(lambda: stats(daemon)["cpu"]["usage_us"] > before["cpu"]["usage_us"] + 1_000_000,
               what="processor time")
    row = table(daemon, "box")["box"]
    assert float(row["CPU %"].rstrip("%")) > 2 and row["EXECS"] == "1"
    assert stats(daemon)["execs_running"] == 1
    status, _, _ = daemon.request("POST", f"/v1/sandboxes/box/execs/{ident}/signal", {"signal": "KILL"})
    assert status == 204
    wait_until(lambda: stats(daemon)["execs_running"] == 0, what="end")

    box.root("dd if=/dev/urandom of=/var/tmp/big bs=1M count=64 2>/dev/null; sync")
    wait_until(lambda: stats(daemon)["disk"]["allocated"] >= before["disk"]["allocated"] + 60 * MIB, what="disk")
    assert stats(daemon)["disk"]["written_bytes"] >= before["disk"]["written_bytes"] + 60 * MIB

    box.root("mkdir -p /m; mount -t tmpfs -o size=300m none /m; head -c 200M /dev/urandom > /m/x")
    assert stats(daemon)["memory"]["used"] >= before["memory"]["used"] + 100 * MIB
    box.root("umount /m")


def test_the_network_is_seen_from_the_guests_side(daemon, box):
    before = stats(daemon)["network"]
    box.sh("for i in 1 2 3; do timeout 1 bash -c '</dev/tcp/192.0.2.1/80'; done; true")
    after = wait_until(lambda: (s := stats(daemon)["network"])["denied"] > before["denied"] and s, what="denial")
    assert after["tx_packets"] >= before["tx_packets"] + 1
    assert after["tx_bytes"] >= before["tx_bytes"] + 60
    assert table(daemon)["box"]["DENIED"] == str(after["denied"])
    # a flood that nobody answers but with a few refusals
    flood = "for i in $(seq 200); do head -c 1000 /dev/zero > /dev/udp/192.0.2.1/9; done 2>/dev/null; true"
    box.exec("bash", "-c", flood)
    sent = stats(daemon)["network"]
    assert sent["tx_bytes"] - after["tx_bytes"] > 180_000 and sent["tx_packets"] - after["tx_packets"] >= 180
    assert sent["rx_bytes"] - after["rx_bytes"] < 90_000
    sent, got = sent["tx_bytes"], sent["rx_bytes"]
    box.sh("getent hosts nothing.example || true")
    wait_until(lambda: (s := stats(daemon)["network"])["tx_bytes"] > sent and s["rx_bytes"] > got, what="question")


def test_one_that_does_not_run_uses_its_disk_only(daemon, box):
    daemon.ok("create", "--name", "off", "--no-start")
    try:
        s = stats(daemon, "off")
        assert s["state"] == "stopped" and s["uptime_ms"] == 0 and "network" not in s
        assert s["cpu"]["usage_us"] == s["memory"]["used"] == s["processes"] == 0
        assert set(table(daemon)) == {"box"} and set(table(daemon, "-a")) == {"box", "off"}
        assert table(daemon, "off")["off"]["NET I/O"] == "-"
        lines = daemon.ok("stats", "--json", "off", "box").splitlines()
        assert [json.loads(line)["name"] for line in lines] == ["off", "box"]
        r = daemon.sbx("stats", "no-such-box")
        assert r.returncode == 125 and "no sandbox 'no-such-box'" in r.stderr
    finally:
        daemon.ok("rm", "off")


def test_each_sees_his_own(daemon, box):
    daemon.ok("create", "--name", "anns", uid=ANN)
    try:
        assert set(table(daemon, uid=ANN)) == {"anns"} and set(table(daemon)) == {"anns", "box"}
        assert daemon.ok("stats", "--json", uid=BOB) == ""
        assert daemon.ok("stats", uid=BOB).count("\n") == 1     # titles
        assert daemon.sbx("stats", "anns", uid=BOB).returncode == 125
    finally:
        daemon.ok("rm", "-f", "anns", uid=ANN)


def test_on_a_terminal_it_is_drawn_again_and_again(daemon, box):
    master, slave = pty.openpty()
    p = daemon.popen("stats", stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    seen, enough = b"", threading.Event()

    def look():
        nonlocal seen
        while not enough.is_set():
            try:
                seen += os.read(master, 4096)
            except OSError:
                return
            if seen.count(b"\x1b[H\x1b[J") >= 3:
                enough.set()
    t = threading.Thread(target=look, daemon=True)
    t.start()
    try:
        assert enough.wait(60), seen
        assert p.poll() is None
        p.send_signal(signal.SIGINT)
        assert p.wait(30) != 0
    finally:
        p.kill()
        p.communicate()
        os.close(master)
    assert seen.count(b"CPU %") >= 2 and b"box" in seen


def test_a_guest_that_hangs_delays_nobody(daemon, box):
    """QEMU and virtiofsd are stopped: whoever asked them would wait until they go on."""
    pids = [pid for pid, args in daemon.processes() if "qemu-system" in args or args.startswith("virtiofsd")]
    assert len(pids) >= 2
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        begin = time.monotonic()
        for _ in range(10):
            assert stats(daemon)["memory"]["used"] > 0
            assert len(daemon.get("/v1/stats")["stats"]) == 1
        assert time.monotonic() - begin < 30        # a bound: monitors and agents are waited for longer
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    assert box.sh("echo goes on") == "goes on\n"


def test_after_a_restart_of_the_daemon_the_figures_go_on(daemon, box):
    before = stats(daemon)
    daemon.stop(signal.SIGKILL)
    daemon.start()
    after = stats(daemon)
    assert after["cpu"]["usage_us"] >= before["cpu"]["usage_us"]
    assert after["started_at"] == before["started_at"]
    assert after["network"]["tx_bytes"] >= before["network"]["tx_bytes"] > 0
    assert after["processes"] == before["processes"]
