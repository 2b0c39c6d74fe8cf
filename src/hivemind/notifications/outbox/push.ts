import type { Notification } from '../../../session/notification.ts';
import { MAX_BODY, type Sealable } from '../../../session/payload.ts';
import type { Push } from '../../../session/push.ts';
import type { PushIdentity } from '../copies/fingerprints.ts';
import type { Doubt } from '../doubt.ts';
import type { Instance } from './instances.ts';

/** The device that a push is for. */
export interface PushedDevice {
  readonly service: string;
  readonly serviceId: string;
  readonly serviceData: Buffer | null;
  /** 32 bytes */
  readonly encKey: Buffer;
  readonly wantData: boolean;
}

/**
 * What the objects of a message and its account take besides their strings, in bytes
 * (test/hivemind/notifications/outbox/memory.test.ts).
 */
const MESSAGE_COST = 450;
/** What the objects of a push and its places in indexes take besides its strings, in bytes. */
const PUSH_COST = 270;
/** What the objects of a copy and its places in indexes take besides its push, in bytes. */
const COPY_COST = 240;
/** What a push takes at a notifier besides what was sent of it, in bytes. */
export const NOTIFIER_COST = 800;

/**
 * A message in a queue, stored once for all devices that get the same of it. Bytes are stored as latin1 strings: a
 * Buffer takes 500 bytes on top of its own and leaves holes in malloc's heap when it is freed, or else is a view that
 * keeps a whole frame or one of Node's slabs alive.
 */
export class QueuedMessage {
  readonly service: string;
  /** Whether its devices want the body. */
  readonly wantData: boolean;
  /** 33 bytes, latin1 */
  readonly account: string;
  /** latin1 */
  readonly hash: string;
  readonly namespace: number;
  readonly timestamp: number | bigint;
  readonly expiry: number | bigint;
  /** latin1. Null if there is none, it is not wanted, or is longer than {@link MAX_BODY}: only its length is sent. */
  readonly body: string | null;
  /** The length of the body in bytes; undefined if there is none or it is not wanted. */
  readonly length: number | undefined;
  /** When it came in; monotonic ms. */
  readonly queuedAt: number;
  /** The memory that it takes, in bytes. */
  readonly bytes: number;
  /** How many pushes of it are in the queue. */
  pushes = 0;
  /** How many pushes of it are held back because another hivemind sends first. */
  heldBack = 0;

  constructor(message: Notification, service: string, wantData: boolean, queuedAt: number) {
    const { account, hash, namespace, timestamp, expiry, data } = message;
    this.service = service;
    this.wantData = wantData;
    this.account = account.toString('latin1');
    this.hash = hash.toString('latin1');
    this.namespace = namespace;
    this.timestamp = timestamp;
    this.expiry = expiry;
    this.length = wantData && data ? data.length : undefined;
    const isKept = wantData && data && data.length > 0 && data.length <= MAX_BODY;
    this.body = isKept ? data.toString('latin1') : null;
    this.queuedAt = queuedAt;
    this.bytes = MESSAGE_COST + hash.length + (this.body?.length ?? 0);
  }
}

/** One message on its way to one device. */
export class QueuedPush {
  /**
   * The number by which a notifier acknowledges it, never used again by this hivemind, not even after a restart. A push
   * that was held back gets another one when it enters the queue.
   */
  id: number;
  readonly message: QueuedMessage;
  readonly serviceId: string;
  /** latin1 */
  readonly serviceData: string | null;
  /** 32 bytes, latin1 */
  readonly encKey: string;
  /** The memory that it takes besides its message, in bytes. */
  readonly bytes: number;
  /** Called with the provider's answer in words, if somebody waits for one. */
  readonly onAnswer: ((text: string) => void) | undefined;
  /** What only a push in a cluster has. */
  readonly copy: Copy | undefined;
  /** The notifier that has it and has not acknowledged it yet. */
  holder: Instance | undefined;
  /** The one notifier that it waits for, if no other may take it. */
  aside: Instance | undefined;
  /** The memory it takes on the way to its holder and there, in bytes. */
  wireBytes = 0;
  /** A notifier that has gone had it, and may have delivered it. */
  uncertain = false;
  /** The next waiting push of the same account. */
  next: QueuedPush | undefined;

  /** @param identity given in a cluster */
  constructor(
    id: number,
    message: QueuedMessage,
    device: PushedDevice,
    onAnswer?: (text: string) => void,
    identity?: PushIdentity,
  ) {
    this.id = id;
    this.message = message;
    this.serviceId = device.serviceId;
    this.serviceData = device.serviceData?.toString('latin1') ?? null;
    this.encKey = device.encKey.toString('latin1');
    const size = Buffer.byteLength(device.serviceId) + (device.serviceData?.length ?? 0);
    this.bytes = PUSH_COST + size + (identity ? COPY_COST : 0);
    this.onAnswer = onAnswer;
    this.copy = identity && new Copy(this, identity);
  }
}

/**
 * The state of a push in a cluster:
 *
 *     waiting     the member that sends first has not mentioned it yet
 *     kept        another member has it in hand: in its queue, and a notifier to give it to
 *     due         we would send it now, but have no notifier for it, and another member has it as well
 *     released    on its way into the queue
 *     ours        in the queue, or with a notifier of ours
 *     over        another member has ended it while it was in our queue
 */
export type CopyState = 'waiting' | 'kept' | 'due' | 'released' | 'ours' | 'over';

/** One run of another member, which has pushes in hand. */
export interface Keeper {
  readonly name: string;
  readonly run: bigint;
}

/** What only a push in a cluster has. */
export class Copy implements PushIdentity {
  readonly push: QueuedPush;
  readonly fingerprint: string;
  readonly doubt: Doubt;
  readonly key: string;
  readonly lesser: readonly string[];
  readonly slot: number;
  state: CopyState = 'ours';
  /** The member that has it in hand, while the state is `kept`. */
  keeper: Keeper | undefined;
  /** Since when the state has been `waiting`; monotonic ms. */
  since = 0;

  constructor(push: QueuedPush, { fingerprint, doubt, key, lesser, slot }: PushIdentity) {
    this.push = push;
    this.fingerprint = fingerprint;
    this.doubt = doubt;
    this.key = key;
    this.lesser = lesser;
    this.slot = slot;
  }
}

/** The part of a push that is sealed for the device. */
export function sealable({ message }: QueuedPush): Sealable {
  const { body, length } = message;
  return { ...messageFields(message), data: body !== null ? latin1(body) : length === undefined ? null : { length } };
}

/**
 * A push as an original notifier gets it. Of a body too long for a payload it only looks at the length, so it gets as
 * many zeros.
 */
export function plainPush({ message, serviceId, serviceData, encKey }: QueuedPush): Push {
  const { service, body, length } = message;
  return {
    ...messageFields(message),
    data: body !== null ? latin1(body) : length === undefined ? null : Buffer.alloc(length),
    service,
    serviceId,
    serviceData: serviceData === null ? null : latin1(serviceData),
    encKey: latin1(encKey),
  };
}

function messageFields({ account, hash, namespace, timestamp, expiry }: QueuedMessage) {
  return {
    account: latin1(account),
    hash: latin1(hash),
    namespace,
    timestamp,
    expiry,
  };
}

/** The bytes that a latin1 string holds. */
export function latin1(text: string): Buffer {
  return Buffer.from(text, 'latin1');
}
