# SPDX-License-Identifier: MIT
"""A played sandboxd for tests of sbx: answers on a Unix socket what a test tells it to.

    def test_x(daemon, sbx):
        daemon.reply("GET", "/v1/sandboxes", 200, {"sandboxes": []})
        r = sbx("ls", "-q")
        assert r.returncode == 0 and daemon.requests[0].path == "/v1/sandboxes"

`sbx` runs the binary named by the variable SBX, by default the newest one under build*/client.
"""
import glob
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time

import pytest

# Started in the background by a shell, they would be ignored, in all children too.
for number in (signal.SIGINT, signal.SIGQUIT):
    if signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, signal.default_int_handler)

STDIN, STDOUT, STDERR, RESIZE, SIGNAL, DETACH, EXIT, ERROR, GAP = range(9)
BOX_ID = "0123456789abcdef"
EXEC_ID = "fedcba9876543210"
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def find_sbx():
    if os.environ.get("SBX"):
        return os.environ["SBX"]
    found = glob.glob(os.path.join(ROOT, "build*", "client", "sbx"))
    if not found:
        pytest.skip("no sbx: build it, or name it by SBX=", allow_module_level=True)
    return max(found, key=os.path.getmtime)


def sandbox(**kw):
    d = {
        "id": BOX_ID, "name": "box", "state": "running",
        "image": {"name": "debian", "digest": "sha256:" + "a" * 64},
        "cpus": 2, "memory": 2 << 30, "disk": 20 << 30, "env": {}, "labels": {},
        "owner": {"uid": 1000, "user": "user"}, "machine": "microvm", "accel": "tcg",
        "created_at": "2026-01-02T03:04:05.000000Z", "started_at": None, "stopped_at": None,
        "execs_running": 0,
    }
    d.update(kw)
    return d


def an_exec(**kw):
    d = {
        "id": EXEC_ID, "sandbox": BOX_ID, "state": "running", "command": ["true"], "user": "agent",
        "workdir": "/workspace", "tty": False, "stdin": False, "detach": False, "pid": 7,
        "exit_code": -1, "signal": 0, "stdout_start": 0, "stdout_end": 0, "stderr_start": 0,
        "stderr_end": 0, "created_at": "2026-01-02T03:04:05.000000Z", "ended_at": None,
    }
    d.update(kw)
    return d


def error(code, message, hint=None):
    return {"error": {"code": code, "message": message, "hint": hint, "request_id": "req1"}}


class Request:
    def __init__(self, method, path, headers, body):
        self.method, self.path, self.headers, self.body = method, path, headers, body

    @property
    def json(self):
        return json.loads(self.body)


class Conn:
    """One connection; after a 101 the records of sbx-stream."""

    def __init__(self, sock):
        self.sock = sock
        self.buf = b""

    def more(self):
        data = self.sock.recv(65536)
        if not data:
            raise EOFError
        self.buf += data

    def exactly(self, n):
        while len(self.buf) < n:
            self.more()
        data, self.buf = self.buf[:n], self.buf[n:]
        return data

    def request(self):
        while b"\r\n\r\n" not in self.buf:
            self.more()
        head, self.buf = self.buf.split(b"\r\n\r\n", 1)
        lines = head.decode("latin-1").split("\r\n")
        method, path, _ = lines[0].split(" ")
        headers = {k.lower(): v.strip() for k, v in (s.split(":", 1) for s in lines[1:])}
        return Request(method, path, headers, self.exactly(int(headers.get("content-length", 0))))

    def send(self, data):
        self.sock.sendall(data)

    def answer(self, status, body=b"", headers=None):
        if not isinstance(body, bytes):
            body = json.dumps(body).encode()
        out = ["HTTP/1.1 %d X" % status, "Content-Length: %d" % len(body), "Sbx-Request-Id: req1"]
        out += ["%s: %s" % kv for kv in (headers or {}).items()]
        self.send("\r\n".join(out).encode() + b"\r\n\r\n" + body)

    # sbx-stream
    def upgrade(self):
        self.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n"
                  b"Upgrade: sbx-stream\r\n\r\n")

    def record(self, kind, data=b""):
        self.send(struct.pack(">B3xI", kind, len(data)) + data)

    def read_record(self):
        kind, n = struct.unpack(">B3xI", self.exactly(8))
        return kind, self.exactly(n)

    def exit(self, code=0, signal=0, end="exit"):
        self.record(EXIT, json.dumps({"end": end, "exit_code": code, "signal": signal}).encode())


