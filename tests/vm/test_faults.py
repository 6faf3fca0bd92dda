# SPDX-License-Identifier: MIT
"""The disk under state_dir is full, or turns read-only under a running daemon: what is asked meanwhile is done
whole or refused by a stable code, nothing is half made, and all goes on when there is room again."""
import contextlib
import json
import os
import subprocess

import pytest
from sandboxd import Daemon, wait_until

CODES = {507: "no_space", 503: "unavailable"}


class Small:
    """A daemon with its state on an ext4 of its own."""

    def __init__(self, **config):
        self.d = d = Daemon(network=False, min_free_disk=0, **config)
        self.image, self.where = d.dir + "/small.img", d.dir + "/small"
        images, d.state = d.state + "/images", self.where
        os.mkdir(self.where, 0o711)
        subprocess.run(["truncate", "-s", "224M", self.image], check=True)
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", "-e", "remount-ro", self.image], check=True)
        self.images = images
        self.mount()
        os.mkdir(self.where + "/images")
        for name in ("sandboxd.db", "libvirt"):
            if os.path.exists(d.dir + "/state/" + name):
                subprocess.run(["cp", "-a", d.dir + "/state/" + name, self.where], check=True)
        self.bind()
        d.config["state_dir"] = self.where
        with open(d.dir + "/config.json", "w") as f:
            json.dump(d.config, f)
        d.start()

    def mount(self):
        subprocess.run(["mount", "-o", "loop", self.image, self.where], check=True)

    def bind(self):
        subprocess.run(["mount", "--bind", self.images, self.where + "/images"], check=True)

    def umount(self):
        subprocess.run(["umount", self.where + "/images"], check=True)
        # what the daemon has mounted for itself is in a namespace that ends with it and its guests
        subprocess.run(["umount", self.where], check=True)

    def fill(self):
        with open(self.where + "/filler", "wb", buffering=0) as f:
            for size in (1 << 20, 4096, 512):
                with contextlib.suppress(OSError):
                    while True:
                        f.write(b"x" * size)

    def empty(self):
        os.unlink(self.where + "/filler")

    def break_it(self):
        device = subprocess.run(["findmnt", "-n", "-o", "SOURCE", "-M", self.where], check=True,
                                capture_output=True, text=True).stdout.strip()
        subprocess.run(["sync", "-f", self.where], check=True)     # what came after it is as after a power cut
        with open(f"/sys/fs/ext4/{os.path.basename(device)}/trigger_fs_error", "w") as f:
            f.write("a test says so")
        with pytest.raises(OSError):
            open(self.where + "/probe", "w")

    def mend(self):
        self.umount()
        # A copy: whoever has copied the mount meanwhile, with a namespace of his own, keeps the broken one.
        os.rename(self.image, self.image + ".broken")
        subprocess.run(["cp", "--sparse=always", self.image + ".broken", self.image], check=True)
        r = subprocess.run(["e2fsck", "-fy", self.image], capture_output=True, text=True)
        assert r.returncode in (0, 1), (r.stdout, r.stderr)
        self.mount()
        self.bind()

    def ask(self, method, path, body=None):
        """(status, code); a success has no code."""
        status, _, text = self.d.request(method, path, body)
        return status, json.loads(text)["error"]["code"] if status >= 400 else None

    def close(self):
        for s in self.d.get("/v1/sandboxes")["sandboxes"]:
            self.d.ok("rm", "-f", s["id"])
        left = self.d.findings(status=0)
        self.d.stop()
        subprocess.run(["umount", self.where + "/images"], check=True)
        subprocess.run(["umount", self.where], check=True)
        left = [*left, *self.d.close()]
        assert not left, left


@contextlib.contextmanager
def small(**config):
    s = Small(**config)
    try:
        yield s
        s.close()
    except BaseException:
        s.d.stop(9)
        for pid, _ in s.d.processes():
            with contextlib.suppress(OSError):
                os.kill(pid, 9)
        subprocess.run(["umount", "-l", s.where + "/images"])
        subprocess.run(["umount", "-l", s.where])
        raise


def tries(s, n):
    """What writes, by all kinds of callers: {what: (status, code)}, and whether it is there."""
    return {
        "create": s.ask("POST", "/v1/sandboxes", {"name": f"new{n}", "start": False}),
        "policy set": s.ask("PUT", "/v1/sandboxes/old/policy", {"rules": f"allow n{n}.example.com\n"}),
        "policy define": s.ask("PUT", f"/v1/policies/p{n}", {"rules": "allow a.example.com\n"}),
        "update": s.ask("PATCH", "/v1/sandboxes/old", {"idle_timeout_ms": n * 3600_000, "restart": f"on-failure:{n}"}),
        "start": s.ask("POST", "/v1/sandboxes/old/start"),
        "exec": s.ask("POST", "/v1/sandboxes/box/run", {"command": ["true"]}),
    }


def there(s, n):
    d = s.d
    rules, old = d.get("/v1/sandboxes/old/policy")["rules"], d.get("/v1/sandboxes/old")
    return {
        "create": any(v["name"] == f"new{n}" for v in d.get("/v1/sandboxes")["sandboxes"]),
        "policy set": any(r["target"] == f"n{n}.example.com" for r in rules),
        "policy define": any(p["name"] == f"p{n}" for p in d.get("/v1/policies")["policies"]),
        "update": old["idle_timeout_ms"] == n * 3600_000 or old["restart"] == f"on-failure:{n}",
        "start": old["state"] == "running",
    }


