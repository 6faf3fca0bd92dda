# SPDX-License-Identifier: MIT
"""Crash-only: the daemon is killed at each named point of its work (daemon/fault.h) and started again.
What is left is compared by fsck and by the host's own word; a sandbox beside with a command in it goes
on through all of it; and the operation can be done again.

The table of docs/RELIABILITY.md is made by running this with SBX_TEST_UPDATE=1; without it, what became
of each point has to be what the table says."""
import contextlib
import glob
import http.client
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess

import hostview
import netns
import pytest
from conftest import BUILD, SANDBOXD, SOURCE, running, wait_until

PAGE = SOURCE + "/docs/RELIABILITY.md"
BEGIN, END = "<!-- killed at each point: begin -->\n", "<!-- killed at each point: end -->\n"
CALLER = 1001           # whose sandboxes are: another one than the daemon's own uid
UPDATE = os.environ.get("SBX_TEST_UPDATE") == "1"


def points():
    """{name: what is true there} by the program itself; {} if it has none."""
    r = subprocess.run([SANDBOXD, "--faults"], capture_output=True, text=True, timeout=60)
    return dict(line.split("\t") for line in r.stdout.splitlines()) if r.returncode == 0 else {}


POINTS = points()
pytestmark = pytest.mark.skipif(not POINTS, reason="sandboxd was built without -Dfaults=true")


def under(prefix):
    return [p for p in POINTS if p.startswith(prefix + ".")]


def table():
    """{(operation, point): [what is true there, found, became]} of the page."""
    with open(PAGE) as f:
        text = f.read()
    rows = [re.split(r"\s*\|\s*", line.strip("|\n ")) for line in
            text.split(BEGIN)[1].split(END)[0].splitlines()[2:]]
    return {(r[0], r[1].strip("`")): r[2:] for r in rows}


SEEN = {}               # the table as it comes


class Bystander:
    """A running sandbox with all that one can have, whose command counts without end."""

    def __init__(self, d):
        self.d, self.text = d, b""
        d.ok("create", "--name", "by", "--workspace", d.workspace(CALLER), "--allow", "198.51.100.9", uid=CALLER)
        self.id = d.get("/v1/sandboxes/by", uid=CALLER)["id"]
        self.exec = d.ok("exec", "-d", "by", "--", "sh", "-c",
                         "i=0; while :; do echo $i; i=$((i+1)); sleep 0.2; done", uid=CALLER).strip()
        self.pids = self.processes()
        self.goes_on()

    def processes(self):
        return {p for p, a in self.d.processes() if f"sbx-{self.id}" in a}

    def goes_on(self):
        """The same machine, the same command, and its output joins on to what was read before."""
        assert self.d.get("/v1/sandboxes/" + self.id)["state"] == "running"
        assert self.processes() == self.pids and self.pids
        assert self.d.get(f"/v1/sandboxes/{self.id}/execs/{self.exec}")["state"] == "running"
        was = len(self.text)
        wait_until(lambda: self.read() > was, what="output")
        lines = self.text.split(b"\n")
        assert lines[:-1] == [b"%d" % i for i in range(len(lines) - 1)]

    def read(self):
        status, _, body = self.d.request(
            "GET", f"/v1/sandboxes/{self.id}/execs/{self.exec}/output?stream=stdout&offset={len(self.text)}")
        assert status == 200, body
        self.text += body
        return len(self.text)


class Operation:
    """What is done again and again, and killed each time at the next point."""
    fault = "{}"                # of $SANDBOXD_FAULT
    uid = CALLER                # who does it

    def __init__(self, d, by):
        self.d, self.by, self.round, self.point = d, by, 0, None

    def before(self):           # the daemon serves; brings about what the operation needs
        pass

    def do(self):               # status of the answer and its JSON; None: the daemon went meanwhile
        raise NotImplementedError

    def became(self):           # the daemon serves again: what the object is
        raise NotImplementedError

    def retried(self):          # done again and let through
        raise NotImplementedError

    def ask(self, method, path, body=None, headers=None):
        try:
            status, _, body = self.d.request(method, path, body, headers, self.uid)
        except (OSError, http.client.HTTPException):
            return None
        return status, body.decode()

    def ok(self, *words):
        return self.d.ok(*words, uid=self.uid)

    def command(self, *words, fault=""):
        """An administrator's, beside the daemon."""
        at = 2 if words[0] in ("image", "audit") else 1
        return subprocess.run(
            [SANDBOXD, *words[:at], "--config", self.d.dir + "/config.json", *words[at:]],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600,
            env={**os.environ, "SANDBOXD_FAULT": fault}, preexec_fn=lambda: netns.enter(self.d.network))

    def done(self, reply, *statuses):
        assert reply and reply[0] in statuses, reply
        return reply


