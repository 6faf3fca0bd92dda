# SPDX-License-Identifier: MIT
"""sbx policy, and the policies of sbx create, against a played daemon."""
import json
import os
import pty
import signal
import socket
import subprocess

import pytest
from fake_daemon import *  # noqa: F401,F403 (fixtures)
from fake_daemon import BOX_ID, error, sandbox, wait_for

POLICY = "/v1/sandboxes/box/policy"
AT = "2026-01-02T03:04:05.000000Z"
HOSTILE = "a\x1b[2Jb\r\n\x9b1m\x7f\u202ec"


def rule(**kw):
    d = {"verdict": "allow", "target": "github.com:443", "source": "preset agent",
         "added_by": {"uid": 1000, "user": "me"}, "added_at": AT, "matches": 7}
    d.update(kw)
    return d


def policy(**kw):
    d = {"sandbox": BOX_ID, "base": "agent", "rules": [rule()], "ceiling": [],
         "text": "allow github.com:443\n"}
    d.update(kw)
    return d


def named(**kw):
    d = {"name": "team", "kind": "named", "description": None, "rules": "# ours\nallow a.example\n",
         "owner": {"uid": 1000, "user": "me"}, "changed_at": AT}
    d.update(kw)
    return d


def verdict(**kw):
    d = {"target": "github.com:443", "verdict": "allow", "reason": "a rule allows it",
         "rule": "allow github.com:443", "source": "preset agent"}
    d.update(kw)
    return d


def event(**kw):
    d = {"time": AT, "sandbox": BOX_ID, "kind": "connect", "verdict": "allow",
         "name": "github.com", "address": "192.0.2.1", "port": 443, "proto": "tcp",
         "rule": "allow github.com:443", "reason": "a rule allows it", "count": 1}
    d.update(kw)
    return d


def lines(text):
    return text.splitlines()


def plain(text):
    """Nothing a terminal obeys."""
    return all(c == "\n" or (c.isprintable() and c != "\u202e") for c in text)


# ---- create ----------------------------------------------------------------------------------

def test_create_names_a_policy(daemon, sbx):
    daemon.reply("POST", "/v1/sandboxes", 201, sandbox())
    r = sbx("create", "--policy", "agent", "--allow", "a.example:443", "--allow=10.1.0.0/16",
            "--deny", "b.example")
    assert (r.returncode, r.stdout, r.stderr) == (0, "box\n", "")
    got = daemon.requests[0].json
    assert got["policy"] == "agent" and "policy_rules" not in got
    assert got["allow"] == ["a.example:443", "10.1.0.0/16"] and got["deny"] == ["b.example"]


@pytest.mark.parametrize("how", ["./p", "/", "-"])
def test_create_sends_the_text_of_a_file(daemon, sbx, tmp, how):
    text = "# w\u00f6rter\nallow a.example:443\r\n"
    with open(tmp + "/p", "w", newline="") as f:
        f.write(text)
    daemon.reply("POST", "/v1/sandboxes", 201, sandbox())
    r = sbx("create", "--policy", tmp + "/p" if how == "/" else how, cwd=tmp,
            input=text if how == "-" else None)
    assert r.returncode == 0, r.stderr
    got = daemon.requests[0].json
    assert got["policy_rules"] == text and "policy" not in got


def test_create_without_a_policy_says_nothing_of_one(daemon, sbx):
    daemon.reply("POST", "/v1/sandboxes", 201, sandbox())
    sbx("create")
    got = daemon.requests[0].json
    assert "policy" not in got and "policy_rules" not in got


def test_create_reports_what_the_daemon_finds_wrong(daemon, sbx, tmp):
    daemon.reply("POST", "/v1/sandboxes", 404, error("policy_not_found", "no policy 'p'", "see them"))
    r = sbx("create", "--policy", "p", cwd=tmp)
    assert (r.returncode, r.stdout) == (125, "")
    assert r.stderr == "sbx: no policy 'p'\nhint: see them\n"
    open(tmp + "/p", "w").close()
    r = sbx("create", "--policy", "p", cwd=tmp)
    assert lines(r.stderr) == ["sbx: no policy 'p'", "hint: a file is named with a '/' in it: ./p"]
    r = sbx("policy", "set", "box", "p", cwd=tmp)      # another error: the hint is not ours
    assert "hint: a file" not in r.stderr
    daemon.reply("POST", "/v1/sandboxes", 403, error("policy_ceiling", "beyond the ceiling: x", "ask"))
    r = sbx("create", "--policy", "open")
    assert (r.returncode, r.stderr) == (125, "sbx: beyond the ceiling: x\nhint: ask\n")
    daemon.reply("POST", "/v1/sandboxes", 503, error("network_unavailable", "no nftables", "see doctor"))
    r = sbx("create", "--policy", "open")
    assert (r.returncode, r.stderr) == (125, "sbx: no nftables\nhint: see doctor\n")


