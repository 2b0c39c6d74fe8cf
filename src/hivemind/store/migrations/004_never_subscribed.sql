-- Whether an unsubscribed device had ever been subscribed. Anybody can unsubscribe devices that never were, so only the
-- latest of those are remembered.

ALTER TABLE spns_unsubscribed ADD COLUMN was_there BOOLEAN NOT NULL DEFAULT true;

CREATE INDEX spns_unsubscribed_never_subscribed ON spns_unsubscribed (signature_ts) WHERE NOT was_there;
