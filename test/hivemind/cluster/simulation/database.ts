import type { QueryConfig, QueryResult, QueryResultRow } from 'pg';
import type { Clock, Timer } from '../../../../src/clock.ts';
import type { DeviceKey, DeviceRow } from '../../../../src/hivemind/devices/device.ts';
import type { Membership } from '../../../../src/hivemind/store/cluster-start.ts';
import { ClusterStore, type MemberRow } from '../../../../src/hivemind/store/cluster-store.ts';
import { FeedPosition } from '../../../../src/hivemind/store/feed-position.ts';
import { GroupCommit } from '../../../../src/hivemind/store/group-commit.ts';
import { findStatement } from '../../../../src/hivemind/store/statements.ts';
import { StoreError } from '../../../../src/hivemind/store/store-error.ts';
import { deviceRow, type SubscriptionRow } from '../../../../src/hivemind/store/subscription-rows.ts';
import { slotOf } from '../../../../src/session/slots.ts';
import { isStale } from '../../../../src/session/subscription.ts';
import type { Random } from '../../../support/random.ts';
import type { SimulatedProcess } from '../../../support/simulated-process.ts';

interface Subscription {
  readonly id: string;
  readonly row: DeviceRow;
}

/** A row of `spns_changes`. */
interface Change {
  readonly xid: bigint;
  readonly origin: number | null;
  readonly slot: number;
  /** Of what was added or changed; what is gone has its key. */
  readonly id: string | null;
  readonly key: DeviceKey | null;
}

/** A row of `spns_members`. */
interface MemberRecord extends Omit<MemberRow, 'name'> {
  readonly position: string | null;
}

type Answer = Record<string, unknown>[];

const NO_COVER = Buffer.alloc(32);
const SERVER = 'simulated';
const HOUR = 3_600_000;

export function keyOf({ account, service, serviceId }: DeviceKey): string {
  return `${account.toString('latin1')} ${service} ${serviceId}`;
}

/**
 * PostgreSQL as a cluster uses it: the tables of subscriptions, members and changes, transactions that become visible
 * in another order than they took their numbers in, and a clock of its own.
 */
export class SimulatedDatabase {
  readonly subscriptions = new Map<string, Subscription>();
  readonly members = new Map<string, MemberRecord>();
  changes: Change[] = [];
  readonly clock: Clock;
  readonly #byId = new Map<string, Subscription>();
  readonly #unsubscribed = new Map<string, number>();
  /** Transactions that are under way. */
  readonly #open = new Set<bigint>();
  #nextXid = 1_000n;
  #nextId = 1;
  #run = 0n;

  constructor(clock: Clock) {
    this.clock = clock;
  }

  /** Its clock is not ours. */
  now(): number {
    return this.clock.now() + 12_345_678;
  }

  /** Who starts under that name is a member from then on (`becomeMember` of src/hivemind/store/cluster-start.ts). */
  join(name: string): Membership {
    const run = ++this.#run;
    const before = this.members.get(name);
    const generation = before ? before.generation + (before.state === 'stopped' ? 0n : 1n) : run;
    const now = this.now();
    this.members.set(name, {
      generation,
      run,
      state: 'starting',
      address: `ipc:///${name}`,
      pushAddress: '',
      version: '2.0.0',
      started: now,
      seen: now,
      covers: NO_COVER,
      position: '1:1:',
    });
    return { name, generation, run };
  }

