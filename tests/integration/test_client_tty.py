# SPDX-License-Identifier: MIT
"""sbx exec -it on real terminals: a pty of our own, and shells with job control in tmux."""
import fcntl
import os
import pty
import select
import shlex
import shutil
import signal
import struct
import subprocess
import termios
import threading
import time

import pytest
from fake_daemon import *  # noqa: F401,F403 (fixtures)
from fake_daemon import (DETACH, EXEC_ID, RESIZE, SIGNAL, STDIN, STDOUT, an_exec, sandbox, wait_for)


class Terminal:
    """sbx with a pty as its controlling terminal."""

    def __init__(self, sbx, *args, rows=31, cols=97, env=None, **kw):
        self.master, self.slave = pty.openpty()
        self.size(rows, cols)
        self.before = termios.tcgetattr(self.slave)
        self.out = b""

        def child():
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        kw.setdefault("stderr", self.slave)
        self.p = sbx.popen(*args, stdin=self.slave, stdout=self.slave, preexec_fn=child,
                           env=dict({"TERM": "xterm-256color"}, **(env or {})), **kw)

    def size(self, rows, cols):
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))

    def type(self, data):
        os.write(self.master, data)

    def raw(self):
        return not termios.tcgetattr(self.slave)[3] & termios.ICANON

    def restored(self):
        return termios.tcgetattr(self.slave) == self.before

    def drain(self, wait=0.05):
        while select.select([self.master], [], [], wait)[0]:
            self.out += os.read(self.master, 65536)
        return self.out

    def until(self, text):
        wait_for(lambda: text in self.drain(), what=repr(text) + " in " + repr(self.out))

    def wait(self):
        status = self.p.wait(10)
        self.drain()
        return status

    def close(self):
        if self.p.poll() is None:
            self.p.kill()
            self.p.wait()
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def terminal(sbx):
    made = []

    def make(*args, **kw):
        made.append(Terminal(sbx, *args, **kw))
        return made[-1]
    yield make
    for t in made:
        t.close()


def talk(got, greeting=b"ready\r\n", ends=None):
    """A stream that collects records until one is typed 'q', or `ends` is set."""
    def stream(c):
        c.record(STDOUT, greeting)
        while True:
            r = c.read_record()
            got.append(r)
            if r == (DETACH, b""):
                return
            if r == (STDIN, b"q"):
                c.exit(0)
                return
    return stream


def typed(got):
    return b"".join(d for k, d in got if k == STDIN)


def test_size_goes_with_the_request_and_keys_are_passed_raw(daemon, terminal):
    got = []
    daemon.exec(talk(got), tty=True, stdin=True)
    t = terminal("exec", "-it", "box", "bash")
    t.until(b"ready")
    req = daemon.find("POST", "/execs")[0].json
    assert (req["tty"], req["stdin"], req["rows"], req["cols"]) == (True, True, 31, 97)
    assert req["env"]["TERM"] == "xterm-256color"
    assert t.raw()
    t.type(b"\x03\x04\x1a\r\x1b[A\xe5\xae\xbd")
    wait_for(lambda: typed(got) == b"\x03\x04\x1a\r\x1b[A\xe5\xae\xbd", what=repr(got))
    t.type(b"q")
    assert t.wait() == 0 and t.restored()
    assert t.out == b"ready\r\n"        # nothing of ours


def test_resize(daemon, terminal):
    got = []
    daemon.exec(talk(got), tty=True, stdin=True)
    t = terminal("exec", "-ti", "box", "bash")
    t.until(b"ready")
    wait_for(lambda: (RESIZE, struct.pack(">HH", 31, 97)) in got)
    t.size(50, 120)
    wait_for(lambda: (RESIZE, struct.pack(">HH", 50, 120)) in got, what=repr(got))
    t.type(b"q")
    assert t.wait() == 0


def test_e_TERM_wins(daemon, terminal):
    daemon.exec(lambda c: c.exit(0), tty=True)
    assert terminal("exec", "-t", "-e", "TERM=vt100", "box", "x").wait() == 0
    assert daemon.requests[0].json["env"] == {"TERM": "vt100"}


def test_restored_when_the_daemon_dies_and_modes_of_a_program_are_undone(daemon, terminal):
    got = []
    daemon.exec(talk(got, b"\x1b[?1049h\x1b[?1;25l\x1b[?2004h\x1b[?1000;1006h\x1b[?2004lvi"), tty=True,
                stdin=True)
    t = terminal("exec", "-it", "box", "vi")
    t.until(b"vi")
    daemon.kill()
    assert t.wait() == 125 and t.restored()
    tail = t.out.split(b"vi", 1)[1]
    for undone in (b"\x1b[?1049l", b"\x1b[?25h", b"\x1b[?1000l", b"\x1b[?1006l"):
        assert undone in tail, tail
    assert b"?2004" not in tail and b"?1l" not in tail
    assert b"the connection to sandboxd was lost" in tail


