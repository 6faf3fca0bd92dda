# SPDX-License-Identifier: MIT
"""Units, users, directories, catalog, configuration and packages: each by the tool that reads it,
and each held to the source it repeats something of."""
import glob
import json
import os
import re
import shutil
import subprocess

import pytest

from conftest import BUILD, ENV, SOURCE, Unit, need, ok, read, run, source, temporary

EXAMPLES = "share/doc/sandboxd/examples"
FILES = {
    "bin/sbx",
    "lib/systemd/catalog/sandboxd.catalog",
    "lib/systemd/system/sandboxd.service",
    "lib/systemd/system/sandboxd-guests.service",
    "lib/systemd/system/sandboxd.socket",
    "lib/systemd/system/sandboxd-readonly.socket",
    "lib/sysusers.d/sandboxd.conf",
    "lib/tmpfiles.d/sandboxd.conf",
    "libexec/sandboxd/sandboxd-resolver",
    "libexec/sandboxd/sbx-agent",
    "sbin/sandboxd",
    "share/bash-completion/completions/sbx",
    f"{EXAMPLES}/daemon.json",
    f"{EXAMPLES}/qemu-system.conf",
    "share/fish/vendor_completions.d/sbx.fish",
    "share/zsh/site-functions/_sbx",
}


def below(folder, *parts):
    """Files of the source below folder, with another path in front."""
    top = os.path.join(SOURCE, folder)
    return {os.path.join(*parts, os.path.relpath(os.path.join(base, n), top))
            for base, _, names in os.walk(top) for n in names}


def manual_pages():
    return {f"share/man/man{p[-1]}/{os.path.basename(p)}"
            for p in glob.glob(SOURCE + "/docs/man/*.[1-9]")}


# --- installation ---

def test_exactly_these_files_are_installed(installed):
    expected = FILES | manual_pages() | below("guest/image", "share/sandboxd/image")
    # documents to be read are free to come and go
    found = {f for f in installed.files()
             if not f.startswith("share/doc/") or f.startswith(EXAMPLES)}
    assert found == expected


def test_installed_files_are_roots_and_not_writable_by_others(installed):
    for name in installed.files():
        st = os.lstat(os.path.join(installed.tree, name))
        assert st.st_uid == 0 and st.st_mode & 0o6022 == 0, name
        program = name.split("/")[0] in ("bin", "sbin", "libexec") or name.endswith("/customize")
        assert bool(st.st_mode & 0o111) == program, name


def configured(build, *options, env=None):
    """The paths a build tree with these options would install, or None if it cannot be."""
    r = run("meson", "setup", build, SOURCE, "-Dtests=false", "-Dclient=false", "-Dguest=false",
            *options, env=env or ENV, timeout=300)
    if r.returncode != 0:
        return None, r.stdout + r.stderr
    return sorted(json.loads(ok("meson", "introspect", "--installed", build)).values()), ""


def test_a_distributions_prefix_puts_units_where_it_expects_them(installed):
    with temporary() as d:
        paths, why = configured(d + "/build", "--prefix=/usr", "--libdir=lib/x86_64-linux-gnu")
        assert paths, why
        assert {p for p in paths if "/lib/" in p} == {
            "/usr/lib/systemd/catalog/sandboxd.catalog",
            "/usr/lib/systemd/system/sandboxd.service",
            "/usr/lib/systemd/system/sandboxd-guests.service",
            "/usr/lib/systemd/system/sandboxd.socket",
            "/usr/lib/systemd/system/sandboxd-readonly.socket",
            "/usr/lib/sysusers.d/sandboxd.conf",
            "/usr/lib/tmpfiles.d/sandboxd.conf"}
        assert Unit(d + "/build/systemd/sandboxd.service")("Service", "ExecStart") == "/usr/sbin/sandboxd"


