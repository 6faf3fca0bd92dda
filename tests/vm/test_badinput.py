# SPDX-License-Identifier: MIT
"""What a real daemon says to requests that are wrong, greedy, slow or many: the status and the code
of the API's description, and then it serves as before. No guest runs here."""
import contextlib
import json
import os
import re
import socket
import threading
import time

import pytest
from conftest import SOURCE, running, wait_until

with open(os.path.join(SOURCE, "api/openapi.yaml")) as f:
    API = f.read()
NOBODY = 65534
IDLE_S = 60             # after which half a request is dropped
JSON = "Content-Type: application/json\r\n"


@pytest.fixture(scope="module")
def daemon():
    with running() as d:
        status, _, body = d.request("POST", "/v1/sandboxes", {"name": "cold", "start": False},
                                    {"Content-Type": "application/json"})
        assert status == 201, body
        yield d


def connect(d, timeout=60):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(None)              # waits where the queue of connections is full
    s.connect(d.socket)
    s.settimeout(timeout)
    return s


def drain(s):
    data = b""
    with contextlib.suppress(ConnectionError):
        while chunk := s.recv(65536):
            data += chunk
    return data


def raw(d, data, close=True):
    """All that comes back until the daemon closes."""
    with contextlib.closing(connect(d)) as s:
        with contextlib.suppress(ConnectionError):      # it may have heard enough
            s.sendall(data)
            if close:
                s.shutdown(socket.SHUT_WR)
        return drain(s)


def parse(answer):
    head, _, body = answer.partition(b"\r\n\r\n")
    status = int(head.split()[1]) if head.startswith(b"HTTP/1.") else 0
    with contextlib.suppress(ValueError):
        return status, head.decode("latin-1"), json.loads(body)
    return status, head.decode("latin-1"), None


def ask(d, line, body=None, headers="", host="Host: localhost\r\n"):
    data = body if isinstance(body, bytes) else (body or "").encode("utf-8", "surrogateescape")
    length = f"Content-Length: {len(data)}\r\n" if body is not None else ""
    return parse(raw(d, (f"{line} HTTP/1.1\r\n{host}{JSON if body is not None else ''}{length}"
                         f"{headers}Connection: close\r\n\r\n").encode("latin-1") + data))


def check(answer, status, code):
    got, head, body = answer
    assert (got, body and body["error"]["code"]) == (status, code), (got, head, body)
    assert re.search(rf"\b{code}\b", API), f"{code} is not in the description of the API"
    error = body["error"]
    assert error["message"] and error["message"].isprintable()
    assert f"Sbx-Request-Id: {error['request_id']}" in head
    return error


def serves(d):
    began = time.monotonic()
    status, head, body = ask(d, "GET /v1/version")
    assert status == 200 and body["version"] and "Sbx-Request-Id: " in head
    assert time.monotonic() - began < 10


def rss(d):
    with open(f"/proc/{d.process.pid}/status") as f:
        return int(re.search(r"VmRSS:\s+(\d+)", f.read())[1]) * 1024


def fds(d):
    return len(os.listdir(f"/proc/{d.process.pid}/fd"))


def sanitized(d):
    with open(f"/proc/{d.process.pid}/maps") as f:
        return any(lib in f.read() for lib in ("libasan", "libtsan"))


@pytest.fixture(autouse=True)
def as_before(daemon):
    """Whatever a test did, nothing of it stays."""
    serves(daemon)
    memory, files = rss(daemon), fds(daemon)
    yield
    serves(daemon)
    wait_until(lambda: fds(daemon) <= files + 1, 60, "end of connections")
    if not sanitized(daemon):
        assert rss(daemon) < memory + 48 * 2**20


@pytest.fixture(scope="module", autouse=True)
def slow(daemon):
    """Requests that never end, begun before all tests; how long each lived is known after them."""
    post = b"POST /v1/sandboxes HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    half = [b"", b"GET /v1/ver", b"GET /v1/version HTTP/1.1\r\nHost: localhost\r\nX-",
            post + b"Content-Length: 100\r\n\r\n{",
            post + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{",
            b"GET /v1/version HTTP/1.1\r\nHost: localhost\r\n"]
    conns = [connect(daemon, 4 * IDLE_S) for _ in half]
    lived = {}

    def watch(i):
        began = time.monotonic()
        with contextlib.suppress(OSError):
            conns[i].sendall(half[i])
            drain(conns[i])
        lived[i] = time.monotonic() - began

    done = threading.Event()

    def drip():
        """The last one goes on for ever, slowly."""
        with contextlib.suppress(OSError):
            for i in range(10000):
                if done.wait(1):
                    return
                conns[-1].sendall(b"X-%d: 1\r\n" % i)

    threads = [threading.Thread(target=watch, args=(i,)) for i in range(len(half))]
    threads.append(threading.Thread(target=drip))
    for t in threads:
        t.start()
    yield lived, half, threads[:-1]
    done.set()
    for s in conns:
        with contextlib.suppress(OSError):
            s.shutdown(socket.SHUT_RDWR)
    for t in threads:
        t.join()
    for s in conns:
        s.close()


