# SPDX-License-Identifier: MIT
"""Image builds that are cut off, repeated, or find a damaged image."""
import glob
import os
import signal
import subprocess

import pytest
from conftest import BUILD, SANDBOXD, SOURCE, Daemon, wait_until


def command(d, *args):
    return [SANDBOXD, "image", "build", "--config", d.dir + "/config.json", "--agent",
            BUILD + "/guest/sbx-agent", "--share-dir", SOURCE + "/guest", *args]


def build(d, *args):
    r = subprocess.run(command(d, *args), capture_output=True, text=True, timeout=900,
                       stdin=subprocess.DEVNULL)
    assert r.returncode == 0, r.stderr
    return r.stdout.strip(), r.stderr


@pytest.fixture
def state():
    d = Daemon()
    yield d
    left = d.close()
    assert not left, left


def entries(d, pattern):
    return glob.glob(f"{d.state}/images/{pattern}")


def test_a_killed_build_leaves_no_process_and_does_not_stop_the_next(state):
    p = subprocess.Popen(command(state, "--name", "other"), stdin=subprocess.DEVNULL,
                         stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_until(lambda: entries(state, ".build-*/tree/usr"), what="a tree", seconds=300)
    assert any("mmdebstrap" in a for _, a in state.processes())
    p.send_signal(signal.SIGKILL)
    p.wait()
    wait_until(lambda: not state.processes(), what="end of what it had started", seconds=30)
    assert entries(state, ".build-*")
    os.makedirs(state.state + "/images/" + "0" * 64)            # of no row
    os.makedirs(state.state + "/images/.gone-" + "0" * 64)      # a removal that was cut off
    digest, _ = build(state, "--if-missing")
    assert entries(state, digest.split(":")[1])
    assert not entries(state, ".build-*") and not entries(state, ".gone-*") and not entries(state, "0" * 64)


def test_nothing_is_made_twice_and_what_is_damaged_is_made_again(state):
    digest, _ = build(state, "--if-missing")
    again, text = build(state, "--if-missing")
    assert again == digest and text == ""
    directory = f"{state.state}/images/{digest.split(':')[1]}"
    os.unlink(directory + "/initrd")
    again, text = build(state, "--if-missing")
    assert again == digest and "initramfs" in text, text
    # What QEMU leaves free behind the initrd holds the firmware's tables.
    assert os.stat(directory + "/initrd").st_size % 4096 == 4


def test_a_second_build_waits_for_the_first_and_says_so(state):
    build(state, "--if-missing")
    with open(state.state + "/images/.lock") as lock:
        import fcntl
        fcntl.flock(lock, fcntl.LOCK_EX)
        p = subprocess.Popen(command(state, "--if-missing"), stdin=subprocess.DEVNULL,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert "another build" in p.stderr.readline()
        assert p.poll() is None
    assert p.wait(60) == 0
    p.stdout.close()
    p.stderr.close()