  /** Somebody else, such as an original hivemind, writes in a transaction; it is seen by others when it ends. */
  begin(): { upsert(row: DeviceRow): void; remove(key: DeviceKey): void; end(commit: boolean): void } {
    const xid = this.#nextXid++;
    const work: (() => void)[] = [];
    this.#open.add(xid);
    return {
      upsert: (row) => work.push(() => this.#put(row, xid, null)),
      remove: (key) => work.push(() => this.#take(key, xid, null)),
      end: (commit) => {
        this.#open.delete(xid);
        if (commit) for (const one of work) one();
      },
    };
  }

  /** Carries out a statement of src/hivemind/store/, by its name or what is peculiar to it. */
  execute({ name, text, values = [] }: QueryConfig, origin: number): Answer {
    if (name === 'beat') return this.#beat(values as [string, bigint, MemberRow['state'], Buffer, string | null]);
    if (name === 'changes') return this.#read(values as [string, bigint, string, string[], Buffer, boolean], origin);
    if (name === 'current') return this.#current(values as (Buffer | string | null)[][]);
    if (name === 'upsert') return this.#upsert(values as unknown[][], origin);
    if (name === 'remove') return this.#remove(values as unknown[][], origin);
    if (name === 'find') return this.#find(values as [Buffer, string, string]);
    if (text.includes(`position = '1:1:'`)) return this.#update(values, { position: '1:1:' });
    if (text.includes(`state = 'stopped'`))
      return this.#update(values, { state: 'stopped', covers: NO_COVER, position: null });
    if (text.includes('pg_current_snapshot() AS snapshot')) return [{ snapshot: this.#snapshot(), server: SERVER }];
    if (text.includes('spns_trim')) return this.#trim();
    throw new Error(`The simulated database does not know this statement: ${text}`);
  }

  /** `xmin:xmax:xip,…` */
  #snapshot(): string {
    const open = [...this.#open].sort((a, b) => (a < b ? -1 : 1));
    return `${open[0] ?? this.#nextXid}:${this.#nextXid}:${open.join()}`;
  }

  #update([name, run]: unknown[], what: Partial<MemberRecord>): Answer {
    const member = this.members.get(name as string);
    if (member && member.run === run) this.members.set(name as string, { ...member, ...what });
    return [];
  }

  #beat([name, run, state, covers, position]: [string, bigint, MemberRow['state'], Buffer, string | null]): Answer {
    const own = this.members.get(name);
    const now = this.now();
    if (own?.run === run) {
      const kept = own.position === null ? null : (position ?? own.position);
      this.members.set(name, { ...own, state, covers, seen: now, position: kept });
    }
    return [...this.members]
      .filter(([other, { seen }]) => (other !== name || own?.run === run) && seen > now - HOUR)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([other, row]) => ({
        now: String(now),
        name: other,
        generation: String(row.generation),
        run: String(row.run),
        state: row.state,
        address: row.address,
        push_address: row.pushAddress,
        version: row.version,
        started: String(row.started),
        seen: String(row.seen),
        covers: row.covers,
      }));
  }

  #read(
    [name, run, xmax, xip, slots, readsOwn]: [string, bigint, string, string[], Buffer, boolean],
    origin: number,
  ): Answer {
    const own = this.members.get(name);
    const first = { snapshot: this.#snapshot(), server: SERVER, lost: own?.run !== run || own.position === null };
    const open = new Set(xip);
    const found = this.changes
      .filter(({ xid }) => xid >= BigInt(xmax) || open.has(String(xid)))
      .filter(({ slot }) => ((slots[slot >> 3] ?? 0) & (1 << (slot & 7))) !== 0)
      .filter((change) => readsOwn || change.origin !== origin)
      .sort((a, b) => (a.xid < b.xid ? -1 : a.xid > b.xid ? 1 : 0));
    if (found.length === 0) return [{ ...first, xid: null, slot: null, id: null }];
    return found.map(({ xid, slot, id, key }) => ({
      ...first,
      xid: String(xid),
      slot,
      id,
      account: key?.account ?? null,
      service: key?.service ?? null,
      svcid: key?.serviceId ?? null,
    }));
  }

  #current([ids = [], accounts = [], services = [], serviceIds = []]: (Buffer | string | null)[][]): Answer {
    return ids.flatMap((id, n) => {
      const account = accounts[n] as Buffer;
      const found =
        id === null
          ? this.subscriptions.get(
              keyOf({ account, service: services[n] as string, serviceId: serviceIds[n] as string }),
            )
          : this.#byId.get(id as string);
      return found ? [{ n: String(n + 1), ...columns(found.row) }] : [];
    });
  }

