# SPDX-License-Identifier: MIT
"""Commands in a real guest: their input, output, signals, and how they end."""
import base64
import contextlib
import json
import os
import signal
import subprocess
import time

import pytest
from conftest import wait_until
from streamclient import Stream, describe, digest, ended, fails, gone, output, post, start
from terminals import Pty

MIB = 1 << 20
BYTES = bytes(range(256)) + os.urandom(MIB - 512) + bytes(range(255, -1, -1))


# ---- terminal or pipes -------------------------------------------------------------------------

KINDS = 'for fd in 0 1 2; do if [ -t $fd ]; then printf tty; else printf no; fi; done'


def test_pipes_unless_a_terminal_is_asked_for(box):
    assert box.sh(KINDS) == "nonono"
    assert box.daemon.ok("exec", "-t", "box", "--", "sh", "-c", KINDS) == "ttyttytty"
    assert box.daemon.ok("exec", "-i", "box", "--", "sh", "-c", KINDS, stdin=b"") == "nonono"


def test_without_i_the_input_is_empty_and_ours_is_left_alone(box):
    r, w = os.pipe()
    os.write(w, b"mine")
    p = box.daemon.popen("exec", "box", "wc", "-c", stdin=r)
    assert p.communicate(timeout=60)[0] == b"0\n" and p.returncode == 0
    os.close(w)
    assert os.read(r, 10) == b"mine"
    os.close(r)


def test_a_terminal_has_one_stream(box):
    r = box.daemon.sbx("exec", "-t", "box", "--", "sh", "-c", "echo out; echo err >&2")
    assert (r.returncode, r.stdout, r.stderr) == (0, "out\r\nerr\r\n", "")


def test_window_size_comes_with_the_request_and_changes_by_record_and_by_api(daemon, box):
    x = start(daemon, "box", "bash", "-c",
              "stty size; trap 'echo changed to $(stty size)' WINCH; sleep 1000 & echo set; "
              "while :; do wait; done", tty=True, stdin=True, rows=33, cols=101)
    with Stream(daemon, "box", x["id"]) as s:
        assert s.until(b"set\r\n") == b"33 101\r\nset\r\n"
        s.resize(44, 122)
        assert s.until(b"changed to 44 122\r\n")
        assert post(daemon, "box", x["id"], "resize", rows=55, cols=133) == (204, None)
        assert s.until(b"changed to 55 133\r\n")
        for bad in ({"rows": 0, "cols": 1}, {"rows": 1, "cols": 65536}, {"rows": 1}):
            assert post(daemon, "box", x["id"], "resize", **bad)[0] == 400
        s.write(b"\x03")
        s.rest()
        assert (s.end["end"], s.end["signal"], s.end["exit_code"]) == ("signal", 2, 130)


def test_window_size_by_t_alone(box):
    with Pty(box.daemon, "exec", "-t", "box", "stty", "-F", "/dev/tty", "size", rows=29, cols=83) as t:
        assert t.wait() == 0 and b"29 83\r" in t.out
    with Pty(box.daemon, "exec", "-t", "box", "--", "bash", "-c",
             "trap 'stty size' WINCH; sleep 1000 & echo set; while :; do wait; done",
             rows=29, cols=83) as t:
        t.until(b"set")
        t.size(37, 91)
        t.until(b"37 91")
        t.process.send_signal(signal.SIGTERM)
        assert t.wait() == 143 and t.restored()


def test_window_size_is_in_the_request_itself(daemon, box):
    # detached: nobody is there to send it afterwards
    with Pty(daemon, "exec", "-dt", "box", "stty", "size", rows=27, cols=85) as t:
        assert t.wait() == 0
        x = t.out.decode().strip()
    ended(daemon, "box", x)
    assert output(daemon, "box", x)[2] == b"27 85\r\n"


def test_a_raw_terminal_passes_every_byte(daemon, box):
    x = start(daemon, "box", "sh", "-c", "stty raw -echo; echo ready; head -c 256 > /tmp/raw; "
              "stty sane; sha256sum < /tmp/raw", tty=True, stdin=True)
    with Stream(daemon, "box", x["id"]) as s:
        s.until(b"ready\n")
        s.write(bytes(range(256)))
        assert s.rest()[0].split()[0].decode() == digest(bytes(range(256)))


