# SPDX-License-Identifier: MIT
"""Image builds that are cut off, repeated, or find a damaged image."""
import glob
import http.server
import os
import signal
import subprocess
import threading

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


class Proxy(http.server.BaseHTTPRequestHandler):
    """Writes down what it is asked for, and has nothing."""
    asked = []

    def do_GET(self):
        Proxy.asked.append(self.path)
        self.send_error(404)

    do_CONNECT = do_GET

    def log_message(self, *_):
        pass


def test_packages_come_by_the_proxy_of_the_environment(state):
    dump = subprocess.run(["apt-config", "dump", "Acquire"], capture_output=True, text=True).stdout
    if "::Proxy" in dump:
        pytest.skip("this host's apt has a proxy, which comes first")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        r = subprocess.run(command(state, "--name", "other"), capture_output=True, text=True,
                           stdin=subprocess.DEVNULL, timeout=120,
                           env={**os.environ, "http_proxy": url, "https_proxy": url})
        server.shutdown()
    assert r.returncode == 1 and "cannot install Debian's packages" in r.stderr, r.stderr
    assert Proxy.asked
    assert not entries(state, ".build-*")


def test_a_variant_that_is_not_there(state):
    r = subprocess.run(command(state, "--variant", "nix"), capture_output=True, text=True,
                       stdin=subprocess.DEVNULL, timeout=60)
    assert r.returncode == 1 and "variant 'nix'" in r.stderr and "hint: variants are" in r.stderr


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