def test_a_machine_without_libsystemd_builds_and_gets_no_units(installed):
    need("pkg-config")
    with temporary() as d:
        os.mkdir(d + "/pc")
        for folder in reversed(ok("pkg-config", "--variable", "pc_path", "pkg-config").strip().split(":")):
            for path in glob.glob(folder + "/*.pc"):
                link = d + "/pc/" + os.path.basename(path)
                if os.path.basename(path) not in ("libsystemd.pc", "systemd.pc"):
                    if not os.path.lexists(link):
                        os.symlink(path, link)
        env = {**ENV, "PKG_CONFIG_LIBDIR": d + "/pc", "CMAKE_PREFIX_PATH": ""}
        paths, why = configured(d + "/auto", env=env)
        assert paths, why
        assert not [p for p in paths if "systemd" in p or "sysusers" in p]
        assert [p for p in paths if p.endswith("sbin/sandboxd")]
        paths, why = configured(d + "/enabled", "-Dsystemd=enabled", env=env)
        assert paths is None and "libsystemd" in why


# --- units ---

@pytest.fixture
def units(installed):
    """A folder with the units as installed, except that the program is where it lies now."""
    with temporary() as d:
        for name in ("sandboxd.service", "sandboxd-guests.service", "sandboxd.socket", "sandboxd-readonly.socket"):
            text = read(installed.units, name)
            with open(os.path.join(d, name), "w") as f:
                f.write(text.replace("ExecStart=", "ExecStart=" + installed.root))
        yield d


def verify(folder):
    r = run("systemd-analyze", "verify", "--man=no", folder + "/sandboxd.service",
            folder + "/sandboxd-guests.service", folder + "/sandboxd.socket", folder + "/sandboxd-readonly.socket", env={**ENV, "SYSTEMD_UNIT_PATH": folder + ":"})
    # warnings about units of the machine are not ours
    return r.returncode, [line for line in r.stderr.splitlines() if "sandboxd" in line]


def drop_in(units, installed):
    folder = units + "/sandboxd.service.d"
    os.mkdir(folder)
    shutil.copy(os.path.join(installed.tree, EXAMPLES, "qemu-system.conf"), folder)
    # libvirtd's unit need not be there where this runs
    with open(units + "/libvirtd.service", "w") as f:
        f.write("[Service]\nExecStart=/bin/true\n")


def test_systemd_finds_nothing_to_say_about_the_units(units, installed):
    need("systemd-analyze")
    assert verify(units) == (0, [])
    drop_in(units, installed)
    assert verify(units) == (0, [])


def test_systemd_would_have_said_it(units):
    need("systemd-analyze")
    with open(units + "/sandboxd.service", "a") as f:
        f.write("[Service]\nProtectEverything=yes\n")
    assert "ProtectEverything" in "".join(verify(units)[1])


@pytest.mark.parametrize("with_drop_in", [False, True])
def test_exposure_is_what_the_documentation_says(units, installed, with_drop_in):
    need("systemd-analyze")
    with open(SOURCE + "/docs/SECURITY-MODEL.md") as f:
        alone, dropped = re.search(r"`systemd-analyze security`\s+counts\s+([0-9.]+)\s+.*?\s([0-9.]+)\s+with\s+the\s+drop-in",
                                   f.read(), re.S).groups()
    if with_drop_in:
        drop_in(units, installed)
    bound = round(10 * float(dropped if with_drop_in else alone))
    for threshold, expected in ((bound, 0), (bound - 3, 1)):
        r = run("systemd-analyze", "security", "--offline=true", "--no-pager", f"--threshold={threshold}",
                units + "/sandboxd.service")
        assert r.returncode == expected, r.stdout.splitlines()[-1]


def test_nothing_is_left_to_substitute(installed):
    for path in glob.glob(installed.units + "/*"):
        assert not re.search(r"@\w+@", read(path)), path
    assert installed.unit("sandboxd.service")("Service", "ExecStart") == installed.prefix + "/sbin/sandboxd"


# What gives a service a mount namespace, which under qemu:///system hides the daemon's view of
# images from libvirtd; value: what undoes it.
MOUNT_NAMESPACE = {
    "ProtectSystem": "no", "ProtectHome": "no", "PrivateTmp": "no", "PrivateDevices": "no",
    "PrivateMounts": "no", "PrivateNetwork": "no", "PrivateIPC": "no",
    "ProtectKernelTunables": "no", "ProtectKernelModules": "no", "ProtectKernelLogs": "no", "ProtectControlGroups": "no",
    "ProtectProc": "default", "ProcSubset": "all", "MountFlags": "", "MountAPIVFS": "no",
    "BindPaths": "", "BindReadOnlyPaths": "", "ReadOnlyPaths": "", "ReadWritePaths": "",
    "InaccessiblePaths": "", "NoExecPaths": "", "ExecPaths": "", "TemporaryFileSystem": "",
    "RootDirectory": "", "RootImage": "", "DynamicUser": "no",
}


