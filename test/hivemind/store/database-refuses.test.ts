import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { sessionAccount } from '../../../src/devnet/account.ts';
import { createUnownedDatabase, othersIdle } from '../../support/postgres.ts';
import { subscribe, unsubscribe } from '../../support/requests.ts';
import { startWorld, type World } from '../../support/session-world.ts';
import { SkippingClock } from '../../support/skipping-clock.ts';
import { until } from '../../support/until.ts';

/** A hivemind whose user owns nothing, and the database's owner beside it. */
async function setup(t: TestContext) {
  let world: World | undefined;
  t.after(() => world?.hivemind.stop());
  const { url, role, owner } = await createUnownedDatabase(t);
  const clock = new SkippingClock();
  world = await startWorld(t, { clock, database: url });
  return { world, owner, role, clock };
}

type Setting = Awaited<ReturnType<typeof setup>>;

async function ask(world: World, token = 'secret-token'): Promise<{ error?: number; success?: boolean }> {
  return (await world.send('subscribe', subscribe(sessionAccount(randomBytes), token))) as { error?: number };
}

async function metric({ hivemind }: World, line: string): Promise<number> {
  const text = await hivemind.registry.metrics();
  return Number(
    text
      .split('\n')
      .find((one) => one.startsWith(`${line} `))
      ?.slice(line.length + 1) ?? 0,
  );
}

const reasons = ({ hivemind }: World) => hivemind.daemon.ready?.().reasons.join('; ') ?? '';

/**
 * Time passes for the hivemind until it is so; for a few minutes at most, after which the database's clock would be
 * missed there.
 */
async function passing({ clock, owner }: Setting, ms: number, condition: () => boolean): Promise<void> {
  for (let n = 0; n < 4 && !condition(); n++) {
    // To a statement in flight the skipped time would be a server that does not answer.
    await othersIdle(owner);
    clock.jump(ms);
    clock.skip(ms);
    for (let wait = 0; wait < 100 && !condition(); wait++) await sleep(10);
  }
  await until(condition);
}

const raise = (state: string) => `
  CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN RAISE EXCEPTION 'could not extend file "base/5/16384": No space left on device' USING ERRCODE = '${state}',
      DETAIL = 'Failing row contains ' || NEW::text; END $$;
  CREATE TRIGGER refuse BEFORE INSERT ON subscriptions FOR EACH ROW EXECUTE FUNCTION refuse()`;
const CALM = 'DROP TRIGGER refuse ON subscriptions; DROP FUNCTION refuse';

interface Cause {
  name: string;
  reason: string;
  says: RegExp;
  begin(setting: Setting): Promise<unknown>;
  end(setting: Setting): Promise<unknown>;
}

const causes: Cause[] = [
  {
    name: 'a full disk',
    reason: 'disk_full',
    says: /No space left on device \(SQLSTATE 53100\)/,
    begin: ({ owner }) => owner.query(raise('53100')),
    end: ({ owner }) => owner.query(CALM),
  },
  {
    name: 'a server out of memory',
    reason: 'resources',
    says: /SQLSTATE 53200/,
    begin: ({ owner }) => owner.query(raise('53200')),
    end: ({ owner }) => owner.query(CALM),
  },
  {
    name: 'deadlocks without end',
    reason: 'conflict',
    says: /SQLSTATE 40P01/,
    begin: ({ owner }) => owner.query(raise('40P01')),
    end: ({ owner }) => owner.query(CALM),
  },
  {
    name: 'an error of the server inside',
    reason: 'other',
    says: /SQLSTATE XX000/,
    begin: ({ owner }) => owner.query(raise('XX000')),
    end: ({ owner }) => owner.query(CALM),
  },
  {
    name: 'rights that were taken away',
    reason: 'permission',
    says: /permission denied for table sub_namespaces/,
    begin: ({ owner, role }) => owner.query(`REVOKE INSERT ON sub_namespaces FROM ${role}`),
    end: ({ owner, role }) => owner.query(`GRANT INSERT ON sub_namespaces TO ${role}`),
  },
  {
    name: 'a table that is gone',
    reason: 'schema',
    says: /relation .+spns_unsubscribed.+ does not exist/,
    begin: ({ owner }) => owner.query('ALTER TABLE spns_unsubscribed RENAME TO elsewhere'),
    end: ({ owner }) => owner.query('ALTER TABLE elsewhere RENAME TO spns_unsubscribed'),
  },
  {
    name: 'a database that takes no changes',
    reason: 'read_only',
    says: /accepts no changes|read-only/,
    begin: async ({ owner, role }) => {
      await owner.query(`ALTER ROLE ${role} SET default_transaction_read_only = on`);
      await owner.query('SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1', [role]);
    },
    end: ({ owner, role }) => owner.query(`ALTER ROLE ${role} RESET default_transaction_read_only`),
  },
];

