import type { AddressInfo } from 'node:net';
import type { TestContext } from 'node:test';
import { createServer, type TLSSocket } from 'node:tls';
import { serverCertificate } from '../../src/devnet/providers/certificates.ts';

/** Frame types of HTTP/2 (RFC 9113, section 6). */
export const FRAME = { data: 0, headers: 1, reset: 3, settings: 4, ping: 6, goaway: 7, continuation: 9 } as const;
export const END_HEADERS = 4;
export const END_STREAM = 1;
/** The header block `:status: 200`, and one that may be repeated for as long as one likes: `x: y`. */
export const STATUS_200 = Buffer.from([0x88]);
export const FIELD = Buffer.from([0x00, 0x01, 0x78, 0x01, 0x79]);

/** @param type one of {@link FRAME} */
export function frame(type: number, flags: number, stream: number, payload: Uint8Array = Buffer.alloc(0)): Buffer {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head[3] = type;
  head[4] = flags;
  head.writeUInt32BE(stream, 5);
  return Buffer.concat([head, payload]);
}

/** Numbers of 32 bits, one after the other, as most frames hold them. */
export function words(...values: number[]): Buffer {
  const out = Buffer.alloc(values.length * 4);
  for (const [index, value] of values.entries()) out.writeUInt32BE(value, index * 4);
  return out;
}

const PREFACE = 24;

/**
 * A TLS server that speaks HTTP/2 by hand, to say what no library would.
 * @param onFrame called with each frame that comes, on which connection
 * @param protocol offered in the handshake (ALPN)
 * @returns its port
 */
export async function startRawServer(
  t: TestContext,
  onFrame: (socket: TLSSocket, type: number, stream: number) => void,
  protocol = 'h2',
): Promise<number> {
  const sockets = new Set<TLSSocket>();
  const server = createServer({ ...serverCertificate(), ALPNProtocols: [protocol] }, (socket) => {
    sockets.add(socket);
    socket.on('error', () => {});
    socket.on('close', () => sockets.delete(socket));
    let rest: Buffer = Buffer.alloc(0);
    let skip = PREFACE;
    if (protocol === 'h2') socket.write(frame(FRAME.settings, 0, 0));
    socket.on('data', (chunk: Buffer) => {
      if (protocol !== 'h2') {
        onFrame(socket, -1, 0);
        return;
      }
      rest = Buffer.concat([rest, chunk]);
      if (skip > 0 && rest.length >= skip) {
        rest = rest.subarray(skip);
        skip = 0;
      }
      while (skip === 0 && rest.length >= 9 && rest.length >= 9 + rest.readUIntBE(0, 3)) {
        const [type, stream] = [rest[3]!, rest.readUInt32BE(5)];
        rest = rest.subarray(9 + rest.readUIntBE(0, 3));
        onFrame(socket, type, stream);
      }
    });
  });
  server.on('tlsClientError', () => {});
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return (server.address() as AddressInfo).port;
}

/** Writes the same bytes again and again until the connection ends. */
export function flood(socket: TLSSocket, bytes: Buffer): void {
  const more = () => {
    while (!socket.destroyed && socket.write(bytes));
  };
  socket.on('drain', more);
  more();
}
