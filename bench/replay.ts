import { type ChildProcess, fork } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { groupAccount } from '../src/devnet/account.ts';
import { randomKeyPair, toZ85 } from '../src/oxenmq/keys.ts';
import { openRouter, quietly, receiveAll } from '../src/oxenmq/socket.ts';
import { monitorMessage } from '../src/session/subscription.ts';
import { cpuSeconds, percentOfACore } from './cpu.ts';
import { SAMPLED, type ServerAddress, type StorageServers, SWARM_SIZE } from './storage-servers.ts';
import { round } from './world.ts';

/** As the hivemind does: dicts in a request. */
const IN_A_REQUEST = 2000;

interface Task {
  readonly servers: readonly ServerAddress[];
  /** Monitors that each of them is asked for. */
  readonly each: number;
}

/**
 * Asks storage servers for as many monitors as a hivemind with so many subscriptions, from a process of its own that
 * does nothing but send: requests of the same size, made beforehand, the next to a server on its answer. Nobody can be
 * faster here: it is libzmq on both sides, and the servers.
 *
 * @param rest for how many seconds it is watched afterwards, when it only keeps its connections
 */
export async function replay(servers: StorageServers, subscriptions: number, rest?: number): Promise<object> {
  const child = fork(import.meta.filename);
  try {
    const each = Math.ceil((subscriptions * SWARM_SIZE) / servers.addresses.length);
    const task: Task = { servers: servers.addresses, each };
    await told(child, task);
    const pid = child.pid as number;
    const before = [cpuSeconds(pid), cpuSeconds(pid, true), servers.cpuSeconds()] as const;
    const start = performance.now();
    await told(child, 'go');
    const seconds = (performance.now() - start) / 1000;
    return {
      seconds: round(seconds),
      cpu_seconds: {
        sender: round(cpuSeconds(pid) - before[0]),
        main_thread: round(cpuSeconds(pid, true) - before[1]),
        storage_servers: round(servers.cpuSeconds() - before[2]),
      },
      ...(rest && { at_rest_percent: round((await percentOfACore(pid, rest)).all) }),
    };
  } finally {
    child.kill();
    await once(child, 'exit');
  }
}

/** Tells the process something, and waits for its word. */
async function told(child: ChildProcess, message: Task | 'go'): Promise<void> {
  child.send(message);
  const [word] = await Promise.race([once(child, 'message'), once(child, 'exit')]);
  if (word !== 'done') throw new Error(`the process that asks ended with ${word}`);
}

/** A request for so many groups, of which the servers check the sample's signatures. */
function makeRequest(count: number): Buffer {
  const even = Math.floor(Date.now() / 2000) * 2;
  const elements = Array.from({ length: count }, (_, index) => {
    const isSampled = index % SAMPLED === 0;
    const signedAt = isSampled ? even - 1 : even;
    const group = isSampled ? groupAccount(randomBytes) : undefined;
    const account = group?.id ?? Buffer.concat([Buffer.of(3), randomBytes(32)]);
    const unsigned = { account, sessionEd25519: null, subaccount: null, namespaces: [0], wantData: true, signedAt };
    const signature = group?.sign(monitorMessage({ ...unsigned, signature: Buffer.alloc(0) })) ?? randomBytes(64);
    const [head, middle, tail] = ['d1:di1e1:nli0ee1:p33:', '1:s64:', `1:ti${signedAt}ee`].map((s) => Buffer.from(s));
    return Buffer.concat([head!, account, middle!, signature, tail!]);
  });
  return Buffer.concat([Buffer.from('l'), ...elements, Buffer.from('e')]);
}

function ask({ servers, each }: Task, isConnected: () => void): (isOver: () => void) => void {
  const socket = openRouter(10 * 1024 * 1024, 0);
  const keys = randomKeyPair();
  socket.curvePublicKey = toZ85(keys.publicKey);
  socket.curveSecretKey = toZ85(keys.secretKey);
  const whole = makeRequest(Math.min(each, IN_A_REQUEST));
  const last = makeRequest(each % IN_A_REQUEST);
  const left = new Map(servers.map(({ publicKey }) => [publicKey, each]));
  let [greeted, over] = [0, 0];
  let isOver = () => {};
  const next = (key: string) => {
    const count = left.get(key) ?? 0;
    if (count <= 0) {
      if (++over === servers.length) isOver();
      return;
    }
    left.set(key, count - IN_A_REQUEST);
    void socket.send([key, 'monitor.messages', randomBytes(15), count >= IN_A_REQUEST ? whole : last]);
  };
  const take = ([key, word]: Buffer[]) => {
    if (word?.toString('latin1') === 'REPLY') next(key?.toString('latin1') ?? '');
    else if (++greeted === servers.length) isConnected();
  };
  const failed = (error: Error) => {
    throw error;
  };
  void receiveAll(socket, take, failed);
  for (const { host, port, publicKey } of servers) {
    quietly(() => {
      socket.curveServerKey = toZ85(Buffer.from(publicKey, 'hex'));
      socket.routingId = 'bench';
      socket.connect(`tcp://${host}:${port}`, { routingId: publicKey });
    });
    void socket.send([publicKey, 'HI']);
  }
  return (done) => {
    isOver = done;
    for (const { publicKey } of servers) next(publicKey);
  };
}

if (process.argv[1] === import.meta.filename) {
  process.on('disconnect', () => process.exit());
  const done = () => void process.send?.('done');
  process.once('message', (task) => {
    const go = ask(task as Task, done);
    process.once('message', () => go(done));
  });
}
