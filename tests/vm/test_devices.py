# SPDX-License-Identifier: MIT
"""The devices of a machine that runs, as its guest finds them and as QEMU was told to make them, are those of
tests/golden/devices-*.txt: what a hostile guest can talk to, and no more. SBX_TEST_UPDATE=1 writes the files."""
import json
import os

import pytest
from conftest import SOURCE, Box, running

# Buses of the guest: what is plugged in, by its kind. Nodes that the kernel makes up itself (LNX…) are no devices.
LOOK = r"""
for d in /sys/bus/virtio/devices/*; do echo "virtio $(($(cat $d/device))) $(basename $(readlink $d/driver))"; done
for d in /sys/class/virtio-ports/*; do echo "port $(cat $d/name)" | sed 's/ $/ without a name/'; done
for d in /sys/bus/acpi/devices/*; do basename $d | sed -n 's/:.*//; /^LNX/!s/^/acpi /p'; done
for bus in pci usb serio scsi mmc i2c; do
    for d in /sys/bus/$bus/devices/*; do [ -e $d ] && echo "$bus $(basename $d)"; done
done
for c in block net sound drm input tpm; do
    for d in /sys/class/$c/*; do [ -e $d ] && echo "$c $(basename $d)"; done
done
for d in /sys/class/tty/ttyS*; do [ "$(cat $d/type)" = 0 ] || echo "uart $(basename $d)"; done
true
"""
# Options of QEMU that make devices and what is behind them, and which word of them is their kind.
KINDS = {"-device": "driver", "-netdev": "type", "-blockdev": "driver", "-object": "qom-type", "-chardev": None}
# Others by which there could be more. `-drive` and the like would be another way to say the same.
MORE = {"-usb", "-usbdevice", "-vga", "-vnc", "-spice", "-sdl", "-serial", "-parallel", "-monitor", "-qmp", "-nic",
        "-net", "-drive", "-hda", "-hdb", "-cdrom", "-fda", "-sd", "-pflash", "-bios", "-virtfs", "-fsdev",
        "-tpmdev", "-audio", "-soundhw", "-watchdog", "-incoming", "-gdb", "-s", "-plugin", "-readconfig",
        "-set", "-acpitable", "-smbios", "-fw_cfg", "-mem-path", "-balloon"}


def qemu_args(daemon, ident):
    found = []
    for pid, _ in daemon.processes():
        with open(f"/proc/{pid}/cmdline") as f:
            args = f.read().split("\0")
        if "qemu-system-" in args[0] and any(f"guest=sbx-{ident}," in a for a in args):
            found.append(args)
    assert len(found) == 1
    return found[0]


def kind(option, value):
    fields = json.loads(value) if value.startswith("{") else dict(
        f.split("=", 1) if "=" in f else ("", f) for f in value.split(","))
    word = fields[KINDS[option]] if KINDS[option] else fields[""]
    extra = []
    if option == "-blockdev":
        if "read-only" in fields:       # of the format's node, which is the one that the guest gets
            extra.append("read-only" if fields["read-only"] else "read-write")
        extra.append(os.path.basename(fields.get("filename", "")))
        extra.append("overlay" if "backing" in fields else "")
    if option == "-chardev":
        extra.append("listens" if fields.get("server") == "on" else os.path.basename(fields.get("path", "")))
    return " ".join(filter(None, [option[1:], word, *extra]))


def devices(daemon, name):
    ident = json.loads(daemon.ok("inspect", name))[0]["id"]
    args = qemu_args(daemon, ident)
    lines = [kind(o, v) for o, v in zip(args, args[1:]) if o in KINDS]
    for o, v in zip(args, args[1:]):
        if o in ("-machine", "-display"):
            lines.append(f"{o[1:]} {v.split(',')[0]}")
        elif o in ("-nodefaults", "-no-user-config"):
            lines.append(o[1:])
        assert o not in MORE, (o, v)
    seen = Box(daemon, name, None).root(LOOK).splitlines()
    return "The guest finds:\n" + "".join(f"  {s}\n" for s in sorted(seen)) + \
        "QEMU was told:\n" + "".join(f"  {s}\n" for s in sorted(lines))


def same(name, text):
    path = f"{SOURCE}/tests/golden/devices-{name}.txt"
    if os.environ.get("SBX_TEST_UPDATE"):
        with open(path, "w") as f:
            f.write(text)
    with open(path) as f:
        assert text.splitlines() == f.read().splitlines()


@pytest.fixture(scope="module")
def daemon():
    with running(default_policy="none") as d:
        yield d


def test_with_a_workspace_and_a_network(daemon):
    daemon.ok("create", "--name", "full", "--workspace", daemon.workspace())
    same("workspace-network", devices(daemon, "full"))
    daemon.ok("rm", "-f", "full")


def test_with_a_network_only(daemon):
    daemon.ok("create", "--name", "bare")
    same("network", devices(daemon, "bare"))
    daemon.ok("rm", "-f", "bare")


def test_with_neither():
    with running(network=False) as d:
        d.ok("create", "--name", "alone")
        same("alone", devices(d, "alone"))
