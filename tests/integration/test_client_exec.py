# SPDX-License-Identifier: MIT
"""sbx exec and attach against a played daemon: streams, signals, exit statuses; no terminal here."""
import hashlib
import os
import signal
import subprocess
import threading
import time

import pytest
from fake_daemon import *  # noqa: F401,F403 (fixtures)
from fake_daemon import (DETACH, ERROR, EXEC_ID, EXIT, GAP, RESIZE, SIGNAL, STDERR, STDIN, STDOUT,
                         an_exec, error, wait_for)


def test_request_and_output(daemon, sbx):
    def stream(c):
        c.record(STDOUT, b"out\x00\xff\n")
        c.record(STDERR, b"err\n")
        c.record(STDOUT, b"")
        c.record(9 - 1, b"\x01" + bytes(8))     # a gap of nothing
        c.record(STDOUT, b"more")
        c.exit(3)
    daemon.exec(stream)
    r = sbx("exec", "-e", "A=b", "-w", "/tmp", "-u", "root", "--timeout", "90s", "box", "--", "ls",
            "-l", "--", "-x", text=False)
    assert (r.returncode, r.stdout, r.stderr) == (3, b"out\x00\xff\nmore", b"err\n")
    req = daemon.find("POST", "/execs")[0]
    assert req.path == "/v1/sandboxes/box/execs"
    assert req.json == {
        "command": ["ls", "-l", "--", "-x"], "env": {"A": "b"}, "workdir": "/tmp", "user": "root",
        "tty": False, "stdin": False, "detach": False, "rows": 0, "cols": 0, "timeout_ms": 90000} or \
        {k: v for k, v in req.json.items() if v} == {
            "command": ["ls", "-l", "--", "-x"], "env": {"A": "b"}, "workdir": "/tmp",
            "user": "root", "timeout_ms": 90000}
    up = daemon.find("GET", "/attach")[0]
    assert up.path == "/v1/sandboxes/box/execs/%s/attach" % EXEC_ID
    assert up.headers["upgrade"] == "sbx-stream" and up.headers["connection"] == "Upgrade"
    assert up.headers["host"] == "localhost"


@pytest.mark.parametrize("args,command", [
    (["exec", "box", "ls", "-l"], ["ls", "-l"]), (["exec", "box", "--", "--help"], ["--help"]),
    (["exec", "box", "--", "-x"], ["-x"]), (["exec", "--", "box", "a", "--"], ["a", "--"]),
    (["exec", "box", "--", "--"], ["--"]), (["exec", "box", ""], [""])])
def test_where_options_end(daemon, sbx, args, command):
    daemon.exec(lambda c: c.exit(0))
    assert sbx(*args).returncode == 0
    assert daemon.requests[0].json["command"] == command


@pytest.mark.parametrize("end,code,signo,want", [
    ("exit", 0, 0, 0), ("exit", 255, 0, 255), ("signal", 137, 9, 137), ("timeout", 124, 15, 124),
    ("exit", 300, 0, 125)])
def test_exit_status(daemon, sbx, end, code, signo, want):
    daemon.exec(lambda c: c.exit(code, signo, end))
    r = sbx("exec", "box", "true")
    assert (r.returncode, r.stdout, r.stderr) == (want, "", "")


@pytest.mark.parametrize("code,want", [
    ("command_not_found", 127), ("command_not_executable", 126), ("sandbox_not_running", 125),
    ("sandbox_not_found", 125), ("quota_exceeded", 125)])
def test_failures_before_the_start(daemon, sbx, code, want):
    daemon.reply("POST", ".*/execs", 422, error(code, "words", "what to do"))
    r = sbx("exec", "box", "x")
    assert (r.returncode, r.stderr) == (want, "sbx: words\nhint: what to do\n")


def test_attach_refused(daemon, sbx):
    daemon.reply("POST", ".*/execs", 201, an_exec())
    daemon.reply("GET", ".*/attach", 409, error("exec_not_running", "it has gone"))
    r = sbx("exec", "box", "x")
    assert (r.returncode, r.stderr) == (125, "sbx: it has gone\n")


