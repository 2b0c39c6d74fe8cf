import { type ChildProcess, fork } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { availableParallelism } from 'node:os';
import { context } from 'zeromq';
import { systemClock } from '../src/clock.ts';
import { decode } from '../src/codec/bencode.ts';
import { checkMonitor } from '../src/devnet/monitor-request.ts';
import { type ListedNode, type Oxend, startOxend } from '../src/devnet/oxend.ts';
import { type KeyPair, randomKeyPair, toZ85 } from '../src/oxenmq/keys.ts';
import { openRouter, receiveAll } from '../src/oxenmq/socket.ts';
import { cpuSeconds } from './cpu.ts';

/** Servers of a swarm. */
export const SWARM_SIZE = 5;
/** One in so many subscriptions is signed for good, in an odd second; the servers check the signatures of those. */
export const SAMPLED = 1000;

/** What storage servers were asked to monitor. */
export interface Tally {
  /** Elements of requests. */
  monitors: number;
  /** The sum of four bytes of each account, modulo 2^32: the same accounts make the same sum. */
  digest: number;
  namespaces: number;
  /** Signatures that were checked, and are good. */
  verified: number;
}

/** Where a server is, its key in hex. */
export interface ServerAddress {
  readonly host: string;
  readonly port: number;
  readonly publicKey: string;
}

/** Storage servers in processes of their own, and an oxend, in this one, that lists them. */
export interface StorageServers {
  readonly oxend: Oxend;
  readonly addresses: readonly ServerAddress[];
  /** What all of them were asked since the beginning, or the last {@link reset}; up to 10 ms old. */
  readonly tally: Tally;
  /** CPU seconds of all their processes. */
  cpuSeconds(): number;
  /** Resolves when they were asked for so many monitors. */
  reached(monitors: number): Promise<void>;
  /** Counts from nothing again. */
  reset(): Promise<void>;
  stop(): Promise<void>;
}

/**
 * Storage servers that are as cheap as they can be, so that what is measured is the hivemind. They count what they are
 * asked for and say yes; a request that is not as it must be ends the benchmark. What they spare themselves (a
 * database, all signatures but a sample) a real one does in machine code, on a machine of its own.
 *
 * @param count of servers, in swarms of {@link SWARM_SIZE}
 */
export async function startServers(count: number): Promise<StorageServers> {
  const processes = Math.min(availableParallelism(), count);
  const children: ChildProcess[] = [];
  const tallies = new Map<ChildProcess, Tally>();
  const addresses: ServerAddress[] = [];
  let onTally = () => {};
  let isStopping = false;
  for (let n = 0; n < processes; n++) {
    const share = Math.floor((count * (n + 1)) / processes) - Math.floor((count * n) / processes);
    const child = fork(import.meta.filename, [String(share)]);
    children.push(child);
    child.on('exit', (code) => {
      // Nothing that is measured after that would mean anything.
      if (!isStopping) throw new Error(`storage servers ended with ${code}`);
    });
    const [listening] = await once(child, 'message');
    addresses.push(...(listening as ServerAddress[]));
    tallies.set(child, noTally());
    child.on('message', (tally) => {
      tallies.set(child, tally as Tally);
      onTally();
    });
  }
  const swarms = Math.ceil(count / SWARM_SIZE);
  const nodes: ListedNode[] = addresses.map(({ publicKey, ...address }, index) => ({
    ...address,
    publicKey: Buffer.from(publicKey, 'hex'),
    swarm: (2n ** 64n / BigInt(swarms)) * BigInt(index % swarms) + 1n,
  }));
  const oxend = await startOxend({ clock: systemClock, random: randomBytes, nodes });
  const sum = () => {
    const all = noTally();
    for (const tally of tallies.values()) add(all, tally);
    return all;
  };
  return {
    oxend,
    addresses,
    get tally() {
      return sum();
    },
    cpuSeconds: () => children.reduce((seconds, { pid }) => seconds + cpuSeconds(pid as number), 0),
    async reached(monitors) {
      await new Promise<void>((resolve) => {
        onTally = () => sum().monitors >= monitors && resolve();
        onTally();
      });
    },
    async reset() {
      for (const child of children) {
        child.send('reset');
        while (tallies.get(child)?.monitors !== 0) await once(child, 'message');
      }
    },
    async stop() {
      isStopping = true;
      await oxend.stop();
      for (const child of children) {
        child.kill();
        await once(child, 'exit');
      }
    },
  };
}

function noTally(): Tally {
  return { monitors: 0, digest: 0, namespaces: 0, verified: 0 };
}

function add(to: Tally, from: Tally): void {
  to.monitors += from.monitors;
  to.digest = (to.digest + from.digest) % 2 ** 32;
  to.namespaces += from.namespaces;
  to.verified += from.verified;
}

/** What an account of 33 bytes adds to the digest. */
export function digestOf(account: Buffer): number {
  return account.readUInt32LE(1);
}

