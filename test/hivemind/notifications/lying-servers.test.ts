import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { describe, it, type TestContext } from 'node:test';
import { WAIT } from '../../../src/hivemind/notifications/held-messages.ts';
import { messageHash } from '../../../src/session/message-hash.ts';
import { encodeNotification, type Notification } from '../../../src/session/notification.ts';
import { decodePush, type Push } from '../../../src/session/push.ts';
import { row, type Server, setUp } from './intake-world.ts';

const DAY = 86_400_000;
const account = Buffer.concat([Buffer.from([5]), randomBytes(32)]);

/** A swarm of five, and one phone that wants the namespaces 0 and 2. */
function world(t: TestContext, options: { wantData?: boolean; hasOthers?: boolean } = {}) {
  const { wantData = true, hasOthers } = options;
  const parts = setUp(['cap'], hasOthers);
  t.after(() => parts.intake.stop());
  t.after(() => parts.outbox.stop(0));
  const { clock, devices, intake, outbox, pushes } = parts;
  devices.upsert(row(account, { namespaces: [0, 2], wantData }), 0);
  const swarm = Array.from({ length: 5 }, (_, index): Server => ({ name: `server ${index}` }));
  return {
    ...parts,
    swarm: swarm as [Server, Server, Server, Server, Server],
    write(text: string, more: Partial<Notification> = {}): Notification {
      const data = Buffer.from(text);
      const now = clock.now();
      return {
        account,
        hash: messageHash(account, more.namespace ?? 0, data),
        namespace: 0,
        timestamp: now,
        expiry: now + 14 * DAY,
        data: wantData ? data : null,
        ...more,
      };
    },
    tell(servers: readonly Server[], message: Notification): void {
      for (const server of servers) intake.handle(server, encodeNotification(message));
    },
    async pushed(): Promise<Push[]> {
      // They leave in slices.
      do await clock.advance(0);
      while (outbox.outstanding > 0);
      return pushes.splice(0).map(({ part }) => decodePush(part));
    },
    /** Every copy is counted once. */
    checkFigures(): void {
      const {
        raw,
        pushes: _,
        limitedPushes,
        unshownPushes,
        vouched,
        misfits,
        heldBytes,
        malformed,
        ...fates
      } = intake.counters;
      assert.equal(
        raw,
        Object.values(fates).reduce((sum, count) => sum + count, 0),
      );
      assert.equal(fates.unique, vouched.hash + vouched.second + vouched.alone);
    },
  };
}

const isTrue = (push: Push, truth: Notification) =>
  push.namespace === truth.namespace &&
  push.hash.equals(truth.hash) &&
  push.expiry === truth.expiry &&
  (truth.data === null ? push.data === null : push.data?.equals(truth.data) === true);

/** What a server can make of a message that it has. */
const LIES: Record<string, (truth: Notification) => Notification> = {
  'it expired long ago': (truth) => ({ ...truth, expiry: 1 }),
  'it was stored and expired long ago': (truth) => ({ ...truth, timestamp: 1, expiry: 2 }),
  'it expires in a moment': (truth) => ({ ...truth, expiry: Number(truth.timestamp) + 2_500 }),
  'it expires in an hour': (truth) => ({ ...truth, expiry: Number(truth.timestamp) + 3_600_000 }),
  'it never expires': (truth) => ({ ...truth, expiry: 0 }),
  'it expires before there was time': (truth) => ({ ...truth, expiry: -(2n ** 63n) }),
  'it expires after all time': (truth) => ({ ...truth, expiry: 2n ** 63n - 1n }),
  'it was stored after all time': (truth) => ({ ...truth, timestamp: 2n ** 63n - 1n }),
  'it was stored before there was time': (truth) => ({ ...truth, timestamp: -1 }),
  'it is of another namespace that the phone wants': (truth) => ({ ...truth, namespace: 2 }),
  'it is of a namespace that nobody wants': (truth) => ({ ...truth, namespace: 7 }),
  'it has no body': (truth) => ({ ...truth, data: null }),
  'its body is empty': (truth) => ({ ...truth, data: Buffer.alloc(0) }),
  'its body is another': (truth) => ({ ...truth, data: Buffer.from('junk') }),
  'its body is too long for a phone': (truth) => ({ ...truth, data: Buffer.alloc(5_000) }),
  'its body is too long for a storage server': (truth) => ({ ...truth, data: Buffer.alloc(200_000) }),
  'its body is another, and so is its namespace': (truth) => ({ ...truth, namespace: 2, data: Buffer.from('junk') }),
};

