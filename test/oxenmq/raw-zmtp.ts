/**
 * ZMTP 3.1 without encryption, byte by byte, for peers that libzmq would not be: docs/spec/oxenmq.md and ZeroMQ RFC 37.
 */

const SIGNATURE = Buffer.from([0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0x7f, 3, 1]);

export const GREETING = Buffer.concat([SIGNATURE, Buffer.from('NULL'.padEnd(20, '\0')), Buffer.alloc(32)]);

export const PING = command('PING', Buffer.from([0, 0]));

export function ready(socketType: string, identity: string): Buffer {
  return command('READY', Buffer.concat([property('Socket-Type', socketType), property('Identity', identity)]));
}

/** One frame of a message. @param more whether another one follows */
export function frame(body: string | Uint8Array, more = false): Buffer {
  const bytes = Buffer.from(body as string);
  if (bytes.length < 256) return Buffer.concat([Buffer.from([more ? 1 : 0, bytes.length]), bytes]);
  const head = Buffer.alloc(9);
  head[0] = more ? 3 : 2;
  head.writeUInt32BE(bytes.length, 5);
  return Buffer.concat([head, bytes]);
}

function command(name: string, data: Buffer): Buffer {
  const body = Buffer.concat([Buffer.from([name.length]), Buffer.from(name), data]);
  return Buffer.concat([Buffer.from([4, body.length]), body]);
}

function property(name: string, value: string): Buffer {
  return Buffer.concat([
    Buffer.from([name.length]),
    Buffer.from(name),
    Buffer.from([0, 0, 0, value.length]),
    Buffer.from(value),
  ]);
}
