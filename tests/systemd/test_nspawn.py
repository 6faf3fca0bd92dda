# SPDX-License-Identifier: MIT
"""The installed units under a real systemd: the socket starts the daemon, its confinement holds and
still lets microVMs run, they outlive it, and nothing is left at the end. Tests build on each other:
the machine goes from its boot to the end of the daemon."""
import json

import pytest

from conftest import wait_until
from machine import booted

SOCKET = "/run/sandboxd/sandboxd.sock"
DROP_IN = "/etc/systemd/system/sandboxd.service.d"


@pytest.fixture(scope="module")
def machine():
    with booted() as m:
        yield m


@pytest.fixture(scope="module")
def box(machine):
    """A running sandbox of a member, with a workspace at home. The last but one test removes it."""
    if not machine.has_image:
        pytest.skip("no guest image in the cache: scripts/test vm builds it")
    machine.ok("mkdir", "/home/member/work", user="member")
    machine.ok("sbx", "create", "--name", "box", "--workspace", "/home/member/work", user="member",
               timeout=240)
    return "box"


def sbx(machine, *args, user="member", **kw):
    return machine.ok("sbx", *args, user=user, **kw)


# --- before the daemon ---

def test_the_socket_is_there_before_the_daemon(machine):
    assert machine.show("sandboxd.socket", "ActiveState", "SubState") == \
        {"ActiveState": "active", "SubState": "listening"}
    assert machine.show("sandboxd.service", "ActiveState") == "inactive"
    assert machine.sh(f"stat -c '%a %U %G' {SOCKET} /run/sandboxd").splitlines() == \
        ["660 root sandbox", "711 root root"]
    assert machine.run("systemctl", "is-failed", "sandboxd.socket", "sandboxd.service").stdout.split() == \
        ["active", "inactive"]


def test_who_is_not_in_the_group_is_told_so_and_starts_nothing(machine):
    r = machine.run("sbx", "ls", user="outsider")
    assert r.returncode == 125 and not r.stdout
    assert r.stderr.splitlines() == [
        f"sbx: cannot reach sandboxd at {SOCKET}: permission denied",
        "hint: join its group with 'sudo usermod -aG sandbox $USER' and log in again"]
    assert machine.show("sandboxd.service", "ActiveState") == "inactive"


def test_a_member_starts_the_daemon_by_asking(machine):
    text = sbx(machine, "version")
    assert "Server:" in text and "libvirt:" in text
    shown = machine.show("sandboxd.service", "ActiveState", "SubState", "StatusText", "NRestarts")
    assert shown == {"ActiveState": "active", "SubState": "running", "StatusText": "serving",
                     "NRestarts": "0"}
    # passed, not made: the file is the one systemd made
    assert machine.sh(f"stat -c '%a %U %G' {SOCKET}").strip() == "660 root sandbox"


# --- journal ---

def test_the_journal_gets_records_with_fields(machine):
    records = [json.loads(line) for line in machine.journal("-o", "json").splitlines()]
    ours = [r for r in records if r.get("SYSLOG_IDENTIFIER") == "sandboxd"]
    listens = [r for r in ours if "listens on" in r["MESSAGE"]]
    assert len(listens) == 1 and listens[0]["PRIORITY"] == "6"
    assert listens[0]["CODE_FILE"].endswith("daemon/main.c")
    assert not [r["MESSAGE"] for r in ours if int(r["PRIORITY"]) < 6]
    # nothing in the units that this systemd does not know
    text = machine.ok("journalctl", "--no-pager", "-b", "_PID=1")
    assert not [line for line in text.splitlines() if "Unknown key" in line or
                ("sandboxd." in line and "ignoring" in line)]


# --- confinement ---

def status(machine, pid):
    return dict(line.split(":\t", 1) for line in machine.sh(f"cat /proc/{pid}/status").splitlines()
                if ":\t" in line)


def inside(machine, script):
    """Runs as root among the daemon's mounts."""
    return machine.run("nsenter", "-t", str(machine.pid()), "-m", "sh", "-c", script)