class OnBox(Operation):
    """About a sandbox called box."""
    def box(self):
        status, _, body = self.d.request("GET", "/v1/sandboxes/box", uid=self.uid)
        return json.loads(body) if status == 200 else None

    def before(self):
        if not self.box():
            self.ok("create", "--name", "box", "--no-start", "--workspace", self.workspace())

    def workspace(self):
        if not getattr(self, "shared", None):
            self.shared = self.d.workspace(self.uid)
        return self.shared

    def became(self):
        box = self.box()
        if box and box["state"] == "running":
            assert self.ok("exec", "box", "--", "echo", "here") == "here\n"
        return box["state"] if box else "gone"

    def retried(self):
        self.done(self.do(), 200)


class Create(OnBox):
    points = [p for p in under("create") if p not in ("create.answer", "create.undo")] + \
        under("start") + ["create.answer"]

    def before(self):
        self.d.sbx("rm", "-f", "box", uid=self.uid)
        self.round += 1

    def do(self):
        return self.ask("POST", "/v1/sandboxes", {"name": "box", "workspace": {"path": self.workspace()}},
                        {"Idempotency-Key": f"{type(self).__name__}-{self.round}"})

    def became(self):
        state, box = super().became(), self.box()
        if state == "gone":
            self.round -= 1     # the next one is this one's retry: the same key
        elif state == "running":
            reply = self.done(self.do(), 201)
            assert box["id"] in reply[1]
        return state

    def retried(self):
        assert self.box()["id"] in self.done(self.do(), 201)[1]
        self.ok("rm", "-f", "box")
        self.round += 1
        self.done(self.do(), 201)


class CreateFails(Create):
    points = ["create.undo"]
    fault = "start.guest=EIO,{}"

    def retried(self):
        self.done(self.do(), 201)


class Start(OnBox):
    points = under("start")

    def before(self):
        super().before()
        self.ok("stop", "box")

    def do(self):
        return self.ask("POST", "/v1/sandboxes/box/start")


class StartFails(Start):
    points = under("undo")
    fault = "start.guest=EIO,{}"


class Stop(OnBox):
    points = under("stop")

    def before(self):
        super().before()
        at = self.points.index(self.point)
        if at <= self.points.index("stop.power") or self.box()["state"] == "running":
            self.ok("start", "box")
            return
        # What comes after the power is cut needs no guest that is up: a start that is killed when all
        # is made, and called running. A boot takes long.
        self.d.stop(signal.SIGKILL)
        start(self.d, "start.boot")
        assert not self.ask("POST", "/v1/sandboxes/box/start")
        self.d.process.wait(30)
        with contextlib.closing(sqlite3.connect(self.d.state + "/sandboxd.db")) as db, db:
            db.execute(f"UPDATE vm SET state = {hostview.RUNNING}, started_at = created_at "
                       "WHERE name = 'box'")
        self.d.start()
        assert self.box()["state"] == "running"

    def do(self):
        return self.ask("POST", "/v1/sandboxes/box/stop")


class Remove(OnBox):
    points = ["rm.row", "rm.stop"]

    def before(self):
        super().before()
        self.ok("start", "box")

    def do(self):
        return self.ask("DELETE", "/v1/sandboxes/box")

    def retried(self):
        if not self.box():
            self.before()
        self.done(self.do(), 204)
        assert not self.box()


class RemoveStopped(Remove):
    """One that has a disk and logs, of a start that did not get to its guest."""
    points = [p for p in under("rm") if p not in Remove.points]
    fault = "start.guest=EIO,{}"

    def before(self):
        OnBox.before(self)

    def do(self):
        status, body = self.ask("POST", "/v1/sandboxes/box/start")
        assert status == 500, body
        assert glob.glob(f"{self.d.state}/sandboxes/{self.box()['id']}/vm/disk.qcow2")
        return super().do()

    def retried(self):
        self.before()
        self.done(super().do(), 204)


