import type { Clock } from '../../clock.ts';
import { parseJson, stringifySorted } from '../../codec/json.ts';
import type { Log } from '../../log.ts';
import {
  Code,
  checkOwnedUnsubscription,
  type Known,
  parseSubscribe,
  parseUnsubscribe,
  RequestError,
  type SubscribeRequest,
  UnavailableError,
  type UnsubscribeRequest,
  UntimelyError,
} from '../../session/request.ts';
import { isStale } from '../../session/subscription.ts';
import type { DeviceRow } from '../devices/device.ts';
import type { Devices } from '../devices/devices.ts';
import type { Stats } from '../operators/stats.ts';
import type { Store } from '../store/store.ts';
import { StoreError } from '../store/store-error.ts';
import { Admission, type ShedCounters } from './admission.ts';
import { NotDone, type Ticket } from './fair-queue.ts';
import { Troubles } from './troubles.ts';
import { GENERIC_ERROR, NotifierError, timedOut, Validation, type Validator, type ValidDevice } from './validate.ts';

/** What a client may ask for. */
export type RequestKind = 'subscribe' | 'unsubscribe';

/**
 * What is subscribed: in memory, as {@link Devices} has it, or of accounts that another hivemind looks after in the
 * database alone. What is asked of the database rejects with a StoreError.
 */
export interface Subscribed {
  /** As {@link Devices.hasRoom}. */
  hasRoom(
    account: Uint8Array,
    service: string,
    serviceId: string,
    tag: Uint8Array | undefined,
  ): boolean | Promise<boolean>;
  /** As {@link Devices.hasSessionKey}: false, too, where memory does not tell. */
  hasSessionKey(account: Uint8Array, key: Uint8Array): boolean;
  get(account: Uint8Array, service: string, serviceId: string): DeviceRow | undefined | Promise<DeviceRow | undefined>;
  /** A subscription was committed. */
  upsert(row: DeviceRow, confirmedAt: number): void;
  /** It is gone from the database. Returns whether it was known. */
  remove(account: Uint8Array, service: string, serviceId: string): boolean;
}

/** What the subscriptions work with. */
export interface SubscriptionModules {
  clock: Clock;
  /** Every time that it may be (unix ms), and whether that is in doubt; by the clock alone if not given. */
  time?: () => { readonly possible: readonly number[]; readonly inDoubt: boolean };
  store: Pick<Store, 'upsert' | 'remove'>;
  stats: Pick<Stats, 'add'>;
  devices: Subscribed;
  /** The notifier that answers for a device of that service; undefined if none is there. */
  notifierFor: (service: string) => Validator | undefined;
  /** Whether a service without a notifier will probably have one again. */
  isExpected: (service: string) => boolean;
  log: Pick<Log, 'debug' | 'warn'>;
  /** Resolves when the hivemind has started; requests wait for it. They do not wait if it is not given. */
  ready?: Promise<void>;
}

/** Who sent a request, as far as that is known, and its size with all that came with it, in bytes. */
export interface Sender {
  readonly client: string;
  readonly bytes: number;
}

/** The answer to a request. */
export interface Reply {
  /** Compact JSON, keys sorted. */
  readonly text: string;
  /** Whether any of it failed for a reason that passes, so that the same request may succeed later. */
  readonly passing: boolean;
}

/** Counted by kind and result; results are 'ok' or 'code_N'. */
export interface SubscriptionCounters {
  readonly results: Map<string, number>;
  /** Time spent on reading and verifying, in milliseconds, and how often. */
  readonly work: { readonly ms: number; readonly tasks: number; readonly late: number };
  readonly shed: ShedCounters;
}

/** Elements that may be with the database at once; while there are so many, no further one is begun. */
const MAX_STORING = 1_024;
/**
 * Elements that may wait for one service's notifier at once, so that one which hangs keeps nobody else from being
 * served.
 */
const MAX_VALIDATING = 2_048;
/** Elements of one request in work at once. */
const AT_ONCE = 64;
/**
 * Elements that one request may have: a few, and one more for so many bytes. The smallest that could succeed has some
 * 300; anything with more elements is invalid, and its answer would be thirty times its size.
 */
