# SPDX-License-Identifier: MIT
"""The unit's list of devices, enforced: a daemon in a control group that allows what systemd would
make of DevicePolicy=closed and DeviceAllow=, and nothing else, starts a microVM. By version 1 of
control groups, which takes the list as text; in the container of test_nspawn.py it is systemd that
enforces it where there is version 2."""
import contextlib
import importlib.util
import os
import stat

import pytest

from conftest import CACHE, SOURCE

TOP = "/sys/fs/cgroup/devices"
# systemd's, for "closed"
ALWAYS = ("null", "zero", "full", "random", "urandom", "tty", "ptmx")


def rule(path, mode):
    st = os.stat(path)
    return f"{'b' if stat.S_ISBLK(st.st_mode) else 'c'} {os.major(st.st_rdev)}:{os.minor(st.st_rdev)} {mode}"


@contextlib.contextmanager
def only(rules):
    group = f"{TOP}/sbx-test-{os.getpid()}"
    try:
        os.mkdir(group)
    except OSError as e:
        pytest.skip(f"no control group for devices can be made: {e.strerror}")
    try:
        with open(group + "/devices.deny", "w") as f:
            f.write("a")
        for r in rules:
            with open(group + "/devices.allow", "w") as f:
                f.write(r)
        with open(group + "/cgroup.procs", "w") as f:
            f.write(str(os.getpid()))
        yield
    finally:
        with open(TOP + "/cgroup.procs", "w") as f:
            f.write(str(os.getpid()))
        os.rmdir(group)


def vm_tests():
    """The harness of the tests with real microVMs, under a name of its own."""
    spec = importlib.util.spec_from_file_location("vm_harness", SOURCE + "/tests/vm/conftest.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_microvm_starts_with_the_devices_of_the_unit(installed):
    if not os.path.exists(CACHE + "/image/sandboxd.db"):
        pytest.skip("no guest image in the cache: scripts/test vm builds it")
    allowed = [v.split() for v in installed.unit("sandboxd.service").values[("Service", "DeviceAllow")]]
    assert all(mode == "rwm" for _, mode in allowed)
    rules = [rule("/dev/" + name, "rwm") for name in ALWAYS] + ["c 136:* rw"]
    rules += [rule(path, mode) for path, mode in allowed if os.path.exists(path)]
    vm = vm_tests()
    with only(rules):
        with open("/dev/null") as f:
            assert f
        with pytest.raises(PermissionError):
            open("/dev/kmsg").close()
        with vm.running() as d:
            d.ok("create", "--name", "box", "--workspace", d.workspace())
            assert d.ok("exec", "box", "--", "id", "-un") == "agent\n"
            d.ok("rm", "box")
