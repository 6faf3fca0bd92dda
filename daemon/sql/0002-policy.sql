-- What each sandbox may reach: base is the preset or policy it began with ("rules" for a file), rule
-- the rules themselves, copied, so that a later change of what they came from changes no sandbox.
-- Sandboxes from before had no network, and have none now.
ALTER TABLE vm ADD COLUMN policy TEXT NOT NULL DEFAULT 'none';
CREATE TABLE rule (
    vm       TEXT NOT NULL REFERENCES vm(id) ON DELETE CASCADE,
    seq      INTEGER NOT NULL,
    allow    INTEGER NOT NULL,
    target   TEXT NOT NULL,
    source   TEXT NOT NULL,
    uid      INTEGER NOT NULL,
    added_at INTEGER NOT NULL,
    matches  INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (vm, seq)
) STRICT, WITHOUT ROWID;
CREATE TABLE policy (
    uid        INTEGER NOT NULL,
    name       TEXT NOT NULL,
    rules      TEXT NOT NULL,
    changed_at INTEGER NOT NULL,
    PRIMARY KEY (uid, name)
) STRICT, WITHOUT ROWID;
-- What the daemon has chosen by itself and has to keep.
CREATE TABLE choice (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
