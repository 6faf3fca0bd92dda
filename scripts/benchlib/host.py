# SPDX-License-Identifier: MIT
"""A sandboxd of our own, and processes."""
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time

sys.path.insert(1, os.path.join(os.path.dirname(__file__), "../../tests/harness"))
import netns  # noqa: E402
from .figures import SLOW, BenchError, now
from .http import Http


def environment(**more):
    return {"PATH": os.environ["PATH"], "HOME": "/", "LC_ALL": "C.UTF-8", **more}


def pss(pid):
    """Resident bytes of a process, pages it shares counted in parts."""
    with open(f"/proc/{pid}/smaps_rollup") as f:
        return int(re.search(r"^Pss:\s+(\d+) kB", f.read(), re.M).group(1)) * 1024


def cpu_ns(pid):
    """CPU time of the threads a process has now."""
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            with open(f"/proc/{pid}/task/{task}/schedstat") as f:
                total += int(f.read().split()[0])
    return total


def orphan_reaped_ms():
    """How long a process without a parent stays a zombie: it is for process 1 to notice. libvirt
    waits for that after it has ended a QEMU."""
    r, w = os.pipe()
    child = os.fork()
    if child == 0:
        pid = os.fork()
        if pid == 0:
            time.sleep(0.05)
            os._exit(0)
        os.write(w, str(pid).encode())
        os._exit(0)
    os.close(w)
    os.waitpid(child, 0)
    pid = int(os.read(r, 20))
    os.close(r)
    dead, end = None, now() + 15
    while now() < end:
        try:
            with open(f"/proc/{pid}/stat") as f:
                if f.read().rsplit(")", 1)[1].split()[0] == "Z" and dead is None:
                    dead = now()
        except (FileNotFoundError, ProcessLookupError):
            return (now() - dead) * 1000 if dead else 0.0
        time.sleep(0.0005)
    return 15000.0


# Runs a program and reaps the orphans below it at once, as a good process 1 would.
REAPER = """
import ctypes, os, subprocess, sys
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)      # PR_SET_CHILD_SUBREAPER
pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
os.write(3, str(pid).encode()); os.close(3)
while True:
    got, status = os.wait()
    if got == pid:
        os._exit(os.waitstatus_to_exitcode(status) & 255)
"""


class Daemon:
    """A sandboxd in a directory of its own."""

    def __init__(self, build, reaper):
        self.build, self.reaper = build, reaper
        self.sbx_path = build + "/client/sbx"
        self.dir = tempfile.mkdtemp(prefix="sbxb.", dir="/tmp")
        os.chmod(self.dir, 0o755)
        self.state, self.run = self.dir + "/state", self.dir + "/run"
        self.socket = self.run + "/sandboxd.sock"
        self.process = self.pid = None
        self.network = netns.new()
        os.mkdir(self.state, 0o711)
        with open(self.dir + "/config.json", "w") as f:
            json.dump({"state_dir": self.state, "runtime_dir": self.run, "socket_group": "",
                       "log_level": "debug",
                       "resolver": build + "/resolver/sandboxd-resolver"}, f)

    def copy_image(self, cached):
        """Images are never changed, so links will do."""
        link = subprocess.run(["cp", "-al", cached + "/images", self.state + "/images"],
                              stderr=subprocess.DEVNULL)
        if link.returncode != 0:
            shutil.rmtree(self.state + "/images", ignore_errors=True)
            subprocess.run(["cp", "-a", "--sparse=always", cached + "/images",
                            self.state + "/images"], check=True)
        image_db = f"file:{cached}/sandboxd.db?mode=ro"
        with contextlib.closing(sqlite3.connect(image_db, uri=True)) as a, \
                contextlib.closing(sqlite3.connect(self.state + "/sandboxd.db")) as b:
            a.backup(b)

    def start(self):
        """Until READY=1 on $NOTIFY_SOCKET; returns seconds."""
        argv = [self.build + "/daemon/sandboxd", "--config", self.dir + "/config.json"]
        r, w = os.pipe()
        os.set_inheritable(w, True)

        def become():
            netns.enter(self.network)
            if self.reaper:     # which writes the pid there
                os.dup2(w, 3)

        began = now()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify, \
                open(self.dir + "/log", "ab") as log:
            notify.bind(self.dir + "/notify")
            notify.settimeout(1)
            self.process = subprocess.Popen(
                [sys.executable, "-c", REAPER, *argv] if self.reaper else argv,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                close_fds=False if self.reaper else True,
                preexec_fn=become,
                env={**os.environ, "NOTIFY_SOCKET": self.dir + "/notify"})
            os.close(w)
            self.pid = int(os.read(r, 20) or 0) if self.reaper else self.process.pid
            os.close(r)
            end = time.monotonic() + 120
            while time.monotonic() < end and self.process.poll() is None:
                with contextlib.suppress(TimeoutError):
                    if b"READY=1" in notify.recv(4096):
                        os.unlink(self.dir + "/notify")
                        return now() - began
        raise BenchError("sandboxd did not start:\n" + self.log()[-2000:])

    def restart(self, meanwhile):
        """What runs goes on."""
        os.kill(self.pid, signal.SIGTERM)
        self.process.wait(60)
        meanwhile()
        self.start()

    def log(self):
        with open(self.dir + "/log", errors="replace") as f:
            return f.read()

    def environment(self):
        return environment(SBX_HOST="unix://" + self.socket)

    def sbx(self, *args, **kw):
        r = subprocess.run([self.sbx_path, *args], stdin=subprocess.DEVNULL, capture_output=True,
                           timeout=SLOW, cwd="/", env=self.environment(), **kw)
        if r.returncode != 0:
            raise BenchError(f"sbx {' '.join(args)}: {r.returncode}: "
                             f"{r.stderr.decode(errors='replace').strip()}")
        return r.stdout.decode()

    def get(self, path):
        with Http(self.socket) as c:
            return json.loads(c.get(path))

    def processes(self):
        """QEMU, virtiofsd and others that carry this directory: (pid, arguments)."""
        found = []
        for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
            try:
                with open(f"/proc/{pid}/cmdline", "rb") as f:
                    args = f.read().decode(errors="replace").split("\0")[:-1]
                with open(f"/proc/{pid}/environ", "rb") as f:
                    mark = b"SBX_SHARE=" + self.run.encode() in f.read()
            except OSError:
                continue
            if pid != os.getpid() and args and (mark or self.dir in " ".join(args)):
                found.append((pid, args))
        return found

    def qemu(self, sandbox_id):
        for pid, args in self.processes():
            if any(a.startswith(f"guest=sbx-{sandbox_id}") for a in args):
                return pid, args
        raise BenchError(f"no QEMU of sandbox {sandbox_id}")

    def close(self):
        """Removes, ends and deletes everything; returns what should not have been there."""
        left = []
        if self.process and self.process.poll() is None:
            with contextlib.suppress(Exception):
                ids = [s["id"] for s in self.get("/v1/sandboxes")["sandboxes"]]
                if ids:
                    self.sbx("rm", "-f", *ids)
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                left.append("sandboxd did not end")
        for pid, args in self.processes():
            left.append(f"process {pid}: {' '.join(args)[:100]}")
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with open("/proc/mounts") as f:
            for target in [line.split()[1] for line in f if self.dir in line]:
                left.append("mount " + target)
                subprocess.run(["umount", "-l", target], check=False)
        shutil.rmtree(self.dir, ignore_errors=True)
        os.close(self.network)
        if os.path.exists(self.dir):
            left.append(self.dir)
        return left
