# SPDX-License-Identifier: MIT
"""`sbx exec -it` in a real tmux: what a person sees, and the state their terminal is left in."""
import os
import signal

import pytest
from conftest import wait_until
from terminals import Tmux

WIDE = "宽字符|é|ß|日本|ok"


@pytest.fixture
def tmux(daemon, box):
    if os.system("command -v tmux > /dev/null") != 0:
        pytest.skip("no tmux on this machine")
    with Tmux(daemon) as t:
        t.line("state() { stty -a | sed 's/rows.*columns[^;]*;//'; }")     # the size may change
        t.line('state > "$HOME/before"; cat "$HOME/before"; clear; echo no"ted"')
        t.until_line("noted")
        yield t


def same(t):
    """The shell of the host is there, and its terminal is as it was."""
    t.line('clear; state > "$HOME/after"; cmp "$HOME/before" "$HOME/after" && echo the sa""me')
    t.until_line("the same")
    assert t.says("#{alternate_on} #{cursor_flag} #{mouse_any_flag}") == "0 1 0"
    t.line("clear; echo type""d")               # echo and line editing work
    t.until_line("typed")


def shell(t, *options):
    """An interactive bash in the guest."""
    t.line(" ".join(('clear; "$SBX" exec -it', *options, "-e PS1='guest> ' box bash --norc --noprofile;"
                     ' echo "status $?"')))
    t.until_line("guest>")


def test_size_is_right_at_the_first_byte_and_follows_the_window(tmux):
    tmux.line('"$SBX" exec -it box -- bash -c "stty size; trap \'stty size\' WINCH; '
              'echo s""et; sleep 1000 & while :; do wait; done"; echo "status $?"')
    tmux.until_line("set")
    assert "31 97" in tmux.lines()
    tmux.resize(20, 70)
    tmux.until_line("20 70")
    tmux.resize(41, 120)
    tmux.until_line("41 120")
    tmux.keys("C-c")
    tmux.until_line("^Cstatus 130")
    same(tmux)


def test_keys_of_job_control(tmux, box):
    shell(tmux)
    tmux.line("echo gone; sleep 1000")
    tmux.until_line("gone")
    tmux.keys("C-c")
    tmux.line("echo status $? of that")
    tmux.until_line("status 130 of that")       # it was the guest's, and its shell goes on
    tmux.line("clear; sleep 1000")
    wait_until(lambda: "sleep" in box.sh("ps -C sleep -o comm=; :"), what="sleep")
    tmux.keys("C-z")
    tmux.until("Stopped")
    tmux.line("jobs; kill %1; wait; echo no jobs")
    tmux.until_line("no jobs")
    tmux.line("clear; echo cat\"ting\"; cat; echo cat $?")
    tmux.until_line("catting")
    tmux.line("twice")
    tmux.until("twice\ntwice")
    tmux.keys("C-d")
    tmux.until_line("cat 0")
    tmux.line("clear; (exit 5)")
    wait_until(lambda: tmux.screen().split() == ["guest>"], what="prompt")
    tmux.keys("C-d")
    tmux.until_line("status 5")
    same(tmux)


def test_less_is_drawn_right(tmux, box):
    with open(box.workspace + "/lines", "w") as f:
        f.write("".join(f"line {i} {WIDE}\n" for i in range(1, 301)))
    shell(tmux)
    tmux.line("echo before less; less /workspace/lines")
    tmux.until("/workspace/lines")
    wait_until(lambda: tmux.lines()[:30] == [f"line {i} {WIDE}" for i in range(1, 31)], what=tmux.screen())
    assert tmux.says("#{alternate_on}") == "1"
    tmux.keys("Space")
    wait_until(lambda: tmux.lines()[:30] == [f"line {i} {WIDE}" for i in range(31, 61)], what="page")
    tmux.resize(21, 80)
    wait_until(lambda: tmux.lines()[:20] == [f"line {i} {WIDE}" for i in range(31, 51)], what="new size")
    tmux.keys("G")
    tmux.until("(END)")
    wait_until(lambda: tmux.lines()[:20] == [f"line {i} {WIDE}" for i in range(281, 301)], what="end")
    tmux.keys("q")
    tmux.until_line("before less")              # what stood there before
    assert tmux.says("#{alternate_on}") == "0"
    tmux.line("exit")
    tmux.until_line("status 0")
    same(tmux)


