#!/bin/sh
# SPDX-License-Identifier: MIT
# The API with nothing but curl: create a sandbox, run a command in it, read its log, remove it.
#
#     SBX_SOCKET=/run/sandboxd/sandboxd.sock sh quick.sh [WORKSPACE]
set -eu

socket=${SBX_SOCKET:-/run/sandboxd/sandboxd.sock}
workspace=${1:-}
name=quick-$$

api() { # METHOD PATH [JSON]: prints the answer; fails with the error's text on any 4xx or 5xx
    method=$1 path=$2
    shift 2
    if [ $# -gt 0 ]; then
        set -- -H 'Content-Type: application/json' -d "$1"
    elif [ "$method" = POST ]; then
        set -- -H 'Content-Length: 0'
    fi
    curl --silent --show-error --fail-with-body --unix-socket "$socket" -X "$method" "$@" \
        "http://localhost/v1$path"
}

cleanup() { api DELETE "/sandboxes/$name?force=true" >/dev/null 2>&1 || :; }
trap cleanup EXIT

api GET /version
echo

if [ -n "$workspace" ]; then
    api POST /sandboxes "{\"name\":\"$name\",\"workspace\":{\"path\":\"$workspace\"}}"
else
    api POST /sandboxes "{\"name\":\"$name\"}"
fi
echo

# a command with its output in the answer
api POST "/sandboxes/$name/run" '{"command":["sh","-c","uname -r; id -un; cat"],"stdin":"fed by curl\n"}'
echo

# the same as an object: started, then asked about, its output read from an offset
exec=$(api POST "/sandboxes/$name/execs" '{"command":["echo","detached"],"detach":true}' |
    sed -n 's/^{"id":"\([0-9a-f]*\)".*/\1/p')
for _ in 1 2 3 4 5 6 7 8 9 10; do
    api GET "/sandboxes/$name/execs/$exec" | grep -q '"state":"exited"' && break
    sleep 0.5
done
api GET "/sandboxes/$name/execs/$exec/output?stream=stdout&offset=0"

# an error has a stable code
api GET /sandboxes/there-is-no-such-box || :
echo

api DELETE "/sandboxes/$name"
trap - EXIT
echo "quick: done"