export const FREE_ELEMENTS = 64;
export const MIN_ELEMENT_BYTES = 100;
/** Numbers, strings and so on that one request may hold: reading and writing so many takes less than 20 ms. */
export const MAX_VALUES = 10_000;
/** What a request gets that comes while too many are in work. */
const BUSY = new RequestError(Code.INTERNAL_ERROR, 'The server is busy; try again later');
/** What no app sends: an element with one of these errors speaks against the whole request. */
const DOUBTFUL: ReadonlySet<number> = new Set([Code.BAD_INPUT, Code.ERROR]);
const INTERNAL = 'An internal error occurred while processing your request';

/** Clients' subscriptions and unsubscriptions, from the bytes of the request to the bytes of the reply. */
export class Subscriptions {
  readonly counters: SubscriptionCounters;
  readonly #modules: SubscriptionModules;
  readonly #known: Known;
  readonly #inWork = new Map<string, number>();
  readonly #admission: Admission;
  readonly #troubles: Troubles;
  readonly #validation = new Validation();
  /** Ends the wait for a notifier's word on a device, of everybody who waits for one. */
  readonly #giveUp = new Set<() => void>();
  /** How many elements wait for each service's notifier. */
  readonly #validating = new Map<string, number>();
  #storing = 0;
  #requests = 0;
  #accepting = true;
  #idle: (() => void) | undefined;

