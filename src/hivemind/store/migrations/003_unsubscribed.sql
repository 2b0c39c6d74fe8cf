-- Who unsubscribed, and when that was signed: a subscription signed before it does not come back by a replay.
-- Kept as long as such a subscription could still be accepted (14 days).

CREATE TABLE spns_unsubscribed (
  account BYTEA NOT NULL,
  service VARCHAR NOT NULL,
  svcid VARCHAR NOT NULL,
  signature_ts BIGINT NOT NULL,
  PRIMARY KEY (account, service, svcid)
);

CREATE INDEX spns_unsubscribed_signature_ts ON spns_unsubscribed (signature_ts);
