# SPDX-License-Identifier: MIT
"""The Debian packages: built by Debian's tools from what git knows, then installed, upgraded, removed
and purged on a machine with systemd."""
import glob
import os
import re
import shutil

import pytest

from conftest import BUILD, SOURCE, need, ok, run, temporary, wait_until
from machine import booted


@pytest.fixture(scope="module")
def packages():
    """Folder of the two packages."""
    need("dpkg-buildpackage", "dh", "git")
    version = ok(BUILD + "/daemon/sandboxd", "--version").split()[1]
    with temporary() as d:
        tree = f"{d}/sandboxd-{version}"
        os.mkdir(tree)
        r = run("git", "-C", SOURCE, "-c", "safe.directory=*", "ls-files", "-z")
        if r.returncode != 0:
            pytest.skip("the source is no git checkout")
        for name in filter(None, r.stdout.split("\0")):
            if os.path.lexists(os.path.join(SOURCE, name)):
                os.makedirs(os.path.dirname(os.path.join(tree, name)), exist_ok=True)
                shutil.copy2(os.path.join(SOURCE, name), os.path.join(tree, name), follow_symlinks=False)
        shutil.copytree(tree + "/packaging/debian", tree + "/debian")
        r = run("dpkg-buildpackage", "-us", "-uc", "-b", "-j2", cwd=tree, timeout=600,
                env={**os.environ, "DEB_BUILD_OPTIONS": "noautodbgsym"})
        assert r.returncode == 0, r.stdout[-3000:] + r.stderr[-3000:]
        yield d


def debs(folder):
    return sorted(glob.glob(folder + "/*.deb"))


def contents(deb):
    lines = ok("dpkg-deb", "-c", deb).splitlines()
    return {re.sub(r"^\./", "", line.split()[5]) for line in lines if not line.startswith("d")}


def test_the_packages_hold_what_is_installed(packages, installed):
    found = set()
    for deb in debs(packages):
        files = contents(deb)
        assert not found & files
        found |= files
    # where Debian 12 wants units, pages and changelogs compressed
    found = {re.sub(r"^lib/", "usr/lib/", re.sub(r"(/man/.*)\.gz$", r"\1", f)) for f in found}
    own = {f for f in found if re.search(r"/(changelog|copyright|NEWS|README)[^/]*$|/lintian/", f)}
    assert found - own == {"usr/" + f for f in installed.files()}


def test_the_daemon_has_no_point_where_it_could_be_told_to_die(packages):
    for deb in debs(packages):
        ok("dpkg-deb", "-x", deb, packages + "/all")
    ok(SOURCE + "/tests/lint/check-faults", packages + "/all/usr/sbin/sandboxd", SOURCE, "no")


def test_lintian_finds_no_error(packages):
    need("lintian")
    # as root it wants to be told that it is meant
    r = run("lintian", "--allow-root", "--fail-on", "error", *glob.glob(packages + "/*.changes"))
    assert r.returncode == 0, r.stdout


@pytest.fixture(scope="module")
def machine(packages):
    def put(m):
        for deb in debs(packages):
            shutil.copy(deb, m.root + "/root")
    with booted(put) as m:
        yield m


def dpkg(machine, *args):
    # the machine has what they run, but not what builds images
    return machine.sh("DEBIAN_FRONTEND=noninteractive dpkg --force-depends " + " ".join(args), timeout=300)


def test_after_installing_a_member_can_start(machine):
    dpkg(machine, "-i", "/root/*.deb")
    assert machine.show("sandboxd.socket", "ActiveState") == "active"
    assert machine.show("sandboxd.service", "ActiveState") == "inactive"
    assert machine.ok("systemctl", "is-enabled", "sandboxd.socket") == "enabled\n"
    assert machine.run("systemctl", "is-enabled", "sandboxd.service").stdout == "disabled\n"
    assert machine.sh("stat -c '%a %U' /etc/sandboxd") == "755 root\n"
    machine.sh("useradd -m -G sandbox member")
    assert "Server:" in machine.ok("sbx", "version", user="member")


def test_an_upgrade_restarts_the_daemon_and_no_sandbox(machine):
    before = machine.pid()
    if machine.has_image:
        machine.ok("sbx", "create", "--name", "on", user="member", timeout=240)
        boot = machine.ok("sbx", "exec", "on", "--", "cat", "/proc/sys/kernel/random/boot_id", user="member")
        ident = machine.ok("sbx", "exec", "-d", "on", "--", "sh", "-c",
                           "i=0; until [ -e /tmp/end ]; do i=$((i+1)); echo $i; sleep 0.1; done; exit 7",
                           user="member").strip()
    dpkg(machine, "-i", "/root/*.deb")
    assert machine.show("sandboxd.socket", "ActiveState") == "active"
    assert machine.pid() not in (0, before)
    if machine.has_image:
        assert boot == machine.ok("sbx", "exec", "on", "--", "cat", "/proc/sys/kernel/random/boot_id",
                                  user="member")
        # and its command, whose output is whole
        machine.ok("sbx", "exec", "on", "--", "touch", "/tmp/end", user="member")
        r = machine.run("sbx", "attach", "on", ident, user="member")
        lines = r.stdout.split()
        assert r.returncode == 7 and lines == [str(i + 1) for i in range(len(lines))] and lines, r


def test_removal_ends_sandboxes_and_keeps_their_disks(machine):
    dpkg(machine, "-r", "sandboxd")
    assert machine.show("sandboxd.service", "LoadState") == "not-found"
    wait_until(lambda: machine.sh("pgrep -x 'qemu.*|virtiofsd|sandboxd' || true") == "",
               what="end of all processes")
    assert machine.sh("ls /run/sandboxd/sandboxd.sock 2>/dev/null || true") == ""
    assert machine.sh("ls /var/lib/sandboxd/sandboxd.db")
    if machine.has_image:
        assert machine.sh("ls /var/lib/sandboxd/sandboxes")
    r = machine.run("sbx", "ls", user="member")
    assert r.returncode == 125 and "no such socket" in r.stderr


def test_what_was_removed_can_come_back(machine):
    dpkg(machine, "-i", "/root/sandboxd_*.deb")
    text = machine.ok("sbx", "ls", user="member")
    if machine.has_image:
        assert re.search(r"\bon +stopped\b", text)
        machine.ok("sbx", "start", "on", user="member", timeout=240)
        machine.ok("sbx", "exec", "on", "--", "true", user="member")


def test_purge_leaves_no_state(machine):
    if machine.has_image:
        machine.sh("umount /var/lib/sandboxd/images")      # the cache's
    dpkg(machine, "-P", "sandboxd", "sbx")
    assert machine.sh("ls -d /var/lib/sandboxd /etc/sandboxd 2>/dev/null || true") == ""
    assert machine.sh("pgrep -x 'qemu.*|virtiofsd|sandboxd' || true") == ""
    left = machine.sh("find / -xdev -name '*sandboxd*' ! -path '/proc/*' ! -path '/root/*' "
                      "! -path '/var/lib/systemd/*' ! -path '/run/*'").split()
    assert left == []