for (const wantData of [true, false]) {
  describe(wantData ? 'of a message with its body' : 'of a message without body, where no hash can be checked', () => {
    for (const [says, lie] of Object.entries(LIES)) {
      it(`one server of five says that ${says}: the phone rings once, at once, with the truth`, async (t) => {
        for (const place of [0, 1, 2, 4]) {
          const { write, tell, pushed, swarm, clock, checkFigures } = world(t, { wantData });
          const truth = write('hello');
          for (const [index, server] of swarm.entries()) tell([server], index === place ? lie(truth) : truth);
          const [push, ...more] = await pushed();
          assert.ok(push && isTrue(push, truth), `at place ${place}`);
          assert.deepEqual(more, []);
          await clock.advance(2 * WAIT);
          assert.deepEqual(await pushed(), []);
          checkFigures();
        }
      });

      it(`one server says that ${says}, long before the others report: the truth still rings`, async (t) => {
        const { write, tell, pushed, swarm, clock, checkFigures } = world(t, { wantData });
        const [liar, ...honest] = swarm;
        const truth = write('hello');
        tell([liar], lie(truth));
        await clock.advance(5 * WAIT);
        tell(honest, truth);
        const pushes = await pushed();
        assert.ok(pushes.some((push) => isTrue(push, truth)));
        assert.ok(pushes.length <= 2);
        await clock.advance(2 * WAIT);
        assert.deepEqual(await pushed(), []);
        checkFigures();
      });

      // Two that say the same are believed. What is promised then: the truth rings all the same, and at most one lie
      // beside it.
      it(`two of five say that ${says}: the truth still rings`, async (t) => {
        for (const places of [
          [0, 1],
          [0, 2],
          [1, 2],
          [1, 3],
          [3, 4],
        ]) {
          const { write, tell, pushed, swarm, clock, checkFigures } = world(t, { wantData });
          const truth = write('hello');
          for (const [index, server] of swarm.entries()) tell([server], places.includes(index) ? lie(truth) : truth);
          await clock.advance(2 * WAIT);
          const pushes = await pushed();
          assert.ok(
            pushes.some((push) => isTrue(push, truth)),
            `at places ${places}`,
          );
          assert.ok(pushes.length <= 2);
          checkFigures();
        }
      });
    }
  });
}

describe('a lie', () => {
  it('that waits is dropped, and recorded against its source, as soon as the truth is there', async (t) => {
    const { write, tell, pushed, swarm, intake, warnings } = world(t);
    const [liar, honest] = swarm;
    const truth = write('hello');
    tell([liar], { ...truth, data: Buffer.from('junk') });
    assert.equal(intake.counters.held, 1);
    tell([honest], truth);
    assert.equal(intake.counters.held, 0);
    assert.deepEqual(intake.recordOf(liar), { limited: 0, unheld: 0, contradicted: 1, alone: 0 });
    assert.deepEqual(warnings, ['storage server server 0 contradicts the others of its swarm: 1 so far']);
    assert.deepEqual(intake.recordOf(honest), { limited: 0, unheld: 0, contradicted: 0, alone: 0 });
    assert.equal((await pushed()).length, 1);
  });

  it('does not include what only lacks the body, as from a server that was not yet asked for it', async (t) => {
    const { write, tell, swarm, intake, warnings } = world(t);
    const truth = write('hello');
    tell([swarm[0]], { ...truth, data: null });
    tell([swarm[1]], truth);
    assert.equal(intake.counters.contradicted, 0);
    assert.deepEqual(warnings, []);
  });

  it('that the message was over when it was stored does not wait: nobody would be woken', (t) => {
    const { write, tell, swarm, intake } = world(t);
    tell([swarm[0]], write('hello', { expiry: 1 }));
    assert.deepEqual([intake.counters.expired, intake.counters.held], [1, 0]);
  });
});