def test_lists_have_the_network(daemon, sbx):
    daemon.reply("GET", "/v1/sandboxes", 200, {"sandboxes": [
        sandbox(network={"address": "10.209.0.2", "policy": "dev"}), sandbox(network=None)]})
    r = sbx("ls", "--format", "{{.Name}} {{.Network.Policy}} {{.Network.Address}}")
    assert r.returncode == 0 and lines(r.stdout)[0] == "box dev 10.209.0.2" and len(lines(r.stdout)) == 2


# ---- files -----------------------------------------------------------------------------------

FILE_COMMANDS = [["create", "--policy"], ["policy", "set", "box"], ["policy", "apply", "box", "-f"],
                 ["policy", "define", "team"]]


@pytest.mark.parametrize("command", FILE_COMMANDS, ids=lambda c: c[-2])
@pytest.mark.parametrize("content,words", [
    (None, "cannot read ./p: No such file"),
    ("dir", "cannot read ./p: Is a directory"),
    (b"allow a.example\n" * 20000, "./p holds more than 256 KiB"),
    (b"\x7fELF\x02\x01\x01\x00", "./p, line 1: holds a NUL byte"),
    (b"allow a.example\n\xff\n", "./p, line 2: is not UTF-8 text"),
], ids=["missing", "directory", "large", "binary", "latin1"])
def test_files_that_are_none(daemon, sbx, tmp, command, content, words):
    if content == "dir":
        os.mkdir(tmp + "/p")
    elif content is not None:
        with open(tmp + "/p", "wb") as f:
            f.write(content)
    r = sbx(*command, "./p", cwd=tmp)
    assert (r.returncode, r.stdout) == (125, "") and words in r.stderr
    assert daemon.requests == []


def test_the_largest_file_is_sent(daemon, sbx, tmp):
    text = ("# " + "x" * 61 + "\n") * 4096      # 256 KiB
    with open(tmp + "/p", "w") as f:
        f.write(text)
    daemon.reply("PUT", POLICY, 200, policy())
    assert sbx("policy", "apply", "box", "-f", tmp + "/p").returncode == 0
    assert daemon.requests[0].json == {"rules": text}
    with open(tmp + "/p", "a") as f:
        f.write("#")
    assert sbx("policy", "apply", "box", "-f", tmp + "/p").returncode == 125
    with open(tmp + "/p", "w") as f:            # what JSON makes six times as long
        f.write("\x01" * (256 * 1024))
    r = sbx("policy", "apply", "box", "-f", tmp + "/p")
    assert r.returncode == 125 and "longer than 524288 bytes" in r.stderr
    assert len(daemon.requests) == 1


def test_empty_files_and_pipes(daemon, sbx, tmp):
    daemon.reply("PUT", POLICY, 200, policy())
    assert sbx("policy", "apply", "box", "-f", "/dev/null").returncode == 0
    assert sbx("policy", "apply", "-f-", "box", input="allow a.example\n").returncode == 0
    r = subprocess.run(["bash", "-c", 'exec "$0" policy set box <(echo allow b.example)', sbx.binary],
                       env=sbx.env, stdout=subprocess.PIPE)
    assert (r.returncode, r.stdout) == (0, b"box\n")
    assert [q.json["rules"] for q in daemon.requests] == ["", "allow a.example\n", "allow b.example\n"]


# ---- rules -----------------------------------------------------------------------------------

@pytest.mark.parametrize("verb,said", [("allow", "allow"), ("deny", "deny"), ("rm", "remove"),
                                       ("remove", "remove")])
def test_rules_go_in_one_request(daemon, sbx, verb, said):
    daemon.reply("POST", POLICY + "/rules", 200, policy())
    r = sbx("policy", verb, "box", "a.example:443", "**.b.example", "10.0.0.0/8:53/udp")
    assert (r.returncode, r.stdout, r.stderr) == (0, "box\n", "")
    q = daemon.requests[0]
    assert q.path == POLICY + "/rules" and q.headers["content-type"] == "application/json"
    assert q.json == {"verdict": said, "targets": ["a.example:443", "**.b.example", "10.0.0.0/8:53/udp"]}


