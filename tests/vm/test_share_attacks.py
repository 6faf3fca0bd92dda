# SPDX-License-Identifier: MIT
"""Root of a guest, and the user beside it on the host, against the shared directory: nothing outside of
it is reached, and what is used up is the user's own."""
import contextlib
import ctypes
import errno
import os
import shutil
import stat
import struct
import subprocess
import threading

import pytest
from conftest import BUILD, Box, Daemon, wait_until

USER = 1000
AT_FDCWD, RENAME_EXCHANGE = -100, 2
libc = ctypes.CDLL(None, use_errno=True)


def exchange(a, b):
    if libc.renameat2(AT_FDCWD, os.fsencode(a), AT_FDCWD, os.fsencode(b), RENAME_EXCHANGE) != 0:
        raise OSError(ctypes.get_errno(), f"renameat2 {a} {b}")


def xattrs_of(path):
    """Calls for Box.tries(); the first is what setcap does with cap_setuid+ep."""
    return (("setxattr", path, "security.capability", struct.pack("<5I", 0x02000001, 1 << 7, 0, 0, 0)),
            ("setxattr", path, "trusted.x", b"1"), ("setxattr", path, "user.x", b"1"), ("removexattr", path, "user.x"))


@contextlib.contextmanager
def exchanging(a, b):
    """The host's names a and b change places all the time; afterwards they are as they were."""
    stop = threading.Event()
    turns = [0]

    def run():
        while not stop.is_set():
            exchange(a, b)
            turns[0] += 1
    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield turns
    finally:
        stop.set()
        thread.join()
        if turns[0] % 2:
            exchange(a, b)


def create(daemon, work):
    """A sandbox of USER, which root uses by its id."""
    return Box(daemon, daemon.ok("create", "-q", "--workspace", work, "--memory", "512M", uid=USER).strip(), work)


@pytest.fixture(scope="module")
def attacked(daemon):
    """A sandbox of USER; beside its workspace lies a secret of the same user, so that rights do not help."""
    work = daemon.workspace(USER)
    outside = daemon.workspace(USER)
    with open(outside + "/file", "w") as f:
        f.write("host secret")
    os.chown(outside + "/file", USER, USER)
    shutil.copy(BUILD + "/tests/vm/share-attack", work + "/attack")
    box = create(daemon, work)
    box.outside = outside
    yield box
    daemon.ok("rm", "-f", box.name)
    with open(outside + "/file") as f:
        assert f.read() == "host secret"
    assert os.listdir(outside) == ["file"]


def test_names_exchanged_by_the_guest(attacked):
    out = attacked.outside
    attacked.root(f"cd /workspace; mkdir -p g; echo inside > g/file; ln -s {out} gl; ln -s ../{os.path.basename(out)} gr")
    for link in ("gl", "gr"):
        swap = attacked.daemon.popen("exec", "-u", "root", attacked.name, "--", "/workspace/attack", "exchange",
                                     "/workspace/g", "/workspace/" + link, "1000")
        opened, found = map(int, attacked.root(
            "/workspace/attack look /workspace/g/file 1000 'host secret'").split())
        text = swap.communicate(timeout=240)[0].decode()
        assert text == "1000 ok\n" and found == 0, (text, opened, found)
        assert attacked.sh("cat /workspace/g/file") == "inside\n"      # an even number of times


def test_names_exchanged_on_the_host_while_the_guest_looks(attacked):
    work = attacked.workspace
    os.mkdir(work + "/h")
    with open(work + "/h/file", "w") as f:
        f.write("inside")
    os.symlink(attacked.outside, work + "/hl")
    with exchanging(work + "/h", work + "/hl") as turns:
        opened, found = map(int, attacked.root(
            "/workspace/attack look /workspace/h/file 1000 'host secret'").split())
        written = attacked.root("for i in $(seq 200); do echo guest > /workspace/h/new; rm -f /workspace/h/new; done 2>&1 | wc -l")
    assert turns[0] > 0 and found == 0, (turns, opened, found, written)
    # How often the guest met the directory meanwhile is chance.
    wait_until(lambda: attacked.exec("cat", "/workspace/h/file").stdout == "inside", what="the directory")


