import type { Socket } from 'node:net';
import type { FastifyInstance, FastifyRequest } from 'fastify';
import type { Clock } from '../clock.ts';
import { type ConnectionLimit, type LimitedConnection, networkOf } from '../connection-limit.ts';

/** Memory that each chunk of a body takes besides its bytes; a client may send single bytes. */
const CHUNK = 512;

/**
 * How many requests of one connection are answered in one turn of the event loop; a client that pipelines more is cut
 * off, since a thousand may come in one packet.
 */
const REQUESTS_A_TURN = 16;

/**
 * Holds an HTTP server's connections and their unfinished requests to a limit. A connection may be closed to make room
 * while it is idle, while its request is still arriving, or while it does not read its answer; but never while its
 * request is being worked on.
 */
export function limitConnections(server: FastifyInstance, limit: ConnectionLimit, clock: Clock): void {
  const connections = new WeakMap<Socket, LimitedConnection>();
  const connectionOf = (request: FastifyRequest) => connections.get(request.raw.socket);

  server.server.on('connection', (socket: Socket) => {
    const connection: LimitedConnection = {
      network: networkOf(socket.remoteAddress),
      lastActive: clock.monotonic(),
      bytes: 0,
      busy: false,
      close: () => socket.destroy(),
    };
    connections.set(socket, connection);
    socket.once('close', () => limit.release(connection));
    if (!limit.admit(connection)) socket.destroy();
  });

  let turn = new Map<Socket, number>();
  server.addHook('onRequest', (request, reply, done) => {
    const { socket } = request.raw;
    if (turn.size === 0) setImmediate(() => (turn = new Map()));
    const requests = (turn.get(socket) ?? 0) + 1;
    turn.set(socket, requests);
    if (requests <= REQUESTS_A_TURN) {
      done();
      return;
    }
    socket.destroy();
    reply.hijack();
  });
  server.addHook('preParsing', (request, _reply, payload, done) => {
    const connection = connectionOf(request);
    if (connection)
      payload.on('data', (chunk: Buffer) => limit.hold(connection, connection.bytes + chunk.length + CHUNK));
    // At once, so that Fastify listens, too, before the first byte is emitted.
    done(null, payload);
  });
  server.addHook('preValidation', (request, reply, done) => {
    const connection = connectionOf(request);
    if (connection) {
      connection.busy = true;
      reply.raw.once('close', () => {
        connection.busy = false;
        connection.lastActive = clock.monotonic();
        limit.hold(connection, 0);
      });
    }
    done();
  });
  server.addHook('onSend', (request, _reply, payload: unknown, done) => {
    const connection = connectionOf(request);
    if (connection) {
      // Now we wait for the client, so it may be closed to make room.
      connection.busy = false;
      connection.lastActive = clock.monotonic();
      limit.hold(connection, payload instanceof Uint8Array ? payload.length : 0);
    }
    done();
  });
}