  constructor(modules: SubscriptionModules) {
    this.#modules = modules;
    this.#known = {
      service: (name) => modules.notifierFor(name) !== undefined,
      // Who renews a subscription has shown it before.
      owner: (account, key) => modules.devices.hasSessionKey(account, key),
    };
    this.#troubles = new Troubles(modules.clock, modules.log);
    this.#admission = new Admission({
      clock: modules.clock,
      open: () => this.#storing < MAX_STORING,
      // A phone's clock may be wrong.
      isDoubtful: (error) =>
        error instanceof RequestError && DOUBTFUL.has(error.code) && !(error instanceof UntimelyError),
    });
    this.counters = { results: new Map(), work: this.#admission.queue.counters, shed: this.#admission.shed };
  }

  /**
   * Answers push.subscribe or push.unsubscribe (docs/spec/hivemind.md, sections 1.1 and 1.2). Never throws.
   * @param body the JSON; undefined if the request had no data part
   * @param sender nobody in particular if not given
   */
  async handle(kind: RequestKind, body: Buffer | undefined, sender?: Sender): Promise<Reply> {
    if (!body) return failed(new RequestError(Code.BAD_INPUT, 'Invalid request: missing request data'));
    const { client = '', bytes = body.length } = sender ?? {};
    const place = this.#accepting ? this.#admission.enter(client, bytes) : undefined;
    if (!place) return this.#refuse(kind, BUSY);
    this.#requests++;
    try {
      await this.#modules.ready;
      return await this.#answer(kind, body, place.ticket);
    } catch (error) {
      return this.#refuse(kind, this.#asRequestError(error));
    } finally {
      place.leave();
      this.#requests--;
      if (this.#requests === 0) this.#idle?.();
    }
  }

  async #answer(kind: RequestKind, body: Buffer, ticket: Ticket): Promise<Reply> {
    const read = await ticket.run(() => {
      const request = readRequest(body);
      // Most requests are of one element: both are done in one turn.
      return Array.isArray(request) ? request : this.#begin(kind, request, ticket);
    });
    if (!Array.isArray(read)) return this.#finish(kind, read);
    ticket.expect(read.length);
    const replies = await this.#elements(kind, read, ticket);
    return { text: `[${replies.map(({ text }) => text).join(',')}]`, passing: replies.some(({ passing }) => passing) };
  }

  /** Answers the elements in their order, some at a time. */
  async #elements(kind: RequestKind, elements: readonly unknown[], ticket: Ticket): Promise<Reply[]> {
    const replies: Reply[] = new Array(elements.length);
    let next = 0;
    const work = async () => {
      for (let index = next++; index < elements.length; index = next++) {
        replies[index] = await this.#element(kind, elements[index], ticket);
      }
    };
    await Promise.all(Array.from({ length: Math.min(AT_ONCE, elements.length) }, work));
    return replies;
  }

  /** Why clients are refused at this time, where neither they nor the database are to blame: a sentence each. */
  complaints(): string[] {
    return this.#troubles.complaints();
  }

  /** How many requests are in work. */
  get pending(): number {
    return this.#requests;
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
   * @param patience how long notifiers may still take for their word on a device, in milliseconds; the client is then
   *   told that they timed out
   */
  async stop(patience: number): Promise<void> {
    this.#accepting = false;
    if (this.#requests === 0) return;
    const timer = this.#modules.clock.setTimeout(() => {
      for (const giveUp of [...this.#giveUp]) giveUp();
    }, patience);
    await new Promise<void>((resolve) => (this.#idle = resolve));
    timer.cancel();
  }

  async #element(kind: RequestKind, element: unknown, ticket: Ticket): Promise<Reply> {
    if (!this.#accepting) return this.#refuse(kind, BUSY);
    try {
      return await this.#finish(kind, await ticket.run(() => this.#begin(kind, element, ticket)));
    } catch (error) {
      return this.#refuse(kind, this.#asRequestError(error));
    }
  }

  /**
   * Reads and verifies an element.
   *
   * @returns what does the rest
   * @throws RequestError
   */
  #begin(kind: RequestKind, element: unknown, ticket: Ticket): () => Promise<object> {
    if (kind === 'subscribe') {
      const request = this.#inTime((now) => parseSubscribe(element, now, this.#known));
      return () => this.#subscribe(request);
    }
    const request = parseUnsubscribe(element, this.#known);
    return () => this.#unsubscribe(request, ticket);
  }

  async #finish(kind: RequestKind, rest: () => Promise<object>): Promise<Reply> {
    const reply = await rest();
    this.#count(kind, Code.OK);
    return { text: stringifySorted(reply), passing: false };
  }

  #refuse(kind: RequestKind, error: RequestError): Reply {
    this.#count(kind, error.code);
    // At a stop everybody is told to come again.
    if (this.#accepting) {
      if (error === BUSY) this.#troubles.note('clients are told to come again: more requests come than can be done');
      else if (error instanceof NotifierError) this.#troubles.note(error.trouble);
    }
    // Who asks for a service that is not run here would ask for ever.
    if (error instanceof UnavailableError) return failed(error, this.#modules.isExpected(error.service));
    return failed(error);
  }

  async #subscribe(request: SubscribeRequest): Promise<object> {
    const { store, devices, stats, clock } = this.#modules;
    const { service } = request;
    const device = await this.#validate(service, request.serviceInfo);
    return this.#during(service, device, async () => {
      if (!(await devices.hasRoom(request.account, service, device.serviceId, request.subaccount?.tag))) {
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
      if (result === 'stale') return await this.#stale(row);
      devices.upsert(row, seconds(clock.now()));
      const statistic = { [result === 'added' ? 'subscription' : 'sub_renew']: 1 };
      stats.add('', statistic);
      stats.add(service, statistic);
      return result === 'added'
        ? { added: true, message: 'Subscription successful', success: true }
        : { message: 'Resubscription successful', success: true, updated: true };
    });
  }

  async #unsubscribe(request: UnsubscribeRequest, ticket: Ticket): Promise<object> {
    const { store, devices } = this.#modules;
    const { account, service } = request;
    const device = await this.#validate(service, request.serviceInfo);
    // After the notifier's answer, as the original has it: a notifier's own refusal comes before a bad signature.
    await ticket.run(() => this.#inTime((now) => checkOwnedUnsubscription(request, now)));
    return this.#during(service, device, async () => {
      const deleted = await store.remove(account, service, device.serviceId, request.signedAt);
      // After that commit the database has nothing that was signed by then. Memory may have: when the connection broke
      // during an earlier attempt, that one was carried out and nobody was told.
      const known = await devices.get(account, service, device.serviceId);
      const removed =
        known !== undefined && !isStale(request.signedAt, known.signedAt)
          ? devices.remove(account, service, device.serviceId)
          : deleted;
      if (known && !removed) {
        throw new RequestError(Code.ERROR, 'This request was signed before the subscription that is stored');
      }
      return {
        message: removed
          ? 'Device unsubscribed from push notifications'
          : 'Device was not subscribed to push notifications',
        removed,
        success: true,
      };
    });
  }

  /**
   * A request that was signed before what is stored changes nothing: it is a late copy, or a replay
   * (docs/decisions/15).
   */
  async #stale(row: DeviceRow): Promise<object> {
    if (await this.#modules.devices.get(row.account, row.service, row.serviceId)) {
      return { message: 'A newer subscription is stored already', success: true, updated: false };
    }
    throw new RequestError(Code.ERROR, 'This request was signed before the device was unsubscribed');
  }

  #validate(service: string, serviceInfo: unknown): Promise<ValidDevice> {
    const notifier = this.#modules.notifierFor(service);
    if (!notifier) return Promise.reject(new UnavailableError(service));
    const waiting = this.#validating.get(service) ?? 0;
    if (waiting >= MAX_VALIDATING) return Promise.reject(BUSY);
    this.#validating.set(service, waiting + 1);
    return new Promise((resolve, reject) => {
      const giveUp = () => reject(timedOut(service));
      this.#giveUp.add(giveUp);
      this.#validation
        .ask(service, notifier, serviceInfo)
        .then(resolve, reject)
        .finally(() => {
          this.#giveUp.delete(giveUp);
          const left = (this.#validating.get(service) ?? 1) - 1;
          if (left > 0) this.#validating.set(service, left);
          else this.#validating.delete(service);
        });
    });
  }

  /** Runs `work` while the device counts as in work. */
  async #during<T>(service: string, device: ValidDevice, work: () => Promise<T>): Promise<T> {
    const key = deviceKey(service, device.serviceId);
    this.#inWork.set(key, (this.#inWork.get(key) ?? 0) + 1);
    this.#storing++;
    try {
      return await work();
    } finally {
      if (this.#storing-- === MAX_STORING) this.#admission.queue.wake();
      const left = (this.#inWork.get(key) ?? 1) - 1;
      if (left > 0) this.#inWork.set(key, left);
      else this.#inWork.delete(key);
    }
  }

  /**
   * Does a check that may fail for the time alone, by each time that it may be: one that takes it is enough. While the
   * time is in doubt none of them is reason enough to send a client away for days.
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

  #asRequestError(error: unknown): RequestError {
    if (error instanceof RequestError) {
      if (error.cause !== undefined) this.#modules.log.debug(`request refused: ${error.cause}`);
      return error;
    }
    if (error instanceof NotDone) return BUSY;
    if (error instanceof StoreError && error.code === 'refused') {
      this.#modules.log.warn(`the database refused a subscription: ${error.message}`);
      return new RequestError(Code.ERROR, GENERIC_ERROR);
    }
    if (!(error instanceof StoreError)) {
      this.#modules.log.warn(`a request failed: ${String(error)}`);
      this.#troubles.note("clients' requests fail by a fault of this program; the log has the error");
    }
    return new RequestError(Code.INTERNAL_ERROR, INTERNAL);
  }

  #count(kind: RequestKind, code: number): void {
    // A notifier's own codes are counted together: they are its business, and could be any number.
    const result = code === Code.OK ? 'ok' : code >= 1 && code <= 5 ? `code_${code}` : 'code_other';
    const key = `${kind}:${result}`;
    this.counters.results.set(key, (this.counters.results.get(key) ?? 0) + 1);
  }
}

/**
 * Reads a request, without looking into its elements.
 *
 * @throws RequestError for what is not an object or an array, or holds more than a real one could
 */
function readRequest(body: Buffer): object {
  let request: unknown;
  try {
    request = parseJson(body, MAX_VALUES);
  } catch {
    throw new RequestError(Code.BAD_INPUT, 'Invalid JSON');
  }
  if (typeof request !== 'object' || request === null) {
    throw new RequestError(Code.BAD_INPUT, 'Invalid JSON: expected object or array of objects');
  }
  if (Array.isArray(request) && request.length > FREE_ELEMENTS + body.length / MIN_ELEMENT_BYTES) {
    throw new RequestError(Code.BAD_INPUT, 'Invalid request: more elements than its length allows');
  }
  return request;
}

/** Errors that pass by themselves (docs/spec/hivemind.md, section 1.1). */
const PASSING: ReadonlySet<number> = new Set([Code.SERVICE_NOT_AVAILABLE, Code.SERVICE_TIMEOUT, Code.INTERNAL_ERROR]);

/** An error as a client gets it. */
function failed({ code, message }: RequestError, passing: boolean = PASSING.has(code)): Reply {
  return { text: stringifySorted(message === '' ? { error: code } : { error: code, message }), passing };
}

function deviceKey(service: string, serviceId: string): string {
  return `${service}\0${serviceId}`;
}

function seconds(milliseconds: number): number {
  return Math.floor(milliseconds / 1000);
}