def test_a_directory_that_leaves_the_workspace_while_the_guest_is_in_it(attacked):
    """Moved out by its owner, it stays reachable to who is in it already; its parent is not."""
    work, daemon = attacked.workspace, attacked.daemon
    os.makedirs(work + "/moves/in")
    left = daemon.workspace(USER)
    with open(left + "/other", "w") as f:
        f.write("host secret")
    script = "cd /workspace/moves/in; echo ready; read x; cat ../other ../../other ../../file 2>&1; ls -a .. ../.."
    p = daemon.popen("exec", "-i", "-u", "root", attacked.name, "--", "sh", "-c", script)
    assert p.stdout.readline() == b"ready\n"
    os.rename(work + "/moves/in", left + "/in")
    text = p.communicate(b"go\n", timeout=240)[0].decode()
    assert "host secret" not in text and "other\n" not in text.replace("/other", ""), text


def test_links_of_all_kinds(attacked):
    attacked.root("cd /workspace; echo own > own; ln own own2; ln -s /etc/shadow shadow;"
                  "ln /etc/shadow hard 2>/dev/null; ln shadow shadow2; mkdir dir; ln dir dir2 2>/dev/null; true")
    work = attacked.workspace
    assert os.stat(work + "/own").st_nlink == 2
    assert not os.path.lexists(work + "/hard") and not os.path.lexists(work + "/dir2")
    assert os.readlink(work + "/shadow2") == "/etc/shadow"
    # A file of somebody else that got in there: no rights but the user's.
    with open(work + "/roots", "w") as f:
        f.write("root's own")
    os.chmod(work + "/roots", 0o600)
    roots = "/workspace/roots"
    assert attacked.tries(("open", roots, os.O_RDONLY), ("open", roots, os.O_WRONLY | os.O_APPEND), ("truncate", roots, 0),
                          ("chmod", roots, 0o666)) == [errno.EACCES] * 3 + [errno.EPERM]
    assert set(attacked.tries(*xattrs_of(roots))) == {errno.EOPNOTSUPP}
    attacked.root("chown agent /workspace/roots; chown daemon /workspace/roots; true")     # all is agent's, in there
    st = os.stat(work + "/roots")
    assert (st.st_uid, stat.S_IMODE(st.st_mode), open(work + "/roots").read()) == (0, 0o600, "root's own")


def test_special_files_are_made_by_nobody(attacked):
    work, at = attacked.workspace + "/special", "/workspace/special/"
    attacked.root(f"mkdir {at}; cp /bin/true {at}t; mkfifo -m 640 {at}fifo")
    refused = [("mknod", at + "c", stat.S_IFCHR | 0o600, os.makedev(1, 3)),
               ("mknod", at + "b", stat.S_IFBLK | 0o600, os.makedev(8, 0)),
               ("mknod", at + "s", stat.S_IFREG | 0o4755), ("mknod", at + "sf", stat.S_IFIFO | 0o2755),
               ("open", at + "o", os.O_CREAT | os.O_WRONLY, 0o6755),
               ("chmod", at + "t", 0o4755), ("chmod", at + "t", 0o2755)]
    assert set(attacked.tries(*refused)) == {errno.EPERM}
    assert set(attacked.tries(*xattrs_of(at + "t"))) == {errno.EOPNOTSUPP}
    # What did appear is plain, and the caller's.
    found = {name: os.lstat(f"{work}/{name}") for name in os.listdir(work)}
    assert {name: (stat.filemode(st.st_mode), st.st_uid, st.st_gid) for name, st in found.items()} == \
        {"t": ("-rwxr-xr-x", USER, USER), "fifo": ("prw-r-----", USER, USER)}
    assert os.listxattr(work + "/t") == []