describe('what cannot be checked', () => {
  it('goes when a second server says the same, not when the first says it again', async (t) => {
    const { write, tell, pushed, swarm, intake } = world(t, { wantData: false });
    const [first, second] = swarm;
    const message = write('hello');
    tell([first, first, first], message);
    assert.deepEqual(await pushed(), []);
    assert.equal(intake.counters.held, 1);
    tell([second], message);
    assert.equal((await pushed()).length, 1);
    assert.equal(intake.counters.held, 0);
    assert.deepEqual(intake.counters.vouched, { hash: 0, second: 1, alone: 0 });
  });

  it('goes as it is after a second, when no other server speaks, and is recorded for the server it came from', async (t) => {
    const { write, tell, pushed, swarm, clock, intake } = world(t, { wantData: false });
    const [first] = swarm;
    tell([first], write('hello'));
    await clock.advance(WAIT - 10);
    assert.deepEqual(await pushed(), []);
    await clock.advance(10);
    assert.equal((await pushed()).length, 1);
    assert.deepEqual(intake.recordOf(first), { limited: 0, unheld: 0, contradicted: 0, alone: 1 });
    assert.equal(clock.pending, 1, 'the sweeper of the outbox');
  });

  it('goes at once where there is no other server to wait for', async (t) => {
    const { write, tell, pushed, swarm, intake } = world(t, { wantData: false, hasOthers: false });
    const [first] = swarm;
    tell([first], write('hello'));
    assert.equal((await pushed()).length, 1);
    tell([first], write('hello'));
    assert.deepEqual(await pushed(), []);
    assert.equal(intake.counters.vouched.alone, 1);
    assert.equal(intake.recordOf(first).alone, 0);
  });

  it('does not stand in the way of the truth, where it went at once', async (t) => {
    const { write, tell, pushed, swarm } = world(t, { hasOthers: false });
    const truth = write('hello');
    tell([swarm[0]], { ...truth, data: Buffer.from('junk') });
    assert.deepEqual(
      (await pushed()).map((push) => push.data?.toString()),
      ['junk'],
    );
    tell([swarm[1]], truth);
    const [push, ...more] = await pushed();
    assert.ok(push && isTrue(push, truth));
    assert.deepEqual(more, []);
  });

  it('is a copy like any other once two servers have said the same, and waits no longer', async (t) => {
    const { write, tell, pushed, swarm, intake, checkFigures } = world(t);
    const [first, second, third] = swarm;
    const message = write('hello', { data: Buffer.from('by another rule') });
    tell([first, second], message);
    assert.equal((await pushed()).length, 1);
    const { duplicates } = intake.counters;
    tell([third], message);
    assert.deepEqual([intake.counters.duplicates - duplicates, intake.counters.held], [1, 0]);
    assert.deepEqual(await pushed(), []);
    checkFigures();
  });

  it('goes when the hivemind stops', async (t) => {
    const { write, tell, pushed, swarm, intake, clock } = world(t, { wantData: false });
    tell([swarm[0]], write('hello'));
    intake.stop();
    assert.equal((await pushed()).length, 1);
    assert.equal(clock.pending, 1);
  });

  it('is not pushed for an account that went away while it waited', async (t) => {
    const { write, tell, pushed, swarm, clock, intake, devices, checkFigures } = world(t);
    tell([swarm[0]], write('hello', { data: null }));
    devices.removeDevice('cap', 'device'.padEnd(32, '.'), Number.POSITIVE_INFINITY);
    await clock.advance(2 * WAIT);
    assert.equal(intake.counters.unwanted, 1);
    assert.deepEqual(await pushed(), []);
    checkFigures();
  });

  it('goes on the word of one when two others agreed on less', async (t) => {
    const { write, tell, pushed, swarm, clock } = world(t, { wantData: false });
    const [first, second, third] = swarm;
    const truth = write('hello');
    tell([first, second], { ...truth, namespace: 2, expiry: clock.now() + 60_000 });
    tell([third], truth);
    await clock.advance(2 * WAIT);
    assert.ok((await pushed()).some((push) => isTrue(push, truth)));
  });

  it('takes the better times of two servers', async (t) => {
    const { write, tell, pushed, swarm, clock } = world(t, { wantData: false });
    const [first, second] = swarm;
    const day = clock.now() + DAY;
    for (const [one, other, best] of [
      [day, day + 1, day + 1],
      [day + 1, day, day + 1],
      [day, 2n ** 62n, day],
      [2n ** 62n, day, day],
      [clock.now() + 60_000, clock.now() + 70_000, clock.now() + 70_000],
    ] as const) {
      const message = write(`from ${one} to ${other}`);
      tell([first], { ...message, expiry: one });
      tell([second], { ...message, expiry: other });
      assert.deepEqual(
        (await pushed()).map(({ expiry }) => expiry),
        [best],
      );
    }
  });

  it('waits in memory that is bounded for each server: what finds no room marks nothing, and others are not affected', async (t) => {
    const { write, tell, pushed, swarm, intake, clock, devices, checkFigures, warnings } = world(t);
    const [liar, second, third] = swarm;
    const others = Array.from({ length: 20 }, () => Buffer.concat([Buffer.from([5]), randomBytes(32)]));
    for (const other of others) devices.upsert(row(other), 0);
    // To many accounts, so that no allowance ends it.
    const lie = () => {
      for (let n = 0; n < 200; n++) {
        tell([liar], { ...write(`lie ${n}`), account: others[n % others.length]!, data: randomBytes(76_800) });
      }
      return intake.counters.heldBytes;
    };
    const most = lie();
    assert.ok(most > 3.9 * 2 ** 20 && most <= 4 * 2 ** 20);
    assert.ok(intake.counters.unheld > 100);
    assert.ok(
      warnings.includes('storage server server 0 sends more messages that no other confirms than can wait: 100 so far'),
    );
    const bare = write('hello', { data: null });
    tell([liar, second, third], bare);
    assert.equal((await pushed()).length, 1);
    await clock.advance(2 * WAIT);
    assert.equal(intake.counters.held, 0);
    assert.equal(intake.counters.heldBytes, 0);
    assert.equal(lie(), most, 'what has gone makes room');
    checkFigures();
  });

  it('waits for less time when many servers use up the memory, and is not lost', async (t) => {
    const { write, tell, pushed, intake, devices, clock, checkFigures } = world(t);
    const liars = Array.from({ length: 20 }, (_, index): Server => ({ name: `liar ${index}` }));
    const others = Array.from({ length: 60 }, () => Buffer.concat([Buffer.from([5]), randomBytes(32)]));
    for (const other of others) devices.upsert(row(other), 0);
    tell([{ name: 'honest' }], write('hello', { data: null }));
    assert.deepEqual(await pushed(), []);
    for (const [index, liar] of liars.entries()) {
      for (let n = 0; n < 50; n++)
        tell([liar], { ...write(`${index} ${n}`), account: others[n]!, data: Buffer.alloc(76_800) });
    }
    assert.ok(intake.counters.heldBytes > 63 * 2 ** 20 && intake.counters.heldBytes <= 64 * 2 ** 20);
    assert.ok((await pushed()).some((push) => push.account.equals(account)));
    intake.stop();
    await clock.advance(1);
    checkFigures();
  });
});

