import type { Clock } from '../../clock.ts';
import { parseJson, stringifySorted } from '../../codec/json.ts';
import { KeyCounts } from '../../key-counts.ts';
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
import type { Store } from '../store/store.ts';
import { StoreError } from '../store/store-error.ts';
import { Admission, type ShedCounters } from './admission.ts';
import { NotDone, type Ticket } from './fair-queue.ts';
import { Troubles } from './troubles.ts';
import { GENERIC_ERROR, NotifierError, timedOut, Validation, type Validator, type ValidDevice } from './validate.ts';

/** What a client may ask for. */
export type RequestKind = 'subscribe' | 'unsubscribe';

/**
 * What is subscribed: {@link Devices}, or in a cluster {@link SharedSubscriptions}, which asks the database about
 * accounts that other hiveminds look after and may reject with a StoreError.
 */
export interface Subscribed {
  /** See {@link Devices.hasRoom}. */
  hasRoom(
    account: Uint8Array,
    service: string,
    serviceId: string,
    tag: Uint8Array | undefined,
  ): boolean | Promise<boolean>;
  /** See {@link Devices.hasSessionKey}; false also for accounts that are not in memory. */
  hasSessionKey(account: Uint8Array, key: Uint8Array): boolean;
  /** What is in memory. */
  get(account: Uint8Array, service: string, serviceId: string): DeviceRow | undefined;
  /** What is in the database, of which some may not be in memory, or not yet. Not given if all is in memory. */
  find?(account: Uint8Array, service: string, serviceId: string): Promise<DeviceRow | undefined>;
  /** A subscription has been committed to the database, which has the last word. See {@link Devices.replace}. */
  replace(row: DeviceRow, confirmedAt: number): void;
  /** A subscription has been removed from the database. @returns whether it was in memory */
  remove(account: Uint8Array, service: string, serviceId: string): boolean;
}

/** What {@link Subscriptions} is built from. */
export interface SubscriptionModules {
  clock: Clock;
  /** Every time that it may be now (unix ms), and whether that is in doubt; what the clock says if not given. */
  time?: () => { readonly possible: readonly number[]; readonly inDoubt: boolean };
  store: Pick<Store, 'upsert' | 'remove'>;
  /** Counts for the operators; the service '' has the sums. */
  stats: { add(service: string, increments: Record<string, number>): void };
  devices: Subscribed;
  /** The notifier to ask about devices of that service; undefined if there is none. */
  notifierFor: (service: string) => Validator | undefined;
  /** Whether a service that has no notifier can be expected to have one again. */
  isExpected: (service: string) => boolean;
  log: Pick<Log, 'debug' | 'warn'>;
  /** Requests wait until this resolves, if it is given: when the hivemind has started. */
  ready?: Promise<void>;
}

/** Who sent a request, as far as clients can be told apart, and the bytes of all its parts. */
export interface RequestOrigin {
  readonly client: string;
  readonly bytes: number;
}

/** The answer to a request. */
export interface Reply {
  /** Compact JSON, keys sorted. */
  readonly text: string;
  /** Whether any part of it failed for a passing reason, so that the same request may succeed later. */
  readonly passing: boolean;
}

/** What clients' requests came to. */
export interface SubscriptionCounters {
  /** By `KIND:RESULT`, where the result is `ok`, `code_1` to `code_5` or `code_other`. */
  readonly results: Map<string, number>;
  /** See {@link FairQueue.counters}. */
  readonly work: { readonly ms: number; readonly tasks: number; readonly late: number };
  readonly shed: ShedCounters;
}

/** The most elements that the database works on at once; with as many, no more are begun. */
const MAX_STORING = 1_024;
/** The most elements that wait for one service's notifier, so that one that hangs does not keep others from service. */
const MAX_VALIDATING = 2_048;
/** How many elements of one request are worked on at once. */
const AT_ONCE = 64;
/**
 * How many elements a request may have: a few, and one more for each so many bytes. An element needs some 300 bytes to
 * succeed, so a request with more elements is invalid; answering each would take thirty times its size.
 */
export const FREE_ELEMENTS = 64;
export const MIN_ELEMENT_BYTES = 100;
/** The most JSON values in one request: reading and writing them takes less than 20 ms. */
export const MAX_VALUES = 10_000;
/** The answer when too many requests are being worked on. */
const BUSY = new RequestError(Code.INTERNAL_ERROR, 'The server is busy; try again later');
/** Errors that no app causes: an element with one of them makes its whole request doubtful. */
const DOUBTFUL: ReadonlySet<number> = new Set([Code.BAD_INPUT, Code.ERROR]);
const INTERNAL = 'An internal error occurred while processing your request';

/** Clients' subscriptions and unsubscriptions, from the bytes of the request to the bytes of the reply. */
export class Subscriptions {
  readonly counters: SubscriptionCounters;
  readonly #modules: SubscriptionModules;
  readonly #known: Known;
  /** How many requests there are of each device for which {@link isInWork} holds. */
  readonly #inWork = new KeyCounts();
  readonly #admission: Admission;
  readonly #troubles: Troubles;
  readonly #validation = new Validation();
  /** For each service, functions that end the waits for its notifier's verdicts. */
  readonly #validating = new Map<string, Set<() => void>>();
  #storing = 0;
  #requests = 0;
  #accepting = true;
  #idle: (() => void) | undefined;

