import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { closed, ended, once } from '../support/once.ts';
import { frame, GREETING, PING, ready } from './raw-zmtp.ts';
import { greet, rawClient, temporaryDirectory } from './support.ts';

/** More messages than libzmq puts into a queue of its default length, and commands that it answers among them. */
const BURST = Buffer.concat(Array.from({ length: 4000 }, (_, i) => (i % 20 === 19 ? PING : frame('x.y'))));

async function target(
  t: TestContext,
  role: string,
  address: string,
): Promise<{ child: ChildProcess; line: string; ended: Promise<number | NodeJS.Signals> }> {
  const child = spawn(process.execPath, [join(import.meta.dirname, 'target-process.ts'), role, address], {
    stdio: ['ignore', 'pipe', 'inherit', 'ipc'],
  });
  t.after(() => child.kill('SIGKILL'));
  const end = ended(child);
  const [text] = await Promise.race([
    once(child.stdout!.setEncoding('utf8'), 'data'),
    end.then((how) => assert.fail(`ended with ${how}`)),
  ]);
  return { child, line: String(text).trim(), ended: end };
}

function open(endpoint: string): Socket {
  const path = endpoint.startsWith('ipc://') ? endpoint.slice(6) : undefined;
  const socket = path ? connect(path) : connect(Number(endpoint.split(':').at(-1)), '127.0.0.1');
  socket.on('error', () => {});
  socket.on('connect', () => socket.write(GREETING));
  return socket;
}

/** Connects, sends the burst and hangs up in the midst of it. */
function hitAndRun(endpoint: string): Promise<void> {
  return burst(open(endpoint), 'DEALER');
}

/** Connects under a routing id, and waits until the listener's own READY shows that it has been taken note of. */
async function enter(endpoint: string, routingId: string): Promise<Socket> {
  const socket = open(endpoint);
  let received = Buffer.alloc(0);
  socket.on('data', (data) => (received = Buffer.concat([received, data])));
  socket.on('connect', () => socket.write(ready('DEALER', routingId)));
  while (!received.includes('READY')) await once(socket, 'data');
  return socket;
}

async function burst(socket: Socket, type: string): Promise<void> {
  let received = 0;
  socket.on('error', () => {});
  socket.on('data', (data) => {
    const before = received;
    received += data.length;
    if (before >= GREETING.length || received < GREETING.length) return;
    socket.write(Buffer.concat([ready(type, `id-${Math.random()}`), BURST]), () => {
      setTimeout(() => (socket.remoteAddress ? socket.resetAndDestroy() : socket.destroy()), Math.random() * 3);
    });
  });
  await closed(socket);
}

for (const kind of ['ipc', 'tcp'] as const) {
  test(`clients that flood a listener (${kind}) and hang up do not end the process`, async (t) => {
    const address = kind === 'tcp' ? 'tcp://127.0.0.1:*' : `ipc://${await temporaryDirectory(t)}/s`;
    const { line: endpoint, ended } = await target(t, 'listener', address);
    const attack = async () => {
      for (let i = 0; i < 50; i++) await hitAndRun(endpoint);
    };
    const attacks = Promise.all(Array.from({ length: 10 }, attack));
    await Promise.race([attacks, ended.then((how) => assert.fail(`the process ended with ${how}`))]);
    await greet(rawClient(t, endpoint));
  });

  test(`clients that share one routing id (${kind}) do not end the process, thousands of times`, async (t) => {
    const address = kind === 'tcp' ? 'tcp://127.0.0.1:*' : `ipc://${await temporaryDirectory(t)}/s`;
    const { line: endpoint, ended } = await target(t, 'listener', address);
    let over = false;
    void ended.then(() => (over = true));
    const fight = async (routingId: Buffer, rounds: number, messages: number) => {
      for (let round = 0; round < rounds && !over; round++) {
        const socket = rawClient(t, endpoint, { routingId });
        for (let i = 0; i < messages && !over; i++) {
          await socket.send(['x.y', 'a', 'b']).catch(() => {});
          if (i % 4 === 0) await turn();
        }
        socket.close();
      }
    };
    const [one, two] = [Buffer.from('one'), Buffer.from('two')];
    await Promise.all([
      fight(one, 1, 30_000),
      fight(one, 1, 30_000),
      fight(one, 1000, 20),
      fight(two, 1000, 20),
      fight(two, 1000, 20),
      fight(two, 1000, 20),
    ]);
    assert.ok(!over, 'the process ended');
    await greet(rawClient(t, endpoint));
  });
}

