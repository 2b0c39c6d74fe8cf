/** A storage server that, once it is asked for anything, sends notifications as fast as libzmq takes them. */

import { randomKeyPair, toZ85 } from '../../../src/oxenmq/keys.ts';
import { openRouter, receiveAll } from '../../../src/oxenmq/socket.ts';

const BODY = Buffer.alloc(300, 'x');

const keys = randomKeyPair();
const socket = openRouter(10 * 1024 * 1024, 0);
socket.curveServer = true;
socket.curveSecretKey = toZ85(keys.secretKey);
// Waits while the queue is full.
socket.sendTimeout = -1;
await socket.bind('tcp://127.0.0.1:*');

async function flood(id: Buffer): Promise<void> {
  // Until whom it is sent to is gone.
  for (;;) await socket.send([id, 'notify.message', BODY]);
}

const take = ([id, name]: Buffer[]) => {
  if (!id) return;
  if (name?.toString() === 'HI') void socket.send([id, 'HELLO']);
  else flood(id).catch(() => undefined);
};
void receiveAll(socket, take, (error) => {
  throw error;
});
process.send?.({ port: Number(new URL(socket.lastEndpoint ?? '').port), publicKey: keys.publicKey.toString('hex') });
process.on('disconnect', () => process.exit(0));
