-- Whether an unsubscribed device was subscribed at all. Anybody can unsubscribe devices that never were: of those only the newest are remembered.

ALTER TABLE spns_unsubscribed ADD COLUMN was_there BOOLEAN NOT NULL DEFAULT true;

CREATE INDEX spns_unsubscribed_never_subscribed ON spns_unsubscribed (signature_ts) WHERE NOT was_there;
