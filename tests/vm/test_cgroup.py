# SPDX-License-Identifier: MIT
"""Limits by control groups. A guest's kernel has those of version 2, whatever this machine has: the unit test
of the module is run there, as root."""
import os
import shutil

from sandboxd import BUILD


def test_the_module_on_a_kernel_that_has_them(daemon):
    work = daemon.workspace()
    shutil.copy(os.path.join(BUILD, "tests/unit/test-cgroup"), work)
    daemon.ok("create", "--name", "host", "--workspace", work)
    libs = daemon.run_in("host", "ldd", "/workspace/test-cgroup", user="root")["stdout"]
    if "not found" in libs:     # what the program is linked with besides libc
        for line in libs.splitlines():
            if "not found" in line:
                shutil.copy(os.path.realpath("/usr/lib/x86_64-linux-gnu/" + line.split()[0]), f"{work}/{line.split()[0]}")
    r = daemon.run_in("host", "/workspace/test-cgroup", user="root",
                      env={"SBX_TEST_CGROUP": "1", "LD_LIBRARY_PATH": "/workspace"})
    lines = r["stdout"].splitlines()
    assert r["exit_code"] == 0, r["stdout"] + r["stderr"]
    assert sum(l.startswith("ok ") for l in lines) == 8 and "skip" not in r["stdout"].lower(), r["stdout"]
    daemon.ok("rm", "-f", "host")