def test_an_editor(tmux, box):
    tmux.line('"$SBX" exec -it box nano /workspace/note; echo "status $?"')
    tmux.until("GNU nano")
    tmux.until("^X Exit")
    tmux.text("first " + WIDE)
    tmux.keys("Enter")
    tmux.text("third")
    tmux.keys("Home", "Enter", "Up")
    tmux.text("second")
    tmux.keys("C-o")
    tmux.until(": /workspace/note")      # nano 7 and 8 ask in different words
    tmux.keys("Enter")
    tmux.until("Wrote 3 lines")
    screen = [s.strip() for s in tmux.lines() if s.strip()]
    assert screen[1:4] == ["first " + WIDE, "second", "third"]
    tmux.keys("C-x")
    tmux.until_line("status 0")
    with open(box.workspace + "/note") as f:
        assert f.read() == f"first {WIDE}\nsecond\nthird\n"
    same(tmux)


def test_wide_text_both_ways(tmux):
    shell(tmux)
    tmux.line("clear; printf '%s' '" + WIDE + "' | od -An -c | grep -c 345; echo '" + WIDE + "'")
    tmux.until_line(WIDE)
    # the terminal of the guest knows that such a character is one key: erased as a whole
    tmux.line("clear; echo read\"ing\"; read x; echo \"<$x>\"; printf '%s' \"$x\" | wc -c")
    tmux.until_line("reading")
    tmux.text("a宽é")
    tmux.keys("BSpace", "BSpace")
    tmux.line("b")
    tmux.until_line("<ab>")
    tmux.until_line("2")
    # and so does the line editor, which also knows how broad it is
    tmux.line("clear")
    tmux.until_line("guest>")
    tmux.text("echo 宽宽x")
    tmux.until("guest> echo 宽宽x")
    assert tmux.says("#{cursor_x}") == str(len("guest> echo x") + 4)
    tmux.keys("Left", "Left", "BSpace", "End", "Enter")
    tmux.until_line("宽x")
    tmux.line("exit")
    tmux.until_line("status 0")


def test_detach_and_attach(tmux):
    shell(tmux)
    tmux.line("echo here $((40+2))")
    tmux.until_line("here 42")
    tmux.keys("C-p", "C-q")
    tmux.until_line("status 0")
    same(tmux)
    tmux.resize(25, 90)
    tmux.line('clear; "$SBX" attach box $("$SBX" execs box --format "{{.Id}} {{.State}}" | '
              "sed -n 's/ running$//p'); echo \"status $?\"")
    tmux.until_line("here 42")                  # all that was kept
    tmux.line("clear; stty size")
    tmux.until_line("25 90")
    tmux.line("exit 3")
    tmux.until_line("status 3")
    same(tmux)


def test_a_signal_from_outside_leaves_a_sane_terminal(tmux, box):
    tmux.line("""sh -c 'echo $$ > "$HOME/pid"; exec "$SBX" exec -it box less /etc/passwd'; """
              'echo "status $?"')
    tmux.until("root:x:0:0")
    assert tmux.says("#{alternate_on}") == "1"
    with open(tmux.dir + "/pid") as f:
        os.kill(int(f.read()), signal.SIGTERM)
    tmux.until_line("status 143")
    same(tmux)
    wait_until(lambda: "less" not in box.sh("ps -C less -o comm=; :"), what="end of less")


def test_the_daemon_is_killed_while_attached(daemon, tmux, box):
    """Last, as it takes the module's daemon down and up."""
    with open(box.workspace + "/lines", "w") as f:
        f.write("".join(f"line {i}\n" for i in range(1, 301)))
    shell(tmux)
    tmux.line("less /workspace/lines")
    tmux.until_line("line 29")
    assert tmux.says("#{alternate_on}") == "1"
    daemon.stop(signal.SIGKILL)
    tmux.until_line("status 125")
    assert "the connection to sandboxd was lost" in tmux.screen()
    same(tmux)
    daemon.start()
    tmux.line('clear; "$SBX" attach box $("$SBX" execs box --format "{{.Id}} {{.State}}" | '
              "sed -n 's/ running$//p'); echo \"status $?\"")
    tmux.until("line 29")                       # it went on
    tmux.keys("q")
    tmux.until("guest>")
    tmux.line("clear; exit 4")
    tmux.until_line("status 4")
    same(tmux)