CREATE = "POST /v1/sandboxes"
EXECS = "POST /v1/sandboxes/cold/execs"
RUN = "POST /v1/sandboxes/cold/run"
DEEP = "[" * 5000 + "]" * 5000
LEVELS = 32             # of nesting, the object itself among them


def nested(n):
    return '{"labels":' + "[" * (n - 1) + "]" * (n - 1) + "}"


BODIES = [
    # not JSON, or not an object
    *((CREATE, b, "invalid_json") for b in (
        "{", "[]", "nul", '"x"', "1", "{} {}", "{}x", "{'name':1}", '{"name":"a",}', "\x00",
        "\xef\xbb\xbf{}",
        '{"name":"a","name":"b"}', '{"labels":{"a":"1","a":"2"}}', DEEP, '{"labels":' + DEEP + "}",
        b'{"name":"\xff"}', b'{"name":"\xc0\xaf"}', b'{"name":"\xed\xa0\x80"}',
        '{"name":"\\ud800"}', '{"name":"a\nb"}', "{" + " " * 100000,
        nested(LEVELS + 1))),
    (CREATE, nested(LEVELS), "invalid_field"),
    *((CREATE, b, "unknown_field") for b in (
        '{"nam":"a"}', '{"NAME":"a"}', '{"":1}', '{"__proto__":{}}',
        '{"workspace":{"path":"/","mode":"x"}}')),
    (CREATE, '{"workspace":{}}', "missing_field"),
    (EXECS, "{}", "missing_field"),
    (RUN, "{}", "missing_field"),
    *((CREATE, json.dumps(b), "invalid_field") for b in (
        {"name": 1}, {"name": []}, {"name": {}}, {"name": True}, {"name": "-a"}, {"name": ".."},
        {"name": ""}, {"name": "A"}, {"name": "a/b"}, {"name": "a b"}, {"name": "a" * 64},
        {"name": "0123456789abcdef"}, {"name": "ä"}, {"name": "a\x1b[31m"}, {"name": "a\nb"},
        {"cpus": -1}, {"cpus": 65}, {"cpus": 1.5}, {"cpus": "2"}, {"cpus": 2**32}, {"cpus": True},
        {"memory": 1}, {"memory": -1}, {"memory": 2**63}, {"memory": 513 * 2**30},
        {"memory": "2G"}, {"disk": 1}, {"disk": 2**62}, {"disk": 1e10}, {"disk": [1]},
        {"env": []}, {"env": {"A": 1}}, {"env": {"": "x"}}, {"env": {"A=B": "x"}},
        {"env": {"1A": "x"}}, {"env": {"A": "x" * 40000}},
        {"env": {f"A{i}": "" for i in range(513)}},
        {"labels": {"": "x"}}, {"labels": {"a b": "x"}}, {"labels": {"a": "x" * 1025}},
        {"labels": {f"a{i}": "" for i in range(65)}}, {"labels": {"a": None}},
        {"image": ""}, {"image": "x" * 129}, {"start": "yes"}, {"start": 1},
        {"workspace": "/"}, {"workspace": []}, {"workspace": {"path": "relative"}},
        {"workspace": {"path": ""}}, {"workspace": {"path": "/" + "x" * 4095}},
        {"workspace": {"path": "/", "read_only": "no"}})),
    *((EXECS, json.dumps(b), "invalid_field") for b in (
        {"command": "ls"}, {"command": []}, {"command": [1]}, {"command": ["x"] * 1025},
        {"command": ["x" * 131073]}, {"command": [["x"]]}, {"command": ["x"], "workdir": "tmp"},
        {"command": ["x"], "user": "a b"}, {"command": ["x"], "user": "4294967295"},
        {"command": ["x"], "user": "../x"}, {"command": ["x"], "rows": 65536},
        {"command": ["x"], "cols": -1}, {"command": ["x"], "timeout_ms": 2**63},
        {"command": ["x"], "timeout_ms": -1}, {"command": ["x"], "tty": 0})),
    *((RUN, json.dumps(b), "invalid_field") for b in (
        {"command": ["x"], "stdin": "x" * 262145}, {"command": ["x"], "stdin_base64": "?"},
        {"command": ["x"], "stdin_base64": "YQ"})),
    ("POST /v1/sandboxes/cold/execs/0123456789abcdef/resize", '{"rows":0,"cols":1}',
     "invalid_field"),
]