def test_lost_sandbox_error_record_and_lost_connection(daemon, sbx):
    daemon.exec(lambda c: c.exit(125, 0, "lost"))
    r = sbx("exec", "box", "x")
    assert r.returncode == 125 and "the sandbox ended while the command ran" in r.stderr
    daemon.exec(lambda c: c.record(ERROR, b'{"error":{"code":"guest_error","message":"bad guest"}}'))
    r = sbx("exec", "box", "x")
    assert (r.returncode, r.stderr) == (125, "sbx: bad guest\n")

    def cut(c):
        c.record(STDOUT, b"half")
        c.sock.close()
    daemon.exec(cut)
    r = sbx("exec", "box", "x")
    assert r.returncode == 125 and r.stdout == "half"
    assert "the connection to sandboxd was lost" in r.stderr and "sbx execs box" in r.stderr


@pytest.mark.parametrize("junk", [b"\xff" * 8, b"\x01\x00\x00\x01" + bytes(4),
                                  b"\x01\x00\x00\x00\xff\xff\xff\xff", b"\x06\x00\x00\x00\x00\x00\x00\x01["])
def test_garbage_records(daemon, sbx, junk):
    daemon.exec(lambda c: (c.send(junk), time.sleep(0.2)))
    r = sbx("exec", "box", "x")
    assert r.returncode == 125 and r.stderr.startswith("sbx: ") and len(r.stderr.splitlines()) <= 2


@pytest.mark.parametrize("junk", ids=range(6), argvalues=[b"HTTP/1.0 101 x\r\n\r\n", b"\r\n\r\n", b"x" * 20000,
                                  b"HTTP/1.1 abc\r\n\r\n", b"HTTP/1.1 500 x\r\n\r\n{}", b""])
def test_garbage_instead_of_101(daemon, sbx, junk):
    daemon.reply("POST", ".*/execs", 201, an_exec())
    daemon.on("GET", ".*/attach", lambda c, r: c.send(junk))
    r = sbx("exec", "box", "x")
    assert r.returncode == 125 and r.stderr.startswith("sbx: ")


def test_gap_is_told(daemon, sbx):
    def stream(c):
        c.record(GAP, b"\x01" + (1234).to_bytes(8, "big"))
        c.record(STDOUT, b"rest")
        c.exit(0)
    daemon.exec(stream)
    r = sbx("exec", "box", "x")
    assert r.stdout == "rest" and "1234 bytes of stdout are no longer kept" in r.stderr


def test_stdin_is_closed_without_i(daemon, sbx):
    got = []
    daemon.exec(lambda c: (got.append(c.buf), c.exit(0)))
    assert sbx("exec", "box", "cat", input=b"never sent").returncode == 0
    assert daemon.requests[0].json.get("stdin", False) is False and got == [b""]


def test_stdin_half_close_and_binary(daemon, sbx):
    data = os.urandom(3 << 20)

    def stream(c):
        back = b""
        while True:
            kind, piece = c.read_record()
            assert kind == STDIN
            if not piece:
                break
            back += piece
        c.record(STDERR, hashlib.sha256(back).hexdigest().encode())
        for i in range(0, len(back), 65536):
            c.record(STDOUT, back[i:i + 65536])
        c.exit(0)
    daemon.exec(stream, stdin=True)
    r = sbx("exec", "-i", "box", "cat", input=data, text=False)
    assert r.returncode == 0 and r.stdout == data
    assert r.stderr.decode() == hashlib.sha256(data).hexdigest()
    assert daemon.requests[0].json["stdin"] is True


def test_slow_reader_stops_the_daemon_and_memory_stays_small(daemon, sbx):
    sent = [0]

    def stream(c):
        for _ in range(2000):
            c.record(STDOUT, b"x" * 65536)
            sent[0] += 65536
        c.exit(0)
    daemon.exec(stream)
    p = sbx.popen("exec", "box", "yes")
    time.sleep(1)
    before = sent[0]
    assert before < 4 << 20
    time.sleep(0.3)
    assert sent[0] == before
    with open("/proc/%d/status" % p.pid) as f:
        rss = [int(s.split()[1]) for s in f if s.startswith("VmRSS")][0]
    assert "asan" in sbx.binary or rss < 40000, rss
    with open("/proc/%d/stat" % p.pid) as f:
        ticks = f.read().split()[13:15]
    time.sleep(0.5)
    with open("/proc/%d/stat" % p.pid) as f:
        assert f.read().split()[13:15] == ticks, "it spins while it waits"
    out, _ = p.communicate(timeout=60)
    assert len(out) == 2000 * 65536 and p.returncode == 0


