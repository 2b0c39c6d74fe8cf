import { readTable } from '../../settings/table.ts';
import {
  type Backend,
  type BackendContext,
  type Delivery,
  misconfigured,
  noToken,
  type Outcome,
  refused,
  tokenOf,
} from '../runtime/backend.ts';
import { EXPIRED_TOKEN, readAnswer } from './answer.ts';
import { createClients } from './client.ts';
import { readApnsCredential } from './credential.ts';
import { APNS } from './settings.ts';

/** The largest body that Apple accepts, in bytes. */
const MAX_BODY = 4096;
/**
 * A device token as iOS clients send it. Apple fixes no length; 64 digits are the shortest and the usual one.
 */
const TOKEN = /^([0-9a-f]{2}){32,200}$/i;
const PRODUCTION = 'api.push.apple.com';
const SANDBOX = 'api.sandbox.push.apple.com';
/** The longest time for which Apple keeps a push for a phone that is away, in seconds. */
const LONGEST_STORE = 30 * 86_400;

/**
 * Apple's push service, in both of its environments: `apns` is production, `apns-sandbox` is for development builds.
 */
export function create({ service, section, clock }: BackendContext): Backend {
  const { topic, connections, streams, port, ca, proxy, ...settings } = readTable(section, APNS);
  const credential = readApnsCredential(section, settings, clock.now());
  const timeout = settings.timeout * 1000;
  const host = settings.host ?? (service === 'apns-sandbox' ? SANDBOX : PRODUCTION);
  section.check();

  const clients = createClients(connections, { host, port, ca, proxy, credential, timeout }, clock);
  const turns = inTurn(clients);

  const ask = async ({ id, expiry }: Delivery, body: string): Promise<Outcome> => {
    const client = turns.next().value;
    const asked = clock.now();
    return readAnswer(await client.send(body, { topic, expiration: expiration(expiry, asked) }, id), asked);
  };

  const sendOne = async (delivery: Delivery): Promise<Outcome> => {
    // Nothing else may go into the path of a request; Apple would answer BadDeviceToken.
    if (!TOKEN.test(delivery.id)) return noToken('not a device token', clock.now());
    const body = bodyFor(delivery.payload);
    if (Buffer.byteLength(body) > MAX_BODY) return refused('larger than 4096 bytes');
    let outcome = await ask(delivery, body);
    // By now the provider token has been renewed, for this push or another.
    if (isExpired(outcome)) outcome = await ask(delivery, body);
    if (isExpired(outcome)) outcome = misconfigured(`${EXPIRED_TOKEN} again; is the clock of this machine right?`);
    return outcome;
  };

  return {
    concurrency: connections * streams,
    credentialExpiry: credential.expiry,
    validate: (info) => ({
      // In lower case, so that a device is the same however the client writes it.
      id: tokenOf(info, 'token', (token) => TOKEN.test(token), wrongToken, 1).toLowerCase(),
    }),
    send: (deliveries) => Promise.all(deliveries.map(sendOne)),
    close() {
      for (const client of clients) client.close();
    },
  };
}

/** Yields one after the other, over and over. */
function* inTurn<T>(all: readonly T[]): Generator<T, never> {
  for (;;) yield* all;
}

/** The body of a push as iOS clients expect it (docs/spec/notifiers.md, section 4). */
function bodyFor(payload: Buffer): string {
  return `{"aps":{"alert":{"title":"Session","body":"You've got a new message"},"badge":1,"sound":"default","mutable-content":1,"category":"SECRET"},"spns":1,"enc_payload":"${payload.toString('base64')}"}`;
}

/** The `apns-expiration` of a push: Unix seconds, after which Apple need not deliver it any more. */
function expiration(expiry: number, now: number): number {
  const latest = Math.floor(now / 1000) + LONGEST_STORE;
  return expiry > 0 ? Math.min(Math.floor(expiry / 1000), latest) : latest;
}

function isExpired(outcome: Outcome): boolean {
  return outcome.kind === 'misconfigured' && outcome.reason === EXPIRED_TOKEN;
}

function wrongToken(token: unknown): string {
  const got =
    typeof token === 'string'
      ? `${[...token].length} characters`
      : `a ${token === null ? 'null' : Array.isArray(token) ? 'list' : typeof token}`;
  return `Invalid token: expected an even number of hexadecimal digits, 64 to 400, not ${got}`;
}
