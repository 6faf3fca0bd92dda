# SPDX-License-Identifier: MIT
"""The shared directory: live both ways, the caller's on the host whoever writes in the guest, and
nothing of it leads further."""
import errno
import os
import stat

import pytest
from conftest import Box, wait_until


@pytest.fixture(scope="module", params=[0, 1000, 1001, 60000])
def shared(request, daemon):
    uid = request.param
    d = daemon.workspace(uid=uid)
    with open(d + "/from-host", "w") as f:
        f.write("host\n")
    os.chown(d + "/from-host", uid, uid)
    name = daemon.ok("create", "-q", "--workspace", d, "--memory", "512M", uid=uid).strip()
    b = Box(daemon, name, d)        # by its id, as root uses it too
    b.uid = uid
    yield b
    daemon.ok("rm", "-f", name)


def test_files_of_agent_and_of_guest_root_are_the_callers(shared):
    shared.sh("echo a > /workspace/agent; mkdir /workspace/dir; ln -s agent /workspace/link")
    shared.root("echo r > /workspace/root; mkdir -p /workspace/rdir/sub; cp -a /etc/hosts /workspace/copied;"
                "chown root:root /workspace/root; install -m 600 /etc/hosts /workspace/installed")
    for name in ("agent", "dir", "link", "root", "rdir", "rdir/sub", "copied", "installed"):
        st = os.lstat(f"{shared.workspace}/{name}")
        assert (st.st_uid, st.st_gid) == (shared.uid, shared.uid), name
    assert shared.sh("stat -c %U /workspace/from-host /workspace/root").split() == ["agent", "agent"]
    assert shared.sh("cat /workspace/from-host; echo more >> /workspace/from-host") == "host\n"
    assert open(shared.workspace + "/from-host").read() == "host\nmore\n"


def test_setuid_and_devices_do_not_appear(shared):
    """By root's tools; what they make none the less is plain, and the caller's."""
    shared.sh("mkdir /workspace/special")
    for tool in ("chmod 4755 tool", "chmod 2755 tool", "chmod u+s,g+s tool", "install -m 6755 /bin/true tool2",
                 "mknod null c 1 3", "mknod disk b 8 0"):
        r = shared.exec("sudo", "sh", "-c", "cd /workspace/special; [ -e tool ] || cp /bin/true tool || exit 9; " + tool)
        assert r.returncode == 1 and "Operation not permitted" in r.stderr, (tool, r)
    shared.sh("sudo mkfifo -m 640 /workspace/special/fifo")
    assert shared.tries(("open", "/workspace/special/t3", os.O_CREAT | os.O_WRONLY, 0o6777),
                        ("setxattr", "/workspace/special/tool", "security.capability", b"")) == \
        [errno.EPERM, errno.EOPNOTSUPP]
    found = {}
    for name in os.listdir(shared.workspace + "/special"):
        st = os.lstat(f"{shared.workspace}/special/{name}")
        assert (st.st_uid, st.st_gid) == (shared.uid, shared.uid), name
        found[name] = stat.filemode(st.st_mode)
    assert found == {"tool": "-rwxr-xr-x", "tool2": "-rw-------", "fifo": "prw-r-----"}


def test_live_both_ways(box):
    with open(box.workspace + "/live", "w") as f:
        f.write("1")
    assert box.sh("cat /workspace/live") == "1"
    with open(box.workspace + "/live", "w") as f:
        f.write("22")
    wait_until(lambda: box.sh("cat /workspace/live") == "22", 10, "new content in the guest")
    box.sh("printf 333 > /workspace/live")
    assert open(box.workspace + "/live").read() == "333"
    os.rename(box.workspace + "/live", box.workspace + "/moved")
    wait_until(lambda: box.sh("ls /workspace").split() == ["moved"] or "moved" in
               box.sh("ls /workspace").split(), 10, "the rename in the guest")
    os.unlink(box.workspace + "/moved")
    wait_until(lambda: "moved" not in box.sh("ls /workspace").split(), 10, "the removal in the guest")


