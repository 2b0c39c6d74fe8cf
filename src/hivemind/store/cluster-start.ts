import type pg from 'pg';
import { isNameHeld } from './lock.ts';
import { StoreError, sqlState } from './store-error.ts';

/** A hivemind that is one of several on one database. */
export interface ClusterOptions {
  /** 1 to 32 of a-z, 0-9, - and _ */
  readonly name: string;
  /** How many are to hold each slot; the same for all. */
  readonly copies: number;
  /** Of the hivemind's secret key, which must be the same for all. */
  readonly keyFingerprint: Uint8Array;
  /** Of the program: `MAJOR.MINOR.PATCH`. */
  readonly version: string;
  /** Where members and notifiers, and where web front-ends reach it: OxenMQ addresses. */
  readonly address: string;
  readonly pushAddress: string;
}

/** What a hivemind has become by its start. */
export interface Membership {
  readonly name: string;
  /** A part of its routing ids. */
  readonly generation: bigint;
  readonly run: bigint;
}

/** Who gave a sign of life within so long is there, for a start; longer than members call one another dead. */
const THERE = `INTERVAL '5 seconds'`;
/** A name that was not used for so long is forgotten, and with it the generation of its routing ids. */
const FORGOTTEN = `INTERVAL '30 days'`;
/** How long a start waits for transactions of others, and lets them wait should it be stopped in between, in ms. */
const PATIENCE = 5_000;
const BEGIN = `BEGIN; SET LOCAL lock_timeout = ${PATIENCE}; SET LOCAL idle_in_transaction_session_timeout = ${PATIENCE}`;
const TRIGGERS = ['spns_inserted', 'spns_updated', 'spns_deleted', 'spns_truncated'];

/**
 * Makes this hivemind a member, beside those that there are: from here on every change of a subscription is noted.
 * Whoever calls this holds the lock that stands for the name.
 *
 * @param run random, tells this run of the process from others of the same name
 * @throws StoreError with a sentence for the operator
 */
export async function joinCluster(client: pg.Client, options: ClusterOptions, run: bigint): Promise<Membership> {
  const { name, copies, keyFingerprint, version, address, pushAddress } = options;
  try {
    if ((await countTriggersOn(client)) < TRIGGERS.length) {
      await client.query(BEGIN);
      await switchTriggers(client, true);
      await client.query('COMMIT');
    }
    await client.query(BEGIN);
    // Of those that start together each sees the ones before.
    await client.query('LOCK TABLE spns_members IN SHARE ROW EXCLUSIVE MODE');
    await checkOthers(client, options);
    // What was written by another server's transactions, as in a restored backup, has no place among this one's.
    await client.query('DELETE FROM spns_changes WHERE xid >= pg_snapshot_xmax(pg_current_snapshot())');
    await client.query(
      `DELETE FROM spns_members WHERE name <> $1 AND seen < clock_timestamp() - ${FORGOTTEN} AND NOT ${isNameHeld('name')}`,
      [name],
    );
    // Its position is before everything: all changes are kept until it takes one. A name that is new here may have been
    // used before, by one that was killed: the time is a generation that it cannot have had.
    const { rows } = await client.query<{ generation: string }>(
      `INSERT INTO spns_members AS m (name, generation, run, state, address, push_address, version, key_fingerprint,
         copies, started, seen, covers, position)
       VALUES ($1, extract(epoch FROM clock_timestamp())::bigint, $2, 'starting', $3, $4, $5, $6, $7, clock_timestamp(), clock_timestamp(), $8, '1:1:')
       ON CONFLICT (name) DO UPDATE SET
         generation = m.generation + CASE WHEN m.state = 'stopped' THEN 0 ELSE 1 END,
         run = excluded.run, state = excluded.state, address = excluded.address, push_address = excluded.push_address,
         version = excluded.version, key_fingerprint = excluded.key_fingerprint, copies = excluded.copies,
         started = excluded.started, seen = excluded.seen, covers = excluded.covers, position = excluded.position
       RETURNING generation`,
      [name, run, address, pushAddress, version, keyFingerprint, copies, Buffer.alloc(32)],
    );
    await client.query('COMMIT');
    return { name, generation: BigInt(rows[0]?.generation ?? 1), run };
  } catch (error) {
    throw await inWords(client, error);
  }
}

