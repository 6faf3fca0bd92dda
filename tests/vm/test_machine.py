# SPDX-License-Identifier: MIT
"""What configuration chooses: machine type, console, acceleration; and what is told about it."""
import array
import contextlib
import fcntl
import json
import os
import signal
import termios
import time

import pytest
from conftest import Box, running, wait_until


def test_q35_is_a_machine_too():
    with running(machine="q35", console="serial") as d:
        w = d.workspace()
        d.ok("create", "--name", "pc", "--workspace", w)
        box = Box(d, "pc", w)
        assert box.sh("echo shared > /workspace/x; cat /workspace/x") == "shared\n"
        assert open(w + "/x").read() == "shared\n"
        pci = box.sh("ls /sys/bus/pci/devices | wc -l")
        assert int(pci) > 4
        assert d.get("/v1/info")["machine"] == "q35" == d.get("/v1/sandboxes/pc")["machine"]
        assert "Linux version" in d.ok("logs", "--console", "pc")       # the serial console tells all
        d.ok("restart", "pc")
        assert box.sh("cat /workspace/x") == "shared\n"
        # A sandbox keeps its machine when the configuration changes.
        d.stop()
        d.config["machine"] = "microvm"
        with open(d.dir + "/config.json", "w") as f:
            json.dump(d.config, f)
        d.start()
        d.ok("restart", "pc")
        assert int(box.sh("ls /sys/bus/pci/devices | wc -l")) > 4
        d.ok("create", "--name", "micro")
        assert d.ok("exec", "micro", "--", "sh", "-c", "ls /sys/bus/pci/devices 2>/dev/null | wc -l") == "0\n"
        d.ok("rm", "-f", "pc", "micro")


def waiting(fd):
    """Bytes in a pipe."""
    n = array.array("i", [0])
    fcntl.ioctl(fd, termios.FIONREAD, n)
    return n[0]


@pytest.mark.parametrize("console", ["hvc0", "serial"])
def test_a_guest_goes_on_with_its_console_full_and_no_daemon(console):
    """A program that prints may wait (QEMU makes it wait at the serial port); what else runs goes on."""
    with running(console=console, default_policy="none") as d:
        w = d.workspace()
        d.ok("create", "--name", "box", "--workspace", w)
        box = Box(d, "box", w)
        port = "/dev/ttyS0" if console == "serial" else "/dev/hvc0"
        box.root(f"""nohup sh -c 'until [ -e /workspace/go ]; do sleep 0.1; done
                     head -c 400000 /dev/zero | tr "\\0" x > {port}; echo end > /workspace/printed' > /dev/null 2>&1 &
                     nohup sh -c 'i=0; while sleep 0.1; do i=$((i+1)); echo $i > /workspace/t; mv /workspace/t /workspace/tick
                     done' > /dev/null 2>&1 &""")

        def tick():
            try:
                with open(w + "/tick") as f:
                    return int(f.read() or 0)
            except FileNotFoundError:
                return 0
        wait_until(tick, 60, "a sign of life")
        pipe = f"{d.run}/sandboxes/{d.rows('SELECT id FROM vm')[0][0]}/console.out"
        d.stop(signal.SIGKILL)
        with open(w + "/go", "w"):
            pass
        fd = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        try:
            wait_until(lambda: waiting(fd) > 60000, 120, "a full pipe")
            began = tick()
            wait_until(lambda: tick() > began + 30, 120, "work beside it")
            assert waiting(fd) > 60000
            if console == "serial":     # as a real port does
                assert not os.path.exists(w + "/printed")
        finally:
            os.close(fd)
        d.start()
        wait_until(lambda: os.path.exists(w + "/printed"), 120, "the end of what was printed")
        began = tick()
        assert box.sh("echo here") == "here\n"
        wait_until(lambda: tick() > began, 60, "a sign of life")
        assert "xxxxxxxx" in d.ok("logs", "--console", "box")
        d.ok("rm", "-f", "box")