@pytest.fixture
def small():
    """A daemon, and a workspace that is a file system of 8 MiB and 200 inodes; mounted first, as a daemon hears
    of later mounts only where / is shared."""
    d = Daemon()
    work = d.workspace(USER)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size=8m,nr_inodes=200,uid={USER},gid={USER},mode=755", "small", work],
                   check=True)
    try:
        yield d.start(), work
    finally:
        d.ok("rm", "-f", *[s["id"] for s in d.get("/v1/sandboxes")["sandboxes"]])
        d.stop()
        subprocess.run(["umount", work], check=True)
        left = d.close()
    assert not left, left


def test_a_full_file_system_is_its_users(small):
    """Space and inodes of a small one are used up: the guest is told, others and the daemon are not bothered."""
    daemon, work = small
    full, beside = create(daemon, work), create(daemon, daemon.workspace(USER))
    r = full.exec("sh", "-c", "cat /dev/zero > /workspace/big")
    assert r.returncode == 1 and "No space left" in r.stderr, r
    assert beside.sh("echo fine > /workspace/f; cat /workspace/f") == "fine\n"
    full.sh("rm /workspace/big")
    r = full.exec("sh", "-c", "i=0; while echo > /workspace/n$i; do i=$((i+1)); done; echo $i")
    assert "No space left" in r.stderr and 100 < int(r.stdout) < 200, r
    assert beside.sh("touch /workspace/g; ls /workspace") == "f\ng\n"
    assert daemon.get("/v1/sandboxes/" + full.name)["state"] == "running"
    full.sh("rm -f /workspace/n*; echo again > /workspace/x; cat /workspace/x")
    assert open(work + "/x").read() == "again\n"


def test_very_many_open_files(attacked):
    """virtiofsd keeps each open in the host; where it ends is its own limit, and nobody else's."""
    work, daemon = attacked.workspace, attacked.daemon
    os.mkdir(work + "/many", 0o755)
    os.chown(work + "/many", USER, USER)
    before = len(os.listdir(f"/proc/{daemon.process.pid}/fd"))
    p = daemon.popen("exec", "-u", "root", attacked.name, "--", "/workspace/attack", "hold", "/workspace/many", "8000")
    made = p.stdout.readline().decode().split(maxsplit=1)
    assert int(made[0]) > 500, made
    assert abs(len(os.listdir(f"/proc/{daemon.process.pid}/fd")) - before) < 16
    assert attacked.sh("echo $((6*7))") == "42\n"
    p.terminate()
    p.wait(60)
    attacked.root("pkill -x attack; true")
    wait_until(lambda: attacked.exec("sh", "-c", "echo still > /workspace/many/now").returncode == 0, what="room")
    assert daemon.get("/v1/sandboxes/" + attacked.name)["state"] == "running"


def test_creating_while_the_workspace_changes_places(daemon):
    """Whatever is shared in the end is the user's own directory: what was opened is what is mounted."""
    work, secret = daemon.workspace(USER), daemon.dir + "/raced-secret"
    with open(work + "/mine", "w") as f:
        f.write("x")
    os.mkdir(secret, 0o755)
    with open(secret + "/secret", "w") as f:
        f.write("host secret")
    links = {daemon.dir + "/raced-state": daemon.state, daemon.dir + "/raced-root": "/", daemon.dir + "/raced-dir": secret}
    for link, target in links.items():
        os.symlink(target, link)
        shared = refused = 0
        with exchanging(work, link) as turns:
            while not (shared and refused):     # which it will be is chance
                assert shared + refused < 40, (link, shared, refused)
                r = daemon.sbx("create", "-q", "--workspace", work, "--memory", "512M", uid=USER)
                if r.returncode != 0:
                    assert r.returncode == 125 and "workspace" in r.stderr, r
                    refused += 1
                    continue
                ident = r.stdout.strip()
                assert daemon.ok("exec", ident, "--", "ls", "/workspace") == "mine\n"
                daemon.ok("rm", "-f", ident)
                shared += 1
        assert turns[0] > 0
    assert os.listdir(secret) == ["secret"]
