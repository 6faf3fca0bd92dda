# SPDX-License-Identifier: MIT
"""sbx against a played daemon: requests, output, messages, exit statuses. No VM, no privilege."""
import datetime
import json
import os
import re
import signal
import stat
import subprocess
import threading

import pytest
from fake_daemon import *  # noqa: F401,F403 (fixtures)
from fake_daemon import BOX_ID, EXEC_ID, ROOT, an_exec, error, sandbox, wait_for


def lines(text):
    return text.splitlines()


# ---- create ----------------------------------------------------------------------------------

def test_create_prints_the_name_and_asks_for_what_was_said(daemon, sbx, tmp):
    daemon.reply("POST", "/v1/sandboxes", 201, sandbox())
    r = sbx("create", "--name", "box", "--workspace=src:ro", "--cpus", "3", "-m", "1.5G",
            "--disk=30G", "-e", "A=1=2", "-eHOME", "-e", "UNSET_HERE", "-l", "team=web", "-l", "x",
            cwd=tmp)
    assert (r.returncode, r.stdout, r.stderr) == (0, "box\n", "")
    req = daemon.requests[0]
    assert req.json == {
        "name": "box", "workspace": {"path": tmp + "/src", "read_only": True}, "cpus": 3,
        "memory": 3 << 29, "disk": 30 << 30, "env": {"A": "1=2", "HOME": tmp},
        "labels": {"team": "web", "x": ""}, "start": True, "allow": [], "deny": []}
    assert req.headers["host"] == "localhost" and "origin" not in req.headers
    assert req.headers["idempotency-key"] and req.headers["content-type"] == "application/json"


def test_time_limits_are_asked_for_when_they_are_given(daemon, sbx):
    daemon.reply("POST", "/v1/sandboxes", 201, sandbox())
    assert sbx("create", "--ttl", "1h30m", "--idle-timeout", "0", "--restart", "on-failure:3").returncode == 0
    req = daemon.requests[0].json
    assert (req["ttl_ms"], req["idle_timeout_ms"], req["restart"]) == (5400000, 0, "on-failure:3")
    daemon.reply("PATCH", "/v1/sandboxes/box", 200, sandbox())
    assert sbx("update", "--idle-timeout", "90s", "box").returncode == 0
    assert daemon.requests[-1].json == {"idle_timeout_ms": 90000}
    assert sbx("update", "--ttl", "0", "--restart", "always", "box").returncode == 0
    assert daemon.requests[-1].json == {"ttl_ms": 0, "restart": "always"}
    n = len(daemon.requests)
    for wrong in (("update", "box"), ("update", "--restart", "often", "box"), ("create", "--restart", "on-failure:0"),
                  ("create", "--ttl", "soon")):
        r = sbx(*wrong)
        assert r.returncode == 125 and "hint: " in r.stderr, (wrong, r.stderr)
    assert len(daemon.requests) == n


def test_create_without_workspace_shares_nothing(daemon, sbx):
    daemon.reply("POST", "/v1/sandboxes", 201, sandbox())
    assert sbx("create", "-q", "--no-start").stdout == BOX_ID + "\n"
    assert "workspace" not in daemon.requests[0].json
    assert daemon.requests[0].json["start"] is False


@pytest.mark.parametrize("given,path,ro", [
    (".", "{}", False), ("./a", "{}/./a", False), ("a:ro", "{}/a", True), ("/x/y:rw", "/x/y", False),
    ("a:b", "{}/a:b", False), ("..", "{}/..", False)])
def test_workspace_becomes_absolute(daemon, sbx, tmp, given, path, ro):
    daemon.reply("POST", "/v1/sandboxes", 201, sandbox())
    assert sbx("create", "--workspace", given, cwd=tmp).returncode == 0
    assert daemon.requests[0].json["workspace"] == {"path": path.format(tmp), "read_only": ro}


def test_env_file(daemon, sbx, tmp):
    daemon.reply("POST", "/v1/sandboxes", 201, sandbox())
    with open(tmp + "/env", "w") as f:
        f.write("# words\n\nA=file\r\nB=two words\nHOME\nUNSET_HERE\n  C=c")
    assert sbx("create", "--env-file", tmp + "/env", "-e", "A=flag").returncode == 0
    assert daemon.requests[0].json["env"] == {"A": "flag", "B": "two words", "HOME": tmp, "C": "c"}
    with open(tmp + "/env", "w") as f:
        f.write("A=1\n9=x\n")
    r = sbx("create", "--env-file", tmp + "/env")
    assert r.returncode == 125 and tmp + "/env, line 2: '9' is not the name" in r.stderr
    r = sbx("create", "--env-file", tmp + "/none")
    assert r.returncode == 125 and tmp + "/none" in r.stderr