def test_signals_work_while_output_is_blocked(daemon, sbx):
    def stream(c):
        for _ in range(100):
            c.record(STDOUT, b"x" * 65536)
    daemon.exec(stream)
    p = sbx.popen("exec", "box", "yes")
    time.sleep(0.5)
    for _ in range(3):
        p.send_signal(signal.SIGINT)
        time.sleep(0.1)
    assert p.wait(5) == 130
    p.communicate()


def test_reader_goes_away(daemon, sbx):
    gone = threading.Event()

    def stream(c):
        try:
            while True:
                c.record(STDOUT, b"y\n" * 1000)
        except OSError:
            gone.set()
    daemon.exec(stream)
    p = sbx.popen("exec", "box", "yes")
    assert p.stdout.readline() == b"y\n"
    p.stdout.close()
    assert p.wait(5) == 141 and p.stderr.read() == b""
    p.stderr.close()
    assert gone.wait(5)


def test_stdout_and_stderr_keep_their_flags(daemon, sbx):
    import fcntl
    daemon.exec(lambda c: ([c.record(STDOUT, b"z" * 60000) for _ in range(5)], c.exit(0)))
    r, w = os.pipe()
    before = fcntl.fcntl(w, fcntl.F_GETFL)
    p = sbx.popen("exec", "-i", "box", "x", stdout=w)
    time.sleep(0.3)
    assert fcntl.fcntl(w, fcntl.F_GETFL) == before
    os.close(w)
    n = 0
    while True:
        data = os.read(r, 65536)
        if not data:
            break
        n += len(data)
    os.close(r)
    assert n == 300000 and p.wait(5) == 0
    p.communicate()


def test_stdout_as_socket_file_and_nonblocking_pipe(daemon, sbx, tmp):
    import socket
    daemon.exec(lambda c: (c.record(STDOUT, b"z" * 65536), c.record(STDOUT, b"z" * 65536), c.exit(0)))
    a, b = socket.socketpair()
    p = sbx.popen("exec", "box", "x", stdout=b)
    b.close()
    n = 0
    while n < 131072:
        n += len(a.recv(65536))
    assert p.wait(5) == 0
    p.communicate()
    with open(tmp + "/f", "ab") as f:
        f.write(b"head")
        f.flush()
        assert sbx("exec", "box", "x", stdout=f).returncode == 0
    assert os.path.getsize(tmp + "/f") == 131076
    r, w = os.pipe()
    os.set_blocking(w, False)
    p = sbx.popen("exec", "box", "x", stdout=w)
    os.close(w)
    time.sleep(0.3)
    with os.fdopen(r, "rb") as f:
        assert len(f.read()) == 131072
    assert p.wait(5) == 0
    p.communicate()


@pytest.mark.parametrize("signo", [signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGUSR1])
def test_signals_go_to_the_command(daemon, sbx, signo):
    got = []
    ready = threading.Event()

    def stream(c):
        c.record(STDOUT, b"up\n")
        ready.set()
        got.append(c.read_record())
        c.exit(128 + signo, int(signo), "signal")
    daemon.exec(stream)
    p = sbx.popen("exec", "box", "sleep")
    assert p.stdout.readline() == b"up\n"
    p.send_signal(signo)
    assert p.wait(5) == 128 + signo
    assert got == [(SIGNAL, bytes([signo]))]
    p.communicate()


def test_signal_overtakes_stdin_that_is_not_read(daemon, sbx):
    done = threading.Event()
    daemon.exec(lambda c: (done.wait(10), c.exit(130, 2, "signal")), stdin=True)
    daemon.on("POST", ".*/signal", lambda c, r: (c.answer(204), done.set()))
    p = sbx.popen("exec", "-i", "box", "sleep", stdin=subprocess.PIPE)

    def feed():
        try:
            p.stdin.write(b"x" * (4 << 20))
        except OSError:
            pass
    t = threading.Thread(target=feed, daemon=True)
    t.start()
    time.sleep(0.5)
    p.send_signal(signal.SIGINT)
    assert p.wait(5) == 130
    assert daemon.find("POST", "/signal")[0].json == {"signal": "2"}
    p.stdin = None
    p.communicate()


def test_third_interrupt_leaves(daemon, sbx):
    daemon.exec(lambda c: [c.read_record() for _ in range(9)])
    p = sbx.popen("exec", "box", "sleep")
    wait_for(lambda: daemon.find("GET", "/attach"))
    time.sleep(0.2)
    for _ in range(3):
        assert p.poll() is None
        p.send_signal(signal.SIGINT)
        time.sleep(0.1)
    assert p.wait(5) == 130
    p.communicate()