def test_auto_says_what_it_took_and_why_and_remembers():
    with running(accel="auto") as d:
        d.ok("create", "--name", "any")
        info = d.get("/v1/info")
        assert info["accel"] in ("kvm", "tcg") and info["accel_reason"], info
        if not os.path.exists("/dev/kvm"):
            assert info["accel"] == "tcg" and "/dev/kvm" in info["accel_reason"]
        assert d.get("/v1/sandboxes/any")["accel"] == info["accel"]
        assert d.ok("exec", "any", "--", "echo", "runs") == "runs\n"
        d.ok("rm", "-f", "any")
        d.stop()
        d.start()
        again = d.get("/v1/info")
        assert (again["accel"], again["accel_reason"]) == (info["accel"], info["accel_reason"])


def test_forced_tcg_says_so(daemon):
    info = daemon.get("/v1/info")
    assert info["accel"] == "tcg" and "config" in info["accel_reason"], info


@pytest.mark.parametrize("config, text", [
    ({"machine": "toaster"}, "machine"),
    ({"accel": "magic"}, "accel"),
    ({"no_such_key": 1}, "no_such_key"),
    ({"default_memory": "1K"}, "default_memory"),
    ({"socket_group": "no-such-group-at-all"}, "no-such-group-at-all"),
    ({"default_cpus": 100000}, "default_cpus"),
])
def test_a_configuration_that_cannot_be_is_refused_by_name(config, text):
    from conftest import Daemon
    d = Daemon(**config)
    try:
        status = d.start(expect_failure=True)
        log = d.log()
        assert status != 0 and text in log, log
        assert len(log.splitlines()) <= 3, log
    finally:
        left = d.close()
    assert not left, left


# --- logs ---

def test_logs_of_agent_and_console(daemon):
    daemon.ok("create", "--name", "logs")
    lines = daemon.ok("logs", "logs").splitlines()
    assert lines and all(line[:4].isdigit() and line[10] == "T" for line in lines), lines
    assert daemon.ok("logs", "-n", "1", "logs").splitlines() == lines[-1:]
    assert daemon.ok("logs", "--since", "2100-01-01T00:00:00Z", "logs") == ""
    assert len(daemon.ok("logs", "--since", "1h", "logs").splitlines()) >= len(lines)
    daemon.ok("exec", "-u", "root", "logs", "--", "sh", "-c",
              r"printf '\033[31mred\007\n' > /dev/console")
    console = wait_until(lambda: "red" in (out := daemon.ok("logs", "--console", "logs")) and out, what="console")
    assert "\033" not in console and "\007" not in console
    assert "\033[31mred" in daemon.ok("logs", "--console", "--raw", "logs")
    daemon.ok("rm", "logs")


