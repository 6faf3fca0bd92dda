# SPDX-License-Identifier: MIT
"""HTTP, with as little between us and the socket as Python allows, and a server as a floor."""
import json
import shutil
import socket
import subprocess
import sys

from .figures import SLOW, BenchError


class Http:
    def __init__(self, path):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(SLOW)
        self.sock.connect(path)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()

    def ask(self, request):
        """One request as bytes; the answer's body."""
        self.sock.sendall(request)
        data = self.sock.recv(1 << 18)
        while (end := data.find(b"\r\n\r\n")) < 0:
            more = self.sock.recv(1 << 18)
            if not more:
                raise BenchError("a connection was closed before the answer")
            data += more
        head = data[:end].lower()
        at = head.find(b"content-length:")
        if at < 0 or not head.startswith(b"http/1.1 2"):
            raise BenchError(f"unexpected answer: {data[:400]!r}")
        want = end + 4 + int(head[at + 15:head.find(b"\r", at) % (len(head) + 1)])
        while len(data) < want:
            more = self.sock.recv(1 << 18)
            if not more:
                raise BenchError("a connection was closed within an answer")
            data += more
        return data[end + 4:]

    @staticmethod
    def get_request(path):
        return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()

    @staticmethod
    def post_request(path, body):
        data = json.dumps(body).encode()
        return (f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(data)}\r\n\r\n").encode() + data

    def get(self, path):
        return self.ask(self.get_request(path))


FLOOR_C = r"""
#include <microhttpd.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static char body[1 << 20];
static enum MHD_Result answer(void *arg, struct MHD_Connection *c, const char *url,
                              const char *method, const char *version, const char *data,
                              size_t *size, void **state)
{
    if (!*state) {      /* an answer to the first call would close the connection */
        *state = body;
        return MHD_YES;
    }
    size_t n = strtoul(url + 1, NULL, 10);
    struct MHD_Response *r = MHD_create_response_from_buffer(
        n < sizeof(body) ? n : sizeof(body), body, MHD_RESPMEM_PERSISTENT);
    MHD_add_response_header(r, "Content-Type", "application/json");
    enum MHD_Result rc = MHD_queue_response(c, 200, r);
    MHD_destroy_response(r);
    return rc;
}
int main(int argc, char **argv)
{
    memset(body, 'x', sizeof(body));
    struct MHD_Daemon *d = MHD_start_daemon(MHD_USE_THREAD_PER_CONNECTION |
        MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_POLL, 0, NULL, NULL, answer, NULL,
        MHD_OPTION_LISTEN_SOCKET, atoi(argv[1]), MHD_OPTION_END);
    char byte;
    while (d && read(0, &byte, 1) > 0) { }      /* ends with whoever started it */
    if (d)
        MHD_stop_daemon(d);
    return !d;
}
"""

FLOOR_PYTHON = """
import socket, sys, threading
listener = socket.socket(fileno=int(sys.argv[1]))
def serve(c):
    data = b""
    while True:
        while b"\\r\\n\\r\\n" not in data:
            more = c.recv(65536)
            if not more:
                return c.close()
            data += more
        head, data = data.split(b"\\r\\n\\r\\n", 1)
        n = int(head.split()[1][1:])
        c.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Type: application/json\\r\\n"
                  b"Content-Length: %d\\r\\n\\r\\n" % n + b"x" * n)
def accept():
    while True:
        threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
threading.Thread(target=accept, daemon=True).start()
sys.stdin.buffer.read()
"""


class FloorServer:
    """GET /N is answered with N bytes, and nothing is done about it."""

    def __init__(self, directory):
        self.path = directory + "/floor.sock"
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(self.path)
        listener.listen(64)
        fd = listener.fileno()
        program = directory + "/floor"
        cc = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
        made = cc and subprocess.run(
            [cc, "-O2", "-xc", "-", "-o", program, "-lmicrohttpd"], input=FLOOR_C.encode(),
            stderr=subprocess.DEVNULL).returncode == 0
        self.what = "a bare libmicrohttpd server" if made else "a bare server in Python"
        self.process = subprocess.Popen(
            [program, str(fd)] if made else [sys.executable, "-c", FLOOR_PYTHON, str(fd)],
            stdin=subprocess.PIPE, pass_fds=[fd])
        listener.close()

    def close(self):
        self.process.stdin.close()
        self.process.wait(10)
