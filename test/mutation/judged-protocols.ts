// biome-ignore-all lint/suspicious/noTemplateCurlyInString: what is judged here is source code
import type { Judged } from './judged.ts';

/** Those of the codecs, Session's protocols, the cluster and the front-end. */
export const JUDGED_IN_PROTOCOLS: readonly Judged[] = [
  ...['const LONG = 64;  →  const LONG = 65;']
    .concat(
      ['bytes.length >= LONG', 'bytes.length <= LONG', '!(bytes.length > LONG)'].map(
        (other) => `if (bytes.length > LONG) {  →  if (${other}) {`,
      ),
    )
    .map((change) => ({
      file: 'src/codec/bencode-reader.ts',
      change,
      why: 'two ways to compare the same bytes, of which one is faster for few',
    })),
  {
    file: 'src/codec/bencode.ts',
    change:
      'for (const [key, element] of entries(value).sort(([a], [b]) => (a < b ? -1 : 1))) {  →  ' +
      'for (const [key, element] of entries(value).sort(([a], [b]) => (a <= b ? -1 : 1))) {',
    why: 'a dictionary has each key once',
  },
  {
    file: 'src/codec/bytes.ts',
    change:
      'const padded = Buffer.concat([bytes, Buffer.alloc(1)]);  →  ' +
      'const padded = Buffer.concat([bytes, Buffer.alloc(2)]);',
    why: 'the second byte of padding is never read',
  },
  {
    file: 'src/codec/bytes.ts',
    change: 'let value = 0;  →  let value = 1;',
    why: 'shifted out of the first byte',
  },
  {
    file: 'src/codec/json.ts',
    change: 'if (!keys.some((key) => /[\\ud800-\\uffff]/.test(key))) return keys.sort();  →  (nothing)',
    why: 'a shortcut: sorted as bytes they come in the same order',
  },
  {
    file: 'src/codec/json.ts',
    change:
      'if (digits > 0 && (unit === 0x65 || unit === 0x45)) hasExponents = true;  →  ' +
      'if (digits > 0 && (unit !== 0x65 || unit === 0x45)) hasExponents = true;',
    why: 'values are looked through in vain',
  },
  {
    file: 'src/codec/json.ts',
    change: 'for (at++; at < text.length; at++) {  →  for (at++; at <= text.length; at++) {',
    why: 'behind the end there is no character, and the text ends there all the same',
  },
  {
    file: 'src/session/message-hash.ts',
    change: 'const NAMESPACE_SIZE = 6;  →  const NAMESPACE_SIZE = 7;',
    why: 'more room than is used',
  },
  {
    file: 'src/session/message-hash.ts',
    change:
      'const pair = (bytes[index]! << 8) | (bytes[index + 1] ?? 0);  →  ' +
      'const pair = (bytes[index]! << 8) | (bytes[index + 1] ?? 1);',
    why: 'the last character takes no more than two bits of it, which are the upper ones',
  },
  {
    file: 'src/session/payload.ts',
    change: 'const tooBig = data !== null && data.length > 0;  →  const tooBig = data !== null && data.length > 1;',
    why: 'a body of one byte goes into the payload',
  },
  {
    file: 'src/session/onion.ts',
    change:
      "if (data.length < 4) throw new OnionError('onion request too small');  →  " +
      "if (data.length <= 4) throw new OnionError('onion request too small');",
    why: 'four bytes of length have no metadata behind them',
  },
  {
    file: 'src/session/onion.ts',
    change:
      "if (data.length < 4) throw new OnionError('onion request too small');  →  " +
      "if (data.length < 5) throw new OnionError('onion request too small');",
    why: 'four bytes of length have no metadata behind them',
  },
  {
    file: 'src/session/slots.ts',
    change:
      '.sort((a, b) => b.rank - a.rank || (a.name < b.name ? -1 : 1))  →  ' +
      '.sort((a, b) => b.rank - a.rank || (a.name <= b.name ? -1 : 1))',
    why: 'each name is there once',
  },
  {
    file: 'src/session/swarm.ts',
    change:
      'this.ids = [...new Set(ids)].filter((id) => id !== INVALID_SWARM).sort((a, b) => (a < b ? -1 : 1));  →  ' +
      'this.ids = [...new Set(ids)].filter((id) => id !== INVALID_SWARM).sort((a, b) => (a <= b ? -1 : 1));',
    why: 'each id is there once',
  },
  {
    file: 'src/session/swarm.ts',
    change: 'if (count < 2) return count - 1;  →  (nothing)',
    why: 'a shortcut: the search among none or one ends there, too',
  },
  {
    file: 'src/session/sodium-native.ts',
    change: 'const MIN_BLAKE2B_KEY = 16;  →  const MIN_BLAKE2B_KEY = 17;',
    why: 'both builds hash alike',
  },
  {
    file: 'src/session/sodium-native.ts',
    change:
      'if (key && key.length < MIN_BLAKE2B_KEY) return wasm.blake2b(size, data, key);  →  ' +
      'if (key && key.length <= MIN_BLAKE2B_KEY) return wasm.blake2b(size, data, key);',
    why: 'both builds hash alike',
  },
  {
    file: 'src/session/sodium-wasm.ts',
    change: 'if (known?.bytes.equals(secretKey)) return known.object;  →  (nothing)',
    why: 'what is not remembered is made anew, which only takes longer',
  },
  {
    file: 'src/session/sodium-wasm.ts',
    change: 'privateKeys.set(secretKey, { bytes: Buffer.from(secretKey), object });  →  ;',
    why: 'what is not remembered is made anew, which only takes longer',
  },
  {
    file: 'src/session/slots.ts',
    change: 'return (hash ^ (hash >>> 16)) >>> 0;  →  return (hash ^ (hash >>> 17)) >>> 0;',
    why: 'it decides only between ranks that are alike in all upper bits',
  },
  {
    file: 'src/session/slots.ts',
    change: 'return (hash ^ (hash >>> 16)) >>> 0;  →  return (hash ^ (hash >>> 16)) >>> 1;',
    why: 'it decides only between ranks that are alike in all upper bits',
  },
  {
    file: 'src/hivemind/cluster/feed.ts',
    change: '#isLost = false;  →  #isLost = true;',
    why: 'set before it is read',
  },
  {
    file: 'src/hivemind/cluster/cluster.ts',
    change: '#beats = 0;  →  #beats = 1;',
    why: 'which of five heartbeats the checks go with does not matter',
  },
  {
    file: 'src/web/places.ts',
    change:
      'if (weight > 1 && large > 0 && large + weight > limit() / 2) return false;  →  ' +
      'if (weight > 1 && large > 1 && large + weight > limit() / 2) return false;',
    why: 'a large request takes two places or more',
  },
  {
    file: 'src/hivemind/cluster/cluster.ts',
    change:
      'if (this.#beats++ % CHECK_EVERY === 0 || !isCovered) void this.#checkCovered();  →  ' +
      'if (this.#beats-- % CHECK_EVERY === 0 || !isCovered) void this.#checkCovered();',
    why: 'which of five heartbeats the checks go with does not matter',
  },
  {
    file: 'src/hivemind/cluster/cluster.ts',
    change:
      'if (this.#beats++ % CHECK_EVERY === 0 || !isCovered) void this.#checkCovered();  →  ' +
      'if (this.#beats++ % CHECK_EVERY === 1 || !isCovered) void this.#checkCovered();',
    why: 'which of five heartbeats the checks go with does not matter',
  },
  {
    file: 'src/web/places.ts',
    change:
      "const key = client === undefined ? undefined : `${weight > 1 ? 'large' : 'small'} ${client}`;  →  " +
      "const key = client === undefined ? undefined : `${weight <= 1 ? 'large' : 'small'} ${client}`;",
    why: 'the two have only to be told apart',
  },
  {
    file: 'src/web/subscriptions.ts',
    change: 'if (!reply.includes(\'"error"\')) return false;  →  (nothing)',
    why: 'a shortcut: what does not hold the word has no such member',
  },
  {
    file: 'src/web/web.ts',
    change: 'const LAST_ANSWERS = 2000;  →  const LAST_ANSWERS = 2001;',
    why: 'about two seconds are meant',
  },
  {
    file: 'src/web/web.ts',
    change: 'const MAX_HTTP = 4096;  →  const MAX_HTTP = 4097;',
    why: 'some four thousand are meant, so that they do not fill the memory',
  },
  {
    file: 'src/web/web.ts',
    change: 'const MAX_CURVE = 4096;  →  const MAX_CURVE = 4097;',
    why: 'some four thousand are meant, so that they do not fill the memory',
  },
  {
    file: 'src/web/web.ts',
    change:
      'const cut = clock.setTimeout(() => void hivemind.close(), Math.max(deadline - LAST_ANSWERS, 0));  →  const cut = clock.setTimeout(() => void hivemind.close(), Math.max(deadline - LAST_ANSWERS, 1));',
    why: 'a millisecond more for a stop that has no time',
  },
  {
    file: 'src/web/hivemind-links.ts',
    change: 'const ROUTING_BYTES = 16;  →  const ROUTING_BYTES = 17;',
    why: 'so many random bytes that no two are alike',
  },
];
