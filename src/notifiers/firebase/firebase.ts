import { deleteApp, initializeApp } from 'firebase-admin/app';
import { getMessaging, type Message } from 'firebase-admin/messaging';
import { readTable } from '../../settings/table.ts';
import { AccessToken, TokenError } from '../runtime/access-token.ts';
import {
  accepted,
  type Backend,
  type BackendContext,
  type Delivery,
  misconfigured,
  type Outcome,
  refused,
  retry,
  tokenOf,
} from '../runtime/backend.ts';
import { post } from '../runtime/http.ts';
import { agentThrough } from '../runtime/tunnel.ts';
import { readError, UNAUTHENTICATED } from './answer.ts';
import { tokenRequest } from './service-account.ts';
import { FIREBASE } from './settings.ts';
import { intercept, withoutRetries } from './transport.ts';

/** The most data that Google accepts in one message, keys and values, in bytes. */
const MAX_DATA = 4096;
/**
 * The most messages in one call of the library. Each call makes its own connection: single messages would cost 20 times
 * as much.
 */
const BATCH = 500;
/** The longest time for which Google keeps a message for a phone that is away, in milliseconds. */
const LONGEST_STORE = 28 * 86_400_000;
const TOKEN_TIMEOUT = 10_000;

/** Google's Firebase Cloud Messaging, for Android phones. */
export function create({ section, clock, wallClock, random }: BackendContext): Backend {
  const { account, connections, notifyInterval, url, ca, proxy } = readTable(section, FIREBASE);
  section.check();
  const { projectId, tokenUri } = account;

  const undo = intercept({ to: url, ca, proxy, clock });
  const agent = agentThrough(proxy, { keepAlive: true, maxSockets: 1, ...(ca ? { ca } : {}) }, clock);
  const token = new AccessToken(
    () =>
      post(tokenUri, {
        agent,
        headers: { 'content-type': 'application/x-www-form-urlencoded' },
        body: tokenRequest(account, wallClock()),
        timeout: TOKEN_TIMEOUT,
      }),
    clock,
  );
  const app = initializeApp(
    {
      projectId,
      // We keep the token ourselves: with a lifetime of a second, the library asks for it each time.
      credential: { getAccessToken: async () => ({ access_token: await token.get(), expires_in: 1 }) },
    },
    `spns-${random(8).toString('hex')}`,
  );
  const messaging = getMessaging(app);
  withoutRetries(messaging);

  const sendBatch = async (messages: Message[]): Promise<Outcome[]> => {
    const asked = clock.now();
    const { responses } = await messaging.sendEach(messages);
    return responses.map(({ success, error }) => (success ? accepted : readError(error, asked, clock.now())));
  };
  /** Sends; messages that failed because of the access token are sent once more with a new one. */
  const sendAll = async (messages: Message[]): Promise<Outcome[]> => {
    const shown = await token.get();
    const outcomes = await sendBatch(messages);
    const again = messages.filter((_, index) => isUnauthenticated(outcomes[index]));
    if (again.length === 0) return outcomes;
    token.discard(shown);
    const second = await unlessNoToken(again.length, async () => {
      await token.get();
      return sendBatch(again);
    });
    let next = 0;
    return outcomes.map((outcome) => {
      const final = isUnauthenticated(outcome) ? (second[next++] ?? outcome) : outcome;
      return isUnauthenticated(final) ? misconfigured(`${UNAUTHENTICATED} with a new token`) : final;
    });
  };

  return {
    batch: BATCH,
    concurrency: connections,
    linger: notifyInterval * 1000,
    validate: (info) => ({
      id: tokenOf(
        info,
        'token',
        (text) => text !== '',
        () => 'Invalid firebase device token',
      ),
    }),
    async send(pushes) {
      const now = clock.now();
      const all = pushes.map((push) => messageFor(push, now));
      const messages = all.filter((message) => message !== undefined);
      const outcomes = messages.length > 0 ? await unlessNoToken(messages.length, () => sendAll(messages)) : [];
      let next = 0;
      return all.map((message) => {
        if (!message) return refused('larger than 4096 bytes');
        return outcomes[next++] ?? retry('Google said nothing about this push');
      });
    },
    async close() {
      undo();
      agent.destroy();
      await deleteApp(app);
    },
  };
}

/** If there is no access token nothing is sent, and that error's outcome is the one of all messages. */
async function unlessNoToken(count: number, send: () => Promise<Outcome[]>): Promise<Outcome[]> {
  try {
    return await send();
  } catch (error) {
    if (!(error instanceof TokenError)) throw error;
    return Array.from({ length: count }, () => error.outcome);
  }
}

/**
 * The message as Android clients expect it (docs/spec/notifiers.md, section 5); undefined if it is larger than Google
 * accepts.
 */
function messageFor({ id, payload, expiry, urgent }: Delivery, now: number): Message | undefined {
  const data = { enc_payload: payload.toString('base64'), spns: '1' };
  if (data.enc_payload.length + 'enc_payload'.length + 'spns1'.length > MAX_DATA) return undefined;
  const ttl = expiry > 0 ? Math.min(Math.max(expiry - now, 0), LONGEST_STORE) : LONGEST_STORE;
  return {
    token: id,
    data,
    // In Google's spelling: the library's types only know the lower-case one, but it passes on either. Whole seconds: a
    // fraction is of no use.
    android: { priority: (urgent ? 'HIGH' : 'NORMAL') as 'high', ttl: Math.floor(ttl / 1000) * 1000 },
  };
}

function isUnauthenticated(outcome: Outcome | undefined): boolean {
  return outcome?.kind === 'misconfigured' && outcome.reason === UNAUTHENTICATED;
}