  #upsert(values: unknown[][], origin: number): Answer {
    const xid = this.#nextXid++;
    const numbers = values[0] as number[];
    return numbers.flatMap((n) => {
      const row = rowOf(values.map((column) => column[n]));
      const key = keyOf(row);
      const before = this.subscriptions.get(key);
      const forgotten = this.#unsubscribed.get(key);
      if (before && isStale(row.signedAt, before.row.signedAt)) return [];
      if (forgotten !== undefined && isStale(row.signedAt, forgotten)) return [];
      this.#put(row, xid, origin);
      return [{ n, added: before === undefined }];
    });
  }

  #remove(
    [numbers = [], accounts = [], services = [], serviceIds = [], times = []]: unknown[][],
    origin: number,
  ): Answer {
    const xid = this.#nextXid++;
    return (numbers as number[]).flatMap((n) => {
      const key = {
        account: accounts[n] as Buffer,
        service: services[n] as string,
        serviceId: serviceIds[n] as string,
      };
      const time = times[n] as number;
      const name = keyOf(key);
      this.#unsubscribed.set(name, Math.max(this.#unsubscribed.get(name) ?? 0, time));
      const before = this.subscriptions.get(name);
      if (!before || isStale(time, before.row.signedAt)) return [];
      this.#take(key, xid, origin);
      return [{ n }];
    });
  }

  #find([account, service, serviceId]: [Buffer, string, string]): Answer {
    const found = this.subscriptions.get(keyOf({ account, service, serviceId }));
    return found ? [columns(found.row)] : [];
  }

  #put(row: DeviceRow, xid: bigint, origin: number | null): void {
    const key = keyOf(row);
    const id = this.subscriptions.get(key)?.id ?? String(this.#nextId++);
    const subscription = { id, row };
    this.subscriptions.set(key, subscription);
    this.#byId.set(id, subscription);
    this.changes.push({ xid, origin, slot: slotOf(row.account), id, key: null });
  }

  #take(key: DeviceKey, xid: bigint, origin: number | null): void {
    const name = keyOf(key);
    const before = this.subscriptions.get(name);
    if (!before) return;
    this.subscriptions.delete(name);
    this.#byId.delete(before.id);
    this.changes.push({ xid, origin, slot: slotOf(key.account), id: null, key });
  }

  /** `spns_trim` of src/hivemind/store/migrations/006_cluster.sql. */
  #trim(): Answer {
    const now = this.now();
    for (const [name, member] of this.members) {
      if (member.seen < now - HOUR) this.members.set(name, { ...member, position: null });
    }
    const positions = [...this.members.values()].flatMap(({ position }) =>
      position === null ? [] : [FeedPosition.parse(position)],
    );
    this.changes = this.changes.filter(
      ({ xid }) => !positions.every(({ xmax, xip }) => xid < xmax && !xip.includes(xid)),
    );
    return [{ more: false }];
  }
}

function rowOf(column: unknown[]): DeviceRow {
  const [, account, sessionEd25519, , , signature, signedAt, wantData, encKey, service, serviceId, serviceData, names] =
    column as [
      number,
      Buffer,
      Buffer | null,
      null,
      null,
      Buffer,
      number,
      boolean,
      Buffer,
      string,
      string,
      null,
      string,
    ];
  const namespaces = names.slice(1, -1).split(',').map(Number);
  return {
    account,
    sessionEd25519,
    subaccount: null,
    signature,
    signedAt,
    wantData,
    encKey,
    service,
    serviceId,
    serviceData,
    namespaces,
  };
}

