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
    assert.ok(!seen.hasMessage(ACCOUNT, -1, HASH));
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