def test_links_lead_nowhere_on_the_host(box):
    secret = box.daemon.dir + "/secret"
    with open(secret, "w") as f:
        f.write("host secret")
    os.symlink(secret, box.workspace + "/out")
    os.symlink("../" * 20 + secret[1:], box.workspace + "/up")
    box.root("ln -s /etc/shadow /workspace/shadow; ln -s / /workspace/all")
    for name in ("out", "up"):
        assert box.exec("cat", "/workspace/" + name).returncode != 0
    # What a link of the guest's names is the guest's own file.
    assert "agent" in box.root("cat /workspace/shadow")
    assert open("/etc/shadow").read() not in box.root("cat /workspace/shadow /workspace/all/etc/shadow")
    assert box.root("ls /workspace/all/workspace | head -n 1")
    assert open(secret).read() == "host secret"


NAMES = [b"new\nline", b"esc\x1b[31mred", b"\xff\xfe\x80", b"n" * 255, b" lead and trail ", b"-rf", b"*",
         "übergröße ✓".encode()]


@pytest.mark.parametrize("name", NAMES, ids=lambda n: n[:10].hex())
def test_odd_names_pass_both_ways(box, name):
    path = box.workspace.encode() + b"/" + name
    with open(path, "wb") as f:
        f.write(b"host")
    # A command's words are JSON, hence Unicode: bytes that are not come from a printf in the guest.
    octal = "".join(f"\\\\{byte:03o}" for byte in b"/workspace/" + name + b".")
    at = f'p=$(printf "{octal}"); p=${{p%.}}; '
    assert box.sh(at + 'cat -- "$p"') == "host"
    r = box.daemon.sbx("exec", "-i", box.name, "--", "sh", "-c", at + 'tee -- "$p"', stdin=b"guest")
    assert r.returncode == 0
    assert open(path, "rb").read() == b"guest"
    os.unlink(path)


def test_words_that_are_no_text_are_refused_with_a_reason(box):
    r = box.exec("cat", os.fsdecode(b"\xff\xfe"))
    assert r.returncode == 125 and "UTF-8" in r.stderr, r


def test_a_name_of_256_bytes_is_refused_in_the_guest(box):
    assert box.exec("touch", "/workspace/" + "n" * 256).returncode == 1


def test_read_only_holds_whatever_root_does(daemon):
    d = daemon.workspace()
    with open(d + "/file", "w") as f:
        f.write("same")
    daemon.ok("create", "--name", "ro", "--workspace", d + ":ro", "--memory", "512M")
    ro = Box(daemon, "ro", d)
    assert ro.sh("cat /workspace/file") == "same"
    assert ro.exec("sh", "-c", "echo x > /workspace/file").returncode != 0
    daemon.sbx("exec", "-u", "root", "ro", "--", "sh", "-c",
               "mount -o remount,rw /workspace; echo x > /workspace/file; rm -f /workspace/file;"
               "mkdir /m; mount -t virtiofs workspace /m; echo x > /m/file; touch /m/new; chmod 600 /m/file")
    assert os.listdir(d) == ["file"] and open(d + "/file").read() == "same"
    assert stat.S_IMODE(os.stat(d + "/file").st_mode) == 0o644
    assert daemon.get("/v1/sandboxes/ro")["workspace"] == {"path": os.path.realpath(d), "read_only": True}
    daemon.ok("rm", "ro")


def test_ordinary_work_in_the_workspace(box):
    box.sh("cd /workspace && git init -q repo && cd repo && git config user.email a@b && git config user.name n &&"
           "for i in $(seq 50); do echo $i > f$i; done && git add . && git commit -qm one &&"
           "git clone -q . ../clone && tar cf ../all.tar . && mkdir ../un && tar xf ../all.tar -C ../un && cmp f7 ../un/f7")
    box.root("cd /workspace && mkdir rootun && tar xpf all.tar -C rootun && rm -rf clone")
    assert box.sh("cd /workspace/repo && git status --porcelain") == ""
    for base, _, files in os.walk(box.workspace + "/rootun"):
        for f in files:
            assert os.lstat(os.path.join(base, f)).st_uid == 0
