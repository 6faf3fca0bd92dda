/* SPDX-License-Identifier: MIT
 *
 * What /v1 says about what happens, and its figures; the structs are in api.h.
 */
#include "common/api.h"

static const struct jfield event_owner_table[] = {
    JF(struct api_event_owner, uid, JT_U32, .flags = JF_REQUIRED),
    JF_END,
};

const struct jfield api_event_table[] = {
    JF(struct api_event, seq, JT_U64, .flags = JF_REQUIRED),
    JF(struct api_event, time, JT_TIME),
    JF(struct api_event, kind, JT_STR, .flags = JF_REQUIRED),
    JF(struct api_event, owner, JT_OBJ, .flags = JF_OPT, .table = event_owner_table),
    JF(struct api_event, sandbox, JT_STR),
    JF(struct api_event, name, JT_STR),
    JF(struct api_event, exec, JT_STR),
    JF(struct api_event, detail, JT_STR),
    JF(struct api_event, count, JT_U64, .def = 1),
    JF_END,
};
