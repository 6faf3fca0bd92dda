# SPDX-License-Identifier: MIT
"""sbx policy against a real daemon: what the played one of tests/integration cannot know, that both
sides mean the same. The sandbox is stopped, so that this takes no machine."""
import json

import pytest


@pytest.fixture
def stopped(daemon):
    made = []

    def make(*args):
        r = daemon.sbx("create", "--no-start", *args)
        assert r.returncode == 0, r.stderr
        made.append(r.stdout.strip())
        return made[-1]
    yield make
    if made:
        daemon.sbx("rm", "-f", *made)


def ok(daemon, *args, **kw):
    r = daemon.sbx("policy", *args, **kw)
    assert (r.returncode, r.stderr) == (0, ""), (args, r.stdout, r.stderr)
    return r.stdout


def targets(daemon, name):
    rules = json.loads(ok(daemon, "ls", "--json", name))["rules"]
    return [(r["verdict"], r["target"], r["source"]) for r in rules]


def test_presets_and_policies(daemon, stopped, tmp_path):
    out = ok(daemon, "ls")
    assert [s.split()[:2] for s in out.splitlines()[1:5]] == [
        [p, "preset"] for p in ("none", "agent", "dev", "open")]
    assert "allow api.anthropic.com:443" in ok(daemon, "show", "agent")
    (tmp_path / "p").write_text("# ours\nallow a.example:443   # a\ndeny b.example\n")
    assert ok(daemon, "define", "team", str(tmp_path / "p")) == "team\n"
    assert ok(daemon, "show", "team") == (tmp_path / "p").read_text()
    box = stopped("--policy", "team")
    want = [("allow", "a.example:443", "policy team"), ("deny", "b.example", "policy team")]
    assert targets(daemon, box) == want
    assert json.loads(daemon.sbx("inspect", box).stdout)[0]["network"]["policy"] == "team"
    assert ok(daemon, "undefine", "team") == "team\n"
    assert targets(daemon, box) == want
    for args in (["undefine", "team"], ["show", "team"], ["set", box, "team"]):
        r = daemon.sbx("policy", *args)
        assert r.returncode == 125 and r.stderr.startswith("sbx: ") and "\nhint: " in r.stderr
    r = daemon.sbx("policy", "define", "open", "-", stdin=b"")
    assert r.returncode == 125 and "'open'" in r.stderr


def test_rules(daemon, stopped):
    box = stopped("--policy", "none", "--allow", "A.Example.:443", "--deny", "b.example")
    assert targets(daemon, box) == [("allow", "a.example:443", "user"), ("deny", "b.example", "user")]
    ok(daemon, "allow", box, "*.c.example", "10.1.0.0/16:5432", "b.example")
    assert targets(daemon, box)[1:] == [("allow", t, "user") for t in (
        "*.c.example", "10.1.0.0/16:5432", "b.example")]
    r = daemon.sbx("policy", "allow", box, "d.example", "*")
    assert r.returncode == 125 and r.stderr.startswith("sbx: ")
    r = daemon.sbx("policy", "rm", box, "none.example")
    assert r.returncode == 125 and "\nhint: " in r.stderr
    ok(daemon, "rm", box, "*.c.example", "b.example")
    assert len(targets(daemon, box)) == 2
    for target, status in (("a.example:443", 0), ("a.example", 0), ("a.example:80", 1),
                           ("b.example", 1), ("10.1.2.3:5432", 0), ("10.1.2.3:22", 1),
                           ("169.254.169.254", 1), ("*.a.example", 125), ("::1", 125)):
        for verb in ("check", "why"):
            r = daemon.sbx("policy", verb, box, target)
            want = status if verb == "check" or status == 125 else 0
            assert r.returncode == want, (verb, target, r.stdout, r.stderr)
            assert bool(r.stderr) == (status == 125)
    out = ok(daemon, "check", box, "a.example:443")
    assert out == "allow a.example:443\n  allow a.example:443 (user): a rule allows it\n"
    out = ok(daemon, "why", box, "a.example:443")
    assert "\nAdded by:   root\n" in out and "\nMatches:    0\n" in out


def test_files_go_round(daemon, stopped, tmp_path):
    box, other = stopped("--policy", "dev"), stopped("--policy", "none")
    ok(daemon, "deny", box, "github.com:22/tcp")
    text = ok(daemon, "export", box)
    (tmp_path / "p").write_text(text)
    ok(daemon, "apply", other, "-f", str(tmp_path / "p"))
    assert ok(daemon, "export", other) == text
    assert [t[:2] for t in targets(daemon, other)] == [t[:2] for t in targets(daemon, box)]
    third = stopped("--policy", str(tmp_path / "p"), "--allow", "z.example")
    assert [t[2] for t in targets(daemon, third)][-2:] == ["rules", "user"]
    r = daemon.sbx("policy", "set", other, "-", stdin=(text + "allow *\n").encode())
    assert r.returncode == 125 and "line" in r.stderr
    assert ok(daemon, "export", other) == text
    ok(daemon, "set", other, "open")
    assert targets(daemon, other) == [("allow", "0.0.0.0/0/tcp", "preset open"),
                                      ("allow", "0.0.0.0/0/udp", "preset open")]
    ok(daemon, "set", other, "-", stdin=b"")
    assert ok(daemon, "export", other) == "" or ok(daemon, "export", other).startswith("#")


def test_log_of_a_sandbox_that_never_ran(daemon, stopped):
    box = stopped("--policy", "none")
    assert len(ok(daemon, "log", box).splitlines()) == 1
    assert ok(daemon, "log", "--json", "--denied", "--tail", "3", box) == ""


def test_unknown_names(daemon):
    for args in (["ls", "nobody"], ["log", "nobody"], ["export", "nobody"], ["set", "nobody", "open"],
                 ["check", "nobody", "a.example"], ["why", "nobody", "a.example"]):
        r = daemon.sbx("policy", *args)
        assert (r.returncode, r.stdout) == (125, "") and "nobody" in r.stderr, args
    r = daemon.sbx("create", "--no-start", "--policy", "nobody")
    assert r.returncode == 125 and "nobody" in r.stderr
