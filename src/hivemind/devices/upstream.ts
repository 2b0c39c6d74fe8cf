import { ACCOUNT_SIZE } from '../../session/account.ts';
import { digits, writeDigits } from './namespace-sets.ts';
import { copyBytes, List, type Records } from './records.ts';

/**
 * Up to this many subscriptions of one account are all compared with each other. With more that would take too long, so
 * only equal ones are merged.
 */
const FEW = 32;
/**
 * The most bytes of monitor dicts for one account, far above any real need. A member of a group may subscribe to it any
 * number of times; this keeps them from making more dicts than a storage server takes.
 */
const MAX_ACCOUNT_BYTES = 1_000_000;

/**
 * Chooses which of an account's subscriptions are sent to the storage servers: of those that ask for the same, the one
 * signed last; and none that another one covers (docs/spec/hivemind.md, section 4).
 *
 * @param first the first record of the account
 * @param refused signatures (by {@link Records.signatureRef}) that a storage server refused: the next best is chosen
 * @returns records, in an order that depends only on them
 */
export function chooseUpstream(records: Records, first: number, refused?: ReadonlySet<number>): number[] {
  const all: number[] = [];
  for (let ref = first; ref !== 0; ref = records.next(ref, List.ACCOUNT)) {
    if (refused === undefined || !refused.has(records.signatureRef(ref))) all.push(ref);
  }
  if (all.length < 2) return all;
  all.sort((a, b) => newestFirst(records, a, b));
  if (all.length > FEW) return chooseOfMany(records, all);
  const distinct: number[] = [];
  for (const ref of all) {
    if (!distinct.some((newer) => isSame(records, newer, ref))) distinct.push(ref);
  }
  return distinct.filter((ref) => !distinct.some((other) => other !== ref && covers(records, other, ref)));
}

/** What adding or removing a subscription changes in what the storage servers are asked for. */
export type Effect =
  /** Nothing: they are asked for the same by the same signatures. */
  | 'none'
  /** The same or less is asked for, by other signatures. */
  | 'signatures'
  /** Something is asked for that no other subscription of the account asks for. */
  | 'more';

/**
 * What this subscription changes in what the storage servers are asked for, compared with the account without it. Looks
 * at {@link FEW} others at most.
 *
 * @param first the first record of the account; `ref` is among its records
 */
export function effectOf(records: Records, first: number, ref: number): Effect {
  let isAskedFor = false;
  let isHidden = false;
  let others = 0;
  for (let other = first; other !== 0; other = records.next(other, List.ACCOUNT)) {
    if (other === ref) continue;
    // Of so many only equal ones are merged, so this one may be sent.
    if (++others >= FEW) return isAskedFor ? 'signatures' : 'more';
    if (isHidden || !asksForAll(records, other, ref)) continue;
    isAskedFor = true;
    isHidden = records.sameSigner(other, ref) && !(isSame(records, other, ref) && newestFirst(records, ref, other) < 0);
  }
  if (isHidden) return 'none';
  return isAskedFor ? 'signatures' : 'more';
}

/**
 * {@link chooseUpstream} of many, in the time that sorting takes. The shortest dict of each subaccount comes before any
 * second one, so that no subaccount can crowd the others out of {@link MAX_ACCOUNT_BYTES}.
 */
function chooseOfMany(records: Records, sorted: readonly number[]): number[] {
  const distinct = new Map<string, { ref: number; tag: string; size: number; rank: number }>();
  for (const ref of sorted) {
    const tag = tagOf(records, ref);
    const key = `${records.namespaces(ref)}${records.wantsData(ref) ? '+' : '-'}${tag}`;
    if (!distinct.has(key)) distinct.set(key, { ref, tag, size: monitorSize(records, ref), rank: 0 });
  }
  const list = [...distinct.values()].sort((a, b) => a.size - b.size);
  const ranks = new Map<string, number>();
  for (const entry of list) {
    entry.rank = ranks.get(entry.tag) ?? 0;
    ranks.set(entry.tag, entry.rank + 1);
  }
  list.sort((a, b) => a.rank - b.rank);
  return list.map(({ ref }) => ref);
}

function tagOf(records: Records, ref: number): string {
  const at = records.subaccountAt(ref) + 64;
  return records.hasSubaccount(ref) ? records.bytes(ref).toString('latin1', at, at + 36) : '';
}

/** Sorts the one signed last to the front. */
function newestFirst(records: Records, a: number, b: number): number {
  return records.signedAt(b) - records.signedAt(a) || records.signatureRef(b) - records.signatureRef(a);
}

/** Whether both ask for the same on behalf of the same signer, whatever their signatures. */
export function isSame(records: Records, a: number, b: number): boolean {
  return (
    records.namespaces(a) === records.namespaces(b) &&
    records.wantsData(a) === records.wantsData(b) &&
    records.sameSigner(a, b)
  );
}

