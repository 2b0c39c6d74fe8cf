/**
 * `node bench/join.ts [accounts] [--sockets]`: one storage server joins a swarm that already has so many accounts
 * (1,000,000). Prints a line of JSON: CPU seconds of this process from the new list to the last confirmation, and the
 * longest time for which the event loop stood still meanwhile. The server is one that takes everything: in this process
 * without sockets, or with --sockets as a process of its own behind CURVE.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { systemClock } from '../src/clock.ts';
import { Devices } from '../src/hivemind/devices/devices.ts';
import { Monitoring } from '../src/hivemind/monitoring/monitoring.ts';
import type { Channel } from '../src/hivemind/monitoring/swarm-member.ts';
import { Nodes } from '../src/hivemind/network/nodes.ts';
import { keyPairFromSecret, randomKeyPair } from '../src/oxenmq/keys.ts';
import { Listener } from '../src/oxenmq/listener.ts';
import { type Connection, Peers } from '../src/oxenmq/peers.ts';
import type { ServiceNode } from '../src/session/service-nodes.ts';

const SWARM = 2n ** 63n;
const SUCCESS = 'd7:successi1ee';

/**
 * How many subscriptions a request holds: each has one signature of 64 bytes, which is random and so cannot be
 * mistaken.
 */
function countElements(body: Buffer): number {
  let count = 0;
  for (let at = body.indexOf('1:s64:'); at !== -1; at = body.indexOf('1:s64:', at + 70)) count++;
  return count;
}

function answer(body: Buffer): Buffer {
  return Buffer.from(`l${SUCCESS.repeat(countElements(body))}e`);
}

/** The server as a process of its own; tells its port to the parent. */
async function serve(secret: Buffer): Promise<void> {
  const listener = new Listener({
    clock: systemClock,
    address: 'tcp://127.0.0.1:*',
    access: 'none',
    keys: keyPairFromSecret(secret),
    commands: {
      monitor: {
        access: 'none',
        commands: { messages: { kind: 'request', handler: (m) => m.reply(answer(m.parts[0]!)) } },
      },
    },
  });
  await listener.bind();
  process.send?.(Number(new URL(listener.endpoint).port));
}

function fill(devices: Devices, accounts: number): void {
  const now = Math.floor(Date.now() / 1000);
  const token = randomBytes(75).toString('hex');
  for (let i = 0; i < accounts; i++) {
    const bytes = randomBytes(33 + 32 + 64 + 32);
    bytes[0] = 5;
    devices.upsert(
      {
        account: bytes.subarray(0, 33),
        sessionEd25519: bytes.subarray(33, 65),
        subaccount: null,
        signature: bytes.subarray(65, 129),
        signedAt: now,
        wantData: true,
        encKey: bytes.subarray(129),
        service: 'firebase',
        serviceId: `${token}${i}`,
        serviceData: null,
        namespaces: [-10, 0, 1, 2, 3, 4, 5],
      },
      now,
    );
  }
}

async function bench(accounts: number, sockets: boolean): Promise<void> {
  const devices = new Devices({ random: randomBytes });
  fill(devices, accounts);

  let server: ChildProcess | undefined;
  let peers: Peers | undefined;
  const keys = randomKeyPair();
  let address: ServiceNode = { publicKey: keys.publicKey, host: '127.0.0.1', port: 1, swarm: SWARM };
  if (sockets) {
    server = fork(import.meta.filename, ['serve', keys.secretKey.toString('hex')]);
    address = {
      ...address,
      port: await new Promise<number>((resolve) => server!.once('message', (m) => resolve(Number(m)))),
    };
    const up = (connection: Connection) => (connection.data as { up(): void }).up();
    peers = new Peers({ clock: systemClock, commands: {}, on: { hello: up } });
  }
  const connectHere = (events: { up(): void }): Channel => {
    setImmediate(() => events.up());
    return {
      // Found out before the reply comes, so as not to be counted as ours.
      request: (body, done) => {
        const before = process.cpuUsage();
        const reply = answer(body);
        const spent = process.cpuUsage(before);
        servers += spent.user + spent.system;
        setImmediate(() => done(reply, undefined));
      },
      close: () => {},
    };
  };
  const connectThere = (events: { up(): void }): Channel => {
    const connection = peers!.connect({ protocol: 'tcp', ...address }, { data: events });
    return {
      request: (body, done) =>
        void connection.request('monitor.messages', [body], 60_000).then(
          ([reply]) => done(reply, undefined),
          (error) => done(undefined, String(error)),
        ),
      close: () => connection.close(),
    };
  };
  let servers = 0;
  const monitoring = new Monitoring({
    clock: systemClock,
    jitter: Math.random,
    defer: setImmediate,
    accounts: devices,
    interval: 30_000,
    suspect: () => {},
  });
  const nodes = new Nodes({
    clock: systemClock,
    jitter: Math.random,
    defer: setImmediate,
    maxConnects: 10,
    allowPrivate: true,
    monitoring,
    cutOff: () => {},
    connect: ({ address: { host } }, events) =>
      sockets && host === address.host ? connectThere(events) : connectHere(events),
  });

  // The swarm is known with all its accounts, through a server that is not counted.
  const dummy = { ...address, publicKey: Buffer.alloc(32, 1) };
  const publish = (list: ServiceNode[]) =>
    nodes.update({ height: 1, blockHash: '', nodes: list, swarms: [SWARM], skipped: 0 });
  publish([{ ...dummy, host: '127.0.0.9' }]);
  const reports = () => nodes.reports(() => ({}));
  const settled = () => reports().every(({ unconfirmed }) => unconfirmed === 0);
  while (!settled() || reports()[0]!.accounts < accounts) await sleep(50);
  (globalThis as { gc?: () => void }).gc?.();
  servers = 0;

  const delay = monitorEventLoopDelay({ resolution: 1 });
  delay.enable();
  const cpu = process.cpuUsage();
  const began = performance.now();
  const { sentBytes, sent } = monitoring.counters;
  publish([{ ...dummy, host: '127.0.0.9' }, address]);
  while (!settled()) await sleep(5);
  delay.disable();
  const spent = process.cpuUsage(cpu);
  const row = {
    row: 'join',
    accounts,
    sockets,
    seconds: (performance.now() - began) / 1000,
    cpu_seconds: (spent.user + spent.system - servers) / 1e6,
    longest_pause_ms: Math.round(delay.max / 1e5) / 10,
    requests: monitoring.counters.sent - sent,
    megabytes: Math.round((monitoring.counters.sentBytes - sentBytes) / 1e6),
  };
  process.stdout.write(`${JSON.stringify(row)}\n`);
  nodes.stop();
  monitoring.stop();
  await peers?.close();
  server?.kill();
}

if (process.argv[2] === 'serve') await serve(Buffer.from(process.argv[3]!, 'hex'));
else await bench(Number(process.argv[2] ?? 1_000_000), process.argv.includes('--sockets'));
