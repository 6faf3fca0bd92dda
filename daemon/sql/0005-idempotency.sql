-- Answers kept under a key, with what age and amount are told by in front of the body, which may be
-- long, and in indexes. size: of the body. The newest rows of each user stay, as many as there may be
-- from now on (LIMIT_KEYS); a rowid tells which is the newest.
CREATE TABLE idempotency_new (
    uid          INTEGER NOT NULL,
    key          TEXT NOT NULL,
    request_hash TEXT NOT NULL,
    status       INTEGER NOT NULL,
    created_at   INTEGER NOT NULL,
    size         INTEGER NOT NULL,
    body         TEXT NOT NULL,
    PRIMARY KEY (uid, key)
) STRICT;
INSERT INTO idempotency_new(uid, key, request_hash, status, created_at, size, body)
    SELECT uid, key, request_hash, status, created_at, length(CAST(body AS BLOB)), body
    FROM (SELECT *, row_number() OVER (PARTITION BY uid ORDER BY created_at DESC) AS n
          FROM idempotency) WHERE n <= 1000 ORDER BY created_at;
DROP TABLE idempotency;
ALTER TABLE idempotency_new RENAME TO idempotency;
CREATE INDEX idempotency_age ON idempotency(created_at);
CREATE INDEX idempotency_share ON idempotency(uid, size, status);