@pytest.mark.parametrize("signo", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT])
def test_restored_after_a_signal_from_outside(daemon, terminal, signo):
    got = []
    daemon.exec(talk(got), tty=True, stdin=True)
    t = terminal("exec", "-it", "box", "bash")
    t.until(b"ready")
    t.p.send_signal(signo)
    assert t.wait() == 128 + signo and t.restored()
    assert not any(k == SIGNAL for k, _ in got)


@pytest.mark.parametrize("signo", [signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS])
def test_restored_after_a_fault(daemon, terminal, sbx, signo):
    if "asan" in sbx.binary:
        pytest.skip("the sanitizer has handlers of its own")
    daemon.exec(talk([]), tty=True, stdin=True)
    t = terminal("exec", "-it", "box", "bash")
    t.until(b"ready")
    t.p.send_signal(signo)
    assert t.wait() == -signo and t.restored()


def test_restored_when_attach_is_refused(daemon, terminal):
    from fake_daemon import error
    daemon.reply("POST", ".*/execs", 201, an_exec(tty=True))
    daemon.reply("GET", ".*/attach", 409, error("exec_not_running", "gone"))
    t = terminal("exec", "-it", "box", "bash")
    assert t.wait() == 125 and t.restored() and b"sbx: gone" in t.out


def test_detach_keys(daemon, terminal):
    got = []
    daemon.exec(talk(got), tty=True, stdin=True)
    t = terminal("exec", "-it", "box", "bash")
    t.until(b"ready")
    t.type(b"ab\x10\x11")
    assert t.wait() == 0 and t.restored()
    assert b"sbx attach box " + EXEC_ID.encode() in t.out
    wait_for(lambda: (DETACH, b"") in got, what=repr(got))
    assert typed(got) == b"ab"


def test_detach_keys_one_by_one_others_and_none(daemon, terminal):
    got = []
    daemon.exec(talk(got), tty=True, stdin=True)
    t = terminal("exec", "-it", "--detach-keys", "ctrl-],x", "box", "bash")
    t.until(b"ready")
    t.type(b"\x10\x11\x1d")
    wait_for(lambda: typed(got) == b"\x10\x11")
    t.type(b"x")
    assert t.wait() == 0
    got.clear()
    t = terminal("exec", "-it", "--detach-keys", "", "box", "bash")
    t.until(b"ready")
    t.type(b"\x10\x11")
    wait_for(lambda: typed(got) == b"\x10\x11")
    t.type(b"q")
    assert t.wait() == 0


def test_first_detach_key_alone_is_not_held_for_ever(daemon, terminal):
    got = []
    daemon.exec(talk(got), tty=True, stdin=True)
    t = terminal("exec", "-it", "box", "bash")
    t.until(b"ready")
    t.type(b"\x10")
    wait_for(lambda: typed(got) == b"\x10", 3, what="ctrl-p")
    t.type(b"\x11")         # too late: a key like any other
    wait_for(lambda: typed(got) == b"\x10\x11")
    t.type(b"q")
    assert t.wait() == 0


def test_attach_to_a_terminal(daemon, terminal):
    got = []
    daemon.reply("GET", "/v1/sandboxes/box/execs/fed", 200, an_exec(tty=True, stdin=True, detach=True))
    daemon.exec(talk(got), tty=True, stdin=True)
    t = terminal("attach", "box", "fed", rows=40, cols=100)
    t.until(b"ready")
    assert t.raw()
    wait_for(lambda: (RESIZE, struct.pack(">HH", 40, 100)) in got)
    t.type(b"q")
    assert t.wait() == 0 and t.restored()


def test_a_terminal_that_takes_nothing_does_not_stop_signals(daemon, terminal):
    def flood(c):
        for _ in range(200):
            c.record(STDOUT, b"x" * 60000)
    daemon.exec(flood, tty=True, stdin=True)
    t = terminal("exec", "-it", "box", "yes")
    time.sleep(0.7)
    t.p.send_signal(signal.SIGTERM)
    time.sleep(0.3)     # output that waits has to be taken before settings can be put back
    assert t.wait() == 143 and t.restored()


def test_progress_is_shown_and_cleared(daemon, terminal):
    daemon.on("POST", "/v1/sandboxes", lambda c, r: (time.sleep(1.3), c.answer(201, sandbox())))
    t = terminal("create")
    assert t.wait() == 0
    assert "creating sandbox… 1 s".encode() in t.out
    assert t.out.endswith(b"\r\x1b[Kbox\r\n")
    t = terminal("create", env={"TERM": "dumb"})
    assert t.wait() == 0 and t.out == b"box\r\n"