@pytest.mark.parametrize("status,code", [(400, "invalid_field"), (403, "policy_ceiling"),
                                         (404, "sandbox_not_found"), (503, "network_unavailable")])
def test_rules_refused(daemon, sbx, status, code):
    daemon.reply("POST", POLICY + "/rules", status, error(code, "targets[0]: no such thing", "try less"))
    r = sbx("policy", "allow", "box", "*")
    assert (r.returncode, r.stdout) == (125, "")
    assert r.stderr == "sbx: targets[0]: no such thing\nhint: try less\n"


@pytest.mark.parametrize("args,words", [
    (["allow", "box"], "'sbx policy allow' wants NAME TARGET..."),
    (["set", "box"], "'sbx policy set' wants NAME POLICY"),
    (["check", "box", "a", "b"], "'b' is one argument too many"),
    (["apply", "box"], "'sbx policy apply' wants a file"),
    (["apply", "box", "p"], "'p' is one argument too many"),
    (["alow", "box", "x"], "did you mean 'sbx policy allow'?"),
    (["log", "box", "--tail", "some"], "'some' is not a number of lines"),
    (["log", "box", "--denyed"], "did you mean '--denied'?"),
])
def test_usage(daemon, sbx, args, words):
    r = sbx("policy", *args)
    assert r.returncode == 125 and words in r.stderr and r.stdout == ""
    assert daemon.requests == []


def test_set_a_named_policy(daemon, sbx):
    daemon.reply("PUT", POLICY, 200, policy())
    r = sbx("policy", "set", "box", "dev")
    assert (r.returncode, r.stdout, r.stderr) == (0, "box\n", "")
    q = daemon.requests[0]
    assert q.json == {"policy": "dev"} and q.headers["content-type"] == "application/json"
    daemon.reply("PUT", POLICY, 404, error("policy_not_found", "no policy 'devv'", "did you mean 'dev'?"))
    r = sbx("policy", "set", "box", "devv")
    assert (r.returncode, r.stderr) == (125, "sbx: no policy 'devv'\nhint: did you mean 'dev'?\n")


def test_a_file_with_an_error_is_told_by_its_line(daemon, sbx, tmp):
    daemon.reply("PUT", POLICY, 400, error("invalid_request", "line 2: '*' is no target", "say open"))
    with open(tmp + "/p", "w") as f:
        f.write("allow a.example\nallow *\n")
    r = sbx("policy", "apply", "box", "-f", "p", cwd=tmp)
    assert (r.returncode, r.stderr) == (125, "sbx: line 2: '*' is no target\nhint: say open\n")


def test_ls_rules(daemon, sbx):
    body = policy(rules=[rule(), rule(verdict="deny", target="**.evil.example", source="user", matches=0,
                                      added_by={"uid": 7})], extra={"x": 1})
    daemon.reply("GET", POLICY, 200, body)
    r = sbx("policy", "ls", "box")
    out = lines(r.stdout)
    assert (r.returncode, r.stderr, len(out)) == (0, "", 3)
    assert out[0].split("  ")[0] == "VERDICT" and out[0].endswith("MATCHES")
    assert out[1].startswith("allow    github.com:443   preset agent  me        ")
    assert out[1].endswith("  7") and out[2].startswith("deny     **.evil.example  user          7   ")
    assert json.loads(sbx("policy", "list", "--json", "box").stdout) == body
    daemon.reply("GET", POLICY, 200, policy(rules=[]))
    assert len(lines(sbx("policy", "ls", "box").stdout)) == 1


def test_ls_shows_the_ceiling(daemon, sbx):
    daemon.reply("GET", POLICY, 200, policy(ceiling=[rule(target="10.0.0.0/8", source="ceiling")]))
    out = lines(sbx("policy", "ls", "box").stdout)
    assert out[2] == "" and out[3].startswith("Ceiling ") and out[4].split() == ["VERDICT", "TARGET"]
    assert out[5:] == ["allow    10.0.0.0/8"]


def test_ls_policies(daemon, sbx):
    body = {"policies": [named(name="none", kind="preset", description="nothing", owner={"uid": 0},
                               changed_at=None), named()]}
    daemon.reply("GET", "/v1/policies", 200, body)
    out = lines(sbx("policy", "ls").stdout)
    assert out[1].split() == ["none", "preset", "-", "-", "nothing"]
    assert out[2].startswith("team  named   me     ") and out[2].endswith(" -")
    assert json.loads(sbx("policy", "ls", "--json").stdout) == body


