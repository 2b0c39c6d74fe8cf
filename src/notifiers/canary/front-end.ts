import { encodeV4Request, encryptOnion, OnionError, parseV4Response } from '../../session/onion.ts';
import { monitorMessage, unsubscribeMessage } from '../../session/subscription.ts';
import type { Identity } from './identity.ts';

/** The service of the canary's notifier. */
export const SERVICE = 'canary';

/** The front-end as the canary uses it. Both throw an Error with a sentence if they do not succeed. */
export interface FrontEnd {
  /** Subscribes the canary's device. */
  subscribe(): Promise<void>;
  unsubscribe(): Promise<void>;
}

/** How long the front-end may take, ms: a service node gives it as much. */
const TIMEOUT = 25_000;
/** The longest answer that is read, in bytes: error pages of proxies are shorter. */
const MAX_ANSWER = 100_000;

/**
 * The front-end as clients reach it from outside: at its public address, by onion requests.
 *
 * @param options.url without a trailing slash
 * @param options.publicKey X25519, 32 bytes
 * @param options.now unix ms
 */
export function frontEndOf(options: {
  url: string;
  publicKey: Uint8Array;
  identity: Identity;
  now: () => number;
  random: (bytes: number) => Buffer;
}): FrontEnd {
  const { url, publicKey, identity, now, random } = options;
  const { account, sessionEd25519, encKey, device } = identity;

  const common = (signedAt: number, signature: Buffer) => ({
    pubkey: account.toString('hex'),
    session_ed25519: sessionEd25519.toString('hex'),
    sig_ts: signedAt,
    signature: signature.toString('base64'),
    service: SERVICE,
    service_info: { canary: device },
  });

  async function ask(endpoint: string, body: object): Promise<void> {
    const headers = { 'Content-Type': 'application/json' };
    const plaintext = encodeV4Request({
      method: 'POST',
      endpoint,
      headers,
      body: Buffer.from(JSON.stringify(body)),
    });
    const request = encryptOnion(plaintext, publicKey, 'xchacha20', random);
    const answer = await post(`${url}/oxen/v4/lsrpc`, request.body);
    const reply = parseV4Response(decrypted(() => request.open(answer)));
    const text = reply.body.toString();
    if (reply.code !== 200) throw new Error(`the front-end answered ${reply.code}: ${text.slice(0, 200)}`);
    const { success, error, message } = JSON.parse(text) as Record<string, unknown>;
    if (success !== true) throw new Error(`the hivemind refused with code ${error}: ${String(message).slice(0, 200)}`);
  }

  return {
    async subscribe() {
      const signedAt = Math.floor(now() / 1000);
      const unsigned = { account, sessionEd25519, subaccount: null, namespaces: [0], wantData: true, signedAt };
      const signature = identity.sign(monitorMessage({ ...unsigned, signature: Buffer.alloc(64) }));
      const more = { namespaces: [0], data: true, enc_key: encKey.toString('hex') };
      await ask('/subscribe', { ...common(signedAt, signature), ...more });
    },
    async unsubscribe() {
      const signedAt = Math.floor(now() / 1000);
      await ask('/unsubscribe', common(signedAt, identity.sign(unsubscribeMessage(account, signedAt))));
    },
  };
}

function decrypted(open: () => Buffer): Buffer {
  try {
    return open();
  } catch (error) {
    if (!(error instanceof OnionError)) throw error;
    throw new Error("the front-end's answer cannot be decrypted: something in between has changed it", {
      cause: error,
    });
  }
}

async function post(url: string, body: Buffer): Promise<Buffer> {
  let response: Response;
  try {
    response = await fetch(url, {
      method: 'POST',
      headers: { 'content-type': 'application/octet-stream' },
      body: Uint8Array.from(body),
      redirect: 'manual',
      signal: AbortSignal.timeout(TIMEOUT),
    });
  } catch (error) {
    // fetch hides the reason behind "fetch failed".
    const { message, cause } = error as Error;
    const why = cause instanceof Error ? cause.message || (cause as NodeJS.ErrnoException).code : message;
    throw new Error(`the front-end cannot be reached: ${why}`, { cause: error });
  }
  const answer = await bounded(response);
  if (response.status === 400) throw new Error('the front-end answered HTTP 400: is front_end_key its public key?');
  if (response.status !== 200) throw new Error(`the front-end answered HTTP ${response.status}`);
  return answer;
}

async function bounded(response: Response): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  let length = 0;
  for await (const chunk of response.body ?? []) {
    length += chunk.length;
    if (length > MAX_ANSWER) throw new Error(`the front-end answered more than ${MAX_ANSWER} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}
