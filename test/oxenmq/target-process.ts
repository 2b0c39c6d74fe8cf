/**
 * A process of its own with a listener, or with peers, for what may end one: it prints the address, or obeys what it is
 * told.
 */

import { systemClock } from '../../src/clock.ts';
import { parseAddress } from '../../src/oxenmq/address.ts';
import { Listener } from '../../src/oxenmq/listener.ts';
import { Peers } from '../../src/oxenmq/peers.ts';
import { busy } from '../support/busy.ts';

const PART = Buffer.alloc(5_000, 'x');

const [role, address] = process.argv.slice(2) as ['listener' | 'peers' | 'talkers' | 'impatient', string];
if (role === 'listener') {
  const commands = {
    ping: {
      access: 'none' as const,
      commands: { ping: { kind: 'request' as const, handler: (m: { reply(p: string): void }) => m.reply('pong') } },
    },
  };
  const listener = new Listener({ clock: systemClock, address, access: 'admin', commands });
  await listener.bind();
  process.stdout.write(`${listener.endpoint}\n`);
} else {
  let failures = 0;
  const connect = () => peers.connect(parseAddress(address));
  const peers = new Peers({
    clock: systemClock,
    commands: {},
    // The impatient gives up servers while it has more to read from them than it can.
    ...(role === 'impatient' && { helloTimeout: 100 }),
    on: {
      ...(role === 'impatient' && { stray: () => busy(0.05) }),
      // More than fits between the two, so that a message is half sent while the other side does not read.
      hello: (connection) => {
        if (role !== 'talkers') return;
        for (let i = 0; i < 900; i++) connection.send('some.command', PART, PART, PART);
      },
      failure: () => {
        failures++;
        connect();
      },
    },
  });
  for (let i = 0; i < { peers: 50, talkers: 8, impatient: 3 }[role]; i++) connect();
  process.stdout.write('connecting\n');
  process.on('message', () => process.send?.(failures));
}
// Ends with the test that started it.
process.on('disconnect', () => process.exit(0));
