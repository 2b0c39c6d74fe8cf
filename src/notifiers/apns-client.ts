import type { ClientHttp2Session } from 'node:http2';
import apn from '@parse/node-apn';
import type { ApnsCredential } from './apns-credential.ts';

/** What the library says of one push: taken, or anything of these. */
export interface ApnsAnswer {
  readonly taken: boolean;
  readonly status?: number | string;
  readonly reason?: string;
  /** Unix milliseconds, with 410. */
  readonly timestamp?: number;
  readonly error?: Error;
}

/** One HTTP/2 connection to Apple, made when it is first needed and made anew when it broke or fell silent. */
export interface ApnsClient {
  send(body: string, headers: ApnsHeaders, device: string): Promise<ApnsAnswer>;
  close(): Promise<void>;
}

export interface ApnsHeaders {
  readonly topic: string;
  /** Unix seconds. */
  readonly expiration: number;
}

export interface ApnsClientOptions {
  readonly host: string;
  readonly port: number;
  readonly ca: Buffer | undefined;
  readonly credential: ApnsCredential;
  /** Milliseconds to an answer. The library counts from when a push is queued, and would wait 5 s. */
  readonly timeout: number;
}

/** The part of the library's own parts that has no public face. {@link inside} checks that it is still as it was. */
interface Inside {
  session?: ClientHttp2Session;
  config: { token: SharedToken | null };
}

interface SharedToken {
  generation: number;
  regenerate(generation: number): void;
}

/** Apple refuses tokens that change more often than every 20 minutes. */
const TOKEN_KEPT = 20 * 60_000;

/**
 * The connections to Apple. They share one provider token, so that it is renewed once for all of them, and no more often than Apple allows: a
 * second renewal would not help, because then it is our clock that is wrong.
 * @param monotonic the time, in milliseconds
 */
export function createClients(count: number, options: ApnsClientOptions, monotonic: () => number): ApnsClient[] {
  const { host, port, ca, credential, timeout } = options;
  const providers = Array.from(
    { length: count },
    () =>
      new apn.Provider({
        address: host,
        port,
        ...(ca ? { ca: [ca] } : {}),
        ...(credential.token ? { token: { ...credential.token } } : {}),
        ...(credential.certificate ? { cert: credential.certificate, key: credential.certificate } : {}),
        // Its own retries come three at once; ours are the runtime's.
        connectionRetryLimit: 0,
        requestTimeout: timeout,
        // For node:http2, to which all options are handed on: Apple allows one stream at first, and refuses those that come before its word.
        ...{ peerMaxConcurrentStreams: 1 },
      }),
  );
  const { token } = inside(providers[0]!).config;
  if (token) {
    const regenerate = token.regenerate;
    let renewed = Number.NEGATIVE_INFINITY;
    token.regenerate = function (generation) {
      if (monotonic() - renewed < TOKEN_KEPT) return;
      if (generation === this.generation) renewed = monotonic();
      regenerate.call(this, generation);
    };
    for (const provider of providers) inside(provider).config.token = token;
  }
  return providers.map((provider) => wrap(provider, monotonic));
}

function wrap(provider: apn.Provider, monotonic: () => number): ApnsClient {
  let heard = monotonic();
  return {
    async send(body, { topic, expiration }, device) {
      const note = new apn.Notification();
      note.topic = topic;
      note.pushType = 'alert';
      note.priority = 10;
      note.expiry = expiration;
      // The JSON text that the library sends; it would make it of the note's fields otherwise.
      Object.assign(note, { compile: () => body });
      const asked = monotonic();
      const { sent, failed } = await provider.send(note, device);
      const answer = sent.length > 0 ? { taken: true } : readFailure(failed[0]);
      if (!isSilence(answer)) heard = monotonic();
      // A connection on which nothing at all was heard for so long answers nobody any more.
      else if (heard < asked) inside(provider).session?.destroy();
      return answer;
    },
    close: () => provider.shutdown(),
  };
}

function readFailure(failure: apn.ResponseFailure | undefined): ApnsAnswer {
  const { status, response, error } = failure ?? {};
  // An answer without a body comes as an error that names the status.
  const bodyless = /with status (\d+) and empty body/.exec(error?.message ?? '')?.[1];
  const known = status ?? (bodyless === undefined ? undefined : Number(bodyless));
  return {
    taken: false,
    ...(known === undefined ? {} : { status: known }),
    ...(response?.reason === undefined ? {} : { reason: response.reason }),
    ...(response?.timestamp === undefined ? {} : { timestamp: Number(response.timestamp) }),
    ...(error === undefined ? {} : { error }),
  };
}

/** Whether nothing at all came back, in all the time there was. */
function isSilence(answer: ApnsAnswer): boolean {
  return answer.error?.message.includes('timeout') === true;
}

function inside(provider: apn.Provider): Inside {
  const { client } = provider as unknown as { client?: Inside };
  if (client?.config === undefined || !('token' in client.config)) {
    throw new TypeError('@parse/node-apn has changed inside: the shared provider token has to be built anew');
  }
  return client;
}