function columns(row: DeviceRow): Record<string, unknown> {
  const namespaces = Buffer.alloc(2 * row.namespaces.length);
  for (const [n, namespace] of row.namespaces.entries()) namespaces.writeInt16BE(namespace, 2 * n);
  return {
    account: row.account,
    session_ed25519: row.sessionEd25519,
    subaccount_tag: null,
    subaccount_sig: null,
    signature: row.signature,
    signature_ts: String(row.signedAt),
    want_data: row.wantData,
    enc_key: row.encKey,
    service: row.service,
    svcid: row.serviceId,
    svcdata: row.serviceData,
    namespaces,
  };
}

/** How a member is split from the database: it is told so at once, or hears nothing and finds out. */
export type Split = 'refused' | 'silent';

/** How long (ms) a statement may go unanswered before the connection counts as lost. */
const NO_ANSWER = 6_000;
const RETRY_FIRST = 100;
const RETRY_MOST = 10_000;

/** A member's connection to the database, with the manners of src/hivemind/store/connection.ts. */
export class SimulatedConnection {
  readonly #database: SimulatedDatabase;
  readonly #process: SimulatedProcess;
  readonly #random: Random;
  #split: Split | undefined;
  #origin = 0;
  #isConnected = true;
  #failures = 0;
  #isClosed = false;
  #retry: Timer | undefined;
  #lane: Promise<unknown> = Promise.resolve();
  readonly #inFlight = new Set<(error: StoreError) => void>();
  readonly #waiting = new Set<() => void>();

  constructor(database: SimulatedDatabase, process: SimulatedProcess, random: Random) {
    this.#database = database;
    this.#process = process;
    this.#random = random;
    this.#origin = random.int(2 ** 31);
  }

  get connected(): boolean {
    return this.#isConnected;
  }

  get isSplit(): boolean {
    return this.#split !== undefined;
  }

  split(how: Split): void {
    this.#split = how;
    if (how === 'refused') this.#process.does(() => this.#lost());
  }

  heal(): void {
    this.#split = undefined;
  }

