import { readTable } from '../../settings/table.ts';
import { AccessToken, TokenError } from '../runtime/access-token.ts';
import {
  type Backend,
  type BackendContext,
  type Delivery,
  misconfigured,
  type Outcome,
  refused,
  retry,
  tokenOf,
} from '../runtime/backend.ts';
import { post, trouble } from '../runtime/http.ts';
import { agentThrough } from '../runtime/tunnel.ts';
import { AUTHENTICATE, readReply, USE_NORMAL } from './answer.ts';
import { HUAWEI } from './settings.ts';

/** The largest body that Huawei accepts, not counting tokens, in bytes. */
const MAX_BODY = 4096;
/** The longest time for which Huawei keeps a message for a phone that is away, in seconds. */
const LONGEST_STORE = 1_296_000;
const TIMEOUT = 10_000;
/**
 * Without permission for urgency HIGH, it is tried again after this many milliseconds: permission may have been given
 * by then.
 */
const NORMAL_FOR = 3_600_000;
const JSON_TYPE = 'application/json;charset=utf-8';
const FORM_TYPE = 'application/x-www-form-urlencoded;charset=utf-8';

/** Huawei's Push Kit, v1 API, for phones without Google's services. */
export function create({ section, log, clock }: BackendContext): Backend {
  const { appId, secret, connections, url: base, oauthUrl, ca, proxy } = readTable(section, HUAWEI);
  section.check();

  const url = `${base}/v1/${appId}/messages:send`;
  const pool = { keepAlive: true, maxSockets: connections, scheduling: 'lifo', ...(ca ? { ca } : {}) } as const;
  const agent = agentThrough(proxy, pool, clock);
  const form = { grant_type: 'client_credentials', client_id: appId, client_secret: secret };
  const token = new AccessToken(
    () =>
      post(oauthUrl, {
        agent,
        headers: { 'content-type': FORM_TYPE },
        body: new URLSearchParams(form).toString(),
        timeout: TIMEOUT,
      }),
    clock,
  );
  let normalUntil = Number.NEGATIVE_INFINITY;

  const ask = async (push: Delivery, bearer: string, urgency: 'HIGH' | 'NORMAL'): Promise<Outcome> => {
    const asked = clock.now();
    const body = bodyFor(push, urgency, asked);
    if (Buffer.byteLength(body) - Buffer.byteLength(push.id) > MAX_BODY) return refused('larger than 4096 bytes');
    try {
      const headers = { 'content-type': JSON_TYPE, authorization: `Bearer ${bearer}` };
      const reply = await post(url, { agent, headers, body, timeout: TIMEOUT });
      return readReply(reply, push.id, asked, clock.now());
    } catch (error) {
      return retry(trouble(error));
    }
  };

  const sendOne = async (push: Delivery): Promise<Outcome> => {
    let bearer = await token.get();
    let urgency: 'HIGH' | 'NORMAL' = clock.monotonic() < normalUntil ? 'NORMAL' : 'HIGH';
    let outcome = await ask(push, bearer, urgency);
    if (outcome === AUTHENTICATE) {
      token.discard(bearer);
      bearer = await token.get();
      outcome = await ask(push, bearer, urgency);
      if (outcome === AUTHENTICATE) return misconfigured('authentication failed with a new access token');
    }
    if (outcome === USE_NORMAL && urgency === 'HIGH') {
      if (clock.monotonic() >= normalUntil) {
        log.error(
          'Huawei has not given this app permission for urgency HIGH (80300011): sending with NORMAL, which may be late; request it in AppGallery Connect',
        );
      }
      normalUntil = clock.monotonic() + NORMAL_FOR;
      urgency = 'NORMAL';
      outcome = await ask(push, bearer, urgency);
    }
    return outcome;
  };

  return {
    concurrency: connections,
    validate: (info) => ({
      id: tokenOf(
        info,
        'token',
        (text) => text !== '',
        () => 'Invalid huawei device token',
      ),
    }),
    send: (pushes) =>
      Promise.all(
        pushes.map((push) =>
          sendOne(push).catch((error: unknown) => {
            if (error instanceof TokenError) return error.outcome;
            throw error;
          }),
        ),
      ),
    close() {
      agent.destroy();
    },
  };
}

/**
 * The body of a push as clients on Huawei's phones expect it: JSON text within JSON (docs/spec/notifiers.md, section
 * 6).
 */
function bodyFor({ id, payload, expiry }: Delivery, urgency: 'HIGH' | 'NORMAL', now: number): string {
  const left = expiry > 0 ? Math.floor((expiry - now) / 1000) : LONGEST_STORE;
  const ttl = Math.min(Math.max(left, 1), LONGEST_STORE);
  return JSON.stringify({
    validate_only: false,
    message: {
      data: JSON.stringify({ enc_payload: payload.toString('base64'), spns: '1' }),
      android: { urgency, ttl: `${ttl}s` },
      token: [id],
    },
  });
}
