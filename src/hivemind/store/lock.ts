import type pg from 'pg';
import { StoreError } from './store-error.ts';

/** The space of our advisory locks, which count within one database; any fixed numbers would do. */
const SPACE = 0x53504e53;
/** Held by a hivemind as long as it is connected: alone, or, if it has a name, together with others that have one. */
const HIVEMIND = 2;
// 3 is held in a transaction that takes away what all members have read (migrations/006_cluster.sql).
/** From here on the numbers beside it are the marks of single hiveminds. */
export const MARKS = 16;
/** The space of the locks that stand for names. */
const NAMES = 0x53504e54;

/** The number, in the space {@link NAMES}, of the lock that stands for a name. @param name an expression of SQL */
const lockOfName = (name: string) => `(hashtext(${name}) & 2147483647)`;

/** Whether somebody holds the lock that stands for a name, in SQL. @param name an expression of SQL */
export function isNameHeld(name: string): string {
  return `EXISTS (
    SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted AND classid = ${NAMES} AND objsubid = 2
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND objid = ${lockOfName(name)})`;
}

/**
 * Takes the locks of a hivemind. Without a name it has the database for itself; with one it shares it with those of
 * other names.
 *
 * @param mark of our own connections. One that broke without PostgreSQL's noticing still holds the lock, for up to a
 *   minute: it is ended
 * @returns the number of the server's process that serves this client
 * @throws StoreError `locked` if another hivemind is in the way
 */
export async function takeLock(client: pg.Client, mark: number, name: string | undefined): Promise<number> {
  // Before the lock is asked for: should the answer to that be lost, the next connection still knows whose it is.
  await client.query('SELECT pg_advisory_lock_shared($1, $2)', [SPACE, mark]);
  const { rows } = await client.query<{ locked: boolean; pid: number }>(
    `SELECT pg_try_advisory_lock${name === undefined ? '' : '_shared'}($1, $2) AS locked, pg_backend_pid() AS pid`,
    [SPACE, HIVEMIND],
  );
  const pid = rows[0]?.pid ?? 0;
  if (!rows[0]?.locked) {
    const holder = await findHolder(client, mark, SPACE, String(HIVEMIND));
    if (name !== undefined) {
      throw locked('A hivemind without a name', holder, 'stop it first, or give it a name too ([hivemind] instance)');
    }
    if (holder?.shares) {
      throw locked(
        'A hivemind with a name',
        holder,
        'stop it first, or give this one a name too ([hivemind] instance)',
      );
    }
    throw locked('Another hivemind', holder, 'stop it first, or give this one a database of its own');
  }
  if (name === undefined) return pid;
  const named = await client.query<{ locked: boolean }>(
    `SELECT pg_try_advisory_lock($1, ${lockOfName('$2::text')}) AS locked`,
    [NAMES, name],
  );
  if (named.rows[0]?.locked) return pid;
  const holder = await findHolder(client, mark, NAMES, lockOfName(client.escapeLiteral(name)));
  throw locked(`Another hivemind of the name ${name}`, holder, 'stop it first, or give this one a name of its own');
}

interface Holder {
  readonly pid: number;
  readonly host: string | null;
  /** Whether it holds the lock together with others. */
  readonly shares: boolean;
}

/** Who holds a lock. @throws StoreError `unavailable` if it was a lost connection of our own, which is ended */
async function findHolder(client: pg.Client, mark: number, space: number, lock: string): Promise<Holder | undefined> {
  const { rows } = await client.query<Holder & { ours: boolean }>(
    `WITH locks AS (
       SELECT pid, classid, objid, mode FROM pg_locks
       WHERE locktype = 'advisory' AND granted AND objsubid = 2
         AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
     )
     SELECT l.pid, host(a.client_addr) AS host, l.mode = 'ShareLock' AS shares,
       EXISTS (SELECT FROM locks m WHERE m.pid = l.pid AND m.classid = ${SPACE} AND m.objid = $2) AS ours
     FROM locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid WHERE l.classid = $1 AND l.objid = ${lock}`,
    [space, mark],
  );
  const own = rows.find(({ ours }) => ours);
  if (own === undefined) return rows[0];
  await client.query('SELECT pg_terminate_backend($1)', [own.pid]);
  // It is free a moment later: the next attempt will have it.
  throw new StoreError('unavailable', 'The lost connection still held the lock, and has been ended');
}

function locked(who: string, holder: Holder | undefined, advice: string): StoreError {
  const where = holder ? ` (from ${holder.host ?? 'this machine'}, served by PostgreSQL process ${holder.pid})` : '';
  return new StoreError('locked', `${who} is at work on this database${where}: ${advice}`);
}
