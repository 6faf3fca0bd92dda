# SPDX-License-Identifier: MIT
"""The processes of a running sandbox are what docs/SECURITY-MODEL.md says of them: whose they are, what they may,
what they see, and which files they hold. What a taken-over one would have, is what stands here."""
import contextlib
import os
import re

import pytest
from sandboxd import SOURCE, Daemon

CALLER = 1001
NAMESPACES = ("user", "mnt", "pid", "net", "ipc", "uts")
CAPS = ("CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE "
        "NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT "
        "SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL "
        "SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF "
        "CHECKPOINT_RESTORE").split()
ANON = r"anon_inode:\[(eventfd|signalfd|eventpoll)\]|socket:\[\d+\]"


class Thread:
    def __init__(self, pid):
        self.pid = pid
        with open(f"/proc/{pid}/status") as f:
            self.status = dict(line.rstrip("\n").split(":\t", 1) for line in f if ":\t" in line)
        self.depth = len(self.status["NSpid"].split())      # of its pid namespace
        self.filters = int(self.status["Seccomp_filters"])

    def caps(self, which):
        mask = int(self.status["Cap" + which], 16)
        return {name for i, name in enumerate(CAPS) if mask >> i & 1}


class Process(Thread):
    def __init__(self, daemon, pid):
        super().__init__(pid)
        self.threads = []
        for n in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):    # ended since
                self.threads.append(Thread(f"{pid}/task/{n}"))
        with open(f"/proc/{pid}/cmdline") as f:
            self.args = f.read().split("\0")
        self.uids = set(map(int, self.status["Uid"].split()))
        self.gids = set(map(int, self.status["Gid"].split() + self.status["Groups"].split()))
        self.apart = {n for n in NAMESPACES
                      if os.readlink(f"/proc/{pid}/ns/{n}") != os.readlink(f"/proc/{daemon.process.pid}/ns/{n}")}
        self.files = []
        for n in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):    # closed since
                self.files.append(os.readlink(f"/proc/{pid}/fd/{n}").replace(daemon.dir, "D"))

    def holds_only(self, *patterns):
        every = re.compile("|".join((ANON, "/dev/null") + patterns))
        return [f for f in self.files if not every.fullmatch(f)] == []

    def none(self, daemon):
        """No capability, no way to get one, and a filter of system calls beside the daemon's own, if it has one."""
        for t in [self, *self.threads]:
            for which in ("Inh", "Prm", "Eff", "Amb"):
                assert not t.caps(which), (which, t.status)
            assert (t.status["NoNewPrivs"], t.status["Seccomp"]) == ("1", "2"), t.status
            assert t.filters > daemon.filters, t.status


@pytest.fixture(scope="module")
def daemon():
    d = Daemon(default_policy="none")
    d.start()
    d.ok("create", "--name", "box", "--workspace", d.workspace(CALLER, 0o755), uid=CALLER)
    yield d
    left = d.close()
    assert not left, left


@pytest.fixture(scope="module")
def found(daemon):
    """By kind; of virtiofsd there are two: the outer one waits for the one that serves."""
    kinds = {"daemon": [Process(daemon, daemon.process.pid)], "qemu": [], "virtiofsd": [], "resolver": []}
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        try:
            p = Process(daemon, pid)
        except OSError:
            continue
        mine = any(daemon.dir in a for a in p.args) or any("D/" in f for f in p.files)
        for kind, word in (("qemu", "qemu-system-"), ("virtiofsd", "virtiofsd"), ("resolver", "sandboxd-resolver")):
            if word in p.args[0] and mine:
                kinds[kind].append(p)
    return kinds


def test_there_is_what_there_should_be(found):
    assert {kind: len(ps) for kind, ps in found.items()} == {
        "daemon": 1, "qemu": 1, "virtiofsd": 2, "resolver": 1}


def test_qemu(daemon, found):
    q = found["qemu"][0]
    uid = next(iter(q.uids))
    assert len(q.uids) == 1 and uid >= 1000000 and q.gids == q.uids     # nobody's: no account, no other's group
    q.none(found["daemon"][0])
    assert q.caps("Bnd") <= found["daemon"][0].caps("Bnd") and len(q.threads) > 1
    assert q.apart == {"mnt"}, q.apart
    box = daemon.rows("SELECT id FROM vm")[0][0]
    assert q.holds_only("/dev/urandom", "/dev/net/tun", r"/memfd:memory-backend-memfd \(deleted\)",
                        rf"D/state/libvirt/log/qemu/sbx-{box}\.log", rf"D/state/libvirt/run/qemu/sbx-{box}\.pid",
                        rf"D/state/sandboxes/{box}/vm/disk\.qcow2", rf"D/run/sandboxes/{box}/console\.(in|out)",
                        r"D/run/view/[0-9a-f]{64}/root\.img"), q.files