describe('when the network changes the rule of its hash', () => {
  const byAnotherRule = (message: Notification) => ({
    ...message,
    hash: Buffer.from(randomBytes(32).toString('base64')),
  });

  it('every message rings once, on the second copy, and that is logged until it is over', async (t) => {
    const { write, tell, pushed, swarm, intake, clock, warnings, checkFigures } = world(t);
    const [first, ...others] = swarm;
    tell(swarm, write('before'));
    await pushed();
    for (let n = 0; n < 30; n++) {
      const message = byAnotherRule(write(`message ${n}`));
      tell([first], message);
      assert.deepEqual(await pushed(), []);
      tell(others, message);
      const pushes = await pushed();
      assert.ok(pushes.length === 1 && isTrue(pushes[0]!, message));
      if (n === 3) assert.doesNotMatch(warnings.join(), /has the network changed its rule/, 'a few say nothing');
    }
    assert.equal(intake.counters.misfits, 30);
    assert.match(intake.complaints().join(), /^97 % of the messages of the last minutes do not match their hash/);
    assert.match(warnings.join(), /has the network changed its rule/);
    checkFigures();
    await clock.advance(11 * 60_000);
    assert.deepEqual(intake.complaints(), []);
  });

  it("is not reported for one server's lies, nor for a few", async (t) => {
    const { write, tell, swarm, intake, clock } = world(t);
    const [first, second] = swarm;
    for (let n = 0; n < 40; n++) tell([first], byAnotherRule(write(`lie ${n}`)));
    await clock.advance(2 * WAIT);
    for (let n = 0; n < 19; n++) tell([first, second], byAnotherRule(write(`odd ${n}`)));
    assert.deepEqual(intake.complaints(), []);
  });
});

