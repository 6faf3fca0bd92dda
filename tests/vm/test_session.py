# SPDX-License-Identifier: MIT
"""What a newcomer does, word by word, and what is left afterwards: nothing."""
import os
import subprocess

import netns
import pytest
from conftest import running


def test_the_three_commands(daemon):
    d = daemon.workspace()
    daemon.ok("create", "--name", "my-agent-sandbox", "--workspace", d)
    r = daemon.sbx("exec", "my-agent-sandbox", "--", "/bin/bash", "-c",
                   "uname -r; touch /workspace/x; sudo id")
    assert r.returncode == 0, r.stderr
    release, who = r.stdout.splitlines()
    assert release and release != os.uname().release
    assert who.startswith("uid=0(root)")
    assert os.stat(d + "/x").st_uid == 0
    pids = [p for p, args in daemon.processes() if "sandboxd --config" not in args]
    assert len(pids) >= 2, daemon.processes()       # QEMU and virtiofsd
    daemon.ok("rm", "my-agent-sandbox")
    assert [a for _, a in daemon.processes() if "sandboxd --config" not in a] == []
    assert daemon.rows("SELECT * FROM vm") == [] == daemon.rows("SELECT * FROM exec")
    assert os.listdir(daemon.state + "/sandboxes") == [] == os.listdir(daemon.run + "/sandboxes")


def test_stop_and_start_keep_the_disk(daemon):
    daemon.ok("create", "--name", "keep")
    daemon.ok("exec", "-u", "root", "keep", "--", "sh", "-c", "echo kept > /root/file; sync")
    daemon.ok("stop", "keep")
    assert daemon.get("/v1/sandboxes/keep")["state"] == "stopped"
    r = daemon.sbx("exec", "keep", "--", "true")
    assert r.returncode == 125
    assert r.stderr.startswith("sbx: ") and "stopped" in r.stderr and "sbx start keep" in r.stderr
    daemon.ok("stop", "keep")                        # stopping what is stopped is no error
    daemon.ok("start", "keep")
    assert daemon.ok("exec", "-u", "root", "keep", "--", "cat", "/root/file") == "kept\n"
    before = daemon.ok("exec", "keep", "--", "cat", "/proc/sys/kernel/random/boot_id")
    daemon.ok("restart", "keep")
    assert daemon.ok("exec", "keep", "--", "cat", "/proc/sys/kernel/random/boot_id") != before
    daemon.ok("rm", "keep")


def test_a_guest_that_powers_off_is_stopped_with_a_reason(daemon):
    from conftest import wait_until
    daemon.ok("create", "--name", "off")
    daemon.sbx("exec", "-u", "root", "off", "--", "sh", "-c", "echo o > /proc/sysrq-trigger")
    box = wait_until(lambda: (lambda b: b["state"] == "stopped" and b)(
        daemon.get("/v1/sandboxes/off")), what="stop")
    assert "powered off" in box["reason"]
    daemon.ok("start", "off")
    assert daemon.ok("exec", "off", "--", "echo", "again") == "again\n"
    daemon.ok("rm", "off")


def test_without_workspace_none_is_shared(daemon):
    daemon.ok("create", "--name", "bare")
    assert daemon.sbx("exec", "bare", "--", "mountpoint", "-q", "/workspace").returncode != 0
    assert daemon.ok("exec", "bare", "--", "pwd") == "/home/agent\n"
    assert not [a for _, a in daemon.processes() if "virtiofsd" in a]
    daemon.ok("rm", "bare")


def test_one_network_interface_which_leads_to_the_gateway(daemon, box):
    assert box.sh("ls /sys/class/net").split() == ["eth0", "lo"]
    address = daemon.get("/v1/sandboxes/box")["network"]["address"]
    assert address in box.sh("cat /proc/net/fib_trie")
    routes = [line.split()[1:3] for line in box.sh("cat /proc/net/route").splitlines()[1:]]
    gateway = "0100D10A"            # 10.209.0.1
    assert sorted(routes) == [["00000000", gateway], [gateway, "00000000"]]
    assert box.sh("cat /sys/class/net/eth0/carrier") == "1\n"


def test_without_networks_there_is_no_interface():
    with running(network=False) as d:
        d.ok("create", "--name", "box")
        assert d.get("/v1/sandboxes/box")["network"] is None
        assert d.ok("exec", "box", "ls", "/sys/class/net").split() == ["lo"]
        d.ok("rm", "-f", "box")
        d.stop()
        tables = subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=True,
                                preexec_fn=lambda: netns.enter(d.network)).stdout
        assert tables == ""


