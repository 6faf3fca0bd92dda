# SPDX-License-Identifier: MIT
"""What has to work: ordinary work by allowed names, and policies that change while it goes on."""
import os
import re
import subprocess
import time

import netns
import pytest
from sandboxd import Daemon, wait_until
from world import GATEWAY, OTHER, WEB, WEB2, a_world, elapsed  # noqa: F401


@pytest.fixture(scope="module")
def box(world):
    world.names.zone.update({"git.example.com": ([WEB], 300), "deb.example.com": ([WEB2], 300),
                             "registry.example.com": ([OTHER], 300), "moves.example.com": ([WEB], 1)})
    return world.box("box", "allow git.example.com:80", "allow git.example.com:22", "allow deb.example.com:80",
                     "allow registry.example.com:80-443", "allow moves.example.com:80", "allow big.example.com:8081")


def serve_files(world, tmp, address, port=80):
    """A real web server of files in the Internet, in place of the greeter."""
    return subprocess.Popen(["/usr/bin/python3", "-m", "http.server", str(port), "--bind", address, "--directory",
                             str(tmp)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                            preexec_fn=lambda: netns.enter(world.internet))


@pytest.fixture(scope="module")
def files(world, tmp_path_factory):
    """Servers on addresses of their own: a git repository, a package archive, a large file."""
    tmp = tmp_path_factory.mktemp("files")
    addresses = {"git2.example.com": "93.184.217.1", "big.example.com": "93.184.217.2"}
    for name, a in addresses.items():
        world.at(world.internet, f"ip addr add {a}/32 dev lo")
        world.names.zone[name] = ([a], 300)
    env = {"HOME": str(tmp), "PATH": os.environ["PATH"], "GIT_CONFIG_NOSYSTEM": "1", "GIT_AUTHOR_NAME": "a",
           "GIT_AUTHOR_EMAIL": "a@example.com", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@example.com"}

    def git(*args, cwd):
        subprocess.run(["git", *args], cwd=cwd, env=env, check=True, capture_output=True)
    os.mkdir(tmp / "src")
    git("init", "-q", "-b", "main", cwd=tmp / "src")
    (tmp / "src/hello").write_text("hello\n" * 1000)
    git("add", "hello", cwd=tmp / "src")
    git("commit", "-q", "-m", "first", cwd=tmp / "src")
    git("clone", "-q", "--bare", "src", "repo.git", cwd=tmp)
    git("update-server-info", cwd=tmp / "repo.git")
    with open(tmp / "large", "wb") as f:
        f.write(os.urandom(1 << 20) * 50)
    servers = [serve_files(world, tmp, a, p) for a, p in ((addresses["big.example.com"], 8081),
                                                         (addresses["git2.example.com"], 8443))]
    yield tmp
    for s in servers:
        s.kill()
        s.wait()


def reachable(box, url):
    return box.root(f"curl -sS -m 10 -o /dev/null {url} && echo ok")["stdout"] == "ok\n"


def test_names_and_addresses(world, box):
    assert box.resolve("git.example.com")["addresses"] == [WEB]
    assert box.resolve("GIT.Example.com")["addresses"] == [WEB]
    assert box.tcp(WEB, 22) == "connected"
    r = box.root("getent hosts git.example.com; getent ahostsv6 git.example.com; cat /etc/resolv.conf")
    assert WEB in r["stdout"] and GATEWAY in r["stdout"]


def test_git_clone(world, box, files):
    box.policy("allow", "git2.example.com:8443")
    r = box.root("rm -rf /tmp/c && git clone -q http://git2.example.com:8443/repo.git /tmp/c && wc -l < /tmp/c/hello")
    assert (r["exit_code"], r["stdout"].strip()) == (0, "1000"), r
    box.policy("rm", "git2.example.com:8443")
    r = box.root("git ls-remote http://git2.example.com:8443/repo.git")
    assert r["exit_code"] != 0
    # a message that a person understands
    assert re.search(r"Could not resolve host|Failed to connect|refused", r["stderr"]), r["stderr"]


def test_large_download(world, box, files):
    wait_until(lambda: reachable(box, "http://big.example.com:8081/repo.git/HEAD"), 20, "web server")
    t = time.monotonic()
    r = box.root("curl -sS http://big.example.com:8081/large | sha256sum")
    took = time.monotonic() - t
    want = subprocess.run(["sha256sum"], stdin=open(files / "large", "rb"), capture_output=True, check=True).stdout
    assert r["stdout"].encode() == want, r
    print(f"50 MiB in {took:.1f} s")


def test_fifty_connections_at_once(world, box):
    r = box.root("for i in $(seq 50); do curl -sS -m 60 http://git.example.com/100000 | wc -c & done; wait",
                 timeout_ms=90000)
    assert r["stdout"].split() == ["100000"] * 50, r


def test_a_name_that_changes_its_address(world, box):
    assert box.resolve("moves.example.com")["addresses"] == [WEB]
    world.names.zone["moves.example.com"] = ([OTHER], 1)
    wait_until(lambda: box.resolve("moves.example.com").get("addresses") == [OTHER], 20, "new address")
    assert box.tcp(OTHER, 80) == "connected"


def test_what_curl_says(world, box):
    """The words a person meets."""
    ok = box.root("curl -sS -m 10 -o /dev/null -w '%{http_code}\\n' http://git.example.com/2")
    assert ok["stdout"] == "200\n", ok
    name = box.root("curl -sS -m 10 http://evil.example.com/")
    assert name["exit_code"] == 6 and "Could not resolve host" in name["stderr"]
    address = box.root(f"curl -sS -m 10 http://{WEB2}:8080/")
    assert address["exit_code"] == 7 and "onnect" in address["stderr"], address


def test_a_change_applies_at_once(world, box):
    """By the request itself, so without the start of a client; said, and bounded generously."""
    times = []
    for i in range(20):
        target = f"198.18.{i}.1:443" if i % 2 else f"93.99.{i}.1:443"

        def change():
            status, _, body = box.d.request("POST", "/v1/sandboxes/box/policy/rules",
                                            {"verdict": "allow", "targets": [target]})
            assert status == 200, body
        times.append(elapsed(change))
    print(f"a change: median {sorted(times)[10] * 1000:.1f} ms, at most {max(times) * 1000:.1f} ms")
    assert sorted(times)[10] < 0.5
    assert box.tcp(WEB2, 8080) == "reset"
    box.policy("allow", f"{WEB2}:8080")
    assert box.tcp(WEB2, 8080) == "connected"
    box.policy("deny", f"{WEB2}:8080")
    assert box.tcp(WEB2, 8080) == "reset"


def test_policies_of_every_kind(world, box, tmp_path):
    """set, apply, export, define; an error leaves the old one."""
    text = box.policy("export")
    assert "allow git.example.com:80\n" in text
    path = tmp_path / "rules"
    path.write_text("allow git.example.com:80\nalow x.example.com\n")
    r = box.d.sbx("policy", "apply", "box", "-f", str(path))
    assert r.returncode == 125 and "line 2" in r.stderr, r
    assert box.policy("export") == text
    path.write_text("allow 8.8.8.8:443\n")
    box.d.ok("policy", "define", "mine", str(path))
    box.policy("set", "mine")
    assert box.policy("export") == "allow 8.8.8.8:443\n"
    assert box.d.get("/v1/sandboxes/box")["network"]["policy"] == "mine"
    assert box.tcp("8.8.8.8", 443) == "connected" and box.resolve("git.example.com")["seen"] == "refused"
    path.write_text(text)
    box.policy("apply", "-f", str(path))
    assert box.policy("export") == text
    box.d.ok("policy", "undefine", "mine")
    assert box.d.sbx("create", "--policy", "mine").returncode == 125


def test_rules_survive_restarts(world, box):
    """Of the daemon, and of the sandbox; open names only of the former."""
    assert box.resolve("registry.example.com")["addresses"] == [OTHER]
    assert box.tcp(OTHER, 443) == "connected"
    before = box.policy("export")
    world.d.stop()
    assert box.d.process is None
    world.d.start()
    assert box.policy("export") == before
    assert box.tcp(OTHER, 443) == "connected"      # the name's element was found in the kernel again
    world.d.ok("stop", "box")
    box.policy("allow", "8.8.8.8:22")               # of one that does not run
    world.d.ok("start", "box")
    assert box.tcp("8.8.8.8", 22) == "connected"
    assert box.tcp(OTHER, 443) == "reset"
    matches = [r for r in box.d.get("/v1/sandboxes/box/policy")["rules"] if r["target"] == "8.8.8.8:22"][0]
    assert matches["source"] == "user" and matches["added_by"]["user"] == "root"
    wait_until(lambda: [r for r in box.d.get("/v1/sandboxes/box/policy")["rules"]
                        if r["target"] == "8.8.8.8:22"][0]["matches"] == 1, 10, "count")


def test_a_flow_goes_on_while_the_daemon_is_away(world, box):
    box.policy("allow", "8.8.8.8:8080")
    box.root("(exec 3<>/dev/tcp/8.8.8.8/8080; for i in $(seq 60); do echo $i >&3; read -r x <&3; "
             "echo $x > /tmp/count; sleep 0.05; done) > /dev/null 2>&1 &")
    wait_until(lambda: box.root("cat /tmp/count")["stdout"].strip() not in ("", "1"), 20, "flow")
    world.d.stop(9)
    world.caught_up()
    start = len(world.sniffer.packets)
    wait_until(lambda: len([p for p in world.sniffer.packets[start:] if p.destination == "8.8.8.8"]) > 5, 10,
               "packets of the flow without a daemon")
    world.d.start()
    wait_until(lambda: box.root("cat /tmp/count")["stdout"] == "60\n", 30, "end of the flow")


def test_a_dead_resolver_is_replaced(world, box):
    def pid():
        out = subprocess.run(["pgrep", "-f", "sandboxd-resolver --channel"], capture_output=True, text=True,
                             check=False).stdout.split()
        mine = [p for p in out if os.stat(f"/proc/{p}/ns/net").st_ino == os.fstat(world.d.network).st_ino]
        return int(mine[0]) if mine else None
    old = wait_until(pid, 10, "resolver")
    os.kill(old, 9)
    wait_until(lambda: pid() not in (None, old), 10, "another resolver")
    wait_until(lambda: box.resolve("deb.example.com")["seen"] == "resolved", 20, "answers")


def test_prove_is_a_gate(world, box):
    world.names.zone["moves.example.com"] = ([WEB2], 60)
    for name in ("big.example.com",):
        world.names.zone.setdefault(name, ([WEB2], 60))
    r = box.d.sbx("policy", "prove", "box")
    assert r.returncode == 0 and r.stdout.splitlines()[-1].endswith(" passed, 0 failed"), r.stdout
    world.names.zone.pop("moves.example.com")       # what is allowed and cannot be had fails it
    time.sleep(1.1)
    assert box.resolve("moves.example.com")["seen"] in ("nxdomain", "resolved")
    box.policy("allow", f"{WEB2}:9999")             # nobody listens there: the filter let it pass all the same
    r = box.d.sbx("policy", "prove", "box")
    assert f"PASS tcp {WEB2}:9999" in r.stdout, r.stdout
    box.policy("rm", f"{WEB2}:9999")


def test_when_the_kernel_refuses(world, box):
    """More ranges than a filter may have: the old rules stay, and the cause is named."""
    before = box.policy("export")
    rules = "".join(f"allow 11.{i >> 8}.{i & 255}.0/24:{1000 + i}-{40000 + i}\nallow 11.0.0.0/8:{1 + i}\n"
                    for i in range(480))
    status, _, body = box.d.request("PUT", "/v1/sandboxes/box/policy", {"rules": rules})
    assert status in (400, 413, 503), (status, body[:300])
    assert b"intricate" in body or b"ranges" in body or b"kernel" in body, body[:300]
    assert box.policy("export") == before
    assert box.tcp("8.8.8.8", 22) == "connected"


def test_a_batch_that_the_kernel_refuses(world, box):
    """Somebody's table of our name that nobody else may change (`flags owner`): closed, the old policy
    stays, no sandbox starts, the cause is named; and all is well when its owner has gone."""
    owner = subprocess.Popen(["nft", "-i"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
                             preexec_fn=lambda: netns.enter(world.d.network))
    try:
        owner.stdin.write("flush ruleset; add table inet sandboxd { flags owner; }\n")
        owner.stdin.flush()
        # Whose batch comes first is the kernel's choice; one of ours frees the name no more.
        for _ in range(50):
            if "owner" in world.host("nft list tables; nft list ruleset"):
                break
            owner.stdin.write("delete table inet sandboxd; add table inet sandboxd { flags owner; }\n")
            owner.stdin.flush()
            time.sleep(0.05)
        else:
            pytest.fail("the name could not be taken")
        before = box.policy("export")
        status, _, body = box.d.request("POST", "/v1/sandboxes/box/policy/rules",
                                        {"verdict": "allow", "targets": ["93.99.99.99:443"]})
        assert status == 503 and b"not permitted" in body, (status, body)
        assert box.policy("export") == before
        with world.wire() as seen:
            assert box.tcp("8.8.8.8", 22) != "connected"
        assert not seen
        r = box.d.sbx("create", "--name", "refused")
        assert r.returncode == 125 and "not permitted" in r.stderr, r
        assert [s["name"] for s in box.d.get("/v1/sandboxes")["sandboxes"]] == ["box"]
    finally:
        owner.stdin.close()
        owner.wait(10)
    wait_until(lambda: box.tcp("8.8.8.8", 22) == "connected" or None, 20, "the repair")
    assert box.policy("export") == before


def test_an_interface_that_appears_later(world, box):
    """A host that does not forward by itself gets another way out while sandboxes run."""
    away = netns.new()
    box.policy("allow", "198.18.77.1:8080")
    assert world.host("sysctl -n net.ipv4.conf.all.forwarding").strip() == "0"
    try:
        world.serve(away, 8080)
        world.host("ip link add later0 type veth peer name there0;"
                   f"ip link set there0 netns /proc/{os.getpid()}/fd/{away};"
                   "ip addr add 198.18.77.2/30 dev later0; ip link set later0 up")
        world.at(away, "ip link set lo up; ip addr add 198.18.77.1/30 dev there0; ip link set there0 up")
        wait_until(lambda: box.tcp("198.18.77.1", 8080) == "connected" or None, 10, "the way back")
        assert "later0" in world.host("nft list set inet sandboxd opened")
    finally:
        world.host("ip link del later0 || true")
        box.policy("rm", "198.18.77.1:8080")
        os.close(away)


def test_a_firewall_in_the_way(world, box):
    """What Docker and ufw do to a host: sandboxes reach nothing, and the doctor knows why."""
    assert box.d.sbx("doctor").returncode == 0
    world.host("nft 'add table ip filter; add chain ip filter FORWARD "
               "{ type filter hook forward priority 0; policy drop; }'")
    try:
        assert box.tcp("8.8.8.8", 22) == "timeout"
        r = box.d.sbx("doctor")
        assert r.returncode == 1 and "chain FORWARD of table ip filter drops" in r.stdout, r.stdout
        world.host("nft 'add rule ip filter FORWARD iifname \"sbx*\" accept;"
                   "add rule ip filter FORWARD oifname \"sbx*\" accept'")
        assert box.tcp("8.8.8.8", 22) == "connected"
        assert box.d.sbx("doctor").returncode == 0
    finally:
        world.host("nft delete table ip filter")


def test_a_second_daemon_on_one_host(world, box):
    """What a network needs cannot be had: no sandbox starts, the cause is named, and later it works."""
    d = Daemon(default_policy="none", uid_base=1900000000)
    os.close(d.network)
    d.network = os.dup(world.d.network)
    try:
        d.start()
        r = d.sbx("create", "--name", "second")
        assert r.returncode == 125 and "the filter's log" in r.stderr and "another sandboxd" in r.stderr, r
        assert d.get("/v1/sandboxes")["sandboxes"] == []
        r = d.sbx("doctor")
        assert r.returncode == 1 and "MISSING  networks of sandboxes: " in r.stdout, r.stdout
        assert box.d.sbx("doctor").returncode == 0
        assert box.tcp("8.8.8.8", 22) == "connected"    # the first one has not noticed
        d.ok("create", "--name", "first", "--no-start")     # whose address is the other daemon's box's
        d.ok("create", "--name", "later", "--no-start")
        world.d.stop()
        d.ok("start", "later")                          # tried anew
        d.ok("rm", "-f", "first", "later")
    finally:
        left = d.close()
        if not world.d.process:
            world.d.start()
    assert not left, left
    assert box.tcp("8.8.8.8", 22) == "connected"
