# SPDX-License-Identifier: MIT
"""An open flow is work: a sandbox in which nothing else happens is not idle as long as it has one."""
from sandboxd import wait_until
from world import WEB, a_world  # noqa: F401

LONG = 120


def test_an_open_flow_keeps_a_sandbox_from_being_idle(world):
    box = world.box("talks", f"allow {WEB}:80")
    quiet = world.box("quiet", f"allow {WEB}:80")
    # no command and next to no CPU: a shell in the background that holds a connection, and nothing to say
    box.root(f"setsid bash -c 'exec 3<>/dev/tcp/{WEB}/80; echo $BASHPID > /run/holder; "
             "while :; do echo word >&3; read -r -t 20 word <&3; sleep 20; done' > /dev/null 2>&1 < /dev/null & ")
    wait_until(lambda: "ESTABLISHED" in world.host(f"conntrack -L -s {box.address} 2>/dev/null || "
                                                   "cat /proc/net/nf_conntrack"), LONG, "flow")
    world.d.ok("update", "--idle-timeout", "8s", "quiet", "talks")
    wait_until(lambda: world.d.get("/v1/sandboxes/quiet")["state"] == "stopped", LONG, "end of the other")
    world.d.ok("start", "quiet")
    wait_until(lambda: world.d.get("/v1/sandboxes/quiet")["state"] == "stopped", LONG, "end of the other")
    assert quiet.address != box.address
    s = world.d.get("/v1/sandboxes/talks")
    assert s["state"] == "running" and s["execs_running"] == 0, s
    # a flow that has been closed is none, though the kernel remembers it for two minutes
    box.root("kill $(cat /run/holder)")
    s = wait_until(lambda: (x := world.d.get("/v1/sandboxes/talks"))["state"] == "stopped" and x, 90, "its end")
    assert s["reason"] == "idle for 8s"
    world.d.ok("rm", "quiet", "talks")
