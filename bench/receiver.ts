import { type ChildProcess, fork } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { systemClock } from '../src/clock.ts';
import { encode } from '../src/codec/bencode.ts';
import { startNetwork } from '../src/devnet/network.ts';
import { randomKeyPair, toZ85 } from '../src/oxenmq/keys.ts';
import { Peers } from '../src/oxenmq/peers.ts';
import { openRouter, quietly, receiveAll } from '../src/oxenmq/socket.ts';
import { messageHash } from '../src/session/message-hash.ts';
import { cpuSeconds } from './cpu.ts';
import { makeAccounts, round } from './world.ts';

const SERVERS = 5;
const MESSAGES = 30_000;
const ACCOUNTS = 1_000;
const BODY_SIZE = 500;
/** Messages that are sent before the first of them was received: as with the hivemind's row. */
const WINDOW = 500;
const REPORT_EVERY = 250;
const DAY = 86_400_000;

/** Where a server is, its key in hex. */
interface Server {
  readonly host: string;
  readonly port: number;
  readonly key: string;
}

/**
 * What the same storage servers can do with receivers that do nothing, as processes of their own: with zeromq.js's
 * receive alone, and with our OxenMQ around it. What the row of the hivemind has beyond these is its own work, and
 * where it is not slower than these the servers are the limit.
 */
export async function receivers(): Promise<object> {
  return { row: 'receivers that do nothing', zeromq: await receiver('zeromq'), oxenmq: await receiver('oxenmq') };
}

async function receiver(kind: 'zeromq' | 'oxenmq'): Promise<object> {
  const modules = { clock: systemClock, random: randomBytes, servers: SERVERS, swarms: 1, verify: false };
  const network = await startNetwork(modules);
  const child = fork(import.meta.filename, [kind]);
  try {
    const accounts = makeAccounts(ACCOUNTS);
    const now = Math.floor(Date.now() / 1000);
    const elements = accounts.map(({ sessionEd25519, id }) =>
      sessionEd25519
        ? { P: sessionEd25519, d: 1, n: [0], s: Buffer.alloc(64), t: now }
        : { d: 1, n: [0], p: id, s: Buffer.alloc(64), t: now },
    );
    const servers = network.servers.map(({ server: { host, port, publicKey } }) => {
      return { host, port, key: publicKey.toString('hex') };
    });
    child.send({ servers, request: encode(elements).toString('base64') });
    const monitored = () => network.servers.every(({ server }) => server.counters.accepted === ACCOUNTS);
    while (!monitored()) await sleep(10);

    const letters = Array.from({ length: MESSAGES }, (_, index) => {
      const { id } = accounts[index % ACCOUNTS]!;
      const data = randomBytes(BODY_SIZE);
      const times = { timestamp: Date.now(), expiry: Date.now() + DAY };
      return { account: id, hash: messageHash(id, 0, data), namespace: 0, ...times, data };
    });
    const pid = child.pid as number;
    const before = [cpuSeconds(pid), cpuSeconds(pid, true), cpuSeconds(process.pid)] as const;
    const start = performance.now();
    const sent = await send(child, network, letters);
    const seconds = (performance.now() - start) / 1000;
    const mainThread = cpuSeconds(pid, true) - before[1];
    return {
      raw_per_second: Math.round(sent / seconds),
      main_thread_us_a_raw: round((mainThread * 1e6) / sent),
      seconds: round(seconds),
      cpu_seconds: {
        receiver: round(cpuSeconds(pid) - before[0]),
        receiverMainThread: round(mainThread),
        bench: round(cpuSeconds(process.pid) - before[2]),
      },
    };
  } finally {
    child.kill();
    await once(child, 'exit');
    await network.stop();
  }
}

type Network = Awaited<ReturnType<typeof startNetwork>>;

/** Gives how many notifications were received, which are all. */
function send(child: ChildProcess, network: Network, messages: readonly Parameters<Network['deliver']>[0][]) {
  return new Promise<number>((resolve) => {
    let [next, sent, received] = [0, 0, 0];
    const fill = () => {
      while (next < messages.length && sent - received < WINDOW * SERVERS) sent += network.deliver(messages[next++]!);
      if (next === messages.length && received >= sent - (sent % REPORT_EVERY)) resolve(sent);
    };
    child.on('message', (count) => {
      received = Number(count);
      fill();
    });
    fill();
  });
}

/** Called for every message that came in; the parent is told how many there are. */
function count(): () => void {
  let received = 0;
  return () => {
    if (++received % REPORT_EVERY === 0) process.send?.(received);
  };
}

function receiveByZeromq(servers: readonly Server[], request: Buffer): void {
  const socket = openRouter(10 * 1024 * 1024, 0);
  const keys = randomKeyPair();
  socket.curvePublicKey = toZ85(keys.publicKey);
  socket.curveSecretKey = toZ85(keys.secretKey);
  const one = count();
  const take = (frames: Buffer[]) => {
    if (frames[1]?.toString('latin1') === 'notify.message') one();
  };
  const failed = (error: Error) => {
    throw error;
  };
  void receiveAll(socket, take, failed);
  for (const { host, port, key } of servers) {
    quietly(() => {
      socket.curveServerKey = toZ85(Buffer.from(key, 'hex'));
      socket.routingId = 'bench';
      socket.connect(`tcp://${host}:${port}`, { routingId: key });
    });
    for (const frames of [['HI'], ['monitor.messages', randomBytes(15), request]]) void socket.send([key, ...frames]);
  }
}

function receiveByOxenmq(servers: readonly Server[], request: Buffer): void {
  const one = count();
  const peers = new Peers({
    clock: systemClock,
    commands: { notify: { access: 'basic', commands: { message: { kind: 'command', handler: one } } } },
  });
  for (const { host, port, key } of servers) {
    const connection = peers.connect({ protocol: 'tcp', host, port, publicKey: Buffer.from(key, 'hex') });
    void connection.request('monitor.messages', [request], 60_000);
  }
}

if (process.argv[1] === import.meta.filename) {
  process.once('message', (message) => {
    const { servers, request } = message as { servers: readonly Server[]; request: string };
    const receive = process.argv[2] === 'zeromq' ? receiveByZeromq : receiveByOxenmq;
    receive(servers, Buffer.from(request, 'base64'));
  });
}
