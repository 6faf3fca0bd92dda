# SPDX-License-Identifier: MIT
"""Events of a real daemon: what is told of a sandbox's life, whom, and that numbers have no gap whatever
happens to the daemon."""
import json
import queue
import signal
import threading

import pytest
from conftest import running, wait_until

ANN, BOB = 70125, 70126


def events(daemon, *args, uid=0):
    return [json.loads(s) for s in daemon.ok("events", "--json", *args, uid=uid).splitlines()]


def last(daemon):
    return events(daemon)[-1]["seq"]


def kinds(daemon, ident, **kw):
    return [v["kind"] for v in events(daemon, "--sandbox", ident, **kw)]


class Follower:
    """sbx events -f --json, and its lines as they come."""

    def __init__(self, daemon, *args):
        self.lines = queue.Queue()
        self.process = daemon.popen("events", "-f", "--json", *args)
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.process.stdout:
            self.lines.put(json.loads(line))

    def until(self, kind, seconds=60):
        seen = []
        while not seen or seen[-1]["kind"] != kind:
            seen.append(self.lines.get(timeout=seconds))
        return seen

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()


@pytest.fixture(scope="module")
def anns(daemon):
    ident = daemon.ok("create", "-q", "--name", "anns", "--policy", "none", uid=ANN).strip()
    yield ident
    daemon.sbx("rm", "-f", ident)


def test_a_life_is_told(daemon):
    ident = daemon.ok("create", "-q", "--name", "life", uid=ANN).strip()
    daemon.ok("exec", "life", "--", "sh", "-c", "exit 0", "a-secret", uid=ANN)
    daemon.sbx("exec", "life", "--", "sh", "-c", "kill -9 $$", uid=ANN)
    daemon.ok("policy", "allow", "life", "example.com:443", uid=ANN)
    daemon.ok("stop", "life", uid=ANN)
    daemon.ok("start", "life", uid=ANN)
    daemon.ok("rm", "life", uid=ANN)
    told = events(daemon, "--sandbox", ident, uid=ANN)      # although it is gone
    assert [v["kind"] for v in told] == [
        "sandbox.create", "sandbox.start", "sandbox.running", "exec.start", "exec.exit", "exec.start",
        "exec.exit", "policy.change", "sandbox.stop", "sandbox.stopped", "sandbox.start", "sandbox.running",
        "sandbox.remove"]
    assert {(v["name"], v["sandbox"], v["owner"]["uid"]) for v in told} == {("life", ident, ANN)}
    execs = [v for v in told if v["kind"].startswith("exec.")]
    assert [v["detail"] for v in execs] == ["sh", "exit 0", "sh", "signal 9"]
    assert execs[0]["exec"] == execs[1]["exec"] != execs[2]["exec"]
    assert next(v["detail"] for v in told if v["kind"] == "policy.change") == "allow example.com:443"
    assert "secret" not in json.dumps(told)
    assert told == events(daemon, "--sandbox", "life", uid=ANN)
    table = daemon.ok("events", "--sandbox", "life", uid=ANN)
    assert table.splitlines()[0].split() == ["SEQ", "TIME", "EVENT", "SANDBOX", "DETAIL"]
    assert "signal 9" in table


def test_why_a_sandbox_stopped_or_failed(daemon, anns):
    daemon.sbx("exec", "-u", "root", "anns", "--", "sh", "-c", "echo o > /proc/sysrq-trigger", uid=ANN)
    wait_until(lambda: "sandbox.stopped" in kinds(daemon, anns), what="the event")
    assert events(daemon, "--sandbox", anns)[-1]["detail"] == "the guest powered off"
    daemon.ok("start", "anns", uid=ANN)
    assert daemon.sbx("create", "--name", "fails", "--workspace", "/proc/1", uid=ANN).returncode == 125
    assert daemon.sbx("events", "--sandbox", "fails", uid=ANN).returncode == 125     # it never was


def test_each_sees_his_own(daemon, anns):
    assert {v["owner"]["uid"] for v in events(daemon, uid=ANN)} == {ANN}
    assert events(daemon, uid=BOB) == []
    daemon.ok("create", "--name", "anns", "--no-start", uid=BOB)
    mine = events(daemon, uid=BOB)
    assert [v["kind"] for v in mine] == ["sandbox.create"]
    assert [v["seq"] for v in events(daemon, "--sandbox", "anns", uid=BOB)] == [mine[0]["seq"]]
    daemon.ok("rm", "anns", uid=BOB)
    r = daemon.sbx("events", "--sandbox", anns, uid=BOB)
    assert r.returncode == 125 and "no sandbox" in r.stderr
    everything = events(daemon)
    assert {ANN, BOB} <= {v["owner"]["uid"] for v in everything if "owner" in v}
    assert [v["seq"] for v in everything] == list(range(1, len(everything) + 1))
    assert everything[0]["kind"] == "daemon.start" and "owner" not in everything[0]


def test_since(daemon, anns):
    newest = last(daemon)
    assert [v["seq"] for v in events(daemon, "--since", str(newest))] == [newest]
    assert events(daemon, "--since", str(newest + 1)) == []
    assert events(daemon, "--since", "2099-01-01T00:00:00Z") == []
    assert len(events(daemon, "--since", "1h")) == newest
    r = daemon.sbx("events", "--since", str(newest + 2))
    assert r.returncode == 125 and "no event" in r.stderr
    status, _, body = daemon.request("GET", f"/v1/events?since={newest + 2}")
    assert status == 410 and json.loads(body)["error"]["code"] == "events_gone"
    assert daemon.sbx("events", "--since", "never").returncode == 125


