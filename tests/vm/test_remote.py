# SPDX-License-Identifier: MIT
"""sbx on one side of ssh, the daemon on the other: a real sshd on loopback, with keys and
configuration of the test alone, before a real daemon."""
import contextlib
import getpass
import hashlib
import os
import shutil
import socket
import subprocess

import pytest
from conftest import SBX, Box, wait_until
from streamclient import describe, start
from terminals import Pty

SSHD = shutil.which("sshd") or "/usr/sbin/sshd"
DATA = bytes(range(256)) + os.urandom((1 << 20) - 256)


class Remote:
    """`ssh`: the client with its keys, as the start of a command; `env`: for an sbx that uses it."""

    def __init__(self, directory, daemon):
        self.dir, self.daemon = directory, daemon
        for name in ("host", "user"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{directory}/{name}"],
                           check=True)
        shutil.copy(directory + "/user.pub", directory + "/authorized")
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        for d in ("near", "far"):
            os.mkdir(f"{directory}/{d}")
        os.symlink(os.path.abspath(SBX), directory + "/far/sbx")
        with open(directory + "/sshd", "w") as f:
            f.write(f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {directory}/host\n"
                    f"AuthorizedKeysFile {directory}/authorized\nStrictModes no\nUsePAM no\n"
                    "PidFile none\nPermitRootLogin yes\nPrintMotd no\n"
                    f"SetEnv PATH={directory}/far:/usr/bin:/bin SBX_HOST=unix://{daemon.socket}\n")
        self.ssh = [shutil.which("ssh"), "-F", "none", "-i", directory + "/user",
                    "-o", f"UserKnownHostsFile={directory}/known", "-o", "StrictHostKeyChecking=no",
                    "-o", "BatchMode=yes", "-o", "LogLevel=ERROR"]
        with open(directory + "/near/ssh", "w") as f:       # ssh takes no home from the environment
            f.write("#!/bin/sh\nexec " + " ".join(self.ssh) + ' "$@"\n')
        os.chmod(directory + "/near/ssh", 0o755)
        self.host = f"{getpass.getuser()}@127.0.0.1"
        self.env = {"SBX_HOST": f"ssh://{self.host}:{self.port}",
                    "PATH": directory + "/near:" + os.environ["PATH"]}

    def sbx(self, *args, **kw):
        return self.daemon.sbx(*args, env=self.env, **kw)

    def ok(self, *args, **kw):
        return self.daemon.ok(*args, env=self.env, **kw)


@pytest.fixture(scope="module")
def remote(daemon):
    if not os.access(SSHD, os.X_OK) or not shutil.which("ssh"):
        pytest.skip("no sshd or ssh on this machine")
    if os.getuid() == 0:
        os.makedirs("/run/sshd", mode=0o755, exist_ok=True)
    directory = daemon.dir + "/ssh"
    os.mkdir(directory)
    r = Remote(directory, daemon)
    p = subprocess.Popen([SSHD, "-D", "-e", "-f", directory + "/sshd"], stdin=subprocess.DEVNULL,
                         stderr=open(directory + "/sshd.log", "wb"))

    def up():
        assert p.poll() is None, open(directory + "/sshd.log").read()
        with socket.socket() as s:
            return s.connect_ex(("127.0.0.1", r.port)) == 0
    wait_until(up, what="sshd")
    yield r
    p.terminate()
    p.wait(30)


def whole_life(ok, sbx, name, workspace):
    assert ok("create", "--name", name, "--workspace", workspace) == name + "\n"
    assert name in ok("ls")
    r = sbx("exec", "-i", name, "--", "sh", "-c", "tee /workspace/in; echo err >&2; exit 7", stdin=DATA,
            binary=True)
    assert (r.returncode, r.stderr) == (7, b"err\n")
    assert hashlib.sha256(r.stdout).digest() == hashlib.sha256(DATA).digest()
    with open(workspace + "/in", "rb") as f:    # the directory is one of the daemon's machine
        assert f.read() == DATA
    assert sbx("exec", name, "no-such-program").returncode == 127
    x = ok("exec", "-d", name, "--", "sh", "-c", "echo kept; exit 3").strip()
    r = sbx("attach", name, x)
    assert (r.returncode, r.stdout, r.stderr) == (3, "kept\n", "")
    assert ok("rm", name) == name + "\n"
    r = sbx("exec", name, "true")
    assert r.returncode == 125 and f"no sandbox '{name}'" in r.stderr


def test_a_whole_life_by_ssh(daemon, remote):
    whole_life(remote.ok, remote.sbx, "far", daemon.workspace())
    assert daemon.get("/v1/sandboxes")["sandboxes"] == []


def test_a_whole_life_through_a_forwarded_socket(daemon, remote):
    path = remote.dir + "/forwarded"
    p = subprocess.Popen([*remote.ssh, "-p", str(remote.port), "-N", "-L", f"{path}:{daemon.socket}",
                          "-o", "ExitOnForwardFailure=yes", remote.host],
                         stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        def up():
            assert p.poll() is None, p.stderr.read()
            return os.path.exists(path)
        wait_until(up, what="forwarded socket")
        env = {"SBX_HOST": "unix://" + path}
        whole_life(lambda *a, **kw: daemon.ok(*a, env=env, **kw),
                   lambda *a, **kw: daemon.sbx(*a, env=env, **kw), "tunnel", daemon.workspace())
    finally:
        p.kill()
        p.communicate()
    r = daemon.sbx("ls", env=env)
    assert r.returncode == 125 and path in r.stderr


@contextlib.contextmanager
def a_box(daemon):
    daemon.ok("create", "--name", "box")
    try:
        yield Box(daemon, "box", None)
    finally:
        daemon.ok("rm", "-f", "box")


def test_terminal_signal_and_a_client_that_vanishes(daemon, remote):
    with a_box(daemon) as box:
        with Pty(daemon, "exec", "-it", "box", "bash", "--norc", rows=33, cols=101, env=remote.env) as t:
            t.until(b"$ ")
            t.type(b"stty size\r")
            t.until(b"33 101")
            t.size(44, 122)
            t.type(b"stty size\r")
            t.until(b"44 122")
            t.type(b"sleep 1000\r")
            t.until(b"sleep 1000\r\n")
            t.type(b"\x03")
            t.until(b"^C")
            t.type(b"exit 5\r")
            assert t.wait() == 5 and t.restored()
        with Pty(daemon, "exec", "box", "--", "sh", "-c",
                 "trap 'echo caught; exit 9' INT; sleep 1000 & echo ready; wait", env=remote.env) as t:
            t.until(b"ready")
            t.type(b"\x03")                     # goes to ssh as well, which may not mind it
            assert t.wait() == 9 and b"caught" in t.out
        p = subprocess.Popen([SBX, "exec", "box", "--", "sh", "-c", "echo $$; exec sleep 1000"],
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                             env={"HOME": "/", **remote.env})
        pid = p.stdout.readline().strip().decode()
        box.sh("kill -0 " + pid)
        p.kill()
        p.communicate()
        wait_until(lambda: box.exec("kill", "-0", pid).returncode != 0, what="end of the command")
        x = start(daemon, "box", "sleep", "1000", detach=True)
        assert describe(daemon, "box", x["id"])["state"] == "running"
