import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { Arena } from '../../../src/hivemind/devices/arena.ts';
import { HashIndex } from '../../../src/hivemind/devices/hash-index.ts';
import { SipHash } from '../../../src/hivemind/devices/siphash.ts';
import { seededRandom } from '../../support/random.ts';

describe('the arena', () => {
  it('never gives two records the same memory', (t) => {
    const random = seededRandom();
    t.diagnostic(`SPNS_TEST_SEED=${random.seed}`);
    const arena = new Arena();
    const cells: { ref: number; size: number; mark: number }[] = [];
    const holds = ({ ref, size, mark }: (typeof cells)[number]) => {
      const at = arena.offset(ref);
      const bytes = arena.bytes(ref).subarray(at, at + size);
      return bytes.length === size && bytes[0] === mark && bytes[size >> 1] === mark && bytes[size - 1] === mark;
    };
    for (let step = 0; step < 60_000; step++) {
      if (cells.length > 0 && random.int(100) < 48) {
        const at = random.int(cells.length);
        const cell = cells[at]!;
        assert.ok(holds(cell));
        arena.free(cell.ref);
        cells[at] = cells[cells.length - 1]!;
        cells.pop();
      } else {
        const large = random.int(500) === 0;
        const size = 1 + random.int(large ? 300_000 : random.int(20) === 0 ? 20_000 : 600);
        const ref = arena.alloc(size);
        const cell = { ref, size, mark: 1 + random.int(255) };
        const at = arena.offset(ref);
        assert.ok(ref !== 0 && at % 8 === 0);
        arena.bytes(ref).fill(cell.mark, at, at + size);
        assert.equal(arena.words(ref)[at / 4]! & 255, cell.mark);
        cells.push(cell);
      }
    }
    for (const cell of cells) assert.ok(holds(cell));
    for (const cell of cells) arena.free(cell.ref);
    assert.equal(arena.inUse, 0);
  });

  it('does not grow while records come and go, whatever their sizes', () => {
    const random = seededRandom();
    const arena = new Arena();
    const live: number[] = [];
    const round = (smallest: number, count: number) => {
      while (live.length > 0) arena.free(live.pop()!);
      for (let n = 0; n < count; n++) live.push(arena.alloc(smallest + random.int(200)));
    };
    round(300, 50_000);
    const first = arena.reserved;
    const rounds = (count: number) => {
      for (let n = 0; n < count; n++) round(100 + (n % 5) * 50, 50_000);
    };
    // One cycle of all sizes, with what is kept ready for each of them; after that there is nothing more to take.
    rounds(5);
    const settled = arena.reserved;
    rounds(20);
    assert.ok(arena.reserved < settled * 1.15, `${arena.reserved} after ${settled}`);
    const before = arena.reserved;
    for (let n = 0; n < 200_000; n++) {
      const at = random.int(live.length);
      arena.free(live[at]!);
      live[at] = arena.alloc(300 + random.int(200));
    }
    assert.ok(arena.reserved < Math.max(before, first) * 1.5, `${arena.reserved} after ${before}`);
  });
});

describe('the hash index', () => {
  it('is the same as a map, also when many hashes are alike', (t) => {
    const random = seededRandom();
    t.diagnostic(`SPNS_TEST_SEED=${random.seed}`);
    const index = new HashIndex();
    const model = new Map<number, number>();
    let value = 1;
    for (let step = 0; step < 100_000; step++) {
      const growing = step % 10_000 < 5_000;
      if (model.size === 0 || random.int(100) < (growing ? 70 : 30)) {
        // Few tables and few places: long runs, which removals must close.
        const hash = random.int(2) === 0 ? random.int(2 ** 32) : random.int(4) + 256 * random.int(64);
        model.set(value, hash);
        index.add(hash, value++);
      } else {
        const oldest = model.keys().next().value!;
        const hash = model.get(oldest)!;
        assert.equal(
          index.find(hash, (found) => found === oldest),
          oldest,
        );
        if (random.int(5) === 0) {
          index.replace(hash, oldest, value);
          model.set(value++, hash);
          model.delete(oldest);
        } else {
          index.remove(hash, oldest);
          model.delete(oldest);
          assert.equal(
            index.find(hash, (found) => found === oldest),
            0,
          );
        }
      }
    }
    assert.equal(index.size, model.size);
    for (const [one, hash] of model)
      assert.equal(
        index.find(hash, (found) => found === one),
        one,
      );
  });

  it('grows once to what is expected, and by doubling when nothing is', (t) => {
    const random = seededRandom();
    t.diagnostic(`SPNS_TEST_SEED=${random.seed}`);
    let made = 0;
    class Counted extends Uint32Array {
      constructor(length: number) {
        super(length);
        made++;
      }
    }
    t.mock.property(globalThis, 'Uint32Array', Counted as unknown as Uint32ArrayConstructor);
    const [entries, tables] = [100_000, 256];
    const growths = (expected: number) => {
      const index = new HashIndex();
      index.expect(expected);
      made = 0;
      for (let value = 1; value <= entries; value++) index.add(random.int(2 ** 32), value);
      return made;
    };
    assert.equal(growths(entries), tables);
    // From 8 places to 512 or 1,024, of which three quarters are used.
    for (const few of [0, 1]) assert.ok(growths(few) > 6 * tables);
  });
});

describe('the keyed hash', () => {
  it('depends on every bit, the length and the key', () => {
    const key = Buffer.from('0001020304050607', 'hex');
    const hash = new SipHash(key);
    const other = new SipHash(Buffer.from('0001020304050608', 'hex'));
    const all = new Set<string>();
    const add = (low: number, high: number) => {
      assert.ok(low >= 0 && high >= 0 && low < 2 ** 32 && high < 2 ** 32);
      all.add(`${low} ${high}`);
    };
    const bytes = Buffer.alloc(48);
    for (let size = 0; size <= 40; size++) add(hash.bytes(bytes, 4, 4 + size), hash.high);
    for (let bit = 0; bit < 320; bit++) {
      bytes[4 + (bit >> 3)]! ^= 1 << (bit & 7);
      add(hash.bytes(bytes, 4, 44), hash.high);
      bytes[4 + (bit >> 3)]! ^= 1 << (bit & 7);
    }
    add(other.bytes(bytes, 4, 44), other.high);
    assert.equal(all.size, 41 + 320 + 1);
  });

  it('spreads evenly', () => {
    const hash = new SipHash(Buffer.from('0011223344556677', 'hex'));
    const buckets = new Uint32Array(256);
    const account = Buffer.alloc(33, 5);
    for (let n = 0; n < 256_000; n++) {
      account.writeUInt32LE(n, 20);
      buckets[hash.bytes(account, 0, 33) & 255]!++;
    }
    for (const count of buckets) assert.ok(count > 800 && count < 1200, `${count} of 1000`);
  });
});