def done_or_refused(s, n, codes):
    """How many were refused."""
    said, found = tries(s, n), there(s, n)
    for what, (status, code) in said.items():
        assert status < 300 or CODES.get(status) == code and code in codes, (what, status, code)
        if what in found:
            assert found[what] == (status < 300), (what, status, found)
    return [what for what, (status, _) in said.items() if status >= 300]


def prepare(s):
    wait_until(lambda: os.path.exists(s.where + "/room"), what="what is kept for a start")
    s.d.ok("create", "--name", "box")
    s.d.ok("create", "--name", "old", "--no-start")


def all_goes_on(s, n):
    # a guest that was paused for want of room goes on by itself
    wait_until(lambda: s.d.sbx("exec", "box", "true").returncode == 0, 120, "the guest")
    if s.d.get("/v1/sandboxes/old")["state"] == "running":
        s.d.ok("stop", "old")
    assert done_or_refused(s, n, ()) == []
    s.d.ok("stop", "old")


def exhaust(s):
    """Stores what it can until there is no room for it; what was stored is whole."""
    rules = "".join(f"allow {'a' * 60}.{'b' * 60}.n{i}.example.com\n" for i in range(400))
    for n in range(90):
        status, code = s.ask("PUT", f"/v1/policies/big{n}", {"rules": rules})
        if status == 507:
            break
        assert status < 300, (status, code)
    assert (status, code) == (507, "no_space")
    stored = [p["name"] for p in s.d.get("/v1/policies")["policies"] if p["name"].startswith("big")]
    assert len(stored) == n
    if stored:
        assert s.d.get(f"/v1/policies/{stored[-1]}")["rules"].count("\n") == 400


@pytest.mark.parametrize("audit", ["required", "best-effort", "off"])
def test_a_full_disk(audit):
    with small(audit=audit) as s:
        prepare(s)
        s.d.ok("create", "--name", "gone", "--no-start")
        s.fill()
        assert "start" in done_or_refused(s, 1, ("no_space",))      # it would need a disk
        # what makes room is done, what runs goes on
        s.d.ok("rm", "-f", "gone")
        assert s.d.run_in("box", "echo", "on")["stdout"] == "on\n"
        exhaust(s)
        done_or_refused(s, 2, ("no_space",))
        assert {v["name"] for v in s.d.get("/v1/sandboxes")["sandboxes"]} >= {"box", "old"}
        # a copy: none on that disk, one elsewhere
        r = s.d.sandboxd("backup", s.where + "/copy")
        assert r.returncode != 0 and not [n for n in os.listdir(s.where) if n.startswith("copy")], r
        r = s.d.sandboxd("backup", s.d.dir + "/copy")
        assert r.returncode == 0 and os.path.getsize(s.d.dir + "/copy") > 0, r
        os.unlink(s.d.dir + "/copy")
        assert s.d.findings(status=0) == {}
        s.empty()
        all_goes_on(s, 3)


def test_a_start_on_a_full_disk_and_one_after_it():
    """The daemon begins when there is no room, says what it lacks or serves, and begins well afterwards."""
    with small() as s:
        prepare(s)
        s.d.stop(9)
        s.fill()
        s.d.start()
        assert {v["name"]: v["state"] for v in s.d.get("/v1/sandboxes")["sandboxes"]} == \
            {"box": "running", "old": "stopped"}
        done_or_refused(s, 1, ("no_space",))
        s.d.stop()
        s.empty()
        s.d.start()
        assert s.d.run_in("box", "echo", "on")["stdout"] == "on\n"
        all_goes_on(s, 2)


@pytest.mark.parametrize("audit", ["required", "off"])
def test_a_file_system_that_turns_read_only(audit):
    """As ext4 does it when it finds an error. What is stored then is not changed, and said to be so."""
    with small(audit=audit) as s:
        prepare(s)
        s.break_it()
        refused = done_or_refused(s, 1, ("unavailable", "no_space"))
        assert {"create", "policy set", "policy define", "update", "start"} <= set(refused)
        assert s.ask("DELETE", "/v1/sandboxes/old?force=true")[0] == 503
        r = s.d.sandboxd("backup", s.where + "/copy")
        assert r.returncode != 0, r
        assert s.d.get("/v1/info")["sandboxes"] == 2
        # a new daemon does not begin on it, and ends nothing
        pid = qemus(s)
        s.d.stop()
        assert s.d.start(expect_failure=True) == 1
        assert "ead-only" in s.d.log() and qemus(s) == pid
        for p in pid:               # it holds the file system
            os.kill(p, 9)
        wait_until(lambda: not qemus(s), what="the end of the guest")
        s.mend()
        s.d.start()
        assert s.d.get("/v1/sandboxes/box")["state"] == "stopped"
        assert s.d.findings(status=0) == {}
        s.d.ok("start", "box")
        all_goes_on(s, 2)


def qemus(s):
    return [pid for pid, args in s.d.processes() if "qemu" in args]
