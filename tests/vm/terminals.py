# SPDX-License-Identifier: MIT
"""Terminals for sbx: a pty of our own, and a tmux with a shell that has job control."""
import fcntl
import os
import pty
import select
import shutil
import struct
import subprocess
import tempfile
import termios

from conftest import SBX, wait_until


class Pty:
    """sbx with a pty as its controlling terminal."""

    def __init__(self, daemon, *args, rows=24, cols=80, env=None):
        self.master, self.slave = pty.openpty()
        self.size(rows, cols)
        self.before = termios.tcgetattr(self.slave)
        self.out = b""

        def child():
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        self.process = subprocess.Popen(
            [SBX, *args], stdin=self.slave, stdout=self.slave, stderr=self.slave, preexec_fn=child,
            env={"PATH": os.environ["PATH"], "HOME": "/", "LC_ALL": "C.UTF-8",
                 "TERM": "xterm-256color", "SBX_HOST": "unix://" + daemon.socket, **(env or {})})

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.master)
        os.close(self.slave)

    def size(self, rows, cols):
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))

    def type(self, data):
        os.write(self.master, data)

    def drain(self):
        while select.select([self.master], [], [], 0.02)[0]:
            self.out += os.read(self.master, 65536)
        return self.out

    def until(self, text):
        wait_until(lambda: text in self.drain(), what=repr(text) + " in " + repr(self.drain()))

    def wait(self):
        def over():
            self.drain()        # it cannot end while we do not read
            return self.process.poll() is not None
        wait_until(over, what="end of sbx")
        self.drain()
        return self.process.returncode

    def restored(self):
        return termios.tcgetattr(self.slave) == self.before


class Tmux:
    """A tmux server of its own with one window that shows an interactive bash of the host."""

    def __init__(self, daemon, rows=31, cols=97):
        self.dir = tempfile.mkdtemp(prefix="sbxt.", dir="/tmp")
        self.env = {"PATH": os.environ["PATH"], "HOME": self.dir, "LC_ALL": "C.UTF-8",
                    "TERM": "xterm-256color", "TMUX_TMPDIR": self.dir, "SBX": os.path.abspath(SBX),
                    "SBX_HOST": "unix://" + daemon.socket, "SHELL": "/bin/sh",
                    "HISTFILE": ""}
        with open(self.dir + "/conf", "w") as f:
            f.write("set -g status off\nset -g escape-time 0\n"
                    "set -g default-terminal screen-256color\nset -g remain-on-exit on\n")
        self.run("-f", self.dir + "/conf", "new-session", "-d", "-x", str(cols), "-y", str(rows),
                 "env PS1='host$ ' HISTFILE= bash --norc --noprofile -i")
        self.until("host$")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.run("kill-server", check=False)
        shutil.rmtree(self.dir, ignore_errors=True)

    def run(self, *args, check=True):
        return subprocess.run(["tmux", "-u", "-L", "sbx-test", *args], env=self.env, check=check,
                              stdout=subprocess.PIPE).stdout.decode()

    def keys(self, *keys):
        self.run("send-keys", *keys)

    def text(self, text):
        self.run("send-keys", "-l", text)

    def line(self, text):
        self.text(text)
        self.keys("Enter")

    def resize(self, rows, cols):
        self.run("resize-window", "-x", str(cols), "-y", str(rows))

    def screen(self):
        return self.run("capture-pane", "-p")

    def lines(self):
        return self.screen().split("\n")

    def says(self, fmt):
        """What tmux knows of the terminal, as in '#{alternate_on}'."""
        return self.run("display-message", "-p", fmt).strip()

    def until(self, text, seconds=30):
        try:
            wait_until(lambda: text in self.screen(), seconds)
        except AssertionError:
            raise AssertionError(f"no {text!r} on the screen:\n{self.screen()}") from None

    def until_line(self, text, seconds=30):
        """A line of exactly this: not the command that prints it."""
        try:
            wait_until(lambda: text in [s.rstrip() for s in self.lines()], seconds)
        except AssertionError:
            raise AssertionError(f"no line {text!r} on the screen:\n{self.screen()}") from None
