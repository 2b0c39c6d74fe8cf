import type { Clock } from '../clock.ts';
import { parseJson, stringifySorted } from '../codec/json.ts';
import type { Remote } from '../oxenmq/remote.ts';
import {
  Code,
  parseSubscribe,
  parseUnsubscribe,
  RequestError,
  UntimelyError,
  verifyUnsubscribe,
} from '../session/request.ts';
import { isStale } from '../session/subscription.ts';
import type { DeviceRow } from './devices/device.ts';
import type { Devices } from './devices/devices.ts';
import type { Stats } from './stats.ts';
import type { Store } from './store/store.ts';
import { StoreError } from './store/store-error.ts';
import { GENERIC_ERROR, timedOut, unavailable, type ValidDevice, validateDevice } from './validate.ts';

/** What a client may ask for. */
export type RequestKind = 'subscribe' | 'unsubscribe';

/** What the subscriptions work with. */
export interface SubscriptionModules {
  clock: Clock;
  /** Every time that it may be (unix ms), and whether that is in doubt; by the clock alone if not given. */
  time?: () => { readonly possible: readonly number[]; readonly inDoubt: boolean };
  store: Pick<Store, 'upsert' | 'remove'>;
  stats: Pick<Stats, 'add'>;
  devices: Pick<Devices, 'upsert' | 'remove' | 'get' | 'hasRoom'>;
  /** The notifier that answers for a device of that service; undefined if none is there. */
  notifierFor: (service: string) => Remote | undefined;
  log: (level: 'debug' | 'warn', text: string) => void;
}

/** Counted by kind and result; results are 'ok' or 'code_N'. */
export interface SubscriptionCounters {
  readonly results: Map<string, number>;
  /** Time spent on reading and verifying, in milliseconds, and how often. */
  checkMs: number;
  checks: number;
}

/** Elements in work at once; what comes beyond that is told to come again, before it costs anything. */
const MAX_PENDING = 4_096;
/** Elements of one request in work at once, so that one request does not take all the places. */
const AT_ONCE = 64;
/**
 * Elements that one request may have. The smallest that could succeed has some 300 bytes, so in the 1 MiB that the original takes there is no room for
 * more; what has more is made of rubbish, and its answer would be thirty times its size.
 */
const MAX_ELEMENTS = 4_096;
/** The event loop gets its turn after this much uninterrupted checking of signatures, in milliseconds. */
const SLICE_MS = 4;
/** What a request gets that comes while too many are in work. */
export const BUSY = new RequestError(Code.INTERNAL_ERROR, 'The server is busy; try again later');
const INTERNAL = 'An internal error occurred while processing your request';

/** Clients' subscriptions and unsubscriptions, from the bytes of the request to the bytes of the reply. */
export class Subscriptions {
  readonly counters: SubscriptionCounters = { results: new Map(), checkMs: 0, checks: 0 };
  readonly #modules: SubscriptionModules;
  readonly #inWork = new Map<string, number>();
  /** What is to be read and verified; done in slices, first come first served. */
  #checks: (() => void)[] = [];
  /** Ends the wait for a notifier's word on a device, of everybody who waits for one. */
  readonly #giveUp = new Set<() => void>();
  #pending = 0;
  #accepting = true;
  #idle: (() => void) | undefined;

  constructor(modules: SubscriptionModules) {
    this.#modules = modules;
  }

  /**
   * Answers push.subscribe or push.unsubscribe (spec/hivemind.md, sections 1.1 and 1.2). Never throws.
   * @param body the JSON; undefined if the request had no data part
   * @returns compact JSON, keys sorted
   */
  async handle(kind: RequestKind, body: Buffer | undefined): Promise<string> {
    if (!body) return failure(new RequestError(Code.BAD_INPUT, 'Invalid request: missing request data'));
    let request: unknown;
    try {
      request = parseJson(body);
    } catch {
      this.#count(kind, Code.BAD_INPUT);
      return failure(new RequestError(Code.BAD_INPUT, 'Invalid JSON'));
    }
    if (typeof request !== 'object' || request === null) {
      this.#count(kind, Code.BAD_INPUT);
      return failure(new RequestError(Code.BAD_INPUT, 'Invalid JSON: expected object or array of objects'));
    }
    if (!Array.isArray(request)) return this.#element(kind, request);
    if (request.length > MAX_ELEMENTS) {
      this.#count(kind, Code.BAD_INPUT);
      return failure(new RequestError(Code.BAD_INPUT, `Invalid request: more than ${MAX_ELEMENTS} elements`));
    }
    return `[${(await this.#elements(kind, request)).join(',')}]`;
  }

