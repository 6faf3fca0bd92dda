# SPDX-License-Identifier: MIT
"""/v1/metrics as Prometheus reads it: by a parser of the text format 0.0.4 that takes nothing else, and by what
the figures say."""
import re

import pytest
from conftest import running, wait_until
from test_users import ask

ANN, BOB = 70129, 70130
NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"')
NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?")
PARTS = {"counter": [""], "gauge": [""], "histogram": ["_bucket", "_sum", "_count"]}


def parse(text):
    """{family: (type, {labels: value})}, with the part of a histogram as label "" where it has one."""
    assert text.endswith("\n") and "\r" not in text
    families, current, helped = {}, None, None
    for line in text.split("\n")[:-1]:
        if line.startswith("# HELP "):
            helped, words = line[7:].split(" ", 1)
            assert NAME.fullmatch(helped) and words and helped not in families, line
        elif line.startswith("# TYPE "):
            name, kind = line[7:].split(" ")
            assert name == helped and kind in PARTS, line
            current = families.setdefault(name, (kind, {}))
        else:
            m = NAME.match(line)
            part = next(p for p in PARTS[current[0]] if m.group() == helped + p)
            rest, labels = line[m.end():], {"": part} if part else {}
            if rest.startswith("{"):
                rest = rest[1:]
                while not rest.startswith("}"):
                    pair = LABEL.match(rest)
                    assert pair and pair.group(1) not in labels, line
                    labels[pair.group(1)] = re.sub(r"\\(.)", lambda x: "\n" if x[1] == "n" else x[1], pair.group(2))
                    rest = rest[pair.end():]
                    rest = rest[1:] if rest.startswith(",") else rest
                    assert rest.startswith("}") or LABEL.match(rest), line
                rest = rest[1:]
            assert rest.startswith(" ") and NUMBER.fullmatch(rest[1:]), line
            key = tuple(sorted(labels.items()))
            assert key not in current[1], line      # twice
            current[1][key] = float(rest[1:])
    return families


def metrics(daemon):
    status, headers, body = daemon.request("GET", "/v1/metrics")
    assert status == 200 and headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    return parse(body.decode())


def value(found, family, **labels):
    """Of the samples that have these labels, the sum."""
    return sum(v for k, v in found[family][1].items() if labels.items() <= dict(k).items())


@pytest.fixture(scope="module")
def daemon():
    with running(default_policy="none", quota={"users": {str(BOB): {"sandboxes": 1}}}) as d:
        d.ok("create", "--name", "anns", uid=ANN)
        d.ok("create", "--name", "bobs", "--no-start", uid=BOB)
        yield d


def test_the_parser_takes_nothing_else():
    good = "# HELP a x\n# TYPE a counter\na{l=\"\\\"\\\\\\n\"} 1\n"
    assert parse(good)["a"] == ("counter", {(("l", "\"\\\n"),): 1})
    for bad in (good[:-1], good.replace("# TYPE a counter\n", ""), good + "a{l=\"\\\"\\\\\\n\"} 1\n", good + "b 1\n",
                good.replace("\\\"", "\""), good.replace("} 1", "}1"), good.replace(" 1", " one"),
                good.replace("counter", "count"), good + good):
        with pytest.raises((AssertionError, StopIteration, TypeError)):
            parse(bad)


def test_figures_of_sandboxes(daemon):
    found = metrics(daemon)
    assert value(found, "sandboxd_build_info") == 1
    assert value(found, "sandboxd_sandboxes", state="running", uid=str(ANN)) == 1
    assert value(found, "sandboxd_sandboxes", state="stopped", uid=str(BOB)) == 1
    assert value(found, "sandboxd_sandboxes") == 2
    assert value(found, "sandboxd_vcpus_in_use") == value(found, "sandboxd_vcpus_in_use", uid=str(ANN)) == 2
    assert value(found, "sandboxd_memory_in_use_bytes", uid=str(ANN)) == 2 << 30
    assert value(found, "sandboxd_sandbox_memory_used_bytes", name="anns") > 50 << 20
    assert value(found, "sandboxd_sandbox_disk_size_bytes", name="bobs") == 20 << 30
    assert not any("bobs" in dict(k).values() for k in found["sandboxd_sandbox_cpu_seconds_total"][1])
    ident = daemon.get("/v1/sandboxes/" + daemon.ok("ls", "-q", "-f", "name=anns").strip())["id"]
    assert value(found, "sandboxd_sandbox_cpu_seconds_total", id=ident) > 0.1

    knock = "for i in 1 2 3; do timeout 1 bash -c '</dev/tcp/192.0.2.1/80'; done; true"
    daemon.ok("exec", "anns", "--", "sh", "-c", knock, uid=ANN)
    wait_until(lambda: value(metrics(daemon), "sandboxd_sandbox_network_denied_total"), what="denial")
    now = metrics(daemon)
    for family in ("cpu_seconds_total", "network_transmit_bytes_total", "network_transmit_packets_total"):
        family = "sandboxd_sandbox_" + family
        assert now[family][0] == "counter"
        assert value(now, family, name="anns") > value(found, family, name="anns")


