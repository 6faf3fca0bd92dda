# SPDX-License-Identifier: MIT
"""The programs of api/examples do against a real daemon what they say, and leave nothing."""
import os
import shutil
import subprocess

import pytest
from conftest import SLOW, SOURCE

EXAMPLES = os.path.join(SOURCE, "api/examples")


def run(daemon, *command, errors=""):
    if not shutil.which(command[0]):
        pytest.skip(f"no {command[0]} on this machine")
    r = subprocess.run([command[0], os.path.join(EXAMPLES, command[1]), *command[2:]], cwd="/",
                       stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SLOW,
                       env={"PATH": os.environ["PATH"], "SBX_SOCKET": daemon.socket, "LC_ALL": "C.UTF-8"})
    assert r.returncode == 0, (r.stdout, r.stderr)
    assert r.stderr == errors
    assert daemon.get("/v1/sandboxes")["sandboxes"] == []
    return r.stdout


def test_quick_sh(daemon):
    if not shutil.which("curl"):
        pytest.skip("no curl on this machine")
    errors = "curl: (22) The requested URL returned error: 404\n"      # asked for on purpose
    out = run(daemon, "sh", "quick.sh", errors=errors)
    assert "fed by curl" in out and "\ndetached\n" in out and '"code":"sandbox_not_found"' in out
    assert out.endswith("quick: done\n")
    assert '"path":' in run(daemon, "sh", "quick.sh", daemon.workspace(), errors=errors)


def test_client_py(daemon):
    out = run(daemon, "python3", "client.py", daemon.workspace())
    assert "kernel of the guest:" in out and "command_not_found" in out
    assert out.endswith("client.py: done\n")


def test_client_mjs(daemon):
    out = run(daemon, "node", "client.mjs", daemon.workspace())
    assert "terminal: ended by signal 2" in out and out.endswith("client.mjs: done\n")