def test_follow_shows_what_comes(daemon, anns):
    before = last(daemon)
    with Follower(daemon, "--sandbox", "anns") as f:
        # the request is there when its first event is: exec until one is seen
        wait_until(lambda: daemon.sbx("exec", "anns", "--", "true", uid=ANN) and not f.lines.empty(),
                   what="event")
        daemon.ok("stop", "anns", uid=ANN)
        seen = f.until("sandbox.stopped")
        assert seen[0]["seq"] > before
        assert [v["seq"] for v in seen] == sorted(v["seq"] for v in seen)
        assert [v["kind"] for v in seen[-2:]] == ["sandbox.stop", "sandbox.stopped"]
        daemon.ok("start", "anns", uid=ANN)
        f.until("sandbox.running")


def test_denials_are_told_once_and_then_counted(daemon, anns):
    knock = "for i in 1 2 3 4 5 6 7 8; do timeout 1 bash -c '</dev/tcp/192.0.2.1/80'; done; true"
    daemon.ok("exec", "anns", "--", "sh", "-c", knock, uid=ANN)
    first = [v for v in events(daemon, "--sandbox", anns, uid=ANN) if v["kind"] == "network.denied"]
    assert first[0]["count"] == 1 and first[0]["detail"].startswith("192.0.2.1:80/tcp: ")
    counted = wait_until(lambda: [v for v in events(daemon, "--sandbox", anns, uid=ANN)
                                  if v["kind"] == "network.denied" and v["count"] > 1], what="the count")
    assert len(first) + len(counted) <= 4


def test_a_kill_leaves_no_gap(daemon, anns):
    before = events(daemon)
    p = daemon.popen("exec", "-d", anns, "--", "sh", "-c", "sleep 1000")
    p.communicate()
    seen = last(daemon)
    assert seen > before[-1]["seq"]
    daemon.stop(signal.SIGKILL)
    daemon.start()
    after = events(daemon)
    assert [v["seq"] for v in after] == list(range(1, len(after) + 1))
    assert after[:len(before)] == before
    start = after[seen]
    assert start["kind"] == "daemon.start" and start["seq"] == seen + 1
    assert "did not end in order" in start["detail"]
    daemon.stop()
    daemon.start()
    again = events(daemon)
    assert [v["kind"] for v in again[len(after):]] == ["daemon.stop", "daemon.start"]
    assert "in order" not in again[-1]["detail"]
    assert again[:len(after)] == after


def test_what_happened_while_no_daemon_was_there(daemon, anns):
    daemon.ok("exec", "-d", "anns", "--", "sh", "-c", "sleep 2; exit 3", uid=ANN)
    daemon.stop(signal.SIGKILL)
    daemon.start()
    wait_until(lambda: any(v["kind"] == "exec.exit" and v["detail"] == "exit 3"
                           for v in events(daemon, "--sandbox", anns)), what="the exit")


def test_refused_quotas_are_told_to_whom_they_concern():
    with running(quota={"default": {"sandboxes": 1}}) as d:
        d.ok("create", "--name", "one", "--no-start", uid=ANN)
        for _ in range(3):
            assert d.sbx("create", "--name", "two", "--no-start", uid=ANN).returncode == 125
        refused = [v for v in events(d, uid=ANN) if v["kind"] == "quota.refused"]
        assert len(refused) == 1 and "quota of sandboxes" in refused[0]["detail"]
        assert events(d, uid=BOB) == []


def test_the_table_is_bounded_and_says_so():
    with running(events=100) as d:
        with Follower(d) as f:
            for i in range(60):         # two events each
                d.ok("create", "--name", f"b{i}", "--no-start")
                d.ok("rm", "-f", f"b{i}")
            f.until("sandbox.remove")
        # root's own went; the daemon's only one is there, and what is missing between is told
        kept = events(d)
        newest = kept[-1]["seq"]
        first = newest - 98
        assert newest >= 121 and [v["seq"] for v in kept] == [1, first - 1, *range(first, newest + 1)]
        assert [v["kind"] for v in kept[:2]] == ["daemon.start", "gone"] and kept[1]["count"] == first - 2
        r = d.sbx("events", "--since", "2")
        assert r.returncode == 125 and f"the next is {first}" in r.stderr
        status, _, body = d.request("GET", "/v1/events?since=2")
        assert status == 410 and json.loads(body)["error"]["code"] == "events_gone"


def test_who_makes_many_loses_his_own():
    with running(events=100, network=False) as d:
        d.ok("create", "--name", "hers", "--no-start", uid=ANN)
        mine = events(d, uid=ANN)
        for i in range(60):
            d.ok("create", "--name", "b", "--no-start", uid=BOB)
            d.ok("rm", "-f", "b", uid=BOB)
        # hers are all there, from the first one on, and none is said to be missing
        assert events(d, uid=ANN) == mine and mine[0]["kind"] == "sandbox.create"
        assert events(d, "--since", "1", uid=ANN) == mine
        # his are the newest, and he is told
        his = events(d, uid=BOB)
        assert 90 <= len(his) < 100 and his[-1]["kind"] == "sandbox.remove"
        r = d.sbx("events", "--since", "1", uid=BOB)
        assert r.returncode == 125 and f"the next is {his[0]['seq']}" in r.stderr