# ---- input and output --------------------------------------------------------------------------

def test_end_of_input_reaches_a_pipeline(box):
    assert box.sh("cat | wc -c") == "0\n"
    assert box.daemon.ok("exec", "-i", "box", "--", "sh", "-c", "cat | wc -c; echo then",
                         stdin=b"x" * 70000) == "70000\nthen\n"
    assert box.daemon.ok("exec", "-i", "box", "cat", stdin=b"") == ""


def test_half_closed_input_leaves_the_output_open(daemon, box):
    box.sh("rm -f /tmp/go; mkfifo /tmp/go")
    x = start(daemon, "box", "sh", "-c", "cat; echo eof; read x < /tmp/go; echo $x", stdin=True)
    with Stream(daemon, "box", x["id"]) as s:
        s.write(b"first")
        s.until(b"first")
        s.end_of_input()
        s.until(b"eof\n")
        box.sh("echo after > /tmp/go")
        assert s.rest()[0] == b"after\n" and s.end["exit_code"] == 0


def test_bytes_survive_both_ways(box):
    r = box.daemon.sbx("exec", "-i", "box", "tee", "/tmp/in", stdin=BYTES, binary=True)
    assert (r.returncode, r.stderr) == (0, b"")
    assert digest(r.stdout) == digest(BYTES)
    assert box.sh("sha256sum < /tmp/in").split()[0] == digest(BYTES)
    r = box.daemon.sbx("exec", "box", "--", "sh", "-c", "cat /tmp/in >&2", binary=True)
    assert r.stdout == b"" and digest(r.stderr) == digest(BYTES)


def test_bytes_survive_the_simple_form(daemon, box):
    data = BYTES[:200000]
    r = daemon.run_in("box", "tee", "/tmp/in", stdin_base64=base64.b64encode(data).decode(), base64=True)
    assert r["exit_code"] == 0 and base64.b64decode(r["stdout_base64"]) == data
    assert box.sh("sha256sum < /tmp/in").split()[0] == digest(data)


def test_stdout_and_stderr_are_kept_apart(daemon, box):
    script = "for i in 1 2 3; do echo out$i; echo err$i >&2; done"
    r = box.exec("sh", "-c", script)
    assert (r.stdout, r.stderr) == ("out1\nout2\nout3\n", "err1\nerr2\nerr3\n")
    r = daemon.run_in("box", "sh", "-c", script)
    assert (r["stdout"], r["stderr"]) == ("out1\nout2\nout3\n", "err1\nerr2\nerr3\n")


def test_much_of_both_at_once(box):
    r = box.daemon.sbx("exec", "box", "--", "sh", "-c",
                       "yes out | head -c 3000000 & yes err | head -c 3000000 >&2; wait", binary=True)
    assert r.stdout == (b"out\n" * 750000) and r.stderr == (b"err\n" * 750000)


def test_input_nobody_reads_does_not_hold_up_the_end(box):
    assert box.daemon.sbx("exec", "-i", "box", "true", stdin=bytes(8 * MIB)).returncode == 0
    p = box.daemon.popen("exec", "-i", "box", "--", "sh", "-c", "exit 4")  # its stdin stays open
    assert p.wait(60) == 4
    p.communicate()


def test_output_nobody_takes_ends_the_command_quietly(box):
    p = box.daemon.popen("exec", "box", "--", "sh", "-c", "echo $$ > /tmp/yes.pid; exec yes")
    p.stdout.read(4096)
    p.stdout.close()
    assert p.wait(60) == 141 and p.stderr.read() == b""
    pid = box.sh("cat /tmp/yes.pid").strip()
    wait_until(lambda: gone(box, pid), what="end of yes")


