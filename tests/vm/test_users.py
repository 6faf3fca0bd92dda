# SPDX-License-Identifier: MIT
"""Two users on one daemon: whatever the API offers for a sandbox, the one who does not own it is told what is
told of a sandbox that does not exist, word for word, and the sandbox stays as it is."""
import grp
import json
import os
import re
import subprocess

import pytest
import yaml
from sandboxd import SOURCE, Daemon, running

ANN, BOB = 1001, 60000      # uids of the kernel; whether they have accounts makes no difference

# What is asked for, by every route of a sandbox: method and what follows the sandbox's name.
ASKED = {
    ("get", ""): None, ("delete", ""): None, ("patch", ""): {"ttl_ms": 1000}, ("delete", "?force=true"): None,
    ("post", "/start"): None, ("post", "/stop"): None, ("post", "/stop?timeout_ms=0"): None,
    ("post", "/restart"): None, ("get", "/logs"): None, ("get", "/stats"): None,
    ("get", "/execs"): None, ("post", "/execs"): {"command": ["true"]},
    ("post", "/run"): {"command": ["touch", "/workspace/somebody-was-here"], "user": "root"},
    ("get", "/execs/{exec}"): None, ("get", "/execs/{exec}/attach"): None,
    ("post", "/execs/{exec}/resize"): {"rows": 10, "cols": 10},
    ("post", "/execs/{exec}/signal"): {"signal": "KILL"},
    ("get", "/execs/{exec}/output?stream=stdout"): None,
    ("get", "/policy"): None, ("put", "/policy"): {"policy": "open"},
    ("post", "/policy/rules"): {"verdict": "allow", "targets": ["example.com:443"]},
    ("get", "/policy/check?target=example.com:443"): None, ("get", "/policy/why?target=example.com:443"): None,
    ("get", "/policy/log"): None, ("post", "/policy/prove"): None,
}


@pytest.fixture(scope="module")
def daemon():
    d = Daemon(default_policy="none")
    d.start()
    yield d
    left = d.close()
    assert not left, left


def make(daemon, uid, name):
    """With a command that runs; its id, the command's, and its workspace."""
    work = daemon.workspace(uid, 0o700)
    daemon.ok("create", "--name", name, "--workspace", work, uid=uid)
    exec_id = daemon.ok("exec", "-d", name, "sleep", "1000", uid=uid).strip()
    return json.loads(daemon.ok("inspect", name, uid=uid))[0]["id"], exec_id, work


@pytest.fixture(scope="module")
def box(daemon):
    """Ann's."""
    return make(daemon, ANN, "anns")


@pytest.fixture(scope="module", params=["bob-asks-ann", "ann-asks-bob"])
def theirs(request, daemon, box):
    """Who asks, who has it, and what it is called; Bob's is there while Ann asks. Ann is there first and Bob later,
    Bob has the greater uid: whom the daemon takes for the owner must not hang on either."""
    if request.param == "bob-asks-ann":
        yield BOB, ANN, "anns", box
        return
    yield ANN, BOB, "bobs", make(daemon, BOB, "bobs")
    daemon.ok("rm", "-f", "bobs", uid=BOB)


def ask(d, uid, method, path, body=None, gid=None, groups=()):
    """As curl of that user, whose group is called as he is unless it is said: status and body."""
    gid = uid if gid is None else gid
    argv = ["curl", "-sS", "-m", "240", "--unix-socket", d.socket, "-X", method.upper(), "-w", "\n%{http_code}",
            "http://localhost" + path]
    if body is not None:
        argv += ["-H", "Content-Type: application/json", "-d", json.dumps(body)]
    if path.endswith("/attach"):
        argv += ["-H", "Connection: Upgrade", "-H", "Upgrade: sbx-stream"]
    r = subprocess.run(argv, capture_output=True, text=True, check=True, cwd="/",
                       preexec_fn=lambda: (os.setgroups(groups), os.setresgid(gid, gid, gid), os.setresuid(uid, uid, uid)))
    text, status = r.stdout.rsplit("\n", 1)
    return int(status), text


def refusal(d, uid, method, path, name, body):
    """What is told of NAME in a path, but for the name itself."""
    status, text = ask(d, uid, method, path.replace("NAME", name), body)
    error = json.loads(text)["error"]
    return status, error["code"], error["message"].replace(name, "NAME"), error.get("hint"), error.get("details")


