import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { createServer } from 'node:net';
import os, { hostname, networkInterfaces, tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { systemClock } from '../../src/clock.ts';
import { zmqAddress } from '../../src/oxenmq/address.ts';
import { connectAddress, formatBindAddress, parseBindAddress } from '../../src/oxenmq/bind-address.ts';
import { Listener } from '../../src/oxenmq/listener.ts';
import { PublicListener } from '../../src/oxenmq/public-listener.ts';
import type { Commands } from '../../src/oxenmq/remote.ts';
import { openPeers } from './support.ts';

/** Whether one can listen there now. */
function isFree(address: { host?: string; port: number }): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(false));
    server.listen(address, () => server.close(() => resolve(true)));
  });
}

async function firstFree(port: number): Promise<number> {
  return (await isFree({ port })) ? port : firstFree(port + 1);
}

/** Of all addresses, below those that the kernel gives out and above those that other tests listen on. */
const port = await firstFree(23_000 + (process.pid % 7_000));
const folder = mkdtempSync(join(tmpdir(), 'spns-bind-'));
process.chdir(folder);

const hasIpv6 = await isFree({ host: '::1', port: 0 });
const [loopback] = Object.entries(networkInterfaces()).find(([, all]) =>
  all!.some(({ address }) => address === '127.0.0.1'),
)!;
const [other] = Object.entries(networkInterfaces()).find(([name]) => name !== loopback) ?? [];

