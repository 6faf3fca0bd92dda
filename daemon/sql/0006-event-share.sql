-- What goes first is the oldest of whoever has most, so there are holes between the rows. event_gone:
-- up to which number a user's are gone; uid -1 the daemon's own, -2 everybody's.
CREATE INDEX event_uid ON event(uid, seq);
CREATE TABLE event_gone (
    uid INTEGER PRIMARY KEY,
    seq INTEGER NOT NULL
) STRICT;
INSERT INTO event_gone(uid, seq) SELECT -2, coalesce((SELECT min(seq) - 1 FROM event),
    (SELECT seq FROM sqlite_sequence WHERE name = 'event'), 0);
