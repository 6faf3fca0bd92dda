# SPDX-License-Identifier: MIT
"""The audit log of a real daemon: what is in it, who sees what, what a kill leaves. Full disks are in
test-auditcall.c."""
import json
import os
import signal
import subprocess
import threading

import pytest
from conftest import BUILD, SANDBOXD, SOURCE, wait_until

MINE = 70123
THEIRS = 70124


def records(daemon, uid=0, *args):
    return [json.loads(s) for s in daemon.ok("audit", "--json", *args, uid=uid).splitlines()]


def ends(daemon, uid=0, **kw):
    return [r for r in records(daemon, uid)
            if r["kind"] == "end" and all(r.get(k) == v for k, v in kw.items())]


@pytest.fixture(scope="module")
def mine(daemon):
    os.chmod(daemon.socket, 0o666)
    ident = daemon.ok("create", "-q", "--name", "mine", "-e", "TOKEN=secret1", uid=MINE).strip()
    yield ident
    daemon.ok("rm", "-f", "mine", uid=MINE)


def test_what_a_user_does_is_recorded_and_secrets_are_not(daemon, mine):
    daemon.ok("exec", "-e", "KEY=secret2", "mine", "--", "echo", "secret3", uid=MINE,
              env={"SSH_CONNECTION": "192.0.2.7 5 192.0.2.1 22"})
    daemon.ok("policy", "allow", "mine", "x.example:443", uid=MINE)
    assert daemon.sbx("policy", "deny", "mine", "https://me:secret4@x.example/", uid=MINE).returncode != 0
    all_of_it = records(daemon)
    created = [r for r in all_of_it if r.get("action") == "sandbox.create"]
    assert [r["kind"] for r in created] == ["begin", "end"]
    assert created[0]["request"] == created[1]["request"] and created[0]["name"] == "mine"
    assert created[1]["sandbox"] == mine and created[1]["result"]["status"] == 201
    start = ends(daemon, action="exec.create")[-1]
    assert start["command"] == {"program": "echo", "arguments": 1} and start["name"] == "mine"
    assert start["who"]["uid"] == MINE and start["who"]["comm"] == "sbx"
    assert start["who"]["ssh"] == "192.0.2.7 5 192.0.2.1 22"
    attach = ends(daemon, action="exec.attach")[-1]
    assert attach["exec"] == start["exec"] and attach["result"]["status"] == 101
    changed = [r for r in ends(daemon, action="policy.change") if r["result"]["code"] is None]
    assert [r["sandbox"] for r in changed] == [mine]
    assert changed[0]["change"] == {"verb": "allow", "what": "x.example:443", "targets": 1}
    with open(daemon.state + "/audit.log", encoding="utf-8") as f:
        assert "secret" not in f.read()
    assert [r["seq"] for r in all_of_it] == list(range(1, len(all_of_it) + 1))


def test_others_see_their_own_records_only(daemon, mine):
    assert daemon.sbx("exec", mine, "--", "true", uid=THEIRS).returncode == 125
    assert daemon.sbx("inspect", "nothing-at-all", uid=THEIRS).returncode == 125
    theirs = records(daemon, THEIRS)
    assert {r["who"]["uid"] for r in theirs} == {THEIRS}
    assert [(r["action"], r["target"]) for r in theirs] == [("exec.create", mine), ("read", "nothing-at-all")]
    # and cannot tell by them which of the two there is
    assert theirs[0]["result"] == theirs[1]["result"]
    assert theirs[0]["result"]["denied"] and theirs[0]["result"]["code"] == "sandbox_not_found"
    assert {r["who"]["uid"] for r in records(daemon, MINE)} == {MINE}
    r = daemon.sbx("audit", "verify", uid=THEIRS)
    assert r.returncode == 125 and "only root" in r.stderr
    assert ends(daemon, THEIRS)[-1]["action"] == "read"      # asking was denied, too


def test_what_is_mounted_is_recorded(daemon):
    work = daemon.workspace(MINE, 0o700)
    daemon.ok("create", "--name", "mounts", "--no-start", "--workspace", work + ":ro", "--policy", "none",
              uid=MINE)
    r = ends(daemon, MINE, action="sandbox.create", name="mounts")[-1]
    assert r["mount"] == {"path": work, "read_only": True}
    assert r["change"] == {"verb": "set", "what": "none", "targets": 0}
    daemon.ok("rm", "mounts", uid=MINE)
    assert "mount" not in ends(daemon, MINE, action="sandbox.rm", name="mounts")[-1]


def test_web_pages_are_recorded(daemon):
    for headers in ({"Origin": "http://evil.example"}, {"Host": "evil.example"}):
        status, got, _ = daemon.request("DELETE", "/v1/sandboxes/a?x=secret5", None, headers)
        assert status == 403
        r = ends(daemon, action="turned-away")[-1]
        assert r["request"] == got["Sbx-Request-Id"] and r["target"] == "DELETE /v1/sandboxes/a"
        assert r["result"]["denied"] and r["result"]["code"] == "origin_refused" and r["who"]["uid"] == 0


def test_verify_and_since(daemon, mine):
    last = records(daemon)[-1]["seq"]
    out = daemon.ok("audit", "verify")
    assert f" {last}\n" in out and "intact" in out
    assert [r["seq"] for r in records(daemon, 0, "--since", str(last))] == [last]
    assert records(daemon, 0, "--since", "2099-01-01T00:00:00Z") == []
    assert len(records(daemon, 0, "--since", "1h")) == last
    assert "exec.create" in daemon.ok("audit")