def test_tables_do_not_obey_what_they_show(daemon, sbx):
    daemon.reply("GET", POLICY, 200, policy(rules=[rule(target=HOSTILE, source=HOSTILE,
                                                       added_by={"uid": 1, "user": HOSTILE})]))
    r = sbx("policy", "ls", "box")
    assert r.returncode == 0 and len(lines(r.stdout)) == 2 and plain(r.stdout)
    assert "a\\x1b[2Jb" in r.stdout
    daemon.reply("GET", "/v1/policies", 200, {"policies": [named(name=HOSTILE, description=HOSTILE)]})
    r = sbx("policy", "ls")
    assert r.returncode == 0 and len(lines(r.stdout)) == 2 and plain(r.stdout)
    for flags in ([], ["--json"]):
        r = sbx("policy", "ls", "box", *flags)
        assert "\x1b" not in r.stdout and "\x9b" not in r.stdout and "\x7f" not in r.stdout


@pytest.mark.parametrize("args", [["ls", "box"], ["export", "box"], ["log", "box"], ["prove", "box"],
                                  ["why", "box", "x"], ["check", "box", "x"], ["show", "x"], ["ls"],
                                  ["undefine", "x"]])
def test_errors_of_the_daemon(daemon, sbx, args):
    for method in ("GET", "POST", "DELETE"):
        daemon.reply(method, ".*", 404, error("sandbox_not_found", "there is none", "look"))
    r = sbx("policy", *args)
    assert (r.returncode, r.stdout) == (125, "")
    assert r.stderr == "sbx: there is none\nhint: look\n"


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"{}", b'{"verdict": 1}', b"\xff", b"null"])
@pytest.mark.parametrize("args", [["ls", "box"], ["export", "box"], ["prove", "box"], ["why", "box", "x"],
                                  ["check", "box", "x"], ["show", "x"], ["ls"]])
@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_answers_that_are_none(daemon, sbx, args, body, flags):
    daemon.reply("GET", ".*", 200, body)
    daemon.reply("POST", ".*", 200, body)
    r = sbx("policy", *args, *([] if args[0] == "export" else flags))
    assert (r.returncode, r.stdout) == (125, "") and r.stderr.startswith("sbx: ")


def test_names_in_paths_are_escaped(daemon, sbx):
    sbx("policy", "ls", "../x?y")
    sbx("policy", "check", "a/b", "x:1&follow=true#?")
    sbx("policy", "show", "..")
    assert [q.path for q in daemon.requests] == [
        "/v1/sandboxes/..%2Fx%3Fy/policy",
        "/v1/sandboxes/a%2Fb/policy/check?target=x%3A1%26follow%3Dtrue%23%3F", "/v1/policies/%2E%2E"]


# ---- text ------------------------------------------------------------------------------------

def test_export_gives_back_what_apply_took(daemon, sbx, tmp):
    text = "# w\u00f6rter\tand\u2028such\nallow github.com:443\ndeny b.example"
    daemon.reply("GET", POLICY, 200, policy(text=text))
    daemon.reply("PUT", POLICY, 200, policy())
    r = sbx("policy", "export", "box")
    assert (r.returncode, r.stdout) == (0, text + "\n")
    assert sbx("policy", "apply", "box", "-f-", input=r.stdout).returncode == 0
    assert daemon.requests[-1].json == {"rules": text + "\n"}
    daemon.reply("GET", POLICY, 200, policy(text=""))
    assert sbx("policy", "export", "box").stdout == ""
    daemon.reply("GET", POLICY, 200, {k: v for k, v in policy().items() if k != "text"})
    assert sbx("policy", "export", "box").returncode == 125


def on_terminal(sbx, *args):
    ours, theirs = pty.openpty()
    p = sbx.popen(*args, stdout=theirs)
    os.close(theirs)
    out = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:
            break
        if not part:
            break
        out += part
    os.close(ours)
    p.communicate()
    return p.returncode, out


def test_export_on_a_terminal_is_not_obeyed(daemon, sbx):
    daemon.reply("GET", POLICY, 200, policy(text="# \x1b[2Jx\x9b\nallow a.example\n"))
    status, out = on_terminal(sbx, "policy", "export", "box")
    assert status == 0 and out == b"# \\x1b[2Jx\\xc2\\x9b\r\nallow a.example\r\n"


