/* SPDX-License-Identifier: MIT
 *
 * store_steps: the schema steps that scripts/embed-sql makes of daemon/sql/. Step n brings
 * user_version from n-1 to n.
 */
#pragma once

struct store_step {
    const char *name;
    const char *sql;
};
extern const struct store_step store_steps[];
extern const unsigned store_steps_n;
