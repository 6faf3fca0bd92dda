# SPDX-License-Identifier: MIT
"""Streams of commands: clients that leave, come back, vanish, do not read or talk nonsense, what is
kept of the output meanwhile, and many at once."""
import hashlib
import json
import os
import subprocess
import threading
import time

import pytest
from conftest import UnixConnection, wait_until
from streamclient import Stream, describe, digest, ended, fails, gone, output, post, start
from terminals import Pty

MIB = 1 << 20


@pytest.fixture(scope="module", autouse=True)
def abandoned(daemon, box):
    """Nobody ever attaches to these; the last test looks what has become of them."""
    def one(name, **fields):
        return start(daemon, "box", "sh", "-c", f"trap 'echo hup > /workspace/{name}; exit' HUP; "
                     f"echo ready > /workspace/{name}; sleep 1000 & wait", **fields)
    pids = one("attached")["pid"], one("detached", detach=True)["pid"]
    for name in ("attached", "detached"):
        wait_until(lambda: os.path.exists(box.workspace + "/" + name), what=name)
    return pids


# ---- leaving and coming back -------------------------------------------------------------------

def test_detached_and_attached_again_with_all_output(daemon, box):
    box.sh("rm -f /tmp/d; mkfifo /tmp/d")
    x = daemon.ok("exec", "-d", "box", "--", "sh", "-c",
                  "echo one; echo uno >&2; read x < /tmp/d; echo two $x; exit 6").strip()
    wait_until(lambda: describe(daemon, "box", x)["stderr_end"] == 4, what="output")
    first = daemon.popen("attach", "box", x)
    assert first.stdout.readline() == b"one\n"
    with Stream(daemon, "box", x, stdout_offset=2) as s:
        s.until(b"e\n")
        first.kill()                            # goes without a word
        first.communicate()
        s.detach()
    with Stream(daemon, "box", x) as s:         # and comes again, to everything
        s.until(b"one\n")
        box.sh("echo more > /tmp/d")
        assert s.rest() == (b"two more\n", b"uno\n") and s.end["exit_code"] == 6
    for again in range(2):                      # also when it is over
        r = daemon.sbx("attach", "box", x)
        assert (r.returncode, r.stdout, r.stderr) == (6, "one\ntwo more\n", "uno\n")
    with Stream(daemon, "box", x, stdout_offset=4, stderr_offset=4) as s:
        assert s.rest() == (b"two more\n", b"") and s.end["exit_code"] == 6
    assert output(daemon, "box", x) == (0, 0, b"one\ntwo more\n")
    assert output(daemon, "box", x, 4) == (4, 0, b"two more\n")
    assert output(daemon, "box", x, 1, "stderr") == (1, 0, b"no\n")
    for where in ("output?offset=14", "output?stream=stderr&offset=5"):
        status, _, body = daemon.request("GET", f"/v1/sandboxes/box/execs/{x}/{where}")
        assert (status, json.loads(body)["error"]["code"]) == (416, "offset_gone")
    assert x[:6] in fails(daemon.sbx("attach", "box", x[:15] + ("0" if x[15] != "0" else "1")))


def test_two_readers_get_the_same(daemon, box):
    x = start(daemon, "box", "sh", "-c", "read go; seq 200000", stdin=True)
    with Stream(daemon, "box", x["id"]) as a, Stream(daemon, "box", x["id"]) as b:
        a.write(b"go\n")
        got = []
        t = threading.Thread(target=lambda: got.append(b.rest()))
        t.start()
        out = a.rest()
        t.join(60)
        assert got == [out] and digest(out[0]) == digest(b"".join(b"%d\n" % i for i in range(1, 200001)))


def test_each_of_two_readers_ends_it_by_vanishing_unless_detached(daemon, box):
    for detach in (False, True):
        x = start(daemon, "box", "sh", "-c", "read x; echo $x", stdin=True, detach=detach)
        with Stream(daemon, "box", x["id"]) as a:
            Stream(daemon, "box", x["id"]).sock.close()
            if detach:
                a.write(b"here\n")
                assert a.rest()[0] == b"here\n"
            else:
                a.rest()
                assert (a.end["end"], a.end["signal"]) == ("signal", 1)