def test_define_show_undefine(daemon, sbx, tmp):
    daemon.reply("PUT", "/v1/policies/team", 200, named())
    daemon.reply("GET", "/v1/policies/team", 200, named())
    daemon.reply("GET", "/v1/policies/open", 200, named(name="open", kind="preset",
                                                        description="any\x1b", rules="allow 0.0.0.0/0"))
    daemon.reply("DELETE", "/v1/policies/team", 204)
    r = sbx("policy", "define", "team", "-", input="allow a.example\n")
    assert (r.returncode, r.stdout, r.stderr) == (0, "team\n", "")
    assert daemon.requests[0].json == {"rules": "allow a.example\n"}
    assert sbx("policy", "show", "team").stdout == "# ours\nallow a.example\n"
    assert sbx("policy", "show", "open").stdout == "# any\\x1b\nallow 0.0.0.0/0\n"
    assert json.loads(sbx("policy", "show", "--json", "team").stdout) == named()
    r = sbx("policy", "undefine", "team")
    assert (r.returncode, r.stdout) == (0, "team\n") and daemon.requests[-1].method == "DELETE"
    daemon.reply("PUT", "/v1/policies/open", 403, error("permission_denied", "'open' is a preset"))
    r = sbx("policy", "define", "open", "-", input="")
    assert (r.returncode, r.stdout, r.stderr) == (125, "", "sbx: 'open' is a preset\n")


# ---- check, why ------------------------------------------------------------------------------

@pytest.mark.parametrize("answer,status,words", [
    (verdict(), 0, "allow github.com:443\n  allow github.com:443 (preset agent): a rule allows it\n"),
    (verdict(verdict="deny", rule=None, source="default", reason="no rule allows it"), 1,
     "deny github.com:443\n  default: no rule allows it\n"),
    (verdict(verdict="deny", rule=None, source=None, reason=None), 1, "deny github.com:443\n  no rule\n"),
])
def test_check(daemon, sbx, answer, status, words):
    daemon.reply("GET", POLICY + "/check", 200, answer)
    r = sbx("policy", "check", "box", "github.com:443")
    assert (r.returncode, r.stdout, r.stderr) == (status, words, "")
    assert daemon.requests[0].path == POLICY + "/check?target=github.com%3A443"
    r = sbx("policy", "check", "--json", "box", "github.com:443")
    assert r.returncode == status and json.loads(r.stdout) == answer


def test_check_takes_nothing_else_for_a_verdict(daemon, sbx):
    daemon.reply("GET", POLICY + "/check", 200, verdict(verdict="maybe"))
    for flags in ([], ["--json"]):
        r = sbx("policy", "check", "box", "x", *flags)
        assert (r.returncode, r.stdout) == (125, "") and "'maybe', which is no verdict" in r.stderr
    r = sbx("policy", "check", "box", "x", env={"SBX_HOST": "unix:///nowhere/s"})
    assert (r.returncode, r.stdout) == (125, "")


def test_why(daemon, sbx):
    answer = {"decision": verdict(), "rule": rule(), "element": "names 192.0.2.1 . tcp . 443",
              "packets": 12, "denied": 3, "answers": [
                  {"name": "github.com", "address": "192.0.2.1", "expires_at": AT, "packets": 12,
                   "live": True},
                  {"name": "github.com", "address": "192.0.2.2", "expires_at": AT, "packets": 0,
                   "live": False}]}
    daemon.reply("GET", POLICY + "/why", 200, answer)
    r = sbx("policy", "why", "box", "github.com:443", env={"TZ": "XXX-2"})
    out = lines(r.stdout)
    assert (r.returncode, r.stderr) == (0, "")
    assert out[:6] == ["Target:     github.com:443", "Verdict:    allow",
                       "Reason:     a rule allows it", "Rule:       allow github.com:443",
                       "Source:     preset agent", "Added by:   me"]
    assert out[6].startswith("Added:      2026-01-02 05:04:05 (") and out[7] == "Matches:    7"
    assert out[8:10] == ["In filter:  names 192.0.2.1 . tcp . 443", "Packets:    12"]
    assert out[10].startswith("Rejected:   3 ") and out[11] == ""
    assert out[13].split() == ["github.com", "192.0.2.1", "2026-01-02", "05:04:05", "12", "open"]
    assert out[14].split()[-2:] == ["0", "expired"]
    assert json.loads(sbx("policy", "why", "box", "github.com:443", "--json").stdout) == answer


def test_why_of_what_no_rule_is_about(daemon, sbx):
    daemon.reply("GET", POLICY + "/why", 200, {
        "decision": verdict(verdict="deny", rule=None, source="default", target=HOSTILE, reason=HOSTILE),
        "rule": None, "element": None, "packets": 0, "denied": 0, "answers": []})
    r = sbx("policy", "why", "box", "x")
    out = lines(r.stdout)
    assert r.returncode == 0 and plain(r.stdout) and len(out) == 7
    assert out[3] == "Rule:       -" and out[5] == "In filter:  nothing lets it through now"