def test_error_of_the_daemon_is_shown_with_its_hint(daemon, sbx):
    daemon.reply("POST", "/v1/sandboxes", 409,
                 error("name_in_use", "there is a sandbox named 'box'", "take another name"))
    r = sbx("create", "--name", "box")
    assert r.returncode == 125 and r.stdout == ""
    assert r.stderr == "sbx: there is a sandbox named 'box'\nhint: take another name\n"


def test_error_of_an_unknown_code_and_internal_errors(daemon, sbx):
    daemon.reply("GET", "/v1/sandboxes", 418, error("teapot", "I am short"))
    r = sbx("ls")
    assert r.returncode == 125 and r.stderr.startswith("sbx: I am short\n")
    daemon.reply("GET", "/v1/sandboxes", 500, error("internal", "internal error"))
    assert "hint: sandboxd's log says more under request req1" in sbx("ls").stderr
    daemon.reply("GET", "/v1/sandboxes", 502, b"<html>")
    r = sbx("ls")
    assert r.returncode == 125 and "status 502" in r.stderr
    daemon.reply("GET", "/v1/sandboxes", 200, b"[1")
    r = sbx("ls")
    assert r.returncode == 125 and "sandboxd's answer cannot be read" in r.stderr
    assert "sbx version" in r.stderr


def test_escapes_in_messages_do_not_reach_the_terminal(daemon, sbx):
    daemon.reply("GET", "/v1/sandboxes", 400, error("invalid_request", "a\x1b[2Jb\nc\x9b1m", "\x07h"))
    r = sbx("ls", text=False)
    assert r.returncode == 125
    assert b"\x1b" not in r.stderr and b"\x07" not in r.stderr and b"\xc2\x9b" not in r.stderr
    assert len(r.stderr.splitlines()) == 2


@pytest.mark.parametrize("args,words", [
    (["create", "--naem", "x"], "did you mean '--name'?"),
    (["crate"], "did you mean 'sbx create'?"),
    (["image", "rn", "x"], "did you mean 'sbx image rm'?"),
    (["create", "--cpus", "0"], "'0' is not a number of 1 or more"),
    (["create", "--cpus"], "wants a value: N"),
    (["create", "--memory", "lots"], "'lots' is not a size"),
    (["create", "--memory", "512"], "did you mean 512M?"),
    (["create", "--memory", "2T"], "--memory: 2199023255552 bytes is not from 128"),
    (["create", "--disk", "10M"], "--disk: 10485760 bytes is not from 1"),
    (["exec", "box", "-it", "bash"], "options go before the name: sbx exec -it box"),
    (["create", "--name", "Box"], "is not a name for a sandbox"),
    (["create", "--workspace", ":ro"], "the directory is empty"),
    (["create", "--workspace", ""], "the directory is empty"),
    (["create", "--label", "=x"], "is not a key"),
    (["create", "--quiet=maybe"], "takes no value"),
    (["create", "stray"], "takes no arguments"),
    (["create", "stray"], "did you mean '--name stray'?"),
    (["run", "box"], "sbx create --name"),
    (["cp", "a", "box:/b"], "tar c FILE"),
    (["kill", "box"], "sbx stop"),
    (["pull", "debian"], "sandboxd image build"),
    (["create", "--env-file", "/none/env"], "--env-file: cannot open /none/env"),
    (["create", "-e", "=x"], "is not the name of a variable"),
    (["exec", "box"], "usage: sbx exec"),
    (["exec", "box", "--"], "no command after the --"),
    (["exec", "", "true"], "is empty"),
    (["exec", "--timeout", "soon", "box", "true"], "is not a duration"),
    (["exec", "--timeout", "0", "box", "true"], "no time in 0"),
    (["exec", "--detach-keys", "ctrl-1", "box", "true"], "is not a sequence of keys"),
    (["exec", "-it", "box", "true"], "the input device is not a TTY"),
    (["exec", "-x", "box", "true"], "unknown option '-x'"),
    (["rm"], "usage: sbx rm"),
    (["rm", ""], "is empty"),
    (["ls", "--filter", "colour=red"], "is not a filter"),
    (["ls", "--format", "xml"], "is not a format"),
    (["logs", "box", "--tail", "few"], "is not a number of lines"),
    (["logs", "box", "--since", "yore"], "is not a time"),
    (["logs", "box", "--console", "--since", "1m"], "bear no time"),
    (["attach", "box"], "usage: sbx attach"),
    (["completion", "tcsh"], "bash, zsh and fish"),
    (["help", "nothing"], "is not an sbx command"),
    (["--host", "tcp://1.2.3.4", "ls"], "does not listen on the network"),
    (["--host", "ssh://-oProxyCommand=x", "ls"], "is not a host"),
    (["--host", "/run/x", "ls"], "unix:///run/x"),
])
def test_usage_errors(daemon, sbx, args, words):
    r = sbx(*args)
    assert r.returncode == 125 and r.stdout == ""
    assert words in r.stderr, r.stderr
    assert 1 <= len(lines(r.stderr)) <= 2 and r.stderr.startswith("sbx: ")
    assert daemon.find("POST", "") == []


