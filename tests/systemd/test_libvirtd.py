# SPDX-License-Identifier: MIT
"""The other way to run guests: by the system's libvirtd, with the drop-in of the examples. libvirtd
sees the daemon's view of images, guests live through restarts of both."""
import os
import shutil

import pytest

from conftest import wait_until
from machine import booted, install_tree

NAME = "/etc/systemd/system/sandboxd.service.d/qemu-system.conf"


def install(m):
    if not m.has_image:
        pytest.skip("no guest image in the cache: scripts/test vm builds it")
    install_tree(m)
    example = m.sh_outside("find / -xdev -path '*/doc/sandboxd/examples/qemu-system.conf'").split()
    os.makedirs(os.path.dirname(m.root + NAME))
    shutil.copy(m.root + example[0], m.root + NAME)
    os.makedirs(m.root + "/etc/sandboxd")
    with open(m.root + "/etc/sandboxd/daemon.json", "w") as f:
        f.write('{"libvirt_uri": "qemu:///system"}\n')
    # control groups of a container may be read-only, which libvirt takes for an error
    with open(m.root + "/etc/libvirt/qemu.conf", "a") as f:
        f.write("\ncgroup_controllers = []\n")


@pytest.fixture(scope="module")
def machine():
    with booted(install, ("libvirt-daemon-system",)) as m:
        yield m


def sbx(machine, *args, **kw):
    return machine.ok("sbx", *args, user="member", timeout=240, **kw)


def boot_id(machine):
    return sbx(machine, "exec", "box", "--", "cat", "/proc/sys/kernel/random/boot_id")


def domains(machine):
    return machine.ok("virsh", "-c", "qemu:///system", "list", "--name").split()


def test_the_daemon_shares_the_mounts_of_the_host(machine):
    assert "qemu:///system" in sbx(machine, "info")
    for kind in ("mnt", "net", "ipc"):
        assert machine.sh(f"readlink /proc/{machine.pid()}/ns/{kind}") == \
            machine.sh(f"readlink /proc/1/ns/{kind}")
    mounts = [line.split() for line in machine.sh("cat /proc/1/mounts").splitlines()]
    assert ["ro" in m[3].split(",") for m in mounts if m[1] == "/run/sandboxd/view"] == [True]


def test_libvirtd_runs_the_guest_and_the_workspace_is_the_callers(machine):
    machine.ok("mkdir", "/home/member/work", user="member")
    sbx(machine, "create", "--name", "box", "--workspace", "/home/member/work")
    sbx(machine, "exec", "box", "--", "touch", "/workspace/made")
    assert machine.sh("stat -c %U /home/member/work/made") == "member\n"
    assert len(domains(machine)) == 1
    # not in the daemon's service, and not as root
    qemu = machine.sh("pgrep -x qemu-system-.*").split()
    assert len(qemu) == 1 and int(qemu[0]) not in machine.processes()
    assert machine.sh(f"stat -c %u /proc/{qemu[0]}").strip() != "0"


@pytest.mark.parametrize("unit", ["sandboxd.service", "libvirtd.service"])
def test_the_guest_lives_through_a_restart(machine, unit):
    first = boot_id(machine)
    machine.ok("systemctl", "restart", unit)
    assert boot_id(machine) == first
    # and the daemon still learns what happens
    assert sbx(machine, "ls", "-q").strip()


def test_the_end_of_a_guest_is_noticed_after_restarts(machine):
    machine.ok("virsh", "-c", "qemu:///system", "destroy", domains(machine)[0])
    wait_until(lambda: '"running"' not in sbx(machine, "inspect", "box"), what="news of its end")
    sbx(machine, "start", "box")
    assert boot_id(machine)


def test_stop_leaves_nothing(machine):
    sbx(machine, "rm", "box")
    machine.ok("systemctl", "stop", "sandboxd.socket")      # and the service with it
    assert machine.show("sandboxd.service", "ActiveState") == "inactive"
    assert domains(machine) == [] and machine.processes() == {}
    assert "/run/sandboxd/view" not in machine.sh("cat /proc/1/mounts")
    assert machine.sh("find /run/sandboxd -mindepth 2") == ""