function covers(records: Records, a: number, b: number): boolean {
  return records.sameSigner(a, b) && asksForAll(records, a, b);
}

/**
 * Whether `a` asks for all that `b` asks for, whoever signed them: a storage server merges all requests for an account.
 */
export function asksForAll(records: Records, a: number, b: number): boolean {
  if (records.wantsData(b) && !records.wantsData(a)) return false;
  return records.sets.includes(records.namespaces(a), records.namespaces(b));
}

/** The size of a record's monitor dict, in bytes. */
function monitorSize(records: Records, ref: number): number {
  let size =
    'd1:nle1:s64:1:tiee'.length +
    64 +
    records.sets.encodedSize(records.namespaces(ref)) +
    digits(records.signedAt(ref));
  size += records.hasSessionKey(ref) ? '1:P32:'.length + 32 : '1:p33:'.length + ACCOUNT_SIZE;
  if (records.hasSubaccount(ref)) size += '1:S64:1:T36:'.length + 64 + 36;
  if (records.wantsData(ref)) size += '1:di1e'.length;
  return size;
}

const text = (value: string) => Buffer.from(value, 'latin1');
const SESSION_KEY = text('d1:P32:');
const DICT = text('d');
const SUBACCOUNT = text('1:S64:');
const TAG = text('1:T36:');
const NAMESPACES = text('1:nl');
const DATA_AND_NAMESPACES = text('1:di1e1:nl');
const ACCOUNT = text('e1:p33:');
const SIGNATURE_BEHIND_ACCOUNT = text('1:s64:');
const SIGNATURE = text('e1:s64:');
const TIME = text('1:ti');
const TIME_END = text('ee');

/**
 * Appends the monitor dicts of those records (docs/spec/network.md, section 3).
 *
 * @param account where the account's 33 bytes begin in `accountBytes`
 * @param refs gets the {@link Records.signatureRef} of each dict
 * @returns the new offset, or -1 if they do not fit; the bytes after `offset` are then undefined
 */
export function writeUpstream(
  records: Records,
  chosen: readonly number[],
  accountBytes: Buffer,
  account: number,
  out: Buffer,
  offset: number,
  refs?: number[],
): number {
  const before = refs?.length ?? 0;
  let at = offset;
  for (const ref of chosen) {
    const size = monitorSize(records, ref);
    if (at + size - offset > MAX_ACCOUNT_BYTES) break;
    if (at + size > out.length) {
      if (refs) refs.length = before;
      return -1;
    }
    at = writeMonitor(records, ref, accountBytes, account, out, at);
    refs?.push(records.signatureRef(ref));
  }
  return at;
}

function writeMonitor(
  records: Records,
  ref: number,
  accountBytes: Buffer,
  account: number,
  out: Buffer,
  at: number,
): number {
  const bytes = records.bytes(ref);
  const hasSessionKey = records.hasSessionKey(ref);
  if (hasSessionKey) {
    at = copyBytes(out, at, SESSION_KEY, 0, SESSION_KEY.length);
    at = copyBytes(out, at, bytes, records.sessionKeyAt(ref), 32);
  } else at = copyBytes(out, at, DICT, 0, 1);
  if (records.hasSubaccount(ref)) {
    const from = records.subaccountAt(ref);
    at = copyBytes(out, at, SUBACCOUNT, 0, SUBACCOUNT.length);
    at = copyBytes(out, at, bytes, from, 64);
    at = copyBytes(out, at, TAG, 0, TAG.length);
    at = copyBytes(out, at, bytes, from + 64, 36);
  }
  const before = records.wantsData(ref) ? DATA_AND_NAMESPACES : NAMESPACES;
  at = copyBytes(out, at, before, 0, before.length);
  const set = records.namespaces(ref);
  at = copyBytes(out, at, records.sets.bytes(set), records.sets.encodedAt(set), records.sets.encodedSize(set));
  if (hasSessionKey) at = copyBytes(out, at, SIGNATURE, 0, SIGNATURE.length);
  else {
    at = copyBytes(out, at, ACCOUNT, 0, ACCOUNT.length);
    at = copyBytes(out, at, accountBytes, account, ACCOUNT_SIZE);
    at = copyBytes(out, at, SIGNATURE_BEHIND_ACCOUNT, 0, SIGNATURE_BEHIND_ACCOUNT.length);
  }
  at = copyBytes(out, at, bytes, records.signatureAt(ref), 64);
  at = copyBytes(out, at, TIME, 0, TIME.length);
  at = writeDigits(out, at, records.signedAt(ref));
  return copyBytes(out, at, TIME_END, 0, 2);
}
