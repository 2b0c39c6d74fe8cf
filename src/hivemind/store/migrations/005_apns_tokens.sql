-- An Apple device is identified by its token in lower case, whatever a client wrote. Of several subscriptions that
-- differ only in that, the newest stays.

DELETE FROM subscriptions s USING subscriptions newer
WHERE s.service IN ('apns', 'apns-sandbox') AND s.svcid ~* '^[0-9a-f]+$'
  AND newer.account = s.account AND newer.service = s.service AND lower(newer.svcid) = lower(s.svcid)
  AND (newer.signature_ts, newer.id) > (s.signature_ts, s.id);

UPDATE subscriptions SET svcid = lower(svcid)
WHERE service IN ('apns', 'apns-sandbox') AND svcid ~ '[A-F]' AND svcid ~* '^[0-9a-f]+$';

DELETE FROM spns_unsubscribed u USING spns_unsubscribed newer
WHERE u.service IN ('apns', 'apns-sandbox') AND u.svcid ~* '^[0-9a-f]+$'
  AND newer.account = u.account AND newer.service = u.service AND lower(newer.svcid) = lower(u.svcid)
  AND (newer.signature_ts, newer.svcid) > (u.signature_ts, u.svcid);

UPDATE spns_unsubscribed SET svcid = lower(svcid)
WHERE service IN ('apns', 'apns-sandbox') AND svcid ~ '[A-F]' AND svcid ~* '^[0-9a-f]+$';