# ---- prove -----------------------------------------------------------------------------------

def proof(*passes):
    return {"passed": sum(passes), "failed": len(passes) - sum(passes), "probes": [
        {"probe": "tcp 192.0.2.%d:80" % i, "expected": "denied", "seen": "denied" if ok else "open\x1b",
         "pass": ok} for i, ok in enumerate(passes)]}


def test_prove(daemon, sbx):
    daemon.reply("POST", POLICY + "/prove", 200, proof(True, True))
    r = sbx("policy", "prove", "box")
    assert (r.returncode, r.stderr) == (0, "")
    assert lines(r.stdout) == ["PASS tcp 192.0.2.0:80: expected denied, saw denied",
                               "PASS tcp 192.0.2.1:80: expected denied, saw denied", "2 passed, 0 failed"]
    assert daemon.requests[0].body == b"" and daemon.requests[0].headers["content-length"] == "0"
    daemon.reply("POST", POLICY + "/prove", 200, proof(True, False))
    r = sbx("policy", "prove", "box")
    assert r.returncode == 1
    assert lines(r.stdout)[1:] == ["FAIL tcp 192.0.2.1:80: expected denied, saw open\\x1b",
                                   "1 passed, 1 failed"]
    r = sbx("policy", "prove", "box", "--json")
    assert r.returncode == 1 and json.loads(r.stdout) == proof(True, False)


@pytest.mark.parametrize("answer", [proof(), dict(proof(True, False), failed=0),
                                    dict(proof(True), passed=2), dict(proof(False), probes=[])])
def test_a_proof_has_to_agree_with_itself(daemon, sbx, answer):
    daemon.reply("POST", POLICY + "/prove", 200, answer)
    for flags in ([], ["--json"]):
        r = sbx("policy", "prove", "box", *flags)
        assert (r.returncode, r.stdout) == (125, "")


def test_prove_is_given_up_by_a_signal(daemon, sbx):
    daemon.on("POST", POLICY + "/prove", lambda c, r: c.exactly(1))
    p = sbx.popen("policy", "prove", "box")
    wait_for(lambda: daemon.requests, what="the request")
    p.send_signal(signal.SIGINT)
    assert p.wait(5) == 130
    p.communicate()


# ---- log -------------------------------------------------------------------------------------

def stream(*parts, end=True):
    def answer(c, r):
        c.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"
               b"Content-Type: application/x-ndjson\r\n\r\n")
        for part in parts:
            c.send(b"%x\r\n%s\r\n" % (len(part), part))
        if end:
            c.send(b"0\r\n\r\n")
        elif end is None:
            c.sock.shutdown(socket.SHUT_RDWR)
        else:
            c.exactly(1)
    return answer


def line(*args, **kw):
    return json.dumps(event(*args, **kw), ensure_ascii=False).encode() + b"\n"


def test_log(daemon, sbx):
    text = (line() + line(verdict="deny", rule=None, reason="no rule allows it", name=None, count=12) +
            line(kind="resolve", verdict="deny", name="evil.example", address=None, port=0, proto=None,
                 rule="deny **.example") + b"\n" +
            line(kind="connect", verdict="deny", proto="icmp", port=8, name=None, rule=None) +
            line(kind="alert", name="b.example", address="10.0.0.1", reason="leads to a private address") +
            line(kind="change", verdict=None, name=None, address=None, port=0, proto=None, rule=None,
                 count=0, reason="me allowed a.example") + line(port=8443, address=None))
    daemon.on("GET", POLICY + "/log", stream(text[:7], text[7:701], text[701:]))
    r = sbx("policy", "log", "box", env={"TZ": "XXX-2"})
    assert (r.returncode, r.stderr) == (0, "")
    assert daemon.requests[0].path == POLICY + "/log"
    at = "2026-01-02 05:04:05  "
    cell = "{:7}  {:24}  {:24}  {:5}  {}".format
    assert lines(r.stdout) == [
        "TIME                 " + cell("VERDICT", "NAME", "ADDRESS", "COUNT", "WHY"),
        at + cell("allow", "github.com", "192.0.2.1:443/tcp", "1", "allow github.com:443"),
        at + cell("deny", "-", "192.0.2.1:443/tcp", "12", "no rule allows it"),
        at + cell("deny", "evil.example", "-", "1", "deny **.example"),
        at + cell("deny", "-", "192.0.2.1/icmp", "1", "a rule allows it"),
        at + cell("alert", "b.example", "10.0.0.1:443/tcp", "1", "leads to a private address"),
        at + cell("change", "-", "-", "-", "me allowed a.example"),
        at + cell("allow", "github.com", "*:8443/tcp", "1", "allow github.com:443"),
    ]


