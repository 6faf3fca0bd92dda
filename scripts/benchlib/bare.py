# SPDX-License-Identifier: MIT
"""A bare guest: QEMU as libvirt starts it, and the guest's channel in our own hands."""
import contextlib
import json
import os
import re
import shutil
import socket
import struct
import subprocess
import tempfile
import time

from .figures import SLOW, BenchError, now

NOBODY = 65534

MAGIC, TRAILER = 0x31584253, 0x5a17e77e
HELLO, CONFIG, READY, EXEC, FAILED = 1, 3, 4, 5, 7
DATA, EOF, CREDIT, EXIT, FORGET, PING, PONG, SHUTDOWN = 8, 9, 10, 14, 15, 17, 18, 20
FRAME, WINDOW = 32 * 1024 - 64, 128 * 1024


def text(s):
    return struct.pack("<I", len(s)) + s.encode()


def vector(items):
    return struct.pack("<I", len(items)) + b"".join(map(text, items))


class Channel:
    """The daemon's end of the protocol of common/frame.h, for a guest that behaves."""

    def __init__(self, path, process):
        end = now() + SLOW
        while True:
            self.sock = socket.socket(socket.AF_UNIX)
            try:
                self.sock.connect(path)
                break
            except OSError as e:
                self.sock.close()
                if process.poll() is not None or now() > end:
                    raise BenchError("the bare QEMU did not start") from e
                time.sleep(0.001)
        self.sock.settimeout(SLOW)
        self.epoch = int.from_bytes(os.urandom(4), "little") | 1
        self.data, self.at, self.stream = bytearray(), 0, 0
        # It waits in the socket until the guest opens its port.
        self.send(HELLO, 0, 0, struct.pack("<I", 1))

    def frame(self, kind, fd, stream, payload=b""):
        return (struct.pack("<IIIHBB", MAGIC, self.epoch, stream, len(payload), kind, fd) + payload
                + struct.pack("<I", self.epoch ^ TRAILER))

    def send(self, *frame):
        self.sock.sendall(self.frame(*frame))

    def receive(self):
        """(type, fd, stream, payload)"""
        while True:
            left = len(self.data) - self.at
            if left >= 16:
                magic, epoch, stream, n, kind, fd = struct.unpack_from("<IIIHBB", self.data,
                                                                       self.at)
                if magic != MAGIC or epoch != self.epoch:
                    raise BenchError("the bare guest's channel is out of step")
                if left >= 20 + n:
                    payload = bytes(self.data[self.at + 16:self.at + 16 + n])
                    self.at += 20 + n
                    return kind, fd, stream, payload
            if self.at:
                del self.data[:self.at]
                self.at = 0
            try:
                more = self.sock.recv(1 << 18)
            except OSError as e:
                raise BenchError(f"the bare guest: {e}") from e
            if not more:
                raise BenchError("the bare guest has ended")
            self.data += more

    def until(self, *kinds):
        while True:
            frame = self.receive()
            if frame[0] in kinds:
                return frame

    def configure(self):
        self.send(CONFIG, 0, 0, text("bare") + struct.pack("<BQ", 0, time.time_ns()) + vector([]))
        return struct.unpack("<QQ", self.until(READY)[3][:16])

    def ping(self):
        self.send(PING, 0, 0, bytes(8))
        self.until(PONG)

    def execute(self, argv, stdin=None):
        """Runs it, feeding `stdin` bytes; returns the bytes of stdout."""
        self.stream += 1
        mine, got, given = self.stream, 0, WINDOW
        sent, may = 0, 0
        self.send(EXEC, 0, mine, b"\1" + vector(argv) + vector([]) + text("") + text("")
                  + struct.pack("<BBHHQQ", 0, stdin is not None, 0, 0, 0, given))
        while True:
            kind, fd, stream, payload = self.receive()
            if stream != mine:
                continue
            if kind == DATA and fd == 1:
                got += len(payload) - 8
                if got + WINDOW >= given + WINDOW // 4:
                    given = got + WINDOW
                    self.send(CREDIT, 1, mine, struct.pack("<Q", given))
            elif kind == CREDIT and fd == 0 and stdin is not None:
                may = max(may, struct.unpack("<Q", payload)[0])
                out = []
                while sent < min(may, stdin):
                    n = min(FRAME - 8, may - sent, stdin - sent)
                    out.append(self.frame(DATA, 0, mine, struct.pack("<Q", sent) + bytes(n)))
                    sent += n
                    if sent == stdin:
                        out.append(self.frame(EOF, 0, mine, struct.pack("<Q", sent)))
                self.sock.sendall(b"".join(out))
            elif kind == FAILED:
                raise BenchError(f"the bare guest cannot execute {argv}")
            elif kind == EXIT:
                self.send(FORGET, 0, mine)
                if payload[0] != 0 or payload[1:5] != bytes(4):
                    raise BenchError(f"{argv} failed in the bare guest")
                return got


