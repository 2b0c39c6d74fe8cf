import type pg from 'pg';
import { isNameHeld } from './lock.ts';
import { StoreError, sqlState } from './store-error.ts';

/** What a hivemind tells others with which it shares the database. */
export interface MembershipOptions {
  /** 1 to 32 of a-z, 0-9, - and _ */
  readonly name: string;
  /** How many members should hold each slot; the same for all. */
  readonly copies: number;
  /** A hash of the hivemind's key, which must be the same for all. */
  readonly keyFingerprint: Uint8Array;
  /** The program's, `MAJOR.MINOR.PATCH`. */
  readonly version: string;
  /** OxenMQ addresses: where members and notifiers reach it, and where web front-ends do. */
  readonly address: string;
  readonly pushAddress: string;
}

/** A hivemind's identity as a member. */
export interface Membership {
  readonly name: string;
  /** A part of its routing ids. Raised by each start unless the run before has stopped in order. */
  readonly generation: bigint;
  /** Random; differs from one run of its process to the next. */
  readonly run: bigint;
}

/** At a start, a member whose last heartbeat is no older than this counts as alive: longer than among members. */
const ALIVE = `INTERVAL '5 seconds'`;
/** A name that has not been used for this long is forgotten, and with it the generation of its routing ids. */
const FORGOTTEN = `INTERVAL '30 days'`;
/** How long (ms) a start waits for others' transactions, and they for it should it stall. */
const PATIENCE = 5_000;
const BEGIN = `BEGIN; SET LOCAL lock_timeout = ${PATIENCE}; SET LOCAL idle_in_transaction_session_timeout = ${PATIENCE}`;
const TRIGGERS = ['spns_inserted', 'spns_updated', 'spns_deleted', 'spns_truncated'];

/**
 * Makes this hivemind a member: from now on triggers note every change of a subscription. The caller must hold the lock
 * for the name.
 *
 * @param run see {@link Membership.run}
 * @throws StoreError with a sentence for the operator
 */
export async function becomeMember(client: pg.Client, options: MembershipOptions, run: bigint): Promise<Membership> {
  const { name, copies, keyFingerprint, version, address, pushAddress } = options;
  try {
    if ((await countTriggersOn(client)) < TRIGGERS.length) {
      await client.query(BEGIN);
      await switchTriggers(client, true);
      await client.query('COMMIT');
    }
    await client.query(BEGIN);
    // One at a time, so that hiveminds that start together see each other.
    await client.query('LOCK TABLE spns_members IN SHARE ROW EXCLUSIVE MODE');
    await checkOthers(client, options);
    // After a restored backup there may be changes numbered by another server's transactions: delete them.
    await client.query('DELETE FROM spns_changes WHERE xid >= pg_snapshot_xmax(pg_current_snapshot())');
    await client.query(
      `DELETE FROM spns_members WHERE name <> $1 AND seen < clock_timestamp() - ${FORGOTTEN} AND NOT ${isNameHeld('name')}`,
      [name],
    );
    // The position comes before all changes: they are kept until the member has read up to a later one. A name without
    // a row may still have been used before, so its generation starts at the time, which it cannot have reached.
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
    throw await explained(client, error);
  }
}

/**
 * Undoes {@link becomeMember}, for a hivemind that has the database to itself: changes are no longer noted. Does
 * nothing if there were no members.
 *
 * @throws StoreError with a sentence for the operator
 */
export async function dissolveCluster(client: pg.Client): Promise<void> {
  try {
    // No members without triggers.
    if ((await countTriggersOn(client)) === 0) return;
    const { rows } = await client.query<{ name: string }>(
      `SELECT name FROM spns_members
       WHERE state <> 'stopped' AND seen BETWEEN clock_timestamp() - ${ALIVE} AND clock_timestamp() + ${ALIVE}`,
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
    throw await explained(client, error);
  }
}

/** @throws StoreError if living members have other settings than this one */
async function checkOthers(client: pg.Client, own: MembershipOptions): Promise<void> {
  const { rows } = await client.query<{ name: string; copies: number; version: string; sameKey: boolean }>(
    `SELECT name, copies, version, key_fingerprint = $2 AS "sameKey" FROM spns_members
     WHERE name <> $1 AND state <> 'stopped'
       AND (seen BETWEEN clock_timestamp() - ${ALIVE} AND clock_timestamp() + ${ALIVE} OR ${isNameHeld('name')})
     ORDER BY name`,
    [own.name, own.keyFingerprint],
  );
  for (const { name, copies, version, sameKey } of rows) {
    if (!sameKey) {
      throw new StoreError(
        'refused',
        `The hivemind ${name} works on this database with another key: give all of them the same file in [keys] hivemind`,
      );
    }
    if (copies !== own.copies) {
      throw new StoreError(
        'refused',
        `The hivemind ${name} works on this database with copies = ${copies}, this one has ${own.copies}: ` +
          'give all of them the same, and stop all to change it',
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

/** Waits for all transactions that have changed subscriptions: ALTER TABLE locks the table. */
async function switchTriggers(client: pg.Client, on: boolean): Promise<void> {
  const actions = TRIGGERS.map((trigger) => `${on ? 'ENABLE' : 'DISABLE'} TRIGGER ${trigger}`).join(', ');
  await client.query(`ALTER TABLE subscriptions ${actions}`);
}

/** Turns an error of the server's that an operator can mend into a sentence, and rolls back. */
async function explained(client: pg.Client, error: unknown): Promise<unknown> {
  const state = sqlState(error);
  // After any other error the connection is not used any more.
  if (state !== undefined) await client.query('ROLLBACK');
  if (state === '55P03') {
    return new StoreError(
      'unavailable',
      `Somebody has held a table for over ${PATIENCE / 1000} s, perhaps by changing subscriptions in a transaction that ` +
        'does not end: end it, and start again',
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
    `Several hiveminds on one database need the rights of the tables' owner, and the user ${user} lacks some of them ` +
      `(${(error as Error).message}): GRANT ${owner} TO ${user}`,
    { cause: error },
  );
}