def test_the_drop_in_leaves_no_mount_namespace(installed):
    service = installed.unit("sandboxd.service")
    extra = Unit(os.path.join(installed.tree, EXAMPLES, "qemu-system.conf"))
    for (section, key), values in service.values.items():
        if section == "Service" and key in MOUNT_NAMESPACE:
            assert extra.values.get((section, key), values)[-1] == MOUNT_NAMESPACE[key], key
    # and it resets nothing that the unit does not have
    assert all((s, k) in service.values for s, k in extra.values if s == "Service")


# --- units and daemon ---

def config_defaults():
    """Keys of the table in config.c, and what fill_defaults() puts there."""
    text = source("daemon/config.c")
    keys = re.findall(r"JF\(struct config, (\w+),", text)
    defaults = dict(re.findall(r'set_default\(&c->(\w+), "([^"]*)", e\)', text))
    units = {"KIB": 1024, "MIB": 1024 ** 2, "GIB": 1024 ** 3, "": 1}
    limits = dict(re.findall(r"#define (\w+) (\d+)\b", source("common/limits.h")))
    defaults.update((key, int(limits[name])) for key, name in re.findall(
        r"JF\(struct config, (\w+),[^)]*?\.def = (DEADLINE_\w+)\)", text))
    for key, number, unit in re.findall(
            r"JF\(struct config, (\w+),[^)]*?\.def = (\d+)(?: \* (\w+))?\)", text):
        defaults[key] = int(number) * units[unit]
    assert 'sbuf_fmt(&socket, "%s/sandboxd.sock", c->runtime_dir);' in text
    defaults["socket"] = defaults["runtime_dir"] + "/sandboxd.sock"
    assert "c->default_cpus = cpus == 1 ? 1 : 2;" in text
    defaults["default_cpus"] = 2
    assert re.search(r'"qemu:///system"\) == 0 \? "libvirt-qemu" : ""', text)
    defaults["qemu_group"] = ""
    # what each user has of it is derived from the host (test-quota.c), the floor from the file system
    defaults["quota"] = {"default": {}, "users": {}, "groups": {}}
    assert "floor = all / 20 < GIB ? all / 20 : GIB;" in source("daemon/space.c")
    defaults["min_free_disk"] = "1G"
    defaults.update((key, []) for key in re.findall(r"JF\(struct config, (\w+), JT_STRV", text))
    defaults.update((key, value == "true") for key, value in re.findall(
        r"JF\(struct config, (\w+), JT_BOOL, \.def = (\w+)\)", text))
    assert sorted(keys) == sorted(defaults)
    return keys, defaults


def test_socket_and_service_are_the_daemons_defaults(installed):
    defaults = config_defaults()[1]
    socket, service = installed.unit("sandboxd.socket"), installed.unit("sandboxd.service")
    assert socket("Socket", "ListenStream") == defaults["socket"]
    assert socket("Socket", "SocketGroup") == defaults["socket_group"]
    assert "chmod(path, 0660)" in source("daemon/listen.c") and socket("Socket", "SocketMode") == "0660"
    assert re.search(r'API_SOCKET_DEFAULT\s+"([^"]*)"', source("common/api.h")).group(1) == defaults["socket"]
    assert "fchmod(fd, 0711)" in source("daemon/daemon.c")
    assert socket("Socket", "DirectoryMode") == "0711"
    for kind, key, top in (("State", "state_dir", "/var/lib"), ("Runtime", "runtime_dir", "/run")):
        assert f"{top}/{service('Service', kind + 'Directory')}" == defaults[key]
        assert service("Service", kind + "DirectoryMode") == "0711"
    assert service("Service", "RuntimeDirectoryPreserve") == "yes"     # or the socket would go
    assert service("Unit", "Requires") == "sandboxd.socket"