class Bare:
    """QEMU with the arguments of a sandbox's, but for what belongs to libvirt's control of it."""

    def __init__(self, template, extra=""):
        self.template, self.extra = template, extra
        self.dir = tempfile.mkdtemp(prefix="sbxb.", dir="/tmp")
        os.chown(self.dir, NOBODY, NOBODY)
        self.process = self.channel = None

    def make_disk(self):
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b",
                        self.template.base, self.dir + "/disk.qcow2", str(self.template.size)],
                       check=True)
        os.chown(self.dir + "/disk.qcow2", NOBODY, NOBODY)

    def boot(self):
        """Marks in seconds since QEMU was executed: connected, hello, ready, exec."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.dir + "/agent.sock")
        marks, began = {}, now()
        self.process = subprocess.Popen(
            self.template.arguments(self.dir, self.extra), stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/",
            user=NOBODY, group=NOBODY, extra_groups=[])
        self.channel = c = Channel(self.dir + "/agent.sock", self.process)
        marks["connected"] = now() - began
        c.until(HELLO)
        marks["hello"] = now() - began
        kernel_us, agent_us = c.configure()
        marks["ready"] = now() - began
        c.execute(["true"])
        marks["exec"] = now() - began
        marks["guest_kernel"], marks["guest_agent"] = kernel_us / 1e6, agent_us / 1e6
        return marks

    def shutdown(self):
        """Orderly; QEMU ends by itself."""
        self.channel.send(SHUTDOWN, 0, 0, b"\0")
        self.process.wait(SLOW)

    def kill(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait(60)
        if self.channel:
            self.channel.sock.close()
        self.channel = None

    def erase(self):
        os.unlink(self.dir + "/disk.qcow2")

    def close(self):
        self.kill()
        shutil.rmtree(self.dir, ignore_errors=True)


class Template:
    """The command line of a running sandbox's QEMU, made usable without libvirt."""

    DROP = {"-S", "-no-shutdown", "-uuid", "-mon", "-add-fd", "-msg"}

    def __init__(self, argv, daemon, sandbox):
        self.argv, self.size = argv, sandbox["disk"]
        # The daemon shows images to QEMU through a mount that nobody else sees.
        self.paths = {f"{daemon.state}/sandboxes/{sandbox['id']}/vm/disk.qcow2": "disk.qcow2",
                      f"{daemon.run}/view/": f"{daemon.state}/images/"}
        digest = sandbox["image"]["digest"].split(":")[1]
        self.base = f"{daemon.state}/images/{digest}/root.img"

    def options(self):
        """(name,) or (name, value)"""
        i = 1
        while i < len(self.argv):
            alone = i + 1 == len(self.argv) or re.match(r"-[a-zA-Z]", self.argv[i + 1])
            yield tuple(self.argv[i:i + (1 if alone else 2)])
            i += 1 if alone else 2

    def arguments(self, directory, extra=""):
        out = [self.argv[0], "-name", "sbx-bench-bare"]
        for name, *value in self.options():
            v = value[0] if value else ""
            if name in self.DROP or name == "-name" or "masterKey0" in v or "id=charmonitor" in v:
                continue
            if "id=charchannel0" in v and name == "-chardev":
                v = f"socket,id=charchannel0,path={directory}/agent.sock,server=on,wait=off"
            elif name == "-chardev":    # the console, of which the daemon is the reader
                v = f"file,id={re.search('id=([^,]+)', v).group(1)},path={directory}/console.log"
            elif name == "-netdev":     # the same device, and nothing at its other end
                v = '{"type":"hubport","hubid":0,"id":"hostnet0"}'
            elif name == "-append" and extra:
                v += " " + extra
            for path, other in self.paths.items():
                v = v.replace(path, os.path.join(directory, other))
            out += [name, v] if value else [name]
        return out