def test_hangup_leaves_and_ignored_hangup_does_not(daemon, sbx):
    daemon.exec(lambda c: (c.record(STDOUT, b"up\n"), c.read_record()))
    p = sbx.popen("exec", "box", "sleep")
    assert p.stdout.readline() == b"up\n"
    p.send_signal(signal.SIGHUP)
    assert p.wait(5) == 129
    p.communicate()
    go = threading.Event()
    daemon.exec(lambda c: (c.record(STDOUT, b"up\n"), go.wait(5), c.exit(7)))
    p = sbx.popen("exec", "box", "sleep",
                  preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    assert p.stdout.readline() == b"up\n"
    p.send_signal(signal.SIGHUP)
    time.sleep(0.2)
    go.set()
    assert p.wait(5) == 7
    p.communicate()


def test_command_that_ends_before_it_reads_stdin(daemon, sbx):
    daemon.exec(lambda c: (c.exit(4), c.sock.close()), stdin=True)
    p = sbx.popen("exec", "-i", "box", "true", stdin=subprocess.PIPE)
    assert p.wait(5) == 4       # and does not wait for input
    p.communicate()


def test_stdin_stays_open_without_spinning(daemon, sbx):
    go = threading.Event()
    daemon.exec(lambda c: (c.read_record(), go.wait(5), c.exit(0)), stdin=True)
    p = sbx.popen("exec", "-i", "box", "sleep", stdin=subprocess.DEVNULL)
    time.sleep(0.4)
    with open("/proc/%d/stat" % p.pid) as f:
        ticks = f.read().split()[13:15]
    time.sleep(0.5)
    with open("/proc/%d/stat" % p.pid) as f:
        assert f.read().split()[13:15] == ticks
    go.set()
    assert p.wait(5) == 0
    p.communicate()


def test_detach_prints_the_id(daemon, sbx):
    daemon.reply("POST", ".*/execs", 201, an_exec(detach=True))
    r = sbx("exec", "-d", "box", "sleep", "9")
    assert (r.returncode, r.stdout, r.stderr) == (0, EXEC_ID + "\n", "")
    assert daemon.requests[0].json["detach"] is True and len(daemon.requests) == 1


def test_attach(daemon, sbx):
    daemon.reply("GET", "/v1/sandboxes/box/execs/fed", 200, an_exec(stdin=True, detach=True))
    got = []

    def attach(c, r):
        c.upgrade()
        c.record(STDOUT, b"old")
        got.append(c.read_record())
        got.append(c.read_record())
        c.exit(5)
    daemon.on("GET", ".*/attach", attach)
    r = sbx("attach", "box", "fed", input=b"hello")
    assert (r.returncode, r.stdout) == (5, "old")
    assert got == [(STDIN, b"hello"), (STDIN, b"")]
    got.clear()
    daemon.on("GET", ".*/attach", lambda c, r: (c.upgrade(), c.exit(6)))
    assert sbx("attach", "--no-stdin", "box", "fed", input=b"hello").returncode == 6


@pytest.mark.parametrize("signo", [signal.SIGINT, signal.SIGTERM])
def test_who_only_watches_leaves_by_a_signal(daemon, sbx, signo):
    daemon.reply("GET", "/v1/sandboxes/box/execs/fed", 200, an_exec(detach=True))
    got = []

    def attach(c, r):
        c.upgrade()
        c.record(STDOUT, b"goes on\n")
        got.append(c.read_record())
    daemon.on("GET", ".*/attach", attach)
    p = sbx.popen("attach", "--no-stdin", "box", "fed")
    assert p.stdout.readline() == b"goes on\n"
    p.send_signal(signo)
    _, text = p.communicate(timeout=10)
    assert p.returncode == 0 and b"which goes on" in text
    assert got == [(DETACH, b"")]


def test_tty_without_stdin_may_go_to_a_pipe(daemon, sbx):
    daemon.exec(lambda c: (c.record(STDOUT, b"\x1b[1mraw\r\n"), c.exit(0)), tty=True)
    r = sbx("exec", "-t", "box", "ls", env={"TERM": "xterm"})
    assert (r.returncode, r.stdout) == (0, "\x1b[1mraw\r\n".replace("\r\n", "\r\n"))
    req = daemon.requests[0].json
    assert req["tty"] is True and req["env"] == {"TERM": "xterm"}


# ---- ssh -------------------------------------------------------------------------------------

FAKE_SSH = """#!/bin/sh
printf '%s\\n' "$@" > "$SSH_ARGS"
echo >> "$SSH_ARGS.count"
[ -n "$SSH_FAILS" ] && { echo "ssh: no route" >&2; exit "$SSH_FAILS"; }
for last; do :; done
PATH="$SBX_DIR:$PATH" SBX_HOST=$REMOTE_HOST exec sh -c "$last"
"""


@pytest.fixture
def ssh(sbx, tmp):
    os.mkdir(tmp + "/bin")
    with open(tmp + "/bin/ssh", "w") as f:
        f.write(FAKE_SSH)
    os.chmod(tmp + "/bin/ssh", 0o755)
    sbx.env.update(PATH=tmp + "/bin:" + sbx.env["PATH"], SSH_ARGS=tmp + "/args",
                   REMOTE_HOST=sbx.env["SBX_HOST"], SBX_HOST="ssh://me@far:2222",
                   SBX_DIR=os.path.dirname(os.path.abspath(sbx.binary)))
    return sbx


def test_ssh_requests_and_streams(daemon, ssh, tmp):
    data = os.urandom(1 << 20)

    def stream(c):
        back = b""
        while True:
            _, piece = c.read_record()
            if not piece:
                break
            back += piece
        for i in range(0, len(back), 60000):
            c.record(STDOUT, back[i:i + 60000])
        c.exit(9)
    daemon.exec(stream, stdin=True)
    r = ssh("exec", "-i", "box", "cat", input=data, text=False)
    assert (r.returncode, r.stdout, r.stderr) == (9, data, b"")
    with open(tmp + "/args") as f:
        args = f.read().split("\n")[:-1]
    assert os.path.getsize(tmp + "/args.count") == 1, "one login for request and stream"
    assert args[-1] == "sbx system dial-stdio" and args[-3:-1] == ["--", "far"]
    assert args[args.index("-l") + 1] == "me" and args[args.index("-p") + 1] == "2222"


def test_ssh_to_a_daemon_that_closes_after_each_reply(daemon, ssh, tmp):
    def create(c, r):
        c.answer(201, an_exec(), {"Connection": "close"})
        c.sock.shutdown(2)
    daemon.exec(lambda c: (c.record(STDOUT, b"x"), c.exit(0)))
    daemon.on("POST", ".*/execs", create)
    r = ssh("exec", "box", "true")
    assert (r.returncode, r.stdout, r.stderr) == (0, "x", "")
    assert os.path.getsize(tmp + "/args.count") == 2


def test_ssh_with_a_socket_path(daemon, ssh, tmp):
    daemon.reply("GET", "/v1/sandboxes", 200, {"sandboxes": []})
    r = ssh("-H", "ssh://far" + daemon.path, "ls", "-q")
    assert (r.returncode, r.stderr) == (0, "")
    with open(tmp + "/args") as f:
        assert f.read().split("\n")[-2] == "sbx -H 'unix://%s' system dial-stdio" % daemon.path


def test_ssh_failures(daemon, ssh, tmp):
    for command in (["ls"], ["version"]):
        r = ssh(*command, env={"SSH_FAILS": "255"})
        assert r.returncode == 125 and "ssh: no route\n" in r.stderr
        assert "cannot reach sandboxd through ssh://me@far:2222: ssh failed" in r.stderr
    r = ssh("ls", env={"SSH_FAILS": "127"})
    assert r.returncode == 125 and "sbx is not installed there" in r.stderr
    r = ssh("ls", env={"REMOTE_HOST": "unix://" + tmp + "/none"})
    assert r.returncode == 125 and "no such socket" in r.stderr and "cannot reach sandboxd through" in r.stderr
    r = ssh("create", "--workspace", "here")
    assert r.returncode == 125 and "absolute directory of far" in r.stderr
    os.unlink(tmp + "/bin/ssh")
    r = ssh("ls", env={"PATH": tmp + "/bin"})
    assert r.returncode == 125 and "cannot find 'ssh' in PATH" in r.stderr


def test_dial_stdio_half_close(daemon, sbx):
    daemon.reply("GET", "/v1/sandboxes", 200, {"sandboxes": []})
    r = sbx("system", "dial-stdio", input=b"GET /v1/sandboxes HTTP/1.1\r\nHost: x\r\n\r\n")
    assert r.returncode == 0 and r.stdout.endswith('{"sandboxes": []}')