def test_children_left_behind_do_not_hold_up_the_end(box):
    for script in ("sleep 1111 & echo hi", "sleep 1111 > /dev/null 2>&1 & echo hi",
                   "setsid sleep 1111 & echo hi", "nohup sleep 1111 & echo hi"):
        began = time.monotonic()
        assert box.daemon.ok("exec", "box", "--", "sh", "-c", script).startswith("hi\n")
        assert box.daemon.ok("exec", "-t", "box", "--", "sh", "-c", script).startswith("hi\r\n")
        assert time.monotonic() - began < 20
    # what was started to stay does
    assert len(box.sh("pgrep -f '^sleep 1111'").split()) >= 4
    box.sh("pkill -f '^sleep 1111'")


def test_a_client_whose_output_is_not_taken_takes_no_more(box):
    size = 16 * MIB
    p = box.daemon.popen("exec", "box", "--", "sh", "-c",
                         f"head -c {size} /dev/urandom | tee /tmp/out; sha256sum < /tmp/out >&2",
                         stdin=subprocess.DEVNULL)
    piece = os.read(p.stdout.fileno(), 1)
    last = [0]

    def stands():
        now = box.daemon.get("/v1/sandboxes/box/execs")["execs"][-1]["stdout_end"]
        same, last[0] = now == last[0], now
        time.sleep(0.2)
        return same
    wait_until(stands, what="standstill")
    assert last[0] < 4 * MIB                    # what has not come needs no room here
    out, err = p.communicate(timeout=120)
    assert p.returncode == 0 and len(piece + out) == size
    assert digest(piece + out) == err.split()[0].decode()


def test_a_terminal_takes_much_input_and_its_end(daemon, box):
    data = os.urandom(MIB)
    x = start(daemon, "box", "sh", "-c", "stty raw -echo; echo ready; head -c %d | sha256sum" % MIB,
              tty=True, stdin=True)
    with Stream(daemon, "box", x["id"]) as s:
        s.until(b"ready\n")
        s.write(data)
        assert s.rest()[0].split()[0].decode() == digest(data)
    x = start(daemon, "box", "cat", tty=True, stdin=True)
    with Stream(daemon, "box", x["id"]) as s:
        s.write(b"line\n")
        s.end_of_input()                        # as Ctrl-D
        assert s.rest()[0] == b"line\r\nline\r\n" and s.end["exit_code"] == 0


# ---- signals -----------------------------------------------------------------------------------

@pytest.mark.parametrize("signo", [signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGUSR1])
def test_signals_to_sbx_are_the_commands(box, signo):
    p = box.daemon.popen("exec", "box", "--", "sh", "-c",
                         f"trap 'echo caught; exit 9' {signo.value}; sleep 1000 & echo ready; wait",
                         stdin=subprocess.DEVNULL)
    assert p.stdout.readline() == b"ready\n"
    p.send_signal(signo)
    out, err = p.communicate(timeout=60)
    assert (p.returncode, out, err) == (9, b"caught\n", b"")


@pytest.mark.parametrize("signo", [signal.SIGINT, signal.SIGTERM])
def test_a_forwarded_signal_that_kills_gives_128_and_its_number(box, signo):
    p = box.daemon.popen("exec", "box", "--", "sh", "-c", "echo ready; exec sleep 1000",
                         stdin=subprocess.DEVNULL)
    assert p.stdout.readline() == b"ready\n"
    p.send_signal(signo)
    assert p.communicate(timeout=60) == (b"", b"") and p.returncode == 128 + signo


def test_a_signal_does_not_wait_behind_input_nobody_reads(box):
    p = box.daemon.popen("exec", "-i", "box", "--", "sh", "-c", "echo ready; exec sleep 1000")
    assert p.stdout.readline() == b"ready\n"
    os.set_blocking(p.stdin.fileno(), False)
    full = [time.monotonic()]

    def stuck():
        with contextlib.suppress(BlockingIOError):
            os.write(p.stdin.fileno(), bytes(65536))
            full[0] = time.monotonic()
        return time.monotonic() - full[0] > 1
    wait_until(stuck, what="full pipe")
    p.send_signal(signal.SIGTERM)
    assert p.wait(60) == 143
    for pipe in (p.stdin, p.stdout, p.stderr):
        pipe.close()


