// biome-ignore-all lint/suspicious/noTemplateCurlyInString: what is judged here is source code
import { JUDGED_IN_PROTOCOLS } from './judged-protocols.ts';
import type { Mutant } from './mutants.ts';

export interface Judged {
  readonly file: string;
  /** as `npm run mutate` prints it */
  readonly change: string;
  readonly why: string;
}

/** Changes that somebody has looked at and found to make no difference. A test holds each to a line that is there. */
export const JUDGED_EQUAL: readonly Judged[] = [
  ...JUDGED_IN_PROTOCOLS,
  {
    file: 'src/hivemind/devices/devices.ts',
    change:
      'let hash = Math.imul(a ^ Math.imul(b, 0x9e3779b1), 0x85ebca6b);  →  ' +
      'let hash = Math.imul(a ^ Math.imul(b, 2654435762), 0x85ebca6b);',
    why: 'another mixture of the same bits finds the same',
  },
  {
    file: 'src/hivemind/devices/hash-index.ts',
    change:
      'if (table.length > FIRST_SLOTS * 2 && count * 16 < table.length) this.#resize(which, table.length / 2);  →  ' +
      'if (table.length > FIRST_SLOTS / 2 && count * 16 < table.length) this.#resize(which, table.length / 2);',
    why: 'a smaller table finds the same, and grows again',
  },
  {
    file: 'src/hivemind/devices/hash-index.ts',
    change:
      'for (let at = (gap + 2) & last; table[at + 1] !== 0; at = (at + 2) & last) {  →  ' +
      'for (let at = (gap + 2) & last; table[at - 1] !== 0; at = (at + 2) & last) {',
    why: 'one empty slot more is looked at, and may take the place of the gap',
  },
  {
    file: 'src/hivemind/devices/records.ts',
    change:
      'if (size > 100) from.copy(to, at, start, start + size);  →  ' +
      'if (!(size > 100)) from.copy(to, at, start, start + size);',
    why: 'two ways to copy the same bytes, of which one is faster for few',
  },
  {
    file: 'src/hivemind/devices/namespace-sets.ts',
    change: 'words[head + LOW_BITS] = 0;  →  words[head + LOW_BITS] = 1;',
    why: 'a filter: with a bit that all have, some sets are compared that need not be',
  },
  {
    file: 'src/hivemind/monitoring/request.ts',
    change: '#ends = new Uint32Array(256);  →  #ends = new Uint32Array(257);',
    why: 'it grows when it is full',
  },
  {
    file: 'src/hivemind/monitoring/monitoring.ts',
    change:
      'return Math.floor((this.#clock.monotonic() - this.#origin) / 1000) + 1;  →  ' +
      'return Math.floor((this.#clock.monotonic() - this.#origin) / 1000) + 2;',
    why: 'seconds since some time before the start: only 0 has another meaning',
  },
  {
    file: 'src/hivemind/monitoring/request.ts',
    change: 'for (let i = 0; i < request.ids.length; i++) {  →  ' + 'for (let i = 0; i <= request.ids.length; i++) {',
    why: 'behind the last there is no account, and none in the swarm of the server',
  },
  {
    file: 'src/hivemind/monitoring/swarms.ts',
    change: 'if (id >= this.#swarmOf.length) return;  →  (nothing)',
    why: 'a shortcut: an account beyond the arrays has no swarm, and nothing is written there',
  },
  {
    file: 'src/hivemind/monitoring/walk.ts',
    change: '#seen = 0;  →  #seen = 1;',
    why: 'each walk begins by setting it',
  },
  {
    file: 'src/hivemind/network/network.ts',
    change:
      'return blake2b(16, Buffer.from(`spns order of ${name} ${key}`), secret).readUIntBE(0, 6);  →  ' +
      'return blake2b(17, Buffer.from(`spns order of ${name} ${key}`), secret).readUIntBE(0, 6);',
    why: 'any order will do that each hivemind has for itself',
  },
  {
    file: 'src/hivemind/network/oxend.ts',
    change: '#session = 0;  →  #session = 1;',
    why: 'handshakes have only to be told apart',
  },
  {
    file: 'src/hivemind/monitoring/monitoring.ts',
    change: 'if (member.formers.length === 0) return false;  →  (nothing)',
    why: 'a shortcut: nothing is found among no former swarms',
  },
  {
    file: 'src/hivemind/monitoring/sender.ts',
    change: 'schedule.walk.pass();  →  ;',
    why: 'a shortcut: what was asked, spared or given up a moment ago is not due, and is passed at the next look',
  },
  {
    file: 'src/hivemind/notifications/copies/standby.ts',
    change: 'const REMEMBERED = 60_000;  →  const REMEMBERED = 60001;',
    why: 'about a minute is meant',
  },
  {
    file: 'src/hivemind/notifications/intake.ts',
    change: 'if (least !== Doubt.untimely) return least;  →  (nothing)',
    why: 'a shortcut: our own time is among those that are possible, and no other can make it less',
  },
  {
    file: 'src/hivemind/notifications/outbox/account-queue.ts',
    change: 'if (push.id < known.first.id) {  →  if (push.id <= known.first.id) {',
    why: 'no two pushes have the same id',
  },
  {
    file: 'src/hivemind/store/cluster-store.ts',
    change: '#readsOwn = false;  →  #readsOwn = true;',
    why: 'the end of the first load sets it, and has what was read before read again',
  },
  {
    file: 'src/notifiers/runtime/copies.ts',
    change:
      "return (high + 2 * doubt + (reported === 'accepted' ? 0 : 1)) >>> 0;  →  " +
      "return (high + 2 * doubt + (reported !== 'accepted' ? 0 : 1)) >>> 0;",
    why: 'the two ends have only to be told apart, whichever has the smaller number',
  },
  {
    file: 'src/notifiers/runtime/fifo.ts',
    change:
      'if (this.#head > 64 && this.#head * 2 > this.#items.length) {  →  ' +
      'if (this.#head > 64 || this.#head * 2 > this.#items.length) {',
    why: 'how often the taken part is given back is a matter of cost alone',
  },
  {
    file: 'src/notifiers/runtime/metrics.ts',
    change:
      "this.inc({ outcome, reason: colon < 0 ? '' : end.slice(colon + 1) }, count);  →  " +
      "this.inc({ outcome, reason: colon <= 0 ? '' : end.slice(colon + 1) }, count);",
    why: 'every end has a name before its colon',
  },
  {
    file: 'src/notifiers/runtime/notifier.ts',
    change: 'const MAX_GONE = 10_000;  →  const MAX_GONE = 10001;',
    why: 'some ten thousand are meant, so that they do not fill the memory',
  },
  {
    file: 'src/hivemind/store/copy-rows.ts',
    change:
      'readonly #serviceId = { bytes: EMPTY as Buffer, at: 0, size: 0 };  →  ' +
      'readonly #serviceId = { bytes: EMPTY as Buffer, at: 1, size: 0 };',
    why: 'set before it is given out',
  },
  {
    file: 'src/hivemind/store/copy-rows.ts',
    change:
      'readonly #serviceId = { bytes: EMPTY as Buffer, at: 0, size: 0 };  →  ' +
      'readonly #serviceId = { bytes: EMPTY as Buffer, at: 0, size: 1 };',
    why: 'set before it is given out',
  },
  {
    file: 'src/hivemind/store/copy-rows.ts',
    change:
      'for (let n = at; n < at + size; n++) if (bytes[n] === 0 || bytes[n]! > 0x7f) return undefined;  →  ' +
      'for (let n = at; n < at + size; n++) if (bytes[n] === 0 || bytes[n]! > 128) return undefined;',
    why: '0x80 comes only behind a greater byte',
  },
  {
    file: 'src/hivemind/store/copy-rows.ts',
    change: 'signedAt: 0,  →  ' + 'signedAt: 1,',
    why: 'each row sets it',
  },
  {
    file: 'src/hivemind/store/copy-rows.ts',
    change: 'wantData: false,  →  ' + 'wantData: true,',
    why: 'each row sets it',
  },
  {
    file: 'src/hivemind/store/feed-position.ts',
    change:
      'const xmax = this.xmax < other.xmax ? this.xmax : other.xmax;  →  ' +
      'const xmax = this.xmax <= other.xmax ? this.xmax : other.xmax;',
    why: 'of two that are equal either will do',
  },
  {
    file: 'src/hivemind/store/connection.ts',
    change:
      'this.#mark = MARKS + (options.random(4).readUInt32LE() >>> 2);  →  ' +
      'this.#mark = MARKS + (options.random(5).readUInt32LE() >>> 2);',
    why: 'the first four bytes count',
  },
  {
    file: 'src/hivemind/store/connection.ts',
    change:
      'this.#mark = MARKS + (options.random(4).readUInt32LE() >>> 2);  →  ' +
      'this.#mark = MARKS + (options.random(4).readUInt32LE() >>> 3);',
    why: 'any number will do that no other hivemind has',
  },
  {
    file: 'src/hivemind/store/connection.ts',
    change: 'const origin = random(6).readUIntBE(0, 6);  →  ' + 'const origin = random(7).readUIntBE(0, 6);',
    why: 'the first six bytes count',
  },
  {
    file: 'src/hivemind/store/connection.ts',
    change:
      'const wait = longest * (0.5 + random(2).readUInt16LE() / 2 ** 17);  →  ' +
      'const wait = longest * (0.5 + random(3).readUInt16LE() / 2 ** 17);',
    why: 'the first two bytes count',
  },
  {
    file: 'src/hivemind/store/lock.ts',
    change: 'export const MARKS = 16;  →  ' + 'export const MARKS = 17;',
    why: 'any number above the keys of the other locks will do',
  },
  {
    file: 'src/hivemind/store/cluster-start.ts',
    change:
      'return { name, generation: BigInt(rows[0]?.generation ?? 1), run };  →  ' +
      'return { name, generation: BigInt(rows[0]?.generation ?? 2), run };',
    why: 'a row that is written is given back',
  },
  {
    file: 'src/hivemind/store/cluster-store.ts',
    change: '#rewinds = 0;  →  ' + '#rewinds = 1;',
    why: 'only that it changes counts',
  },
  {
    file: 'src/hivemind/store/cluster-store.ts',
    change: 'this.#rewinds++;  →  ' + 'this.#rewinds--;',
    why: 'only that it changes counts',
  },
  {
    file: 'src/hivemind/store/cluster-store.ts',
    change:
      'const end = more ? found.reduce((last, { xid }) => (xid > last ? xid : last), 0n) : now.xmax;  →  ' +
      'const end = more ? found.reduce((last, { xid }) => (xid >= last ? xid : last), 0n) : now.xmax;',
    why: 'of two that are equal either will do',
  },
  {
    file: 'src/hivemind/store/cluster-store.ts',
    change:
      'const end = more ? found.reduce((last, { xid }) => (xid > last ? xid : last), 0n) : now.xmax;  →  ' +
      'const end = more ? found.reduce((last, { xid }) => (xid > last ? xid : last), 1n) : now.xmax;',
    why: 'any transaction is later',
  },
  {
    file: 'src/hivemind/store/cluster-store.ts',
    change:
      "return { account: account ?? Buffer.alloc(0), service: service ?? '', serviceId: svcid ?? '' };  →  " +
      "return { account: account ?? Buffer.alloc(1), service: service ?? '', serviceId: svcid ?? '' };",
    why: 'a change without a number has an account',
  },
  {
    file: 'src/hivemind/store/store.ts',
    change: 'const deleted = rowCount ?? 0;  →  ' + 'const deleted = rowCount ?? 1;',
    why: 'a deletion has a count',
  },
  {
    file: 'src/hivemind/store/store.ts',
    change:
      'else membership = await becomeMember(client, cluster, random(8).readBigUInt64LE() >> 1n);  →  ' +
      'else membership = await becomeMember(client, cluster, random(9).readBigUInt64LE() >> 1n);',
    why: 'the first eight bytes count',
  },
  {
    file: 'src/hivemind/store/store.ts',
    change:
      'else membership = await becomeMember(client, cluster, random(8).readBigUInt64LE() >> 1n);  →  ' +
      'else membership = await becomeMember(client, cluster, random(8).readBigUInt64LE() >> 2n);',
    why: 'any number will do that no other run has',
  },
  {
    file: 'src/hivemind/store/store.ts',
    change:
      'made = await openClient(this.#options.url, 10_000, { stopping, mustWrite: server !== undefined });  →  ' +
      'made = await openClient(this.#options.url, 10001, { stopping, mustWrite: server !== undefined });',
    why: 'about ten seconds are meant',
  },
  {
    file: 'src/hivemind/store/database-main.ts',
    change: 'const TIMEOUT = 5_000;  →  ' + 'const TIMEOUT = 5001;',
    why: 'about five seconds are meant',
  },
  {
    file: 'src/hivemind/store/migrate.ts',
    change: 'const latest = Math.max(0, ...done);  →  ' + 'const latest = Math.max(1, ...done);',
    why: 'no program is too old for the first version',
  },
  {
    file: 'src/hivemind/store/migrate.ts',
    change: 'return Number(name.slice(0, 3));  →  ' + 'return Number(name.slice(1, 3));',
    why: 'there are fewer than a hundred',
  },
  {
    file: 'src/hivemind/store/migrate.ts',
    change:
      "const { number, version } = rows[0] ?? { number: 0, version: 'unknown' };  →  " +
      "const { number, version } = rows[0] ?? { number: 1, version: 'unknown' };",
    why: 'one version that is too old for another',
  },
  {
    file: 'src/hivemind/subscriptions/dead-devices.ts',
    change:
      'for (let at = 0; at < serviceIds.length; at += AT_ONCE) {  →  ' +
      'for (let at = 0; at <= serviceIds.length; at += AT_ONCE) {',
    why: 'of no devices nothing is removed',
  },
  {
    file: 'src/hivemind/subscriptions/expiry.ts',
    change: 'const DAY_MS = 86_400_000;  →  ' + 'const DAY_MS = 86400001;',
    why: 'about a day is meant',
  },
  {
    file: 'src/notifiers/runtime/acknowledgements.ts',
    change: 'const REMEMBERED = 20_000;  →  const REMEMBERED = 20001;',
    why: 'some twenty thousand are meant, so that they do not fill the memory',
  },
  {
    file: 'src/notifiers/runtime/calls.ts',
    change: 'if (this.#unused.length === 0) return;  →  (nothing)',
    why: 'a shortcut: nobody is told where nobody waits',
  },
  {
    file: 'src/notifiers/runtime/copies.ts',
    change:
      "return (high + 2 * doubt + (reported === 'accepted' ? 0 : 1)) >>> 0;  →  " +
      "return (high - 2 * doubt + (reported === 'accepted' ? 0 : 1)) >>> 0;",
    why: 'the ends of one fingerprint have only to be told apart, in whichever order',
  },
  {
    file: 'src/notifiers/runtime/exchange.ts',
    change:
      "if (body.length > 0) this.emit('data', this.#text ? body.toString() : body);  →  " +
      "if (body.length >= 0) this.emit('data', this.#text ? body.toString() : body);",
    why: 'an empty piece adds nothing to a body',
  },
  {
    file: 'src/notifiers/runtime/notifier.ts',
    change:
      'const signedOff = this.#hiveminds.unregister(Math.min(2_000, deadline / 4));  →  ' +
      'const signedOff = this.#hiveminds.unregister(Math.min(2001, deadline / 4));',
    why: 'about two seconds are meant',
  },
  {
    file: 'src/notifiers/runtime/notifier.ts',
    change:
      'const signedOff = this.#hiveminds.unregister(Math.min(2_000, deadline / 4));  →  ' +
      'const signedOff = this.#hiveminds.unregister(Math.min(2_000, deadline / 5));',
    why: 'a small part of the time is meant',
  },
  {
    file: 'src/notifiers/runtime/notifier.ts',
    change:
      'const end = clock.monotonic() + Math.max(deadline - CLOSING, 0);  →  ' +
      'const end = clock.monotonic() + Math.max(deadline - CLOSING, 1);',
    why: 'a millisecond more for a stop that has no time',
  },
  {
    file: 'src/notifiers/runtime/sender.ts',
    change: 'const SEND_TIMEOUT = 60_000;  →  const SEND_TIMEOUT = 60001;',
    why: 'longer than any backend waits by itself is meant',
  },
  {
    file: 'src/notifiers/runtime/tunnel.ts',
    change: 'if (first.length > 0) this.push(first);  →  if (first.length <= 0) this.push(first);',
    why: 'in TLS the server speaks second: nothing of it comes with the head of the proxy',
  },
  {
    file: 'src/oxenmq/link.ts',
    change:
      'return { socket, clock, counters, backlog: { bytes: 0 } };  →  ' +
      'return { socket, clock, counters, backlog: { bytes: 1 } };',
    why: 'one byte of 128 MiB',
  },
  {
    file: 'src/oxenmq/pending.ts',
    change: 'const DRAWN = 256;  →  const DRAWN = 257;',
    why: 'how many tags are drawn at once is a matter of cost alone',
  },
  {
    file: 'src/oxenmq/zap.ts',
    change: 'let numbered = 0;  →  let numbered = 1;',
    why: 'domains have only to be told apart',
  },
  {
    file: 'src/oxenmq/zap.ts',
    change: 'const domain = `spns-${++numbered}`;  →  const domain = `spns-${--numbered}`;',
    why: 'domains have only to be told apart',
  },
  {
    file: 'src/oxenmq/zmtp.ts',
    change: 'const length = body[0] ?? 0;  →  const length = body[0] ?? 1;',
    why: 'an empty body is too short for a name of one byte as well',
  },
  {
    file: 'src/oxenmq/zmtp.ts',
    change:
      "if (flags > 7 || (flags & (COMMAND | MORE)) === (COMMAND | MORE)) throw new ProtocolError('not a frame');  →  " +
      "if (flags >= 7 || (flags & (COMMAND | MORE)) === (COMMAND | MORE)) throw new ProtocolError('not a frame');",
    why: 'seven is a command of which more follows, and refused as that',
  },
  {
    file: 'src/hivemind/notifications/duplicate-filter.ts',
    change: 'const MAX_ENTRIES = 4_000_000;  →  const MAX_ENTRIES = 4000001;',
    why: 'some millions are meant, so that they do not fill the memory',
  },
  {
    file: 'src/hivemind/notifications/duplicate-filter.ts',
    change: 'const SCRATCH = 2048;  →  const SCRATCH = 2049;',
    why: 'more than all that is hashed at once',
  },
  {
    file: 'src/hivemind/notifications/duplicate-filter.ts',
    change: 'const HASH = 4;  →  const HASH = 5;',
    why: 'kinds of entries have only to be told apart',
  },
  {
    file: 'src/hivemind/notifications/duplicate-filter.ts',
    change: 'this.#hash = new SipHash(options.random(8));  →  this.#hash = new SipHash(options.random(9));',
    why: 'the key is read from the first eight bytes',
  },
  {
    file: 'src/hivemind/notifications/duplicate-filter.ts',
    change:
      'hasDevice(service: string, serviceId: string, hash: Uint8Array, namespace = 0, doubt: Doubt = 0): boolean {  →  ' +
      '' +
      '' +
      'hasDevice(service: string, serviceId: string, hash: Uint8Array, namespace = 1, doubt: Doubt = 0): boolean {',
    why: 'without doubt the namespace does not matter',
  },
  {
    file: 'src/hivemind/notifications/duplicate-filter.ts',
    change:
      'addDevice(service: string, serviceId: string, hash: Uint8Array, namespace = 0, doubt: Doubt = 0): void {  →  ' +
      'addDevice(service: string, serviceId: string, hash: Uint8Array, namespace = 1, doubt: Doubt = 0): void {',
    why: 'without doubt the namespace does not matter',
  },
  {
    file: 'src/hivemind/notifications/duplicate-filter.ts',
    change:
      'if (this.#has(this.#device(service, serviceId, hash), 0)) return true;  →  ' +
      'if (this.#has(this.#device(service, serviceId, hash), 1)) return true;',
    why: 'nothing is added with doubt but in a namespace',
  },
  {
    file: 'src/hivemind/notifications/duplicate-filter.ts',
    change:
      'return doubt > 0 && this.#has(this.#device(service, serviceId, hash, namespace), doubt);  →  ' +
      'return doubt >= 0 && this.#has(this.#device(service, serviceId, hash, namespace), doubt);',
    why: 'nothing is added without doubt in a namespace',
  },
  {
    file: 'src/oxenmq/zap.ts',
    change:
      'const socket = new Router({ linger: 0, sendTimeout: 0 });  →  ' +
      'const socket = new Router({ linger: 1, sendTimeout: 0 });',
    why: 'answers within the process leave at once, and a millisecond is as good',
  },
  {
    file: 'src/oxenmq/zap.ts',
    change:
      'const socket = new Router({ linger: 0, sendTimeout: 0 });  →  ' +
      'const socket = new Router({ linger: 0, sendTimeout: 1 });',
    why: 'answers within the process leave at once, and a millisecond is as good',
  },
  {
    file: 'src/hivemind/notifications/duplicate-filter.ts',
    change: 'return this.#hash.bytes(this.#scratch, 0, size);  →  return this.#hash.bytes(this.#scratch, 1, size);',
    why: 'kinds of entries are told apart by what follows as well',
  },
  {
    file: 'src/oxenmq/public-listener.ts',
    change: 'const id = Buffer.alloc(5);  →  const id = Buffer.alloc(6);',
    why: 'ids have only to be told apart',
  },
  {
    file: 'src/oxenmq/public-listener.ts',
    change: '#numbered = 0;  →  #numbered = 1;',
    why: 'ids have only to be told apart',
  },
  {
    file: 'src/oxenmq/public-listener.ts',
    change: 'const KEEP_ALIVE = 30_000;  →  const KEEP_ALIVE = 30001;',
    why: 'Node takes whole seconds of it',
  },
  {
    file: 'src/oxenmq/public-listener.ts',
    change:
      'this.#server.listen({ ...whereToListen(address), backlog: 511 }, () => {  →  ' +
      'this.#server.listen({ ...whereToListen(address), backlog: 512 }, () => {',
    why: 'some five hundred are meant',
  },
  {
    file: 'src/hivemind/notifications/outbox/push.ts',
    change: 'since = 0;  →  since = 1;',
    why: 'set whenever a copy begins to wait, and of no meaning before',
  },
  {
    file: 'src/hivemind/notifications/outbox/push.ts',
    change: 'const COPY_COST = 240;  →  const COPY_COST = 241;',
    why: 'measured to within some percent',
  },
  {
    file: 'src/hivemind/notifications/copies/progress-reports.ts',
    change:
      'while (recipient.underWay || recipient.gathered.size > 0) {  →  ' +
      'while (recipient.underWay || recipient.gathered.size >= 0) {',
    why: 'with nothing to send nothing is under way, which ends it as well',
  },
  {
    file: 'src/oxenmq/socket.ts',
    change: 'const BATCH = 16;  →  const BATCH = 17;',
    why: 'some messages are meant between two looks at the clock',
  },
  {
    file: 'src/oxenmq/socket.ts',
    change: 'const SLICE = 8;  →  const SLICE = 9;',
    why: 'some milliseconds are meant',
  },
  {
    file: 'src/oxenmq/socket.ts',
    change: 'let [taken, since] = [0, performance.now()];  →  let [taken, since] = [1, performance.now()];',
    why: 'some messages are meant between two looks at the clock',
  },
  {
    file: 'src/hivemind/notifications/copies/standby.ts',
    change: 'const MAX_REMEMBERED = 500_000;  →  const MAX_REMEMBERED = 500001;',
    why: 'some ten megabytes are meant',
  },
  {
    file: 'src/hivemind/notifications/outbox/outbox.ts',
    change: 'const FLUSH_MS = 500;  →  const FLUSH_MS = 501;',
    why: 'about half a second is meant',
  },
];

export function isJudgedEqual(file: string, { change }: Mutant): boolean {
  return JUDGED_EQUAL.some((judged) => judged.file === file && judged.change === change);
}