@pytest.mark.parametrize("part", range(4))
def test_bodies(daemon, part):
    """One connection each; together they take seconds."""
    wrong = []
    for line, body, code in BODIES[part::4]:
        try:
            check(ask(daemon, line, body), 400, code)
        except AssertionError as e:
            wrong.append(f"{line} {str(body)[:80]}: {str(e)[:300]}")
    assert not wrong, "\n".join(wrong)
    assert len(daemon.get("/v1/sandboxes")["sandboxes"]) == 1


def test_nul_in_a_string(daemon):
    status, _, body = ask(daemon, CREATE, '{"name":"a\\u0000b"}')
    assert status == 400 and body["error"]["code"] in ("invalid_json", "invalid_field")


def test_bodies_that_are_too_long(daemon):
    for n in (512 * 1024 + 1, 2**31, 2**63, 2**64 - 1):
        status, _, body = parse(raw(daemon, (
            f"{CREATE} HTTP/1.1\r\nHost: localhost\r\n{JSON}Content-Length: {n}\r\n\r\n").encode()))
        assert status == 413
        if body:                                # the largest are the library's own to refuse
            assert body["error"]["code"] == "body_too_large"
    chunk = b"1000\r\n" + b" " * 0x1000 + b"\r\n"
    check(parse(raw(daemon, f"{CREATE} HTTP/1.1\r\nHost: localhost\r\n{JSON}Transfer-Encoding: chunked"
                    "\r\n\r\n".encode() + chunk * 200)), 413, "body_too_large")
    check(ask(daemon, "GET /v1/version", "x" * 65), 413, "body_too_large")
    for head in ("Content-Length: 2\r\nContent-Length: 3\r\n", "Content-Length: -1\r\n",
                 "Content-Length: 2x\r\n", "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n",
                 "Transfer-Encoding: gzip, chunked\r\n"):
        answer = raw(daemon, f"{CREATE} HTTP/1.1\r\nHost: localhost\r\n{JSON}{head}\r\n{{}}".encode())
        assert parse(answer)[0] == 400, (head, answer)
    # a chunk's size that overflows, and one that is none
    for size in ("ffffffffffffffffff", "-1", "xyz", "0x10"):
        answer = raw(daemon, f"{CREATE} HTTP/1.1\r\nHost: localhost\r\n{JSON}Transfer-Encoding: "
                     f"chunked\r\n\r\n{size}\r\n{{}}\r\n0\r\n\r\n".encode())
        assert parse(answer)[0] in (0, 400, 413), (size, answer)


@pytest.mark.parametrize("kind,code", [
    (None, "unknown_field"), ("application/json; charset=utf-8", "unknown_field"),
    ("APPLICATION/JSON", "unknown_field"), ("text/plain", "invalid_request"),
    ("application/x-www-form-urlencoded", "invalid_request"), ("application/jsonx", "invalid_request"),
    ("", "invalid_request"), ("text/plain; application/json", "invalid_request")])
def test_content_types(daemon, kind, code):
    """Absent is fine; what a form of a web page can send is not."""
    line = f"Content-Type: {kind}\r\n" if kind is not None else ""
    check(parse(raw(daemon, f"{CREATE} HTTP/1.1\r\nHost: localhost\r\n{line}Content-Length: 7\r\n"
                    'Connection: close\r\n\r\n{"x":1}'.encode())), 400, code)