  /** As at the end of a process that stops in order. */
  close(): void {
    this.#isClosed = true;
    this.#retry?.cancel();
    this.#lost();
    for (const done of [...this.#waiting]) done();
  }

  async whenConnected(ms: number): Promise<boolean> {
    if (this.#isConnected || this.#isClosed) return this.#isConnected;
    await new Promise<void>((resolve) => {
      const done = () => {
        timer.cancel();
        this.#waiting.delete(done);
        resolve();
      };
      const timer = this.#process.clock.setTimeout(done, ms);
      this.#waiting.add(done);
    });
    return this.#isConnected;
  }

  query<Row extends QueryResultRow>(query: QueryConfig): Promise<QueryResult<Row>> {
    const result = this.#lane.then(() => this.#query<Row>(query));
    this.#lane = result.catch(() => undefined);
    return result;
  }

  /** The statement is carried out at some moment, and the answer comes at a later one, if both come through. */
  #query<Row extends QueryResultRow>(query: QueryConfig): Promise<QueryResult<Row>> {
    if (!this.#isConnected) return Promise.reject(unavailable('The database cannot be reached'));
    const { promise, resolve, reject } = Promise.withResolvers<QueryResult<Row>>();
    const origin = this.#origin;
    const fail = (error: StoreError) => {
      timer.cancel();
      this.#inFlight.delete(fail);
      reject(error);
    };
    const timer = this.#process.clock.setTimeout(() => this.#lost(), NO_ANSWER);
    this.#inFlight.add(fail);
    this.later(() => {
      if (!this.#inFlight.has(fail)) return;
      const rows = this.#database.execute(query, origin) as Row[];
      this.later(() =>
        this.#process.does(() => {
          if (!this.#inFlight.delete(fail)) return;
          timer.cancel();
          resolve({ rows, rowCount: rows.length, command: '', oid: 0, fields: [] });
        }),
      );
    });
    return promise;
  }

  /** In a moment, unless the way is cut then. */
  later(what: () => void): void {
    const ms = 1 + this.#random.int(3) + (this.#random.int(100) === 0 ? 300 : 0);
    this.#database.clock.setTimeout(() => {
      if (!this.#split) what();
    }, ms);
  }

  #lost(): void {
    if (!this.#isConnected) return;
    this.#isConnected = false;
    for (const fail of [...this.#inFlight]) fail(unavailable('The connection to the database was lost'));
    this.#reconnect();
  }

  #reconnect(): void {
    if (this.#isClosed) return;
    const longest = Math.min(RETRY_MOST, RETRY_FIRST * 2 ** this.#failures++);
    this.#retry = this.#process.clock.setTimeout(
      () => {
        if (this.#split) {
          this.#reconnect();
          return;
        }
        this.#isConnected = true;
        this.#failures = 0;
        this.#origin = this.#random.int(2 ** 31);
        for (const done of [...this.#waiting]) done();
      },
      longest / 2 + this.#random.int(longest / 2),
    );
  }
}

/** The store of a member, as far as a cluster needs it: what speaks to the database is the real thing. */
export class SimulatedStore {
  readonly connection: SimulatedConnection;
  readonly cluster: ClusterStore;
  readonly #database: SimulatedDatabase;
  readonly #process: SimulatedProcess;
  readonly #random: Random;
  readonly #commits: GroupCommit;

  constructor(database: SimulatedDatabase, process: SimulatedProcess, random: Random, membership: Membership) {
    this.#database = database;
    this.#process = process;
    this.#random = random;
    this.connection = new SimulatedConnection(database, process, random);
    this.cluster = new ClusterStore(this.connection, membership, (error) => {
      throw error;
    });
    this.#commits = new GroupCommit(this.connection, process.clock, { failed: () => {}, succeeded: () => {} });
  }

  upsert(row: DeviceRow): Promise<'added' | 'updated' | 'stale'> {
    return this.#commits.upsert(row);
  }

  remove(account: Buffer, service: string, serviceId: string, signedAt: number): Promise<boolean> {
    return this.#commits.remove({ account, service, serviceId, signedAt });
  }

  async find(account: Uint8Array, service: string, serviceId: string): Promise<DeviceRow | undefined> {
    const { rows } = await this.connection.query<SubscriptionRow>(findStatement(account, service, serviceId));
    return rows[0] && deviceRow(rows[0]);
  }

  async close(): Promise<void> {
    this.connection.close();
    await this.#commits.close();
  }

  watchWrites() {
    return this.#commits.watch();
  }

  /** Over a connection of its own: rows of one moment, which come in one after the other. */
  load(
    visit: (row: DeviceRow) => void,
    stopping?: AbortSignal,
    slots?: readonly number[],
  ): Promise<{ rows: number; skipped: number }> {
    return this.cluster.whileLoading(async () => {
      const wanted = slots && new Set(slots);
      await this.#step(stopping);
      const rows = [...this.#database.subscriptions.values()]
        .map(({ row }) => row)
        .filter(({ account }) => !wanted || wanted.has(slotOf(account)));
      const steps = 1 + this.#random.int(4);
      for (let n = 0; n < steps; n++) {
        await this.#step(stopping);
        for (const row of rows.filter((_, index) => index % steps === n)) visit(row);
      }
      return { rows: rows.length, skipped: 0 };
    });
  }

  async #step(stopping: AbortSignal | undefined): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const timer = this.#process.clock.setTimeout(resolve, 5 + this.#random.int(400));
    stopping?.addEventListener('abort', () => resolve(), { once: true });
    if (!stopping?.aborted) await promise;
    timer.cancel();
    if (this.connection.isSplit || stopping?.aborted) throw unavailable('The subscriptions could not be read');
  }
}

function unavailable(text: string): StoreError {
  return new StoreError('unavailable', text);
}
