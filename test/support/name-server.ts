import { createSocket } from 'node:dgram';
import { isIPv6 } from 'node:net';
import type { TestContext } from 'node:test';
import { once } from './once.ts';

/** What a name resolves to now: addresses of either family, none if there is no such name, or no answer at all. */
export type Answers = (name: string) => readonly string[] | 'hang';

const TYPES: Readonly<Record<number, 4 | 6>> = { 1: 4, 28: 6 };
const NO_SUCH_NAME = 3;

/**
 * A name server (RFC 1035) over UDP on 127.0.0.1, which ends with the test.
 * @returns `address:port`, and the names that it was asked for
 */
export async function startNameServer(t: TestContext, answers: Answers): Promise<{ address: string; asked: string[] }> {
  const asked: string[] = [];
  const socket = createSocket('udp4');
  socket.on('message', (query, from) => {
    const labels: string[] = [];
    let at = 12;
    for (let length = query[at]!; length > 0; length = query[at]!) {
      labels.push(query.toString('latin1', at + 1, at + 1 + length));
      at += 1 + length;
    }
    const name = labels.join('.').toLowerCase();
    const question = query.subarray(12, at + 5);
    const family = TYPES[query.readUInt16BE(at + 1)];
    asked.push(name);
    const all = answers(name);
    if (all === 'hang') return;
    const records = all.filter((address) => isIPv6(address) === (family === 6)).map(record);
    const head = Buffer.alloc(12);
    query.copy(head, 0, 0, 2);
    head.writeUInt16BE(0x8180 | (all.length === 0 ? NO_SUCH_NAME : 0), 2);
    head.writeUInt16BE(1, 4);
    head.writeUInt16BE(records.length, 6);
    socket.send(Buffer.concat([head, question, ...records]), from.port, from.address);
  });
  socket.bind(0, '127.0.0.1');
  await once(socket, 'listening');
  t.after(() => socket.close());
  return { address: `127.0.0.1:${socket.address().port}`, asked };
}

/** A record for the name in question, with a TTL of 0. */
function record(address: string): Buffer {
  const data = isIPv6(address) ? ipv6Bytes(address) : Buffer.from(address.split('.').map(Number));
  const head = Buffer.from([0xc0, 12, 0, isIPv6(address) ? 28 : 1, 0, 1, 0, 0, 0, 0, 0, data.length]);
  return Buffer.concat([head, data]);
}

/** @param address without a dotted part */
function ipv6Bytes(address: string): Buffer {
  const [head = '', tail] = address.split('::');
  const groups = (half = '') => (half === '' ? [] : half.split(':'));
  const missing = tail === undefined ? 0 : 8 - groups(head).length - groups(tail).length;
  const all = [...groups(head), ...Array<string>(missing).fill('0'), ...groups(tail)];
  return Buffer.from(all.map((group) => group.padStart(4, '0')).join(''), 'hex');
}
