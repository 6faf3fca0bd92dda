-- One row per sandbox, image, exec. Times are microseconds since the epoch, UTC; vectors are blobs:
-- each string followed by a NUL. Ids are 16 hex digits.
CREATE TABLE image (
    digest     TEXT PRIMARY KEY,
    name       TEXT UNIQUE,
    variant    TEXT NOT NULL,
    os         TEXT NOT NULL,
    kernel     TEXT NOT NULL,
    recipe     TEXT NOT NULL,
    size       INTEGER NOT NULL,
    root_size  INTEGER NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;
CREATE TABLE vm (
    id           TEXT PRIMARY KEY CHECK (length(id) = 16),
    name         TEXT NOT NULL,
    uid          INTEGER NOT NULL,
    gid          INTEGER NOT NULL,
    groups       TEXT NOT NULL,
    state        INTEGER NOT NULL,
    reason       TEXT,
    slot         INTEGER NOT NULL UNIQUE,
    image_name   TEXT NOT NULL,
    image_digest TEXT NOT NULL REFERENCES image(digest) ON DELETE RESTRICT,
    workspace    TEXT,
    workspace_ro INTEGER NOT NULL,
    cpus         INTEGER NOT NULL,
    memory       INTEGER NOT NULL,
    disk         INTEGER NOT NULL,
    env          BLOB NOT NULL,
    labels       BLOB NOT NULL,
    machine      TEXT NOT NULL,
    accel        TEXT,
    created_at   INTEGER NOT NULL,
    started_at   INTEGER NOT NULL DEFAULT 0,
    stopped_at   INTEGER NOT NULL DEFAULT 0,
    share_pid    INTEGER NOT NULL DEFAULT 0,
    share_start  INTEGER NOT NULL DEFAULT 0,
    UNIQUE (uid, name)
) STRICT;
CREATE INDEX vm_image ON vm(image_digest);
CREATE TABLE exec (
    id         TEXT PRIMARY KEY CHECK (length(id) = 16),
    vm         TEXT NOT NULL REFERENCES vm(id) ON DELETE CASCADE,
    stream     INTEGER NOT NULL,
    command    BLOB NOT NULL,
    user       TEXT NOT NULL,
    workdir    TEXT NOT NULL,
    tty        INTEGER NOT NULL,
    stdin_open INTEGER NOT NULL,
    detach     INTEGER NOT NULL,
    pid        INTEGER NOT NULL,
    state      INTEGER NOT NULL,
    how        INTEGER NOT NULL,
    value      INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    ended_at   INTEGER NOT NULL
) STRICT;
CREATE INDEX exec_vm ON exec(vm, created_at);
CREATE TABLE idempotency (
    uid          INTEGER NOT NULL,
    key          TEXT NOT NULL,
    request_hash TEXT NOT NULL,
    status       INTEGER NOT NULL,
    body         TEXT NOT NULL,
    created_at   INTEGER NOT NULL,
    PRIMARY KEY (uid, key)
) STRICT;
