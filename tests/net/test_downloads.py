# SPDX-License-Identifier: MIT
"""What people do all day, with their own programs against real servers: git over https and ssh, apt, a
package registry whose files lie on another host, and Docker inside the sandbox, which takes its packages
by apt, builds an image, and whose containers obey the sandbox's policy."""
import gzip
import hashlib
import json
import os
import subprocess
import tarfile

import netns
import pytest
from sandboxd import wait_until
from world import WEB, a_world  # noqa: F401

GIT, DEB, REGISTRY, CDN = "93.184.218.1", "93.184.218.2", "93.184.218.3", "93.184.218.4"
NAMES = {"git.example.com": GIT, "deb.example.com": DEB, "registry.example.com": REGISTRY,
         "cdn.example.com": CDN}

HTTP = """
import functools, http.server, ssl, sys
address, port, directory, pem = sys.argv[1:]
class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args): pass
    def end_headers(self):
        if self.path.count("/") == 1: self.send_header("Content-Type", "application/json")
        super().end_headers()
s = http.server.ThreadingHTTPServer((address, int(port)), functools.partial(Quiet, directory=directory))
if pem:
    c = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    c.load_cert_chain(pem)
    s.socket = c.wrap_socket(s.socket, server_side=True)
print("up", flush=True)
s.serve_forever()
"""


class Town:
    """A further namespace beyond the Internet's, where nothing else listens; `dir` is what it serves."""

    def __init__(self, world, tmp):
        self.world, self.dir, self.servers = world, str(tmp), []
        self.net = netns.new()
        world.at(world.internet, f"ip link add town0 type veth peer name out0;"
                 f"ip link set out0 netns /proc/{os.getpid()}/fd/{self.net};"
                 "ip addr add 198.51.100.1/24 dev town0; ip link set town0 up;"
                 "ip route add 93.184.218.0/24 via 198.51.100.2; echo 1 > /proc/sys/net/ipv4/ip_forward")
        world.at(self.net, "ip addr add 198.51.100.2/24 dev out0; ip link set out0 up;"
                 "ip route add default via 198.51.100.1;" +
                 "".join(f"ip addr add {a}/32 dev lo;" for a in NAMES.values()))
        for name, address in NAMES.items():
            world.names.zone[name] = ([address], 300)
        self.pem = self.dir + "/pem"
        self.sh("openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 "
                "-subj /CN=test -keyout key -out cert 2> /dev/null -addext subjectAltName=" +
                ",".join(f"DNS:{n}" for n in NAMES) + "; cat key cert > pem")

    def sh(self, script):
        env = {"PATH": os.environ["PATH"], "HOME": self.dir, "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C.UTF-8"}
        for who in ("AUTHOR", "COMMITTER"):
            env |= {f"GIT_{who}_NAME": "a", f"GIT_{who}_EMAIL": "a@example.com"}
        r = subprocess.run(["sh", "-ec", script], cwd=self.dir, env=env, capture_output=True, text=True,
                           check=False)
        assert r.returncode == 0, (script, r.stdout[-2000:], r.stderr[-2000:])
        return r.stdout

    def popen(self, argv, **kw):
        p = subprocess.Popen(argv, stdin=subprocess.DEVNULL, preexec_fn=lambda: netns.enter(self.net), **kw)
        self.servers.append(p)
        return p

    def http(self, address, port, directory, tls=True):
        p = self.popen(["/usr/bin/python3", "-c", HTTP, address, str(port), f"{self.dir}/{directory}",
                        self.pem if tls else ""], stdout=subprocess.PIPE)
        assert p.stdout.readline() == b"up\n"

    def sshd(self, address):
        self.sh("ssh-keygen -q -t ed25519 -N '' -f host; ssh-keygen -q -t ed25519 -N '' -f user;"
                "cp user.pub authorized")
        with open(self.dir + "/sshd", "w") as f:
            f.write(f"Port 22\nListenAddress {address}\nHostKey {self.dir}/host\nStrictModes no\nUsePAM no\n"
                    f"AuthorizedKeysFile {self.dir}/authorized\nPidFile none\nPermitRootLogin yes\n")
        os.makedirs("/run/sshd", mode=0o755, exist_ok=True)
        p = self.popen(["/usr/sbin/sshd", "-D", "-e", "-f", self.dir + "/sshd"],
                       stderr=open(self.dir + "/sshd.log", "wb"))

        def up():
            with open(self.dir + "/sshd.log") as f:
                log = f.read()
            assert p.poll() is None, log
            return "listening" in log
        wait_until(up, what="sshd")

    def close(self):
        for p in self.servers:
            p.kill()
            p.wait()
        os.close(self.net)


@pytest.fixture(scope="module")
def town(world, tmp_path_factory):
    t = Town(world, tmp_path_factory.mktemp("town"))
    yield t
    t.close()


@pytest.fixture(scope="module")
def box(world, town):
    return world.box("box", "allow git.example.com:443", "allow git.example.com:22",
                     "allow deb.example.com:80", "allow registry.example.com:443")


@pytest.fixture(scope="module")
def repository(town):
    town.sh("mkdir git; git init -q -b main src; cd src; seq 1000 > numbers; git add .; git commit -qm one;"
            "git clone -q --bare . ../git/repo.git; cd ../git/repo.git; git update-server-info")
    town.http(GIT, 443, "git")
    town.sshd(GIT)


def put(box, path, source):
    with open(source, "rb") as f:
        r = box.d.sbx("exec", "-i", "-u", "root", box.name, "--", "sh", "-c", f"umask 077; cat > {path}",
                      stdin=f.read(), binary=True)
    assert r.returncode == 0, r