def test_log_options(daemon, sbx):
    daemon.on("GET", POLICY + "/log", stream())
    r = sbx("policy", "log", "-f", "--denied", "--tail", "5", "box")
    assert r.returncode == 0 and lines(r.stdout)[0].startswith("TIME ") and len(lines(r.stdout)) == 1
    assert sbx("policy", "log", "--json", "-nall", "box").stdout == ""
    assert [q.path for q in daemon.requests] == [
        POLICY + "/log?tail=5&denied=true&follow=true", POLICY + "/log"]


def test_log_json_passes_lines_through(daemon, sbx):
    odd = event(unknown={"deep": [1, None]}, kind="from-the-future", name="\x7f\x9bx")
    daemon.on("GET", POLICY + "/log", stream(json.dumps(odd, ensure_ascii=False).encode() + b"\r\n",
                                             b'{"other": 1}\n'))
    r = sbx("policy", "log", "--json", "box")
    assert r.returncode == 0 and [json.loads(s) for s in lines(r.stdout)] == [odd, {"other": 1}]
    assert plain(r.stdout)


def test_log_passes_over_fields_it_does_not_know(daemon, sbx):
    daemon.on("GET", POLICY + "/log", stream(line(unknown={"deep": [1, None]}, more="x")))
    r = sbx("policy", "log", "box")
    assert r.returncode == 0 and "github.com " in r.stdout


def test_log_does_not_obey_the_guest(daemon, sbx):
    daemon.on("GET", POLICY + "/log", stream(
        line(name=HOSTILE, address=HOSTILE, proto=HOSTILE, rule=HOSTILE, verdict=HOSTILE),
        line(kind=HOSTILE, reason=HOSTILE), line(name="x" * 60000)))
    r = sbx("policy", "log", "box")
    assert r.returncode == 0 and len(lines(r.stdout)) == 4 and plain(r.stdout)
    assert r.stdout.count("a\\x1b[2Jb\\r\\n") == 7
    assert "x" * 60000 in r.stdout


@pytest.mark.parametrize("flags", [[], ["--json"]])
@pytest.mark.parametrize("bad,words", [
    (b'{"kind": "conn', "ends in the middle of a line"), (b"nonsense\n", "cannot be read"),
    (b"{} {}\n", "cannot be read"), (b'{"kind": "\xff"}\n', "cannot be read"),
    (b"x" * 1100000, "a line that does not end"), (b"[1]\n", "cannot be read"),
], ids=["cut", "nonsense", "two", "latin1", "endless", "list"])
def test_log_of_broken_lines(daemon, sbx, bad, words, flags):
    daemon.on("GET", POLICY + "/log", stream(line(), bad))
    r = sbx("policy", "log", "box", *flags)
    assert r.returncode == 125 and words in r.stderr
    assert "github.com" in r.stdout and "nonsense" not in r.stdout


@pytest.mark.parametrize("flags", [[], ["--json"], ["-f"]])
def test_log_that_is_cut_off_is_no_end(daemon, sbx, flags):
    for parts in ([line()], [line(), b'{"kind": "conn']):
        daemon.on("GET", POLICY + "/log", stream(*parts, end=None))
        r = sbx("policy", "log", "box", *flags)
        assert r.returncode == 125 and "github.com" in r.stdout and "conn\"" not in r.stdout
        assert lines(r.stderr)[0] == "sbx: the connection to sandboxd broke in the middle of an answer"


def test_log_follow_shows_at_once_and_ends_by_sigint(daemon, sbx):
    daemon.on("GET", POLICY + "/log", stream(line(), end=False))
    p = sbx.popen("policy", "log", "-f", "box")
    assert p.stdout.readline().startswith(b"TIME ") and b"github.com" in p.stdout.readline()
    p.send_signal(signal.SIGINT)
    assert p.wait(5) == 130
    assert p.communicate()[1] == b""


def test_log_stops_when_nobody_reads(daemon, sbx):
    daemon.on("GET", POLICY + "/log", stream(*[line()] * 3000, end=False))
    p = sbx.popen("policy", "log", "-f", "box")
    p.stdout.close()
    assert p.wait(10) == -signal.SIGPIPE
    p.communicate()


# ---- completion ------------------------------------------------------------------------------

