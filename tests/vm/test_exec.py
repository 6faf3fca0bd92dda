# SPDX-License-Identifier: MIT
"""Commands in a real guest: their input, output, ends, and what is kept of them."""
import base64
import hashlib
import json
import os
import signal
import subprocess
import threading
import time

import pytest
from conftest import UnixConnection, wait_until
from streamclient import Stream, describe, ended, output, post, start
from terminals import Pty

MIB = 1 << 20
BYTES = bytes(range(256)) + os.urandom(MIB - 512) + bytes(range(255, -1, -1))


def digest(data):
    return hashlib.sha256(data).hexdigest()


def fails(r, status=125):
    """One line that says what is wrong, at most one that says what to do."""
    assert r.returncode == status, r
    lines = r.stderr.splitlines()
    assert lines and lines[0].startswith("sbx: ") and len(lines) <= 2, r.stderr
    assert len(lines) == 1 or lines[1].startswith("hint: "), r.stderr
    assert r.stdout == ""
    return r.stderr


def gone(box, pid):
    """Whether the guest has no such process any more."""
    return box.daemon.sbx("exec", "-u", "root", box.name, "--", "kill", "-0", str(pid)).returncode != 0


@pytest.fixture(scope="module", autouse=True)
def abandoned(daemon, box):
    """Nobody ever attaches to these; the last test looks what has become of them."""
    def one(name, **fields):
        return start(daemon, "box", "sh", "-c", f"trap 'echo hup > /workspace/{name}; exit' HUP; "
                     f"echo ready > /workspace/{name}; sleep 1000 & wait", **fields)
    pids = one("attached")["pid"], one("detached", detach=True)["pid"]
    for name in ("attached", "detached"):
        wait_until(lambda: os.path.exists(box.workspace + "/" + name), what=name)
    return pids


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
    # Input on its way that the command does not read may not hold the signal back.
    p = box.daemon.popen("exec", "-i", "box", "--", "sh", "-c", "echo ready; exec sleep 1000")
    assert p.stdout.readline() == b"ready\n"
    feeder = threading.Thread(target=lambda: feed(p.stdin, bytes(8 * MIB)), daemon=True)
    feeder.start()
    p.send_signal(signo)
    assert p.wait(60) == 128 + signo
    feeder.join(10)
    p.stdout.close()
    p.stderr.close()


def feed(pipe, data):
    try:
        pipe.write(data)
        pipe.close()
    except (BrokenPipeError, ValueError):
        pass


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


# ---- leaving and coming back -------------------------------------------------------------------

def test_detached_and_attached_again_with_all_output(daemon, box):
    box.sh("rm -f /tmp/d; mkfifo /tmp/d")
    x = daemon.ok("exec", "-d", "box", "--", "sh", "-c",
                  "echo one; echo uno >&2; read x < /tmp/d; echo two $x; exit 6").strip()
    wait_until(lambda: describe(daemon, "box", x)["stderr_end"] == 4, what="output")
    first = daemon.popen("attach", "box", x)
    assert first.stdout.readline() == b"one\n"
    with Stream(daemon, "box", x, stdout_offset=2) as s:
        s.until(b"e\n")
        first.kill()                            # goes without a word
        first.communicate()
        s.detach()
    with Stream(daemon, "box", x) as s:         # and comes again, to everything
        s.until(b"one\n")
        box.sh("echo more > /tmp/d")
        assert s.rest() == (b"two more\n", b"uno\n") and s.end["exit_code"] == 6
    for again in range(2):                      # also when it is over
        r = daemon.sbx("attach", "box", x)
        assert (r.returncode, r.stdout, r.stderr) == (6, "one\ntwo more\n", "uno\n")
    with Stream(daemon, "box", x, stdout_offset=4, stderr_offset=4) as s:
        assert s.rest() == (b"two more\n", b"") and s.end["exit_code"] == 6
    assert output(daemon, "box", x) == (0, 0, b"one\ntwo more\n")
    assert output(daemon, "box", x, 4) == (4, 0, b"two more\n")
    assert output(daemon, "box", x, 1, "stderr") == (1, 0, b"no\n")
    for where in ("output?offset=14", "output?stream=stderr&offset=5"):
        status, _, body = daemon.request("GET", f"/v1/sandboxes/box/execs/{x}/{where}")
        assert (status, json.loads(body)["error"]["code"]) == (416, "offset_gone")
    assert x[:6] in fails(daemon.sbx("attach", "box", x[:15] + ("0" if x[15] != "0" else "1")))


def test_two_readers_get_the_same(daemon, box):
    x = start(daemon, "box", "sh", "-c", "read go; seq 200000", stdin=True)
    with Stream(daemon, "box", x["id"]) as a, Stream(daemon, "box", x["id"]) as b:
        a.write(b"go\n")
        got = []
        t = threading.Thread(target=lambda: got.append(b.rest()))
        t.start()
        out = a.rest()
        t.join(60)
        assert got == [out] and digest(out[0]) == digest(b"".join(b"%d\n" % i for i in range(1, 200001)))