describe('a server that invents messages', () => {
  /** 20,000 in 8 s, while each of the others tells 60 true ones. */
  async function flood(w: ReturnType<typeof world>, liars: Server[], invent: (n: number) => Notification) {
    const honest = w.swarm.filter((server) => !liars.includes(server));
    const truths: Notification[] = [];
    const pushes: Push[] = [];
    for (let n = 0; n < 20_000; n++) {
      for (const liar of liars) w.tell([liar], invent(n));
      if (n % 300 === 0) {
        const truth = w.write(`true ${n}`);
        truths.push(truth);
        w.tell(honest, truth);
      }
      if (n % 25 === 24) {
        await w.clock.advance(9);
        pushes.push(...(await w.pushed()));
      }
    }
    await w.clock.advance(2 * WAIT);
    pushes.push(...(await w.pushed()));
    for (const truth of truths) assert.equal(pushes.filter((push) => isTrue(push, truth)).length, 1);
    w.checkFigures();
    return pushes.length - truths.length;
  }

  it('with right hashes rings a phone no more than 20,000 times, is reported to the operator, and delays no true message', async (t) => {
    const w = world(t);
    const [liar] = w.swarm;
    const rings = await flood(w, [liar], (n) => w.write(`invented ${n}`));
    assert.ok(rings >= 500 && rings <= 550, `${rings}`);
    assert.equal(w.intake.counters.limited, 20_000 - rings);
    assert.equal(w.intake.recordOf(liar).limited, 20_000 - rings);
    const said = (count: number) =>
      `storage server server 0 sends more messages of one account than it may: ${count} so far`;
    assert.deepEqual(w.warnings, [1, 10, 100, 1_000, 10_000].map(said));
  });

  it('that no other confirms rings much less', async (t) => {
    for (const wantData of [true, false]) {
      const w = world(t, { wantData });
      const [liar] = w.swarm;
      const body = Buffer.from('the body of a true message');
      // Once more and once more, under another hash each time.
      const invent = () => w.write('', { hash: randomBytes(43), data: wantData ? body : null });
      const rings = await flood(w, [liar], invent);
      assert.ok(rings >= 50 && rings <= 60, `${rings}`);
      assert.equal(w.intake.recordOf(liar).limited, 20_000 - rings);
    }
  });

  it('together with another rings twice as often, and the phone still has room for true messages', async (t) => {
    const w = world(t);
    const [first, second] = w.swarm;
    let turn = 0;
    const rings = await flood(w, [first, second], () => w.write(`invented ${turn++}`));
    assert.ok(rings >= 1_000 && rings <= 1_100, `${rings}`);
    assert.equal(w.intake.counters.limitedPushes, 0);
  });

  it('in many accounts of one phone is bounded by what a phone may get; what was not pushed is not marked', async (t) => {
    const w = world(t);
    const [liar, ...honest] = w.swarm;
    const accounts = Array.from({ length: 10 }, () => Buffer.concat([Buffer.from([5]), randomBytes(32)]));
    for (const one of accounts) w.devices.upsert(row(one), 0);
    const to = (one: Buffer, text: string) => {
      const data = Buffer.from(text);
      return w.write('', { account: one, data, hash: messageHash(one, 0, data) });
    };
    for (const one of accounts) for (let n = 0; n < 500; n++) w.tell([liar], to(one, `invented ${n}`));
    assert.equal((await w.pushed()).length, 2_000);
    assert.equal(w.intake.counters.limitedPushes, 3_000);
    assert.equal(w.intake.counters.limited, 3_000);
    const late = to(accounts[0]!, 'true');
    w.tell(honest.slice(0, 2), late);
    assert.deepEqual(await w.pushed(), []);
    await w.clock.advance(1_000);
    w.tell(honest.slice(2), late);
    assert.equal((await w.pushed()).length, 1);
    w.checkFigures();
  });
});