def test_tables_are_cut_to_the_terminal_and_coloured(daemon, terminal):
    daemon.reply("GET", "/v1/sandboxes", 200, {"sandboxes": [
        sandbox(workspace={"path": "/home/" + "宽" * 60, "read_only": False}),
        sandbox(name="n" * 60, state="failed")]})
    t = terminal("ls", cols=100)
    assert t.wait() == 0
    import re
    import unicodedata
    text = t.out.decode()
    assert "\x1b[32mrunning\x1b[0m" in text and "\x1b[31mfailed\x1b[0m" in text and "…" in text
    for line in re.sub(r"\x1b\[\d*m", "", text).splitlines():
        width = sum(2 if unicodedata.east_asian_width(c) == "W" else 1 for c in line)
        assert width <= 100, (width, line)
    t = terminal("ls", "--no-trunc", cols=100, env={"NO_COLOR": "1"})
    assert t.wait() == 0 and b"\x1b" not in t.out and b"n" * 60 in t.out


# ---- tmux: a real shell with job control -------------------------------------------------------

class Tmux:
    def __init__(self, tmp, env):
        self.socket = tmp + "/tmux"
        self.env = env
        # HISTFILE: a shell that is hung up writes its history, into a directory that is being removed.
        self.run("-f", "/dev/null", "new-session", "-d", "-x", "90", "-y", "25",
                 "env PS1='$ ' HISTFILE= bash --norc --noprofile -i")
        self.until("$")

    def run(self, *args):
        return subprocess.run(["tmux", "-S", self.socket, *args], env=self.env, check=True,
                              stdout=subprocess.PIPE).stdout.decode()

    def keys(self, *keys):
        self.run("send-keys", *keys)

    def line(self, text):
        self.run("send-keys", "-l", text)
        self.run("send-keys", "Enter")

    def screen(self):
        return self.run("capture-pane", "-p")

    def until(self, text):
        try:
            wait_for(lambda: text in self.screen(), 15, what=text)
        except AssertionError as e:
            raise AssertionError(f"{e} on\n{self.screen()}") from None


@pytest.fixture
def tmux(tmp, sbx):
    if not shutil.which("tmux"):
        pytest.skip("no tmux")
    t = Tmux(tmp, dict(sbx.env, TERM="xterm-256color", SBX=os.path.abspath(sbx.binary)))
    yield t
    subprocess.run(["tmux", "-S", t.socket, "kill-server"], check=False)


def shell_stream(got):
    """Echoes what is typed as a guest's terminal would."""
    def stream(c):
        c.record(STDOUT, b"guest> ")
        while True:
            kind, data = c.read_record()
            got.append((kind, data))
            if kind == DETACH:
                return
            if kind == STDIN:
                c.record(STDOUT, b"<" + data.hex().encode() + b">")
    return stream


def test_tmux_shell_is_sane_after_the_daemon_died(daemon, tmux):
    got = []
    daemon.exec(shell_stream(got), tty=True, stdin=True)
    tmux.line('stty -g > "$HOME/before"; "$SBX" exec -it box bash; echo "status $?"')
    tmux.until("guest>")
    tmux.keys("C-c", "C-d", "C-z")
    wait_for(lambda: typed(got) == b"\x03\x04\x1a", what=repr(got))
    tmux.run("resize-window", "-x", "70", "-y", "20")
    wait_for(lambda: (RESIZE, struct.pack(">HH", 20, 70)) in got, what=repr(got))
    daemon.kill()
    tmux.until("status 125")
    tmux.line('stty -g > "$HOME/after"; cmp "$HOME/before" "$HOME/after" && echo "sa""me"')
    tmux.until("same")


def test_tmux_stop_and_go_on(daemon, tmux):
    got = []
    daemon.exec(shell_stream(got), tty=True, stdin=True)
    tmux.line('stty -g > "$HOME/before"; "$SBX" exec -it box bash; echo "status $?"')
    tmux.until("guest>")
    pid = subprocess.run(["pgrep", "-f", tmux.env["SBX"] + " exec -it box bash"],
                         stdout=subprocess.PIPE).stdout.split()
    for p in pid:
        os.kill(int(p), signal.SIGTSTP)
    tmux.until("Stopped")
    tmux.line('stty -g > "$HOME/after"; cmp "$HOME/before" "$HOME/after" && echo "sa""me"')
    tmux.until("same")
    n = len(got)
    tmux.line("fg")
    wait_for(lambda: any(k == RESIZE for k, _ in got[n:]), what="a resize after fg")
    time.sleep(0.2)
    tmux.keys("C-c")
    tmux.until("<03>")
    tmux.keys("C-p", "C-q")
    tmux.until("which goes on")
    tmux.line('stty -g > "$HOME/after"; cmp "$HOME/before" "$HOME/after" && echo "sa""ne"')
    tmux.until("sane")


def test_tmux_window_closed_hangs_up(daemon, tmux):
    closed = threading.Event()

    def stream(c):
        c.record(STDOUT, b"guest> ")
        try:
            while True:
                c.read_record()
        except (EOFError, ConnectionError):      # reset, if sbx had not read all
            closed.set()
    daemon.exec(stream, tty=True, stdin=True)
    tmux.line('"$SBX" exec -it box bash')
    tmux.until("guest>")
    tmux.run("kill-session")
    assert closed.wait(10)
