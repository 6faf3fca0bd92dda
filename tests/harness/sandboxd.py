# SPDX-License-Identifier: MIT
"""A real sandboxd on a real socket, with real microVMs, in a temporary directory.

Every daemon is stopped at the end, and what it may not leave behind is checked then: processes,
directories, rows, mounts."""
import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time

import netns

# Started in the background by a shell, they would be ignored, in all children too.
for number in (signal.SIGINT, signal.SIGQUIT):
    if signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(number, signal.default_int_handler)

BUILD = os.environ.get("SBX_BUILD", "build")
CACHE = os.environ.get("SBX_TEST_CACHE", "/var/cache/sandboxd-test")
SOURCE = os.environ.get("SBX_SOURCE", os.path.dirname(os.path.dirname(os.path.dirname(__file__))))
SBX = os.path.join(BUILD, "client/sbx")
SANDBOXD = os.path.join(BUILD, "daemon/sandboxd")
RESOLVER = os.path.join(BUILD, "resolver/sandboxd-resolver")
SLOW = 240      # seconds: a bound, not a measure
# Of a daemon that was built with them; 256 MiB of freed memory would be held back otherwise.
SANITIZERS = {"ASAN_OPTIONS": "quarantine_size_mb=16:detect_leaks=1:detect_stack_use_after_return=1",
              "UBSAN_OPTIONS": "print_stacktrace=1"}


class Result(subprocess.CompletedProcess):
    """stdout and stderr as text with surrogates, so that bytes survive."""


def identity(uid):
    """Runs a child as a uid of the host, with no group but its own."""
    def become():
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    return become


@contextlib.contextmanager
def calling_as(uid):
    """This process connects as `identity(uid)` would: what the kernel tells of a peer is what it is then. Not with
    threads beside."""
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(uid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout=SLOW):
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):     # the latter: it ended between open and read
        return False


def kill_all(pids):
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):       # one ends with another: virtiofsd with QEMU
            os.kill(pid, signal.SIGKILL)


