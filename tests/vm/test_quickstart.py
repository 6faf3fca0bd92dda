# SPDX-License-Identifier: MIT
"""scripts/quickstart on a configuration of the test's own: what is missing is made, what is there is
used, and --stop takes back what runs."""
import json
import os
import subprocess

import netns

from conftest import BUILD, SBX, SOURCE, Daemon


def quickstart(d, *args, cwd=None):
    env = {k: v for k, v in os.environ.items() if not k.startswith(("SUDO_", "SBX_"))}
    return subprocess.run([SOURCE + "/scripts/quickstart", "--config", d.dir + "/config.json",
                           "--build", BUILD, *args], capture_output=True, text=True, env=env,
                          stdin=subprocess.DEVNULL, timeout=600, cwd=cwd or d.dir,
                          preexec_fn=lambda: netns.enter(d.network))


def test_twice_and_stop():
    d = Daemon()
    try:
        os.mkdir(d.dir + "/My Project")
        with open(d.dir + "/My Project/notes", "w"):
            pass
        r = quickstart(d, "My Project")
        assert r.returncode == 0, r.stdout + r.stderr
        name = "quickstart-my-project"
        for text in ("creating the sandbox", "host has " + os.uname().release, "uid=1000(agent)",
                     "uid=0(root)", "notes", "virtiofs", f"exec -it {name} bash", "--stop",
                     "Could not resolve host: example.com", "deny example.com:443"):
            assert text in r.stdout, text
        box = json.loads(d.ok("inspect", name))[0]
        assert box["state"] == "running" and box["workspace"]["path"] == d.dir + "/My Project"

        d.ok("stop", name)
        r = quickstart(d, d.dir + "/My Project")
        assert r.returncode == 0, r.stdout + r.stderr
        assert "sandboxd is there already" in r.stdout and "starting the sandbox" in r.stdout

        os.makedirs(d.dir + "/other/my-project")
        r = quickstart(d, "other/my-project")
        assert r.returncode == 1 and f"sbx rm {name}" in r.stderr, r

        r = quickstart(d, "--stop")
        assert r.returncode == 0, r.stdout + r.stderr
        assert d.processes() == []
        assert d.rows("SELECT * FROM vm") == [] and d.rows("SELECT count(*) FROM image") != [(0,)]
    finally:
        quickstart(d, "--stop")
        left = d.close()
    assert not left, left


def test_what_it_refuses():
    d = Daemon()
    try:
        for args, text in ((["--no-such"], "--no-such"), (["/no/such/dir"], "/no/such/dir"),
                           (["a", "b"], "one directory"), (["--config"], "needs a value")):
            r = quickstart(d, *args)
            assert r.returncode != 0 and text in r.stderr, r
        assert os.path.exists(SBX)
    finally:
        quickstart(d, "--stop")
        left = d.close()
    assert not left, left