@pytest.mark.parametrize("line,status,code", [
    ("GET /", 404, "route_not_found"), ("GET /v2/sandboxes", 404, "route_not_found"),
    ("GET /v1/sandboxes/", 404, "route_not_found"), ("GET //v1/version", 404, "route_not_found"),
    ("GET /v1/sandboxes/../version", 404, "route_not_found"),
    ("GET /v1/" + "a/" * 200, 404, "route_not_found"),
    ("GET /v1/sandboxes/cold/execs/..%2f..%2fx", 409, "sandbox_not_running"),
    ("GET /v1/sandboxes/cold/execs/zz", 409, "sandbox_not_running"),
    ("GET /v1/sandboxes/nobody", 404, "sandbox_not_found"),
    ("GET /v1/sandboxes/%2e%2e", 404, "sandbox_not_found"),
    ("GET /v1/sandboxes/" + "a" * 1000, 404, "sandbox_not_found"),
    ("GET /v1/sandboxes/%1b%5b31m", 404, "sandbox_not_found"),
    ("GET /v1/sandboxes/'%20OR%201=1--", 404, "sandbox_not_found"),
    ("GET /v1/images/none", 404, "image_not_found"),
    ("GET /v1/images/sha256:..%2f..", 404, "image_not_found"),
    ("GET /v1/sandboxes/%00", 400, "invalid_request"),
    ("GET /v1/sandboxes/%ff", 400, "invalid_request"),
    ("GET /v1/sandboxes/a%zz", 400, "invalid_request"),
    ("PUT /v1/version", 405, "method_not_allowed"),
    ("DELETE /v1/sandboxes", 405, "method_not_allowed"),
    ("PUT /v1/sandboxes/cold", 405, "method_not_allowed"),
    ("BREW /v1/info", 405, "method_not_allowed"),
    ("TRACE /v1/info", 405, "method_not_allowed"),
    ("GET /v1/version?x=1", 400, "unknown_field"),
    ("GET /v1/sandboxes?STATE=running", 400, "unknown_field"),
    ("GET /v1/sandboxes?state=running&state=stopped", 400, "invalid_field"),
    ("DELETE /v1/sandboxes/cold?force=1", 400, "invalid_field"),
    ("DELETE /v1/sandboxes/cold?force=", 400, "invalid_field"),
    ("POST /v1/sandboxes/cold/stop?timeout_ms=-1", 400, "invalid_field"),
    ("POST /v1/sandboxes/cold/stop?timeout_ms=99999999999999999999", 400, "invalid_field"),
    ("GET /v1/sandboxes/cold/logs?tail=-1", 400, "invalid_field"),
    ("GET /v1/sandboxes/cold/logs?tail=1e3", 400, "invalid_field"),
    ("GET /v1/sandboxes/cold/logs?source=..", 400, "invalid_field"),
    ("GET /v1/sandboxes/cold/logs?since=yesterday", 400, "invalid_field"),
    ("GET /v1/sandboxes/cold/logs?source=console&since=1h", 400, "invalid_request"),
    ("GET /v1/sandboxes/cold/execs/0123456789abcdef/output?offset=-1", 400, "invalid_field"),
    ("GET /v1/sandboxes/cold/execs/0123456789abcdef/output?offset=18446744073709551616", 400,
     "invalid_field"),
    ("GET /v1/sandboxes/cold/execs/0123456789abcdef/output?offset=0x10", 400, "invalid_field"),
    ("GET /v1/sandboxes/cold/execs/0123456789abcdef/output?stream=stdin", 400, "invalid_field"),
    ("GET /v1/sandboxes/cold/execs/0123456789abcdef/attach", 426, "upgrade_required"),
])
def test_targets(daemon, line, status, code):
    answer = ask(daemon, line)
    check(answer, status, code)
    if status == 405:
        assert "Allow: " in answer[1]


ATTACH = "GET /v1/sandboxes/cold/execs/0123456789abcdef/attach"


@pytest.mark.parametrize("line,headers,status,code", [
    (ATTACH, "Connection: Upgrade\r\nUpgrade: websocket\r\n", 426, "upgrade_required"),
    (ATTACH, "Upgrade: sbx-stream\r\n", 426, "upgrade_required"),
    (ATTACH, "Connection: Upgrade\r\nUpgrade: sbx-stream/9\r\n", 426, "upgrade_required"),
    (ATTACH, "Connection: Upgrade\r\nUpgrade: sbx-stream\r\n", 409, "sandbox_not_running"),
    (ATTACH + "?stdout_offset=-1", "Connection: Upgrade\r\nUpgrade: sbx-stream\r\n", 400,
     "invalid_field"),
    (ATTACH + "?stderr_offset=1x", "Connection: Upgrade\r\nUpgrade: sbx-stream\r\n", 400,
     "invalid_field"),
    ("GET /v1/version", "Origin: http://localhost\r\n", 403, "origin_refused"),
    ("GET /v1/version", "Origin: null\r\n", 403, "origin_refused"),
    ("GET /v1/version", "Sec-Fetch-Site: same-origin\r\n", 403, "origin_refused"),
    (CREATE, "Idempotency-Key: " + "k" * 65 + "\r\n", 400, "invalid_request"),
    (CREATE, "Idempotency-Key: a b\r\n", 400, "invalid_request"),
])
def test_headers(daemon, line, headers, status, code):
    data = f"{line} HTTP/1.1\r\nHost: localhost\r\n{headers}"
    if "Connection:" not in headers:
        data += "Connection: close\r\n"
    check(parse(raw(daemon, (data + "\r\n").encode())), status, code)


