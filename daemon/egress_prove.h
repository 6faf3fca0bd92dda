/* SPDX-License-Identifier: MIT
 *
 * egress_prove: `sbx policy prove`: what a guest can try, made of its policy, what came of each,
 * and whether that is what the policy says. Names first; then addresses, also those that names led
 * to.
 *
 * The guest tells what it saw, and its root can make it say anything. So what was refused has a
 * witness on our side as well: no packet of it may be among those that the filter let through
 * meanwhile, and of what is allowed there has to be one.
 */
#pragma once

#include "daemon/egress.h"

struct proof;

#define PROOF_ROUNDS 2
#define PROOF_ROUND_MS 60000
#define PROOF_OUTPUT (512 * 1024)

/* ERR_SANDBOX_STATE without a link. One at a time for each sandbox (ERR_SANDBOX_BUSY). */
int proof_new(struct egress *g, const char *id, struct proof **ret, struct err *e);
void proof_free(struct proof *p);       /* NULL is fine */
/* What `sbx-agent probe` is to read in this round; NULL for nothing. Borrowed until the next
 * call. */
const char *proof_ask(struct proof *p, int round);
/* What it wrote. Lines that are not answers to questions of ours are passed over. */
void proof_take(struct proof *p, const char *output);
int proof_finish(struct proof *p, struct api_policy_proof *ret, struct err *e);