def test_the_confinement_is_in_force(machine):
    s = status(machine, machine.pid())
    assert s["NoNewPrivs"] == "1" and s["Seccomp"] == "2"
    bounding = int(s["CapBnd"], 16)
    for forbidden in (16, 17, 22, 25, 34, 38, 39):      # module rawio boot time syslog perfmon bpf
        assert not bounding >> forbidden & 1, forbidden
    assert bounding >> 21 & 1                           # sys_admin: mounts
    for path in ("/usr", "/etc", "/sys", "/proc/sys/kernel"):
        r = inside(machine, f"touch {path}/x")
        assert r.returncode != 0 and "ead-only" in r.stderr + "Read-only", (path, r.stderr)
    assert inside(machine, "ls /usr/lib/modules/.").returncode != 0
    for path in ("/home/member", "/srv", "/tmp", "/opt", "/var/lib/sandboxd", "/run/sandboxd"):
        assert inside(machine, f"touch {path}/x && rm {path}/x").returncode == 0, path
    # machined is there and could be asked
    assert "machine1" in machine.ok("busctl", "--no-pager", "list")
    assert inside(machine, "test -S /run/dbus/system_bus_socket").returncode != 0
    assert inside(machine, "systemctl start systemd-machined").returncode != 0
    ns = {k: machine.sh(f"readlink /proc/{machine.pid()}/ns/{k}") for k in ("mnt", "ipc", "uts")}
    for kind, name in ns.items():
        assert name != machine.sh(f"readlink /proc/1/ns/{kind}"), kind
    assert machine.show("sandboxd.service", "OOMPolicy", "KillMode", "LimitNOFILE") == \
        {"OOMPolicy": "continue", "KillMode": "process", "LimitNOFILE": "524288"}


def test_a_mount_of_the_host_arrives(machine):
    """A home that is mounted on login, a stick: workspaces on them are seen by a running daemon."""
    machine.sh("mkdir -p /srv/late && mount -t tmpfs late /srv/late && touch /srv/late/file")
    try:
        assert inside(machine, "ls /srv/late").stdout == "file\n"
    finally:
        machine.sh("umount /srv/late && rmdir /srv/late")
    assert "late" not in inside(machine, "cat /proc/self/mounts").stdout


# --- life ---

def test_a_killed_daemon_comes_back_by_itself(machine):
    before = machine.pid()
    machine.ok("systemctl", "kill", "-s", "KILL", "--kill-who=main", "sandboxd.service")
    # at once: the socket holds the request until there is somebody to answer it
    assert "Server:" in sbx(machine, "version")
    assert machine.pid() not in (0, before)
    assert machine.show("sandboxd.service", "NRestarts") == "1"


def test_reload_takes_over_the_log_level(machine):
    machine.sh("""mkdir -p /etc/sandboxd && echo '{"log_level": "debug"}' > /etc/sandboxd/daemon.json""")
    before = machine.pid()
    machine.ok("systemctl", "reload", "sandboxd.service")
    wait_until(lambda: "log level set" in machine.journal(), what="answer to the reload")
    sbx(machine, "ls")
    wait_until(lambda: "GET /v1/sandboxes" in machine.journal("-p", "debug"), what="debug record")
    assert machine.pid() == before
    machine.sh("rm /etc/sandboxd/daemon.json")


def test_a_bad_configuration_fails_with_its_reason_and_can_be_mended(machine):
    machine.sh("""echo '{"konsole": "hvc0"}' > /etc/sandboxd/daemon.json""")
    try:
        broken(machine)
    finally:
        machine.sh("rm /etc/sandboxd/daemon.json")
        machine.ok("systemctl", "reset-failed", "sandboxd.service", "sandboxd.socket")
        machine.ok("systemctl", "start", "sandboxd.service")        # brings the socket along
    assert "Server:" in sbx(machine, "version")


def broken(machine):
    assert machine.run("systemctl", "restart", "sandboxd.service").returncode != 0
    assert "the configuration cannot be used: /etc/sandboxd/daemon.json: " in machine.journal("-p", "err")
    assert "konsole" in machine.journal("-p", "err")
    # it gives up instead of trying for ever
    wait_until(lambda: machine.show("sandboxd.service", "ActiveState") == "failed", what="end of trying")
    r = machine.run("sbx", "ls", user="member")
    assert r.returncode == 125 and "cannot reach sandboxd" in r.stderr and "systemctl start" in r.stderr, r.stderr


