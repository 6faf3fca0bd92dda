/* SPDX-License-Identifier: MIT
 *
 * store_image: rows of images.
 */
#include "common/auto.h"
#include "daemon/store_internal.h"

#include <stdlib.h>
#include <string.h>

void image_row_done(struct image_row *r)
{
    free(r->name);
    free(r->variant);
    free(r->os);
    free(r->kernel);
    free(r->recipe);
    memset(r, 0, sizeof(*r));
}

static int insert_row(struct store *st, const struct image_row *r, struct err *e)
{
    autostmt sqlite3_stmt *forget = st->stmt[ST_IMAGE_FORGET_NAME];
    autostmt sqlite3_stmt *s = st->stmt[ST_IMAGE_INSERT];

    bind_text(forget, 1, r->name);
    if (store_step_done(st, forget, e, "image name") < 0)
        return -1;
    bind_text(s, 1, r->digest);
    bind_text(s, 2, r->name);
    bind_text(s, 3, r->variant);
    bind_text(s, 4, r->os);
    bind_text(s, 5, r->kernel);
    bind_text(s, 6, r->recipe);
    bind_int(s, 7, (int64_t)r->size);
    bind_int(s, 8, (int64_t)r->root_size);
    bind_int(s, 9, r->created_at);
    return store_step_done(st, s, e, "insert image");
}

int store_image_insert(struct store *st, const struct image_row *r, struct err *e)
{
    store_lock(st);

    if (store_begin(st, e, "insert image") < 0)
        return -1;
    return store_finish(st, insert_row(st, r, e), e, "insert image");
}

static int read_row(sqlite3_stmt *s, struct image_row *r, struct err *e)
{
    if (column_id(s, 0, r->digest, sizeof(r->digest), e) < 0 ||
        column_text(s, 1, &r->name, e) < 0 || column_text(s, 2, &r->variant, e) < 0 ||
        column_text(s, 3, &r->os, e) < 0 || column_text(s, 4, &r->kernel, e) < 0 ||
        column_text(s, 5, &r->recipe, e) < 0)
        return -1;
    r->size = (uint64_t)sqlite3_column_int64(s, 6);
    r->root_size = (uint64_t)sqlite3_column_int64(s, 7);
    r->created_at = sqlite3_column_int64(s, 8);
    r->sandboxes = (uint32_t)sqlite3_column_int64(s, 9);
    return 0;
}

int store_image_list(struct store *st, struct image_row **ret, size_t *ret_n, struct err *e)
{
    store_lock(st);
    autostmt sqlite3_stmt *s = st->stmt[ST_IMAGE_LIST];
    void *rows = NULL;
    size_t n = 0, cap = 0;
    int r;

    while ((r = store_step_row(st, s, e, "list images")) == 1) {
        struct image_row *row = rows_grow(&rows, n, &cap, sizeof(*row), e);
        if (!row || (n++, read_row(s, row, e)) < 0) {
            r = -1;
            break;
        }
    }
    if (r < 0) {
        for (size_t i = 0; i < n; i++)
            image_row_done((struct image_row *)rows + i);
        free(rows);
        return -1;
    }
    *ret = rows;
    *ret_n = n;
    return 0;
}

int store_image_delete(struct store *st, const char *digest, struct err *e)
{
    store_lock(st);
    autostmt sqlite3_stmt *s = st->stmt[ST_IMAGE_DELETE];

    bind_text(s, 1, digest);
    if (sqlite3_step(s) != SQLITE_DONE) {
        if (sqlite3_extended_errcode(st->db) != SQLITE_CONSTRAINT_FOREIGNKEY &&
            sqlite3_extended_errcode(st->db) != SQLITE_CONSTRAINT_TRIGGER)
            return store_error(st, e, "remove image");
        err_set(e, ERR_IMAGE_IN_USE, "the image is in use by a sandbox");
        return err_hint(e, "`sbx ls` names the sandboxes and their images: remove those first");
    }
    if (sqlite3_changes(st->db) == 0)
        return err_set(e, ERR_IMAGE_NOT_FOUND, "no image %s", digest);
    return 0;
}