def test_follow_shows_what_comes(daemon, mine):
    p = daemon.popen("audit", "-f", "--json", "--since", "1")
    try:
        daemon.ok("exec", "mine", "--", "uname", uid=MINE)
        seen = threading.Event()

        def look():
            for line in p.stdout:
                if json.loads(line).get("command", {}).get("program") == "uname":
                    seen.set()
                    return
        threading.Thread(target=look, daemon=True).start()
        assert seen.wait(30)
    finally:
        p.kill()
        p.communicate()


def test_a_run_that_is_killed_with_the_daemon_left_its_beginning(daemon, mine):
    p = subprocess.Popen(["curl", "-s", "--unix-socket", daemon.socket, "-H", "Content-Type: application/json",
                          "-d", '{"command": ["sleep", "1000"]}', f"http://localhost/v1/sandboxes/{mine}/run"])
    wait_until(lambda: any(r.get("action") == "run" for r in records(daemon)), what="the record")
    daemon.stop(signal.SIGKILL)
    p.wait(20)
    with open(daemon.state + "/audit.log", "ab") as f:
        f.write(b'{"seq":9999,"ti')
    r = subprocess.run([BUILD + "/daemon/sandboxd", "audit", "verify", "--config",
                        daemon.dir + "/config.json"], capture_output=True, text=True, check=False)
    assert r.returncode == 1 and "not written to its end" in r.stdout
    daemon.start()
    os.chmod(daemon.socket, 0o666)
    run = [r for r in records(daemon) if r.get("action") == "run"]
    assert [r["kind"] for r in run] == ["begin"] and run[0]["command"]["program"] == "sleep"
    torn = [r for r in records(daemon) if r["kind"] == "torn"]
    assert len(torn) == 1 and torn[0]["torn"]["length"] == 15
    daemon.ok("audit", "verify")


def test_a_repair_without_a_daemon_is_recorded_and_breaks_nothing(daemon, mine):
    before = records(daemon)[-1]["seq"]
    daemon.stop(signal.SIGKILL)
    with open(daemon.state + "/audit.log", "ab") as f:
        f.write(b'{"seq":9')
    assert daemon.findings(status=0) == {}          # the log's files are not strays
    os.mkdir(daemon.state + "/sandboxes/00000000000000aa")
    assert set(daemon.findings()) == {"state-stray"}
    assert daemon.findings("--repair", status=0)["state-stray"]["status"] == "repaired"
    r = subprocess.run([BUILD + "/daemon/sandboxd", "audit", "verify", "--config",
                        daemon.dir + "/config.json"], capture_output=True, text=True, check=False)
    assert r.returncode == 0, r.stdout
    daemon.start()
    os.chmod(daemon.socket, 0o666)
    since = [r["kind"] for r in records(daemon, 0, "--since", str(before + 1))]
    assert [k for k in since if k in ("torn", "repair", "start")] == ["torn", "repair", "start"]
    daemon.ok("audit", "verify")


def build_image(daemon, *args):
    r = subprocess.run([SANDBOXD, "image", "build", "--config", daemon.dir + "/config.json", "--agent",
                        BUILD + "/guest/sbx-agent", "--share-dir", SOURCE + "/guest", "--if-missing", *args],
                       stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=240,
                       env={**os.environ, "SUDO_UID": str(MINE)}, check=False)
    assert r.returncode == 0, r.stderr
    return r.stdout.strip()


def builds(daemon):
    return [r for r in records(daemon) if r.get("action") == "image.build"]


def test_images_built_beside_the_daemon_are_recorded(daemon, mine):
    digest = build_image(daemon, "--name", "beside")
    wait_until(lambda: len(builds(daemon)) == 2, what="its records")
    begin, end = builds(daemon)
    assert (begin["kind"], end["kind"]) == ("begin", "end") and begin["request"] == end["request"]
    assert end["target"] == "beside" and end["change"]["what"] == digest and end["result"]["code"] is None
    assert end["who"]["uid"] == 0 and end["who"]["comm"] == "sandboxd" and end["who"]["sudo"]["uid"] == MINE
    assert "waited" in end
    build_image(daemon, "--name", "beside")     # nothing was made
    daemon.stop()
    build_image(daemon, "--name", "without")
    r = subprocess.run([SANDBOXD, "audit", "verify", "--config", daemon.dir + "/config.json"],
                       capture_output=True, text=True, check=False)
    assert r.returncode == 0, r.stdout
    daemon.start()
    assert [(r["kind"], r["target"]) for r in builds(daemon)[2:]] == [("begin", "without"), ("end", "without")]
    daemon.ok("audit", "verify")
    for name in ("beside", "without"):
        daemon.request("DELETE", "/v1/images/" + name)


def test_a_line_changed_behind_the_daemon_is_found(daemon, mine):
    path = daemon.state + "/audit.log"
    with open(path, "rb") as f:
        before = f.read()
    lines = before.splitlines(keepends=True)
    lines[2] = lines[2].replace(b'"uid":%d' % MINE, b'"uid":%d' % THEIRS)
    assert lines[2] != before.splitlines(keepends=True)[2]
    with open(path, "wb") as f:
        f.writelines(lines)
    r = daemon.sbx("audit", "verify")
    assert r.returncode == 1 and "BROKEN at line 3 of audit.log, record 3" in r.stdout
    with open(path, "wb") as f:
        f.write(before)
    daemon.ok("audit", "verify")

