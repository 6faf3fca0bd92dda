/* SPDX-License-Identifier: MIT
 *
 * cgroup_cmd: `sandboxd cgroup`: what sandboxd-guests.service runs. A service manager takes a
 * control group away as soon as no process is in it, so one has to be: it waits below it, in a
 * group of its own, as controllers can be given on only where no process is. argv[0] is "cgroup".
 * Returns the exit status; prints errors itself.
 */
#pragma once

int cgroup_cmd(int argc, char **argv);