def test_the_read_only_socket_is_known_by_its_name_and_nobodys_at_first(installed):
    socket = installed.unit("sandboxd-readonly.socket")
    assert f'#define NOTIFY_READONLY "{socket("Socket", "FileDescriptorName")}"' in source("daemon/notify.h")
    assert socket("Socket", "Service") == "sandboxd.service"
    assert (socket("Socket", "SocketGroup"), socket("Socket", "SocketMode")) == ("root", "0660")
    assert socket("Socket", "ListenStream") != installed.unit("sandboxd.socket")("Socket", "ListenStream")


def test_the_sandboxes_control_group_is_where_the_daemon_looks_and_as_closed_as_its_own(installed):
    service, guests = installed.unit("sandboxd.service"), installed.unit("sandboxd-guests.service")
    assert '#define OUR_UNIT "/sandboxd.service"' in source("daemon/vm_cgroup.c")
    assert '#define GUESTS_UNIT "/sandboxd-guests.service"' in source("daemon/vm_cgroup.c")
    assert guests("Service", "Delegate").split() == ["cpu", "memory", "pids"]
    assert service("Unit", "Wants") == "sandboxd-guests.service"
    assert "sandboxd-guests.service" in service("Unit", "After").split()
    assert service("Service", "ProtectControlGroups") == "yes"
    assert service("Service", "ReadWritePaths") == "-/sys/fs/cgroup/system.slice/sandboxd-guests.service"
    for key in ("DevicePolicy", "DeviceAllow", "TasksMax", "OOMPolicy"):
        assert guests.values["Service", key] == service.values["Service", key], key
    # ends with the machine, not by a slip of the hand
    assert guests("Unit", "RefuseManualStop") == "yes"
    assert guests("Service", "Type") == "notify" and guests("Service", "ExecStart").endswith("/sandboxd cgroup")


def test_sandboxes_outlive_the_daemon_and_the_daemon_is_given_time(installed):
    service = installed.unit("sandboxd.service")
    assert service("Service", "Type") == "notify"
    assert service("Service", "KillMode") == "process"
    assert service("Service", "OOMPolicy") == "continue"
    assert service("Service", "Restart") == "on-failure"
    alarm = int(re.search(r"#define STOP_ALARM_S (\d+)", source("daemon/main.c")).group(1))
    assert int(service("Service", "TimeoutStopSec")) > alarm + 5
    start = int(re.search(r"#define START_SECONDS (\d+)", source("daemon/daemon.c")).group(1))
    assert int(service("Service", "TimeoutStartSec")) > start
    assert re.search(r"sigaddset\(set, SIGHUP\)", source("daemon/main.c"))
    assert service("Service", "ExecReload") == '/bin/sh -c "kill -HUP $MAINPID"'


def test_capabilities_are_those_the_daemon_keeps(installed):
    kept = re.search(r"kept\[\] = \{(.*?)\};", source("daemon/privs.c"), re.S).group(1)
    kept = re.findall(r"^\s+(CAP_\w+),", kept, re.M)
    words = installed.unit("sandboxd.service").words("Service", "CapabilityBoundingSet")
    assert len(kept) > 10 and sorted(words) == sorted(kept)


def test_address_families_are_those_of_the_source(installed):
    allowed = set(installed.unit("sandboxd.service").words("Service", "RestrictAddressFamilies"))
    used = set()
    for path in glob.glob(SOURCE + "/daemon/*.c") + glob.glob(SOURCE + "/common/*.c"):
        used |= set(re.findall(r"\bsocket(?:pair)?\((AF_\w+)", read(path)))
    assert "AF_UNIX" in used and used <= allowed


def test_what_cannot_be_had_is_still_needed():
    """Options that the unit names as impossible: when these go, the options can come."""
    assert "SYS_clone3" in source("daemon/share.c")         # RestrictNamespaces=
    assert "SYS_openat2" in source("daemon/workspace.c")    # RestrictSUIDSGID=
    assert "ACCEL_TCG" in source("daemon/accel.c")          # MemoryDenyWriteExecute=


def test_links_are_made_in_the_hosts_network(installed):
    service = installed.unit("sandboxd.service")
    assert ("Service", "PrivateNetwork") not in service.values
    assert "/dev/net/tun rwm" in service.values[("Service", "DeviceAllow")]
    assert "<interface" in source("daemon/domxml.c")


