# SPDX-License-Identifier: MIT
"""Quotas of users, with a real daemon and users of the host: what one has used up is his own affair,
and a new daemon counts what the old one did."""
import concurrent.futures
import json
import os
import signal
import socket
import time

import pytest

from sandboxd import SLOW, UnixConnection, calling_as, identity, running, wait_until

ALICE, BOB, CAROL = 5001, 5002, 5003       # nobody's accounts: uids are all that counts
GIB = 1 << 30
QUOTA = {
    "default": {"sandboxes": 3, "cpus": 2, "memory": "1G", "disk": "84G", "execs": 4,
                "connections": 12, "requests": 6, "replies": "4M"},
    "users": {str(CAROL): {"sandboxes": "unlimited", "memory": -1, "cpus": -1, "disk": -1}},
}
SMALL = ("--memory", "256M", "--cpus", "1")


@pytest.fixture(scope="module")
def daemon():
    with running(quota=QUOTA) as d:
        yield d


@pytest.fixture(autouse=True)
def nothing_is_left(daemon):
    """Everybody has given back what he had, or the next test would fail for this one's reason."""
    yield
    idle(daemon, ALICE, BOB)


def quotas(daemon, uid):
    """{name: (used, limit)}, asked by root."""
    return {q["quota"]: (q["used"], q["limit"]) for q in daemon.get(f"/v1/quota?uid={uid}")["quotas"]}


def used(daemon, uid):
    return {k: v[0] for k, v in quotas(daemon, uid).items()}


def refused(r, quota):
    assert r.returncode == 125, (r.returncode, r.stdout, r.stderr)
    lines = r.stderr.splitlines()
    assert f"quota of {quota}" in lines[0], r.stderr
    assert lines[1].startswith("hint: ") and f"raise quota.default.{quota}" in lines[1], r.stderr


def idle(daemon, *uids):
    for uid in uids:
        ids = daemon.ok("ls", "-q", uid=uid).split()
        if ids:
            daemon.ok("rm", "-f", *ids, uid=uid)
        wait_until(lambda: not any(used(daemon, uid).values()), what=f"end of what {uid} has")


def test_what_one_may_have_is_told(daemon):
    lines = daemon.ok("quota", uid=ALICE).splitlines()
    assert lines[0].split() == ["QUOTA", "USED", "LIMIT"]
    table = {w[0]: w[1:] for w in map(str.split, lines[1:])}
    assert list(table) == ["sandboxes", "cpus", "memory", "disk", "execs", "connections", "requests",
                           "replies"]
    assert table["sandboxes"] == ["0", "3"] and table["memory"] == ["0B", "1GiB"]
    assert table["connections"] == ["1", "12"]      # this one
    assert table["requests"] == ["0", "6"]          # asking is free
    assert dict(line.split()[::2] for line in daemon.ok("quota", uid=CAROL).splitlines()
                )["memory"] == "unlimited"
    # others are for root
    r = daemon.sbx("quota", "--uid", str(BOB), uid=ALICE)
    assert r.returncode == 125 and "admin" in r.stderr
    assert daemon.ok("quota", "--uid", str(ALICE), "--format", "{{.quota}} {{.limit}} {{.source}}"
                     ).splitlines()[0] == "sandboxes 3 default"
    # root is counted, and has no limit
    assert {line.split()[2] for line in daemon.ok("quota").splitlines()[1:]} == {"unlimited"}


def test_what_is_exceeded_is_named_with_figures(daemon):
    daemon.ok("create", "--name", "a", "--no-start", "--disk", "60G", uid=ALICE)
    refused(daemon.sbx("create", "--no-start", "--disk", "25G", uid=ALICE), "disk")
    status, _, body = daemon.request("POST", "/v1/sandboxes", {"disk": 25 * GIB, "start": False}, uid=ALICE)
    error = json.loads(body)["error"]
    assert (status, error["code"]) == (429, "quota_exceeded")
    assert error["details"] == {"quota": "disk", "limit": 84 * GIB, "used": 60 * GIB,
                                "requested": 25 * GIB}
    # nothing of what had room was taken, and nothing is half made
    assert used(daemon, ALICE)["sandboxes"] == 1
    assert daemon.ok("ls", "-q", uid=ALICE).count("\n") == 1
    assert len(os.listdir(daemon.state + "/sandboxes")) <= 1


