import { ACCOUNT_SIZE } from '../../session/account.ts';
import { isStale } from '../../session/subscription.ts';
import { AccountTable } from './account-table.ts';
import type { DeviceRow, Utf8 } from './device.ts';
import { HashIndex } from './hash-index.ts';
import { List, Records } from './records.ts';
import { SipHash } from './siphash.ts';
import { asksForAll, chooseUpstream, effectOf, isSame, writeUpstream } from './upstream.ts';

/** A device to be notified of a message. Everything in it is a copy and may be kept. */
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
  /** When the removed subscription was signed, unix seconds. */
  readonly signedAt: number;
}

/** The most subscriptions that one call removes, of one device or of all, so that it does not hold the event loop. */
const MAX_REMOVED_OF_DEVICE = 2000;
const MAX_REMOVED = 500;
/** The most accounts that one call looks at. */
const MAX_SCANNED = 10_000;
/** Subscriptions are listed by when they were signed, in buckets of this many seconds. */
const BUCKET = 60;
const MAX_SERVICES = 65_536;
/**
 * The most devices of one account, and of one of its subaccounts. A message is pushed to each of them, and each change
 * among them goes to the storage servers: without a limit one stranger's account could keep us busy. A group has at
 * most 100 members, with a few devices each.
 */
export const MAX_DEVICES = 1_000;
export const MAX_SUBACCOUNT_DEVICES = 100;

/**
 * All subscriptions, in packed memory that the garbage collector does not scan. Notifications are looked up here, and
 * what storage servers are asked for is made from it. PostgreSQL has the same on disk ({@link Store}). No operation
 * takes longer with more subscriptions, except those that are done in slices.
 *
 * A million subscriptions to 800,000 accounts, with tokens of 150 characters, take about 400 MB on top of the process
 * itself: 340 in records, 30 in hash tables, 30 in accounts.
 */
export class Devices {
  readonly #records: Records;
  readonly #hash: SipHash;
  readonly #accounts: AccountTable;
  /** (service, service id) → the first record of that device */
  readonly #byDevice = new HashIndex();
  /** minute of the signature → the first record of that minute */
  readonly #byTime = new Map<number, number>();
  readonly #services: string[] = [];
  readonly #serviceNumbers = new Map<string, number>();
  readonly #serviceCounts: number[] = [];
  #size = 0;

  // What #isDevice compares with, set by #seekBytes, so that a lookup need not allocate a closure.
  readonly #encoded = Buffer.alloc(1024);
  #serviceId: Utf8 = { bytes: this.#encoded, at: 0, size: 0 };
  #service = 0;
  readonly #isDevice = (ref: number) => this.#sameDevice(ref);

  /** Called when an account has got its first device. */
  onAccountAdded: (id: number) => void = () => undefined;
  /** Called when an account has lost its last device. Its bytes can still be read; its id will be used again. */
  onAccountRemoved: (id: number) => void = () => undefined;
  /**
   * Called when {@link writeMonitors} would now write something else for this account. Not called for accounts that
   * come or go.
   *
   * @param isMore whether something is asked for that was not before; if not, less is asked for, or the same by other
   *   signatures
   */
  onUpstreamChanged: (id: number, isMore: boolean) => void = () => undefined;

  /** @param options.random makes the key of the hashes: strangers choose what is kept here */
  constructor(options: { random: (bytes: number) => Buffer }) {
    this.#hash = new SipHash(options.random(8));
    this.#records = new Records(this.#hash);
    this.#accounts = new AccountTable(this.#hash);
  }

