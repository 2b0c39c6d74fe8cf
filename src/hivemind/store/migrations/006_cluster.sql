-- What several hiveminds share (docs/several.md). A hivemind without a name uses nothing of it: it leaves the tables empty and the triggers off.

CREATE TABLE spns_members (
  name VARCHAR PRIMARY KEY,
  generation BIGINT NOT NULL,        -- a part of its routing ids
  run BIGINT NOT NULL,               -- random: tells one run of its process from the next
  state VARCHAR NOT NULL CHECK (state IN ('starting', 'ready', 'leaving', 'stopped')),
  address VARCHAR NOT NULL,
  push_address VARCHAR NOT NULL,
  version VARCHAR NOT NULL,
  key_fingerprint BYTEA NOT NULL,
  copies INT NOT NULL,
  started TIMESTAMPTZ NOT NULL,
  seen TIMESTAMPTZ NOT NULL,         -- its last sign of life
  covers BYTEA NOT NULL,             -- 32 bytes, a bit a slot
  position PG_SNAPSHOT               -- which changes it has read; null: none are kept for it, and it loads anew
) WITH (fillfactor = 50);            -- written every second: the next version of a row finds room beside it

-- Which subscriptions were changed, by whomever: written by the triggers below, in the same transaction.
CREATE TABLE spns_changes (
  xid XID8 NOT NULL DEFAULT pg_current_xact_id(),
  origin BIGINT,                     -- which of our connections; null for anybody else's
  slot SMALLINT,                     -- 0 to 255; null: all subscriptions were taken away at once
  id BIGINT,                         -- of a subscription that was added or changed
  account BYTEA,                     -- of one that is gone, with service and svcid
  service VARCHAR,
  svcid VARCHAR
);

CREATE INDEX spns_changes_xid ON spns_changes (xid);

-- The slot of an account (docs/decisions/18); null for what is no account.
CREATE FUNCTION spns_slot(account BYTEA) RETURNS SMALLINT LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT CASE WHEN length(account) = 33
    THEN (get_byte(account, 1) # get_byte(account, 9) # get_byte(account, 17) # get_byte(account, 25))::smallint END
$$;

-- Both work in this schema, whatever the search path of whoever changes a subscription.
DO $do$
BEGIN
  -- Takes away changes that all members have read, and tells whether there may be more. One does it at a time. Who has not been seen for an hour is not waited for.
  EXECUTE format($sql$
    CREATE FUNCTION spns_trim(now TIMESTAMPTZ) RETURNS BOOLEAN LANGUAGE plpgsql
    SET search_path = pg_catalog, %I, pg_temp AS $$
    DECLARE
      gone INT;
    BEGIN
      IF NOT pg_try_advisory_xact_lock(1397771859, 3) THEN
        RETURN false;
      END IF;
      -- The clock has gone back: nobody was seen in the future.
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
      -- A hivemind never renames a device; an operator may.
      IF TG_OP = 'UPDATE' AND origin IS NULL THEN
        INSERT INTO spns_changes (slot, account, service, svcid)
        SELECT spns_slot(account), * FROM (
          SELECT account, service, svcid FROM former EXCEPT SELECT account, service, svcid FROM changed) renamed
        WHERE spns_slot(account) IS NOT NULL;
      END IF;
      -- Where no member is left to do it, whoever writes trims, now and then.
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