@pytest.mark.parametrize("name", ["TERM", "SIGTERM", "15"])
def test_signals_by_the_api(daemon, box, name):
    x = start(daemon, "box", "sleep", "1000", detach=True)
    assert post(daemon, "box", x["id"], "signal", signal=name) == (204, None)
    x = ended(daemon, "box", x["id"])
    assert (x["end"], x["signal"], x["exit_code"]) == ("signal", 15, 143)
    status, body = post(daemon, "box", x["id"], "signal", signal="TERM")
    assert status == 409 and body["error"]["code"] == "exec_not_running"


@pytest.mark.parametrize("name", ["NOSUCH", "SIG", "0", "99", "-1", " TERM", "term\n"])
def test_an_unknown_signal_is_an_error(daemon, box, name):
    x = start(daemon, "box", "sleep", "1000", detach=True)
    status, body = post(daemon, "box", x["id"], "signal", signal=name)
    assert (status, body["error"]["code"]) == (400, "invalid_field")
    assert describe(daemon, "box", x["id"])["state"] == "running"
    assert post(daemon, "box", x["id"], "signal", signal="KILL") == (204, None)
    assert ended(daemon, "box", x["id"])["signal"] == 9


def test_a_signal_by_record(daemon, box):
    x = start(daemon, "box", "sh", "-c", "trap 'echo usr1; exit 3' USR1; sleep 1000 & echo ready; wait")
    with Stream(daemon, "box", x["id"]) as s:
        s.until(b"ready\n")
        s.signal(signal.SIGUSR1)
        assert s.rest()[0] == b"usr1\n" and s.end["end"] == "exit" and s.end["exit_code"] == 3


# ---- how it ended ------------------------------------------------------------------------------

ENDS = [     # script, status of sbx, end, signal
    ("exit 0", 0, "exit", 0),
    ("exit 1", 1, "exit", 0),
    ("exit 7", 7, "exit", 0),
    ("exit 124", 124, "exit", 0),       # not a timeout, and not ours or a shell's either
    ("exit 125", 125, "exit", 0),
    ("exit 126", 126, "exit", 0),
    ("exit 127", 127, "exit", 0),
    ("exit 143", 143, "exit", 0),       # no signal
    ("exit 255", 255, "exit", 0),
    ("kill -TERM $$", 143, "signal", 15),
    ("kill -KILL $$", 137, "signal", 9),
    ("kill -USR1 $$", 138, "signal", 10),
]


@pytest.mark.parametrize("script, status, end, signo", ENDS)
def test_ends_are_told_apart(daemon, box, script, status, end, signo):
    r = box.exec("sh", "-c", script)
    assert (r.returncode, r.stdout, r.stderr) == (status, "", "")
    r = daemon.run_in("box", "sh", "-c", script)
    assert (r["end"], r["exit_code"], r["signal"]) == (end, status, signo)


def test_timeout(daemon, box):
    began = time.monotonic()
    r = box.daemon.sbx("exec", "--timeout", "300ms", "box", "sleep", "1000")
    assert r.returncode == 124 and time.monotonic() - began < 20
    r = daemon.run_in("box", "sh", "-c", "echo begun; sleep 1000", timeout_ms=300)
    assert (r["end"], r["exit_code"], r["stdout"]) == ("timeout", 124, "begun\n")
    # what does not listen to the gentle signal is ended too, with all it started
    r = daemon.run_in("box", "sh", "-c", "trap '' TERM HUP INT; sleep 1000 & echo $!; wait; wait",
                      timeout_ms=300)
    assert (r["end"], r["exit_code"]) == ("timeout", 124)
    wait_until(lambda: gone(box, r["stdout"].strip()), what="end of its child")
    assert box.daemon.sbx("exec", "--timeout", "60s", "box", "true").returncode == 0


