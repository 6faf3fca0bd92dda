# SPDX-License-Identifier: MIT
"""A second client of the exec streams beside sbx: says and shows what sbx would hide.

    x = start(daemon, "box", "cat", stdin=True)
    with Stream(daemon, "box", x["id"]) as s:
        s.write(b"hello")
        s.end_of_input()
        assert s.rest() == (b"hello", b"")
        assert s.end["exit_code"] == 0
"""
import hashlib
import json
import socket
import struct

from conftest import wait_until

STDIN, STDOUT, STDERR, RESIZE, SIGNAL, DETACH, EXIT, ERROR, GAP = range(9)


def digest(data):
    return hashlib.sha256(data).hexdigest()


def fails(r, status=125):
    """One line that says what is wrong, at most one that says what to do."""
    assert r.returncode == status, r
    lines = r.stderr.splitlines()
    assert lines and lines[0].startswith("sbx: ") and len(lines) <= 2, r.stderr
    assert len(lines) == 1 or lines[1].startswith("hint: "), r.stderr
    assert r.stdout == ""
    return r.stderr


def gone(box, pid):
    """Whether the guest has no such process any more."""
    return box.daemon.sbx("exec", "-u", "root", box.name, "--", "kill", "-0", str(pid)).returncode != 0


def start(daemon, ref, *command, **fields):
    status, _, body = daemon.request("POST", f"/v1/sandboxes/{ref}/execs",
                                     {"command": list(command), **fields})
    assert status == 201, body
    return json.loads(body)


def post(daemon, ref, exec_id, what, **fields):
    """(status, decoded answer) of .../resize and .../signal."""
    status, _, body = daemon.request("POST", f"/v1/sandboxes/{ref}/execs/{exec_id}/{what}", fields)
    return status, json.loads(body) if body else None


def describe(daemon, ref, exec_id):
    return daemon.get(f"/v1/sandboxes/{ref}/execs/{exec_id}")


def ended(daemon, ref, exec_id, seconds=60):
    """The exec's description once it is over."""
    def over():
        x = describe(daemon, ref, exec_id)
        return x["state"] != "running" and x
    return wait_until(over, seconds, what=f"end of exec {exec_id}")


def output(daemon, ref, exec_id, offset=0, stream="stdout"):
    """(offset of the first byte, bytes lost before it, what is kept from there on), all of it;
    the exec must have ended."""
    first, lost, data, at = None, 0, b"", offset
    while True:
        status, headers, body = daemon.request(
            "GET", f"/v1/sandboxes/{ref}/execs/{exec_id}/output?stream={stream}&offset={at}")
        assert status == 200, (status, body)
        h = {k.lower(): v for k, v in headers.items()}
        assert int(h["sbx-offset"]) == at + int(h["sbx-lost"])
        assert int(h["sbx-next-offset"]) == int(h["sbx-offset"]) + len(body)
        if first is None:
            first, lost = int(h["sbx-offset"]), int(h["sbx-lost"])
        else:
            assert h["sbx-lost"] == "0"
        data += body
        at = int(h["sbx-next-offset"])
        if h["sbx-ended"] == "true":
            return first, lost, data
        assert body, "neither bytes nor the end"


class Stream:
    """`out` and `err` collect what came and was not taken by until(); `gaps` {stream: bytes}."""

    def __init__(self, daemon, ref, exec_id, stdout_offset=0, stderr_offset=0):
        self.out, self.err, self.gaps, self.end = b"", b"", {}, None
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        self.sock.connect(daemon.socket)
        self.sock.sendall((
            f"GET /v1/sandboxes/{ref}/execs/{exec_id}/attach?stdout_offset={stdout_offset}"
            f"&stderr_offset={stderr_offset} HTTP/1.1\r\nHost: localhost\r\n"
            "Connection: Upgrade\r\nUpgrade: sbx-stream\r\n\r\n").encode())
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            byte = self.sock.recv(1)
            assert byte, head
            head += byte
        assert head.startswith(b"HTTP/1.1 101 "), head

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()

    def send(self, kind, payload=b""):
        self.sock.sendall(struct.pack(">BxxxI", kind, len(payload)) + payload)

    def write(self, data):
        for i in range(0, len(data), 65536):
            self.send(STDIN, data[i:i + 65536])

    def end_of_input(self):
        self.send(STDIN)

    def resize(self, rows, cols):
        self.send(RESIZE, struct.pack(">HH", rows, cols))

    def signal(self, number):
        self.send(SIGNAL, bytes([number]))

    def detach(self):
        """Leaves; back when the daemon has taken note of it."""
        self.send(DETACH)
        while self.sock.recv(65536):
            pass
        self.sock.close()

    def _bytes(self, n):
        data = b""
        while len(data) < n:
            piece = self.sock.recv(n - len(data))
            assert piece, "closed within a record or before the last one"
            data += piece
        return data

    def take(self):
        """Reads one record; False when it was the last."""
        kind, zero, length = struct.unpack(">B3sI", self._bytes(8))
        assert zero == b"\0\0\0" and length <= 65536
        payload = self._bytes(length)
        if kind == STDOUT:
            self.out += payload
        elif kind == STDERR:
            self.err += payload
        elif kind == GAP:
            stream, lost = struct.unpack(">BQ", payload)
            assert stream not in self.gaps
            self.gaps[stream] = lost
        else:
            assert kind in (EXIT, ERROR), kind
            self.end = json.loads(payload)
            assert self.sock.recv(1) == b"", "something after the last record"
        return self.end is None

    def until(self, text):
        """Reads until stdout has `text`, and forgets it and what came before."""
        while text not in self.out:
            assert self.take(), (text, self.out, self.err, self.end)
        before, self.out = self.out.split(text, 1)
        return before + text

    def rest(self):
        """Everything to the end: (stdout, stderr)."""
        if self.end is None:
            out = [self.out]
            self.out = b""
            while self.take():      # pieces are joined once: 64 MiB come through here
                if self.out:
                    out.append(self.out)
                    self.out = b""
            self.out = b"".join(out)
        return self.out, self.err