def test_git_over_https(world, box, town, repository):
    put(box, "/root/cert", town.dir + "/cert")
    clone = ("cd /tmp && rm -rf c && "
             "git -c http.sslCAInfo=/root/cert clone -q https://git.example.com/repo.git c")
    r = box.root(clone + " && wc -l < c/numbers")
    assert (r["exit_code"], r["stdout"].strip()) == (0, "1000"), r
    box.policy("rm", "git.example.com:443")
    r = box.root(clone)
    assert r["exit_code"] == 128 and "git.example.com" in r["stderr"], r
    box.policy("allow", "git.example.com:443")


def test_git_over_ssh(world, box, town, repository):
    put(box, "/root/user", town.dir + "/user")
    r = box.root("cd /tmp && rm -rf s && "
                 "GIT_SSH_COMMAND='ssh -i /root/user -o StrictHostKeyChecking=no -o BatchMode=yes' "
                 f"git clone -q ssh://root@git.example.com{town.dir}/git/repo.git s && wc -l < s/numbers")
    assert (r["exit_code"], r["stdout"].strip()) == (0, "1000"), r


def test_a_registry_whose_files_are_elsewhere(world, box, town):
    """As npm does it: what a package's description names is fetched from another host, by another rule."""
    put(box, "/root/cert", town.dir + "/cert")
    for d in ("registry", "cdn/left"):
        os.makedirs(f"{town.dir}/{d}")
    with tarfile.open(town.dir + "/cdn/left/left-1.0.0.tgz", "w:gz") as t:
        t.add(__file__, "package/index.js")
    with open(town.dir + "/cdn/left/left-1.0.0.tgz", "rb") as f:
        digest = hashlib.sha256(f.read()).hexdigest()
    with open(town.dir + "/registry/left", "w") as f:
        json.dump({"name": "left", "dist": {"tarball": "https://cdn.example.com/left/left-1.0.0.tgz"}}, f)
    town.http(REGISTRY, 443, "registry")
    town.http(CDN, 443, "cdn")
    fetch = ("cd /root && url=$(curl -sS --cacert cert https://registry.example.com/left | "
             "python3 -c 'import json, sys; print(json.load(sys.stdin)[\"dist\"][\"tarball\"])') && "
             "curl -sS --cacert cert -o left.tgz \"$url\" && sha256sum < left.tgz && tar tzf left.tgz")
    r = box.root(fetch)
    assert r["exit_code"] == 6 and "cdn.example.com" in r["stderr"], r
    box.policy("allow", "cdn.example.com:443")
    r = box.root(fetch)
    assert r["exit_code"] == 0 and r["stdout"].split() == [digest, "-", "package/index.js"], r


@pytest.fixture(scope="module")
def packages(town, box):
    """A Debian archive of what this guest lacks for Docker, from the host's own sources."""
    for d in ("deb/partial", "lists/partial"):
        os.makedirs(f"{town.dir}/{d}")
    with open(town.dir + "/status", "w") as f:
        f.write(box.d.ok("exec", "box", "--", "cat", "/var/lib/dpkg/status"))
    apt = (f"apt-get -q -y --no-install-recommends --download-only -o Dir::State::status={town.dir}/status "
           f"-o Dir::State::lists={town.dir}/lists -o Dir::Cache::archives={town.dir}/deb "
           "-o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= -o APT::Sandbox::User=root ")
    town.sh(f"{apt} update; {apt} install docker.io;"
            "cd deb; rm -rf partial lock; dpkg-scanpackages -m . > Packages 2> /dev/null")
    with open(town.dir + "/deb/Packages", "rb") as f, gzip.open(town.dir + "/deb/Packages.gz", "wb") as g:
        g.write(f.read())
    town.http(DEB, 80, "deb", tls=False)


def test_apt_and_docker(world, box, town, packages):
    box.root("rm -f /etc/apt/sources.list;"
             "echo 'deb [trusted=yes] http://deb.example.com ./' > /etc/apt/sources.list.d/t.list")
    r = box.root("apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends "
                 "install docker.io", timeout_ms=300000)
    assert r["exit_code"] == 0, r
    box.root("dockerd > /root/dockerd.log 2>&1 &")
    wait_until(lambda: box.root("docker version")["exit_code"] == 0 or None, 120, "dockerd")
    # a base image of a shell, curl and their libraries
    r = box.root("set -e; mkdir -p /root/base/etc /root/base/tmp /root/build; cd /root; "
                 "cp -L --parents $(ldd /usr/bin/curl /bin/sh | grep -o '/[^ ]*' | grep -v :) "
                 "/usr/bin/curl /bin/sh base; tar -C base -c . | docker import - base", timeout_ms=120000)
    assert r["exit_code"] == 0, r
    build = ("DOCKER_BUILDKIT=0 docker build -q --no-cache -t made -f- /root/build << 'X'\n"
             "FROM base\nRUN curl -sS -m 20 -o /got %s\nX\n")
    r = box.root(build % "http://deb.example.com/Packages", timeout_ms=200000)
    log = box.root("tail -20 /root/dockerd.log")
    assert r["exit_code"] == 0 and r["stdout"].startswith("sha256:"), (r, log)
    with world.wire() as seen:
        r = box.root(build % f"http://{WEB}/", timeout_ms=200000)
        assert r["exit_code"] != 0 and "onnect" in r["stdout"] + r["stderr"], r
    assert not [p for p in seen if p.destination == WEB]
    r = box.root(build % "http://evil.example.com/", timeout_ms=200000)
    # curl's status for a name that does not resolve; its words are cut up by colours
    assert r["exit_code"] != 0 and "non-zero code: 6\n" in r["stdout"] + r["stderr"], r
