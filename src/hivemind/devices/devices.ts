import { ACCOUNT_SIZE } from '../../session/account.ts';
import { isStale } from '../../session/subscription.ts';
import { AccountTable } from './account-table.ts';
import type { DeviceRow, Utf8 } from './device.ts';
import { HashIndex } from './hash-index.ts';
import { Link, Records } from './records.ts';
import { SipHash } from './siphash.ts';
import { asksForAll, chooseUpstream, effectOf, isSame, writeUpstream } from './upstream.ts';

/** One device that is to be notified of a message. Everything in it may be kept. */
export interface WantingDevice {
  readonly service: string;
  readonly serviceId: string;
  readonly serviceData: Buffer | null;
  /** 32 bytes */
  readonly encKey: Buffer;
  readonly wantData: boolean;
}

/** An account that {@link Devices.removeDevice} took a device from. */
export interface RemovedDevice {
  /** 33 bytes */
  readonly account: Buffer;
  /** of the subscription that was removed, unix seconds */
  readonly signedAt: number;
}

/**
 * How many subscriptions one call takes away at most, so that none holds the event loop for long: of one device, and of
 * those that expire.
 */
const SLICE = 2000;
const EXPIRE_SLICE = 500;
/** Accounts that one call looks at. */
const LOOKED_AT = 10_000;
/** Subscriptions that expire within one minute are found together. */
const BUCKET = 60;
const MAX_SERVICES = 65_536;
/**
 * Devices of one account, and of one of its subaccounts, to which others may be added. A message is pushed to each of
 * them, and a change among them goes to the storage servers: without an end to it one stranger's account could keep us
 * busy. A group has at most 100 members, with a few devices each.
 */
export const MAX_DEVICES = 1_000;
export const MAX_SUBACCOUNT_DEVICES = 100;

/**
 * All subscriptions, in packed memory outside the garbage collector's sight: what a notification is looked up in, and
 * what the storage servers are asked for. PostgreSQL has the same on disk ({@link Store}). No operation takes longer
 * for there being more subscriptions.
 *
 * A million subscriptions to 800,000 accounts, with tokens of 150 characters, take about 420 MB beside the process
 * itself: 340 in records, 50 in hash tables, 30 in accounts.
 */
export class Devices {
  readonly #records: Records;
  readonly #hash: SipHash;
  readonly #accounts: AccountTable;
  /** (account, service, service id) → record */
  readonly #byKey = new HashIndex();
  /** (service, service id) → the first record of that device */
  readonly #byDevice = new HashIndex();
  /** minute of the signature → the first record of it */
  readonly #byTime = new Map<number, number>();
  readonly #services: string[] = [];
  readonly #serviceNumbers = new Map<string, number>();
  readonly #serviceCounts: number[] = [];
  #size = 0;

  // What the comparisons below are about: set by #seek.
  readonly #encoded = Buffer.alloc(1024);
  #serviceId: Utf8 = { bytes: this.#encoded, at: 0, size: 0 };
  #service = 0;
  #account = 0;
  readonly #isDevice = (ref: number) => this.#sameDevice(ref);
  readonly #isKey = (ref: number) => this.#records.account(ref) === this.#account && this.#sameDevice(ref);

  /** An account got its first device. */
  onAccountAdded: (id: number) => void = () => undefined;
  /** An account lost its last device; its bytes can still be read, its id will be used again. */
  onAccountRemoved: (id: number) => void = () => undefined;
  /**
   * {@link writeMonitors} gives something else for this account than before. Not called for accounts that come or go.
   *
   * @param isMore whether something is asked for that was not before; else only other signatures are given for it, or
   *   less is asked for
   */
  onUpstreamChanged: (id: number, isMore: boolean) => void = () => undefined;

  /** @param options.random gives the key of the hash: strangers choose what is kept here */
  constructor(options: { random: (bytes: number) => Buffer }) {
    this.#hash = new SipHash(options.random(8));
    this.#records = new Records(this.#hash);
    this.#accounts = new AccountTable(this.#hash);
  }

