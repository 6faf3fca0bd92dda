# SPDX-License-Identifier: MIT
"""The socket for dashboards: all sandboxes, nothing that is anybody's secret, and nothing that changes."""
import contextlib
import fcntl
import json
import os
import socket
import stat
import subprocess

import pytest
from sandboxd import SANDBOXD, Daemon, UnixConnection, alive, running, wait_until

ALICE, WATCHER = 5001, 5009
SECRET = "s3cr3t-value"


@pytest.fixture(scope="module")
def daemon():
    """No virtual machine runs."""
    with running(network=False, readonly_socket=f"/run/sbx-test-{os.getpid()}.sock", readonly_group="daemon") as d:
        d.readonly = d.config["readonly_socket"]
        d.ok("create", "--no-start", "--name", "hers", "--env", f"TOKEN={SECRET}", "--label", "team=a", uid=ALICE)
        d.ok("create", "--no-start", "--name", "roots", "--env", f"TOKEN={SECRET}")
        yield d


def ask(daemon, method, path):
    with contextlib.closing(UnixConnection(daemon.readonly)) as c:
        c.request(method, path)
        r = c.getresponse()
        return r.status, r.read().decode()


def test_it_is_its_groups(daemon):
    sb = os.stat(daemon.readonly)
    assert stat.S_IMODE(sb.st_mode) == 0o660 and sb.st_uid == 0
    assert subprocess.run(["stat", "-c", "%G", daemon.readonly], capture_output=True, text=True).stdout == "daemon\n"


def test_it_shows_all_sandboxes_and_no_value(daemon):
    status, text = ask(daemon, "GET", "/v1/sandboxes")
    found = {s["name"]: s for s in json.loads(text)["sandboxes"]}
    assert status == 200 and set(found) == {"hers", "roots"} and SECRET not in text
    assert found["hers"]["env"] == {"TOKEN": ""} and found["hers"]["owner"]["uid"] == ALICE
    status, text = ask(daemon, "GET", "/v1/sandboxes/" + found["hers"]["id"])
    assert status == 200 and SECRET not in text and json.loads(text)["labels"] == {"team": "a"}
    assert SECRET in daemon.request("GET", "/v1/sandboxes")[2].decode()     # she has it still
    assert json.loads(ask(daemon, "GET", f"/v1/quota?uid={ALICE}")[1])["quotas"][0]["used"] == 1
    for path in ("/v1/version", "/v1/info", "/v1/images", "/v1/images/debian"):
        assert ask(daemon, "GET", path)[0] == 200, path
    # figures, of sandboxes that do not run as well
    status, text = ask(daemon, "GET", "/v1/stats?all=true")
    assert status == 200 and SECRET not in text
    assert {s["name"] for s in json.loads(text)["stats"]} == {"hers", "roots"}
    assert json.loads(ask(daemon, "GET", f"/v1/sandboxes/{found['hers']['id']}/stats")[1])["name"] == "hers"
    status, text = ask(daemon, "GET", "/v1/metrics")
    assert status == 200 and "sandboxd_" in text and SECRET not in text
    assert ask(daemon, "HEAD", "/v1/sandboxes")[0] == 200


@pytest.mark.parametrize("method,path", [
    ("POST", "/v1/sandboxes"), ("DELETE", "/v1/sandboxes/roots"), ("POST", "/v1/sandboxes/roots/start"),
    ("POST", "/v1/sandboxes/roots/execs"), ("GET", "/v1/sandboxes/roots/logs"), ("GET", "/v1/audit"),
    ("GET", "/v1/sandboxes/roots/execs"), ("GET", "/v1/sandboxes/roots/policy"), ("GET", "/v1/audit/verify"),
    ("PUT", "/v1/policies/x"), ("GET", "/v1/policies"), ("DELETE", "/v1/images/debian"),
])
def test_all_else_is_refused_to_root_too(daemon, method, path):
    status, text = ask(daemon, method, path)
    assert (status, json.loads(text)["error"]["code"]) == (403, "read_only")


def test_refusals_are_in_the_audit_log(daemon):
    before = daemon.request("GET", "/v1/audit")[2].count(b'"read_only"')
    assert ask(daemon, "DELETE", "/v1/sandboxes/roots")[0] == 403
    assert daemon.request("GET", "/v1/audit")[2].count(b'"read_only"') == before + 1


def test_who_is_in_neither_group_reaches_neither(daemon):
    r = daemon.sbx("ls", uid=WATCHER, env={"SBX_HOST": "unix://" + daemon.readonly})
    assert r.returncode == 125 and "ermission" in r.stderr, r
    # a client is as good as any other for what is served
    r = subprocess.run([*r.args[:1], "ls", "-q"], capture_output=True, text=True, preexec_fn=identity_in("daemon"),
                       env={"SBX_HOST": "unix://" + daemon.readonly, "HOME": "/", "LC_ALL": "C.UTF-8"})
    assert r.returncode == 0 and len(r.stdout.split()) == 2, r


def identity_in(group):
    import grp
    gid = grp.getgrnam(group).gr_gid

    def become():
        os.setgroups([gid])
        os.setresgid(WATCHER, WATCHER, WATCHER)
        os.setresuid(WATCHER, WATCHER, WATCHER)
    return become


def test_it_goes_with_the_daemon_and_comes_back(daemon):
    daemon.stop()
    assert not os.path.exists(daemon.readonly)
    daemon.start()
    assert ask(daemon, "GET", "/v1/version")[0] == 200


def listening(path):
    """As a service manager would pass it: bound, with a number out of the way."""
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(path)
        s.listen()
        return fcntl.fcntl(s.fileno(), fcntl.F_DUPFD, 30)


@pytest.mark.parametrize("names,serves", [
    ("sandboxd.socket:readonly", True), ("readonly:sandboxd.socket", True), ("readonly:readonly", False),
    ("sandboxd.socket:other", False),
])
def test_passed_sockets_are_told_apart_by_name(names, serves):
    d = Daemon(network=False)
    d.readonly = d.run + "/ro.sock"
    os.mkdir(d.run, 0o711)
    fds = [listening(d.readonly if name == "readonly" and i == names.split(":").index("readonly")
                     else d.socket + str(i)) for i, name in enumerate(names.split(":"))]
    script = f'LISTEN_PID=$$ exec "$@" 3<&{fds[0]} 4<&{fds[1]}'
    with open(d.log_path, "ab") as log:
        p = d.process = subprocess.Popen(
            ["bash", "-c", script, "bash", SANDBOXD, "--config", d.dir + "/config.json"], pass_fds=fds,
            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            env={**os.environ, "LISTEN_FDS": "2", "LISTEN_FDNAMES": names})
    for fd in fds:
        os.close(fd)
    if serves:
        wait_until(lambda: ask(d, "GET", "/v1/version")[0] == 200 or not alive(p.pid), what="the daemon")
        assert ask(d, "GET", "/v1/audit")[0] == 403
        full = next(e.path for e in os.scandir(d.run) if e.name.startswith("sandboxd.sock"))
        with contextlib.closing(UnixConnection(full)) as c:
            c.request("GET", "/v1/audit")
            assert c.getresponse().status == 200
        d.stop()
        assert os.path.exists(d.readonly)       # it is the service manager's
    else:
        assert p.wait(60) == 1
        assert "sockets were passed" in d.log()
        d.process = None
    left = d.close()
    assert not left, left