# ---- the daemon is not there -----------------------------------------------------------------

def test_no_socket(sbx, tmp):
    r = sbx("ls", env={"SBX_HOST": None, "SBX_SOCKET": tmp + "/none"})
    assert r.returncode == 125
    assert lines(r.stderr)[0] == "sbx: cannot reach sandboxd at %s/none: no such socket" % tmp
    assert lines(r.stderr)[1].startswith("hint: ") and len(lines(r.stderr)) == 2


def test_nobody_listens(sbx, tmp):
    import socket
    s = socket.socket(socket.AF_UNIX)
    s.bind(tmp + "/s")
    s.close()
    r = sbx("ls")
    assert r.returncode == 125 and "nothing listens there" in r.stderr
    assert "hint: the sandboxd of this socket has ended" in r.stderr


def test_a_file_that_is_no_socket(sbx, tmp):
    with open(tmp + "/s", "w"):
        pass
    r = sbx("ls")
    assert r.returncode == 125 and "s: not a socket" in r.stderr
    assert lines(r.stderr)[1].startswith("hint: ") and len(lines(r.stderr)) == 2


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to become another user")
def test_permission_denied_names_the_group(daemon, sbx, tmp):
    os.chmod(tmp, 0o755)
    os.chown(daemon.path, 0, 12)        # group man
    os.chmod(daemon.path, 0o660)
    r = sbx("ls", user=65534, group=65534, extra_groups=[])
    assert r.returncode == 125 and "permission denied" in r.stderr
    assert "usermod -aG man $USER" in r.stderr


def test_version_and_info_without_a_daemon(sbx):
    for command in ("version", "info"):
        r = sbx(command)
        assert r.returncode == 125
        assert r.stdout.startswith("Client:\n") and "Version:" in r.stdout
        assert "Server" not in r.stdout and "cannot reach sandboxd" in r.stderr


