# SPDX-License-Identifier: MIT
"""sbx audit against a played daemon."""
import json
import signal

import pytest
from fake_daemon import *  # noqa: F401,F403 (fixtures)
from fake_daemon import BOX_ID, error

AT = "2026-01-02T03:04:05.000000Z"
HOSTILE = "a\x1b[2Jb\r\n\x9b1m\x7f\u202ec"
HASH = "ab" * 32


def record(seq=1, **kw):
    d = {"seq": seq, "time": AT, "kind": "end", "request": "8d1c", "action": "exec.create",
         "who": {"uid": 1000, "user": "ann", "pid": 7, "comm": "sbx"}, "sandbox": BOX_ID, "name": "box",
         "command": {"program": "make", "arguments": 2},
         "result": {"status": 201, "code": None, "denied": False, "replayed": False}, "prev": HASH}
    d.update(kw)
    return {k: v for k, v in d.items() if v is not ...}


def own(seq, kind, **kw):
    return {"seq": seq, "time": AT, "kind": kind, "prev": HASH, **kw}


def stream(*records, end=True):
    def answer(c, r):
        c.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"
               b"Content-Type: application/x-ndjson\r\n\r\n")
        for part in records:
            part = json.dumps(part, ensure_ascii=False).encode() + b"\n"
            c.send(b"%x\r\n%s\r\n" % (len(part), part))
        if end:
            c.send(b"0\r\n\r\n")
        else:
            c.exactly(1)
    return answer


def test_table(daemon, sbx):
    result = {"status": 404, "code": "sandbox_not_found", "denied": True, "replayed": False}
    daemon.on("GET", "/v1/audit", stream(
        own(1, "start"), record(2),
        record(3, action="sandbox.create", result=..., command=..., kind="begin", sandbox=...),
        record(4, action="read", result=result, command=..., sandbox=..., name=..., target="theirs"),
        record(5, result={"status": 201, "replayed": True}, who={"uid": 1001, "user": None, "pid": 8},
               command={"program": "ls", "arguments": 0}, name=...),
        record(6, action="sandbox.start", command=..., result={"status": 409, "code": "sandbox_busy"}),
        own(7, "torn", torn={"length": 12, "digest": HASH}), own(8, "lost", lost={"count": 3}),
        own(9, "rotate"),
        record(10, action="sandbox.create", command=..., mount={"path": "/w\x1b", "read_only": True},
               change={"verb": "set", "what": "dev allow a:1", "targets": 1}),
        record(11, action="policy.set", command=..., change={"verb": "rules", "targets": 0, "digest": HASH})))
    r = sbx("audit", env={"TZ": "XXX-2"})
    assert (r.returncode, r.stderr) == (0, "")
    assert daemon.requests[0].path == "/v1/audit"
    row = "2026-01-02 05:04:05  {:12}  {:16}  {:20}  {}".format
    assert r.stdout.splitlines() == [
        "TIME                 USER          ACTION            SANDBOX               RESULT",
        row("-", "start", "-", "-"),
        row("ann", "exec.create", "box", "ok 201 make +2"),
        row("ann", "sandbox.create", "box", "begins"),
        row("ann", "read", "theirs", "denied 404 sandbox_not_found"),
        row("1001", "exec.create", BOX_ID, "ok 201 again ls"),
        row("ann", "sandbox.start", "box", "409 sandbox_busy"),
        row("-", "torn", "-", "12 bytes of a record that was not written to its end"),
        row("-", "lost", "-", "3 records could not be written"),
        row("-", "rotate", "-", "-"),
        row("ann", "sandbox.create", "box", "ok 201 /w\\x1b:ro set dev allow a:1"),
        row("ann", "policy.set", "box", "ok 201 rules " + HASH),
    ]


