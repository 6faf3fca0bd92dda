# SPDX-License-Identifier: MIT
"""What a distribution gets: the installed tree, checked by systemd's own tools and then booted.

`installed` is the build tree installed below a temporary directory, as packages are made. Nothing
here touches the systemd of the machine the tests run on, if it has one."""
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time

import pytest

BUILD = os.environ.get("SBX_BUILD", "build")
CACHE = os.environ.get("SBX_TEST_CACHE", "/var/cache/sandboxd-test")
SOURCE = os.environ.get("SBX_SOURCE", os.path.dirname(os.path.dirname(os.path.dirname(__file__))))
ENV = {**os.environ, "LC_ALL": "C.UTF-8", "SYSTEMD_PAGER": "", "SYSTEMD_COLORS": "0", "COLUMNS": "200"}
for name in ("DESTDIR", "NOTIFY_SOCKET", "SYSTEMD_UNIT_PATH"):
    ENV.pop(name, None)


def need(*tools):
    for tool in tools:
        if not shutil.which(tool):
            pytest.skip(f"{tool} is not installed")


def run(*args, timeout=120, **kw):
    """Text out and err together in the failure message; the status is the caller's to judge."""
    return subprocess.run(args, capture_output=True, text=True, errors="replace", timeout=timeout,
                          stdin=subprocess.DEVNULL, **{"env": ENV, **kw})


def ok(*args, **kw):
    r = run(*args, **kw)
    assert r.returncode == 0, f"{' '.join(args)}: {r.returncode}\n{r.stderr}\n{r.stdout}"
    return r.stdout


def read(*path):
    with open(os.path.join(*path), errors="replace") as f:
        return f.read()


def source(name):
    return read(SOURCE, name)


@contextlib.contextmanager
def temporary():
    path = tempfile.mkdtemp(prefix="sbxd.", dir="/tmp")
    os.chmod(path, 0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path)


def wait_until(condition, seconds=60, what="condition"):
    """For what tells nobody: looks again and again, bounded."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.05)
    raise AssertionError(f"no {what} within {seconds} s")


class Unit:
    """Settings of a unit file and its drop-ins: a list of values per key, in the order given."""

    def __init__(self, *paths):
        self.values = {}
        section = ""
        for path in paths:
            for line in read(path).splitlines():
                line = line.strip()
                if line.startswith("["):
                    section = line.strip("[]")
                elif line and not line.startswith("#"):
                    key, value = line.split("=", 1)
                    self.values.setdefault((section, key), []).append(value)

    def __call__(self, section, key):
        values = self.values.get((section, key), [""])
        assert len(values) == 1, f"{key}= is given {len(values)} times"
        return values[0]

    def words(self, section, key):
        return " ".join(self.values.get((section, key), [])).split()


class Installed:
    def __init__(self, root):
        options = json.loads(ok("meson", "introspect", "--buildoptions", BUILD))
        self.prefix = next(o["value"] for o in options if o["name"] == "prefix")
        self.root = root
        self.tree = root + self.prefix
        self.units = self.tree + "/lib/systemd/system"

    def files(self):
        found = []
        for base, _, names in os.walk(self.root):
            found += [os.path.relpath(os.path.join(base, n), self.tree) for n in names]
        return sorted(found)

    def unit(self, name, *drop_ins):
        return Unit(os.path.join(self.units, name), *drop_ins)


@pytest.fixture(scope="session")
def installed():
    need("meson")
    with temporary() as root:
        ok("meson", "install", "-C", BUILD, "--no-rebuild", "--quiet", "--destdir", root)
        tree = Installed(root)
        if not os.path.isdir(tree.units):
            pytest.skip("the build has no libsystemd, hence no units")
        yield tree


if not os.path.exists(os.path.join(BUILD, "daemon/sandboxd")):
    sys.exit(f"no {BUILD}/daemon/sandboxd: run scripts/test, or set SBX_BUILD")