for (const { name, reason, says, begin, end } of causes) {
  test(`${name}: requests get a temporary error, and it is logged once, counted, shown, and over when it is over`, async (t) => {
    const setting = await setup(t);
    const { world } = setting;
    assert.equal((await ask(world)).success, true);
    assert.equal(await metric(world, 'spns_database_up'), 1);
    assert.doesNotMatch(reasons(world), /database/);

    await begin(setting);
    await until(async () => (await ask(world)).error === 5 && says.test(reasons(world)));
    // Without a connection each waits for one for two seconds.
    for (let n = reason === 'read_only' ? 19 : 0; n < 20; n++) assert.equal((await ask(world)).error, 5);
    assert.equal(world.hivemind.daemon.ready?.().ok, false);
    assert.match(reasons(world), /the database does not (write|answer): /);
    assert.equal(await metric(world, 'spns_database_up'), 0);
    const counted = reason === 'read_only' ? 'unreachable' : reason;
    assert.ok((await metric(world, `spns_database_errors_total{reason="${counted}"}`)) > 0, reason);
    const said = world.hivemind.log.filter((line) => says.test(line) && /"level":(50|60)/.test(line));
    assert.equal(said.length, 1, said.join('\n'));

    await end(setting);
    // Nobody asks: it finds out by itself.
    await passing(setting, 5_000, () => !reasons(world).includes('database'));
    assert.equal(world.hivemind.daemon.ready?.().ok, true);
    assert.equal((await ask(world)).success, true);
    assert.equal(await metric(world, 'spns_database_up'), 1);
    const log = world.hivemind.log.join('\n');
    assert.match(log, /writing to the database works again|the database answers again/);
    assert.doesNotMatch(log, /secret-token|Failing row/);
  });
}

test('a lock that somebody keeps: statements time out, and it is shown', async (t) => {
  const setting = await setup(t);
  const { world, owner, clock } = setting;
  // The server gives up a second before we do: a busy machine might see both at once.
  const set = clock.setTimeout.bind(clock);
  clock.setTimeout = (callback, ms) => set(ms === 6_000 ? () => {} : callback, ms);
  // After a write no probe is due, which would wait for the lock as well.
  assert.equal((await ask(world)).success, true);
  await owner.query('BEGIN; LOCK TABLE subscriptions IN SHARE MODE');
  assert.equal((await ask(world)).error, 5);
  assert.match(reasons(world), /the database does not write: canceling statement due to statement timeout/);
  assert.equal(await metric(world, 'spns_database_errors_total{reason="timeout"}'), 1);
  await owner.query('ROLLBACK');
  await passing(setting, 5_000, () => !reasons(world).includes('database'));
});

test('what only unsubscribing needs is missed as well, and noticed without any request', async (t) => {
  const setting = await setup(t);
  const { world, owner, role } = setting;
  await owner.query(`REVOKE INSERT, UPDATE ON spns_unsubscribed FROM ${role}`);
  assert.equal(
    ((await world.send('unsubscribe', unsubscribe(sessionAccount(randomBytes), 'x'))) as { error: number }).error,
    5,
  );
  assert.equal((await ask(world)).success, true);
  assert.match(
    reasons(world),
    /permission denied for table spns_unsubscribed/,
    'one kind of write that works is not all',
  );
  await owner.query(`GRANT ALL ON spns_unsubscribed TO ${role}`);
  await passing(setting, 5_000, () => !reasons(world).includes('database'));
  await owner.query(`REVOKE DELETE ON subscriptions FROM ${role}`);
  await passing(setting, 61_000, () => reasons(world).includes('permission denied for table subscriptions'));
});