class Daemon:
    live = []

    def __init__(self, **config):
        Daemon.live.append(self)
        # Not /tmp, which may be memory: disks are made there, and images linked from the cache.
        self.dir = tempfile.mkdtemp(prefix="sbxv.", dir="/var/tmp")
        os.chmod(self.dir, 0o755)
        self.state, self.run = self.dir + "/state", self.dir + "/run"
        self.socket = self.run + "/sandboxd.sock"
        self.log_path = self.dir + "/log"
        self.process = None
        # Taps, routes and filter are made there, never on the machine's own network.
        self.network = netns.new()
        self.config = {"state_dir": self.state, "runtime_dir": self.run, "accel": "tcg",
                       "socket_group": "", "log_level": "debug",
                       "resolver": RESOLVER, **config}
        with open(self.dir + "/config.json", "w") as f:
            json.dump(self.config, f)
        os.mkdir(self.state, 0o711)
        self.copy_image()
        # What libvirt found out about QEMU in 7 s; it looks itself whether that still holds.
        if os.path.isdir(CACHE + "/libvirt-cache"):
            os.makedirs(self.state + "/libvirt", 0o711)
            shutil.copytree(CACHE + "/libvirt-cache", self.state + "/libvirt/cache")

    def copy_image(self):
        """The image of the cache by hard links, and its row: images are never changed."""
        cached = CACHE + "/image"
        link = "-al" if os.stat(cached).st_dev == os.stat(self.state).st_dev else "-a"
        subprocess.run(["cp", link, "--sparse=always", cached + "/images", self.state + "/images"],
                       check=True)
        with contextlib.closing(sqlite3.connect(f"file:{cached}/sandboxd.db?mode=ro", uri=True)) as a, \
                contextlib.closing(sqlite3.connect(self.state + "/sandboxd.db")) as b:
            a.backup(b)

    # -- life --

    def start(self, expect_failure=False):
        # Readiness is what the service manager would hear: READY=1 on $NOTIFY_SOCKET.
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            path = self.dir + "/notify"
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            notify.bind(path)
            notify.settimeout(60)
            env = {**SANITIZERS, **os.environ, "NOTIFY_SOCKET": path, **getattr(self, "env", {})}
            with open(self.log_path, "ab") as log:
                self.process = subprocess.Popen(
                    [SANDBOXD, "--config", self.dir + "/config.json"], stdin=subprocess.DEVNULL,
                    stdout=log, stderr=log, env=env, start_new_session=True,
                    preexec_fn=lambda: netns.enter(self.network))
            if expect_failure:
                return self.process.wait(60)
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                if self.process.poll() is not None:
                    raise AssertionError(f"sandboxd ended: {self.log()[-2000:]}")
                notify.settimeout(1)
                with contextlib.suppress(TimeoutError):
                    if b"READY=1" in notify.recv(4096):
                        os.chmod(self.socket, 0o666)    # users of these tests are in no group
                        return self
            raise AssertionError(f"sandboxd is not ready: {self.log()[-2000:]}")

    def stop(self, sig=signal.SIGTERM):
        if self.process and self.process.poll() is None:
            self.process.send_signal(sig)
            self.process.wait(60)
        self.process = None

    def log(self):
        try:
            with open(self.log_path, errors="replace") as f:
                return f.read()
        except FileNotFoundError:       # never started, or by somebody else
            return ""

    def close(self):
        """Removes all sandboxes, stops, and says what was left behind."""
        left = []
        if self.process and self.process.poll() is None:
            names = [s["id"] for s in self.get("/v1/sandboxes")["sandboxes"]]
            if names:
                self.sbx("rm", "-f", *names)
            left += [f"row {r}" for r in self.rows("SELECT id, state, name FROM vm")]
            for d in (self.state, self.run):
                left += [f"{d}/sandboxes/{n}" for n in os.listdir(d + "/sandboxes")]
            self.stop()
            fsck = self.fsck()
            # Who shares a network sees the other's links as nobody's.
            alone = all(os.fstat(d.network).st_ino != os.fstat(self.network).st_ino
                        for d in Daemon.live if d is not self)
            if fsck.returncode != 0 and alone:
                left.append(f"fsck: {fsck.returncode} {fsck.stdout}{fsck.stderr}")
        self.stop()
        with contextlib.suppress(OSError):      # there already, or never opened
            if not os.path.isdir(CACHE + "/libvirt-cache"):
                shutil.copytree(self.state + "/libvirt/cache", CACHE + "/libvirt-cache.new")
                os.rename(CACHE + "/libvirt-cache.new", CACHE + "/libvirt-cache")
        left += [f"process {p}" for p in self.processes()]
        kill_all(pid for pid, _ in self.processes())
        with open("/proc/mounts") as f:
            left += [line for line in f if self.dir in line]
        log = self.log()
        for word in ("ERROR: AddressSanitizer", "WARNING: ThreadSanitizer", "runtime error:",
                     "ERROR: LeakSanitizer"):
            if word in log:
                left.append(word + log.split(word, 1)[1][:3000])
        if left:
            left.append("the log's end:\n" + log[-6000:])
        shutil.rmtree(self.dir)
        os.close(self.network)
        Daemon.live.remove(self)
        return left

    def processes(self):
        """QEMU, virtiofsd and others that carry this daemon's directory."""
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/cmdline", "rb") as f:
                    args = f.read().replace(b"\0", b" ").decode(errors="replace")
                with open(f"/proc/{pid}/environ", "rb") as f:
                    mark = b"SBX_SHARE=" + self.run.encode() in f.read()
            except OSError:
                continue
            if (mark or self.dir in args) and int(pid) != os.getpid():
                found.append((int(pid), args[:120]))
        return found

    def sandboxd(self, *args):
        """Another sandboxd of this one's configuration and network: a command of an administrator."""
        return subprocess.run([SANDBOXD, args[0], "--config", self.dir + "/config.json", *args[1:]],
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120,
                              preexec_fn=lambda: netns.enter(self.network))

    def fsck(self, *args):
        return self.sandboxd("fsck", *args)

    def findings(self, *args, status=1):
        """{kind: finding} of those that are no notes; exit status as expected."""
        r = self.fsck("--json", *args)
        assert r.returncode == status, (r.returncode, r.stdout, r.stderr)
        return {f["kind"]: f for f in json.loads(r.stdout)["findings"] if not f["note"]}

    # -- use --

    def sbx(self, *args, uid=None, stdin=None, timeout=SLOW, binary=False, cwd="/", env=None):
        r = subprocess.run(
            [SBX, *args], input=stdin, stdin=None if stdin is not None else subprocess.DEVNULL,
            capture_output=True, timeout=timeout, cwd=cwd,
            env={"PATH": os.environ["PATH"], "HOME": "/", "LC_ALL": "C.UTF-8",
                 "SBX_HOST": "unix://" + self.socket, **(env or {})},
            preexec_fn=identity(uid) if uid is not None else None)
        if not binary:
            r.stdout = r.stdout.decode(errors="surrogateescape")
            r.stderr = r.stderr.decode(errors="surrogateescape")
        return r

    def ok(self, *args, **kw):
        r = self.sbx(*args, **kw)
        assert r.returncode == 0, f"sbx {' '.join(args)}: {r.returncode}\n{r.stderr}\n{r.stdout}"
        return r.stdout

    def popen(self, *args, **kw):
        return subprocess.Popen(
            [SBX, *args], env={"PATH": os.environ["PATH"], "HOME": "/", "LC_ALL": "C.UTF-8",
                               "SBX_HOST": "unix://" + self.socket},
            **{"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **kw})

    def request(self, method, path, body=None, headers=None, uid=None):
        with contextlib.closing(UnixConnection(self.socket)) as c:
            with calling_as(uid) if uid is not None else contextlib.nullcontext():
                c.connect()
            c.request(method, path, json.dumps(body) if body is not None else None, headers or {})
            r = c.getresponse()
            return r.status, dict(r.getheaders()), r.read()

    def get(self, path, uid=None):
        status, _, body = self.request("GET", path, uid=uid)
        assert status == 200, (path, status, body)
        return json.loads(body)

    def run_in(self, ref, *command, **fields):
        status, _, body = self.request("POST", f"/v1/sandboxes/{ref}/run",
                                       {"command": list(command), **fields})
        assert status == 200, body
        return json.loads(body)

    def rows(self, sql):
        with contextlib.closing(sqlite3.connect(self.state + "/sandboxd.db")) as db:
            return db.execute(sql).fetchall()

    def workspace(self, uid=0, mode=0o755):
        """A fresh directory that a caller may share."""
        d = tempfile.mkdtemp(prefix="w.", dir=self.dir)
        os.chown(d, uid, uid)
        os.chmod(d, mode)
        return d


def look(d, name):
    return d.get(f"/v1/sandboxes/{name}")


def wait_until(condition, seconds=60, what="condition"):
    """For what tells nobody: looks every few milliseconds, bounded."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError(f"no {what} within {seconds} s")


@contextlib.contextmanager
def running(**config):
    d = Daemon(**config)
    try:
        d.start()
        yield d
    finally:
        left = d.close()
    assert not left, left


# In a guest: the errno of each of those calls of Python's os, 0 where it went well.
TRIES = """
import ast, os, sys
for call, *args in ast.literal_eval(sys.argv[1]):
    try:
        getattr(os, call)(*args)
        print(0)
    except OSError as e:
        print(e.errno)
"""


class Box:
    def __init__(self, daemon, name, workspace):
        self.daemon, self.name, self.workspace = daemon, name, workspace

    def exec(self, *command, **kw):
        return self.daemon.sbx("exec", self.name, "--", *command, **kw)

    def sh(self, script, **kw):
        """Runs as agent; text out; must succeed."""
        return self.daemon.ok("exec", self.name, "--", "sh", "-c", script, **kw)

    def root(self, script, **kw):
        return self.daemon.ok("exec", "-u", "root", self.name, "--", "sh", "-c", script, **kw)

    def tries(self, *calls):
        """What came of ("mkdir", "/workspace/d"), ...: calls of Python's os by root of the guest, as errnos."""
        out = self.daemon.ok("exec", "-u", "root", self.name, "--", "python3", "-c", TRIES, repr(calls)).split()
        assert len(out) == len(calls), out
        return [int(n) for n in out]


if not os.path.exists(SANDBOXD):
    sys.exit(f"no {SANDBOXD}: run scripts/test, or set SBX_BUILD")