def test_every_route_is_asked():
    with open(SOURCE + "/api/openapi.yaml") as f:
        paths = yaml.safe_load(f)["paths"]
    routes = {(method, re.sub(r"^/v1/sandboxes/\{\w+\}", "", path).replace("{id}", "{exec}"))
              for path, item in paths.items() if re.match(r"^/v1/sandboxes/\{", path)
              for method in item if method in ("get", "put", "post", "delete", "patch")}
    assert routes == {(method, path.split("?")[0]) for method, path in ASKED}


@pytest.mark.parametrize("method,path", ASKED, ids=lambda v: v)
def test_another_users_sandbox_does_not_exist(daemon, theirs, method, path):
    asks, owner, called, (sandbox, exec_id, work) = theirs
    before = ask(daemon, owner, "get", f"/v1/sandboxes/{sandbox}")
    policy = daemon.ok("policy", "export", called, uid=owner)
    body = ASKED[method, path]
    path = path.replace("{exec}", exec_id)

    def told(name):
        return refusal(daemon, asks, method, "/v1/sandboxes/NAME" + path, name, body)
    nobody = told("0123456789abcdef")
    assert nobody[:2] == (404, "sandbox_not_found")
    for name in (sandbox, sandbox[:8], called):
        assert told(name) == nobody
    assert ask(daemon, owner, "get", f"/v1/sandboxes/{sandbox}") == before
    assert daemon.ok("policy", "export", called, uid=owner) == policy
    assert os.listdir(work) == []
    assert '"running"' in ask(daemon, owner, "get", f"/v1/sandboxes/{sandbox}/execs/{exec_id}")[1]


def test_another_users_command_is_not_in_ones_own_sandbox(daemon, box):
    """Each names the other's command below a sandbox of his own: it is told of as one that does not exist."""
    bobs = make(daemon, BOB, "bobs-own")
    routes = [(method, path) for method, path in ASKED if "{exec}" in path]
    assert len(routes) == 5
    for asks, owner, (own, own_exec, _), (theirs, exec_id, _) in ((BOB, ANN, bobs, box), (ANN, BOB, box, bobs)):
        for method, path in routes:
            def told(name):
                return refusal(daemon, asks, method, f"/v1/sandboxes/{own}{path.replace('{exec}', 'NAME')}", name,
                               ASKED[method, path])
            nobody = told("0123456789abcdef")
            assert nobody[:2] == (404, "exec_not_found"), (method, path)
            assert told(exec_id) == told(exec_id[:8]) == nobody, (method, path)
        for who, sandbox, name in ((owner, theirs, exec_id), (asks, own, own_exec)):
            assert '"running"' in ask(daemon, who, "get", f"/v1/sandboxes/{sandbox}/execs/{name}")[1]
    daemon.ok("rm", "-f", "bobs-own", uid=BOB)


def test_lists_have_ones_own(daemon, box):
    daemon.ok("create", "--name", "also-bobs", "--no-start", uid=BOB)

    def names(uid):
        return {s["name"] for s in json.loads(ask(daemon, uid, "get", "/v1/sandboxes")[1])["sandboxes"]} - {"bobs"}
    assert (names(BOB), names(ANN)) == ({"also-bobs"}, {"anns"})
    assert names(0) == {"also-bobs", "anns"}
    daemon.ok("rm", "also-bobs", uid=BOB)


def test_names_are_ones_own(daemon, box):
    """Bob may call his as Ann calls hers, and each means the own one."""
    daemon.ok("create", "--name", "anns", "--no-start", uid=BOB)
    assert json.loads(daemon.ok("inspect", "anns", uid=BOB))[0]["state"] == "stopped"
    assert json.loads(daemon.ok("inspect", "anns", uid=ANN))[0]["id"] == box[0]
    daemon.ok("rm", "anns", uid=BOB)
    assert json.loads(daemon.ok("inspect", "anns", uid=ANN))[0]["state"] == "running"