def test_environment_labels_resources(daemon):
    daemon.ok("create", "--name", "opts", "-e", "GREETING=hello there", "-l", "team=web",
              "--cpus", "1", "--memory", "512M", "--disk", "24G")
    assert daemon.ok("exec", "-e", "MORE=1", "opts", "--", "sh", "-c",
                     'echo "$GREETING $MORE"; nproc') == "hello there 1\n1\n"
    kib = int(daemon.ok("exec", "opts", "--", "awk", "/MemTotal/{print $2}", "/proc/meminfo"))
    assert 400 * 1024 < kib < 512 * 1024
    gib = int(daemon.ok("exec", "opts", "--", "df", "--output=size", "-BM", "/").split()[1][:-1])
    assert gib > 22 * 1024
    assert daemon.ok("ls", "-q", "--filter", "label=team=web").strip() in \
        daemon.get("/v1/sandboxes/opts")["id"]
    assert daemon.ok("ls", "-q", "--filter", "label=team=db") == ""
    daemon.ok("rm", "opts")


def test_an_environment_of_any_size_works_or_is_refused_at_once(daemon):
    fits = ",".join(f"V{i}={'x' * 230}" for i in range(100))
    args = [a for v in fits.split(",") for a in ("-e", v)]
    daemon.ok("create", "--name", "env", "--memory", "256M", *args)
    assert daemon.ok("exec", "env", "--", "sh", "-c", "echo ${#V99}") == "230\n"
    daemon.ok("rm", "-f", "env")
    text = fails(daemon, "create", "--name", "env", *args, "-e", "MORE=" + "x" * 2000)
    assert "env" in text and "24576" in text
    assert daemon.rows("SELECT count(*) FROM vm WHERE name = 'env'") == [(0,)]


# --- errors: one line, what to do, the right status ---

def fails(daemon, *args, status=125, **kw):
    r = daemon.sbx(*args, **kw)
    assert r.returncode == status, (args, r)
    lines = r.stderr.splitlines()
    assert lines and lines[0].startswith("sbx: ") and len(lines) <= 2, r.stderr
    assert len(lines) == 1 or lines[1].startswith("hint: "), r.stderr
    return r.stderr


def test_a_name_in_use(daemon, box):
    text = fails(daemon, "create", "--name", "box")
    assert "box" in text and "sbx rm box" in text


def test_a_missing_directory(daemon):
    text = fails(daemon, "create", "--workspace", "/no/such/dir")
    assert "/no/such/dir" in text
    assert daemon.rows("SELECT count(*) FROM vm WHERE state = 0") == [(0,)]


@pytest.mark.parametrize("path", ["/", "STATE", "RUN", "STATE/sandboxes", "/etc/passwd"])
def test_directories_that_are_refused(daemon, path):
    path = path.replace("STATE", daemon.state).replace("RUN", daemon.run)
    fails(daemon, "create", "--workspace", path)


def test_another_users_directory_is_refused(daemon):
    d = daemon.workspace(uid=1001, mode=0o700)
    fails(daemon, "create", "--workspace", d, uid=1000)
    d = daemon.workspace(uid=1001, mode=0o755)
    assert ":ro" in fails(daemon, "create", "--workspace", d, uid=1000)


def test_no_such_sandbox(daemon):
    assert "nosuch" in fails(daemon, "exec", "nosuch", "true")
    fails(daemon, "rm", "nosuch")
    daemon.ok("rm", "-f", "nosuch")


def test_no_daemon():
    with running() as d:
        d.stop()
        text = fails(d, "ls")
        assert d.socket in text
        d.start()


def test_what_others_own_does_not_exist(daemon, box):
    d = daemon.workspace(uid=1000)
    assert daemon.ok("ls", "-q", uid=1000) == ""
    for args in (("inspect", "box"), ("exec", "box", "true"), ("stop", "box"), ("rm", "box"),
                 ("logs", "box")):
        assert "no sandbox 'box'" in fails(daemon, *args, uid=1000)
    daemon.ok("create", "--name", "box", "--workspace", d, uid=1000)    # names are per owner
    assert daemon.ok("exec", "box", "--", "sh", "-c", "touch /workspace/mine; id -u", uid=1000) == "1000\n"
    assert os.stat(d + "/mine").st_uid == 1000
    named = [s for s in daemon.get("/v1/sandboxes")["sandboxes"] if s["name"] == "box"]
    assert sorted(s["owner"]["uid"] for s in named) == [0, 1000]                 # root sees both
    daemon.ok("create", "--name", "theirs", "--no-start", uid=1000)
    hint = fails(daemon, "rm", "theirs")                                # but does not mix them up
    theirs = daemon.get("/v1/sandboxes")["sandboxes"]
    ident = next(s["id"] for s in theirs if s["name"] == "theirs")
    assert "no sandbox 'theirs' of your own" in hint and f"by its id, {ident}" in hint
    daemon.ok("rm", ident)
    daemon.ok("rm", "box", uid=1000)
    assert box.sh("echo still here") == "still here\n"