@pytest.mark.parametrize("command, status, code, text", [
    (["no-such-program"], 127, "command_not_found", "no-such-program"),
    (["/no/such/program"], 127, "command_not_found", "/no/such/program"),
    (["/etc/passwd"], 126, "command_not_executable", "/etc/passwd"),
    (["/etc"], 126, "command_not_executable", "/etc"),
])
def test_what_cannot_be_started(daemon, box, command, status, code, text):
    assert text in fails(box.exec(*command), status)
    assert text in fails(box.daemon.sbx("exec", "-t", "box", *command), status)
    answer, _, body = daemon.request("POST", "/v1/sandboxes/box/run", {"command": command})
    assert (answer, json.loads(body)["error"]["code"]) == (422, code)


# ---- the words of the command line -------------------------------------------------------------

def test_two_dashes_may_be_left_out(box):
    assert box.daemon.ok("exec", "box", "printf", "%s|", "-it", "--", "-e", "x") == "-it|--|-e|x|"
    assert box.daemon.ok("exec", "box", "--", "printf", "%s|", "-it", "--") == "-it|--|"
    assert box.daemon.ok("exec", "box", "--", "printf", "%s|", "", "a b", "$HOME", "*", "\n'\"") == \
        "|a b|$HOME|*|\n'\"|"
    assert "command" in fails(box.daemon.sbx("exec", "box", "--"))


def test_environment(box, tmp_path):
    (tmp_path / "env").write_text("# a comment\nFROM_FILE=f one\n\nBOTH=file\nPASSED\n")
    script = 'printf "%s|" "$FROM_FILE" "$BOTH" "$PASSED" "$SET" "$EMPTY" "${NOT-unset}" "$WIDE"'
    out = box.daemon.ok("exec", "--env-file", str(tmp_path / "env"), "-e", "BOTH=word", "-e", "SET",
                        "-e", "EMPTY=", "-e", "NOT", "-e", "WIDE=宽=é", "box", "--", "sh", "-c", script,
                        env={"PASSED": "p", "SET": "s t"})
    assert out == "f one|word|p|s t||unset|宽=é|"
    assert box.sh('printf "%s" "${SET-unset}"', env={"SET": "host"}) == "unset"
    assert "nofile" in fails(box.daemon.sbx("exec", "--env-file", "/nofile", "box", "true"))
    fails(box.daemon.sbx("exec", "-e", "=x", "box", "true"))


def test_directory(box):
    assert box.sh("pwd") == "/workspace\n"
    assert box.daemon.ok("exec", "-w", "/usr/bin", "box", "pwd") == "/usr/bin\n"
    text = fails(box.daemon.sbx("exec", "-w", "/no/such", "box", "pwd"))
    assert "/no/such" in text and "hint:" in text
    assert "/root" in fails(box.daemon.sbx("exec", "-w", "/root", "box", "pwd"))
    assert box.daemon.ok("exec", "-w", "/root", "-u", "root", "box", "pwd") == "/root\n"
    fails(box.daemon.sbx("exec", "-w", "usr", "box", "pwd"))
    fails(box.daemon.sbx("exec", "-w", "/etc/passwd", "box", "pwd"))


@pytest.mark.parametrize("user, says", [
    (None, "1000 1000 agent /home/agent agent"), ("agent", "1000 1000 agent /home/agent agent"),
    ("root", "0 0 root /root root"), ("1000", "1000 1000 agent /home/agent agent"),
    ("0", "0 0 root /root root"),
])
def test_user(box, user, says):
    options = ["-u", user] if user else []
    assert box.daemon.ok("exec", *options, "box", "--", "sh", "-c",
                         'echo $(id -u) $(id -g) $(id -un) $HOME $USER') == says + "\n"


def test_unknown_user(daemon, box):
    text = fails(box.daemon.sbx("exec", "-u", "nobody-here", "box", "true"))
    assert "nobody-here" in text
    status, _, body = daemon.request("POST", "/v1/sandboxes/box/run",
                                     {"command": ["true"], "user": "nobody-here"})
    assert status == 400 and "nobody-here" in json.loads(body)["error"]["message"]


