import { Resolver } from 'node:dns/promises';
import { readTable } from '../../settings/table.ts';
import { vapidPublicKey } from '../../settings/vapid-key.ts';
import { type Backend, type BackendContext, type Delivery, type Outcome, refused, retry } from '../runtime/backend.ts';
import { post, trouble } from '../runtime/http.ts';
import { agentThrough } from '../runtime/tunnel.ts';
import { NOT_PUBLIC, publicLookup } from './addresses.ts';
import { readReply, UNAUTHORIZED } from './answer.ts';
import { encrypt, MAX_PLAINTEXT } from './encryption.ts';
import { endpointTrouble } from './endpoints.ts';
import { WEBPUSH } from './settings.ts';
import { deviceOf, readData, readSubscription, type Subscription } from './subscription.ts';
import { Vapid } from './vapid.ts';

/** The longest time for which we let push services keep a push for a phone that is away, in seconds. */
const LONGEST_STORE = 28 * 86_400;
/** How long an idle connection is kept, in milliseconds: anybody can name their own host. */
const IDLE = 60_000;
/** How long a name server may take for each of two tries, in milliseconds. */
const NAME_TIMEOUT = 2_000;

/**
 * Web Push (RFC 8030), for devices without a maker's push service: phones without Google's services, by UnifiedPush,
 * and browsers. There is no single provider: each device names the address of a push service of its choice.
 */
export function create({ section, log, clock, wallClock, random }: BackendContext): Backend {
  const settings = readTable(section, WEBPUSH);
  const { key, contact, allowed = [], ownHosts = [], connections, ca, proxy, nameServer } = settings;
  if (proxy && allowed.length === 0) {
    section.problem(
      'proxy',
      'needs allowed_endpoints: a proxy looks up addresses itself, so that private ones could not be refused here',
      true,
    );
  }
  section.check();

  const endpoints = { allowed, private: ownHosts };
  const timeout = settings.timeout * 1000;
  const servers = new Resolver({ timeout: NAME_TIMEOUT, tries: 2 });
  if (nameServer !== undefined) servers.setServers([nameServer]);
  const lookup = publicLookup(servers, ownHosts);
  const pool = { keepAlive: true, timeout: IDLE, scheduling: 'lifo', lookup, ...(ca ? { ca } : {}) } as const;
  const agent = agentThrough(proxy, pool, clock);
  const vapid = new Vapid(key, contact, clock, wallClock);
  log.info(`apps register with the VAPID key ${vapidPublicKey(key)}`);

  const ask = async ({ endpoint }: Subscription, { expiry, urgent }: Delivery, body: Buffer): Promise<Outcome> => {
    const asked = clock.now();
    const authorization = vapid.authorization(endpoint.origin);
    try {
      const headers = {
        authorization,
        'content-encoding': 'aes128gcm',
        'content-type': 'application/octet-stream',
        ttl: String(timeToLive(expiry, asked)),
        urgency: urgent ? 'high' : 'normal',
      };
      const reply = await post(endpoint.href, { agent, headers, body, timeout });
      const outcome = readReply(reply, asked, clock.now());
      if (outcome === UNAUTHORIZED) vapid.discard(endpoint.origin, authorization);
      return outcome;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === NOT_PUBLIC) return refused('the host is at no public address');
      return retry(trouble(error));
    }
  };

  const sendOne = async (push: Delivery): Promise<Outcome> => {
    const subscription = readData(push.data);
    if (!subscription) return refused('no subscription');
    // The settings may have changed since it was accepted.
    if (endpointTrouble(subscription.endpoint, endpoints) !== undefined) return refused('an endpoint not allowed');
    const text = textFor(push.payload);
    if (text.length > MAX_PLAINTEXT) return refused('larger than 4096 bytes');
    const body = encrypt(text, subscription, random);
    const outcome = await ask(subscription, push, body);
    return outcome === UNAUTHORIZED ? await ask(subscription, push, body) : outcome;
  };

  return {
    concurrency: connections,
    lane: ({ data }) => readData(data)?.endpoint.origin ?? '',
    validate: (info) => deviceOf(readSubscription(info, endpoints)),
    send: (pushes) => Promise.all(pushes.map(sendOne)),
    close() {
      servers.cancel();
      agent.destroy();
    },
  };
}

/** The plaintext that the app finds in its push (docs/spec/providers.md, section 5). */
function textFor(payload: Buffer): Buffer {
  return Buffer.from(JSON.stringify({ enc_payload: payload.toString('base64'), spns: '1' }));
}

/** The `TTL` of a push: seconds for which the push service keeps it. */
function timeToLive(expiry: number, now: number): number {
  const left = expiry > 0 ? Math.floor((expiry - now) / 1000) : LONGEST_STORE;
  return Math.min(Math.max(left, 0), LONGEST_STORE);
}
