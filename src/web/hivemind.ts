import type { Clock } from '../clock.ts';
import type { Address } from '../oxenmq/address.ts';
import { OxenmqError } from '../oxenmq/remote.ts';
import { type HivemindLink, HivemindLinks } from './hivemind-links.ts';
import { createPlaces } from './places.ts';

/** What became of a request to the hivemind. Nothing is thrown: each of these becomes an answer to the client. */
export type Outcome =
  /**
   * `passing`: whether the same request may succeed later; undefined if the hivemind does not say, like the original.
   */
  | { readonly kind: 'reply'; readonly data: Buffer; readonly passing?: boolean | undefined }
  /** There was no connection, or it broke while we waited. */
  | { readonly kind: 'away' }
  /** It took the request but did not answer in time. */
  | { readonly kind: 'timeout' }
  /** As many requests as allowed are already waiting. */
  | { readonly kind: 'busy' }
  /** It answered, but not as a hivemind does. */
  | { readonly kind: 'failed'; readonly reason: string };

export type PushCommand = 'push.subscribe' | 'push.unsubscribe';

/** The front-end's access to the hivemind, or to whichever of several is there. */
export interface Hivemind {
  /**
   * Passes `body` on unread. Never rejects.
   *
   * @param client who asks, as far as is known: the hivemind serves clients in turn
   */
  ask(command: PushCommand, body: Uint8Array, client?: string): Promise<Outcome>;
  /** Whether a hivemind can be asked. */
  readonly connected: boolean;
  /** Why none can be asked; undefined if one can, or if nothing is known yet. */
  readonly problem: string | undefined;
  /** Members of the cluster that live but cannot be asked, and why as far as is known. */
  readonly missing: HivemindLinks['missing'];
  readonly inFlight: number;
  close(): Promise<void>;
}

/**
 * How long to wait for an answer, ms. The hivemind itself waits 15 s for a notifier; with the same 15 s here, as in the
 * original, either timeout could come first. With 20 s the hivemind's own answer gets through.
 */
const REQUEST_TIMEOUT = 20_000;

/** How long a request may take in all, ms, even if it was held first: a storage server waits 25 s for our answer. */
const TOTAL_TIMEOUT = 24_000;

/** How long a request waits for a hivemind that is away, ms: a restart takes some seconds. */
const PATIENCE = 10_000;
/** If all have been away for this long, ms, nobody is restarting them, and no request waits. */
const LONG_AWAY = 60_000;

/**
 * Connects to the hivemind, or to several, and stays connected. Requests that come while none is there, or that one had
 * when it ended, are held and given to the next; they may be carried out twice, which does no harm. Of several
 * hiveminds the one with the fewest requests is asked, so one that hangs soon gets no more.
 *
 * @param modules.addresses where hiveminds listen, at least some of them
 * @param modules.inFlightLimit how many requests may wait at once; large ones count as several
 * @param modules.onChange called when a hivemind can be asked, and when none can any more and why
 * @param modules.onMember see {@link HivemindLinks}
 */
export function connectHivemind(modules: {
  clock: Clock;
  random: (bytes: number) => Buffer;
  addresses: readonly Address[];
  inFlightLimit: () => number;
  onChange?: (connected: boolean, reason: string) => void;
  onMember?: (name: string, problem: string | undefined) => void;
}): Hivemind {
  const { clock, random, addresses, inFlightLimit, onChange, onMember } = modules;
  const places = createPlaces(inFlightLimit);
  let inFlight = 0;
  let closed = false;
  /** What `onChange` was last told. */
  let told: boolean | undefined;
  let problem: string | undefined;
  let awaySince: number | undefined = clock.monotonic();
  /** Called when a hivemind can be asked, and on closing. */
  const waiting = new Set<() => void>();
  const links = new HivemindLinks({ clock, random, addresses, changed: () => update(), onMember });

  function wake(): void {
    for (const done of [...waiting]) done();
  }

  function update(): void {
    const connected = links.up.length > 0;
    const reason = connected ? 'connected' : (links.problem ?? 'no connection yet');
    // A new reason for still not being connected is told as well.
    if ((told === connected && (connected || reason === problem)) || closed) return;
    problem = connected ? undefined : reason;
    told = connected;
    if (connected) awaySince = undefined;
    else awaySince ??= clock.monotonic();
    if (connected) wake();
    onChange?.(connected, reason);
  }

  /** Resolves when one is up, when there is no hope of that, or at the deadline. */
  function untilUp(deadline: number): Promise<void> {
    const now = clock.monotonic();
    const hopeless = closed || (awaySince !== undefined && now - awaySince > LONG_AWAY);
    if (links.up.length > 0 || hopeless || now >= deadline) return Promise.resolve();
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
    /** Connected, but not taking any more: not worth trying again at once. */
    const full = new Set<HivemindLink>();
    for (;;) {
      await untilUp(deadline);
      const link = leastBusy(links.up.filter((one) => !full.has(one)));
      if (!link) return { kind: 'away' };
      const { connection } = link;
      link.inFlight++;
      try {
        const timeout = Math.min(REQUEST_TIMEOUT, start + TOTAL_TIMEOUT - clock.monotonic());
        const [data, state] = await connection.request(command, [body, client], timeout);
        if (data === undefined) return { kind: 'failed', reason: 'empty reply' };
        return { kind: 'reply', data, passing: state && state.toString() === 'passing' };
      } catch (error) {
        const outcome = failed(error);
        if (outcome.kind !== 'away' || clock.monotonic() >= deadline) return outcome;
        if (connection.state === 'up') full.add(link);
      } finally {
        link.inFlight--;
      }
    }
  }

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
      return links.up.length > 0;
    },
    get problem() {
      return problem;
    },
    get missing() {
      return links.missing;
    },
    get inFlight() {
      return inFlight;
    },
    async close() {
      closed = true;
      wake();
      await links.close();
    },
  };
}

/** The link with the fewest requests; of several, the first. */
function leastBusy(links: readonly HivemindLink[]): HivemindLink | undefined {
  let best: HivemindLink | undefined;
  for (const link of links) if (!best || link.inFlight < best.inFlight) best = link;
  return best;
}

function failed(error: unknown): Outcome {
  if (!(error instanceof OxenmqError)) return { kind: 'failed', reason: String(error) };
  if (error.code === 'TIMEOUT') return { kind: 'timeout' };
  if (error.code === 'UNREACHABLE' || error.code === 'CLOSED') return { kind: 'away' };
  return { kind: 'failed', reason: error.code };
}