  /** Tells about how many subscriptions there will be, 0 if that is not known: see {@link HashIndex.expect}. */
  expect(subscriptions: number): void {
    this.#accounts.expect(subscriptions);
    this.#byDevice.expect(subscriptions);
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

  /** Bytes reserved for records, and those in use. */
  get memory(): { reserved: number; inUse: number } {
    return { reserved: this.#records.reserved, inUse: this.#records.inUse };
  }

  /**
   * Adds this device's subscription to this account, or replaces it unless the new one was signed earlier.
   *
   * @param row valid by `rowFault`; it is copied
   * @param confirmedAt when the device asked for it by our clock, unix seconds; when loading, `row.signedAt`
   * @returns 'stale' if the stored one is newer ({@link isStale}): nothing has changed then
   */
  upsert(row: DeviceRow, confirmedAt: number): 'added' | 'updated' | 'stale' {
    return this.#put(row, confirmedAt, false);
  }

  /**
   * Replaces a subscription by the database's row, whichever was signed later.
   *
   * @param row valid by `rowFault`; it is copied
   * @param confirmedAt the earliest time at which the device may have asked for it, unix seconds; for the same
   *   signature a later time that is known stays
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
    let account = this.#accounts.find(row.account, 0, accountHash);
    const device = this.#byDevice.find(deviceHash, this.#isDevice);
    const old = account < 0 ? 0 : this.#subscription(account, device);
    if (old !== 0 && !always && isStale(row.signedAt, records.signedAt(old))) return 'stale';
    if (always && old !== 0 && records.signedAt(old) === row.signedAt) {
      confirmedAt = Math.max(confirmedAt, records.confirmedAt(old));
    }
    const isNew = account < 0;
    if (isNew) account = this.#accounts.add(row.account, 0, accountHash);
    const ref = records.write(row, confirmedAt, account, service, this.#serviceId);
    // As when only the encryption key has changed: the storage servers are asked for the same by the same signature.
    const isSameRequest = old !== 0 && this.#isSameRequest(old, ref);
    const isMore = old === 0 || !asksForAll(records, old, ref);
    const before = old === 0 || isSameRequest ? 'none' : effectOf(records, this.#accounts.value(account), old);
    if (old !== 0) this.#detach(old, deviceHash);
    this.#attach(ref, deviceHash);
    if (isNew) this.onAccountAdded(account);
    else if (!isSameRequest) {
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
   * Whether this device may subscribe to this account: it already has, or the account has room for another.
   *
   * @param tag of the subaccount that signs, 36 bytes; undefined if the account itself does
   */
  hasRoom(account: Uint8Array, service: string, serviceId: string, tag: Uint8Array | undefined): boolean {
    const id = this.accountId(account);
    if (id < 0 || this.#find(account, service, serviceId) !== undefined) return true;
    let [all, alike] = [0, 0];
    for (let ref = this.#accounts.value(id); ref !== 0; ref = this.#records.next(ref, List.ACCOUNT)) {
      if (tag !== undefined && this.#records.hasTag(ref, tag)) alike++;
      if (++all === MAX_DEVICES || alike === MAX_SUBACCOUNT_DEVICES) return false;
    }
    return true;
  }

  /**
   * Whether a subscription to this account was made with that Ed25519 key (32 bytes), so that it is known to belong to
   * the account. Looks at one subscription only: two keys that differ in sign belong to the same account, but apps use
   * one of them.
   */
  hasSessionKey(account: Uint8Array, key: Uint8Array): boolean {
    const id = this.accountId(account);
    return id >= 0 && this.#records.isSessionKey(this.#accounts.value(id), key);
  }

  /** Removes this device's subscription to this account. @returns whether there was one */
  remove(account: Uint8Array, service: string, serviceId: string): boolean {
    const found = this.#find(account, service, serviceId);
    if (found === undefined) return false;
    this.#drop(found.ref, found.accountHash, found.deviceHash);
    return true;
  }

  /**
   * Removes a device from all its accounts.
   *
   * @param notAfter unix seconds: subscriptions signed or asked for later stay
   * @returns what was removed; at most {@link MAX_REMOVED_OF_DEVICE} in one call
   */
  removeDevice(service: string, serviceId: string, notAfter: number): RemovedDevice[] {
    const records = this.#records;
    const number = this.#serviceNumbers.get(service);
    const removed: RemovedDevice[] = [];
    if (number === undefined) return removed;
    const deviceHash = this.#seekDevice(number, serviceId);
    let next = this.#byDevice.find(deviceHash, this.#isDevice);
    while (next !== 0 && removed.length < MAX_REMOVED_OF_DEVICE) {
      const ref = next;
      next = records.next(ref, List.DEVICE);
      if (Math.max(records.signedAt(ref), records.confirmedAt(ref)) > notAfter) continue;
      const account = this.#accountBytes(records.account(ref));
      removed.push({ account, signedAt: records.signedAt(ref) });
      this.#drop(ref, this.#accounts.hash(account, 0), deviceHash);
    }
    return removed;
  }

  /**
   * Removes subscriptions whose signature is too old.
   *
   * @param cutoff unix seconds: those signed then or earlier are removed
   * @returns how many were removed; at most {@link MAX_REMOVED} in one call, the rest in the next
   */
  expire(cutoff: number): number {
    const records = this.#records;
    let count = 0;
    for (const [minute, first] of this.#byTime) {
      if (minute > Math.floor(cutoff / BUCKET)) continue;
      let next = first;
      while (next !== 0) {
        const ref = next;
        next = records.next(ref, List.TIME);
        if (records.signedAt(ref) > cutoff) continue;
        if (count === MAX_REMOVED) return count;
        this.#drop(ref, this.#accountHashOf(records.account(ref)), this.#deviceHashOf(ref));
        count++;
      }
    }
    return count;
  }

  /**
   * Removes accounts with all their subscriptions. One call looks at {@link MAX_SCANNED} accounts at most.
   *
   * @param isRemoved tells whether to remove the account whose 33 bytes are at `offset`
   * @param from the account id to begin at, 0 at first
   * @returns the account id to go on at; undefined when all have been looked at
   */
  removeAccounts(isRemoved: (bytes: Uint8Array, offset: number) => boolean, from: number): number | undefined {
    const end = Math.min(from + MAX_SCANNED, this.capacity);
    let removed = 0;
    for (let id = from; id < end; id++) {
      if (!this.isLive(id) || !isRemoved(this.#accounts.keyBytes(id), this.#accounts.keyOffset(id))) continue;
      removed += this.#dropAccount(id);
      if (removed >= MAX_REMOVED) return id + 1;
    }
    return end < this.capacity ? end : undefined;
  }

  /** Marks what is put here from now on as seen in the database. See {@link removeUnseen}. */
  beginComparison(): void {
    this.#records.nextRound();
  }

  /**
   * Removes the subscriptions that were not put here since {@link beginComparison}. One call looks at
   * {@link MAX_SCANNED} accounts at most.
   *
   * @param isCompared tells whether the account whose 33 bytes are at `offset` was compared; others stay as they are
   * @param from the account id to begin at, 0 at first
   * @returns the account id to go on at; undefined when all have been looked at
   */
  removeUnseen(isCompared: (bytes: Uint8Array, offset: number) => boolean, from: number): number | undefined {
    const records = this.#records;
    const end = Math.min(from + MAX_SCANNED, this.capacity);
    let removed = 0;
    for (let id = from; id < end; id++) {
      if (!this.isLive(id) || !isCompared(this.#accounts.keyBytes(id), this.#accounts.keyOffset(id))) continue;
      const accountHash = this.#accountHashOf(id);
      for (let next = this.#accounts.value(id); next !== 0; ) {
        const ref = next;
        next = records.next(ref, List.ACCOUNT);
        if (records.isOfRound(ref)) continue;
        this.#drop(ref, accountHash, this.#deviceHashOf(ref));
        removed++;
      }
      if (removed >= MAX_REMOVED) return id + 1;
    }
    return end < this.capacity ? end : undefined;
  }

  /**
   * How many subscriptions {@link expire} would remove in all.
   *
   * @param cutoff unix seconds: those signed then or earlier
   * @param most counting stops at one more than this
   */
  countExpired(cutoff: number, most: number): number {
    let count = 0;
    for (const [minute, first] of this.#byTime) {
      if (minute > Math.floor(cutoff / BUCKET)) continue;
      for (let ref = first; ref !== 0 && count <= most; ref = this.#records.next(ref, List.TIME)) {
        if (this.#records.signedAt(ref) <= cutoff) count++;
      }
      if (count > most) break;
    }
    return count;
  }

  /** How many subscriptions each service has; services without any are left out. */
  countByService(): Map<string, number> {
    const counts = new Map<string, number>();
    for (const [number, count] of this.#serviceCounts.entries())
      if (count > 0) counts.set(this.#services[number]!, count);
    return counts;
  }

  /**
   * The id of an account that has subscriptions, else -1. Ids are small, and used again once their account is gone.
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

  /** How many devices are subscribed to this account. */
  devicesOf(id: number): number {
    let count = 0;
    for (let ref = this.#accounts.value(id); ref !== 0; ref = this.#records.next(ref, List.ACCOUNT)) count++;
    return count;
  }

  /** Where the 33 bytes of a live account lie; good until the next change. */
  account(id: number): { bytes: Uint8Array; offset: number } {
    return { bytes: this.#accounts.keyBytes(id), offset: this.#accounts.keyOffset(id) };
  }

  /**
   * Calls `visit` for each device subscribed to this account's messages in this namespace. `visit` must not change any
   * subscription.
   */
  forEachWanting(id: number, namespace: number, visit: (device: WantingDevice) => void): void {
    const records = this.#records;
    // Most devices of an account ask for the same set as the one before: it is searched once.
    let [set, isIn] = [0, false];
    for (let ref = this.#accounts.value(id); ref !== 0; ref = records.next(ref, List.ACCOUNT)) {
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
   * @param refused signatures not to use, by the numbers that `refs` gets
   * @param refs gets a number for each dict that stands for its signature: the first 48 bits
   * @returns the new offset: `offset` itself if there is nothing to ask for, -1 if the dicts do not fit
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
    const id = this.#accounts.find(account, 0, accountHash);
    if (id < 0) return undefined;
    const deviceHash = this.#seekDevice(number, serviceId);
    const ref = this.#subscription(id, this.#byDevice.find(deviceHash, this.#isDevice));
    return ref === 0 ? undefined : { ref, accountHash, deviceHash };
  }

  /**
   * The subscription of the device that is sought to this account. Goes through the account's and the device's at the
   * same time, and ends with the shorter list: nearly all are short, and nobody gains by making one of them long. An
   * index of its own would take 20 MB a million, and a fifth of the time of loading.
   *
   * @param device the device's first record, 0 for none
   * @returns its record, 0 for none
   */
  #subscription(account: number, device: number): number {
    const records = this.#records;
    let ofAccount = this.#accounts.value(account);
    for (let ofDevice = device; ofAccount !== 0 && ofDevice !== 0; ofDevice = records.next(ofDevice, List.DEVICE)) {
      if (records.account(ofDevice) === account) return ofDevice;
      if (this.#sameDevice(ofAccount)) return ofAccount;
      ofAccount = records.next(ofAccount, List.ACCOUNT);
    }
    return 0;
  }

  /** Removes one subscription, and with its last one the account. */
  #drop(ref: number, accountHash: number, deviceHash: number): void {
    const account = this.#records.account(ref);
    const isLast = this.#accounts.value(account) === ref && this.#records.next(ref, List.ACCOUNT) === 0;
    const effect = isLast ? 'none' : effectOf(this.#records, this.#accounts.value(account), ref);
    this.#detach(ref, deviceHash);
    if (isLast) {
      this.onAccountRemoved(account);
      this.#accounts.remove(account, accountHash);
    } else if (effect !== 'none') this.onUpstreamChanged(account, false);
  }

  /** Removes an account with all its subscriptions. @returns how many there were */
  #dropAccount(id: number): number {
    const records = this.#records;
    const accountHash = this.#accountHashOf(id);
    let count = 0;
    for (let ref = this.#accounts.value(id); ref !== 0; count++) {
      const next = records.next(ref, List.ACCOUNT);
      this.#detach(ref, this.#deviceHashOf(ref));
      ref = next;
    }
    this.onAccountRemoved(id);
    this.#accounts.remove(id, accountHash);
    return count;
  }

  #attach(ref: number, deviceHash: number): void {
    const records = this.#records;
    const account = records.account(ref);
    records.link(ref, List.ACCOUNT, this.#accounts.value(account));
    this.#accounts.setValue(account, ref);

    const sameDevice = this.#byDevice.find(deviceHash, this.#isDevice);
    records.link(ref, List.DEVICE, sameDevice);
    if (sameDevice === 0) this.#byDevice.add(deviceHash, ref);
    else this.#byDevice.replace(deviceHash, sameDevice, ref);

    const minute = Math.floor(records.signedAt(ref) / BUCKET);
    records.link(ref, List.TIME, this.#byTime.get(minute) ?? 0);
    this.#byTime.set(minute, ref);

    this.#serviceCounts[records.service(ref)]!++;
    this.#size++;
  }

  #detach(ref: number, deviceHash: number): void {
    const records = this.#records;
    const ofAccount = records.unlink(ref, List.ACCOUNT);
    if (ofAccount >= 0) this.#accounts.setValue(records.account(ref), ofAccount);

    const ofDevice = records.unlink(ref, List.DEVICE);
    if (ofDevice > 0) this.#byDevice.replace(deviceHash, ref, ofDevice);
    else if (ofDevice === 0) this.#byDevice.remove(deviceHash, ref);

    const minute = Math.floor(records.signedAt(ref) / BUCKET);
    const ofMinute = records.unlink(ref, List.TIME);
    if (ofMinute > 0) this.#byTime.set(minute, ofMinute);
    else if (ofMinute === 0) this.#byTime.delete(minute);

    this.#serviceCounts[records.service(ref)]!--;
    this.#size--;
    records.free(ref);
  }

  #isSameRequest(a: number, b: number): boolean {
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

  /** Makes this device the one that {@link #isDevice} looks for. @returns its hash */
  #seekDevice(service: number, serviceId: string): number {
    return this.#seekBytes(service, { bytes: this.#encoded, at: 0, size: this.#encoded.write(serviceId, 'utf8') });
  }

  #seekBytes(service: number, serviceId: Utf8): number {
    this.#service = service;
    this.#serviceId = serviceId;
    const { bytes, at, size } = serviceId;
    return this.#hashDevice(service, bytes, at, size);
  }

  #accountHashOf(id: number): number {
    return this.#accounts.hash(this.#accounts.keyBytes(id), this.#accounts.keyOffset(id));
  }

  #deviceHashOf(ref: number): number {
    const records = this.#records;
    const at = records.serviceIdAt(ref);
    return this.#hashDevice(records.service(ref), records.bytes(ref), at, records.serviceIdSize(ref));
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

/** Combines two numbers into a hash. One of them must be a keyed hash, so that no stranger can predict the result. */
function mix(a: number, b: number): number {
  let hash = Math.imul(a ^ Math.imul(b, 0x9e3779b1), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 15), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}