it('a device that may not be pushed to now keeps no other from it, and is pushed to by a later copy', async (t) => {
  const { write, tell, pushed, swarm, clock, devices } = world(t);
  const accounts = Array.from({ length: 5 }, () => Buffer.concat([Buffer.from([5]), randomBytes(32)]));
  for (const one of accounts) {
    devices.upsert(row(one), 0);
    for (let n = 0; n < 400; n++) {
      const data = Buffer.from(`message ${n}`);
      tell([swarm[0]], write('', { account: one, data, hash: messageHash(one, 0, data) }));
    }
  }
  assert.equal((await pushed()).length, 2_000);
  const second = 'second'.padEnd(32, '.');
  devices.upsert(row(account, { serviceId: second, namespaces: [0] }), 0);
  const truth = write('hello');
  tell([swarm[1], swarm[2]], truth);
  assert.deepEqual(
    (await pushed()).map(({ serviceId }) => serviceId),
    [second],
  );
  await clock.advance(1_000);
  tell([swarm[3], swarm[4]], truth);
  assert.deepEqual(
    (await pushed()).map(({ serviceId }) => serviceId),
    ['device'.padEnd(32, '.')],
  );
});

it('a message that no app would show is looked into once, whatever a liar said about it before', (t) => {
  const { write, tell, swarm, seen, intake, checkFigures } = world(t);
  const data = randomBytes(5_000);
  const truth = write('', { namespace: 2, data, hash: messageHash(account, 2, data) });
  tell(swarm.slice(0, 2), { ...truth, data: null });
  assert.ok(!seen.hasMessage(account, 2, truth.hash));
  tell(swarm.slice(2), truth);
  assert.ok(seen.hasMessage(account, 2, truth.hash));
  assert.deepEqual([intake.counters.unshown, intake.counters.pushes], [2, 0]);
  checkFigures();
});

describe('honest servers meet no limit', () => {
  for (const wantData of [true, false]) {
    it(`in a burst of 400 messages that each announces in one go, ${wantData ? 'with' : 'without'} bodies`, async (t) => {
      const { write, tell, pushed, swarm, intake } = world(t, { wantData });
      const messages = Array.from({ length: 400 }, (_, n) => write(`message ${n}`));
      for (const server of swarm) for (const message of messages) tell([server], message);
      assert.equal((await pushed()).length, 400);
      assert.equal(intake.counters.limited + intake.counters.unheld, 0);
    });
  }

  it('at 30 messages a second for a minute, which the same server always announces first', async (t) => {
    const { write, tell, swarm, clock, intake } = world(t);
    for (let n = 0; n < 1_800; n++) {
      tell(swarm, write(`message ${n}`));
      await clock.advance(33);
    }
    // The first server is not heard on all of them; the others are.
    assert.equal(intake.counters.pushes, 1_800);
  });
});