  /** Subscriptions. */
  get size(): number {
    return this.#size;
  }

  /** Accounts with at least one subscription. */
  get accounts(): number {
    return this.#accounts.size;
  }

  /** All account ids are below this. */
  get capacity(): number {
    return this.#accounts.capacity;
  }

  /** Bytes of records: taken from the system, and in use. */
  get memory(): { reserved: number; inUse: number } {
    return { reserved: this.#records.reserved, inUse: this.#records.inUse };
  }

  /**
   * Adds a subscription, or takes a newer one in the place of what this device had for this account.
   *
   * @param row good by `rowFault`; it is copied
   * @param confirmedAt unix seconds by our clock at which it was asked for; when loading, `row.signedAt`
   * @returns 'stale' if the one that is there was signed later: then nothing has changed
   */
  upsert(row: DeviceRow, confirmedAt: number): 'added' | 'updated' | 'stale' {
    return this.#put(row, confirmedAt, false);
  }

  /**
   * Puts what the database has in the place of what is here, whichever was signed later.
   *
   * @param row good by `rowFault`; it is copied
   * @param confirmedAt unix seconds at which it was asked for at the earliest; what is known better stays
   */
  replace(row: DeviceRow, confirmedAt: number): void {
    this.#put(row, confirmedAt, true);
  }

  #put(row: DeviceRow, confirmedAt: number, always: boolean): 'added' | 'updated' | 'stale' {
    const records = this.#records;
    const accountHash = this.#accounts.hash(row.account, 0);
    const service = this.#numberOf(row.service);
    const ascii = row.serviceIdBytes;
    const deviceHash = ascii ? this.#seekBytes(service, ascii) : this.#seekDevice(service, row.serviceId);
    const keyHash = mix(accountHash, deviceHash);
    let account = this.#accounts.find(row.account, 0, accountHash);
    let old = 0;
    if (account >= 0) {
      this.#account = account;
      old = this.#byKey.find(keyHash, this.#isKey);
      if (old !== 0 && !always && isStale(row.signedAt, records.signedAt(old))) return 'stale';
    }
    if (always && old !== 0 && records.signedAt(old) === row.signedAt) {
      confirmedAt = Math.max(confirmedAt, records.confirmedAt(old));
    }
    const isNew = account < 0;
    if (isNew) account = this.#accounts.add(row.account, 0, accountHash);
    const ref = records.write(row, confirmedAt, account, service, this.#serviceId);
    // The same signature for the same, as when only the encryption key is another.
    const isAskedAlike = old !== 0 && this.#isAskedAlike(old, ref);
    const isMore = old === 0 || !asksForAll(records, old, ref);
    const before = old === 0 || isAskedAlike ? 'none' : effectOf(records, this.#accounts.value(account), old);
    if (old !== 0) this.#detach(old, keyHash, deviceHash);
    this.#attach(ref, keyHash, deviceHash);
    if (isNew) this.onAccountAdded(account);
    else if (!isAskedAlike) {
      const after = effectOf(records, this.#accounts.value(account), ref);
      if (before !== 'none' || after !== 'none') this.onUpstreamChanged(account, isMore && after === 'more');
    }
    return old === 0 ? 'added' : 'updated';
  }

  /** The subscription of this device to this account, as a copy. */
  get(account: Uint8Array, service: string, serviceId: string): DeviceRow | undefined {
    const found = this.#find(account, service, serviceId);
    if (found === undefined) return undefined;
    return this.#records.row(found.ref, this.#accountBytes(this.#records.account(found.ref)), service);
  }

  /**
   * Whether this device may subscribe to this account: it has done so already, or there are not too many yet.
   *
   * @param tag of the subaccount, 36 bytes, if it is one
   */
  hasRoom(account: Uint8Array, service: string, serviceId: string, tag: Uint8Array | undefined): boolean {
    const id = this.accountId(account);
    if (id < 0 || this.#find(account, service, serviceId) !== undefined) return true;
    let [all, alike] = [0, 0];
    for (let ref = this.#accounts.value(id); ref !== 0; ref = this.#records.next(ref, Link.ACCOUNT)) {
      if (tag !== undefined && this.#records.hasTag(ref, tag)) alike++;
      if (++all === MAX_DEVICES || alike === MAX_SUBACCOUNT_DEVICES) return false;
    }
    return true;
  }

  /**
   * Whether a subscription to this account came with that Ed25519 key (32 bytes), which then belongs to the account.
   * Looks at one subscription alone: two keys that differ in their sign belong to the same account, but apps use one.
   */
  hasSessionKey(account: Uint8Array, key: Uint8Array): boolean {
    const id = this.accountId(account);
    return id >= 0 && this.#records.isSessionKey(this.#accounts.value(id), key);
  }

  /** Takes away the subscription of this device to this account. */
  remove(account: Uint8Array, service: string, serviceId: string): boolean {
    const found = this.#find(account, service, serviceId);
    if (found === undefined) return false;
    this.#drop(found.ref, found.accountHash, found.deviceHash);
    return true;
  }

  /**
   * Takes away a device from all its accounts.
   *
   * @param notAfter unix seconds: subscriptions that were signed or asked for later stay
   * @returns what was removed; at most {@link SLICE} in one call
   */
  removeDevice(service: string, serviceId: string, notAfter: number): RemovedDevice[] {
    const records = this.#records;
    const number = this.#serviceNumbers.get(service);
    const removed: RemovedDevice[] = [];
    if (number === undefined) return removed;
    const deviceHash = this.#seekDevice(number, serviceId);
    let next = this.#byDevice.find(deviceHash, this.#isDevice);
    while (next !== 0 && removed.length < SLICE) {
      const ref = next;
      next = records.next(ref, Link.DEVICE);
      if (Math.max(records.signedAt(ref), records.confirmedAt(ref)) > notAfter) continue;
      const account = this.#accountBytes(records.account(ref));
      removed.push({ account, signedAt: records.signedAt(ref) });
      this.#drop(ref, this.#accounts.hash(account, 0), deviceHash);
    }
    return removed;
  }

  /**
   * Takes away subscriptions whose signature is too old.
   *
   * @param cutoff unix seconds: those signed then or earlier go
   * @returns how many went; at most {@link EXPIRE_SLICE} in one call, the rest in the next
   */
  expire(cutoff: number): number {
    const records = this.#records;
    let count = 0;
    for (const [minute, first] of this.#byTime) {
      if (minute > Math.floor(cutoff / BUCKET)) continue;
      let next = first;
      while (next !== 0) {
        const ref = next;
        next = records.next(ref, Link.TIME);
        if (records.signedAt(ref) > cutoff) continue;
        if (count === EXPIRE_SLICE) return count;
        const account = records.account(ref);
        const accountHash = this.#accounts.hash(this.#accounts.keyBytes(account), this.#accounts.keyOffset(account));
        const at = records.serviceIdAt(ref);
        const size = records.serviceIdSize(ref);
        this.#drop(ref, accountHash, this.#hashDevice(records.service(ref), records.bytes(ref), at, size));
        count++;
      }
    }
    return count;
  }

  /**
   * Takes away all subscriptions of accounts that are looked after elsewhere.
   *
   * @param isElsewhere gets the 33 bytes of an account
   * @param from the account's number to begin with, 0 at first
   * @returns the number to go on with; undefined when all were looked at. One call looks at {@link LOOKED_AT} accounts
   */
  removeElsewhere(isElsewhere: (bytes: Uint8Array, offset: number) => boolean, from: number): number | undefined {
    const end = Math.min(from + LOOKED_AT, this.capacity);
    let removed = 0;
    for (let id = from; id < end; id++) {
      if (!this.isLive(id) || !isElsewhere(this.#accounts.keyBytes(id), this.#accounts.keyOffset(id))) continue;
      removed += this.#dropAccount(id);
      if (removed >= EXPIRE_SLICE) return id + 1;
    }
    return end < this.capacity ? end : undefined;
  }

  /** Begins to compare with the database: what is put here from now on is there. See {@link removeUnseen}. */
  beginComparison(): void {
    this.#records.nextRound();
  }

  /**
   * Takes away the subscriptions that were not put here since {@link beginComparison}.
   *
   * @param isCompared gets the 33 bytes of an account; others stay as they are
   * @param from the account's number to begin with, 0 at first
   * @returns the number to go on with; undefined when all were looked at. One call looks at {@link LOOKED_AT} accounts
   */
  removeUnseen(isCompared: (bytes: Uint8Array, offset: number) => boolean, from: number): number | undefined {
    const records = this.#records;
    const end = Math.min(from + LOOKED_AT, this.capacity);
    let removed = 0;
    for (let id = from; id < end; id++) {
      if (!this.isLive(id) || !isCompared(this.#accounts.keyBytes(id), this.#accounts.keyOffset(id))) continue;
      const accountHash = this.#accounts.hash(this.#accounts.keyBytes(id), this.#accounts.keyOffset(id));
      for (let next = this.#accounts.value(id); next !== 0; ) {
        const ref = next;
        next = records.next(ref, Link.ACCOUNT);
        if (records.isOfRound(ref)) continue;
        const at = records.serviceIdAt(ref);
        this.#drop(
          ref,
          accountHash,
          this.#hashDevice(records.service(ref), records.bytes(ref), at, records.serviceIdSize(ref)),
        );
        removed++;
      }
      if (removed >= EXPIRE_SLICE) return id + 1;
    }
    return end < this.capacity ? end : undefined;
  }

  /**
   * How many subscriptions {@link expire} would take away in all.
   *
   * @param cutoff unix seconds: those signed then or earlier
   * @param most counts no further than one beyond this
   */
  countExpired(cutoff: number, most: number): number {
    let count = 0;
    for (const [minute, first] of this.#byTime) {
      if (minute > Math.floor(cutoff / BUCKET)) continue;
      for (let ref = first; ref !== 0 && count <= most; ref = this.#records.next(ref, Link.TIME)) {
        if (this.#records.signedAt(ref) <= cutoff) count++;
      }
      if (count > most) break;
    }
    return count;
  }

  /** Subscriptions of each service that has any. */
  countByService(): Map<string, number> {
    const counts = new Map<string, number>();
    for (const [number, count] of this.#serviceCounts.entries())
      if (count > 0) counts.set(this.#services[number]!, count);
    return counts;
  }

  /**
   * The number of an account that has subscriptions, else -1. Numbers are small, and used again after an account is
   * gone.
   *
   * @param account holds 33 bytes at `offset`
   */
  accountId(account: Uint8Array, offset = 0): number {
    if (account.length - offset < ACCOUNT_SIZE) return -1;
    return this.#accounts.find(account, offset, this.#accounts.hash(account, offset));
  }

  isLive(id: number): boolean {
    return this.#accounts.value(id) !== 0;
  }

  /** How many devices are subscribed to an account. */
  devicesOf(id: number): number {
    let count = 0;
    for (let ref = this.#accounts.value(id); ref !== 0; ref = this.#records.next(ref, Link.ACCOUNT)) count++;
    return count;
  }

  /** Where the 33 bytes of a live account lie; good until the next change. */
  account(id: number): { bytes: Uint8Array; offset: number } {
    return { bytes: this.#accounts.keyBytes(id), offset: this.#accounts.keyOffset(id) };
  }

  /**
   * Calls `visit` for each device subscribed to this account's messages in this namespace. It must not change anything
   * here.
   */
  forEachWanting(id: number, namespace: number, visit: (device: WantingDevice) => void): void {
    const records = this.#records;
    // Most devices of an account ask for the same as the one before.
    let [set, isIn] = [0, false];
    for (let ref = this.#accounts.value(id); ref !== 0; ref = records.next(ref, Link.ACCOUNT)) {
      if (records.namespaces(ref) !== set) {
        set = records.namespaces(ref);
        isIn = records.sets.has(set, namespace);
      }
      if (!isIn) continue;
      visit({
        service: this.#services[records.service(ref)]!,
        serviceId: records.serviceId(ref),
        serviceData: records.serviceData(ref),
        encKey: records.encKey(ref),
        wantData: records.wantsData(ref),
      });
    }
  }

  /**
   * Appends the monitor dicts of an account to `out` (docs/spec/network.md, section 3): one for each distinct
   * subscription, by its newest signature, and none for a subscription that another covers.
   *
   * @param refused signatures not to be used, by the numbers below
   * @param refs gets a number for each dict, which stands for its signature: its first 48 bits
   * @returns the new offset; the same if there is nothing to ask for; -1 if it does not fit
   */
  writeMonitors(id: number, out: Buffer, offset: number, refused?: ReadonlySet<number>, refs?: number[]): number {
    const chosen = chooseUpstream(this.#records, this.#accounts.value(id), refused);
    const bytes = this.#accounts.keyBytes(id);
    return writeUpstream(this.#records, chosen, bytes, this.#accounts.keyOffset(id), out, offset, refs);
  }

  #find(
    account: Uint8Array,
    service: string,
    serviceId: string,
  ): { ref: number; accountHash: number; deviceHash: number } | undefined {
    const number = this.#serviceNumbers.get(service);
    if (number === undefined || account.length !== ACCOUNT_SIZE) return undefined;
    const accountHash = this.#accounts.hash(account, 0);
    this.#account = this.#accounts.find(account, 0, accountHash);
    if (this.#account < 0) return undefined;
    const deviceHash = this.#seekDevice(number, serviceId);
    const ref = this.#byKey.find(mix(accountHash, deviceHash), this.#isKey);
    return ref === 0 ? undefined : { ref, accountHash, deviceHash };
  }

  /** Removes one subscription, and its account with the last. */
  #drop(ref: number, accountHash: number, deviceHash: number): void {
    const account = this.#records.account(ref);
    const isLast = this.#accounts.value(account) === ref && this.#records.next(ref, Link.ACCOUNT) === 0;
    const effect = isLast ? 'none' : effectOf(this.#records, this.#accounts.value(account), ref);
    this.#detach(ref, mix(accountHash, deviceHash), deviceHash);
    if (isLast) {
      this.onAccountRemoved(account);
      this.#accounts.remove(account, accountHash);
    } else if (effect !== 'none') this.onUpstreamChanged(account, false);
  }

  /** Removes an account with all its subscriptions. Returns how many there were. */
  #dropAccount(id: number): number {
    const records = this.#records;
    const accountHash = this.#accounts.hash(this.#accounts.keyBytes(id), this.#accounts.keyOffset(id));
    let count = 0;
    for (let ref = this.#accounts.value(id); ref !== 0; count++) {
      const next = records.next(ref, Link.ACCOUNT);
      const at = records.serviceIdAt(ref);
      const size = records.serviceIdSize(ref);
      const deviceHash = this.#hashDevice(records.service(ref), records.bytes(ref), at, size);
      this.#detach(ref, mix(accountHash, deviceHash), deviceHash);
      ref = next;
    }
    this.onAccountRemoved(id);
    this.#accounts.remove(id, accountHash);
    return count;
  }

  #attach(ref: number, keyHash: number, deviceHash: number): void {
    const records = this.#records;
    const account = records.account(ref);
    records.link(ref, Link.ACCOUNT, this.#accounts.value(account));
    this.#accounts.setValue(account, ref);

    const sameDevice = this.#byDevice.find(deviceHash, this.#isDevice);
    records.link(ref, Link.DEVICE, sameDevice);
    if (sameDevice === 0) this.#byDevice.add(deviceHash, ref);
    else this.#byDevice.replace(deviceHash, sameDevice, ref);

    const minute = Math.floor(records.signedAt(ref) / BUCKET);
    records.link(ref, Link.TIME, this.#byTime.get(minute) ?? 0);
    this.#byTime.set(minute, ref);

    this.#byKey.add(keyHash, ref);
    this.#serviceCounts[records.service(ref)]!++;
    this.#size++;
  }

  #detach(ref: number, keyHash: number, deviceHash: number): void {
    const records = this.#records;
    const ofAccount = records.unlink(ref, Link.ACCOUNT);
    if (ofAccount >= 0) this.#accounts.setValue(records.account(ref), ofAccount);

    const ofDevice = records.unlink(ref, Link.DEVICE);
    if (ofDevice > 0) this.#byDevice.replace(deviceHash, ref, ofDevice);
    else if (ofDevice === 0) this.#byDevice.remove(deviceHash, ref);

    const minute = Math.floor(records.signedAt(ref) / BUCKET);
    const ofMinute = records.unlink(ref, Link.TIME);
    if (ofMinute > 0) this.#byTime.set(minute, ofMinute);
    else if (ofMinute === 0) this.#byTime.delete(minute);

    this.#byKey.remove(keyHash, ref);
    this.#serviceCounts[records.service(ref)]!--;
    this.#size--;
    records.free(ref);
  }

  #isAskedAlike(a: number, b: number): boolean {
    const records = this.#records;
    return (
      records.signatureRef(a) === records.signatureRef(b) &&
      records.signedAt(a) === records.signedAt(b) &&
      isSame(records, a, b)
    );
  }

  #accountBytes(id: number): Buffer {
    const at = this.#accounts.keyOffset(id);
    return Buffer.from(this.#accounts.keyBytes(id).subarray(at, at + ACCOUNT_SIZE));
  }

  #numberOf(service: string): number {
    let number = this.#serviceNumbers.get(service);
    if (number === undefined) {
      number = this.#services.length;
      if (number >= MAX_SERVICES) throw new Error('Too many services');
      this.#services.push(service);
      this.#serviceNumbers.set(service, number);
      this.#serviceCounts.push(0);
    }
    return number;
  }

  /** Makes this device the one that {@link #isDevice} and {@link #isKey} compare with; gives its hash. */
  #seekDevice(service: number, serviceId: string): number {
    return this.#seekBytes(service, { bytes: this.#encoded, at: 0, size: this.#encoded.write(serviceId, 'utf8') });
  }

  #seekBytes(service: number, serviceId: Utf8): number {
    this.#service = service;
    this.#serviceId = serviceId;
    const { bytes, at, size } = serviceId;
    return this.#hashDevice(service, bytes, at, size);
  }

  #hashDevice(service: number, bytes: Uint8Array, at: number, size: number): number {
    return mix(service, this.#hash.bytes(bytes, at, at + size));
  }

  #sameDevice(ref: number): boolean {
    const records = this.#records;
    const { bytes: sought, at: soughtAt, size } = this.#serviceId;
    if (records.service(ref) !== this.#service || records.serviceIdSize(ref) !== size) return false;
    const bytes = records.bytes(ref);
    const at = records.serviceIdAt(ref);
    for (let n = 0; n < size; n++) if (bytes[at + n] !== sought[soughtAt + n]) return false;
    return true;
  }
}

/** Makes one hash of two numbers of which at least one is a keyed hash, which nobody outside knows. */
function mix(a: number, b: number): number {
  let hash = Math.imul(a ^ Math.imul(b, 0x9e3779b1), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 15), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}