  /** Answers the elements in their order, some at a time. */
  async #elements(kind: RequestKind, elements: readonly unknown[]): Promise<string[]> {
    const replies: string[] = new Array(elements.length);
    let next = 0;
    const work = async () => {
      for (let index = next++; index < elements.length; index = next++) {
        replies[index] = await this.#element(kind, elements[index]);
      }
    };
    await Promise.all(Array.from({ length: Math.min(AT_ONCE, elements.length) }, work));
    return replies;
  }

  /** How many elements are in work. */
  get pending(): number {
    return this.#pending;
  }

  /**
   * True while a request for that device is between its check and its commit: a provider's verdict on the device is
   * older than that request, and must not remove what it is about to store.
   */
  isInWork(service: string, serviceId: string): boolean {
    return this.#inWork.has(deviceKey(service, serviceId));
  }

  /**
   * Takes no more requests; resolves when those in work are answered.
   * @param patience how long notifiers may still take for their word on a device, in milliseconds; the client is then told that they timed out
   */
  async stop(patience: number): Promise<void> {
    this.#accepting = false;
    if (this.#pending === 0) return;
    const timer = this.#modules.clock.setTimeout(() => {
      for (const giveUp of [...this.#giveUp]) giveUp();
    }, patience);
    await new Promise<void>((resolve) => (this.#idle = resolve));
    timer.cancel();
  }

  async #element(kind: RequestKind, element: unknown): Promise<string> {
    if (!this.#accepting || this.#pending >= MAX_PENDING) {
      this.#count(kind, Code.INTERNAL_ERROR);
      return failure(BUSY);
    }
    this.#pending++;
    try {
      const reply = await (kind === 'subscribe' ? this.#subscribe(element) : this.#unsubscribe(element));
      this.#count(kind, Code.OK);
      return stringifySorted(reply);
    } catch (error) {
      const known = this.#known(error);
      this.#count(kind, known.code);
      return failure(known);
    } finally {
      this.#pending--;
      if (this.#pending === 0) this.#idle?.();
    }
  }

  async #subscribe(element: unknown): Promise<object> {
    const { store, devices, stats, clock } = this.#modules;
    const request = await this.#check(() =>
      this.#inTime((now) => parseSubscribe(element, now, (name) => this.#modules.notifierFor(name) !== undefined)),
    );
    const { service } = request;
    const device = await this.#validate(service, request.serviceInfo);
    return this.#during(service, device, async () => {
      if (!devices.hasRoom(request.account, service, device.serviceId, request.subaccount?.tag)) {
        throw new RequestError(Code.ERROR, 'Too many devices are subscribed to this account');
      }
      const row: DeviceRow = {
        account: request.account,
        sessionEd25519: request.sessionEd25519,
        subaccount: request.subaccount,
        signature: request.signature,
        signedAt: request.signedAt,
        wantData: request.wantData,
        encKey: request.encKey,
        service,
        serviceId: device.serviceId,
        serviceData: device.serviceData,
        namespaces: request.namespaces,
      };
      const result = await store.upsert(row);
      if (result === 'stale') return this.#stale(row);
      devices.upsert(row, seconds(clock.now()));
      const statistic = { [result === 'added' ? 'subscription' : 'sub_renew']: 1 };
      stats.add('', statistic);
      stats.add(service, statistic);
      return result === 'added'
        ? { added: true, message: 'Subscription successful', success: true }
        : { message: 'Resubscription successful', success: true, updated: true };
    });
  }

  async #unsubscribe(element: unknown): Promise<object> {
    const { store, devices } = this.#modules;
    const request = await this.#check(() =>
      parseUnsubscribe(element, (name) => this.#modules.notifierFor(name) !== undefined),
    );
    const { account, service } = request;
    const device = await this.#validate(service, request.serviceInfo);
    // After the notifier's answer, as the original has it: a notifier's own refusal comes before a bad signature.
    await this.#check(() => this.#inTime((now) => verifyUnsubscribe(request, now)));
    return this.#during(service, device, async () => {
      const deleted = await store.remove(account, service, device.serviceId, request.signedAt);
      // After that commit the database has nothing that was signed by then. Memory may have: when the connection broke during an earlier attempt, that one was
      // carried out and nobody was told.
      const known = devices.get(account, service, device.serviceId);
      const removed =
        known !== undefined && !isStale(request.signedAt, known.signedAt)
          ? devices.remove(account, service, device.serviceId)
          : deleted;
      return {
        message: removed
          ? 'Device unsubscribed from push notifications'
          : 'Device was not subscribed to push notifications',
        removed,
        success: true,
      };
    });
  }

  /** A request that was signed before what is stored changes nothing: it is a late copy, or a replay (design, decision 15). */
  #stale(row: DeviceRow): object {
    if (this.#modules.devices.get(row.account, row.service, row.serviceId)) {
      return { message: 'A newer subscription is stored already', success: true, updated: false };
    }
    throw new RequestError(Code.ERROR, 'This request was signed before the device was unsubscribed');
  }

  #validate(service: string, serviceInfo: unknown): Promise<ValidDevice> {
    const remote = this.#modules.notifierFor(service);
    if (!remote) return Promise.reject(unavailable(service));
    return new Promise((resolve, reject) => {
      const giveUp = () => reject(timedOut(service));
      this.#giveUp.add(giveUp);
      validateDevice(service, remote, serviceInfo)
        .then(resolve, reject)
        .finally(() => this.#giveUp.delete(giveUp));
    });
  }

  /** Runs `work` while the device counts as in work. */
  async #during<T>(service: string, device: ValidDevice, work: () => Promise<T>): Promise<T> {
    const key = deviceKey(service, device.serviceId);
    this.#inWork.set(key, (this.#inWork.get(key) ?? 0) + 1);
    try {
      return await work();
    } finally {
      const left = (this.#inWork.get(key) ?? 1) - 1;
      if (left > 0) this.#inWork.set(key, left);
      else this.#inWork.delete(key);
    }
  }

  /**
   * Does a check that may fail for the time alone, by each time that it may be: one that takes it is enough. While the time is in doubt none of them is reason enough to
   * send a client away for days.
   * @param check gets unix seconds
   */
  #inTime<T>(check: (now: number) => T): T {
    const { clock, time } = this.#modules;
    const { possible, inDoubt } = time?.() ?? { possible: [clock.now()], inDoubt: false };
    let untimely: UntimelyError | undefined;
    for (const now of possible) {
      try {
        return check(seconds(now));
      } catch (error) {
        if (!(error instanceof UntimelyError)) throw error;
        untimely ??= error;
      }
    }
    throw inDoubt ? new RequestError(Code.INTERNAL_ERROR, INTERNAL, { cause: untimely }) : untimely;
  }

  /** Verifying takes 0.1 to 0.3 ms; an array of a hundred must not keep the notifications waiting. */
  #check<T>(work: () => T): Promise<T> {
    return new Promise((resolve, reject) => {
      this.#checks.push(() => {
        try {
          resolve(work());
        } catch (error) {
          reject(error);
        }
      });
      if (this.#checks.length === 1) setImmediate(() => this.#runChecks());
    });
  }

  #runChecks(): void {
    const { clock } = this.#modules;
    const start = clock.monotonic();
    let done = 0;
    let now = start;
    while (done < this.#checks.length && now - start < SLICE_MS) {
      this.#checks[done++]!();
      now = clock.monotonic();
    }
    this.counters.checkMs += now - start;
    this.counters.checks += done;
    this.#checks = this.#checks.slice(done);
    if (this.#checks.length > 0) setImmediate(() => this.#runChecks());
  }

  #known(error: unknown): RequestError {
    if (error instanceof RequestError) {
      if (error.cause !== undefined) this.#modules.log('debug', `request refused: ${error.cause}`);
      return error;
    }
    if (error instanceof StoreError && error.code === 'refused') {
      this.#modules.log('warn', `the database refused a subscription: ${error.message}`);
      return new RequestError(Code.ERROR, GENERIC_ERROR);
    }
    if (!(error instanceof StoreError)) this.#modules.log('warn', `a request failed: ${String(error)}`);
    return new RequestError(Code.INTERNAL_ERROR, INTERNAL);
  }

  #count(kind: RequestKind, code: number): void {
    // A notifier's own codes are counted together: they are its business, and could be any number.
    const result = code === Code.OK ? 'ok' : code >= 1 && code <= 5 ? `code_${code}` : 'code_other';
    const key = `${kind}:${result}`;
    this.counters.results.set(key, (this.counters.results.get(key) ?? 0) + 1);
  }
}

/** An error as a client gets it. */
export function failure(error: RequestError): string {
  return stringifySorted(error.message === '' ? { error: error.code } : { error: error.code, message: error.message });
}

function deviceKey(service: string, serviceId: string): string {
  return `${service}\0${serviceId}`;
}

function seconds(milliseconds: number): number {
  return Math.floor(milliseconds / 1000);
}
