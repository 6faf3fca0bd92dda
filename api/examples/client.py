#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A client of sandboxd in Python's standard library: create a sandbox, run a command with its input
and output attached, remove it.

    SBX_SOCKET=/run/sandboxd/sandboxd.sock python3 client.py [WORKSPACE]
"""

import http.client
import json
import os
import select
import socket
import struct
import sys

STDIN, STDOUT, STDERR, RESIZE, SIGNAL, DETACH, EXIT, ERROR, GAP = range(9)


class ApiError(Exception):
    def __init__(self, status, error):
        super().__init__(f"{error['code']}: {error['message']}")
        self.status, self.code, self.hint = status, error["code"], error.get("hint")


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout):
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Sandboxd:
    def __init__(self, path):
        self.path = path

    def call(self, method, path, body=None, timeout=200, **headers):
        """One request; the decoded answer, or ApiError."""
        connection = UnixConnection(self.path, timeout)
        if body is not None:
            headers["Content-Type"] = "application/json"
            body = json.dumps(body)
        elif method == "POST":
            headers["Content-Length"] = "0"
        try:
            connection.request(method, "/v1" + path, body, headers)
            answer = connection.getresponse()
            data = answer.read()
        finally:
            connection.close()
        decoded = json.loads(data) if data else None
        if answer.status >= 400:
            raise ApiError(answer.status, decoded["error"])
        return decoded

    def attach(self, sandbox, exec_id):
        """The connection of an exec, after the upgrade: (socket, bytes that came early)."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.connect(self.path)
        sock.sendall(f"GET /v1/sandboxes/{sandbox}/execs/{exec_id}/attach HTTP/1.1\r\n"
                     "Host: localhost\r\nConnection: Upgrade\r\nUpgrade: sbx-stream\r\n\r\n".encode())
        data = b""
        while b"\r\n\r\n" not in data:
            piece = sock.recv(4096)
            if not piece:
                raise ConnectionError("closed before the answer")
            data += piece
        head, rest = data.split(b"\r\n\r\n", 1)
        if int(head.split()[1]) != 101:
            raise ConnectionError(head.decode(errors="replace"))
        return sock, rest

    def execute(self, sandbox, command, stdin=b"", **options):
        """Runs a command with `stdin` as its input: (exit record, stdout, stderr)."""
        started = self.call("POST", f"/sandboxes/{sandbox}/execs",
                            {"command": command, "stdin": True, **options})
        sock, buffer = self.attach(sandbox, started["id"])
        output = {STDOUT: b"", STDERR: b""}
        # what is still to be sent: the input in records, then an empty one, which ends it
        pending = b"".join(record(STDIN, stdin[i:i + 65536])
                           for i in range(0, len(stdin), 65536)) + record(STDIN, b"")
        with sock:
            sock.setblocking(False)
            while True:
                for kind, payload, buffer in records(buffer):
                    if kind in output:
                        output[kind] += payload
                    elif kind == EXIT:
                        return json.loads(payload), output[STDOUT], output[STDERR]
                    elif kind == ERROR:
                        raise ApiError(0, json.loads(payload)["error"])
                # both directions at once: the command may wait for us to read before it reads
                can_read, can_write, _ = select.select([sock], [sock] if pending else [], [])
                if can_write:
                    pending = pending[sock.send(pending):]
                if can_read:
                    piece = sock.recv(65536)
                    if not piece:
                        raise ConnectionError("closed before the exit record")
                    buffer += piece


def record(kind, payload):
    return struct.pack(">B3xI", kind, len(payload)) + payload


def records(buffer):
    """Whole records at the front: (type, payload, what is left after it)."""
    while len(buffer) >= 8:
        kind, length = struct.unpack(">B3xI", buffer[:8])
        if len(buffer) < 8 + length:
            return
        payload, buffer = buffer[8:8 + length], buffer[8 + length:]
        yield kind, payload, buffer


def main():
    api = Sandboxd(os.environ.get("SBX_SOCKET", "/run/sandboxd/sandboxd.sock"))
    print("sandboxd", api.call("GET", "/version")["version"])
    request = {"labels": {"made-by": "client.py"}}
    if len(sys.argv) > 1:
        request["workspace"] = {"path": os.path.abspath(sys.argv[1])}
    box = api.call("POST", "/sandboxes", request)["id"]
    try:
        data = bytes(range(256)) * 1000
        end, out, err = api.execute(box, ["sh", "-c", "cat; echo done >&2; exit 7"], data)
        assert out == data and err == b"done\n", (len(out), err)
        assert (end["end"], end["exit_code"]) == ("exit", 7), end
        end, out, _ = api.execute(box, ["uname", "-r"])
        print("kernel of the guest:", out.decode().strip())
        try:
            api.execute(box, ["no-such-program"])
        except ApiError as e:
            print("as it should be:", e)
            assert e.code == "command_not_found"
    finally:
        api.call("DELETE", f"/sandboxes/{box}?force=true")
    print("client.py: done")


if __name__ == "__main__":
    main()