def test_bytes_that_are_no_text_are_refused_clearly(box):
    for args in (("exec", "box", "--", "ls", "a\udcff"), ("exec", "-e", "X=\udcff", "box", "true"),
                 ("exec", "-w", "/\udcfe", "box", "true"), ("exec", "b\udcffx", "true")):
        text = fails(box.daemon.sbx(*args))
        assert "UTF-8" in text and "\udcff" not in text and "\udcfe" not in text


def test_a_stopped_sandbox(daemon):
    daemon.ok("create", "--name", "off", "--no-start")
    for args in (("exec", "off", "true"), ("exec", "-d", "off", "true")):
        text = fails(daemon.sbx(*args))
        assert "stopped" in text and "sbx start off" in text
    status, _, body = daemon.request("POST", "/v1/sandboxes/off/execs", {"command": ["true"]})
    assert (status, json.loads(body)["error"]["code"]) == (409, "sandbox_not_running")
    daemon.ok("rm", "off")


def test_long_commands(daemon, box):
    out = box.daemon.ok("exec", "box", "--", "sh", "-c", 'printf "%s" "$0$1" | sha256sum',
                        "x" * 100000, "y" * 100000)
    assert out.split()[0] == digest(b"x" * 100000 + b"y" * 100000)
    assert box.exec("true", *map(str, range(1023))).returncode == 0
    assert "1024" in fails(box.exec("true", *map(str, range(1024))))
    status, _, body = daemon.request("POST", "/v1/sandboxes/box/run", {"command": ["true", "x" * 131073]})
    assert status == 400 and "131072" in json.loads(body)["error"]["message"]
    assert "262144" in fails(box.exec("true", *["x" * 100000] * 3))


def test_the_same_request_again_starts_nothing(daemon, box):
    box.sh("rm -f /tmp/once")
    body = {"command": ["sh", "-c", "echo x >> /tmp/once"], "detach": True}
    answers = [daemon.request("POST", "/v1/sandboxes/box/execs", body, {"Idempotency-Key": "one-key"})
               for _ in range(3)]
    ids = {json.loads(a[2])["id"] for a in answers}
    assert {a[0] for a in answers} == {201} and len(ids) == 1
    ended(daemon, "box", ids.pop())
    assert box.sh("cat /tmp/once") == "x\n"
    status, _, answer = daemon.request("POST", "/v1/sandboxes/box/execs", {**body, "command": ["true"]},
                                       {"Idempotency-Key": "one-key"})
    assert (status, json.loads(answer)["error"]["code"]) == (422, "idempotency_mismatch")


def test_list_and_inspect(daemon, box):
    x = start(daemon, "box", "sleep", "1000", detach=True, user="root", workdir="/usr")
    got = describe(daemon, "box", x["id"])
    assert got == x | {k: got[k] for k in ("stdout_end", "stderr_end")}
    assert (got["state"], got["end"], got["exit_code"], got["ended_at"]) == ("running", None, -1, None)
    assert (got["command"], got["user"], got["workdir"], got["detach"], got["tty"]) == \
        (["sleep", "1000"], "root", "/usr", True, False)
    assert box.root(f"tr '\\0' ' ' < /proc/{got['pid']}/cmdline") == "sleep 1000 "
    assert describe(daemon, "box", x["id"][:12])["id"] == x["id"]
    row = [s for s in daemon.ok("execs", "box").splitlines() if s.startswith(x["id"][:12])]
    assert row and row[0].split()[1:4] == ["running", "-", "root"] and row[0].endswith("sleep 1000")
    assert x["id"] in daemon.ok("execs", "-q", "box").split()
    listed = [json.loads(s) for s in daemon.ok("execs", "--format", "json", "box").splitlines()]
    assert got in listed
    post(daemon, "box", x["id"], "signal", signal="INT")
    ended(daemon, "box", x["id"])
    row = [s for s in daemon.ok("execs", "box").splitlines() if s.startswith(x["id"][:12])]
    assert row[0].split()[1:3] == ["exited", "130"]
    status, _, body = daemon.request("GET", "/v1/sandboxes/box/execs/0000000000000000")
    assert (status, json.loads(body)["error"]["code"]) == (404, "exec_not_found")