/**
 * Ends what members shared, for a hivemind that has the database for itself: changes are not noted any more. Costs
 * nothing where there were none.
 *
 * @throws StoreError with a sentence for the operator
 */
export async function dissolveCluster(client: pg.Client): Promise<void> {
  try {
    // There are members only where changes are noted.
    if ((await countTriggersOn(client)) === 0) return;
    const { rows } = await client.query<{ name: string }>(
      `SELECT name FROM spns_members
       WHERE state <> 'stopped' AND seen BETWEEN clock_timestamp() - ${THERE} AND clock_timestamp() + ${THERE}`,
    );
    if (rows.length > 0) {
      throw new StoreError(
        'locked',
        `A hivemind with a name (${rows.map(({ name }) => name).join(', ')}) was at work on this database a moment ago: ` +
          'stop it first, or give this one a name too ([hivemind] instance)',
      );
    }
    await client.query(BEGIN);
    await switchTriggers(client, false);
    await client.query('DELETE FROM spns_members; DELETE FROM spns_changes; COMMIT');
  } catch (error) {
    throw await inWords(client, error);
  }
}

/** @throws StoreError if those that are there work with other settings than this one */
async function checkOthers(client: pg.Client, own: ClusterOptions): Promise<void> {
  const { rows } = await client.query<{ name: string; copies: number; version: string; sameKey: boolean }>(
    `SELECT name, copies, version, key_fingerprint = $2 AS "sameKey" FROM spns_members
     WHERE name <> $1 AND state <> 'stopped'
       AND (seen BETWEEN clock_timestamp() - ${THERE} AND clock_timestamp() + ${THERE} OR ${isNameHeld('name')})
     ORDER BY name`,
    [own.name, own.keyFingerprint],
  );
  for (const { name, copies, version, sameKey } of rows) {
    if (!sameKey) {
      throw new StoreError(
        'refused',
        `The hivemind ${name} works on this database with another key: give all the same file in [keys] hivemind`,
      );
    }
    if (copies !== own.copies) {
      throw new StoreError(
        'refused',
        `The hivemind ${name} works on this database with copies = ${copies}, this one has ${own.copies}: ` +
          'give all the same, and stop all of them to change it',
      );
    }
    if (majorOf(version) !== majorOf(own.version)) {
      throw new StoreError(
        'refused',
        `The hivemind ${name} on this database is of version ${version}, this one of ${own.version}: ` +
          'these do not work together; stop it first',
      );
    }
  }
}

function majorOf(version: string): string | undefined {
  return version.split('.')[0];
}

async function countTriggersOn(client: pg.Client): Promise<number> {
  const { rows } = await client.query(
    `SELECT FROM pg_trigger WHERE tgrelid = 'subscriptions'::regclass AND tgname = ANY ($1) AND tgenabled <> 'D'`,
    [TRIGGERS],
  );
  return rows.length;
}

/** All transactions that have changed subscriptions before have ended then. */
async function switchTriggers(client: pg.Client, on: boolean): Promise<void> {
  const actions = TRIGGERS.map((trigger) => `${on ? 'ENABLE' : 'DISABLE'} TRIGGER ${trigger}`).join(', ');
  await client.query(`ALTER TABLE subscriptions ${actions}`);
}

async function inWords(client: pg.Client, error: unknown): Promise<unknown> {
  const state = sqlState(error);
  // Only the server's errors leave a connection that is used any more.
  if (state !== undefined) await client.query('ROLLBACK');
  if (state === '55P03') {
    return new StoreError(
      'unavailable',
      `Somebody has held a table for over ${PATIENCE / 1000} s, as by changing subscriptions in a transaction that does ` +
        'not end: end it, and start again',
      { cause: error },
    );
  }
  if (state !== '42501') return error;
  const { rows } = await client.query<{ user: string; owner: string }>(
    `SELECT current_user AS user, pg_get_userbyid(relowner) AS owner FROM pg_class WHERE oid = 'subscriptions'::regclass`,
  );
  const { user, owner } = rows[0] ?? { user: '', owner: '' };
  return new StoreError(
    'refused',
    `Several hiveminds on one database need the rights of the tables' owner, and the user ${user} does not have all of them ` +
      `(${(error as Error).message}): GRANT ${owner} TO ${user}`,
    { cause: error },
  );
}