def test_connection_cut_in_the_middle(daemon, sbx):
    daemon.on("GET", "/v1/sandboxes", lambda c, r: c.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"))
    daemon.on("GET", "/v1/images", lambda c, r: c.sock.shutdown(2))

    def cut(c, r):
        c.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{")
        c.sock.shutdown(2)
    daemon.on("GET", "/v1/sandboxes", cut)
    for command in ("ls", "images"):
        r = sbx(command)
        assert r.returncode == 125 and "the connection to sandboxd broke" in r.stderr
    assert "it closed it unanswered" in r.stderr and "hint: " in r.stderr


def test_long_socket_path(sbx, tmp):
    import socket
    from fake_daemon import FakeDaemon
    deep = tmp + "/" + "d" * 100 + "/" + "e" * 100
    os.makedirs(deep)
    here = os.getcwd()
    os.chdir(deep)
    try:
        d = FakeDaemon("s")
    finally:
        os.chdir(here)
    d.reply("GET", "/v1/sandboxes", 200, {"sandboxes": [sandbox()]})
    assert sbx("-H", "unix://" + deep + "/s", "ls", "-q").stdout == BOX_ID + "\n"
    d.kill()


def test_proxies_of_the_environment_are_not_used(daemon, sbx):
    daemon.reply("GET", "/v1/sandboxes", 200, {"sandboxes": []})
    env = {k: "http://127.0.0.1:1" for k in ("http_proxy", "all_proxy", "ALL_PROXY", "HTTP_PROXY")}
    assert sbx("ls", "-q", env=env).returncode == 0


def test_debug_says_what_is_asked(daemon, sbx):
    daemon.reply("GET", "/v1/sandboxes", 200, {"sandboxes": []})
    for args in (["--debug", "ls", "-q"], ["ls", "-q", "--debug"]):
        assert "debug: GET /v1/sandboxes -> 200" in sbx(*args).stderr


# ---- lists -----------------------------------------------------------------------------------

def test_ls_table_lines_up_and_escapes(daemon, sbx):
    daemon.reply("GET", "/v1/sandboxes", 200, {"sandboxes": [
        sandbox(name="a", workspace={"path": "/home/\x1b[31m宽宽", "read_only": True}),
        sandbox(name="long-name", state="failed", reason="no\nmemory", accel=None,
                new_field_of_a_newer_daemon={"x": [1]})]})
    r = sbx("ls", text=False)
    assert r.returncode == 0 and b"\x1b" not in r.stdout
    out = r.stdout.decode()
    if os.getuid() == 0:            # who sees all wants to know whose they are
        assert all(line.rstrip().endswith(("OWNER", " " + sandbox()["owner"]["user"])) for line in lines(out))
        out = "\n".join(line.rstrip().rsplit(" ", 1)[0].rstrip() for line in lines(out)) + "\n"
    head, one, two = lines(out)
    assert head.split() == ["ID", "NAME", "STATE", "IMAGE", "CPUS", "MEMORY", "CREATED", "WORKSPACE"]
    at = head.index("STATE")
    assert one[at:].startswith("running ") and two[at:].startswith("failed (no\\nmemory)")
    assert one.endswith("/home/\\x1b[31m宽宽:ro") and BOX_ID[:12] in one and BOX_ID not in one
    assert BOX_ID in sbx("ps", "-a", "--no-trunc").stdout


def test_ls_counts_down(daemon, sbx):
    def at(seconds):
        when = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=seconds)
        return when.isoformat().replace("+00:00", "Z")
    daemon.reply("GET", "/v1/sandboxes", 200, {"sandboxes": [
        sandbox(name="a", stops_at=at(7300)), sandbox(name="b", stops_at=at(100), idle_since=at(-200)),
        sandbox(name="c", state="stopped", reason="the virtual machine failed", starts_at=at(-5)),
        sandbox(name="d", stops_at=None, idle_since=None, starts_at=None)]})
    out = sbx("ls", "--no-trunc").stdout
    assert re.search(r"running \(stops in 2h1m\)", out), out
    assert re.search(r"running \(idle 3m2\ds, stops in 1m(3\d|40)s\)", out), out
    assert "stopped (the virtual machine failed, starts in 0ms)" in out, out
    assert re.search(r" d +running  ", out), out


def test_ls_empty(daemon, sbx):
    daemon.reply("GET", "/v1/sandboxes", 200, {"sandboxes": []})
    assert len(lines(sbx("ls").stdout)) == 1
    assert sbx("ls", "-q").stdout == "" and sbx("ls", "--format", "json").stdout == ""


def test_ls_filters(daemon, sbx):
    daemon.reply("GET", "/v1/sandboxes", 200, {"sandboxes": [sandbox(), sandbox(name="other")]})
    r = sbx("ls", "-f", "state=running", "--filter=label=a/b=c d&e", "-f", "name=the", "-f", "name=zz",
            "--format", "{{.Name}}")
    assert r.stdout == "other\n"
    assert daemon.requests[0].path == "/v1/sandboxes?state=running&label=a%2Fb%3Dc%20d%26e"


def test_status_is_state(daemon, sbx):
    daemon.reply("GET", "/v1/sandboxes", 200, {"sandboxes": []})
    assert sbx("ls", "-f", "status=failed").returncode == 0
    assert daemon.requests[0].path == "/v1/sandboxes?state=failed"


def test_ls_json_lines_keep_what_this_client_does_not_know(daemon, sbx):
    boxes = [sandbox(labels={"k": "v,]}\"\\"}, news=[{"a": [1, 2]}, "}"]), sandbox(name="two")]
    daemon.reply("GET", "/v1/sandboxes", 200, {"more": [1], "sandboxes": boxes, "next": None})
    out = lines(sbx("ls", "--format", "json").stdout)
    assert [json.loads(s) for s in out] == boxes


@pytest.mark.parametrize("template,want", [
    ("{{.Name}}", "box"), ("{{.name}} {{ .State }}", "box running"), ("{{.Image.Name}}", "debian"),
    ("{{.created_at}}", "2026-01-02T03:04:05.000000Z"), ("{{.CreatedAt}}", "2026-01-02T03:04:05.000000Z"),
    ("{{.Labels}}", "a=1,b.c=2"), ("{{.labels.b.c}}|{{.Labels.none}}", "2|"),
    ("{{json .Labels}}", '{"a":"1","b.c":"2"}'), ("{{json .name}}", '"box"'), ("{{.Cpus}}", "2"),
    ("x\\ty", None), ("{{.StartedAt}}.", "."), ("{{json .reason}}", "null"),
])
def test_templates(daemon, sbx, template, want):
    daemon.reply("GET", "/v1/sandboxes", 200, {"sandboxes": [sandbox(labels={"a": "1", "b.c": "2"})]})
    r = sbx("ls", "--format", template)
    if want is None:
        assert r.returncode == 125
    else:
        assert (r.returncode, r.stdout, r.stderr) == (0, want + "\n", "")


@pytest.mark.parametrize("template", ["{{.Nmae}}", "{{.Name", "{{Name}}", "{{.image.x}}", "{{}}"])
def test_bad_templates(daemon, sbx, template):
    daemon.reply("GET", "/v1/sandboxes", 200, {"sandboxes": [sandbox()]})
    r = sbx("ls", "--format", template)
    assert r.returncode == 125 and "template" in r.stderr


def test_inspect(daemon, sbx):
    daemon.reply("GET", "/v1/sandboxes/box", 200, sandbox(extra={"deep": [[], {}, "\x7f\x9b"]}))
    daemon.reply("GET", "/v1/sandboxes/gone", 404, error("sandbox_not_found", "no sandbox 'gone'"))
    r = sbx("inspect", "box", "gone", "box")
    assert r.returncode == 125 and r.stderr == "sbx: no sandbox 'gone'\n"
    got = json.loads(r.stdout)
    assert [g["name"] for g in got] == ["box", "box"] and got[0]["extra"] == {"deep": [[], {}, "\x7f\x9b"]}
    assert "\x7f" not in r.stdout and "\x9b" not in r.stdout
    assert sbx("inspect", "gone").stdout == "[]\n"
    assert sbx("inspect", "-f", "{{.State}} {{.Owner.User}}", "box").stdout == "running user\n"
    assert json.loads(sbx("inspect", "-f", "{{json .}}", "box").stdout)["extra"]["deep"][0] == []


def test_names_in_paths_are_escaped(daemon, sbx):
    sbx("inspect", "../../x?y=z#a b%", "..")
    assert [r.path for r in daemon.requests] == [
        "/v1/sandboxes/..%2F..%2Fx%3Fy%3Dz%23a%20b%25", "/v1/sandboxes/%2E%2E"]


def test_execs_and_images(daemon, sbx):
    daemon.reply("GET", "/v1/sandboxes/box/execs", 200, {"execs": [
        an_exec(command=["sh", "-c", "echo \x1b[0m"]),
        an_exec(state="exited", end="exit", exit_code=3)]})
    out = sbx("execs", "box").stdout
    assert "sh -c echo \\x1b[0m" in out and EXEC_ID[:12] in out and " 3 " in out
    assert sbx("execs", "-q", "box").stdout == EXEC_ID + "\n" + EXEC_ID + "\n"
    daemon.reply("GET", "/v1/images", 200, {"images": [
        {"name": "debian", "digest": "sha256:" + "b" * 64, "variant": "debian", "os": "Debian",
         "kernel": "6.1", "size": 1 << 30, "sandboxes": 2, "created_at": "2026-01-02T03:04:05Z"},
        {"digest": "sha256:" + "c" * 64, "variant": "debian", "os": "Debian", "kernel": "6.1",
         "size": 5, "sandboxes": 0, "created_at": "2026-01-02T03:04:05Z"}]})
    for words in (["images"], ["image", "ls"], ["image", "list"]):
        out = lines(sbx(*words).stdout)
        assert out[1].startswith("debian  bbbbbbbbbbbb ") and out[2].startswith("-       cccccccccccc ")
    assert sbx("images", "-q").stdout.startswith("sha256:bbbb")


# ---- lifecycle -------------------------------------------------------------------------------

def test_several_names_go_on_after_a_failure(daemon, sbx):
    daemon.reply("DELETE", "/v1/sandboxes/.*", 204)
    daemon.reply("DELETE", "/v1/sandboxes/b", 404, error("sandbox_not_found", "no sandbox 'b'"))
    r = sbx("rm", "a", "b", "c")
    assert (r.returncode, r.stdout, r.stderr) == (125, "a\nc\n", "sbx: no sandbox 'b'\n")
    r = sbx("rm", "-f", "a", "b", "c")
    assert (r.returncode, r.stdout, r.stderr) == (0, "a\nc\n", "")
    assert {q.path for q in daemon.requests[-3:]} == {
        "/v1/sandboxes/%s?force=true" % name for name in "abc"}
    r = sbx("rm", "a", "-f")
    assert r.returncode == 0


def test_several_names_go_at_once_and_are_told_in_order(daemon, sbx):
    """Five have to be under way before one is answered, and the first is answered after another one."""
    names = ["n%02d" % i for i in range(40)]
    under_way = [0, 0]
    five, other = threading.Event(), threading.Event()
    lock = threading.Lock()

    def together(c, r):
        with lock:
            under_way[0] += 1
            under_way[1] = max(under_way)
            if under_way[0] == 5:
                five.set()
        assert five.wait(60)
        if r.path.endswith("n00"):
            assert other.wait(60)
        with lock:
            under_way[0] -= 1
        if r.path.endswith("7"):
            c.answer(409, error("sandbox_busy", r.path[-3:] + " is busy"))
        else:
            c.answer(204)
        if not r.path.endswith("n00"):
            other.set()
    daemon.on("DELETE", "/v1/sandboxes/.*", together)
    r = sbx("rm", *names)
    assert 5 <= under_way[1] <= 16
    assert r.returncode == 125
    assert lines(r.stdout) == [n for n in names if not n.endswith("7")]
    assert lines(r.stderr) == ["sbx: %s is busy" % n for n in names if n.endswith("7")]


def test_several_names_without_a_daemon_complain_once(sbx):
    r = sbx("rm", "a", "b", "c")
    assert r.returncode == 125 and r.stdout == "" and len(lines(r.stderr)) == 2


@pytest.mark.parametrize("names", [["a"], ["a", "b", "c"]])
@pytest.mark.parametrize("whom", ["sbx", "group"])
def test_stop_is_given_up_by_a_signal(daemon, sbx, names, whom):
    daemon.on("POST", "/v1/sandboxes/.*", lambda c, r: c.exactly(1))
    p = sbx.popen("stop", *names, start_new_session=True)
    wait_for(lambda: len(daemon.requests) == len(names), what="the requests")
    (os.killpg if whom == "group" else os.kill)(p.pid, signal.SIGINT)
    out, err = p.communicate(timeout=5)
    assert (p.returncode, out) == (130, b"") and err.count(b"given up") == 1


def test_start_stop_restart(daemon, sbx):
    daemon.reply("POST", "/v1/sandboxes/.*", 200, sandbox())
    assert sbx("start", "a", "b").stdout == "a\nb\n"
    assert sbx("stop", "-t", "1m30s", "a").stdout == "a\n"
    assert sbx("stop", "-t0", "a").returncode == 0
    assert sbx("restart", "a").stdout == "a\n"
    assert sorted(r.path for r in daemon.requests[:2]) == [
        "/v1/sandboxes/a/start", "/v1/sandboxes/b/start"]
    assert [r.path for r in daemon.requests[2:]] == [
        "/v1/sandboxes/a/stop?timeout_ms=90000",
        "/v1/sandboxes/a/stop?timeout_ms=0", "/v1/sandboxes/a/restart"]
    assert all(r.headers["content-length"] == "0" for r in daemon.requests)


def test_image_rm_and_inspect(daemon, sbx):
    daemon.reply("DELETE", "/v1/images/old", 409, error("image_in_use", "2 sandboxes use it"))
    daemon.reply("DELETE", "/v1/images/new", 204)
    r = sbx("image", "rm", "old", "new")
    assert (r.returncode, r.stdout, r.stderr) == (125, "new\n", "sbx: 2 sandboxes use it\n")
    r = sbx("image", "inspect", "none")
    assert r.returncode == 125 and r.stdout == "[]\n"


@pytest.mark.parametrize("signo", [signal.SIGINT, signal.SIGTERM])
def test_create_is_given_up_by_a_signal(daemon, sbx, signo):
    daemon.on("POST", "/v1/sandboxes", lambda c, r: c.exactly(1))   # never answers
    p = sbx.popen("create", "--name", "box")
    wait_for(lambda: daemon.requests, what="the request")
    p.send_signal(signo)
    out, err = p.communicate(timeout=5)
    assert (p.returncode, out) == (128 + signo, b"") and b"given up" in err


# ---- logs ------------------------------------------------------------------------------------

def test_logs_escape_and_cut_characters_join(daemon, sbx):
    def chunks(c, r):
        c.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: text/plain\r\n\r\n")
        for part in (b"a\x1b[31mred\r", b"\n\xe5\xae", b"\xbd\ttab\xff\n", b"end\xe5"):
            c.send(b"%x\r\n%s\r\n" % (len(part), part))
        c.send(b"0\r\n\r\n")
    daemon.on("GET", "/v1/sandboxes/box/logs", chunks)
    r = sbx("logs", "box", "--tail", "5", "--since=10m")
    assert (r.returncode, r.stderr) == (0, "")
    assert r.stdout == "a\\x1b[31mred\n宽\ttab\\xff\nend\\xe5"
    assert daemon.requests[0].path == "/v1/sandboxes/box/logs?tail=5&since=10m"
    r = sbx("logs", "--raw", "--console", "-f", "box", text=False)
    assert r.stdout == b"a\x1b[31mred\r\n\xe5\xae\xbd\ttab\xff\nend\xe5"
    assert daemon.requests[1].path == "/v1/sandboxes/box/logs?source=console&follow=true"


def test_logs_follow_shows_at_once_and_ends_by_sigint(daemon, sbx):
    def start(c, r):
        c.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nline\n\r\n")
        c.exactly(1)
    daemon.on("GET", "/v1/sandboxes/box/logs", start)
    p = sbx.popen("logs", "-f", "box")
    assert p.stdout.readline() == b"line\n"
    p.send_signal(signal.SIGINT)
    assert p.wait(5) == 130
    p.communicate()


def test_logs_that_are_cut_off_are_no_end(daemon, sbx):
    def start(c, r):
        c.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nline\n\r\n")
        c.sock.shutdown(2)
    daemon.on("GET", "/v1/sandboxes/box/logs", start)
    r = sbx("logs", "-f", "box")
    assert r.returncode == 125 and r.stdout == "line\n"
    assert lines(r.stderr)[0] == "sbx: the connection to sandboxd broke in the middle of an answer"
    assert len(lines(r.stderr)) == 2


# ---- version, info ---------------------------------------------------------------------------

def test_version(daemon, sbx):
    daemon.reply("GET", "/v1/version", 200, {"version": "99.0", "api": "v1", "commit": "abc",
                                             "libvirt": "9", "qemu": "7", "sqlite": "3",
                                             "microhttpd": "1"})
    r = sbx("version")
    assert r.returncode == 0 and "99.0" in r.stdout and "different versions" in r.stderr
    assert sbx("version", "-f", "{{.Server.Version}}/{{.client.api}}").stdout == "99.0/v1\n"
    both = json.loads(sbx("version", "--format", "json").stdout)
    assert both["server"]["commit"] == "abc" and both["client"]["api"] == "v1"
    assert sbx("--version").stdout.startswith("sbx ") and sbx("-v").returncode == 0


def test_info(daemon, sbx):
    daemon.reply("GET", "/v1/info", 200, {
        "version": "1", "host": "h", "kernel": "k", "cpu": "c", "cpus": 4, "memory": 8 << 30,
        "libvirt_uri": "u", "machine": "microvm", "accel": "tcg", "accel_reason": "kvm hangs\x1b",
        "state_dir": "/s", "sandboxes": 3, "sandboxes_running": 1, "images": 1,
        "default_image": "debian", "default_memory": 2 << 30, "default_disk": 20 << 30,
        "default_cpus": 2, "pid": 5, "started_at": "2026-01-02T03:04:05Z"})
    r = sbx("info")
    assert r.returncode == 0 and "tcg (kvm hangs\\x1b)" in r.stdout and "8GiB" in r.stdout
    assert sbx("info", "-f", "{{.Server.Accel}}").stdout == "tcg\n"


# ---- help, completion ------------------------------------------------------------------------

def test_help(sbx):
    r = sbx("help")
    assert r.returncode == 0 and sbx("--help").stdout == r.stdout and sbx("-h").stdout == r.stdout
    names = [s.split("  ")[1] for s in lines(r.stdout) if s.startswith("  ") and s[2] != " " and s[2] != "-"]
    assert "create" in names and "system dial-stdio" in names
    for name in names:
        words = name.split(" ")
        one = sbx("help", *words)
        assert one.returncode == 0 and one.stdout.startswith("usage: sbx " + name)
        assert sbx(*words, "--help").stdout == one.stdout
        assert all(len(s) <= 120 for s in lines(one.stdout))
    r = sbx()
    assert r.returncode == 125 and r.stdout == "" and r.stderr.startswith("usage: sbx")
    assert sbx("help", "image").stdout == sbx("image", "--help").stdout


@pytest.mark.parametrize("words,want", [
    (["cr"], ["create"]), (["image", "r"], ["rm"]), (["rm", "b"], ["box"]), (["rm", "-f", ""], ["box", "other"]),
    (["exec", "-it", "o"], ["other"]), (["exec", "box", "--"], []), (["exec", "box", "l"], []),
    (["create", "--im"], ["--image"]), (["create", "--image", ""], ["debian"]),
    (["create", "--workspace", ""], [":dirs"]), (["create", "--env-file", "x"], [":files"]),
    (["attach", "box", ""], [EXEC_ID]), (["completion", "z"], ["zsh"]), (["ls", "--format", "j"], ["json"]),
    (["help", "image", "r"], ["rm"]), (["logs", "box", ""], []), (["nonsense", ""], []), (["--deb"], ["--debug"]),
])
def test_completion(daemon, sbx, words, want):
    daemon.reply("GET", "/v1/sandboxes", 200, {"sandboxes": [sandbox(), sandbox(name="other")]})
    daemon.reply("GET", "/v1/images", 200, {"images": [
        {"name": "debian", "digest": "sha256:" + "b" * 64, "variant": "debian", "os": "", "kernel": "",
         "size": 1, "sandboxes": 2, "created_at": "2026-01-02T03:04:05Z"}]})
    daemon.reply("GET", "/v1/sandboxes/box/execs", 200, {"execs": [an_exec()]})
    r = sbx("__complete", "--", *words)
    assert r.returncode == 0
    assert [s.split("\t")[0] for s in lines(r.stdout)] == want


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_parse(sbx, shell):
    r = sbx("completion", shell)
    assert r.returncode == 0
    if not any(os.access(os.path.join(d, shell), os.X_OK) for d in os.environ["PATH"].split(":")):
        pytest.skip("no " + shell)
    subprocess.run([shell, "-n", "/dev/stdin"], input=r.stdout.encode(), check=True)


def test_bash_completes(daemon, sbx, tmp):
    daemon.reply("GET", "/v1/sandboxes", 200, {"sandboxes": [sandbox(), sandbox(name="bolt")]})
    os.symlink(os.path.abspath(sbx.binary), tmp + "/sbx")
    script = sbx("completion", "bash").stdout + """
        COMP_WORDS=(sbx exec -it bo); COMP_CWORD=3; _sbx; printf '%s\\n' "${COMPREPLY[@]}"
        COMP_WORDS=(sbx rm ""); COMP_CWORD=2; _sbx; echo ${#COMPREPLY[@]}
    """
    env = dict(sbx.env, PATH=tmp + ":" + sbx.env["PATH"])
    out = subprocess.run(["bash", "-c", script], env=env, stdout=subprocess.PIPE, check=True).stdout
    assert out == b"box\nbolt\n2\n"


# ---- ends of output --------------------------------------------------------------------------

def test_closed_stdout_is_quiet_and_full_disk_is_not(daemon, sbx):
    daemon.reply("GET", "/v1/sandboxes", 200, {"sandboxes": [sandbox()] * 3000})
    p = sbx.popen("ls")
    p.stdout.close()
    assert p.wait(10) == -signal.SIGPIPE and p.stderr.read() == b""
    p.stderr.close()
    with open("/dev/full", "w") as full:
        r = sbx("ls", stdout=full)
    assert r.returncode == 125 and "cannot write to stdout: No space" in r.stderr


def test_closed_standard_fds(daemon, sbx):
    daemon.reply("GET", "/v1/sandboxes", 200, {"sandboxes": [sandbox()]})
    script = '"$0" ls -q >&- 2>&- <&-; echo $?; "$0" ls -q <&-'
    r = subprocess.run(["sh", "-c", script, sbx.binary], env=sbx.env, stdout=subprocess.PIPE)
    assert r.stdout.decode().split()[-1] == BOX_ID


# ---- the manual ------------------------------------------------------------------------------

MANUAL = os.path.join(ROOT, "docs", "man", "sbx.1")
BEGIN, END = '.\\" begin: sbx help --man\n', '.\\" end: sbx help --man\n'


def test_manual_says_what_the_program_does(sbx):
    """SBX_UPDATE=1 rewrites the part that is made from the table of commands."""
    with open(MANUAL) as f:
        text = f.read()
    head, rest = text.split(BEGIN)
    made, tail = rest.split(END)
    want = sbx("help", "--man").stdout
    if os.environ.get("SBX_UPDATE") and made != want:
        with open(MANUAL, "w") as f:
            f.write(head + BEGIN + want + END + tail)
        made = want
    assert made == want, "run with SBX_UPDATE=1 and look at the change"


def test_manual_is_clean_roff(sbx):
    if not any(os.access(os.path.join(d, "groff"), os.X_OK) for d in os.environ["PATH"].split(":")):
        pytest.skip("no groff")
    r = subprocess.run(["groff", "-man", "-Tutf8", "-ww", "-z", MANUAL], stderr=subprocess.PIPE)
    assert r.returncode == 0 and r.stderr == b""


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"a":1,}', b'{"a":"\x1b[2J"}', b'{"a":"\xff"}', b"{} {}"])
def test_inspect_shows_nothing_that_is_not_json(daemon, sbx, body):
    daemon.reply("GET", "/v1/sandboxes/box", 200, body)
    r = sbx("inspect", "box", text=False)
    assert r.returncode == 125 and r.stdout == b"[]\n" and b"\x1b" not in r.stderr
