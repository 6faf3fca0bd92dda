# SPDX-License-Identifier: MIT
"""A Debian with systemd as its first process, in a container: the installed tree on top of a system
that is made once and kept in the cache, as an overlay that is thrown away."""
import contextlib
import glob
import hashlib
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import tempfile
import time

import pytest

from conftest import BUILD, CACHE, ENV, SOURCE, need, ok, read, run

CGROUPS = ("/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified", "/sys/fs/cgroup")


def packages(extra):
    """What the machine needs: libraries of the two programs, what they run, and systemd."""
    libraries = set()
    for program in ("daemon/sandboxd", "client/sbx", "resolver/sandboxd-resolver"):
        for path in re.findall(r"=> (/\S+)", ok("ldd", os.path.join(BUILD, program))):
            # a package may have registered a library by the path before or after merging /usr
            real = os.path.realpath(path)
            for name in (real, real.removeprefix("/usr"), path):
                r = run("dpkg", "-S", name)
                if r.returncode == 0:
                    libraries.add(re.sub(r":.*", "", r.stdout))
                    break
            else:
                pytest.skip(f"{path} is of no Debian package")
    deps = ok("sh", "-c", f"sed -n '/^run=/,/\"$/p' {SOURCE}/scripts/install-deps")
    wanted = set(re.sub(r'run=|"', "", deps).split()) - {"mmdebstrap", "ca-certificates"}
    if 'VERSION_ID="12"' in read("/etc/os-release"):
        wanted = wanted - {"virtiofsd"} | {"qemu-system-common"}
    # with machined and D-Bus, since libvirt asks there for a control group if it can
    return sorted(libraries | wanted | {"systemd", "systemd-sysv", "systemd-container", "dbus",
                                        "passwd", "procps", "util-linux", *extra})


def base(extra):
    """The path of the system, made now unless the cache has the one wanted."""
    need("mmdebstrap", "dpkg", "ldd")
    codename = re.search(r"^VERSION_CODENAME=(\w+)", read("/etc/os-release"), re.M)
    if not codename:
        pytest.skip("this is no release of Debian")
    wanted = packages(extra)
    # one of each kind is kept
    kind = "-".join(["system", *extra])
    key = kind + "." + hashlib.sha256(" ".join([codename.group(1), *wanted]).encode()).hexdigest()[:16]
    folder = os.path.join(CACHE, "nspawn")
    tree = os.path.join(folder, key)
    if os.path.isdir(tree):
        return tree
    for old in glob.glob(f"{folder}/{kind}.*"):
        shutil.rmtree(old)
    os.makedirs(folder, exist_ok=True)
    sources = [p for p in ("/etc/apt/sources.list", *glob.glob("/etc/apt/sources.list.d/*.sources"),
                           *glob.glob("/etc/apt/sources.list.d/*.list"))
               if os.path.exists(p) and "debian" in read(p)]
    r = run("mmdebstrap", "--variant=minbase", "--quiet", "--include=" + ",".join(wanted),
            '--aptopt=APT::Install-Recommends "false"', "--dpkgopt=path-exclude=/usr/share/doc/*",
            "--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/locale/*",
            codename.group(1), tree + ".new", *sources, timeout=600)
    if r.returncode != 0:
        shutil.rmtree(tree + ".new", ignore_errors=True)
        pytest.skip("no system could be installed: " + r.stderr[-500:])
    os.rename(tree + ".new", tree)
    return tree


def cgroup_dirs():
    found = set()
    for top in CGROUPS:
        for name in ("payload", "supervisor"):
            for folder, _, _ in os.walk(os.path.join(top, name)):
                found.add(folder)
    return found