def test_processors_and_memory_count_while_it_runs(daemon):
    refused(daemon.sbx("create", "--memory", "2G", "--cpus", "1", uid=ALICE), "memory")
    refused(daemon.sbx("create", "--cpus", "3", "--memory", "256M", uid=ALICE), "cpus")
    assert not any(used(daemon, ALICE).values())
    daemon.ok("create", "--name", "one", "--cpus", "2", "--memory", "256M", "--disk", "20G", uid=ALICE)
    daemon.ok("create", "--name", "two", "--no-start", *SMALL, "--disk", "20G", uid=ALICE)
    now = used(daemon, ALICE)
    assert (now["sandboxes"], now["cpus"], now["memory"], now["disk"]) == (2, 2, GIB // 4, 40 * GIB)
    refused(daemon.sbx("start", "two", uid=ALICE), "cpus")
    assert daemon.ok("ls", "--format", "{{.state}}", "--filter", "name=two", uid=ALICE) == "stopped\n"
    # who has none left may still restart what runs
    daemon.ok("restart", "one", uid=ALICE)
    daemon.ok("stop", "one", uid=ALICE)
    now = used(daemon, ALICE)
    assert (now["sandboxes"], now["cpus"], now["memory"]) == (2, 0, 0)
    daemon.ok("start", "two", uid=ALICE)
    # a guest that ends by itself gives back too
    daemon.sbx("exec", "-u", "root", "two", "--", "sh", "-c", "echo o > /proc/sysrq-trigger", uid=ALICE)
    wait_until(lambda: used(daemon, ALICE)["cpus"] == 0, what="end of the guest")
    # an administrator who starts it does so on its owner's account
    theirs = daemon.ok("ls", "-q", "--filter", "name=two", uid=ALICE).strip()
    daemon.ok("start", theirs)
    assert used(daemon, ALICE)["cpus"] == 1 and used(daemon, 0)["cpus"] == 0


def test_a_create_that_fails_costs_nothing(daemon):
    for args in (["--image", "nosuch"], ["--policy", "nosuch"], ["--workspace", "/nosuch"],
                 ["--workspace", "/root:ro"]):
        assert daemon.sbx("create", *SMALL, *args, uid=ALICE).returncode == 125
        assert not any(used(daemon, ALICE).values()), args
    daemon.ok("create", "--name", "twice", "--no-start", *SMALL, uid=ALICE)
    before = used(daemon, ALICE)
    assert daemon.sbx("create", "--name", "twice", "--no-start", *SMALL, uid=ALICE).returncode == 125
    assert used(daemon, ALICE) == before


def test_creates_at_the_same_time_never_exceed(daemon):
    def one(i):
        return daemon.sbx("create", "--name", f"c{i}", "--no-start", "--disk", "20G", uid=ALICE)
    for _ in range(3):
        # fewer at once than the user may have connections and requests
        with concurrent.futures.ThreadPoolExecutor(5) as pool:
            results = list(pool.map(one, range(10)))
        assert sum(r.returncode == 0 for r in results) == 3
        for r in results:
            if r.returncode:
                assert "quota of sandboxes" in r.stderr, r.stderr
        assert used(daemon, ALICE)["sandboxes"] == 3
        assert daemon.rows(f"SELECT count(*) FROM vm WHERE uid = {ALICE}") == [(3,)]
        # what is removed is given back before rm returns
        for i in range(10):
            daemon.ok("rm", daemon.ok("ls", "-q", uid=ALICE).split()[0], uid=ALICE)
            daemon.ok("create", "--name", f"d{i}", "--no-start", "--disk", "20G", uid=ALICE)
        idle(daemon, ALICE)


def hold(daemon, uid, path, n):
    """n connections of a user with a request each that does not end."""
    socks = []
    with calling_as(uid):
        for _ in range(n):
            s = socket.socket(socket.AF_UNIX)
            s.settimeout(SLOW)
            s.connect(daemon.socket)
            if path:
                s.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            socks.append(s)
    return socks


def timed_create(daemon, uid):
    start = time.monotonic()
    daemon.ok("create", "--name", "quick", "--no-start", "--disk", "20G", uid=uid)
    took = time.monotonic() - start
    daemon.ok("rm", "quick", uid=uid)
    return took


def test_what_one_has_used_up_is_his_own_affair(daemon):
    calm = sorted(timed_create(daemon, BOB) for _ in range(9))
    daemon.ok("create", "--name", "busy", *SMALL, uid=ALICE)
    for _ in range(2):
        daemon.ok("create", "--no-start", *SMALL, uid=ALICE)
    for _ in range(4):
        daemon.ok("exec", "-d", "busy", "--", "sleep", "1000", uid=ALICE)
    refused(daemon.sbx("exec", "busy", "--", "true", uid=ALICE), "execs")
    refused(daemon.sbx("create", uid=ALICE), "sandboxes")
    # requests: six that do not end, on six connections
    socks = hold(daemon, ALICE, "/v1/sandboxes/busy/logs?follow=true", 6)
    wait_until(lambda: used(daemon, ALICE)["requests"] == 6, what="six requests")
    refused(daemon.sbx("ls", uid=ALICE), "requests")
    assert "requests" in daemon.ok("quota", uid=ALICE)      # how else would she find out
    # connections: six more that say nothing
    socks += hold(daemon, ALICE, None, 6)
    wait_until(lambda: used(daemon, ALICE)["connections"] == 12, what="twelve connections")
    r = daemon.sbx("quota", uid=ALICE)
    refused(r, "connections")
    # Bob has all he may have, as fast as before
    busy = sorted(timed_create(daemon, BOB) for _ in range(9))
    daemon.ok("create", "--name", "mine", *SMALL, uid=BOB)
    assert daemon.ok("exec", "mine", "--", "echo", "hi", uid=BOB) == "hi\n"
    print(f"create --no-start and rm: median {calm[4]:.3f} s, beside an exhausted user {busy[4]:.3f} s")
    assert busy[4] < 3 * calm[4] + 0.5
    for s in socks:
        s.close()
    wait_until(lambda: used(daemon, ALICE)["connections"] == 0, what="end of connections")
    assert used(daemon, ALICE)["requests"] == 0
    # a command that ends makes room for another
    one = daemon.ok("execs", "-q", "busy", uid=ALICE).split()[0]
    daemon.request("POST", f"/v1/sandboxes/busy/execs/{one}/signal", {"signal": "KILL"}, uid=ALICE)
    wait_until(lambda: used(daemon, ALICE)["execs"] == 3, what="end of a command")
    daemon.ok("exec", "busy", "--", "true", uid=ALICE)


def run_unread(daemon, uid, ref, script):
    """A connection on which a command is run whose answer nobody takes yet."""
    body = json.dumps({"command": ["sh", "-c", script]})
    s, = hold(daemon, uid, None, 1)
    s.sendall(f"POST /v1/sandboxes/{ref}/run HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
              f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
    return s


def taken(s):
    with s:
        head, body = b"".join(iter(lambda: s.recv(1 << 16), b"")).split(b"\r\n\r\n", 1)
    return int(head.split()[1]), json.loads(body)


def test_answers_that_nobody_takes_are_counted(daemon):
    ref = daemon.ok("create", "--name", "loud", *SMALL, uid=ALICE).strip()
    # control bytes become six each: 3 MiB of the 4 she has
    first = run_unread(daemon, ALICE, ref, "head -c 524288 /dev/zero | tr '\\0' '\\1'; echo end >&2")
    wait_until(lambda: used(daemon, ALICE)["replies"] >= 3 << 20, what="an answer that waits")
    # small ones are no matter, three at once in what is left
    for i in range(0, 64, 3):
        small = [run_unread(daemon, ALICE, ref, f"echo {i + k}") for k in range(3)]
        for k, s in enumerate(small):
            status, r = taken(s)
            assert (status, r["stdout"], r["stdout_truncated"]) == (200, f"{i + k}\n", False), r
    # a large one is cut, and says so; the command ends as it would
    status, r = taken(run_unread(daemon, ALICE, ref, "head -c 4000000 /dev/zero | tr '\\0' x; exit 3"))
    assert (status, r["exit_code"], r["stdout_truncated"], r["stderr_truncated"]) == (200, 3, True, False)
    assert 256 << 10 <= len(r["stdout"]) <= 1 << 20 and set(r["stdout"]) == {"x"}
    # what it had is given back a moment after its last byte
    wait_until(lambda: used(daemon, ALICE)["replies"] < (3 << 20) + (256 << 10), what="its end")
    # one that would have nothing is refused before it is run
    more = [run_unread(daemon, ALICE, ref, "head -c 200000 /dev/zero | tr '\\0' '\\1'")]
    wait_until(lambda: used(daemon, ALICE)["replies"] > (4 << 20) - (256 << 10), what="most of the quota")
    status, r = taken(run_unread(daemon, ALICE, ref, "touch /tmp/ran"))
    assert (status, r["error"]["code"], r["error"]["details"]["quota"]) == (429, "quota_exceeded", "replies")
    assert "replies" in daemon.ok("quota", uid=ALICE)
    assert daemon.sbx("exec", "loud", "--", "test", "-e", "/tmp/ran", uid=ALICE).returncode == 1
    # taken, all is there, and given back
    status, r = taken(first)
    assert (status, r["stdout"] == "\x01" * 524288, r["stderr"]) == (200, True, "end\n")
    for s in more:
        assert taken(s)[0] == 200
    wait_until(lambda: used(daemon, ALICE)["replies"] == 0, what="answers that were taken")


def test_a_new_daemon_counts_what_the_old_one_did(daemon):
    daemon.ok("create", "--name", "runs", *SMALL, "--disk", "21G", uid=ALICE)
    daemon.ok("create", "--name", "rests", "--no-start", *SMALL, "--disk", "20G", uid=ALICE)
    daemon.ok("create", "--name", "other", "--no-start", *SMALL, "--disk", "22G", uid=BOB)
    for _ in range(3):
        daemon.ok("exec", "-d", "runs", "--", "sleep", "1000", uid=ALICE)
    daemon.ok("exec", "runs", "--", "true", uid=ALICE)         # has ended: its row costs nothing
    wait_until(lambda: used(daemon, ALICE)["execs"] == 3, what="end of a command")
    before = used(daemon, ALICE), used(daemon, BOB)
    assert before[0] == {"sandboxes": 2, "cpus": 1, "memory": GIB // 4, "disk": 41 * GIB, "execs": 3,
                         "connections": 0, "requests": 0, "replies": 0}
    for sig in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL):
        daemon.stop(sig)
        daemon.start()
        assert (used(daemon, ALICE), used(daemon, BOB)) == before
    # and what is given back then is given back once
    daemon.ok("rm", "-f", "runs", uid=ALICE)
    assert used(daemon, ALICE) == {**before[0], "sandboxes": 1, "cpus": 0, "memory": 0,
                                   "disk": 20 * GIB, "execs": 0}


def test_a_daemon_killed_in_a_create_counts_nothing_of_it(daemon):
    p = daemon.popen("create", "--name", "half", *SMALL, user=ALICE, group=ALICE, extra_groups=[])
    wait_until(lambda: used(daemon, ALICE)["cpus"] == 1, what="start of a create")
    daemon.stop(signal.SIGKILL)
    p.communicate(timeout=SLOW)
    daemon.start()
    assert not any(used(daemon, ALICE).values())
    assert daemon.ok("ls", "-q", uid=ALICE) == ""


def test_a_create_that_is_removed_meanwhile_costs_nothing(daemon):
    p = daemon.popen("create", "--name", "gone", *SMALL, user=ALICE, group=ALICE, extra_groups=[])
    wait_until(lambda: daemon.ok("ls", "-q", uid=ALICE).strip(), what="row of a create")
    daemon.ok("rm", "-f", "gone", uid=ALICE)
    p.communicate(timeout=SLOW)


def test_limits_that_cannot_be_meant_keep_the_daemon_from_starting(daemon):
    daemon.stop()
    path = daemon.dir + "/config.json"
    try:
        for quota, words in (({"users": {"nosuchuser-x": {}}}, "quota.users.nosuchuser-x: there is no user"),
                             ({"default": {"memory": "much"}}, "quota.default.memory"),
                             ({"default": {"sandboxes": "4G"}}, "quota.default.sandboxes"),
                             ({"default": {"sandboxs": 4}}, "quota.default.sandboxs"),
                             ({"users": {"0": {}, "root": {}}}, "is the same as")):
            with open(path, "w") as f:
                json.dump({**daemon.config, "quota": quota}, f)
            size = len(daemon.log())
            assert daemon.start(expect_failure=True) != 0
            assert words in daemon.log()[size:]
    finally:
        with open(path, "w") as f:
            json.dump(daemon.config, f)
        daemon.start()


def test_a_full_disk_refuses_what_is_new_and_keeps_what_runs(daemon):
    daemon.ok("create", "--name", "old", *SMALL, uid=ALICE)
    daemon.ok("create", "--name", "stopped", "--no-start", *SMALL, uid=ALICE)
    daemon.stop()
    path = daemon.dir + "/config.json"
    with open(path, "w") as f:
        json.dump({**daemon.config, "min_free_disk": "1024T"}, f)
    daemon.start()
    try:
        before = used(daemon, ALICE)
        for args in (["create", "--name", "new"], ["create", "--name", "new", "--no-start"],
                     ["start", "stopped"], ["restart", "old"]):
            r = daemon.sbx(*args, uid=ALICE)
            assert r.returncode == 125 and "to stay free" in r.stderr and "hint:" in r.stderr
        status, _, body = daemon.request("POST", "/v1/sandboxes/stopped/start", uid=ALICE)
        assert (status, json.loads(body)["error"]["code"]) == (507, "no_space")
        assert used(daemon, ALICE) == before
        assert daemon.ok("ls", "-q", uid=ALICE).count("\n") == 2
        assert daemon.ok("exec", "old", "--", "echo", "on", uid=ALICE) == "on\n"
        daemon.ok("rm", "-f", "old", "stopped", uid=ALICE)
    finally:
        daemon.stop()
        with open(path, "w") as f:
            json.dump(daemon.config, f)
        daemon.start()