def test_detach_keys(daemon, box):
    with Pty(daemon, "exec", "-it", "box", "--", "sh", "-c",
             "echo ready; read x; echo got $x; read x; exit $x") as t:
        t.until(b"ready")
        t.type(b"\x10\x11")
        assert t.wait() == 0 and t.restored() and b"which goes on" in t.out
        x = t.out.split(b"left exec ")[1].split(b",")[0].decode()
    assert describe(daemon, "box", x)["state"] == "running"
    with Pty(daemon, "attach", "--detach-keys", "ctrl-x", "box", x) as t:
        t.until(b"ready")                       # from the beginning
        t.type(b"hello\r")
        t.until(b"got hello")
        t.type(b"\x18")
        assert t.wait() == 0 and t.restored()
    assert describe(daemon, "box", x)["state"] == "running"
    with Pty(daemon, "attach", "box", x) as t:
        t.until(b"got hello")
        t.type(b"8\r")
        assert t.wait() == 8 and t.restored()


def test_a_client_that_vanishes_ends_its_command(box):
    p = box.daemon.popen("exec", "box", "--", "sh", "-c",
                         "echo hup-missing > /workspace/hup; trap 'echo hup > /workspace/hup; exit' HUP; "
                         "sleep 1000 & echo $$ $!; wait")
    shell, child = p.stdout.readline().split()
    assert not gone(box, int(shell))
    p.kill()
    p.communicate()
    wait_until(lambda: gone(box, int(shell)), what="end of the shell")
    wait_until(lambda: gone(box, int(child)), what="end of its child")
    with open(box.workspace + "/hup") as f:
        assert f.read() == "hup\n"              # it was told first


def test_one_that_does_not_listen_is_ended_too(daemon, box):
    x = start(daemon, "box", "sh", "-c", "trap '' HUP TERM; echo ready; sleep 1000; sleep 1000")
    with Stream(daemon, "box", x["id"]) as s:
        s.until(b"ready\n")
    x = ended(daemon, "box", x["id"], 20)
    assert (x["end"], x["signal"]) == ("signal", 9)


def test_a_detached_one_lives_when_its_client_vanishes(daemon, box):
    x = start(daemon, "box", "sh", "-c", "echo $$; read x; echo got $x", stdin=True, detach=True)
    p = daemon.popen("attach", "box", x["id"])
    pid = int(p.stdout.readline())
    p.kill()
    p.communicate()
    time.sleep(4)           # nothing is to happen: longer than the grace before an end by force
    assert not gone(box, pid) and describe(daemon, "box", x["id"])["state"] == "running"
    r = daemon.sbx("attach", "box", x["id"], stdin=b"it\n")
    assert (r.returncode, r.stdout) == (0, f"{pid}\ngot it\n")


# ---- what is kept ------------------------------------------------------------------------------