  constructor(modules: SubscriptionModules) {
    this.#modules = modules;
    this.#known = {
      service: (name) => modules.notifierFor(name) !== undefined,
      // Whoever renews a subscription has proved ownership before.
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
  async handle(kind: RequestKind, body: Buffer | undefined, sender?: RequestOrigin): Promise<Reply> {
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

  /** Why clients are being refused although neither they nor the database are at fault, one sentence each. */
  complaints(): string[] {
    return this.#troubles.complaints();
  }

  /** How many requests are being worked on. */
  get pending(): number {
    return this.#requests;
  }

  /**
   * Whether a request for that device has been validated and not committed yet: a provider's verdict on the device is
   * older than that request, and must not remove what it is about to store.
   */
  isInWork(service: string, serviceId: string): boolean {
    return this.#inWork.get(deviceKey(service, serviceId)) > 0;
  }

  /**
   * Takes no more requests. Resolves when those being worked on are answered.
   * @param patience how long notifiers may still take for their verdicts, in ms; clients are then told of a timeout
   */
  async stop(patience: number): Promise<void> {
    this.#accepting = false;
    if (this.#requests === 0) return;
    const timer = this.#modules.clock.setTimeout(() => {
      for (const waits of this.#validating.values()) for (const giveUp of waits) giveUp();
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
   * Parses and verifies an element.
   *
   * @returns a function that does the rest
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
    // During a stop everybody is told to retry: that is no trouble.
    if (this.#accepting) {
      if (error === BUSY) this.#troubles.note('clients are told to retry: more requests come in than can be worked on');
      else if (error instanceof NotifierError) this.#troubles.note(error.trouble);
    }
    // A client that is told to retry for a service that is not run here would retry for ever.
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
      devices.replace(row, seconds(clock.now()));
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
    // After the notifier's verdict, as in the original: the notifier's refusal takes precedence over a bad signature.
    await ticket.run(() => this.#inTime((now) => checkOwnedUnsubscription(request, now)));
    return this.#during(service, device, async () => {
      const deleted = await store.remove(account, service, device.serviceId, request.signedAt);
      // If the row was deleted, memory loses its own at once, whatever it is: another hivemind may just have stored an
      // older one. If not, memory may still have what is due to go: an earlier attempt may have been committed though
      // the connection broke. Anything that comes into memory or the database from now on stays.
      const kept = deleted ? undefined : devices.get(account, service, device.serviceId);
      const isGone = deleted || (kept !== undefined && !isStale(request.signedAt, kept.signedAt));
      const wasInMemory = isGone && devices.remove(account, service, device.serviceId);
      const removed = deleted || wasInMemory;
      const stored = removed ? undefined : (kept ?? (await devices.find?.(account, service, device.serviceId)));
      if (stored && isStale(request.signedAt, stored.signedAt)) {
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

  /** Answers a request that was signed before what is stored: a late copy, or a replay (docs/decisions/15). */
  async #stale(row: DeviceRow): Promise<object> {
    const { devices } = this.#modules;
    const { account, service, serviceId } = row;
    if (devices.get(account, service, serviceId) ?? (await devices.find?.(account, service, serviceId))) {
      return { message: 'A newer subscription is stored already', success: true, updated: false };
    }
    throw new RequestError(Code.ERROR, 'This request was signed before the device was unsubscribed');
  }

  #validate(service: string, serviceInfo: unknown): Promise<ValidDevice> {
    const notifier = this.#modules.notifierFor(service);
    if (!notifier) return Promise.reject(new UnavailableError(service));
    const waits = this.#validating.get(service) ?? new Set();
    if (waits.size >= MAX_VALIDATING) return Promise.reject(BUSY);
    this.#validating.set(service, waits);
    return new Promise((resolve, reject) => {
      const giveUp = () => reject(timedOut(service));
      waits.add(giveUp);
      this.#validation
        .ask(service, notifier, serviceInfo)
        .then(resolve, reject)
        .finally(() => waits.delete(giveUp));
    });
  }

  /** Runs `work`, during which {@link isInWork} holds for the device. */
  async #during<T>(service: string, device: ValidDevice, work: () => Promise<T>): Promise<T> {
    const key = deviceKey(service, device.serviceId);
    this.#inWork.add(key, 1);
    this.#storing++;
    try {
      return await work();
    } finally {
      if (this.#storing-- === MAX_STORING) this.#admission.queue.wake();
      this.#inWork.add(key, -1);
    }
  }

  /**
   * Runs a check with each time that it may be now, until one passes. If all fail and the time is in doubt, the client
   * is told to retry, rather than sent away for days by what may be our fault.
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
      this.#troubles.note("clients' requests fail because of a fault in this program: the log has the error");
    }
    return new RequestError(Code.INTERNAL_ERROR, INTERNAL);
  }

  #count(kind: RequestKind, code: number): void {
    // A notifier's own codes are counted together, because there could be any number of them.
    const result = code === Code.OK ? 'ok' : code >= 1 && code <= 5 ? `code_${code}` : 'code_other';
    const key = `${kind}:${result}`;
    this.counters.results.set(key, (this.counters.results.get(key) ?? 0) + 1);
  }
}

/**
 * Parses a request, but not its elements.
 *
 * @throws RequestError if it is not an object or an array, or has more in it than a real one could
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

/** Codes of errors that pass (docs/spec/hivemind.md, section 1.1). */
const PASSING: ReadonlySet<number> = new Set([Code.SERVICE_NOT_AVAILABLE, Code.SERVICE_TIMEOUT, Code.INTERNAL_ERROR]);

/** The reply to a request that failed. */
function failed({ code, message }: RequestError, passing: boolean = PASSING.has(code)): Reply {
  return { text: stringifySorted(message === '' ? { error: code } : { error: code, message }), passing };
}

function deviceKey(service: string, serviceId: string): string {
  return `${service}\0${serviceId}`;
}

function seconds(milliseconds: number): number {
  return Math.floor(milliseconds / 1000);
}