# --- users, directories, catalog ---

def entries(root, name):
    path = os.path.join(root, "etc", name)
    return {line.split(":")[0]: line.split(":") for line in read(path).splitlines()}


def with_conf(installed, root, kind):
    folder = os.path.join(root, f"usr/lib/{kind}.d")
    os.makedirs(folder)
    os.makedirs(root + "/etc", exist_ok=True)
    shutil.copy(os.path.join(installed.tree, f"lib/{kind}.d/sandboxd.conf"), folder)


def test_users_and_groups_are_made_once(installed):
    need("systemd-sysusers")
    with temporary() as root:
        with_conf(installed, root, "sysusers")
        for _ in range(2):
            ok("systemd-sysusers", "--root=" + root)
            groups, users = entries(root, "group"), entries(root, "passwd")
            assert set(groups) == {"sandbox", "kvm", "libvirt-qemu"} and set(users) == {"libvirt-qemu"}
            qemu = users["libvirt-qemu"]
            assert qemu[2] == "64055" and qemu[3] == groups["kvm"][2]
            assert qemu[5:] == ["/var/lib/libvirt", "/usr/sbin/nologin"]
            assert groups["sandbox"][3] == ""       # nobody is in it unasked


def test_accounts_that_are_there_stay_as_they_are(installed):
    need("systemd-sysusers")
    with temporary() as root:
        with_conf(installed, root, "sysusers")
        with open(root + "/etc/passwd", "w") as f:
            f.write("someone:x:64055:64055::/:/bin/sh\n")
        with open(root + "/etc/group", "w") as f:
            f.write("someone:x:64055:\nsandbox:x:1234:someone\n")
        ok("systemd-sysusers", "--root=" + root)
        groups, users = entries(root, "group"), entries(root, "passwd")
        assert groups["sandbox"][2:] == ["1234", "someone"]
        assert users["someone"][2] == "64055" and users["libvirt-qemu"][2] != "64055"


def test_directories_are_made_and_kept(installed):
    need("systemd-tmpfiles")
    with temporary() as root:
        with_conf(installed, root, "tmpfiles")
        ok("systemd-tmpfiles", "--create", "--root=" + root, "sandboxd.conf")
        for path in ("/run/sandboxd", "/var/lib/sandboxd"):
            st = os.stat(root + path)
            assert (st.st_mode & 0o7777, st.st_uid, st.st_gid) == (0o711, 0, 0)
        with open(root + "/var/lib/sandboxd/sandboxd.db", "w"):
            pass
        os.chmod(root + "/var/lib/sandboxd", 0o777)
        ok("systemd-tmpfiles", "--create", "--clean", "--remove", "--root=" + root, "sandboxd.conf")
        assert os.listdir(root + "/var/lib/sandboxd") == ["sandboxd.db"]
        assert os.stat(root + "/var/lib/sandboxd").st_mode & 0o7777 == 0o711


def message_ids():
    """Constants of 32 hex digits that are handed to the log as a record's event."""
    ids, used, defined = set(), set(), {}
    for path in glob.glob(SOURCE + "/daemon/*.[ch]"):
        text = read(path)
        defined.update(re.findall(r'#define (\w+) "([0-9a-f]{32})"', text))
        used |= set(re.findall(r"\.event = (\w+)", text))
    for name in used:
        ids.add(defined[name])
    assert used and used == set(defined)
    return ids


def test_the_catalog_explains_each_message(installed):
    text = read(installed.tree, "lib/systemd/catalog/sandboxd.catalog")
    assert sorted(re.findall(r"^-- ([0-9a-f]{32})$", text, re.M)) == sorted(message_ids())
    fields = set(re.findall(r"@(\w+)@", text))
    assert fields and all(f'"{f}"' in source("common/log.c") for f in fields)


def test_the_catalog_compiles(installed):
    need("journalctl")
    with temporary() as root:
        os.makedirs(root + "/usr/lib/systemd/catalog")
        os.makedirs(root + "/var/lib/systemd/catalog")
        shutil.copy(installed.tree + "/lib/systemd/catalog/sandboxd.catalog", root + "/usr/lib/systemd/catalog")
        r = run("journalctl", "--update-catalog", "--root=" + root)
        assert r.returncode == 0 and not r.stderr, r.stderr
        listed = ok("journalctl", "--list-catalog", "--root=" + root)
        assert {line.split()[0] for line in listed.splitlines()} == message_ids()
        assert all(line.split(" ", 1)[1].startswith("sandboxd: ") for line in listed.splitlines())