class Exec(Operation):
    points = under("key")[:1] + under("exec")[:5] + under("key")[1:] + ["exec.end", "exec.forget"]

    def before(self):
        self.round += 1

    def do(self):
        return self.ask("POST", "/v1/sandboxes/by/execs",
                        {"command": ["echo", f"round {self.round}"], "detach": True},
                        {"Idempotency-Key": f"exec-{self.round}"})

    def mine(self):
        return [x for x in self.d.get("/v1/sandboxes/by/execs", self.uid)["execs"]
                if x["command"] == ["echo", f"round {self.round}"]]

    def became(self):
        wait_until(lambda: not any(x["state"] == "running" for x in self.mine()), what="its end")
        found = self.mine()
        if not found:
            self.round -= 1
            return "gone"
        assert len(found) == 1
        assert found[0]["id"] in self.done(self.do(), 201)[1]
        ends = "exited 0, its output whole"
        if self.point == "exec.sent":       # the frame may wait to be written yet
            ends += "; or lost"
        if found[0]["state"] == "lost":
            return "lost" if self.point != "exec.sent" else ends
        _, _, out = self.d.request("GET", f"/v1/sandboxes/by/execs/{found[0]['id']}/output?stream=stdout", uid=self.uid)
        assert (found[0]["state"], found[0]["exit_code"], out) == \
            ("exited", 0, f"round {self.round}\n".encode()), found
        return ends

    def retried(self):
        self.before()
        self.point = None
        self.done(self.do(), 201)
        assert self.became() == "exited 0, its output whole"


class Output(Operation):
    """Of the bystander itself."""
    points = ["exec.output", "exec.count", "exec.credit"]

    def do(self):
        self.d.process.wait(30)

    def became(self):
        return "its output joins on"    # goes_on() has seen it

    def retried(self):
        pass


class OldExec(Operation):
    points = ["exec.old"]

    def do(self):
        for _ in range(200):    # 64 are kept
            if not self.ask("POST", "/v1/sandboxes/by/run", {"command": ["true"]}):
                return None
        return 200, "not one was too old"

    def became(self):
        n = len(self.d.get("/v1/sandboxes/by/execs", self.uid)["execs"])
        assert 60 < n < 70
        return "gone"

    def retried(self):
        self.done(self.ask("POST", "/v1/sandboxes/by/run", {"command": ["true"]}), 200)


class Policy(Operation):
    points = [p for p in under("policy") if p != "policy.undo"]

    def before(self):
        self.done(self.ask("PUT", "/v1/sandboxes/by/policy", {"rules": "allow 198.51.100.9\n"}), 200)

    def do(self):
        return self.ask("POST", "/v1/sandboxes/by/policy/rules",
                        {"verdict": "allow", "targets": ["203.0.113.7:443"]})

    def became(self):
        """The rules that are told are those in force."""
        told = "allow 203.0.113.7:443" in self.d.get("/v1/sandboxes/by/policy", self.uid)["text"]
        elements = hostview.in_network(self.d, "nft", "list", "set", "inet", "sandboxd", "s-" + self.by.id)
        assert "198.51.100.9" in elements and ("203.0.113.7" in elements) == told, elements
        return "the new rules" if told else "the old rules"

    def retried(self):
        self.done(self.do(), 200)
        assert self.became() == "the new rules"


class PolicyFails(Policy):
    points = ["policy.undo"]
    fault = "policy.filter=EIO,{}"


class Audit(Operation):
    points = ["audit.write", "audit.torn", "audit.sync"]

    def do(self):
        self.torn = self.size("audit.log.torn")
        return self.ask("POST", "/v1/sandboxes", {"name": "nothing", "image": "none"})

    def size(self, name):
        with contextlib.suppress(FileNotFoundError):
            return os.stat(f"{self.d.state}/{name}").st_size
        return 0

    def verify(self):
        r = self.command("audit", "verify")
        assert r.returncode == 0, r.stdout + r.stderr

    def became(self):
        self.verify()
        if self.size("audit.log.torn") > self.torn:
            return "the piece is put aside, and said so"
        with open(self.d.state + "/audit.log") as f:
            records = f.read().splitlines()
        last = [r for r in records if '"nothing"' in r or '"kind":"start"' in r][-2:]
        return "the record is there" if any('"nothing"' in r for r in last) else "no record"

    def retried(self):
        self.done(self.do(), 404)
        self.verify()


