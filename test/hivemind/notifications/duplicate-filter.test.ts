import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { describe, it } from 'node:test';
import { DuplicateFilter } from '../../../src/hivemind/notifications/duplicate-filter.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { seededRandom } from '../../support/random.ts';
import vectors from '../../vectors/notifier-push.json' with { type: 'json' };

const ACCOUNT = Buffer.alloc(33, 5);
const HASH = Buffer.from('IDRzBcxmcJpZsYrWIEFOA9pEdw3BRk1mJKmMD26vGsI');
const LIFETIME = 600_000;

function makeSeen(): { seen: DuplicateFilter; clock: FakeClock } {
  const clock = new FakeClock();
  return { seen: new DuplicateFilter({ clock, random: randomBytes, lifetime: LIFETIME }), clock };
}

describe('what was seen recently', () => {
  it('knows a message by account, namespace and hash', () => {
    const { seen } = makeSeen();
    assert.ok(!seen.hasMessage(ACCOUNT, 0, HASH));
    seen.addMessage(ACCOUNT, 0, HASH);
    seen.addMessage(ACCOUNT, 0, HASH);
    assert.equal(seen.size, 1);
    assert.ok(seen.hasMessage(ACCOUNT, 0, Buffer.from(HASH)));
    assert.ok(!seen.hasMessage(ACCOUNT, 1, HASH));
    for (const namespace of [-1, 256]) assert.ok(!seen.hasMessage(ACCOUNT, namespace, HASH));
    assert.ok(!seen.hasMessage(Buffer.alloc(33, 3), 0, HASH));
    assert.ok(!seen.hasMessage(ACCOUNT, 0, HASH.subarray(1)));
  });

  it('treats two pushes to a device as the same exactly when the original does', () => {
    for (const a of vectors.filter) {
      const { seen } = makeSeen();
      seen.addDevice(a.service, a.svcid, Buffer.from(a.hash));
      for (const b of vectors.filter) {
        assert.equal(seen.hasDevice(b.service, b.svcid, Buffer.from(b.hash)), a.hex === b.hex);
      }
    }
  });

  it('does not mistake a message for a push to a device', () => {
    const { seen } = makeSeen();
    seen.addMessage(ACCOUNT, 0, HASH);
    assert.ok(!seen.hasDevice('', `\0\0${ACCOUNT.toString('latin1')}`, HASH));
  });

  it('knows a message and a hash that were added with doubt where as much doubt or more is asked about', () => {
    for (const added of [0, 1, 2] as const) {
      const { seen } = makeSeen();
      seen.addMessage(ACCOUNT, 3, HASH, added);
      seen.addHash(ACCOUNT, HASH, added);
      for (const asked of [0, 1, 2] as const) {
        assert.equal(seen.hasMessage(ACCOUNT, 3, HASH, asked), asked >= added, `${added}, ${asked}`);
        assert.equal(seen.hasHash(ACCOUNT, HASH, asked), asked >= added, `${added}, ${asked}`);
      }
      assert.equal(seen.hasMessage(ACCOUNT, 3, HASH), added === 0);
      assert.equal(seen.hasMessage(ACCOUNT, 4, HASH, 2), false);
      assert.equal(seen.hasHash(Buffer.alloc(33, 6), HASH, 2), false);
      assert.equal(seen.hasHash(ACCOUNT, HASH, 2), true, 'whatever was asked before');
      assert.equal(seen.hasMessage(Buffer.alloc(33, 6), 3, HASH, 2), false);
      assert.equal(seen.hasMessage(ACCOUNT, 3, HASH, 2), true, 'whatever was asked before');
    }
    const { seen } = makeSeen();
    seen.addMessage(ACCOUNT, 3, HASH);
    assert.equal(seen.hasHash(ACCOUNT, HASH, 2), false);
    seen.addMessage(ACCOUNT, 3, HASH.subarray(1));
    seen.addHash(ACCOUNT, HASH, 0);
    assert.equal(seen.hasMessage(ACCOUNT, 0, HASH, 2), false);
    assert.equal(seen.hasHash(ACCOUNT, HASH, 0), true);
  });

  it('knows a doubtful push in its namespace alone, and a push without doubt in all', () => {
    const { seen } = makeSeen();
    seen.addDevice('apns', 'device', HASH, 3, 1);
    assert.equal(seen.hasDevice('apns', 'device', HASH), false);
    assert.equal(seen.hasDevice('apns', 'device', HASH, 3, 0), false);
    assert.equal(seen.hasDevice('apns', 'device', HASH, 3, 1), true);
    assert.equal(seen.hasDevice('apns', 'device', HASH, 3, 2), true);
    assert.equal(seen.hasDevice('apns', 'device', HASH, 4, 2), false);
    assert.equal(seen.hasDevice('apns', 'other', HASH, 3, 2), false);
    seen.addDevice('apns', 'device', HASH);
    for (const doubt of [0, 1, 2] as const) assert.equal(seen.hasDevice('apns', 'device', HASH, 4, doubt), true);
    const { seen: doubtful } = makeSeen();
    doubtful.addDevice('apns', 'device', HASH, 0, 1);
    assert.equal(doubtful.hasDevice('apns', 'device', HASH), false, 'unless doubt is asked about');
  });

  it('does not mistake a device whose name begins like a namespace for a doubtful push', () => {
    const { seen } = makeSeen();
    // The bytes of namespace 0x6261 are those of `ab`.
    seen.addDevice('ab', 'device', HASH);
    assert.equal(seen.hasDevice('', 'device', HASH, 0x6261, 2), false);
  });

  it('remembers for one to two lifetimes', async () => {
    const { seen, clock } = makeSeen();
    seen.addMessage(ACCOUNT, 0, HASH);
    await clock.advance(LIFETIME);
    assert.ok(seen.hasMessage(ACCOUNT, 0, HASH));
    await clock.advance(LIFETIME - 1);
    assert.ok(seen.hasMessage(ACCOUNT, 0, HASH));
    await clock.advance(1);
    assert.ok(!seen.hasMessage(ACCOUNT, 0, HASH));
    assert.equal(seen.size, 0);
  });

  it('forgets after two lifetimes in which nothing happened', async () => {
    const { seen, clock } = makeSeen();
    seen.addMessage(ACCOUNT, 0, HASH);
    await clock.advance(2 * LIFETIME);
    assert.ok(!seen.hasMessage(ACCOUNT, 0, HASH));
  });

  it('does not depend on the wall clock', async () => {
    const { seen, clock } = makeSeen();
    seen.addMessage(ACCOUNT, 0, HASH);
    clock.jump(100 * LIFETIME);
    assert.ok(seen.hasMessage(ACCOUNT, 0, HASH));
    clock.jump(-200 * LIFETIME);
    await clock.advance(2 * LIFETIME);
    assert.ok(!seen.hasMessage(ACCOUNT, 0, HASH));
  });

  it('adopts a new lifetime at once', async () => {
    const { seen, clock } = makeSeen();
    seen.addMessage(ACCOUNT, 0, HASH);
    seen.lifetime = 1_000;
    await clock.advance(2_000);
    assert.ok(!seen.hasMessage(ACCOUNT, 0, HASH));
  });

  it('holds many, and confuses none of them', () => {
    const random = seededRandom();
    const { seen } = makeSeen();
    const hash = Buffer.from(HASH);
    const start = random.int(2 ** 30);
    for (let n = 0; n < 200_000; n++) {
      hash.writeUInt32LE(start + n, 0);
      assert.ok(!seen.hasMessage(ACCOUNT, 0, hash), `seed ${random.seed}`);
      seen.addMessage(ACCOUNT, 0, hash);
    }
    assert.equal(seen.size, 200_000);
    for (let n = 0; n < 200_000; n++) {
      hash.writeUInt32LE(start + n, 0);
      assert.ok(seen.hasMessage(ACCOUNT, 0, hash));
    }
  });
});