# --- configuration ---

def test_the_example_holds_every_key_with_its_default():
    keys, defaults = config_defaults()
    example = json.loads(source("packaging/daemon.json.example"))
    assert list(example) == keys            # in the order of the table, too
    assert example == defaults


def test_the_daemon_takes_the_example(installed):
    """Without root it reads its configuration, and stops right after."""
    daemon = installed.tree + "/sbin/sandboxd"
    example = os.path.join(installed.tree, EXAMPLES, "daemon.json")

    def start(path):
        return run(daemon, "--config", path, user=65534, group=65534, extra_groups=[])
    r = start(example)
    assert r.returncode == 1 and "started as root" in r.stderr, r.stderr
    with temporary() as d:
        with open(d + "/bad.json", "w") as f:
            f.write(read(example).replace('"console"', '"konsole"'))
        r = start(d + "/bad.json")
        assert r.returncode == 1 and "konsole" in r.stderr and "started as root" not in r.stderr


# --- packages ---

def stanzas():
    out = {}
    for part in source("packaging/debian/control").split("\n\n"):
        fields = dict(re.findall(r"^([A-Z][\w-]*):((?:.*\n?)(?:[ \t].*\n?)*)", part, re.M))
        if fields:
            out[fields.get("Package", "source").strip()] = fields
    return out


def names(field):
    """Names of packages in a field; of alternatives all."""
    return {re.sub(r"[(:].*", "", p).strip() for p in re.split(r"[,|\n]", field)
            if p.strip() and not p.strip().startswith("$")}


def install_deps(group):
    text = re.search(rf'^{group}="(.*?)"', source("scripts/install-deps"), re.M | re.S).group(1)
    return set(text.split())


def test_packages_ask_for_what_the_scripts_install():
    part = stanzas()
    assert set(part) == {"source", "sandboxd", "sbx"}
    compiler = {"gcc", "libc6-dev", "ninja-build"}          # every build has it, or meson brings it
    assert names(part["source"]["Build-Depends"]) - {"debhelper-compat", "dh-sequence-installsysusers"} \
        == install_deps("build") - compiler
    assert names(part["sandboxd"]["Depends"]) == (install_deps("run") - {"openssh-client"}) | {"qemu-system-common"}
    assert names(part["sbx"]["Recommends"]) == {"openssh-client"}


def test_every_installed_file_is_in_one_package(installed):
    lists = {p: source(f"packaging/debian/{p}.install").split() for p in ("sandboxd", "sbx")}
    # pages of these sections are sandboxd's by debian/rules
    assert "man5" in source("packaging/debian/rules") and "man8" in source("packaging/debian/rules")
    lists["sandboxd"] += ["usr/share/man/man5", "usr/share/man/man8"]
    for name in installed.files():
        path = "usr/" + name
        owners = [p for p, tops in lists.items() for t in tops if path == t or path.startswith(t + "/")]
        assert len(owners) == 1, (path, owners)


def test_versions_agree():
    version = re.search(r"version: '([^']+)'", source("meson.build")).group(1)
    assert re.match(r"sandboxd \(([^-]+)-", source("packaging/debian/changelog")).group(1) == version
    assert version in ok(BUILD + "/daemon/sandboxd", "--version")


def test_maintainer_scripts_are_shell():
    for script in glob.glob(SOURCE + "/packaging/debian/*.p[or]*"):
        subprocess.run(["sh", "-n", script], check=True, timeout=10)
    assert os.access(SOURCE + "/packaging/debian/rules", os.X_OK)


def test_the_recipe_is_what_debians_tools_expect():
    need("dpkg-parsechangelog")
    ok("dpkg-parsechangelog", "-l", SOURCE + "/packaging/debian/changelog")
    terms = source("LICENSE").split("\n\n", 2)[2].split()
    stated = source("packaging/debian/copyright").replace("\n .\n", "\n").split()
    assert stated[-len(terms):] == terms
