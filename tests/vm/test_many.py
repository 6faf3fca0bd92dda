# SPDX-License-Identifier: MIT
"""Many sandboxes, at once and one after the other: all work, and nothing stays behind.

SBX_TEST_ROUNDS: how many in a row (default 60)."""
import os
import re
import threading

from conftest import wait_until

ROUNDS = int(os.environ.get("SBX_TEST_ROUNDS", "60"))


def figures(daemon):
    """What may not grow: descriptors, threads, resident memory of the daemon, processes, files."""
    pid = daemon.process.pid
    with open(f"/proc/{pid}/status") as f:
        status = dict(re.findall(r"(\w+):\s+(\d+)", f.read()))
    return {
        "fds": len(os.listdir(f"/proc/{pid}/fd")),
        "threads": int(status["Threads"]),
        "rss_kib": int(status["VmRSS"]),
        "processes": len(daemon.processes()),
        "files": sum(len(fs) + len(ds) for top in (daemon.state, daemon.run)
                     for _, ds, fs in os.walk(top) if "/libvirt" not in _),
        "libvirt_files": sum(len(fs) + len(ds) for _, ds, fs in os.walk(daemon.state + "/libvirt")),
        "mounts": open("/proc/mounts").read().count(daemon.dir),
        "rows": daemon.rows("SELECT (SELECT count(*) FROM vm) + (SELECT count(*) FROM exec)")[0][0],
    }


def settled(daemon):
    """Threads of connections end a moment after their client has."""
    last = [None]

    def quiet():
        now = figures(daemon)
        same = last[0] is not None and now["threads"] <= last[0]["threads"] and \
            now["fds"] <= last[0]["fds"] and now
        last[0] = now
        return same
    return wait_until(quiet, what="quiet")


def test_twenty_at_once(daemon):
    daemon.ok("create", "--name", "first", "--memory", "256M")      # libvirt makes directories once
    daemon.ok("rm", "-f", "first")
    before = settled(daemon)
    problems = []

    def one(i):
        d = daemon.workspace(uid=1000 + i)
        name = f"many{i}"
        try:
            for args in (("create", "--name", name, "--workspace", d, "--memory", "256M", "--cpus", "1"),
                         ("exec", name, "--", "sh", "-c", f"echo {i} > /workspace/n; sudo id -u")):
                r = daemon.sbx(*args, uid=1000 + i, timeout=900)
                if r.returncode != 0:
                    raise AssertionError((args, r.stderr))
            with open(d + "/n") as f:
                assert f.read() == f"{i}\n"
            assert os.stat(d + "/n").st_uid == 1000 + i
        except Exception as e:                      # all of them are wanted
            problems.append((i, repr(e)))

    together(20, one)
    assert not problems, problems
    boxes = daemon.get("/v1/sandboxes")["sandboxes"]
    assert len(boxes) == 20 and {b["state"] for b in boxes} == {"running"}
    qemus = [p for p, a in daemon.processes() if "qemu-system" in a]
    uids = {os.stat(f"/proc/{p}").st_uid for p in qemus}
    assert len(qemus) == 20 and len(uids) == 20     # each with a uid of its own

    def remove(i):
        r = daemon.sbx("rm", f"many{i}", uid=1000 + i, timeout=900)
        if r.returncode != 0:
            problems.append((i, r.stderr))

    together(20, remove)
    assert not problems, problems
    after = settled(daemon)
    for key in ("fds", "processes", "files", "libvirt_files", "mounts", "rows"):
        assert after[key] <= before[key] + (5 if key == "fds" else 0), (key, before, after)


def together(n, work):
    threads = [threading.Thread(target=work, args=(i,)) for i in range(n)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()


def test_many_in_a_row(daemon):
    """The first ones fill caches; from then on nothing grows."""
    d = daemon.workspace()
    seen = []
    for i in range(ROUNDS):
        daemon.ok("create", "--name", "row", "--workspace", d, "--memory", "256M", "--cpus", "1")
        assert daemon.ok("exec", "row", "--", "sh", "-c", f"echo {i} | tee /workspace/n") == f"{i}\n"
        daemon.ok("rm", "-f", "row")
        if i == ROUNDS // 10 or i == ROUNDS - 1:
            seen.append(settled(daemon))
    first, last = seen
    print(f"{ROUNDS} in a row: {first} -> {last}")
    for key in ("processes", "files", "libvirt_files", "mounts", "rows", "threads", "fds"):
        assert last[key] <= first[key], (key, first, last)
    assert last["rss_kib"] <= first["rss_kib"] + 2048, (first, last)