def test_the_ring_is_bounded_and_its_offsets_are_right(daemon, box):
    lines, size = 196608, 3 * MIB               # 16 bytes each: a line says its offset
    x = start(daemon, "box", "seq", "-f", "%015.0f", "0", str(lines - 1), detach=True)["id"]
    d = ended(daemon, "box", x)
    assert (d["stdout_end"], d["stdout_start"]) == (size, size - MIB)

    def right(first, data):
        assert first + len(data) == size
        number = -(-first // 16)
        assert data[-first % 16:] == b"".join(b"%015d\n" % i for i in range(number, lines))

    first, lost, data = output(daemon, "box", x)
    assert (first, lost) == (size - MIB, size - MIB)
    right(first, data)
    for offset in (0, size - MIB - 1, size - MIB, size - MIB + 5, size - 100, size):
        one, two = output(daemon, "box", x, offset), output(daemon, "box", x, offset)
        assert one == two
        assert one[0] == max(offset, size - MIB) and one[1] == one[0] - offset
        right(one[0], one[2])
    with Stream(daemon, "box", x) as s:
        out, _ = s.rest()
        assert s.gaps == {1: size - MIB} and s.end["exit_code"] == 0
        assert digest(out) == digest(data)
    with Stream(daemon, "box", x, stdout_offset=size - 4096) as s:
        assert s.rest()[0] == data[-4096:] and s.gaps == {}
    r = daemon.sbx("attach", "box", x)
    assert r.returncode == 0 and r.stdout.encode() == data
    assert str(size - MIB) in r.stderr and "no longer kept" in r.stderr


def test_nothing_is_lost_between_start_and_attach(daemon, box):
    x = start(daemon, "box", "seq", "300000")
    wait_until(lambda: describe(daemon, "box", x["id"])["stdout_end"] > 100000, what="output")
    with Stream(daemon, "box", x["id"]) as s:
        out, _ = s.rest()
        assert s.gaps == {} and digest(out) == digest(b"".join(b"%d\n" % i for i in range(1, 300001)))


def test_a_slow_reader_stops_its_own_stream_only(daemon, box):
    size = 64 * MIB
    box.sh(f"head -c {size} /dev/urandom > /tmp/big")
    want = box.sh("sha256sum < /tmp/big").split()[0]
    x = start(daemon, "box", "cat", "/tmp/big")["id"]
    with Stream(daemon, "box", x) as s:
        last = [-1]

        def stands():
            now = describe(daemon, "box", x)["stdout_end"]
            same, last[0] = now == last[0] and now > 0, now
            time.sleep(0.2)
            return same
        wait_until(stands, what="standstill")
        assert last[0] < 4 * MIB                # bounded, the rest waits in the guest
        slowest = 0
        for i in range(10):
            began = time.monotonic()
            r = box.daemon.sbx("exec", "-i", "box", "md5sum", stdin=b"%d" % i)
            assert r.stdout.split()[0] == hashlib.md5(b"%d" % i).hexdigest()
            slowest = max(slowest, time.monotonic() - began)
        assert slowest < 5
        r = daemon.sbx("exec", "box", "head", "-c", str(8 * MIB), "/tmp/big", binary=True)
        assert len(r.stdout) == 8 * MIB         # and another stream flows
        assert describe(daemon, "box", x)["stdout_end"] == last[0]
        out, _ = s.rest()
        assert len(out) == size and digest(out) == want and s.gaps == {}
        assert s.end["exit_code"] == 0
    box.sh("rm /tmp/big")


def test_a_hundred_at_once(daemon, box):
    box.sh("rm -f /tmp/gate; mkfifo -m 666 /tmp/gate")
    before = daemon.get("/v1/sandboxes/box")["execs_running"]
    results, problems = {}, []

    def one(i):
        try:
            results[i] = daemon.sbx("exec", "-i", "box", "--", "sh", "-c",
                                    f"read x < /tmp/gate; cat; seq {i * 1000} {i * 1000 + 999}; "
                                    f"echo err{i} >&2; exit {i}", stdin=b"in%d\n" % i)
        except Exception as e:                  # all of them are wanted
            problems.append((i, repr(e)))

    threads = [threading.Thread(target=one, args=(i,)) for i in range(100)]
    for t in threads:
        t.start()
    wait_until(lambda: daemon.get("/v1/sandboxes/box")["execs_running"] == before + 100,
               what="hundred that run")
    assert len([x for x in daemon.get("/v1/sandboxes/box/execs")["execs"]
                if x["state"] == "running"]) == before + 100
    # a reader that comes late blocks in open() again: so until all are through
    keeper = daemon.popen("exec", "box", "--", "sh", "-c", "while :; do : > /tmp/gate; done")
    for t in threads:
        t.join(120)
    keeper.kill()
    keeper.communicate()
    assert not problems and len(results) == 100, problems
    for i, r in results.items():
        want = f"in{i}\n" + "".join(f"{n}\n" for n in range(i * 1000, i * 1000 + 1000))
        assert (r.returncode, r.stderr) == (i, f"err{i}\n"), (i, r.stderr)
        assert r.stdout == want, i


def test_a_hundred_short_ones_attached_late(daemon, box):
    """More than are kept have ended before anybody attaches: their output is not thrown away."""
    ids = [start(daemon, "box", "echo", str(i))["id"] for i in range(80)]
    ended(daemon, "box", ids[-1])
    for i, x in enumerate(ids):
        with Stream(daemon, "box", x) as s:
            assert s.rest() == (b"%d\n" % i, b"") and s.end["exit_code"] == 0


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


def test_attach_without_the_upgrade_is_refused(daemon, box):
    x = start(daemon, "box", "true", detach=True)
    status, _, body = daemon.request("GET", f"/v1/sandboxes/box/execs/{x['id']}/attach")
    assert (status, json.loads(body)["error"]["code"]) == (426, "upgrade_required")


def test_run_ends_its_command_when_the_client_goes(daemon, box):
    c = UnixConnection(daemon.socket)
    c.request("POST", "/v1/sandboxes/box/run", json.dumps(
        {"command": ["sh", "-c", "echo $$ > /tmp/run.pid; exec sleep 1000"]}))
    pid = wait_until(lambda: box.daemon.sbx("exec", "box", "cat", "/tmp/run.pid").stdout.strip(),
                     what="pid")
    assert not gone(box, pid)
    c.close()
    wait_until(lambda: gone(box, pid), what="end of the command")


def test_one_that_nobody_attaches_to_is_ended_in_the_end(box, abandoned):
    def said(name):
        with open(box.workspace + "/" + name) as f:
            return f.read()
    wait_until(lambda: said("attached") == "hup\n", what="end of an exec nobody attached to")
    wait_until(lambda: gone(box, abandoned[0]), what="end of its process")
    assert said("detached") == "ready\n" and not gone(box, abandoned[1])