@pytest.mark.parametrize("args,query", [
    ([], ""), (["-f"], "?follow=true"), (["--since", "42"], "?since=42"),
    (["--since", "10m", "--follow"], "?since=10m&follow=true"),
    (["--since", "2026-01-02T03:04:05Z"], "?since=2026-01-02T03%3A04%3A05Z"),
])
def test_options(daemon, sbx, args, query):
    daemon.on("GET", "/v1/audit", stream())
    r = sbx("audit", *args)
    assert r.returncode == 0 and r.stdout.startswith("TIME ") and len(r.stdout.splitlines()) == 1
    assert daemon.requests[0].path == "/v1/audit" + query


def test_since_is_a_number_or_a_time(daemon, sbx):
    r = sbx("audit", "--since", "yesterday")
    assert r.returncode == 125 and "neither a number nor a time" in r.stderr and not daemon.requests


def test_json_passes_lines_through(daemon, sbx):
    odd = record(9, unknown={"deep": [1, None]}, kind="from-the-future")
    daemon.on("GET", "/v1/audit", stream(own(8, "start"), odd))
    r = sbx("audit", "--json")
    assert r.returncode == 0
    assert [json.loads(s) for s in r.stdout.splitlines()] == [own(8, "start"), odd]


def test_names_do_not_drive_the_terminal(daemon, sbx):
    daemon.on("GET", "/v1/audit", stream(
        record(name=HOSTILE, who={"uid": 1, "user": HOSTILE}, action=HOSTILE,
               command={"program": HOSTILE, "arguments": 1}, result={"status": 400, "code": HOSTILE})))
    r = sbx("audit")
    assert r.returncode == 0 and len(r.stdout.splitlines()) == 2
    assert all(c == "\n" or (c.isprintable() and c != "\u202e") for c in r.stdout)


def test_follow_shows_at_once(daemon, sbx):
    daemon.on("GET", "/v1/audit", stream(record(), end=False))
    p = sbx.popen("audit", "-f")
    assert p.stdout.readline().startswith(b"TIME ") and b"make +2" in p.stdout.readline()
    p.send_signal(signal.SIGINT)
    assert p.wait(5) == 130
    p.communicate()


def verdict(**kw):
    return {"intact": True, "count": 41, "first": 2, "last": 42, "head": HASH, "broken": None, **kw}


def test_verify(daemon, sbx):
    daemon.reply("GET", "/v1/audit/verify", 200, verdict())
    r = sbx("audit", "verify")
    assert (r.returncode, r.stderr) == (0, "")
    assert r.stdout == f"41 records, 2 to 42\nintact; the last one's hash is {HASH}\n"


def test_verify_of_a_broken_chain(daemon, sbx):
    broken = verdict(intact=False, broken={"file": "audit.log.1", "line": 7, "seq": 43, "reason": "it is\x1b"})
    daemon.reply("GET", "/v1/audit/verify", 200, broken)
    r = sbx("audit", "verify")
    assert r.returncode == 1
    assert r.stdout.splitlines()[1] == "BROKEN at line 7 of audit.log.1, record 43: it is\\x1b"
    r = sbx("audit", "verify", "--json")
    assert r.returncode == 1 and json.loads(r.stdout) == broken


def test_verify_that_cannot_be_told(daemon, sbx):
    daemon.reply("GET", "/v1/audit/verify", 403, error("permission_denied", "only root"))
    r = sbx("audit", "verify")
    assert (r.returncode, r.stdout) == (125, "") and "only root" in r.stderr


def test_help_and_completion_know_both_commands(sbx):
    assert "--since SEQ|TIME" in sbx("audit", "--help").stdout
    assert "--since" in sbx("help", "audit").stdout
    assert "Exit status 0" in sbx("help", "audit", "verify").stdout
    assert [s.split("\t")[0] for s in sbx("__complete", "--", "audit", "").stdout.splitlines()] == ["verify"]
    words = [s.split("\t")[0] for s in sbx("__complete", "--", "au").stdout.splitlines()]
    assert words == ["audit"]
    assert sbx("audit", "verifi").returncode == 125
