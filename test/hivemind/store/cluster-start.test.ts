import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import type pg from 'pg';
import { systemClock } from '../../../src/clock.ts';
import type { MembershipOptions } from '../../../src/hivemind/store/cluster-start.ts';
import { Store, StoreError } from '../../../src/hivemind/store/store.ts';
import {
  connectTo,
  cutConnections,
  type MemberStore,
  memberOptions,
  NO_SLOTS,
  openMember,
  silent,
  writeAsOriginal,
} from '../../support/members.ts';
import { createDatabase, createUnownedDatabase } from '../../support/postgres.ts';
import { makeRow } from '../../support/rows.ts';
import { createSkewedDatabase } from '../../support/skewed-database.ts';
import { until } from '../../support/until.ts';

const beat = (store: MemberStore) => store.cluster.beat({ state: 'ready', covers: NO_SLOTS });

async function count(client: pg.Client, table: string): Promise<number> {
  return Number((await client.query<{ n: string }>(`SELECT count(*) AS n FROM ${table}`)).rows[0]?.n);
}

function refusal(code: string, words: RegExp) {
  return (error: unknown) => {
    assert.ok(error instanceof StoreError, String(error));
    assert.equal(error.code, code);
    assert.match(error.message, words);
    return true;
  };
}

/** Ends when somebody waits for the members' table. At the server, since that waits for five seconds only. */
const MEMBERS_WAITED_FOR = `DO $$ BEGIN
  WHILE NOT EXISTS (SELECT FROM pg_locks WHERE relation = 'spns_members'::regclass AND NOT granted) LOOP
    PERFORM pg_sleep(0.01);
  END LOOP;
END $$`;

const start = (url: string, cluster?: MembershipOptions) =>
  Store.open({ url, clock: systemClock, log: silent, timeout: 30_000, ...(cluster && { cluster }) });