def test_a_guest_that_floods_its_console_stays_within_bounds(daemon):
    """Whoever writes, and whether or not a daemon is there: the guest's end, and QEMU's, taken over."""
    daemon.ok("create", "--name", "flood")
    ident = daemon.get("/v1/sandboxes/flood")["id"]
    path = f"{daemon.state}/sandboxes/{ident}/log/console.log"
    pipe = f"{daemon.run}/sandboxes/{ident}/console.out"
    biggest = 0

    def flood(seconds):
        """As fast as QEMU could: some emulated kernels write 5 KB/s to their console."""
        nonlocal biggest
        fd = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        piece, written, end = b"0123456789\n" * 2000, 0, time.monotonic() + seconds
        while time.monotonic() < end:
            with contextlib.suppress(BlockingIOError):
                written += os.write(fd, piece)
            biggest = max(biggest, os.stat(path).st_size)
        os.close(fd)
        return written

    # warnings of QEMU itself: what a guest can make it say is not ours to know
    warnings = f"{daemon.state}/libvirt/log/qemu/sbx-{ident}.log"
    with open(warnings, "ab") as f:
        f.write(b"warning: 0123456789\n" * 300000)
    wait_until(lambda: os.stat(warnings).st_size <= 1 << 20, what="a smaller log of QEMU", seconds=90)
    daemon.ok("exec", "-d", "-u", "root", "flood", "--", "sh", "-c", "while :; do cat /dev/zero; done > /dev/console")
    wait_until(lambda: flood(2) and b"more than can be kept" in open(path, "rb").read(), what="flood", seconds=90)
    wait_until(lambda: flood(2) and biggest > 4 << 20, what="a log that was cut", seconds=90)
    flood(3)
    assert biggest <= (4 << 20) + 65536, biggest
    # others' commands do not wait for that, and the guest does not hang
    assert daemon.ok("exec", "flood", "echo", "here") == "here\n"
    daemon.stop(signal.SIGKILL)
    size = os.stat(path).st_size
    assert flood(1) <= 65536            # the pipe is full, and what comes then is dropped
    assert os.stat(path).st_size == size
    daemon.start()
    assert daemon.ok("exec", "flood", "echo", "here") == "here\n"
    for x in daemon.get("/v1/sandboxes/flood/execs")["execs"]:
        if x["state"] == "running":
            daemon.request("POST", f"/v1/sandboxes/flood/execs/{x['id']}/signal", {"signal": "KILL"})
    wait_until(lambda: daemon.get("/v1/sandboxes/flood")["execs_running"] == 0, what="quiet", seconds=90)

    def last_words():       # dropped as long as the pipe is full
        daemon.ok("exec", "-u", "root", "flood", "--", "sh", "-c", "printf '\\nthe end\\n' > /dev/console")
        time.sleep(1)
        return daemon.ok("logs", "--console", "-n", "1", "flood") == "the end\n"
    wait_until(last_words, what="last words", seconds=90)
    daemon.ok("rm", "-f", "flood")


def test_images_are_listed_and_kept_while_in_use(daemon):
    (image,) = [i for i in daemon.get("/v1/images")["images"] if i["name"] == "debian"]
    assert any(q in image["digest"] for q in daemon.ok("images", "-q").split())
    daemon.ok("create", "--name", "user")
    r = daemon.sbx("image", "rm", "debian")
    assert r.returncode == 125 and "in use" in r.stderr and "sbx ls" in r.stderr, r.stderr
    assert daemon.ok("exec", "user", "--", "echo", "fine") == "fine\n"
    daemon.ok("rm", "-f", "user")
    assert daemon.sbx("create", "--image", "nosuch").returncode == 125


def test_an_image_that_nobody_uses_can_be_removed():
    with running() as d:
        (digest,) = [i["digest"] for i in d.get("/v1/images")["images"] if i["name"] == "debian"]
        d.ok("image", "rm", "debian")
        assert digest not in [i["digest"] for i in d.get("/v1/images")["images"]]
        assert not [n for n in os.listdir(d.state + "/images") if digest.split(":")[-1] in n]
        r = d.sbx("create")
        assert r.returncode == 125 and "sandboxd image build" in r.stderr, r.stderr


def test_a_guest_that_says_nothing_after_power_on_is_started_once_more():
    with running(start_timeout_ms=60000) as d:
        w = d.workspace()
        with d.popen("create", "--name", "mute", "--workspace", w) as create:
            # As soon as QEMU was let go, long before the kernel writes its first line.
            wait_until(lambda: "step domain took" in d.log(), what="domain")
            first = next(pid for pid, args in d.processes() if "qemu-system" in args)
            os.kill(first, signal.SIGSTOP)
            ident = d.get("/v1/sandboxes/mute")["id"]
            assert os.path.getsize(f"{d.state}/sandboxes/{ident}/log/console.log") == 0
            assert create.wait(120) == 0, create.stderr.read()
        assert "the guest has said nothing since its power is on (it runs, " in d.log()
        box = Box(d, "mute", w)
        assert box.sh("echo began > /workspace/x; cat /workspace/x") == "began\n"
        assert sum("qemu-system" in args for _, args in d.processes()) == 1
        d.ok("stop", "mute")
        assert "no orderly shutdown" not in d.log()
        d.ok("start", "mute")
        assert box.sh("cat /workspace/x") == "began\n"
        d.ok("rm", "-f", "mute")
