-- How long a sandbox may run and what follows its end. ttl_ms and idle_ms: 0 none. stop_at: when its
-- time is up in this run, milliseconds of CLOCK_BOOTTIME in the boot of the host that stop_boot
-- names, so that a clock that is set moves nobody's end. idle_spent: milliseconds it had been idle when that was written last.
-- restart: 0 no, 1 on failure (restart_max times, 0 without end), 2 always. restarts: so often since
-- somebody started it. retry: it ended by itself and is to start again.
ALTER TABLE vm ADD COLUMN ttl_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE vm ADD COLUMN idle_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE vm ADD COLUMN stop_at INTEGER NOT NULL DEFAULT 0;
ALTER TABLE vm ADD COLUMN stop_boot TEXT NOT NULL DEFAULT '';
ALTER TABLE vm ADD COLUMN idle_spent INTEGER NOT NULL DEFAULT 0;
ALTER TABLE vm ADD COLUMN restart INTEGER NOT NULL DEFAULT 0;
ALTER TABLE vm ADD COLUMN restart_max INTEGER NOT NULL DEFAULT 0;
ALTER TABLE vm ADD COLUMN restarts INTEGER NOT NULL DEFAULT 0;
ALTER TABLE vm ADD COLUMN retry INTEGER NOT NULL DEFAULT 0;