class Rotation(Audit):
    points = ["audit.rotate", "audit.rename"]

    def do(self):
        self.torn = self.size("audit.log.torn")
        for _ in range(1000):
            if not self.ask("POST", "/v1/sandboxes", {"name": "nothing", "image": "none"}):
                return None
        return 200, "not full yet"

    def became(self):
        self.verify()
        assert not os.path.exists(self.d.state + "/audit.log.new")
        return "the log goes on" if self.size("audit.log") else "no log"

    def retried(self):
        self.done(self.ask("POST", "/v1/sandboxes", {"name": "nothing", "image": "none"}), 404)
        self.verify()


class Command(Operation):
    """Not the daemon's work but a command's beside it; that one is killed, and the daemon then."""
    uid = 0


class Build(Command):
    points = [p for p in under("image") if p not in ("image.files", "image.gone")]

    def before(self):
        self.agent = self.d.dir + "/agent"
        if not os.path.exists(self.agent):      # another one than that of the image there is
            shutil.copy(BUILD + "/guest/sbx-agent", self.agent)
            with open(self.agent, "ab") as f:
                f.write(b"other")
        self.ask("DELETE", "/v1/images/other")

    def do(self, fault=""):
        return self.command("image", "build", "--if-missing", "--name", "other", "--agent", self.agent,
                            "--share-dir", SOURCE + "/guest", fault=fault)

    def became(self):
        named = [i for i in self.d.get("/v1/images")["images"] if i.get("name") == "other"]
        assert not glob.glob(self.d.state + "/images/.build-*") + glob.glob(self.d.state + "/images/.gone-*")
        left = [p for p in glob.glob(self.d.state + "/images/" + "?" * 64)
                 if not self.d.rows(f"SELECT 1 FROM image WHERE digest = 'sha256:{os.path.basename(p)}'")]
        assert not (named and left)
        return "there" if named else "gone; the next build removes its directory" if left else "gone"

    def retried(self):
        r = self.do()
        assert r.returncode == 0, r.stderr
        assert self.became() == "there"
        self.ok("create", "--name", "box", "--image", "other", "--no-start")
        self.ok("rm", "box")


class RemoveImage(Build):
    points = ["image.files", "image.gone"]

    def before(self):
        super().before()
        assert super().do().returncode == 0

    def do(self):
        return self.ask("DELETE", "/v1/images/other")

    def retried(self):
        self.done(self.do(), 404)
        assert Build.do(self).returncode == 0       # takes away what is left
        self.done(self.do(), 204)
        assert self.became() == "gone"


class Backup(Command):
    points = under("backup")

    def before(self):
        for p in glob.glob(self.d.dir + "/copy*"):
            os.unlink(p)

    def do(self, fault=""):
        return self.command("backup", self.d.dir + "/copy", fault=fault)

    def became(self):
        copies = glob.glob(self.d.dir + "/copy*")
        assert len(copies) == 1
        if copies != [self.d.dir + "/copy"]:
            return "no copy; a file beside is left to be removed by hand"
        with contextlib.closing(sqlite3.connect(copies[0])) as db:
            assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            assert ("by",) in db.execute("SELECT name FROM vm").fetchall()
        return "whole"

    def retried(self):
        self.before()
        assert self.do().returncode == 0
        assert self.became() == "whole"


class Repair(Operation):
    """Killed again in the start after a create that was killed when QEMU ran."""
    points = under("repair")
    fault = "{}@start"

    def do(self):
        self.d.stop(signal.SIGKILL)
        start(self.d, "start.guest")
        self.ask("POST", "/v1/sandboxes", {"name": "box", "workspace": {"path": self.d.workspace(self.uid)}})
        assert self.d.process.wait(60) == -signal.SIGKILL
        start(self.d, self.fault.format(self.point), expect_failure=True)

    def became(self):
        assert [s["name"] for s in self.d.get("/v1/sandboxes")["sandboxes"]] == ["by"]
        return "gone"

    def retried(self):
        self.d.stop(signal.SIGKILL)
        self.d.start()


