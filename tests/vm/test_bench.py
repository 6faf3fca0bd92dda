# SPDX-License-Identifier: MIT
"""scripts/bench runs, says what it says in JSON, and leaves nothing. What it measures is no test."""
import glob
import json
import os
import subprocess
import sys

import pytest

from conftest import BUILD, SOURCE

BENCH = SOURCE + "/scripts/bench"


def bench(*args, **kw):
    return subprocess.run([sys.executable, BENCH, *args], capture_output=True, text=True,
                          timeout=300, env={**os.environ, "SBX_BUILD": BUILD}, **kw)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    before = set(glob.glob("/tmp/sbxb.*"))
    path = tmp_path_factory.mktemp("bench") / "out.json"
    r = bench("--quick", "--sandboxes", "1", "--json", str(path), "api", "memory")
    assert r.returncode == 0, r.stdout + r.stderr
    assert set(glob.glob("/tmp/sbxb.*")) <= before
    return r, json.loads(path.read_text())


def check_summary(s):
    assert set(s) == {"n", "median", "q1", "q3", "min", "max"}
    assert s["n"] >= 1
    assert 0 < s["min"] <= s["q1"] <= s["median"] <= s["q3"] <= s["max"]


def test_json_has_both_sides_and_their_ratio(measured):
    data = measured[1]
    assert data["version"] == 1 and data["quick"] is True and data["items"] == ["api", "memory"]
    assert {row["item"] for row in data["results"]} == {"api", "memory"}
    for row in data["results"]:
        assert row["name"] and row["what"] and row["unit"]
        check_summary(row["ours"])
        assert row["floors"], row["name"]
        for floor in row["floors"]:
            assert floor["what"]
            check_summary(floor["value"])
            check_summary(floor["ratio"])


def test_json_says_what_it_was_measured_on(measured):
    machine = measured[1]["machine"]
    assert machine["cpus"] >= 1 and machine["accel"] in ("kvm", "tcg")
    assert machine["build"] and machine["qemu"] and machine["kernel"]
    assert measured[1]["figures"]["sandboxd_idle_pss"] > 0


def test_text_has_each_name(measured):
    for row in measured[1]["results"]:
        assert f"{row['item']}: {row['name']}" in measured[0].stdout


def test_unknown_names_are_refused():
    r = bench("--quick", "no-such-item")
    assert r.returncode == 2 and "no-such-item" in r.stderr


def test_help_names_the_items():
    r = bench("--help")
    assert r.returncode == 0
    for item in ("create", "exec", "api", "memory", "stream", "crowd", "life", "net"):
        assert f"\n  {item} " in r.stdout
