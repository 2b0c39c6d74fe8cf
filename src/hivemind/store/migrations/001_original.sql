-- The tables of the original SPNS, as they are there: on its database nothing happens here, and it goes on working with them.

CREATE TABLE IF NOT EXISTS subscriptions (
  id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  account BYTEA NOT NULL,            -- 33 bytes
  session_ed25519 BYTEA,             -- 32 bytes, for accounts that begin with 05
  subaccount_tag BYTEA,              -- 36 bytes
  subaccount_sig BYTEA,              -- 64 bytes, with the tag
  signature BYTEA NOT NULL,          -- 64 bytes
  signature_ts BIGINT NOT NULL,      -- unix seconds
  want_data BOOLEAN NOT NULL,
  enc_key BYTEA NOT NULL,            -- 32 bytes
  service VARCHAR NOT NULL,          -- the notifier's name
  svcid VARCHAR NOT NULL,            -- the device at its provider
  svcdata BYTEA,
  UNIQUE (account, service, svcid)
);

CREATE TABLE IF NOT EXISTS sub_namespaces (
  subscription BIGINT NOT NULL REFERENCES subscriptions (id) ON DELETE CASCADE,
  namespace SMALLINT NOT NULL,
  PRIMARY KEY (subscription, namespace)
);

CREATE TABLE IF NOT EXISTS service_stats (
  service VARCHAR NOT NULL,
  name VARCHAR NOT NULL,
  val_str VARCHAR,
  val_int BIGINT,
  PRIMARY KEY (service, name),
  CHECK ((val_str IS NULL) <> (val_int IS NULL))
);

-- The original has indexes on these two columns, under names that are its own business: none is made beside them.
DO $$
DECLARE
  wanted TEXT;
BEGIN
  FOREACH wanted IN ARRAY ARRAY['signature_ts', 'service'] LOOP
    IF NOT EXISTS (
      SELECT FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
      WHERE i.indrelid = 'subscriptions'::regclass AND i.indnkeyatts = 1 AND a.attname = wanted
    ) THEN
      EXECUTE format('CREATE INDEX %I ON subscriptions (%I)', 'subscriptions_' || wanted, wanted);
    END IF;
  END LOOP;
END
$$;
