import http from 'node:http';
import { encodeV4Request, encryptOnion, parseV4Response } from '../session/onion.ts';
import { openPayload } from '../session/payload.ts';
import { monitorMessage, unsubscribeMessage } from '../session/subscription.ts';
import type { Account, Random } from './account.ts';

/** Which app a phone runs: what the two send differs (docs/spec/notifiers.md, section 8). */
export type Platform = 'ios' | 'android';

/** Where the front-end is. */
export interface FrontEnd {
  /** `http://host:port`, or `unix:/path` */
  readonly url: string;
  /** X25519, 32 bytes */
  readonly publicKey: Uint8Array;
}

/** The answer to an onion request. */
export interface OnionReply {
  /** The inner status. */
  readonly code: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: unknown;
}

/** A decrypted push. */
export interface Woken {
  /** hex */
  readonly account: string;
  readonly hash: string;
  readonly namespace: number;
  /** When the message was stored, unix ms. */
  readonly timestamp: number;
  /** null if the notification came without the message */
  readonly data: Buffer | null;
}

/** A simulated phone. */
export interface Phone {
  readonly name: string;
  readonly platform: Platform;
  /** The notifier it is woken through. */
  readonly service: string;
  /** What the notifier needs, as the app sends it. */
  readonly serviceInfo: Readonly<Record<string, unknown>>;
  readonly accounts: readonly Account[];
  /** Subscribes all its accounts by one onion request. */
  subscribe(frontEnd: FrontEnd): Promise<OnionReply>;
  unsubscribe(frontEnd: FrontEnd): Promise<OnionReply>;
  /** Decrypts a push. @param payload nonce and ciphertext @throws Error if it is not for this phone */
  open(payload: Uint8Array): Woken;
}

/** The namespaces that the apps subscribe to, of session accounts and of groups. */
const SESSION_NAMESPACES = { ios: [0, 2, 3, 4, 5], android: [0] } as const;
const GROUP_NAMESPACES = [-11, 11, 12, 13, 14] as const;

export function createPhone(modules: {
  name: string;
  platform: Platform;
  service: string;
  serviceInfo: Readonly<Record<string, unknown>>;
  accounts: readonly Account[];
  random: Random;
  /** unix ms */
  now: () => number;
}): Phone {
  const { name, platform, service, serviceInfo, accounts, random, now } = modules;
  const encKey = random(32);

  function common(account: Account, signedAt: number, signature: Buffer): Record<string, unknown> {
    const bytes = (value: Buffer) => value.toString(platform === 'ios' ? 'hex' : 'base64');
    return {
      pubkey: account.id.toString('hex'),
      session_ed25519: account.sessionEd25519?.toString('hex'),
      subaccount: account.subaccount ? bytes(account.subaccount.tag) : undefined,
      subaccount_sig: account.subaccount?.signature.toString('base64'),
      sig_ts: signedAt,
      signature: signature.toString('base64'),
      service,
      service_info: serviceInfo,
    };
  }

  function subscription(account: Account): Record<string, unknown> {
    const signedAt = Math.floor(now() / 1000);
    const namespaces = account.id[0] === 5 ? SESSION_NAMESPACES[platform] : GROUP_NAMESPACES;
    const { id, sessionEd25519, subaccount } = account;
    const unsigned = { account: id, sessionEd25519, subaccount, namespaces, wantData: true, signedAt };
    const signature = account.sign(monitorMessage({ ...unsigned, signature: Buffer.alloc(64) }));
    return { ...common(account, signedAt, signature), namespaces, data: true, enc_key: encKey.toString('hex') };
  }

  function unsubscription(account: Account): Record<string, unknown> {
    const signedAt = Math.floor(now() / 1000);
    return common(account, signedAt, account.sign(unsubscribeMessage(account.id, signedAt)));
  }

  /** With one account an iPhone sends an object; Android always sends an array. */
  function ask(frontEnd: FrontEnd, endpoint: string, elements: Record<string, unknown>[]): Promise<OnionReply> {
    const body = platform === 'ios' && elements.length === 1 ? elements[0] : elements;
    const encryption = platform === 'ios' ? 'xchacha20' : 'aes-gcm';
    return onionRequest(frontEnd, encryption, endpoint, JSON.stringify(body));
  }

  return {
    name,
    platform,
    service,
    serviceInfo,
    accounts,
    subscribe: (frontEnd) => ask(frontEnd, '/subscribe', accounts.map(subscription)),
    unsubscribe: (frontEnd) => ask(frontEnd, '/unsubscribe', accounts.map(unsubscription)),
    open(payload) {
      const { metadata, data } = openPayload(payload, encKey);
      return {
        account: metadata.account,
        hash: metadata.hash,
        namespace: metadata.namespace,
        timestamp: Number(metadata.timestamp),
        data,
      };
    },
  };
}

/** Posts a v4 onion request as the last service node of a path would, and decrypts the answer. */
export async function onionRequest(
  frontEnd: FrontEnd,
  encryption: 'xchacha20' | 'aes-gcm',
  endpoint: string,
  body: string,
): Promise<OnionReply> {
  const headers = { 'Content-Type': 'application/json' };
  const plaintext = encodeV4Request({ method: 'POST', endpoint, headers, body: Buffer.from(body) });
  const request = encryptOnion(plaintext, frontEnd.publicKey, encryption);
  const answer = await post(frontEnd.url, request.body);
  if (answer.status !== 200) throw new Error(`the front-end answered HTTP ${answer.status}`);
  const reply = parseV4Response(request.open(answer.body));
  const text = reply.body.toString();
  return {
    code: reply.code,
    headers: reply.headers,
    body: text.startsWith('[') || text.startsWith('{') ? JSON.parse(text) : text,
  };
}

/** How long a storage server waits for a front-end's answer, ms. */
const TIMEOUT = 25_000;

function post(url: string, body: Buffer): Promise<{ status: number; body: Buffer }> {
  const headers = { 'content-type': 'application/octet-stream', 'content-length': body.length };
  const common = { method: 'POST', path: '/oxen/v4/lsrpc', headers, timeout: TIMEOUT, agent: false };
  const where = url.startsWith('unix:')
    ? { socketPath: url.slice(5) }
    : { host: new URL(url).hostname, port: new URL(url).port };
  return new Promise((resolve, reject) => {
    const request = http.request({ ...common, ...where }, (response) => {
      const chunks: Buffer[] = [];
      response.on('data', (chunk: Buffer) => chunks.push(chunk));
      response.on('error', reject);
      response.on('end', () => resolve({ status: response.statusCode ?? 0, body: Buffer.concat(chunks) }));
    });
    request.on('error', reject);
    request.on('timeout', () => request.destroy(new Error('the front-end did not answer in 25 s')));
    request.end(body);
  });
}