OPERATIONS = {
    "create": Create, "create that fails": CreateFails, "start": Start, "start that fails": StartFails,
    "exec": Exec, "exec's output": Output, "65th exec": OldExec, "stop": Stop, "rm": Remove,
    "rm of a stopped one": RemoveStopped, "policy change": Policy, "policy change that fails": PolicyFails,
    "audit record": Audit, "audit log full": Rotation, "image build": Build, "image rm": RemoveImage,
    "backup": Backup, "start of the daemon": Repair,
}


def start(d, fault, **kw):
    d.env = {"SANDBOXD_FAULT": fault}
    try:
        return d.start(**kw)
    finally:
        d.env = {}


@pytest.fixture(scope="module")
def world():
    with running(audit_size=65536) as d:
        by = Bystander(d)
        yield d, by
        d.ok("rm", "-f", by.id)


def found(d):
    r = d.fsck("--json")
    return sorted({f["kind"] for f in json.loads(r.stdout)["findings"]})


def killed(op, point):
    """Does it and sees it die at that point and at no other."""
    d = op.d
    log = len(d.log())
    if isinstance(op, Command) and not isinstance(op, RemoveImage):
        r = op.do(op.fault.format(point))
        assert r.returncode == -signal.SIGKILL, f"{point} was not passed: {r}"
        assert r.stderr.endswith(f"fault: {point}\n"), r.stderr
        d.stop(signal.SIGKILL)
        return
    d.stop(signal.SIGKILL)
    if isinstance(op, Repair):
        d.start()
    else:
        start(d, op.fault.format(point))
    reply = op.do()
    try:
        status = d.process.wait(30)     # also what goes on behind an answer
    except subprocess.TimeoutExpired:
        raise AssertionError(f"{point} was not passed: {reply}") from None
    assert status == -signal.SIGKILL, (point, status)
    assert d.log()[log:].endswith(f"fault: {point}\n"), (point, d.log()[-1000:])
    d.process = None


@pytest.mark.parametrize("name", OPERATIONS)
def test_killed_at_each_point_it_comes_back_in_order(world, name):
    d, by = world
    if not d.process or d.process.poll() is not None:       # the test before has failed
        d.start()
    op = OPERATIONS[name](d, by)
    said = {} if UPDATE else table()
    d.sbx("rm", "-f", "box", uid=op.uid)
    for op.point in op.points:
        point = op.point
        op.before()
        killed(op, point)
        left = found(d)
        d.start()
        assert hostview.differences(d) == [], point
        assert d.findings(status=0) == {}, point
        by.goes_on()
        became = op.became()
        SEEN[name, point] = [POINTS[point], ", ".join(left) or "nothing", became]
        assert UPDATE or said[name, point] == SEEN[name, point], (point, SEEN[name, point])
    op.retried()
    d.sbx("rm", "-f", "box", uid=op.uid)
    assert hostview.differences(d) == []


def test_each_point_belongs_to_an_operation():
    assert {p for op in OPERATIONS.values() for p in op.points} == set(POINTS)
    assert all(sum(p in op.points for op in OPERATIONS.values()) == 1 or p.startswith("start.")
               for p in POINTS)


def test_the_table_names_the_points_of_the_program():
    if UPDATE and {n for n, _ in SEEN} == set(OPERATIONS):
        with open(PAGE) as f:
            before, rest = f.read().split(BEGIN)
        with open(PAGE, "w") as f:
            f.write(before + BEGIN + "| Operation | Point | What is true there | fsck finds | After the next start |\n"
                    "|---|---|---|---|---|\n")
            for (name, point), row in SEEN.items():
                f.write(f"| {name} | `{point}` | " + " | ".join(row) + " |\n")
            f.write(END + rest.split(END)[1])
    assert list(table()) == [(name, p) for name, op in OPERATIONS.items() for p in op.points]
    assert all(row[0] == POINTS[point] for (_, point), row in table().items())