def test_detach_keys(daemon, box):
    with Pty(daemon, "exec", "-it", "box", "--", "sh", "-c",
             "echo ready; read x; echo got $x; read x; exit $x") as t:
        t.until(b"ready")
        t.type(b"\x10\x11")
        assert t.wait() == 0 and t.restored() and b"which goes on" in t.out
        x = t.out.split(b"left exec ")[1].split(b",")[0].decode()
    assert describe(daemon, "box", x)["state"] == "running"
    with Pty(daemon, "attach", "--detach-keys", "ctrl-x", "box", x) as t:
        t.until(b"ready")                       # from the beginning
        t.type(b"hello\r")
        t.until(b"got hello")
        t.type(b"\x18")
        assert t.wait() == 0 and t.restored()
    assert describe(daemon, "box", x)["state"] == "running"
    with Pty(daemon, "attach", "box", x) as t:
        t.until(b"got hello")
        t.type(b"8\r")
        assert t.wait() == 8 and t.restored()


def test_a_client_that_vanishes_ends_its_command(box):
    p = box.daemon.popen("exec", "box", "--", "sh", "-c",
                         "echo hup-missing > /workspace/hup; trap 'echo hup > /workspace/hup; exit' HUP; "
                         "sleep 1000 & echo $$ $!; wait")
    shell, child = p.stdout.readline().split()
    assert not gone(box, int(shell))
    p.kill()
    p.communicate()
    wait_until(lambda: gone(box, int(shell)), what="end of the shell")
    wait_until(lambda: gone(box, int(child)), what="end of its child")
    with open(box.workspace + "/hup") as f:
        assert f.read() == "hup\n"              # it was told first


def test_one_that_does_not_listen_is_ended_too(daemon, box):
    x = start(daemon, "box", "sh", "-c", "trap '' HUP TERM; echo ready; sleep 1000; sleep 1000")
    with Stream(daemon, "box", x["id"]) as s:
        s.until(b"ready\n")
    x = ended(daemon, "box", x["id"], 20)
    assert (x["end"], x["signal"]) == ("signal", 9)


def test_a_detached_one_lives_when_its_client_vanishes(daemon, box):
    x = start(daemon, "box", "sh", "-c", "echo $$; read x; echo got $x", stdin=True, detach=True)
    p = daemon.popen("attach", "box", x["id"])
    pid = int(p.stdout.readline())
    p.kill()
    p.communicate()
    time.sleep(4)           # nothing is to happen: longer than the grace before an end by force
    assert not gone(box, pid) and describe(daemon, "box", x["id"])["state"] == "running"
    r = daemon.sbx("attach", "box", x["id"], stdin=b"it\n")
    assert (r.returncode, r.stdout) == (0, f"{pid}\ngot it\n")


# ---- what is kept ------------------------------------------------------------------------------