def test_virtiofsd(daemon, found):
    may = {"CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "SETUID", "SETGID", "MKNOD", "SETFCAP", "DAC_READ_SEARCH",
           "SETPCAP", "SYS_ADMIN", "SYS_CHROOT"}
    box = daemon.rows("SELECT id FROM vm")[0][0]
    outer, serving = sorted(found["virtiofsd"], key=lambda v: v.depth)
    assert int(serving.status["PPid"]) == outer.pid
    # Ours is before its first instruction, its own is what it locks itself in with before it serves.
    ours = found["daemon"][0].filters + 1
    assert (outer.filters, serving.filters) == (ours, ours + 1), (outer.status, serving.status)
    for v in (outer, serving):
        assert v.uids == {CALLER} and v.gids == {CALLER}, v.status
        assert v.apart == set(NAMESPACES), v.apart
        assert v.caps("Eff") | v.caps("Prm") | v.caps("Bnd") <= may, v.caps("Bnd")
        assert not v.caps("Amb"), v.status
        assert (v.status["NoNewPrivs"], v.status["Seccomp"]) == ("1", "2"), v.status
        with open(f"/proc/{v.pid}/uid_map") as f:       # one id, the caller's: there is no other to become
            assert [list(map(int, line.split()))[1:] for line in f] == [[CALLER, 1]]
        assert v.holds_only(rf"D/state/sandboxes/{box}/log/share\.log", "/", r"/\d+/task(/\d+)?/?.*"), v.files


def test_resolver(found):
    r = found["resolver"][0]
    assert len(r.uids) == 1 and next(iter(r.uids)) >= 1000000 and r.gids == r.uids
    assert not r.uids & found["qemu"][0].uids
    r.none(found["daemon"][0])
    assert not r.caps("Bnd")
    assert r.holds_only("D/log"), r.files


LOOK = r"""
cat /proc/1/status
for n in user mnt pid net ipc uts cgroup; do echo "ns $n $(readlink /proc/1/ns/$n) $(readlink /proc/self/ns/$n)"; done
for f in /proc/1/fd/*; do echo "fd $(readlink $f)"; done
echo "exe $(readlink /proc/1/exe)"
"""


def test_the_agent_in_the_guest(daemon):
    """Root of its guest, all of it, and so nothing to rely upon; what it holds ends in the guest but for one port."""
    out = daemon.ok("exec", "-u", "root", "box", "--", "sh", "-c", LOOK, uid=CALLER).splitlines()
    status = dict(line.split(":\t", 1) for line in out if ":\t" in line)
    rest = [line.split() for line in out if ":\t" not in line]
    assert set(status["Uid"].split() + status["Gid"].split()) == {"0"} and not status["Groups"].split()
    full = (1 << len(CAPS)) - 1
    assert {w: int(status["Cap" + w], 16) & full for w in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == \
        {"Inh": 0, "Prm": full, "Eff": full, "Bnd": full, "Amb": 0}
    assert (status["NoNewPrivs"], status["Seccomp"], status["Threads"]) == ("0", "0", "1")
    spaces = {name: (one, own) for word, name, one, own in (r for r in rest if r[0] == "ns")}
    assert len(spaces) == 7 and all(one == own for one, own in spaces.values()), spaces     # one for all in there
    assert ["exe", "/init", "(deleted)"] in rest        # of the initramfs, which is gone: nobody can change it
    files = [" ".join(r[1:]) for r in rest if r[0] == "fd"]
    every = re.compile(ANON + r"|/dev/console|/dev/vport\d+p1|/sys/fs/cgroup/sbx|pipe:\[\d+\]")
    assert [f for f in files if not every.fullmatch(f)] == []
    assert sum("vport" in f for f in files) == 1


def test_a_command_in_the_guest(daemon):
    """It has none of the agent's files, and as `agent` no capability, but a way to all of them (sudo)."""
    look = "cat /proc/self/status; for f in /proc/$$/fd/*; do [ -L $f ] && echo fd ${f##*/}; done; true"
    out = daemon.ok("exec", "box", "--", "sh", "-c", look, uid=CALLER).splitlines()
    status = dict(line.split(":\t", 1) for line in out if ":\t" in line)
    assert set(status["Uid"].split() + status["Gid"].split() + status["Groups"].split()) == {"1000"}
    assert [int(status["Cap" + w], 16) for w in ("Inh", "Prm", "Eff", "Amb")] == [0] * 4
    assert int(status["CapBnd"], 16) and (status["NoNewPrivs"], status["Seccomp"]) == ("0", "0")
    assert [line.split()[1] for line in out if line.startswith("fd ")] == ["0", "1", "2"]


def test_sandboxd(daemon, found):
    d = found["daemon"][0]
    with open(SOURCE + "/daemon/privs.c") as f:
        listed = set(re.findall(r"^ *CAP_(\w+),", f.read(), re.M))
    assert len(listed) == 19
    listed &= Process(daemon, os.getpid()).caps("Bnd")      # what this machine's root has at all
    for which in ("Prm", "Eff", "Bnd"):
        assert d.caps(which) == listed, which
    assert not d.caps("Inh") | d.caps("Amb")
    assert d.status["NoNewPrivs"] == "1"
    unknown = [f for f in d.files if not re.fullmatch(
        ANON + r"|/dev/null|anon_inode:\[pidfd\]|D/log|D/state(/(lock|audit\.log|sandboxd\.db(-wal|-shm)?|"
        r"libvirt/.*|sandboxes/[0-9a-f]+/log/\w+\.log))?|D/run/sandboxes/[0-9a-f]+/(execs|console\.out)", f)]
    assert not unknown, unknown