@pytest.mark.parametrize("host", ["evil.example", "localhost:80", "127.0.0.1", "[::1]",
                                  "localhost.evil.example"])
def test_foreign_hosts(daemon, host):
    check(ask(daemon, "GET /v1/version", host=f"Host: {host}\r\n"), 403, "origin_refused")


def test_floods_of_headers(daemon):
    flood = b"".join(b"X-%d: %d\r\n" % (i, i) for i in range(20000))
    begin = b"GET /v1/version HTTP/1.1\r\nHost: localhost\r\n"
    assert parse(raw(daemon, begin + flood + b"\r\n"))[0] == 431
    assert parse(raw(daemon, begin + b"X: " + b"a" * 2**20 + b"\r\n\r\n"))[0] == 431
    assert parse(raw(daemon, begin + b"X: " + b"a" * 2**20))[0] == 431       # a line without end
    assert parse(raw(daemon, b"GET /" + b"a" * 2**20 + b" HTTP/1.1\r\nHost:\r\n\r\n"))[0] == 414


NOISE = [
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + os.urandom(200), b"\0" * 1000,
    os.urandom(100000), b"\r\n" * 1000, b"GET\r\n\r\n", b"GET /v1/version\r\n\r\n",
    b"GET /v1/version HTTP/9.9\r\nHost:\r\n\r\n", b"GET /v1/version HTTP/1.1\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET /v1/version HTTP/1.1\r\nHost\r\n\r\n",
    b"GET /v1/version HTTP/1.1\r\n Host: localhost\r\n\r\n"]


@pytest.mark.parametrize("data", NOISE, ids=range(len(NOISE)))
def test_what_is_not_http(daemon, data):
    answer = raw(daemon, data)
    assert b" 200 " not in answer.split(b"\r\n", 1)[0], answer


def test_requests_in_a_row(daemon):
    one = f"{CREATE} HTTP/1.1\r\nHost: localhost\r\n{JSON}Content-Length: 8\r\n\r\n{{\"x\":%2d}}"
    many = "".join(one % (i + 10) for i in range(40))
    last = "GET /v1/version HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    answer = raw(daemon, (many + last).encode(), close=False)
    assert answer.count(b"unknown_field") == 40
    assert answer.count(b"HTTP/1.1 400") == 40 and answer.count(b"HTTP/1.1 200") == 1


def test_one_user_cannot_take_all_connections(daemon):
    conns = []
    os.seteuid(NOBODY)
    try:
        conns = [connect(daemon) for _ in range(300)]
    finally:
        os.seteuid(0)
    try:
        def refused():
            return sum(1 for s in conns if readable(s))

        wait_until(lambda: refused() == 300 - 256, 60, "refusals")
        serves(daemon)                              # others have their own
        check(parse(drain(next(s for s in conns if readable(s)))), 429, "quota_exceeded")
    finally:
        for s in conns:
            s.close()
    wait_until(lambda: daemon.sbx("ls", uid=NOBODY).returncode == 0, 60, "answer")


def readable(s):
    s.setblocking(False)
    try:
        return bool(s.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return False
    finally:
        s.settimeout(60)


def test_many_clients_that_go_away(daemon):
    request = b"GET /v1/info HTTP/1.1\r\nHost: localhost\r\n\r\n"
    for _ in range(300):
        with contextlib.closing(connect(daemon)) as s:
            s.sendall(request * 20)                 # answers nobody takes


def test_half_requests_are_dropped_after_their_time(slow):
    """Runs last: all tests before were served beside them."""
    lived, half, threads = slow
    for t in threads:
        t.join(IDLE_S + 60)
    for i, data in enumerate(half):
        assert IDLE_S - 5 < lived.get(i, 0) < IDLE_S + 30, (data, lived)