describe('the start of one of several hiveminds', () => {
  it('is refused beside others that work with other settings', async (t) => {
    const url = await createDatabase(t);
    const a = await openMember(t, url, 'a');
    await beat(a);
    await assert.rejects(
      start(url, memberOptions('b', { keyFingerprint: Buffer.alloc(8, 2) })),
      refusal('refused', /^The hivemind a works on this database with another key: give all of them the same file/),
    );
    await assert.rejects(
      start(url, memberOptions('b', { copies: 1 })),
      refusal(
        'refused',
        /^The hivemind a works on this database with copies = 2, this one has 1: give all of them the same/,
      ),
    );
    await assert.rejects(
      start(url, memberOptions('b', { version: '3.0.0' })),
      refusal('refused', /^The hivemind a on this database is of version 2\.0\.0, this one of 3\.0\.0/),
    );
    await a.cluster.leave();
    await a.close();
    await (await start(url, memberOptions('b', { copies: 1 }))).close();
  });

  it('that start at the same time wait for each other, so that none overlooks what another one works with', async (t) => {
    const url = await createDatabase(t);
    await (await openMember(t, url, 'c')).close();
    const other = await connectTo(t, url);
    // As one does that is about to join.
    await other.query('BEGIN; LOCK TABLE spns_members IN SHARE ROW EXCLUSIVE MODE');
    const joined = other.query(
      `${MEMBERS_WAITED_FOR}; UPDATE spns_members SET name = 'a', state = 'ready', seen = clock_timestamp(); COMMIT`,
    );
    await assert.rejects(
      start(url, memberOptions('b', { copies: 1 })),
      refusal('refused', /^The hivemind a works on this database with copies = 2/),
    );
    await joined;
  });

  it('holds up no writers while it waits for another one, though it switches the triggers on', async (t) => {
    const url = await createDatabase(t);
    const [other, writer] = [await connectTo(t, url), await connectTo(t, url)];
    await writer.query('SET lock_timeout = 1000');
    await other.query('BEGIN; LOCK TABLE spns_members IN SHARE ROW EXCLUSIVE MODE');
    const starting = start(url, memberOptions('a'));
    await other.query(MEMBERS_WAITED_FOR);
    await writeAsOriginal(writer, makeRow());
    await other.query('COMMIT');
    await (await starting).close();
  });

  it('waits for nobody who changes subscriptions where the triggers are on', async (t) => {
    const url = await createDatabase(t);
    await openMember(t, url, 'a');
    const other = await connectTo(t, url);
    await other.query('BEGIN');
    await writeAsOriginal(other, makeRow());
    await (await start(url, memberOptions('b'))).close();
    await other.query('ROLLBACK');
  });

  it('is refused beside one that holds the lock for its name, whose number all versions know', async (t) => {
    const url = await createDatabase(t);
    const other = await connectTo(t, url);
    await other.query("SELECT pg_advisory_lock(1397771860, hashtext('a') & 2147483647)");
    await assert.rejects(start(url, memberOptions('a')), refusal('locked', /^Another hivemind named a is at work/));
  });

  it('without a name is refused for a moment after the end of one that has not stopped in order', async (t) => {
    const { url, stopClock } = await createSkewedDatabase(t);
    await stopClock();
    const a = await openMember(t, url, 'a');
    await beat(a);
    await a.close();
    await assert.rejects(
      start(url),
      refusal('locked', /^A hivemind with a name \(a\) was at work on this database a moment ago: stop it first/),
    );
    const again = await openMember(t, url, 'a');
    await again.cluster.leave();
    await again.close();
    await (await start(url)).close();
  });

  it('is refused beside one of the same name, and with a name beside one without, and the other way round', async (t) => {
    const [named, unnamed] = [await createDatabase(t), await createDatabase(t)];
    const a = await openMember(t, named, 'a');
    const alone = await start(unnamed);
    t.after(() => alone.close());
    await Promise.all([
      assert.rejects(
        start(named, memberOptions('a')),
        refusal('locked', /^Another hivemind named a is at work on this database \(from this machine, served/),
      ),
      assert.rejects(
        start(named),
        refusal('locked', /^A hivemind with a name is at work .*: stop it first, or give this one a name too/),
      ),
      assert.rejects(
        start(unnamed, memberOptions('a')),
        refusal('locked', /^A hivemind without a name is at work .*: stop it first, or give it a name too/),
      ),
    ]);
    assert.equal(await a.upsert(makeRow()), 'added');
  });

  it('continues under its previous routing ids only after a stop in which these were given up', async (t) => {
    const url = await createDatabase(t);
    const generations: bigint[] = [];
    for (const leaves of [true, false, true, true]) {
      const store = await openMember(t, url, 'a');
      generations.push(store.cluster.membership.generation);
      if (leaves) await store.cluster.leave();
      await store.close();
    }
    const [first = 0n, ...rest] = generations;
    assert.deepEqual(rest, [first, first + 1n, first + 1n]);
  });

  it('says who must be granted what when its user does not own the tables', async (t) => {
    const { url, role } = await createUnownedDatabase(t);
    const lacks = new RegExp(`the user ${role} lacks some of them \\(must be owner .*\\): GRANT postgres TO ${role}$`);
    await assert.rejects(start(url, memberOptions('a')), refusal('refused', lacks));
    // Alone it needs no more than before.
    await (await start(url)).close();
  });

  it('does not wait for ever for somebody who is changing subscriptions', async (t) => {
    const url = await createDatabase(t);
    const other = await connectTo(t, url);
    await other.query('BEGIN');
    await writeAsOriginal(other, makeRow());
    await assert.rejects(
      start(url, memberOptions('a')),
      refusal('unavailable', /^Somebody has held a table for over 5 s, perhaps by changing subscriptions .*: end it/),
    );
    await other.query('COMMIT');
    await (await start(url, memberOptions('a'))).close();
  });

  it('without a name ends what members shared, once none of them has been there for a while', async (t) => {
    const { url, stopClock } = await createSkewedDatabase(t);
    await stopClock();
    const admin = await connectTo(t, url);
    const triggers = async () =>
      (await admin.query("SELECT FROM pg_trigger WHERE tgname LIKE 'spns%' AND tgenabled <> 'D'")).rowCount;
    assert.equal(await triggers(), 0);
    const gone: StoreError[] = [];
    const a = await openMember(t, url, 'a', { onTaken: (error) => gone.push(error) });
    assert.equal(await triggers(), 4);
    await a.upsert(makeRow());
    // The machine of a is cut off, and comes back when the other one has come and gone.
    await cutConnections(admin, 'all');
    await assert.rejects(
      start(url),
      refusal('locked', /^A hivemind with a name (\(a\) was|is) at work on this database/),
    );
    await until(() => a.connected);
    await admin.query("UPDATE spns_members SET seen = seen - INTERVAL '1 minute'");
    // Whoever asks for the locks first gets them.
    let alone: Store | undefined;
    for (let tries = 0; alone === undefined && tries < 10; tries++) {
      await cutConnections(admin, 'all');
      alone = await start(url).catch(() => undefined);
    }
    assert.ok(alone);
    assert.equal(await triggers(), 0);
    assert.equal(await count(admin, 'spns_members'), 0);
    assert.equal(await count(admin, 'spns_changes'), 0);
    assert.equal(await alone.upsert(makeRow()), 'added');
    assert.equal(await count(admin, 'spns_changes'), 0);
    await alone.close();
    await until(() => a.connected || gone.length > 0);
    if (a.connected) {
      await assert.rejects(beat(a), refusal('locked', /^The database no longer knows this hivemind \(a\): /));
    }
    assert.equal(gone.length, 1, 'it must end: what it has in memory is not what is stored');
  });

  it('without a name does not wait for ever either, and until it can end all that members shared ends nothing', async (t) => {
    const url = await createDatabase(t);
    await (await openMember(t, url, 'a')).close();
    const other = await connectTo(t, url);
    const admin = await connectTo(t, url);
    await admin.query("UPDATE spns_members SET seen = seen - INTERVAL '1 minute', state = 'stopped'");
    await other.query('BEGIN; LOCK TABLE subscriptions IN ROW EXCLUSIVE MODE');
    await assert.rejects(start(url), refusal('unavailable', /^Somebody has held a table for over 5 s/));
    assert.equal(await count(admin, 'spns_members'), 1);
    await other.query('ROLLBACK');
    await (await start(url)).close();
    assert.equal(await count(admin, 'spns_members'), 0);
  });
});