def test_the_ring_is_bounded_and_its_offsets_are_right(daemon, box):
    lines, size = 196608, 3 * MIB               # 16 bytes each: a line says its offset
    x = start(daemon, "box", "seq", "-f", "%015.0f", "0", str(lines - 1), detach=True)["id"]
    d = ended(daemon, "box", x)
    assert (d["stdout_end"], d["stdout_start"]) == (size, size - MIB)

    def right(first, data):
        assert first + len(data) == size
        number = -(-first // 16)
        assert data[-first % 16:] == b"".join(b"%015d\n" % i for i in range(number, lines))

    first, lost, data = output(daemon, "box", x)
    assert (first, lost) == (size - MIB, size - MIB)
    right(first, data)
    for offset in (0, size - MIB - 1, size - MIB, size - MIB + 5, size - 100, size):
        one, two = output(daemon, "box", x, offset), output(daemon, "box", x, offset)
        assert one == two
        assert one[0] == max(offset, size - MIB) and one[1] == one[0] - offset
        right(one[0], one[2])
    with Stream(daemon, "box", x) as s:
        out, _ = s.rest()
        assert s.gaps == {1: size - MIB} and s.end["exit_code"] == 0
        assert digest(out) == digest(data)
    with Stream(daemon, "box", x, stdout_offset=size - 4096) as s:
        assert s.rest()[0] == data[-4096:] and s.gaps == {}
    r = daemon.sbx("attach", "box", x)
    assert r.returncode == 0 and r.stdout.encode() == data
    assert str(size - MIB) in r.stderr and "no longer kept" in r.stderr


def test_nothing_is_lost_between_start_and_attach(daemon, box):
    x = start(daemon, "box", "seq", "300000")
    wait_until(lambda: describe(daemon, "box", x["id"])["stdout_end"] > 100000, what="output")
    with Stream(daemon, "box", x["id"]) as s:
        out, _ = s.rest()
        assert s.gaps == {} and digest(out) == digest(b"".join(b"%d\n" % i for i in range(1, 300001)))


def test_a_slow_reader_stops_its_own_stream_only(daemon, box):
    size = 64 * MIB
    box.sh(f"head -c {size} /dev/urandom > /tmp/big")
    want = box.sh("sha256sum < /tmp/big").split()[0]
    x = start(daemon, "box", "cat", "/tmp/big")["id"]
    with Stream(daemon, "box", x) as s:
        last = [-1]

        def stands():
            now = describe(daemon, "box", x)["stdout_end"]
            same, last[0] = now == last[0] and now > 0, now
            time.sleep(0.2)
            return same
        wait_until(stands, what="standstill")
        assert last[0] < 4 * MIB                # bounded, the rest waits in the guest
        slowest = 0
        for i in range(10):
            began = time.monotonic()
            r = box.daemon.sbx("exec", "-i", "box", "md5sum", stdin=b"%d" % i)
            assert r.stdout.split()[0] == hashlib.md5(b"%d" % i).hexdigest()
            slowest = max(slowest, time.monotonic() - began)
        assert slowest < 5
        r = daemon.sbx("exec", "box", "head", "-c", str(8 * MIB), "/tmp/big", binary=True)
        assert len(r.stdout) == 8 * MIB         # and another stream flows
        assert describe(daemon, "box", x)["stdout_end"] == last[0]
        out, _ = s.rest()
        assert len(out) == size and digest(out) == want and s.gaps == {}
        assert s.end["exit_code"] == 0
    box.sh("rm /tmp/big")


def test_the_slowest_reader_of_one_exec_sets_its_pace_while_it_is_there(daemon, box):
    size = 8 * MIB
    x = start(daemon, "box", "sh", "-c", f"read go; head -c {size} /dev/urandom | tee /tmp/two",
              stdin=True, detach=True)["id"]
    slow = Stream(daemon, "box", x)
    fast, got = Stream(daemon, "box", x), []
    fast.write(b"go\n")                         # both are there from the first byte on
    t = threading.Thread(target=lambda: got.append(fast.rest()))
    t.start()
    last = [0]

    def stands():
        now = describe(daemon, "box", x)["stdout_end"]
        same, last[0] = now == last[0] and now > 0, now
        time.sleep(0.2)
        return same
    wait_until(stands, what="standstill")
    assert last[0] < 4 * MIB and not got
    slow.sock.close()
    t.join(60)
    assert fast.gaps == {} and digest(got[0][0]) == box.sh("sha256sum < /tmp/two").split()[0]
    fast.sock.close()


def test_a_hundred_at_once(daemon, box):
    box.sh("rm -f /tmp/gate; mkfifo -m 666 /tmp/gate")
    before = daemon.get("/v1/sandboxes/box")["execs_running"]
    results, problems = {}, []

    def one(i):
        try:
            results[i] = daemon.sbx("exec", "-i", "box", "--", "sh", "-c",
                                    f"read x < /tmp/gate; cat; seq {i * 1000} {i * 1000 + 999}; "
                                    f"echo err{i} >&2; exit {i}", stdin=b"in%d\n" % i)
        except Exception as e:                  # all of them are wanted
            problems.append((i, repr(e)))

    threads = [threading.Thread(target=one, args=(i,)) for i in range(100)]
    for t in threads:
        t.start()
    wait_until(lambda: daemon.get("/v1/sandboxes/box")["execs_running"] == before + 100,
               what="hundred that run")
    assert len([x for x in daemon.get("/v1/sandboxes/box/execs")["execs"]
                if x["state"] == "running"]) == before + 100
    # a reader that comes late blocks in open() again: so until all are through
    keeper = daemon.popen("exec", "box", "--", "sh", "-c", "while :; do : > /tmp/gate; done")
    for t in threads:
        t.join(120)
    keeper.kill()
    keeper.communicate()
    assert not problems and len(results) == 100, problems
    for i, r in results.items():
        want = f"in{i}\n" + "".join(f"{n}\n" for n in range(i * 1000, i * 1000 + 1000))
        assert (r.returncode, r.stderr) == (i, f"err{i}\n"), (i, r.stderr)
        assert r.stdout == want, i


def test_a_hundred_short_ones_attached_late(daemon, box):
    """More than are kept have ended before anybody attaches: their output is not thrown away."""
    ids = [start(daemon, "box", "echo", str(i))["id"] for i in range(80)]
    ended(daemon, "box", ids[-1])
    for i, x in enumerate(ids):
        with Stream(daemon, "box", x) as s:
            assert s.rest() == (b"%d\n" % i, b"") and s.end["exit_code"] == 0


def test_attach_without_the_upgrade_is_refused(daemon, box):
    x = start(daemon, "box", "true", detach=True)
    status, _, body = daemon.request("GET", f"/v1/sandboxes/box/execs/{x['id']}/attach")
    assert (status, json.loads(body)["error"]["code"]) == (426, "upgrade_required")


def test_run_ends_its_command_when_the_client_goes(daemon, box):
    c = UnixConnection(daemon.socket)
    c.request("POST", "/v1/sandboxes/box/run", json.dumps(
        {"command": ["sh", "-c", "echo $$ > /tmp/run.pid; exec sleep 1000"]}))
    pid = wait_until(lambda: box.daemon.sbx("exec", "box", "cat", "/tmp/run.pid").stdout.strip(),
                     what="pid")
    assert not gone(box, pid)
    c.close()
    wait_until(lambda: gone(box, pid), what="end of the command")


def test_the_sandbox_ends_under_its_commands(daemon):
    daemon.ok("create", "--name", "brief")
    x = start(daemon, "brief", "sleep", "1000")
    p = daemon.popen("exec", "brief", "--", "sh", "-c", "echo up; exec sleep 1000", stdin=subprocess.DEVNULL)
    assert p.stdout.readline() == b"up\n"
    with Stream(daemon, "brief", x["id"]) as s:
        daemon.sbx("exec", "-u", "root", "brief", "--", "sh", "-c", "echo o > /proc/sysrq-trigger")
        s.rest()
        assert s.end["end"] == "lost"
    _, err = p.communicate(timeout=60)
    assert p.returncode == 125
    assert err.decode().splitlines()[0] == "sbx: the sandbox ended while the command ran"
    daemon.ok("rm", "brief")


def test_as_many_commands_as_are_allowed(daemon):
    daemon.ok("create", "--name", "full")
    for i in range(256):
        start(daemon, "full", "sleep", "1000", detach=True)
    text = fails(daemon.sbx("exec", "full", "true"))
    assert "256 commands" in text and "hint:" in text
    status, _, body = daemon.request("POST", "/v1/sandboxes/full/execs", {"command": ["true"]})
    error = json.loads(body)["error"]
    assert (status, error["code"]) == (429, "quota_exceeded")
    assert error["details"] == {"quota": "sandbox_execs", "limit": 256, "used": 256, "requested": 1}
    one = daemon.ok("execs", "-q", "full").split()[0]
    assert post(daemon, "full", one, "signal", signal="KILL") == (204, None)
    ended(daemon, "full", one)
    assert daemon.sbx("exec", "full", "true").returncode == 0
    daemon.ok("rm", "-f", "full")


# ---- records that are none ---------------------------------------------------------------------

@pytest.mark.parametrize("data, code", [
    (b"GET / HTTP/1.1\r\n\r\n", "invalid_request"),
    (b"\0\0\0\0\x7f\xff\xff\xff", "invalid_request"),        # too long
    (b"\0\0\0\0\0\1\0\1", "invalid_request"),                # by one
    (b"\0\1\0\0\0\0\0\1x", "invalid_request"),               # not zero
    (b"\x63\0\0\0\0\0\0\0", "invalid_request"),              # no such type
    (b"\1\0\0\0\0\0\0\1x", "invalid_request"),               # the daemon's
    (b"\3\0\0\0\0\0\0\3abc", "invalid_request"),             # a short size
    (b"\4\0\0\0\0\0\0\1\0", "invalid_field"),                # signal 0
    (b"\4\0\0\0\0\0\0\1\xff", "invalid_field"),
    (b"\0\0\0\0\0\0\0\1x", "exec_not_running"),              # input for what takes none
])
def test_wrong_records_are_answered_and_end_the_stream(daemon, box, data, code):
    x = start(daemon, "box", "sleep", "1000")
    with Stream(daemon, "box", x["id"]) as s:
        s.sock.sendall(data)
        s.rest()
        assert s.end["error"]["code"] == code, s.end
    assert ended(daemon, "box", x["id"])["signal"] == 1


def test_input_after_its_end_is_an_error(daemon, box):
    x = start(daemon, "box", "sleep", "1000", stdin=True)
    with Stream(daemon, "box", x["id"]) as s:
        s.end_of_input()
        s.write(b"x")
        s.rest()
        assert s.end["error"]["code"] == "exec_not_running"


def test_one_that_nobody_attaches_to_is_ended_in_the_end(box, abandoned):
    def said(name):
        with open(box.workspace + "/" + name) as f:
            return f.read()
    wait_until(lambda: said("attached") == "hup\n", what="end of an exec nobody attached to")
    wait_until(lambda: gone(box, abandoned[0]), what="end of its process")
    assert said("detached") == "ready\n" and not gone(box, abandoned[1])