@pytest.mark.parametrize("owner,other", [(ANN, BOB), (BOB, ANN)], ids=["anns", "bobs"])
def test_policies_with_names_are_ones_own(daemon, owner, other):
    team = f"/v1/policies/team-{owner}"
    assert ask(daemon, owner, "put", team, {"rules": "allow example.com:443\n"})[0] in (200, 201, 204)
    assert ask(daemon, other, "get", team)[0] == 404
    assert ask(daemon, other, "delete", team)[0] == 404
    assert f"team-{owner}" not in ask(daemon, other, "get", "/v1/policies")[1]
    assert daemon.sbx("create", "--name", "none", "--no-start", "--policy", f"team-{owner}",
                      uid=other).returncode == 125
    assert ask(daemon, owner, "get", team)[0] == 200


def test_images_are_the_administrators(daemon):
    image = daemon.get("/v1/images")["images"][0]
    assert ask(daemon, BOB, "delete", "/v1/images/" + image["digest"])[0] == 403
    assert daemon.get("/v1/images")["images"][0] == image


def test_events_are_ones_own(daemon, box):
    sandbox = box[0]
    mine = ask(daemon, ANN, "get", "/v1/events")[1].splitlines()
    assert mine and all(json.loads(line)["owner"] == {"uid": ANN} for line in mine)
    assert all(json.loads(line).get("owner") == {"uid": BOB}
               for line in ask(daemon, BOB, "get", "/v1/events")[1].splitlines())
    nobody = ask(daemon, BOB, "get", "/v1/events?sandbox=0123456789abcdef")
    for name in (sandbox, sandbox[:8]):
        status, text = ask(daemon, BOB, "get", "/v1/events?sandbox=" + name)
        assert status == nobody[0] == 404 and json.loads(text)["error"]["code"] == "sandbox_not_found"


def test_members_of_the_admin_group_manage_everybodys():
    """Bob is one by his own group or by a further one; with neither he is nobody."""
    admins = grp.getgrnam("users").gr_gid
    with running(default_policy="none", admin_group="users") as d:
        made = json.loads(ask(d, ANN, "post", "/v1/sandboxes", {"name": "anns"})[1])
        sandbox = "/v1/sandboxes/" + made["id"]
        images = d.get("/v1/images")["images"]
        image = "/v1/images/" + next(i["digest"] for i in images if i["name"] == made["image"]["name"])
        nobody = {"gid": BOB, "groups": [admins + 1]}
        for path in (sandbox, sandbox + "/logs", sandbox + "/policy"):
            assert ask(d, BOB, "get", path, **nobody)[0] == 404
        for method, path in (("get", "/v1/audit/verify"), ("delete", image), ("get", f"/v1/quota?uid={ANN}")):
            status, text = ask(d, BOB, method, path, **nobody)
            assert (status, json.loads(text)["error"]["code"]) == (403, "permission_denied"), path
        assert json.loads(ask(d, BOB, "get", "/v1/sandboxes", **nobody)[1])["sandboxes"] == []

        for member in ({"gid": admins}, {"gid": BOB, "groups": [admins + 1, admins]}):
            assert json.loads(ask(d, BOB, "get", sandbox, **member)[1])["owner"]["uid"] == ANN
            assert ask(d, BOB, "get", "/v1/sandboxes/anns", **member)[0] == 404      # others' by their ids only
            assert [s["id"] for s in json.loads(ask(d, BOB, "get", "/v1/sandboxes", **member)[1])["sandboxes"]] \
                == [made["id"]]
            assert ask(d, BOB, "get", f"/v1/quota?uid={ANN}", **member)[0] == 200
            owners = [json.loads(line).get("owner") for line in ask(d, BOB, "get", "/v1/events", **member)[1].splitlines()]
            assert {"uid": ANN} in owners
            status, text = ask(d, BOB, "get", "/v1/audit/verify", **member)
            assert status == 200 and json.loads(text)["intact"]
            status, text = ask(d, BOB, "post", sandbox + "/run", {"command": ["id", "-un"]}, **member)
            assert status == 200 and json.loads(text)["stdout"] == "agent\n"
            assert ask(d, BOB, "delete", image, **member)[0] == 409      # in use

        assert ask(d, BOB, "delete", sandbox + "?force=true", **nobody)[0] == 404
        assert ask(d, BOB, "delete", sandbox + "?force=true", gid=admins)[0] == 204
        assert d.get("/v1/sandboxes")["sandboxes"] == []
        assert ask(d, BOB, "delete", image, **nobody)[0] == 403
        assert ask(d, BOB, "delete", image, groups=[admins])[0] == 204
        assert len(d.get("/v1/images")["images"]) == len(images) - 1