class Machine:
    def __init__(self):
        self.dir = tempfile.mkdtemp(prefix="sbxn.", dir="/tmp")
        self.root = self.dir + "/root"
        self.process = self.leader = None
        self.mounted = False
        self.cgroups = cgroup_dirs()
        self.has_image = os.path.exists(os.path.join(CACHE, "image/sandboxd.db"))

    # -- life --

    def build(self, install, extra):
        tree = base(extra)
        for name in ("root", "upper", "work"):
            os.mkdir(f"{self.dir}/{name}")
        r = run("mount", "-t", "overlay", "overlay", "-o",
                f"lowerdir={tree},upperdir={self.dir}/upper,workdir={self.dir}/work", self.root)
        self.mounted = r.returncode == 0
        if not self.mounted:        # itself on an overlay
            ok("cp", "-a", tree + "/.", self.root, timeout=300)
        state = self.root + "/var/lib/sandboxd"
        os.makedirs(state, 0o711)
        if self.has_image:
            os.mkdir(state + "/images")
            cached = CACHE + "/image/sandboxd.db"
            with contextlib.closing(sqlite3.connect(f"file:{cached}?mode=ro", uri=True)) as a, \
                    contextlib.closing(sqlite3.connect(state + "/sandboxd.db")) as b:
                a.backup(b)
        install(self)
        with open(self.root + "/etc/hostname", "w") as f:
            f.write("sbxtest\n")
        with open(self.root + "/etc/resolv.conf", "w") as f:
            f.write("nameserver 192.0.2.53\n")

    def boot(self):
        # PID 1 says READY=1 when all units of the start are there
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.bind(self.dir + "/notify")
            options = ["--bind-ro=" + CACHE + "/image/images:/var/lib/sandboxd/images"] if self.has_image else []
            with open(self.dir + "/console", "wb") as console:
                # all capabilities and these calls: what a machine has and a container has not
                self.process = subprocess.Popen(
                    ["systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--private-network",
                     "--link-journal=no", "--resolv-conf=off", "--timezone=off", "--notify-ready=yes",
                     "--kill-signal=SIGRTMIN+3", "--capability=all",
                     "--system-call-filter=@keyring @module bpf", *options, "-b", "-D", self.root],
                    stdin=subprocess.DEVNULL, stdout=console, stderr=console,
                    env={**ENV, "NOTIFY_SOCKET": self.dir + "/notify"}, start_new_session=True)
            deadline = time.monotonic() + 120
            notify.settimeout(1)
            ready = False
            while time.monotonic() < deadline and self.process.poll() is None and not ready:
                with contextlib.suppress(TimeoutError):
                    text = notify.recv(4096).decode()
                    pid = re.search(r"^X_NSPAWN_LEADER_PID=(\d+)", text, re.M)
                    self.leader = int(pid.group(1)) if pid else self.leader
                    ready = "READY=1" in text.split("\n")
        if not ready or not self.leader:
            pytest.skip("systemd does not boot in a container here: " + self.console()[-1000:])

    def console(self):
        return read(self.dir, "console")

    def close(self):
        """Powers off, and says what was left behind."""
        left = []
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(90)
            except subprocess.TimeoutExpired:
                left.append("the machine did not power off: " + self.console()[-1000:])
                if self.leader:
                    os.kill(self.leader, signal.SIGKILL)
                self.process.wait(30)
        if self.mounted:
            ok("umount", self.root)
        with open("/proc/mounts") as f:
            left += [line for line in f if self.dir in line]
        if not left:
            shutil.rmtree(self.dir)
        for folder in sorted(cgroup_dirs() - self.cgroups, reverse=True):
            with contextlib.suppress(OSError):
                os.rmdir(folder)
        return left

    # -- use --

    def sh_outside(self, script):
        """Before the boot."""
        return ok("chroot", self.root, "sh", "-c", script)

    def run(self, *args, user=None, timeout=120, **kw):
        command = ["runuser", "-u", user, "--", *args] if user else list(args)
        return run("nsenter", "-t", str(self.leader), "-a", "env", "-i", "HOME=/",
                   "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin", "LC_ALL=C.UTF-8",
                   "SYSTEMD_PAGER=", "SYSTEMD_COLORS=0", *command, timeout=timeout, **kw)

    def ok(self, *args, **kw):
        r = self.run(*args, **kw)
        assert r.returncode == 0, \
            f"{' '.join(args)}: {r.returncode}\n{r.stderr}\n{r.stdout}\n{self.journal()[-3000:]}"
        return r.stdout

    def sh(self, script, **kw):
        return self.ok("sh", "-c", script, **kw)

    def show(self, unit, *properties):
        text = self.ok("systemctl", "show", unit, *("-p" + p for p in properties))
        values = dict(line.split("=", 1) for line in text.splitlines())
        return values[properties[0]] if len(properties) == 1 else values

    def pid(self):
        """The daemon's, in the machine."""
        return int(self.show("sandboxd.service", "MainPID"))

    def processes(self):
        """Processes of sandboxes, as {pid: name}; the resolver goes with the daemon."""
        group = self.show("sandboxd.service", "ControlGroup")
        if not group:
            return {}
        main = self.pid()
        script = (f"for d in /sys/fs/cgroup /sys/fs/cgroup/unified /sys/fs/cgroup/systemd; do "
                  f"cat $d{group}/cgroup.procs 2>/dev/null; done; true")
        pids = {int(p) for p in self.sh(script).split()} - {main}
        names = {p: self.sh(f"cat /proc/{p}/comm 2>/dev/null || true").strip() for p in sorted(pids)}
        return {p: n for p, n in names.items() if n != "sandboxd-resolv"}

    def journal(self, *args):
        return self.run("journalctl", "--no-pager", "-u", "sandboxd", *args).stdout


def install_tree(m):
    """As `meson install` does it, and by hand what the scripts of a package do."""
    ok("meson", "install", "-C", BUILD, "--no-rebuild", "--quiet", "--destdir", m.root)
    for command in (["systemd-sysusers"], ["journalctl", "--update-catalog"],
                    ["systemctl", "enable", "sandboxd.socket"],
                    ["useradd", "-m", "-G", "sandbox", "member"], ["useradd", "-m", "outsider"]):
        ok("chroot", m.root, *command)


@contextlib.contextmanager
def booted(install=install_tree, extra=()):
    need("systemd-nspawn", "nsenter", "mount")
    if os.geteuid() != 0:
        pytest.skip("containers need root")
    m = Machine()
    try:
        m.build(install, extra)
        m.boot()
        yield m
    finally:
        left = m.close()
    assert not left, left
