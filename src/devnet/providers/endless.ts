import type { Writable } from 'node:stream';

/** How a body never ends: as fast as it is read, or a byte at a time. */
export type Endless = 'flood' | 'drip';

const DROP_MS = 20;
const CHUNK = Buffer.alloc(16_384, 'x');

/** Writes such a body until the stream is closed. */
export function pour(stream: Writable, how: Endless): void {
  if (how === 'drip') {
    const timer = setInterval(() => stream.write(' '), DROP_MS);
    stream.once('close', () => clearInterval(timer));
    return;
  }
  const more = () => {
    while (!stream.destroyed && stream.write(CHUNK));
  };
  stream.on('drain', more);
  more();
}
