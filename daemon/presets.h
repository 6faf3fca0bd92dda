/* SPDX-License-Identifier: MIT
 *
 * presets: the policies that everybody has. Each is a text in the form of a policy file, with the
 * reason of every entry; docs/POLICY.md repeats them. No state, any thread.
 */
#pragma once

#include <stddef.h>

struct preset {
    const char *name;
    const char *description;    /* one line */
    const char *text;
};

/* NULL: there is none of that name. */
const struct preset *preset_find(const char *name);
/* All of them; *ret_n: how many. */
const struct preset *preset_all(size_t *ret_n);
