import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { connect, type Socket } from 'node:net';
import type { TestContext } from 'node:test';
import { systemClock } from '../../src/clock.ts';
import { PublicListener, type PublicListenerOptions } from '../../src/oxenmq/public-listener.ts';
import type { Commands } from '../../src/oxenmq/remote.ts';
import { once } from '../support/once.ts';
import { GREETING, ready } from './raw-zmtp.ts';

/** Offers `push.echo`, and `admin.stop`, which nobody may call. */
export const echo: Commands = {
  push: {
    access: 'none',
    commands: { echo: { kind: 'request', handler: (message) => message.reply(...message.parts) } },
  },
  admin: { access: 'admin', commands: { stop: { kind: 'request', handler: () => assert.fail('not allowed') } } },
};

/** A listener that is bound, and closed at the end of the test. */
export async function openPublic(
  t: TestContext,
  options: Partial<PublicListenerOptions> = {},
): Promise<PublicListener> {
  const listener = new PublicListener({
    clock: systemClock,
    random: randomBytes,
    address: 'tcp://127.0.0.1:*',
    access: 'none',
    commands: echo,
    maxMessageSize: 1024 * 1024,
    maxConnections: 100,
    inFlight: 16,
    ...options,
  });
  await listener.bind();
  t.after(() => listener.close());
  return listener;
}

export function plainSocket(endpoint: string, localAddress = '127.0.0.1'): Socket {
  const socket = connect({ host: '127.0.0.1', port: Number(endpoint.split(':').at(-1)), localAddress });
  socket.on('error', () => {});
  return socket;
}

/**
 * Waits until the client has been given this text, beginning with what has not been read of it. A message of several
 * frames may come in several pieces.
 */
export async function receive(client: Socket, text: string): Promise<string> {
  let received = '';
  while (!received.includes(text)) received += String(await once(client, 'data'));
  return received;
}

/** A client after a plain handshake. */
export async function enter(endpoint: string, localAddress?: string): Promise<Socket> {
  const socket = plainSocket(endpoint, localAddress);
  await once(socket, 'connect');
  socket.setEncoding('latin1').write(Buffer.concat([GREETING, ready('DEALER', '')]));
  await receive(socket, 'READY');
  return socket;
}

/** A client after a plain handshake, and the listener's end of its connection, for what only that shows. */
export async function enterSeen(endpoint: string): Promise<{ client: Socket; served: Socket }> {
  const accepted: Socket[] = [];
  const note = (message: unknown) => accepted.push((message as { socket: Socket }).socket);
  subscribe('net.server.socket', note);
  const client = await enter(endpoint);
  unsubscribe('net.server.socket', note);
  return { client, served: accepted.find(({ remotePort }) => remotePort === client.localPort)! };
}