# --- microVMs ---

def test_a_microvm_runs_confined(machine, box):
    assert sbx(machine, "exec", box, "--", "sh", "-c", "echo out > /workspace/f; id -un") == "agent\n"
    assert machine.sh("stat -c '%U %G' /home/member/work/f; cat /home/member/work/f") == "member member\nout\n"
    found = machine.processes()
    assert sorted(n.split(":")[0] for n in found.values()) == ["qemu", "virtiofsd", "virtiofsd"]
    for pid, name in found.items():
        s = status(machine, pid)
        assert s["NoNewPrivs"] == "1" and s["Seccomp"] == "2", name
        assert int(s["Uid"].split()[0]) != 0, name
        if name.startswith("qemu"):
            assert int(s["CapEff"], 16) == 0
            uid = s["Uid"].split()[0]       # whose packets the filter of the host's network drops
            r = machine.run("setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "bash", "-c",
                            "echo x > /dev/udp/127.0.0.1/9")
            assert r.returncode != 0 and "not permitted" in r.stderr, r
        else:
            assert machine.sh(f"readlink /proc/{pid}/ns/net") != machine.sh("readlink /proc/1/ns/net")
    found = machine.sh("ps -eo pid=,args= | grep [s]andboxd-resolver").split()
    s = status(machine, int(found[0]))
    assert s["Seccomp"] == "2" and s["NoNewPrivs"] == "1" and int(s["Uid"].split()[0]) != 0
    assert not any(int(s[k], 16) for k in ("CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb"))


def test_a_sandbox_reaches_what_its_policy_names(machine, box):
    machine.sh("ip link add net0 type dummy 2>/dev/null; true")
    assert sbx(machine, "exec", box, "--", "sh", "-c", "ls /sys/class/net") == "eth0\nlo\n"
    r = sbx(machine, "exec", box, "--", "bash", "-c", "(exec 3<>/dev/tcp/10.209.0.1/22) 2>&1; true")
    assert "refused" in r
    assert "10.209.0.1" in sbx(machine, "policy", "log", box, "--denied")


def test_its_start_is_explained_by_the_catalog(machine, box):
    text = machine.journal("-x", "MESSAGE_ID=5b1de1c9c8c04c6f9e6fd4bca02f2a01")
    ident = json.loads(sbx(machine, "inspect", box))
    ident = (ident[0] if isinstance(ident, list) else ident)["id"]
    uid = machine.ok("id", "-u", "member").strip()
    assert "sandbox 'box' is running" in text
    assert "Subject: A sandbox is running" in text
    assert f"sandbox {ident}, which belongs to the user with the id {uid}" in text


@pytest.mark.parametrize("place", ["/srv/w", "/tmp/w", "/opt/w"])
def test_workspaces_outside_of_homes(machine, box, place):
    machine.sh(f"mkdir {place} && chown member: {place}")
    sbx(machine, "create", "--name", "elsewhere", "--workspace", place, timeout=240)
    sbx(machine, "exec", "elsewhere", "--", "touch", "/workspace/made")
    assert machine.sh(f"stat -c %U {place}/made") == "member\n"
    sbx(machine, "rm", "elsewhere")
    machine.ok("rm", "-r", place)


def test_a_workspace_of_the_system_is_for_reading(machine, box):
    machine.sh("mkdir -p /usr/local/src/w && chown member: /usr/local/src/w")
    r = machine.run("sbx", "create", "--name", "no", "--workspace", "/usr/local/src/w", user="member")
    assert r.returncode == 125 and "read-only file system" in r.stderr and "hint:" in r.stderr
    machine.ok("rm", "-r", "/usr/local/src/w")


def boot_id(machine, box):
    return sbx(machine, "exec", box, "--", "cat", "/proc/sys/kernel/random/boot_id")


COUNT = ("i=0; while [ ! -e /workspace/end ]; do i=$((i+1)); echo $i > /workspace/count; sleep 0.05; "
         "done; echo done; exit 7")