def test_figures_of_the_daemon(daemon):
    before = metrics(daemon)
    for _ in range(3):
        daemon.get("/v1/version")
    assert daemon.request("GET", "/v1/nothing")[0] == 404
    assert daemon.request("GET", "/v1/sandboxes/nothing")[0] == 404
    assert daemon.sbx("create", "--name", "two", "--no-start", uid=BOB).returncode == 125
    after = metrics(daemon)

    def more(family, **labels):
        return value(after, family, **labels) - value(before, family, **labels)
    requests = "sandboxd_http_requests_total"
    assert more(requests, route="/v1/version", **{"class": "2xx"}) == 3
    assert more(requests, route="", method="", **{"class": "4xx"}) == 1
    assert more(requests, route="/v1/sandboxes/{ref}", method="GET", **{"class": "4xx"}) == 1
    assert more(requests, route="/v1/metrics", **{"class": "2xx"}) == 1
    assert more("sandboxd_quota_refusals_total", quota="sandboxes") == more("sandboxd_quota_refusals_total") == 1
    assert more("sandboxd_http_connections_total") >= 7
    assert value(after, "sandboxd_http_connections") >= 1
    assert more("sandboxd_events_written_total") == more("sandboxd_events_last_seq") == 1       # the refusal
    assert value(after, "sandboxd_events_lost_total") == 0
    for family in ("sandboxd_worker_queue_length", "sandboxd_event_loop_delay_seconds", "sandboxd_egress_repairs_total"):
        assert after[family][1]
    assert value(after, "process_resident_memory_bytes") > 1 << 20
    assert more("process_cpu_seconds_total") >= 0
    assert value(after, "process_threads") > 3


def test_histograms_add_up(daemon):
    kind, samples = metrics(daemon)["sandboxd_http_request_duration_seconds"]
    assert kind == "histogram"
    by_route = {}
    for key, v in samples.items():
        labels = dict(key)
        by_route.setdefault((labels["method"], labels["route"]), {})[labels[""], labels.get("le")] = v
    assert ("POST", "/v1/sandboxes") in by_route
    for parts in by_route.values():
        buckets = sorted((float(le), v) for (part, le), v in parts.items() if part == "_bucket")
        assert [v for _, v in buckets] == sorted(v for _, v in buckets)
        assert buckets[-1] == (float("inf"), parts["_count", None]) and parts["_sum", None] >= 0
        assert parts["_count", None] > 0
    create = by_route["POST", "/v1/sandboxes"]
    # one was a boot, one was refused at once
    assert create["_bucket", "0.001"] < create["_count", None] and create["_sum", None] > 0.1


def test_each_sees_his_own(daemon):
    for uid, name in ((ANN, "anns"), (BOB, "bobs")):
        status, text = ask(daemon, uid, "get", "/v1/metrics")
        found = parse(text.rstrip("\n") + "\n")
        assert status == 200
        assert {dict(k)["name"] for k in found["sandboxd_sandbox_memory_limit_bytes"][1]} == {name}
        assert {dict(k)["uid"] for k in found["sandboxd_sandboxes"][1]} == {str(uid)}
        assert not any(f.startswith(("sandboxd_http", "sandboxd_events", "sandboxd_quota", "process")) for f in found)
        assert value(found, "sandboxd_build_info") == 1


def test_a_filter_that_was_changed_is_counted_and_told(daemon):
    import netns
    import subprocess
    before = value(metrics(daemon), "sandboxd_egress_repairs_total")
    subprocess.run(["nft", "flush", "ruleset"], check=True, preexec_fn=lambda: netns.enter(daemon.network))
    wait_until(lambda: value(metrics(daemon), "sandboxd_egress_repairs_total") > before, what="repair")
    assert "network.repair" in daemon.ok("events")
    assert "network.repair" not in daemon.ok("events", uid=ANN)
