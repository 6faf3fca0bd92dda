# SPDX-License-Identifier: MIT
"""`daemon` is one daemon per test module, `box` one running sandbox per module for tests that leave it
as it is."""
import os
import sys

import pytest

sys.path.insert(1, os.path.join(os.path.dirname(os.path.dirname(__file__)), "harness"))
from sandboxd import *  # noqa: E402,F401,F403
from sandboxd import Box, Daemon, running  # noqa: E402


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport():
    """What failed shows what the daemons said."""
    report = (yield).get_result()
    if report.failed:
        report.sections += [("log of sandboxd", d.log()[-6000:]) for d in Daemon.live]


@pytest.fixture(scope="module")
def daemon():
    with running() as d:
        yield d


@pytest.fixture(scope="module")
def box(daemon):
    workspace = daemon.workspace()
    daemon.ok("create", "--name", "box", "--workspace", workspace)
    yield Box(daemon, "box", workspace)
    daemon.ok("rm", "-f", "box")
