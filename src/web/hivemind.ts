import type { Clock, Timer } from '../clock.ts';
import type { Address } from '../oxenmq/address.ts';
import { type Connection, Peers } from '../oxenmq/peers.ts';
import { OxenmqError } from '../oxenmq/remote.ts';
import { createPlaces } from './places.ts';

/** What became of a question to the hivemind. Nothing is thrown: each of these is an answer to the client. */
export type Outcome =
  /**
   * `passing`: whether the same request may succeed later; undefined if the hivemind does not say, as the original's.
   */
  | { readonly kind: 'reply'; readonly data: Buffer; readonly passing?: boolean | undefined }
  /** No connection, or it broke while we waited. */
  | { readonly kind: 'away' }
  /** It took the request and did not answer in time. */
  | { readonly kind: 'timeout' }
  /** As many requests as we allow are waiting for it already. */
  | { readonly kind: 'busy' }
  /** It answered, but not as a hivemind does. */
  | { readonly kind: 'failed'; readonly reason: string };

export type PushCommand = 'push.subscribe' | 'push.unsubscribe';

/** The front-end's way to the hivemind. */
export interface Hivemind {
  /**
   * Passes `body` on unread. Never rejects.
   *
   * @param client who asks, as far as is known: the hivemind serves clients in turn
   */
  ask(command: PushCommand, body: Uint8Array, client?: string): Promise<Outcome>;
  readonly connected: boolean;
  /** Why it is not connected; undefined if it is, or nothing is known yet. */
  readonly problem: string | undefined;
  readonly inFlight: number;
  close(): Promise<void>;
}

/**
 * The hivemind itself waits 15 s for a notifier. With the same 15 s here (as in the original) a slow notifier could be
 * told as a timeout of either; 20 s let the hivemind's own answer through.
 */
const REQUEST_TIMEOUT = 20_000;

/** A storage server waits 25 s for our answer, so a request that was held has less than that for the rest, ms. */
const ALL_IN_ALL = 24_000;

/** After a failed attempt; libzmq has tried several times within it. */
const RETRY = 500;

/** A request waits so long for a hivemind that is away, ms: a restart takes some seconds. */
const PATIENCE = 10_000;
/** One that is away for so long, ms, is not being restarted: nobody waits for it. */
const LONG_AWAY = 60_000;

/**
 * Connects to `[hivemind] listen` and stays connected: libzmq re-establishes a broken connection, and an attempt that
 * met no hivemind at all is made again, for ever. Requests that come while it restarts, or were with it when it ended,
 * are held and given to the next: each may be carried out twice, which does no harm.
 *
 * @param modules.inFlightLimit how many requests may wait for the hivemind at once; large ones count as several
 * @param modules.onChange told when the connection comes up, or goes down and why
 */
export function connectHivemind(modules: {
  clock: Clock;
  address: Address;
  inFlightLimit: () => number;
  onChange?: (connected: boolean, reason: string) => void;
}): Hivemind {
  const { clock, address, inFlightLimit, onChange } = modules;
  const places = createPlaces(inFlightLimit);
  let inFlight = 0;
  let connection: Connection;
  let retry: Timer | undefined;
  let closed = false;
  let told: boolean | undefined;
  let problem: string | undefined;
  let awaySince: number | undefined = clock.monotonic();
  /** Told when the connection is up, and when there is nothing left to wait for. */
  const waiting = new Set<() => void>();

  function wake(): void {
    for (const done of [...waiting]) done();
  }

  function tell(connected: boolean, reason: string): void {
    // Why it is still not there may be another reason than before.
    if ((told === connected && (connected || reason === problem)) || closed) return;
    problem = connected ? undefined : reason;
    told = connected;
    if (connected) awaySince = undefined;
    else awaySince ??= clock.monotonic();
    if (connected) wake();
    onChange?.(connected, reason);
  }

  /** Resolves when the connection is up, there is no hope of that, or the time is over. */
  function untilUp(deadline: number): Promise<void> {
    const now = clock.monotonic();
    const hopeless = closed || (awaySince !== undefined && now - awaySince > LONG_AWAY);
    if (connection.state === 'up' || hopeless || now >= deadline) return Promise.resolve();
    return new Promise((resolve) => {
      const done = () => {
        timer.cancel();
        waiting.delete(done);
        resolve();
      };
      const timer = clock.setTimeout(done, deadline - now);
      waiting.add(done);
    });
  }

  async function request(command: PushCommand, body: Uint8Array, client: string): Promise<Outcome> {
    const start = clock.monotonic();
    const deadline = start + PATIENCE;
    for (;;) {
      await untilUp(deadline);
      if (connection.state !== 'up') return { kind: 'away' };
      try {
        const timeout = Math.min(REQUEST_TIMEOUT, start + ALL_IN_ALL - clock.monotonic());
        const [data, state] = await connection.request(command, [body, client], timeout);
        if (data === undefined) return { kind: 'failed', reason: 'empty reply' };
        return { kind: 'reply', data, passing: state && state.toString() === 'passing' };
      } catch (error) {
        const outcome = failed(error);
        // A connection that is up and takes no more is no reason to try again at once.
        if (outcome.kind !== 'away' || connection.state === 'up' || clock.monotonic() >= deadline) return outcome;
      }
    }
  }

  const peers = new Peers({
    clock,
    commands: {},
    on: {
      hello: () => tell(true, 'connected'),
      handshake: () => {
        if (connection.state === 'up') tell(true, 'connected again');
      },
      // What the hivemind had in hand may or may not have been done; the client asks again, and asking twice is
      // harmless.
      disconnect: () => tell(false, 'the connection broke'),
      failure: (_, reason) => {
        tell(false, reason);
        if (closed) return;
        retry = clock.setTimeout(() => {
          connection = peers.connect(address, { label: 'hivemind' });
        }, RETRY);
      },
    },
  });
  connection = peers.connect(address, { label: 'hivemind' });

  return {
    async ask(command, body, client) {
      const giveBack = places.take(client, body.length);
      if (!giveBack) return { kind: 'busy' };
      inFlight++;
      try {
        return await request(command, body, client ?? '');
      } finally {
        inFlight--;
        giveBack();
      }
    },
    get connected() {
      return connection.state === 'up';
    },
    get problem() {
      return problem;
    },
    get inFlight() {
      return inFlight;
    },
    async close() {
      closed = true;
      retry?.cancel();
      wake();
      await peers.close();
    },
  };
}

function failed(error: unknown): Outcome {
  if (!(error instanceof OxenmqError)) return { kind: 'failed', reason: String(error) };
  if (error.code === 'TIMEOUT') return { kind: 'timeout' };
  if (error.code === 'UNREACHABLE' || error.code === 'CLOSED') return { kind: 'away' };
  return { kind: 'failed', reason: error.code };
}
