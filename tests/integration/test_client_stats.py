# SPDX-License-Identifier: MIT
"""sbx events and sbx stats against a played daemon."""
import json
import re

import pytest
from fake_daemon import *  # noqa: F401,F403 (fixtures)
from fake_daemon import BOX_ID, error
from test_client_audit import HOSTILE, stream

AT = "2026-01-02T03:04:05.000000Z"
OTHER_ID = "00000000000000ff"


def event(seq, kind, **kw):
    return {"seq": seq, "time": AT, "kind": kind, "owner": {"uid": 1000}, "sandbox": BOX_ID, "name": "box",
            "count": 1, **kw}


def test_events_in_a_table(daemon, sbx):
    daemon.on("GET", "/v1/events", stream(
        event(1, "exec.start", exec="fedcba9876543210", detail="make"),
        event(22, "network.denied", detail="192.0.2.1:80/tcp: no rule", count=38),
        {"seq": 333, "time": AT, "kind": "daemon.stop", "count": 1},
        event(4444, "some.kind.of.later", name=HOSTILE, detail=HOSTILE)))
    r = sbx("events", env={"TZ": "XXX-2"})
    assert (r.returncode, r.stderr) == (0, "")
    assert daemon.requests[0].path == "/v1/events"
    row = "{:6}  2026-01-02 05:04:05  {:15}  {:20}  {}".format
    lines = r.stdout.splitlines()
    assert lines[:4] == [
        "SEQ     TIME                 EVENT            SANDBOX               DETAIL",
        row("1", "exec.start", "box", "fedcba987654 make"),
        row("22", "network.denied", "box", "192.0.2.1:80/tcp: no rule (38 times)"),
        row("333", "daemon.stop", "-", "-")]
    assert len(lines) == 5 and lines[4].startswith("4444")
    assert "a\\x1b[2Jb" in lines[4] and not set(r.stdout) & set("\x1b\x9b\x7f\u202e\r")


@pytest.mark.parametrize("args,query", [
    ([], ""), (["--since", "42"], "?since=42"), (["--since", "10m", "-f"], "?since=10m&follow=true"),
    (["-f"], "?since=0s&follow=true"), (["--sandbox", "a b"], "?sandbox=a%20b"),
    (["--since", "2026-01-31T08:00:00Z", "--json"], "?since=2026-01-31T08%3A00%3A00Z")])
def test_what_events_asks_for(daemon, sbx, args, query):
    daemon.on("GET", "/v1/events", stream())
    r = sbx("events", *args)
    assert r.returncode == 0, r.stderr
    assert daemon.requests[0].path == "/v1/events" + query


def test_events_that_are_gone(daemon, sbx):
    daemon.reply("GET", "/v1/events", 410, error("events_gone", "event 1 is not kept any more: the oldest is 9"))
    r = sbx("events", "--since", "1")
    assert r.returncode == 125 and "the oldest is 9" in r.stderr
    assert sbx("events", "--since", "yesterday").returncode == 125
    assert len(daemon.requests) == 1


def stats(seconds, cpu_us, name="box", ident=BOX_ID, **kw):
    return {"id": ident, "name": name, "state": "running", "owner": {"uid": 1000, "user": "ann"},
            "time": f"2026-01-02T03:04:{seconds:09.6f}Z", "started_at": AT, "uptime_ms": 1000,
            "cpu": {"cpus": 2, "usage_us": cpu_us},
            "memory": {"limit": 2 << 30, "used": 300 << 20, "rss": 301 << 20, "pss": 0},
            "disk": {"size": 20 << 30, "allocated": 5 << 20, "read_bytes": 0, "written_bytes": 0},
            "network": {"rx_bytes": 2048, "rx_packets": 2, "tx_bytes": 1 << 20, "tx_packets": 9, "denied": 7},
            "execs_running": 3, "processes": 3, "threads": 9, **kw}


def in_turn(*answers):
    left = list(answers)

    def answer(c, r):
        c.answer(200, left.pop(0) if len(left) > 1 else left[0])
    return answer


def rows(text):
    lines = text.splitlines()
    return [re.split(r"\s{2,}", line.strip()) for line in lines]


def test_stats_from_two_samples(daemon, sbx):
    """What began anew, or is new, has no rate yet."""
    started = "2026-01-02T03:04:06.000000Z"
    daemon.on("GET", "/v1/stats", in_turn(
        {"stats": [stats(10, 1_000_000), stats(10, 5_000_000, "again", OTHER_ID), stats(10, 9, "gone", "0" * 16)]},
        {"stats": [stats(12, 4_000_000), stats(12, 1_000_000, "again", OTHER_ID, started_at=started),
                   stats(12, 5, HOSTILE, "1" * 16, network=None)]}))
    r = sbx("stats")
    assert (r.returncode, r.stderr) == (0, "")
    assert [q.path for q in daemon.requests] == ["/v1/stats"] * 2
    titles, box, again, new = rows(r.stdout)
    assert titles[:8] == ["ID", "NAME", "CPU %", "MEM USAGE / LIMIT", "NET I/O", "DISK", "EXECS", "DENIED"]
    assert box[:8] == [BOX_ID[:12], "box", "150.0%", "300MiB / 2GiB", "2KiB / 1MiB", "5MiB / 20GiB", "3", "7"]
    assert again[:3] == [OTHER_ID[:12], "again", "-"]
    assert "\x1b" not in r.stdout and new[2:5] == ["-", "300MiB / 2GiB", "-"] and new[7] == "-"


def test_stats_of_those_named(daemon, sbx):
    daemon.on("GET", "/v1/sandboxes/box/stats", in_turn(stats(1, 0), stats(2, 10_000)))
    r = sbx("stats", "--no-stream", "--no-trunc", "box")
    assert rows(r.stdout)[1][:3] == [BOX_ID, "box", "1.0%"]
    daemon.reply("GET", "/v1/sandboxes/none/stats", 404, error("sandbox_not_found", "no sandbox 'none'"))
    r = sbx("stats", "box", "none")
    assert r.returncode == 125 and r.stdout == "" and "no sandbox 'none'" in r.stderr


def test_stats_as_json_are_as_they_came(daemon, sbx):
    odd = stats(1, 5, later={"than": "we know"})
    daemon.reply("GET", "/v1/stats", 200, {"stats": [odd, odd]})
    daemon.reply("GET", "/v1/sandboxes/box/stats", 200, odd)
    r = sbx("stats", "--json", "--all")
    assert daemon.requests[0].path == "/v1/stats?all=true" and len(daemon.requests) == 1
    assert [json.loads(line) for line in r.stdout.splitlines()] == [odd, odd]
    assert json.loads(sbx("stats", "--json", "box").stdout) == odd


def test_a_clock_that_went_back_is_no_rate(daemon, sbx):
    daemon.on("GET", "/v1/stats", in_turn({"stats": [stats(10, 5)]}, {"stats": [stats(9, 6)]}))
    assert rows(sbx("stats").stdout)[1][2] == "-"