/** Each form, and where it is connected to. */
const FORMS: readonly (readonly [bound: string, connected: string])[] = [
  [`tcp://127.0.0.1:${port}`, `tcp://127.0.0.1:${port}`],
  [`tcp://*:${port}`, `tcp://127.0.0.1:${port}`],
  [`tcp://0.0.0.0:${port}`, `tcp://127.0.0.1:${port}`],
  [`tcp://localhost:${port}`, `tcp://127.0.0.1:${port}`],
  [`tcp://${loopback}:${port}`, `tcp://127.0.0.1:${port}`],
  [`tcp://127.0.0.1:0${port}`, `tcp://127.0.0.1:${port}`],
  ...(other ? [[`tcp://${other}:${port}`, `tcp://${parse(`tcp://${other}:1`)}:${port}`] as const] : []),
  [`tcp://${hostname()}:${port}`, `tcp://${hostname()}:${port}`],
  ...(hasIpv6
    ? ([
        [`tcp://[::]:${port}`, `tcp://127.0.0.1:${port}`],
        [`tcp://[0::0]:${port}`, `tcp://127.0.0.1:${port}`],
        [`tcp://[::1]:${port}`, `tcp://[::1]:${port}`],
        [`tcp://[0:0:0:0:0:0:0:1]:${port}`, `tcp://[::1]:${port}`],
        [`tcp://[::ffff:127.0.0.1]:${port}`, `tcp://[::ffff:7f00:1]:${port}`],
      ] as const)
    : []),
  ['ipc://./relative.sock', 'ipc://./relative.sock'],
  ['ipc://relative.sock', 'ipc://relative.sock'],
  [`ipc://${folder}/with a blank.sock`, `ipc://${folder}/with a blank.sock`],
  [`ipc://${folder}/${'l'.repeat(106 - folder.length)}`, `ipc://${folder}/${'l'.repeat(106 - folder.length)}`],
  [`ipc://@spns-test-${port}`, `ipc://@spns-test-${port}`],
];

function parse(text: string): string {
  const address = parseBindAddress(text);
  return address.protocol === 'tcp' ? (address.host.includes(':') ? `[${address.host}]` : address.host) : '';
}

describe('every address that can be bound can be connected to, over libzmq and over our own sockets', () => {
  for (const [bound, connected] of FORMS) {
    for (const Kind of [Listener, PublicListener]) {
      test(`${bound.replace(folder, '')} (${Kind.name})`, async (t) => {
        assert.equal(zmqAddress(connectAddress(bound)), connected);
        const commands: Commands = {
          test: {
            access: 'none',
            commands: { echo: { kind: 'request', handler: (message) => message.reply(...message.parts) } },
          },
        };
        const listener = new Kind({
          clock: systemClock,
          random: randomBytes,
          address: bound,
          access: 'none',
          commands,
          maxConnections: 10,
          inFlight: 10,
          maxMessageSize: 1000,
        });
        await listener.bind();
        t.after(() => listener.close());
        const connection = openPeers(t).peers.connect(connectAddress(bound));
        assert.deepEqual((await connection.request('test.echo', ['there'], 30_000)).map(String), ['there']);
      });
    }
  }
  test.after(() => rmSync(folder, { recursive: true }));
});

test('what cannot be bound, or could not be reached, is refused with a sentence', () => {
  for (const [text, sentence] of [
    ['tcp://127.0.0.1:*', /must name its port/],
    ['tcp://127.0.0.1:0', /must name its port/],
    ['tcp://127.0.0.1:65536', /65535 at most/],
    ['tcp://127.0.0.1:99999', /65535 at most/],
    ['tcp://127.0.0.1', /such as tcp:/],
    ['tcp://127.0.0.1:', /end in a colon and a port/],
    ['tcp://127.0.0.1:22028x', /end in a colon and a port/],
    ['tcp://:22028', /such as tcp:/],
    ['tcp://::1:22028', /in brackets/],
    ['tcp://[::1:22028', /must name \*/],
    ['tcp://[lo]:22028', /IPv6 address/],
    ['tcp://[*]:22028', /IPv6 address/],
    ['tcp://[127.0.0.1]:22028', /IPv6 address/],
    ['tcp://[fe80::1%lo]:22028', /no zone/],
    ['tcp://127.1:22028', /must name \*/],
    ['tcp://0:22028', /must name \*/],
    ['tcp://2130706433:22028', /must name \*/],
    ['tcp://224.0.0.1:22028', /multicast/],
    ['tcp://[ff02::1]:22028', /multicast/],
    ['tcp://a b:22028', /must name \*/],
    ['tcp://127.0.0.1;127.0.0.2:22028', /must name \*/],
    ['udp://127.0.0.1:22028', /such as tcp:/],
    ['ipc://', /must name the path/],
    ['ipc://@', /must name the path/],
    ['ipc://*', /generated/],
    ['ipc:///run/spns/', /not a folder/],
    [`ipc:///${'x'.repeat(107)}`, /107 bytes at most/],
  ] as const) {
    assert.throws(() => connectAddress(text), { name: 'AddressError', message: sentence }, text);
  }
});

test('the name of an interface stands for its first IPv4 address, or else for its first address', (t) => {
  const address = (family: string, address: string) => ({ family, address });
  t.mock.method(os, 'networkInterfaces', () => ({
    six: [address('IPv6', 'fd00::6'), address('IPv6', 'fd00::7')],
    both: [address('IPv6', 'fd00::6'), address('IPv4', '192.0.2.4'), address('IPv4', '192.0.2.5')],
  }));
  syncBuiltinESMExports();
  t.after(() => {
    t.mock.restoreAll();
    syncBuiltinESMExports();
  });
  assert.equal(formatBindAddress(parseBindAddress('tcp://six:1')), 'tcp://[fd00::6]:1');
  assert.equal(formatBindAddress(parseBindAddress('tcp://both:1')), 'tcp://192.0.2.4:1');
});

test('a path is connected to as it was bound', () => {
  assert.deepEqual(connectAddress('ipc:///run/s'), { protocol: 'ipc', path: '/run/s' });
});

test('a listener itself may bind any port', () => {
  assert.equal(formatBindAddress(parseBindAddress('tcp://127.0.0.1:65535')), 'tcp://127.0.0.1:65535');
  assert.equal(formatBindAddress(parseBindAddress('tcp://*:*')), 'tcp://0.0.0.0:0');
});
