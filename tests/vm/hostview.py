# SPDX-License-Identifier: MIT
"""What the host has of a daemon's sandboxes, asked of the host and not of the daemon or its fsck:
processes with their uids, interfaces, rules, libvirt's files, directories; and whether that is what the
rows say."""
import os
import re
import subprocess

import netns

RUNNING, STOPPED = 1, 3         # enum vm_state
UID_BASE = 1879048192           # the default of uid_base
ID = "([0-9a-f]{16})"


def in_network(daemon, *command):
    return subprocess.run(command, check=True, capture_output=True, text=True,
                          preexec_fn=lambda: netns.enter(daemon.network)).stdout


def uid_of(pid):
    with open(f"/proc/{pid}/status") as f:
        return int(re.search(r"^Uid:\s+(\d+)", f.read(), re.M)[1])


def listed(*parts):
    path = "/".join(parts)
    return os.listdir(path) if os.path.isdir(path) else []


def things(daemon):
    """{id of a sandbox, or what stands for one: {thing: detail}}"""
    found = {}

    def add(key, thing, detail=True):
        found.setdefault(key, {})[thing] = detail

    for pid, args in daemon.processes():
        if m := re.search(f"guest=sbx-{ID}", args):
            add(m[1], "qemu", uid_of(pid))
        elif "virtiofsd" in args:
            with open(f"/proc/{pid}/environ", "rb") as f:
                ident = re.search(f"/sandboxes/{ID}/share.sock", f.read().decode())[1]
            add(ident, "share", found.get(ident, {}).get("share", set()) | {uid_of(pid)})   # there are two of each
        elif "sandboxd" not in args:    # neither the daemon nor its resolver
            add(args, "process")
    for tap in re.findall(r"^\d+: (sbx[0-9a-f]{12})[@:]", in_network(daemon, "ip", "-o", "link"), re.M):
        add(tap[3:], "tap")
    rules = in_network(daemon, "nft", "list", "ruleset")
    for kind, ident in re.findall(rf"(?:chain|set) (box|ok|no|full|s|h|n)-{ID} ", rules):
        add(ident, "rules")
    for tap in re.findall(r"chain sbx([0-9a-f]{12}) ", rules):
        add(tap, "tap rules")
    for tap, ident in re.findall(rf'"sbx([0-9a-f]{{12}})" \. [0-9.]+ : goto box-{ID}', rules):
        add(tap, "in the map")
        add(ident, "goes to")
    for name in listed(daemon.state, "libvirt/run/qemu"):
        if m := re.fullmatch(rf"sbx-{ID}\.xml", name):
            add(m[1], "domain")
    for name in listed(daemon.state, "libvirt/lib/qemu"):
        if m := re.fullmatch(rf"domain-\d+-sbx-{ID}", name):
            add(m[1], "domain's directory")
    for ident in listed(daemon.state, "sandboxes"):
        add(ident, "directory")
        extra = [n for n in listed(daemon.state, "sandboxes", ident) if n not in ("vm", "log")]
        extra += [n for n in listed(daemon.state, "sandboxes", ident, "vm") if n != "disk.qcow2"]
        if extra:
            add(ident, "leftover files", sorted(extra))
    for ident in listed(daemon.run, "sandboxes"):
        add(ident, "runtime directory")
        rings = {n.split(".")[0] for n in listed(daemon.run, "sandboxes", ident, "execs")}
        rows = {i for i, in daemon.rows(f"SELECT id FROM exec WHERE vm = '{ident}'")}
        if rings != rows:
            add(ident, "rings and rows", (sorted(rings), sorted(rows)))
    # what goes by the first twelve digits
    for short in [k for k in found if len(k) == 12]:
        for ident in [k for k in found if k.startswith(short) and len(k) == 16]:
            found[ident].update(found.pop(short, {}))
    return found


def wanted(daemon):
    """The same, by the rows alone. A sandbox that is stopped may have its directory."""
    want = {}
    for ident, state, slot, workspace, uid in daemon.rows("SELECT id, state, slot, workspace, uid FROM vm"):
        want[ident] = {"directory": True}
        if state == RUNNING:
            want[ident].update({"qemu": UID_BASE + slot, "tap": True, "rules": True, "tap rules": True,
                                "in the map": True, "goes to": True, "domain": True,
                                "domain's directory": True, "runtime directory": True})
            if workspace:
                want[ident]["share"] = {uid}
        elif state != STOPPED:
            want[ident]["a state that lasts"] = state
    return want


def differences(daemon):
    """[] when the host has what the rows say, and nothing else."""
    have, want = things(daemon), wanted(daemon)
    never_ran = {i for i, in daemon.rows(f"SELECT id FROM vm WHERE started_at = 0 AND state = {STOPPED}")}
    left = []
    for ident in sorted(have.keys() | want.keys()):
        a, b = have.get(ident, {}), want.get(ident, {})
        if ident in never_ran and not a:
            continue
        left += [f"{ident}: {k}: {a.get(k, 'none')}, by its row {b.get(k, 'none')}"
                 for k in sorted(a.keys() | b.keys()) if a.get(k) != b.get(k)]
    left += [f"{d}/{n}" for d in (daemon.state + "/lost+found",) for n in listed(d)]
    return left