def test_sandboxes_and_their_commands_live_through_restarts(machine, box):
    first, processes = boot_id(machine, box), machine.processes()
    ident = sbx(machine, "exec", "-d", box, "--", "sh", "-c", COUNT).strip()
    for how in (["restart"], ["kill", "-s", "KILL", "--kill-who=main"], ["stop"]):
        before = machine.pid()
        machine.ok("systemctl", *how, "sandboxd.service")
        assert processes.keys() <= machine.processes().keys()
        # after "stop" it is this that starts it again, by the socket
        assert boot_id(machine, box) == first
        assert machine.pid() not in (0, before)
        assert machine.processes() == processes
    count = machine.sh("cat /home/member/work/count")
    wait_until(lambda: machine.sh("cat /home/member/work/count") not in ("", count), what="progress")
    machine.sh("touch /home/member/work/end")
    r = machine.run("sbx", "attach", box, ident, user="member")
    assert r.returncode == 7 and r.stdout.endswith("done\n"), r
    assert "sandbox 'box' goes on" in machine.journal()


def test_restarting_the_socket_too(machine, box):
    first = boot_id(machine, box)
    machine.ok("systemctl", "restart", "sandboxd.socket")
    assert boot_id(machine, box) == first


def test_the_guest_that_is_killed_takes_nobody_along(machine, box):
    """As the kernel would for lack of memory: the daemon stays, and says what happened."""
    qemu = next(p for p, n in machine.processes().items() if n.startswith("qemu"))
    before = machine.pid()
    machine.sh(f"kill -KILL {qemu}")
    wait_until(lambda: '"running"' not in sbx(machine, "inspect", box), what="news of its end")
    assert machine.pid() == before and machine.processes() == {}
    sbx(machine, "start", box, timeout=240)
    assert boot_id(machine, box)


# --- the end ---

def test_stop_leaves_nothing(machine):
    if machine.has_image:
        sbx(machine, "rm", "-f", "box")
    machine.ok("systemctl", "stop", "sandboxd.socket", "sandboxd.service")
    assert machine.show("sandboxd.service", "ActiveState", "Result") == \
        {"ActiveState": "inactive", "Result": "success"}
    assert machine.processes() == {}
    assert machine.sh("ps -eo args= | grep -E 'sandboxd|qemu|virtiofsd' | grep -v grep || true") == ""
    assert machine.sh(f"ls {SOCKET} 2>/dev/null || true") == ""
    assert machine.sh("find /run/sandboxd -mindepth 2") == ""
    assert machine.sh("ls /var/lib/sandboxd/sandboxes") == ""
    assert machine.sh("grep -c sandboxd/view /proc/1/mounts || true").strip() == "0"
    r = machine.run("sbx", "ls", user="member")
    assert r.returncode == 125 and "no such socket" in r.stderr


def test_the_drop_in_shares_the_mounts_of_the_host(machine):
    """As for qemu:///system, with a libvirt that needs no service: libvirtd would see the view."""
    machine.sh(f"mkdir -p {DROP_IN} && cp /usr/local/share/doc/sandboxd/examples/qemu-system.conf "
               f"/usr/share/doc/sandboxd/examples/qemu-system.conf {DROP_IN} 2>/dev/null; "
               f"ls {DROP_IN}/qemu-system.conf")
    machine.sh("""echo '{"libvirt_uri": "test:///default"}' > /etc/sandboxd/daemon.json""")
    machine.ok("systemctl", "daemon-reload")
    machine.ok("systemctl", "start", "sandboxd.service")
    for kind in ("mnt", "net", "ipc"):
        assert machine.sh(f"readlink /proc/{machine.pid()}/ns/{kind}") == machine.sh(f"readlink /proc/1/ns/{kind}")
    mounts = [line.split() for line in machine.sh("cat /proc/1/mounts").splitlines()]
    assert ["ro" in m[3].split(",") for m in mounts if m[1] == "/run/sandboxd/view"] == [True]
    assert "Server:" in sbx(machine, "version")
    machine.ok("systemctl", "stop", "sandboxd.socket")      # and the service with it
    assert machine.show("sandboxd.service", "ActiveState") == "inactive"
    assert "/run/sandboxd/view" not in machine.sh("cat /proc/1/mounts")
