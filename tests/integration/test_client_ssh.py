# SPDX-License-Identifier: MIT
"""ssh:// hosts through a real sshd on loopback, with keys and configuration of the test alone."""
import getpass
import os
import shutil
import socket
import subprocess

import pytest
from fake_daemon import *  # noqa: F401,F403 (fixtures)
from fake_daemon import SIGNAL, STDOUT, sandbox, wait_for
from test_client_tty import Terminal, talk, typed

SSHD = shutil.which("sshd") or "/usr/sbin/sshd"


@pytest.fixture
def remote(sbx, tmp, daemon):
    """sbx whose SBX_HOST is this machine by ssh."""
    if not os.access(SSHD, os.X_OK) or not shutil.which("ssh"):
        pytest.skip("no sshd or ssh")
    if os.getuid() == 0:
        os.makedirs("/run/sshd", mode=0o755, exist_ok=True)
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp + "/" + name], check=True)
    shutil.copy(tmp + "/user.pub", tmp + "/authorized")
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    os.mkdir(tmp + "/bin")
    os.mkdir(tmp + "/far")
    os.symlink(os.path.abspath(sbx.binary), tmp + "/far/sbx")
    with open(tmp + "/sshd", "w") as f:
        f.write("Port %d\nListenAddress 127.0.0.1\nHostKey %s/host\nAuthorizedKeysFile %s/authorized\n"
                "StrictModes no\nUsePAM no\nPidFile none\nPermitRootLogin yes\nPrintMotd no\n"
                "SetEnv PATH=%s/far:/usr/bin:/bin SBX_HOST=%s\n"
                % (port, tmp, tmp, tmp, sbx.env["SBX_HOST"]))
    with open(tmp + "/bin/ssh", "w") as f:      # ssh takes no home from the environment
        f.write('#!/bin/sh\nexec %s -F none -i %s/user -o UserKnownHostsFile=%s/known '
                '-o StrictHostKeyChecking=no -o BatchMode=yes -o LogLevel=ERROR "$@"\n'
                % (shutil.which("ssh"), tmp, tmp))
    os.chmod(tmp + "/bin/ssh", 0o755)
    p = subprocess.Popen([SSHD, "-D", "-e", "-f", tmp + "/sshd"], stderr=subprocess.PIPE)

    def up():
        if p.poll() is not None:
            pytest.skip("sshd does not start: " + p.stderr.read().decode())
        with socket.socket() as s:
            return s.connect_ex(("127.0.0.1", port)) == 0
    wait_for(up, what="sshd")
    sbx.env["SBX_HOST"] = "ssh://%s@127.0.0.1:%d" % (getpass.getuser(), port)
    sbx.env["PATH"] = tmp + "/bin:" + sbx.env["PATH"]
    yield sbx
    p.kill()
    p.communicate()


def test_request(daemon, remote):
    daemon.reply("GET", "/v1/sandboxes", 200, {"sandboxes": [sandbox()]})
    r = remote("ls", "--format", "{{.Name}}")
    assert (r.returncode, r.stdout, r.stderr) == (0, "box\n", "")


def test_stream_both_ways(daemon, remote):
    data = os.urandom(2 << 20)

    def stream(c):
        back = b""
        while True:
            _, piece = c.read_record()
            if not piece:
                break
            back += piece
        for i in range(0, len(back), 65536):
            c.record(STDOUT, back[i:i + 65536])
        c.exit(3)
    daemon.exec(stream, stdin=True)
    r = remote("exec", "-i", "box", "cat", input=data, text=False)
    assert (r.returncode, r.stderr) == (3, b"") and r.stdout == data


def test_terminal(daemon, remote):
    got = []
    daemon.exec(talk(got), tty=True, stdin=True)
    t = Terminal(remote, "exec", "-it", "box", "bash")
    try:
        t.until(b"ready")
        assert t.raw()
        t.type(b"\x03\x04")
        wait_for(lambda: typed(got) == b"\x03\x04", what=repr(got))
        t.type(b"q")
        assert t.wait() == 0 and t.restored() and t.out == b"ready\r\n"
    finally:
        t.close()


def test_interrupt_is_for_the_command_and_not_for_ssh(daemon, remote):
    got = []

    def stream(c):
        c.record(STDOUT, b"ready\r\n")
        got.append(c.read_record())
        c.record(STDOUT, b"caught\r\n")
        c.exit(5)
    daemon.exec(stream)
    t = Terminal(remote, "exec", "box", "sleep")
    try:
        t.until(b"ready")
        t.type(b"\x03")         # to the whole process group, ssh too
        assert t.wait() == 5 and b"caught" in t.out
        assert got == [(SIGNAL, b"\x02")]
    finally:
        t.close()


def test_no_daemon_over_there_and_no_way_there(daemon, remote):
    daemon.kill()
    r = remote("ls")
    assert r.returncode == 125 and "no such socket" in r.stderr
    assert "cannot reach sandboxd through ssh://" in r.stderr
    os.unlink(remote.tmp + "/user")
    r = remote("ls")
    assert r.returncode == 125 and "ssh failed" in r.stderr and "by hand" in r.stderr