const [DICT, LIST, INTEGER, END, COLON, ONE, MINUS, ZERO, NINE] = [0x64, 0x6c, 0x69, 0x65, 0x3a, 0x31, 0x2d, 48, 57];
/** Keys of a monitor dict, each of one letter, and the bytes of those that are strings. */
const [NAMESPACES, WANTS_DATA, TIME] = [0x6e, 0x64, 0x74];
const ACCOUNT_SIZE = 33;
const SIZES: { readonly [key: number]: number } = { 80: 32, 83: 64, 84: 36, 112: ACCOUNT_SIZE, 115: 64 };

/**
 * Takes note of a request: a bencoded list of monitor dicts.
 *
 * @returns how many
 * @throws Error on anything else, and on a signature of the sample that is not good
 */
export function tallyRequest(body: Buffer, tally: Tally): number {
  if (body[0] !== LIST) throw new Error('a request that is no list');
  let at = 1;
  let count = 0;
  for (; body[at] !== END; count++) at = tallyElement(body, at, tally);
  if (at + 1 !== body.length) throw new Error('a request that does not end with its list');
  tally.monitors += count;
  return count;
}

/** @returns the place behind it */
function tallyElement(body: Buffer, start: number, tally: Tally): number {
  if (body[start] !== DICT) throw new Error('an element that is no dict');
  let at = start + 1;
  let [keys, lastDigit] = [0, ZERO];
  for (; body[at] !== END; keys++) {
    const key = body[at + 2]!;
    if (body[at] !== ONE || body[at + 1] !== COLON) throw new Error('a key of more than one letter');
    at += 3;
    if (key === NAMESPACES) {
      if (body[at++] !== LIST) throw new Error('namespaces that are no list');
      for (; body[at] !== END; tally.namespaces++) at = skipInteger(body, at);
      at++;
    } else if (key === WANTS_DATA || key === TIME) {
      at = skipInteger(body, at);
      if (key === TIME) lastDigit = body[at - 2]!;
    } else {
      const size = SIZES[key] ?? -1;
      if (body[at]! * 10 + body[at + 1]! - ZERO * 11 !== size || body[at + 2] !== COLON)
        throw new Error('a key or a length that no monitor has');
      at += 3;
      if (size === ACCOUNT_SIZE) tally.digest = (tally.digest + body.readUInt32LE(at + 1)) % 2 ** 32;
      at += size;
    }
  }
  at++;
  if (keys < 4) throw new Error('an element that lacks something');
  if (lastDigit % 2 === 1) {
    const checked = checkMonitor(decode(body.subarray(start, at)), Math.floor(Date.now() / 1000));
    if ('errcode' in checked) throw new Error(`a sampled subscription: ${checked.error}`);
    tally.verified++;
  }
  return at;
}

function skipInteger(body: Buffer, at: number): number {
  if (body[at++] !== INTEGER) throw new Error('no integer where one must be');
  if (body[at] === MINUS) at++;
  while (body[at]! >= ZERO && body[at]! <= NINE) at++;
  if (body[at] !== END) throw new Error('no integer where one must be');
  return at + 1;
}

const EMPTY = Buffer.alloc(0);
const SUCCESS = 'd7:successi1ee';
/** More than a request ever holds. */
const MOST = 65_536;
/** How often the parent hears of it, at most, ms. */
const TELL = 10;

/** A process with so many servers. */
async function serve(count: number): Promise<void> {
  context.maxSockets = count + 16;
  let tally = noTally();
  let isTold = true;
  const successes = Buffer.from(SUCCESS.repeat(MOST));
  const tell = () => {
    isTold = true;
    process.send?.(tally);
  };
  process.on('message', () => {
    tally = noTally();
    tell();
  });
  const fail = (error: Error) => {
    throw error;
  };
  const listen = async (keys: KeyPair) => {
    const socket = openRouter(10 * 1024 * 1024, 0);
    socket.curveServer = true;
    socket.curveSecretKey = toZ85(keys.secretKey);
    await socket.bind('tcp://127.0.0.1:*');
    // Whoever asked may be gone.
    const send = (frames: (Buffer | string)[]) => void socket.send(frames).catch(() => undefined);
    const take = ([id = EMPTY, name, tag, body]: Buffer[]) => {
      const word = name?.toString('latin1');
      if (word === 'HI') send([id, 'HELLO']);
      if (word !== 'monitor.messages') return;
      if (!tag || !body) throw new Error('a request without tag or body');
      const answers = successes.subarray(0, tallyRequest(body, tally) * SUCCESS.length);
      send([id, 'REPLY', tag, Buffer.concat([Buffer.of(LIST), answers, Buffer.of(END)])]);
      if (isTold) setTimeout(tell, TELL);
      isTold = false;
    };
    void receiveAll(socket, take, fail);
    return Number(new URL(socket.lastEndpoint ?? '').port);
  };
  const addresses: ServerAddress[] = [];
  for (let n = 0; n < count; n++) {
    const keys = randomKeyPair();
    addresses.push({ host: '127.0.0.1', port: await listen(keys), publicKey: keys.publicKey.toString('hex') });
  }
  process.send?.(addresses);
}

if (process.argv[1] === import.meta.filename) {
  process.on('disconnect', () => process.exit());
  await serve(Number(process.argv[2]));
}
