-- What several hiveminds share (docs/several.md). A hivemind without a name uses none of it: it leaves the tables empty
-- and the triggers off.

CREATE TABLE spns_members (
  name VARCHAR PRIMARY KEY,
  generation BIGINT NOT NULL,        -- part of its routing ids
  run BIGINT NOT NULL,               -- random; differs from one run of its process to the next
  state VARCHAR NOT NULL CHECK (state IN ('starting', 'ready', 'leaving', 'stopped')),
  address VARCHAR NOT NULL,
  push_address VARCHAR NOT NULL,
  version VARCHAR NOT NULL,
  key_fingerprint BYTEA NOT NULL,
  copies INT NOT NULL,
  started TIMESTAMPTZ NOT NULL,
  seen TIMESTAMPTZ NOT NULL,         -- its last heartbeat
  covers BYTEA NOT NULL,             -- 32 bytes, a bit for each slot that it covers
  position PG_SNAPSHOT               -- up to where it has read changes; null: none are kept for it, so it must load
) WITH (fillfactor = 50);            -- updated every second: leave room for the next version of a row in its page

-- Which subscriptions were changed, by anybody: written by the triggers below, in the same transaction.
CREATE TABLE spns_changes (
  xid XID8 NOT NULL DEFAULT pg_current_xact_id(),
  origin BIGINT,                     -- the hivemind's connection that changed it; null for anybody else
  slot SMALLINT,                     -- 0 to 255; null: the table was truncated
  id BIGINT,                         -- of a subscription that was added or updated
  account BYTEA,                     -- of one that was deleted, with service and svcid
  service VARCHAR,
  svcid VARCHAR
);

CREATE INDEX spns_changes_xid ON spns_changes (xid);

-- The slot of an account (docs/decisions/18); null if it is not a valid account.
CREATE FUNCTION spns_slot(account BYTEA) RETURNS SMALLINT LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT CASE WHEN length(account) = 33
    THEN (get_byte(account, 1) # get_byte(account, 9) # get_byte(account, 17) # get_byte(account, 25))::smallint END
$$;

-- Both functions use this schema, whatever the search path of the session that changes a subscription.
DO $do$
BEGIN
  -- Deletes changes that all members have read, and returns whether there may be more. One session at a time does this.
  -- Members that have not been seen for an hour do not count.
  EXECUTE format($sql$
    CREATE FUNCTION spns_trim(now TIMESTAMPTZ) RETURNS BOOLEAN LANGUAGE plpgsql
    SET search_path = pg_catalog, %I, pg_temp AS $$
    DECLARE
      gone INT;
    BEGIN
      IF NOT pg_try_advisory_xact_lock(1397771859, 3) THEN
        RETURN false;
      END IF;
      -- If the clock has been set back, members seem to have been seen in the future.
      UPDATE spns_members SET seen = now WHERE seen > now + INTERVAL '5 seconds';
      UPDATE spns_members SET position = NULL WHERE position IS NOT NULL AND seen < now - INTERVAL '1 hour';
      DELETE FROM spns_changes WHERE ctid = ANY (ARRAY (
        SELECT ctid FROM spns_changes c
        WHERE xid < coalesce(
            (SELECT pg_snapshot_xmax(position) FROM spns_members WHERE position IS NOT NULL ORDER BY 1 LIMIT 1),
            pg_snapshot_xmax(pg_current_snapshot()))
          AND NOT EXISTS (
            SELECT FROM spns_members WHERE position IS NOT NULL AND NOT pg_visible_in_snapshot(c.xid, position))
        ORDER BY xid LIMIT 5000));
      GET DIAGNOSTICS gone = ROW_COUNT;
      RETURN gone = 5000;
    END $$ $sql$, current_schema());

  EXECUTE format($sql$
    CREATE FUNCTION spns_changed() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, %I, pg_temp AS $$
    DECLARE
      origin BIGINT := nullif(current_setting('spns.origin', true), '')::bigint;
      now TIMESTAMPTZ;
    BEGIN
      IF TG_OP = 'TRUNCATE' THEN
        INSERT INTO spns_changes (origin) VALUES (origin);
        RETURN NULL;
      END IF;
      IF TG_OP <> 'DELETE' THEN
        INSERT INTO spns_changes (origin, slot, id)
        SELECT origin, spns_slot(account), id FROM changed WHERE spns_slot(account) IS NOT NULL;
      ELSE
        INSERT INTO spns_changes (origin, slot, account, service, svcid)
        SELECT origin, spns_slot(account), account, service, svcid FROM former WHERE spns_slot(account) IS NOT NULL;
      END IF;
      -- A hivemind never changes the key of a subscription, but an operator may.
      IF TG_OP = 'UPDATE' AND origin IS NULL THEN
        INSERT INTO spns_changes (slot, account, service, svcid)
        SELECT spns_slot(account), * FROM (
          SELECT account, service, svcid FROM former EXCEPT SELECT account, service, svcid FROM changed) renamed
        WHERE spns_slot(account) IS NOT NULL;
      END IF;
      -- If no member is alive to trim the table, writers do it now and then.
      IF pg_current_xact_id()::text::bigint & 1023 = 0 THEN
        now := clock_timestamp();
        IF NOT EXISTS (
          SELECT FROM spns_members
          WHERE position IS NOT NULL AND seen BETWEEN now - INTERVAL '1 hour' AND now + INTERVAL '1 hour') THEN
          PERFORM spns_trim(now);
        END IF;
      END IF;
      RETURN NULL;
    END $$ $sql$, current_schema());
END $do$;

CREATE TRIGGER spns_inserted AFTER INSERT ON subscriptions REFERENCING NEW TABLE AS changed
  FOR EACH STATEMENT EXECUTE FUNCTION spns_changed();
CREATE TRIGGER spns_updated AFTER UPDATE ON subscriptions REFERENCING OLD TABLE AS former NEW TABLE AS changed
  FOR EACH STATEMENT EXECUTE FUNCTION spns_changed();
CREATE TRIGGER spns_deleted AFTER DELETE ON subscriptions REFERENCING OLD TABLE AS former
  FOR EACH STATEMENT EXECUTE FUNCTION spns_changed();
CREATE TRIGGER spns_truncated AFTER TRUNCATE ON subscriptions
  FOR EACH STATEMENT EXECUTE FUNCTION spns_changed();

ALTER TABLE subscriptions
  DISABLE TRIGGER spns_inserted, DISABLE TRIGGER spns_updated, DISABLE TRIGGER spns_deleted, DISABLE TRIGGER spns_truncated;
