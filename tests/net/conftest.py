# SPDX-License-Identifier: MIT
"""With SBX_UPDATE=1 the table of attacks,
docs/SECURITY-TESTS.md, is written anew from what was seen."""
import os
import sys

import pytest

sys.path.insert(1, os.path.join(os.path.dirname(os.path.dirname(__file__)), "harness"))
from sandboxd import SOURCE, Daemon  # noqa: E402

TABLE = os.path.join(SOURCE, "docs/SECURITY-TESTS.md")
rows = []


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item):
    report = (yield).get_result()
    if report.failed:
        report.sections += [("log of sandboxd", d.log()[-6000:]) for d in Daemon.live]
    if report.when == "call" and item.module.__name__ == "test_attacks" and "seen" in item.fixturenames:
        seen = "; ".join(v for k, v in item.user_properties if k == "seen")
        rows.append((item.function.__doc__.split("\n")[0], seen, report.outcome, item.name))


def pytest_sessionfinish():
    if not os.environ.get("SBX_UPDATE") or not rows:
        return
    with open(TABLE, "w") as f:
        f.write("""# Attacks on a sandbox's network

Made by `tests/net/test_attacks.py` (`SBX_UPDATE=1`): root of a real guest tries each of these, in a played
Internet where a sniffer sees every packet that gets out.

| Attack | Seen | Result | Test |
|---|---|---|---|
""")
        for what, seen, outcome, name in rows:
            f.write(f"| {what} | {seen} | {'fails' if outcome == 'passed' else '**' + outcome + '**'} "
                    f"| `{name}` |\n")


@pytest.fixture
def seen(request):
    """Says what came of an attack, for the table."""
    return lambda text: request.node.user_properties.append(("seen", str(text)))