class FakeDaemon:
    live = []

    def __init__(self, path):
        FakeDaemon.live.append(self)
        self.path = path
        self.routes = []
        self.requests = []
        self.failures = []
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(64)
        self.conns = []
        self.acceptor = threading.Thread(target=self.accept, daemon=True)
        self.acceptor.start()

    def accept(self):
        while True:
            try:
                s, _ = self.listener.accept()
            except OSError:
                return
            self.conns.append(s)
            threading.Thread(target=self.serve, args=(Conn(s),), daemon=True).start()

    def serve(self, conn):
        try:
            while True:
                r = conn.request()
                self.requests.append(r)
                for method, pattern, fn in self.routes:
                    if method == r.method and re.fullmatch(pattern, r.path.split("?")[0]):
                        fn(conn, r)
                        break
                else:
                    conn.answer(404, error(
                        "route_not_found", f"no route {r.method} {r.path} at {self.path}, but "
                        f"{[p for _, p, _ in self.routes]}"))
                if r.headers.get("upgrade"):
                    break
        except (EOFError, OSError):
            pass
        except Exception as e:      # shown by the fixture
            self.failures.append(e)
        finally:
            conn.sock.close()

    def on(self, method, pattern, fn):
        """fn(conn, request) answers."""
        self.routes.insert(0, (method, pattern, fn))

    def reply(self, method, pattern, status, body=b"", headers=None):
        self.on(method, pattern, lambda c, r: c.answer(status, body, headers))

    def exec(self, stream, **kw):
        """Creating an exec works, and attaching to it runs stream(conn)."""
        self.reply("POST", "/v1/sandboxes/[^/]+/execs", 201, an_exec(**kw))

        def attach(conn, r):
            conn.upgrade()
            stream(conn)
        self.on("GET", "/v1/sandboxes/[^/]+/execs/[^/]+/attach", attach)

    def find(self, method, part):
        return [r for r in self.requests if r.method == method and part in r.path]

    def kill(self):
        """As if the daemon died: nothing listens, connections are cut."""
        if self.listener.fileno() < 0:
            return
        FakeDaemon.live.remove(self)
        # Never only closed: a thread that waits in accept() knows no more than the number. It is the
        # next listener's soon, and when a signal (a stopped job that goes on) makes the kernel begin
        # the call again, the thread takes a connection of that one.
        self.listener.shutdown(socket.SHUT_RDWR)
        self.acceptor.join()
        self.listener.close()
        if os.path.exists(self.path):
            os.unlink(self.path)
        for s in self.conns:
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


@pytest.fixture
def tmp():
    path = tempfile.mkdtemp(prefix="sbxc.")
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def daemon(tmp):
    d = FakeDaemon(os.path.join(tmp, "s"))
    yield d
    for one in list(FakeDaemon.live):       # those that a test made by itself, and failed, too
        one.kill()
    assert not d.failures, d.failures


class Runner:
    def __init__(self, tmp):
        self.binary = find_sbx()
        self.tmp = tmp
        self.env = {
            "PATH": os.environ["PATH"], "HOME": tmp, "LC_ALL": "C.UTF-8",
            "SBX_HOST": "unix://" + os.path.join(tmp, "s"),
        }
        for k in ("ASAN_OPTIONS", "UBSAN_OPTIONS", "LSAN_OPTIONS"):
            if k in os.environ:
                self.env[k] = os.environ[k]

    def popen(self, *args, env=None, **kw):
        e = dict(self.env)
        for k, v in (env or {}).items():
            e.pop(k, None)
            if v is not None:
                e[k] = v
        kw.setdefault("stdin", subprocess.DEVNULL)
        kw.setdefault("stdout", subprocess.PIPE)
        kw.setdefault("stderr", subprocess.PIPE)
        return subprocess.Popen([self.binary, *args], env=e, **kw)

    def __call__(self, *args, input=None, timeout=30, text=True, **kw):
        if input is not None:
            kw["stdin"] = subprocess.PIPE
            if isinstance(input, str):
                input = input.encode()
        with self.popen(*args, **kw) as p:
            try:
                out, err = p.communicate(input, timeout)
            except subprocess.TimeoutExpired:
                p.kill()
                raise
        if text:
            out = out.decode() if out is not None else None
            err = err.decode() if err is not None else None
        return subprocess.CompletedProcess(args, p.returncode, out, err)


@pytest.fixture
def sbx(tmp):
    return Runner(tmp)


def wait_for(condition, seconds=10, what="condition"):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError("waited in vain for " + what)
