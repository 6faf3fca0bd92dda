#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Rules of the project that a program can check. Speaks TAP: one test per rule, each breach a
comment under it. Run by the test suite, or by hand: tests/lint/lint.py [ROOT].

SBX_LINT_FORBIDDEN, a regular expression, adds to what no file may contain."""

import fnmatch
import os
import re
import subprocess
import sys

PRODUCT = ("common", "client", "daemon", "guest", "resolver")
MAX_LINES = 800
MAX_COLUMNS = 100

# Who may include whom, by folder.
DIRECTIONS = {
    "common": {"common"},
    "client": {"common", "client"},
    "daemon": {"common", "daemon"},
    "guest": {"common", "guest"},
    "resolver": {"common", "resolver"},
    "tests": {"common", "client", "daemon", "guest", "resolver", "tests"},
}

# One place per outside library: header (a prefix) and the files that may include it.
LIBRARIES = {
    "jansson.h": ("common/jfield.c", "common/jfield_encode.c"),
    "libvirt/": ("daemon/virt.c", "daemon/virt_*.c"),
    "sqlite3.h": ("daemon/store*.c", "daemon/store_internal.h"),
    "microhttpd.h": ("daemon/http*.c", "daemon/upgrade.c"),
    "curl/": ("client/api_client.c", "client/transport.c", "client/upgrade.c"),
    "seccomp.h": ("daemon/share_filter.c", "resolver/jail.c"),
    "ldns/": ("resolver/dns*.c",),
    "archive": ("daemon/image*.c",),
    "lz4": ("daemon/image_*.c",),
    "zstd.h": ("daemon/image_*.c",),
    "nettle/": ("daemon/digest.c", "daemon/image*.c", "daemon/idem.c"),
    "systemd/": ("daemon/notify.c",),
}

# Inside the daemon news travels up by posted events: these never include those.
LEAVES = ("store*", "virt*", "evloop", "domxml", "accel", "ring", "share*", "strays", "workspace", "image_*",
          "digest", "audit", "audit_read", "audit_verify", "audit_priv")
ABOVE = {"vm", "vm_priv", "exec", "exec_priv", "http", "routes", "daemon", "upgrade"}

# Function: what to use instead. For the product; tests keep to the second list.
BANNED = {
    "strcpy": "sbuf or memcpy", "stpcpy": "sbuf or memcpy", "strcat": "sbuf", "strncpy": "memcpy",
    "strncat": "sbuf", "sprintf": "sbuf or snprintf", "vsprintf": "sbuf", "gets": "read",
    "strtol": "parse_u64", "strtoul": "parse_u64", "strtoll": "parse_u64", "strtoull": "parse_u64",
    "strtod": "parse_size", "atoi": "parse_u64", "atol": "parse_u64", "atoll": "parse_u64",
    "atof": "parse_size", "sscanf": "parse_*", "scanf": "parse_*", "fscanf": "parse_*",
    "system": "proc_run", "popen": "proc_run", "execlp": "proc_spawn", "execvp": "proc_spawn",
    "execvpe": "proc_spawn", "posix_spawnp": "proc_spawn", "alloca": "an array with a limit",
    "strdupa": "strdup", "tmpnam": "mkdtemp", "tempnam": "mkdtemp", "mktemp": "mkdtemp",
    "strtok": "strcspn", "gmtime": "gmtime_r", "localtime": "localtime_r", "ctime": "format_time",
    "asctime": "format_time", "strerror": "err_sys", "perror": "err_sys", "rand": "getrandom",
    "random": "getrandom", "srand": "getrandom", "sleep": "a wait for an event",
    "usleep": "a wait for an event", "getpwnam": "getpwnam_r", "getpwuid": "getpwuid_r",
    "getgrnam": "getgrnam_r", "getgrgid": "getgrgid_r", "getlogin": "the caller's uid",
    "select": "poll", "dup": "fcntl with F_DUPFD_CLOEXEC", "longjmp": "a return",
    "readdir_r": "readdir", "vfork": "proc_spawn", "assert": "an error, or static_assert",
}
BANNED_IN_TESTS = {"strcpy", "strcat", "gets", "system", "popen", "alloca", "tmpnam", "mktemp",
                   "tempnam"}
# Where a function may be used after all, with the reason.
ALLOWED = {
    ("common/err.c", "strerror"),           # where there is no strerrordesc_np()
    ("client/*", "getpwuid"),               # one thread
    ("client/*", "getpwnam"),
    ("guest/*", "getpwnam"),                # reads the guest's files, one thread
    ("guest/*", "strerror"),                # one thread
    ("client/*", "strerror"),
    ("common/log.c", "sscanf"),             # systemd's device:inode, which is compared then
    ("daemon/share.c", "sscanf"),           # lines of the kernel's /proc
    ("guest/group.c", "sscanf"),
    ("common/jfield.c", "longjmp"),         # out of jansson, which does not survive a lack of memory
    ("daemon/virt.c", "usleep"),            # libvirt's poll failed: there is no event to await
}

BAD_NAMES = re.compile(r"^(utils?|misc|helpers?|stuff|common)\.[a-z]+$")


def files_of(root):
    """What belongs to the project: known to git where there is one, else all but builds."""
    try:
        out = subprocess.run(["git", "-C", root, "ls-files", "-co", "--exclude-standard", "-z"],
                             check=True, capture_output=True).stdout.decode()
        names = [n for n in out.split("\0") if n]
    except (OSError, subprocess.CalledProcessError):
        names = []
        for base, dirs, found in os.walk(root):
            dirs[:] = [d for d in dirs if not d.startswith((".git", "build"))
                       and d != "__pycache__"]
            names += [os.path.relpath(os.path.join(base, f), root) for f in found]
    return sorted(n for n in names if os.path.isfile(os.path.join(root, n)))


def blank_comments_and_strings(text):
    """The code alone, with line numbers and columns kept."""
    pattern = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)
    return pattern.sub(lambda m: re.sub(r"[^\n]", " ", m.group(0)), text)


class Project:
    def __init__(self, root):
        self.root = root
        self.names = files_of(root)
        self.text = {}
        for name in self.names:
            with open(os.path.join(root, name), "rb") as f:
                data = f.read()
            if b"\0" not in data:
                self.text[name] = data.decode("utf-8", "surrogateescape")
        self.c = [n for n in self.text if n.endswith((".c", ".h"))]
        self.code = {n: blank_comments_and_strings(self.text[n]) for n in self.c}

    def product(self):
        return [n for n in self.c if n.split("/")[0] in PRODUCT]

    def includes(self, name):
        for number, line in enumerate(self.text[name].split("\n"), 1):
            m = re.match(r'\s*#\s*include\s*([<"])([^>"]+)[>"]', line)
            if m:
                yield number, m.group(1), m.group(2)


def matches(name, patterns):
    return any(fnmatch.fnmatch(name, p) for p in patterns)


def rule_include_directions(p):
    for name in p.c:
        top = name.split("/")[0]
        for number, form, target in p.includes(name):
            if form != '"':
                continue
            if "/" not in target:
                yield name, number, f'"{target}" is included without its folder'
            elif top in DIRECTIONS and target.split("/")[0] not in DIRECTIONS[top]:
                yield name, number, f'{top} may not include "{target}"'
            if top == "daemon" and target.startswith("daemon/"):
                stem, up = name[7:].rsplit(".", 1)[0], target[7:].rsplit(".", 1)[0]
                if matches(stem, LEAVES) and up in ABOVE:
                    yield name, number, f'{stem} is below {up} and may not include "{target}"'


def rule_one_place_per_library(p):
    for name in p.product():
        for number, form, target in p.includes(name):
            if form != "<":
                continue
            for prefix, places in LIBRARIES.items():
                if target.startswith(prefix) and not matches(name, places):
                    yield name, number, f"<{target}> belongs in {' '.join(places)}"


def rule_banned_functions(p):
    for name in p.c:
        banned = BANNED if name.split("/")[0] in PRODUCT else BANNED_IN_TESTS
        for m in re.finditer(r"(?<![\w.>])([a-z_]\w*)\s*\(", p.code[name]):
            function = m.group(1)
            if function not in banned:
                continue
            if any(function == f and fnmatch.fnmatch(name, where) for where, f in ALLOWED):
                continue
            line = p.code[name].count("\n", 0, m.start()) + 1
            yield name, line, f"{function}() is banned, use {BANNED[function]}"


def rule_file_length(p):
    for name, text in p.text.items():
        if name.endswith((".c", ".h", ".py", ".sh", ".sql")) or name.startswith("scripts/"):
            lines = text.count("\n")
            if lines > MAX_LINES:
                yield name, lines, f"{lines} lines, at most {MAX_LINES}: split it by topic"


def rule_file_names(p):
    for name in p.names:
        if BAD_NAMES.match(os.path.basename(name)):
            yield name, 1, "a file is named after its topic"


def rule_licence_line(p):
    for name, text in p.text.items():
        head = text.split("\n", 3)[:3]
        if name in p.c:
            if not head[0].startswith("/* SPDX-License-Identifier: MIT"):
                yield name, 1, "the first line is /* SPDX-License-Identifier: MIT"
        elif name.endswith((".py", ".sh")) or (name.startswith("scripts/")
                                               and text.startswith("#!")):
            if not any(h.startswith("# SPDX-License-Identifier: MIT") for h in head):
                yield name, 1, "one of the first lines is # SPDX-License-Identifier: MIT"


def rule_headers_open_with_a_comment(p):
    for name in p.c:
        if not name.endswith(".h"):
            continue
        comment = p.text[name].split("*/", 1)[0]
        words = re.findall(r"\w+", comment.split("\n", 1)[-1])
        if len(words) < 5:
            yield name, 1, "a header begins with what its module is for"
        if "#pragma once" not in p.code[name]:
            yield name, 1, "#pragma once is missing"


def rule_white_space(p):
    for name in p.text:
        is_c = name in p.c
        if not is_c and not name.endswith((".py", ".sh", ".build", ".sql", ".yaml", ".xml")):
            continue
        if name.startswith("tests/golden/"):
            continue
        text = p.text[name]
        if text and not text.endswith("\n"):
            yield name, text.count("\n") + 1, "no newline at the end"
        for number, line in enumerate(text.split("\n"), 1):
            if line != line.rstrip():
                yield name, number, "space at the end of the line"
            if is_c and "\t" in line:
                yield name, number, "tab"
            if is_c and len(line) > MAX_COLUMNS:
                yield name, number, f"{len(line)} columns, at most {MAX_COLUMNS}"


def rule_tables_are_tied(p):
    """A table indexed by an enum is held to its length."""
    start = re.compile(r"\b(\w+)\[\]\s*=\s*\{\s*(?:\n#define \w+\([^\n]*\)\s*)?\[\w+\]\s*=")
    for name in p.product():
        for m in start.finditer(p.code[name]):
            table = m.group(1)
            if not re.search(r"[sS]tatic_assert\([^;]*\b" + table + r"\b", p.code[name]):
                line = p.code[name].count("\n", 0, m.start()) + 1
                yield name, line, f"{table}[] is not tied to its enum by static_assert"


def rule_no_machine_paths(p):
    patterns = []
    root = os.path.abspath(p.root)
    for path in (root, os.path.expanduser("~")):
        if path.count("/") >= 2:
            patterns.append(r"(?<![\w.-])" + re.escape(path) + r"(?![\w-])")
    if os.environ.get("SBX_LINT_FORBIDDEN"):
        patterns.append(os.environ["SBX_LINT_FORBIDDEN"])
    if not patterns:
        return
    forbidden = re.compile("|".join(patterns))
    for name, text in p.text.items():
        for m in forbidden.finditer(text):
            yield name, text.count("\n", 0, m.start()) + 1, f"'{m.group(0)}' is of one machine"


def rule_links_lead_somewhere(p):
    """Relative links of the documentation."""
    for name, text in p.text.items():
        if not name.endswith(".md"):
            continue
        for m in re.finditer(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", text):
            path = os.path.join(p.root, os.path.dirname(name), m.group(1))
            if not os.path.exists(path):
                yield name, text.count("\n", 0, m.start()) + 1, f"{m.group(1)} does not exist"


RULES = [rule_include_directions, rule_one_place_per_library, rule_banned_functions,
         rule_file_length, rule_file_names, rule_licence_line, rule_headers_open_with_a_comment,
         rule_white_space, rule_tables_are_tied, rule_no_machine_paths, rule_links_lead_somewhere]


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    project = Project(sys.argv[1] if len(sys.argv) > 1 else os.path.dirname(os.path.dirname(here)))
    failed = False
    print(f"TAP version 13\n1..{len(RULES)}")
    for number, rule in enumerate(RULES, 1):
        breaches = sorted(rule(project))
        failed = failed or bool(breaches)
        print(f"{'not ' if breaches else ''}ok {number} - {rule.__name__[5:].replace('_', ' ')}")
        for name, line, text in breaches:
            breach = f"{name}:{line}: {text}".encode("utf-8", "replace").decode()
            print(f"# {breach}")
            print(breach, file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