@pytest.mark.parametrize("words,want", [
    (["policy", "de"], ["deny", "define"]), (["policy", "ls", "b"], ["box"]),
    (["policy", "allow", "box", "x"], []), (["policy", "rm", "box", "g"], ["github.com:443"]),
    (["policy", "rm", "box", "github.com", ":", ""], []), (["policy", "rm", "box", "github.com", ":"], []),
    (["policy", "set", "box", ""], ["none", "team"]), (["policy", "set", "box", "./x"], [":files"]),
    (["policy", "show", "t"], ["team"]), (["policy", "define", "team", ""], [":files"]),
    (["policy", "apply", "box", "-f", ""], [":files"]), (["create", "--policy", "n"], ["none"]),
    (["policy", "check", "--j"], ["--json"]), (["create", "--allow", ""], []),
])
def test_completion(daemon, sbx, words, want):
    daemon.reply("GET", "/v1/sandboxes", 200, {"sandboxes": [sandbox()]})
    daemon.reply("GET", POLICY, 200, policy(rules=[rule(), rule(target="g\x1b")]))
    daemon.reply("GET", "/v1/policies", 200, {"policies": [
        named(name="none", kind="preset"), named(), named(name="n\x1b")]})
    r = sbx("__complete", "--", *words)
    assert r.returncode == 0
    assert [s.split("\t")[0] for s in lines(r.stdout)] == want


# ---- doctor ----------------------------------------------------------------------------------

def checks(**missing):
    return {"checks": [{"name": n, "ok": n not in missing, "detail": missing.get(n)} for n in ("nat", "tun")]}


def test_doctor_says_what_is_missing(daemon, sbx):
    daemon.reply("GET", "/v1/checks", 200, checks())
    r = sbx("doctor")
    assert (r.returncode, r.stdout) == (0, "ok       nat\nok       tun\n")
    daemon.reply("GET", "/v1/checks", 200, checks(tun="no \x1b[31mmodule"))
    r = sbx("doctor")
    assert (r.returncode, r.stderr) == (1, "")
    assert r.stdout == "ok       nat\nMISSING  tun: no \\x1b[31mmodule\n"
    r = sbx("doctor", "--json")
    assert r.returncode == 1 and json.loads(r.stdout)["checks"][1]["ok"] is False


# ---- quota -----------------------------------------------------------------------------------

QUOTAS = {"quotas": [
    {"quota": "sandboxes", "unit": "count", "used": 2, "limit": 64, "source": "default"},
    {"quota": "memory", "unit": "bytes", "used": 3 << 29, "limit": 8 << 30, "source": "users.alice"},
    {"quota": "execs", "unit": "count", "used": 0, "limit": -1, "source": "groups.ci", "later": {"a": 1}},
], "owner": {"uid": 1000, "user": "alice"}, "later": 1}


def test_quota_is_a_table_of_use_and_limit(daemon, sbx):
    daemon.reply("GET", "/v1/quota", 200, QUOTAS)
    r = sbx("quota")
    assert (r.returncode, r.stderr) == (0, "")
    assert [line.split() for line in lines(r.stdout)] == [
        ["QUOTA", "USED", "LIMIT"], ["sandboxes", "2", "64"], ["memory", "1.5GiB", "8GiB"],
        ["execs", "0", "unlimited"]]
    assert daemon.requests[0].path == "/v1/quota"
    r = sbx("quota", "--format", "json")
    assert [json.loads(line)["limit"] for line in lines(r.stdout)] == [64, 8 << 30, -1]
    r = sbx("quota", "--format", "{{.quota}} {{.limit}} {{.source}}")
    assert lines(r.stdout)[1:] == ["memory 8589934592 users.alice", "execs -1 groups.ci"]


def test_quota_of_another_is_asked_for_by_uid(daemon, sbx):
    daemon.reply("GET", "/v1/quota", 403, error("permission_denied", "only root may"))
    r = sbx("quota", "--uid", "1001")
    assert (r.returncode, r.stderr) == (125, "sbx: only root may\n")
    assert "1001" in daemon.requests[0].path


def test_what_is_exceeded_comes_with_its_hint(daemon, sbx):
    body = error("quota_exceeded", "quota of cpus: the limit is 2, 2 used, 1 more asked for", "sbx stop NAME")
    body["error"]["details"] = {"quota": "cpus", "limit": 2, "used": 2, "requested": 1}
    daemon.reply("POST", "/v1/sandboxes", 429, body)
    r = sbx("create")
    assert r.returncode == 125
    assert r.stderr.splitlines()[-2:] == [
        "sbx: quota of cpus: the limit is 2, 2 used, 1 more asked for", "hint: sbx stop NAME"]