test('clients whose routing id others take over, and who go on sending and hang up, do not end the process', async (t) => {
  const attack = async (kind: 'ipc' | 'tcp') => {
    const address = kind === 'tcp' ? 'tcp://127.0.0.1:*' : `ipc://${await temporaryDirectory(t)}/s`;
    const { line: endpoint, ended } = await target(t, 'listener', address);
    const ids = Array.from({ length: 50 }, (_, i) => `id ${i}`);
    const earlier = await Promise.all(ids.map((id) => enter(endpoint, id)));
    const later = await Promise.all(ids.map((id) => enter(endpoint, id)));
    for (const socket of [...earlier, ...later]) {
      socket.write(BURST, () => (kind === 'tcp' ? socket.resetAndDestroy() : socket.destroy()));
    }
    // The listener's next heartbeat is when it would end: the last to come gets his after all others.
    const witness = await enter(endpoint, 'witness');
    const heartbeat = new Promise<void>((resolve) => {
      witness.on('data', (data) => data.includes('PING') && resolve());
    });
    await Promise.race([heartbeat, ended.then((how) => assert.fail(`the process ended with ${how}`))]);
    witness.destroy();
    await greet(rawClient(t, endpoint));
  };
  await Promise.all([attack('ipc'), attack('tcp')]);
});

test('servers that flood us and hang up do not end the process', async (t) => {
  let hits = 0;
  let enough = () => {};
  const done = new Promise<void>((resolve) => (enough = resolve));
  const server = createServer((socket) => {
    socket.write(GREETING);
    void burst(socket, 'ROUTER').then(() => ++hits === 500 && enough());
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => server.close());
  const { port } = server.address() as AddressInfo;
  const { child, ended } = await target(t, 'peers', `tcp://127.0.0.1:${port}`);
  await Promise.race([done, ended.then((how) => assert.fail(`the process ended with ${how}`))]);
  child.send('still there?');
  await once(child, 'message');
});

test('servers that do not read what we send, say BYE and hang up do not end the process', async (t) => {
  let hits = 0;
  let enough = () => {};
  const done = new Promise<void>((resolve) => (enough = resolve));
  const server = createServer((socket) => {
    socket.on('error', () => {});
    socket.write(GREETING);
    let received = 0;
    const greet = (data: Buffer) => {
      received += data.length;
      if (received < GREETING.length) return;
      socket.off('data', greet).pause();
      socket.write(Buffer.concat([ready('ROUTER', ''), frame('HELLO')]));
      setTimeout(() => {
        const end = performance.now() + Math.random() * 3;
        socket.write(frame('BYE'));
        // Within the same few milliseconds as the other side's disconnect.
        const hangUp = () => {
          if (performance.now() < end) return setImmediate(hangUp);
          socket.resetAndDestroy();
          return ++hits === 250 && enough();
        };
        hangUp();
      }, 200);
    };
    socket.on('data', greet);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => server.close());
  const { port } = server.address() as AddressInfo;
  const { child, ended } = await target(t, 'talkers', `tcp://127.0.0.1:${port}`);
  await Promise.race([done, ended.then((how) => assert.fail(`the process ended with ${how}`))]);
  child.send('still there?');
  await once(child, 'message');
});

test('servers that send more than is read and are given up meanwhile do not end the process', async (t) => {
  let given = 0;
  let enough = () => {};
  const done = new Promise<void>((resolve) => (enough = resolve));
  const server = createServer((socket) => {
    // Never HELLO, and messages of several parts without end.
    const message = Buffer.concat([frame('xy', true), frame('a', true), frame('b')]);
    const messages = Buffer.concat(Array.from({ length: 1000 }, () => message));
    let isGreeted = false;
    const send = () => {
      while (socket.writable && socket.write(messages));
    };
    socket.on('error', () => {});
    socket.on('drain', send);
    socket.on('data', () => {
      if (isGreeted) return;
      isGreeted = true;
      socket.write(ready('ROUTER', ''));
      send();
    });
    socket.on('close', () => ++given === 60 && enough());
    socket.write(GREETING);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => server.close());
  const { port } = server.address() as AddressInfo;
  const { child, ended } = await target(t, 'impatient', `tcp://127.0.0.1:${port}`);
  await Promise.race([done, ended.then((how) => assert.fail(`the process ended with ${how}`))]);
  child.send('still there?');
  await once(child, 'message');
});
