import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Dealer, Router } from 'zeromq';
import { systemClock } from '../../src/clock.ts';
import { type Address, parseAddress } from '../../src/oxenmq/address.ts';
import { type KeyPair, randomKeyPair, toZ85 } from '../../src/oxenmq/keys.ts';
import { Listener, type ListenerOptions } from '../../src/oxenmq/listener.ts';
import { type ConnectOptions, Peers, type PeersOptions } from '../../src/oxenmq/peers.ts';
import type { OxenmqError } from '../../src/oxenmq/remote.ts';
import { inTime, until } from '../support/until.ts';

/** Things that happen, in order, for tests that await them instead of sleeping. */
export class Happenings<T> {
  readonly all: T[] = [];
  readonly #waiting = new Set<() => void>();

  add(happening: T): void {
    this.all.push(happening);
    for (const look of [...this.#waiting]) look();
  }

  /** The first one that fits, past or to come. */
  first(fits: (happening: T) => boolean): Promise<T> {
    return this.when((all) => all.find(fits));
  }

  /** Waits until `see` sees something. */
  when<R>(see: (all: T[]) => R | undefined): Promise<R> {
    return inTime(
      new Promise((resolve) => {
        const look = () => {
          const seen = see(this.all);
          if (seen === undefined) return;
          this.#waiting.delete(look);
          resolve(seen);
        };
        this.#waiting.add(look);
        look();
      }),
      () => `${see}, of ${this.all.length} so far`,
    );
  }
}

export interface PeersEvent {
  event: 'handshake' | 'hello' | 'disconnect' | 'failure' | 'stray';
  id: string;
  reason: string;
}

/** Peers whose events are written down, closed at the end of the test. */
export function openPeers(
  t: TestContext,
  options: Partial<PeersOptions> = {},
): { peers: Peers; events: Happenings<PeersEvent>; keys: KeyPair } {
  const events = new Happenings<PeersEvent>();
  const keys = options.keys ?? randomKeyPair();
  const add = (event: PeersEvent['event'], id: string, reason = '') => events.add({ event, id, reason });
  const peers = new Peers({
    clock: systemClock,
    // On the machine's clock a connection that is meant to come about has as long as a test waits for anything.
    ...(!options.clock && { helloTimeout: 60_000 }),
    commands: {},
    keys,
    on: {
      handshake: (c) => add('handshake', c.id),
      hello: (c) => add('hello', c.id),
      disconnect: (c) => add('disconnect', c.id),
      failure: (c, reason) => add('failure', c.id, reason),
      stray: (reason) => add('stray', '', reason),
    },
    ...options,
  });
  t.after(() => peers.close());
  return { peers, events, keys };
}

/**
 * Why a peer that cannot be reached is given up. If the time is over before libzmq has told how far the attempt came,
 * as on a machine that stalls, another is made.
 *
 * @param unfinished what is said of an attempt that has not come to its end
 */
export async function reasonFor(
  { peers, events }: Pick<ReturnType<typeof openPeers>, 'peers' | 'events'>,
  address: Address,
  options: ConnectOptions = {},
  unfinished = /: no answer at all$/,
): Promise<string> {
  for (;;) {
    const { id } = peers.connect(address, options);
    const { reason } = await events.first((e) => e.event === 'failure' && e.id === id);
    if (!unfinished.test(reason)) return reason;
  }
}

/** For {@link reasonFor}, where the peer accepts the connection and then does more. */
export const ACCEPTED = /: (?:no answer at all|the peer accepted the connection and said nothing)$/;

/** A listener that is bound, and closed at the end of the test. */
export async function openListener(t: TestContext, options: Partial<ListenerOptions> = {}): Promise<Listener> {
  const listener = new Listener({
    clock: systemClock,
    address: 'tcp://127.0.0.1:*',
    access: 'admin',
    commands: {},
    ...options,
  });
  t.after(() => listener.close());
  await listener.bind();
  return listener;
}

export function addressOf(endpoint: string, publicKey?: Buffer): Address {
  const address = parseAddress(endpoint);
  return publicKey ? { ...address, publicKey } : address;
}

type Frame = string | Uint8Array;

/** A bare ROUTER in the place of a liboxenmq server: what it does is what the test tells it to. */
export class RawServer {
  readonly received = new Happenings<Buffer[]>();
  readonly socket: Router;
  readonly loop: Promise<void>;
  /** Whether HI is answered. */
  hello: boolean;
  endpoint = '';

  static async open(
    t: TestContext,
    { keys, address = 'tcp://127.0.0.1:*', hello = true }: { keys?: KeyPair; address?: string; hello?: boolean } = {},
  ): Promise<RawServer> {
    const socket = new Router({ linger: 0, sendTimeout: 0, mandatory: true, handover: true });
    if (keys) {
      socket.curveServer = true;
      socket.curveSecretKey = toZ85(keys.secretKey);
    }
    // The socket that had the port before may take a moment to leave it.
    for (let tries = 0; ; tries++) {
      try {
        await socket.bind(address);
        break;
      } catch (error) {
        if (tries === 200) throw error;
        await sleep(20);
      }
    }
    const server = new RawServer(socket, hello);
    server.endpoint = socket.lastEndpoint ?? address;
    t.after(() => server.close());
    return server;
  }

  constructor(socket: Router, hello: boolean) {
    this.socket = socket;
    this.hello = hello;
    this.loop = this.#receive();
  }

  async #receive(): Promise<void> {
    for (;;) {
      let frames: Buffer[];
      try {
        frames = await this.socket.receive();
      } catch {
        return;
      }
      // Whoever said HI may be gone.
      if (this.hello && String(frames[1]) === 'HI') await this.send(frames[0]!, 'HELLO').catch(() => {});
      this.received.add(frames);
    }
  }

  async send(...frames: Frame[]): Promise<void> {
    return this.socket.send(frames as Buffer[]);
  }

  /** The next message of this name, without its routing id and name. */
  async message(name: string): Promise<{ route: Buffer; frames: Buffer[] }> {
    const frames = await this.received.first((f) => String(f[1]) === name);
    this.received.all.splice(this.received.all.indexOf(frames), 1);
    return { route: frames[0]!, frames: frames.slice(2) };
  }

  async close(): Promise<void> {
    if (!this.socket.closed) this.socket.close();
    await this.loop;
  }
}

/** A bare DEALER in the place of a liboxenmq client. */
export function rawClient(
  t: TestContext,
  endpoint: string,
  { keys = randomKeyPair(), serverKey, routingId }: { keys?: KeyPair; serverKey?: Buffer; routingId?: Buffer } = {},
): Dealer {
  const socket = new Dealer({ linger: 0, sendTimeout: 0, receiveTimeout: 60_000 });
  // The type knows strings alone, which would be sent as UTF-8.
  socket.routingId = (routingId ?? Buffer.concat([Buffer.from('L'), keys.publicKey])) as unknown as string;
  if (serverKey) {
    socket.curveServerKey = toZ85(serverKey);
    socket.curvePublicKey = toZ85(keys.publicKey);
    socket.curveSecretKey = toZ85(keys.secretKey);
  }
  socket.connect(endpoint);
  t.after(() => {
    if (!socket.closed) socket.close();
  });
  return socket;
}

/** Says HI and waits for HELLO, as liboxenmq does. */
export async function greet(socket: Dealer): Promise<void> {
  await socket.send('HI');
  const frames = await socket.receive();
  if (String(frames[0]) !== 'HELLO' || frames.length !== 1) throw new Error(`no HELLO but ${frames.map(String)}`);
}

/**
 * A client that has been greeted under a routing id that another has just left. The listener hears of that a moment
 * before libzmq lets go of the id, and whoever connects in between is never answered.
 */
export async function greetAs(t: TestContext, endpoint: string, routingId: Buffer): Promise<Dealer> {
  let greeted: Dealer | undefined;
  await until(async () => {
    const client = rawClient(t, endpoint, { routingId });
    client.receiveTimeout = 1000;
    try {
      await greet(client);
    } catch {
      client.close();
      return false;
    }
    client.receiveTimeout = 60_000;
    greeted = client;
    return true;
  });
  return greeted!;
}

/** The code with which a request fails. */
export async function failureOf(request: Promise<unknown>): Promise<string> {
  return request.then(
    () => 'answered',
    (error: OxenmqError) => error.code,
  );
}

/** A directory of its own for ipc sockets, removed at the end of the test. */
export async function temporaryDirectory(t: TestContext): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'omq-'));
  t.after(() => rm(directory, { recursive: true, force: true }));
  return directory;
}
