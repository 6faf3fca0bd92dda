-- What happened, for a while: the oldest rows go. AUTOINCREMENT gives no number twice, also when no
-- row is left, and takes back those of a transaction that fails, so that there is no gap either.
-- uid NULL: about the daemon itself.
CREATE TABLE event (
    seq     INTEGER PRIMARY KEY AUTOINCREMENT,
    time    INTEGER NOT NULL,
    kind    TEXT NOT NULL,
    uid     INTEGER,
    sandbox TEXT,
    name    TEXT,
    exec    TEXT,
    detail  TEXT,
    count   INTEGER NOT NULL
) STRICT;
CREATE INDEX event_sandbox ON event(sandbox);
