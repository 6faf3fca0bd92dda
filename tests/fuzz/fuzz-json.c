/* SPDX-License-Identifier: MIT
 *
 * The first byte chooses a table of the API ('a' is the first), the rest is JSON text. What can be
 * decoded must encode to text that decodes to the same again.
 */
#include "tests/fuzz/fuzz.h"
#include "common/api.h"
#include "common/auto.h"
#include "common/name.h"

#include <string.h>

#define TABLES(X)                                                                               \
    X(api_create_req) X(api_sandbox) X(api_sandbox_list) X(api_exec_req) X(api_exec)            \
    X(api_exec_list) X(api_resize_req) X(api_signal_req) X(api_run_req) X(api_run) X(api_image) \
    X(api_image_list) X(api_version) X(api_info) X(api_error)

static const struct {
    const struct jfield *table;
    size_t size;
} tables[] = {
#define ROW(name) { name##_table, sizeof(struct name) },
    TABLES(ROW)
#undef ROW
};

static void check_error(const struct err *e)
{
    REQUIRE(e->code == ERR_JSON || e->code == ERR_FIELD_UNKNOWN || e->code == ERR_FIELD_MISSING ||
            e->code == ERR_FIELD_INVALID);
    REQUIRE(e->msg[0] != '\0' && memchr(e->msg, '\0', sizeof(e->msg)));
    REQUIRE(memchr(e->hint, '\0', sizeof(e->hint)));
    for (size_t i = 0; e->msg[i]; i += utf8_step_plain(e->msg + i, strlen(e->msg + i)))
        REQUIRE(utf8_step_plain(e->msg + i, strlen(e->msg + i)) > 0);
}

static void round_trip(size_t which, const char *text, size_t len, bool lenient)
{
    const struct jfield *table = tables[which].table;
    size_t size = tables[which].size;
    autofree void *a = calloc(1, size);
    autofree void *b = calloc(1, size);
    autosbuf struct sbuf first = SBUF(64u << 20), second = SBUF(64u << 20);
    struct err e = ERR_INIT;

    REQUIRE(a && b);
    if ((lenient ? json_decode_lenient : json_decode)(table, text, len, a, &e) < 0) {
        check_error(&e);
        json_done(table, a, size);  /* of a failed decode: nothing to free */
        return;
    }
    REQUIRE(e.code == ERR_NONE);
    REQUIRE(json_encode(table, a, &first, &e) == 0);
    REQUIRE(json_decode(table, sbuf_str(&first), first.len, b, &e) == 0);
    REQUIRE(json_encode(table, b, &second, &e) == 0);
    REQUIRE(first.len == second.len && memcmp(first.data, second.data, first.len) == 0);
    json_done(table, a, size);
    json_done(table, b, size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t which;

    if (size < 1)
        return 0;
    which = (size_t)(uint8_t)(data[0] - 'a') % ARRAY_SIZE(tables);
    round_trip(which, (const char *)data + 1, size - 1, false);
    round_trip(which, (const char *)data + 1, size - 1, true);
    return 0;
}
