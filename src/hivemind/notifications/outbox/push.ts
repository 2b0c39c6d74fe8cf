import type { Notification } from '../../../session/notification.ts';
import { MAX_BODY, type Sealable } from '../../../session/payload.ts';
import type { Push } from '../../../session/push.ts';
import { COPY_COST, Copy, type Identity } from '../copies/copy.ts';
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
 * What the objects of a message and of its account take beside the texts in them, in bytes
 * (test/hivemind/notifications/outbox/memory.test.ts).
 */
const MESSAGE_COST = 450;
/** What the objects of a push take beside its texts, and its place among those that are held. */
const PUSH_COST = 270;
/** What a notifier takes for a push that is with it beside what it was sent. */
export const NOTIFIER_COST = 800;

/**
 * What a queue holds of a message, once for all devices that get the same of it. Bytes are held as latin1 texts: a
 * Buffer takes 500 bytes beside its own, leaves holes in malloc's heap when it goes, or is a view that keeps a whole
 * frame or one of Node's slabs alive.
 */
export class HeldMessage {
  readonly service: string;
  /** Whether it is held for devices that want the body. */
  readonly wantData: boolean;
  /** 33 bytes, latin1 */
  readonly account: string;
  /** latin1 */
  readonly hash: string;
  readonly namespace: number;
  readonly timestamp: number | bigint;
  readonly expiry: number | bigint;
  /**
   * latin1. Null if it came without, was not asked for, or is longer than {@link MAX_BODY}: of that, only the length is
   * passed on.
   */
  readonly body: string | null;
  /** Of the body, in bytes; undefined if it came without, or was not asked for. */
  readonly length: number | undefined;
  /** When it came in, by the monotonic clock, in milliseconds. */
  readonly queuedAt: number;
  /** The memory it takes. */
  readonly bytes: number;
  /** Pushes of it that are in the queue. */
  pushes = 0;
  /** And those that are held back, as another hivemind sends them first. */
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
   * The number under which a notifier acknowledges it; unique within the process and its restarts. Given anew when it
   * enters the queue after having been held back.
   */
  id: number;
  readonly message: HeldMessage;
  readonly serviceId: string;
  /** latin1 */
  readonly serviceData: string | null;
  /** 32 bytes, latin1 */
  readonly encKey: string;
  /** The memory that it takes beside its message. */
  readonly bytes: number;
  /** Called with the provider's answer in words, if somebody waits for it. */
  readonly onAnswer: ((text: string) => void) | undefined;
  /** What it has in a cluster alone. */
  readonly copy: Copy | undefined;
  /** The notifier that has it and has not acknowledged it. */
  holder: Instance | undefined;
  /** The notifier for which it waits aside. */
  aside: Instance | undefined;
  /** What that was sent of it, in bytes. */
  wireBytes = 0;
  /** A notifier that is gone had it, and may have delivered it. */
  uncertain = false;
  /** The next of the same account that waits. */
  next: QueuedPush | undefined;

  /** @param identity in a cluster */
  constructor(
    id: number,
    message: HeldMessage,
    device: PushedDevice,
    onAnswer?: (text: string) => void,
    identity?: Identity,
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
    this.holder = undefined;
    this.aside = undefined;
    this.next = undefined;
  }
}

/** What is sealed for the device. */
export function sealable({ message }: QueuedPush): Sealable {
  const { body, length } = message;
  return { ...told(message), data: body !== null ? latin1(body) : length === undefined ? null : { length } };
}

/**
 * What a notifier of the original's kind gets. Of a body that is too long for a payload it looks at the length alone,
 * and gets zeros.
 */
export function plainPush({ message, serviceId, serviceData, encKey }: QueuedPush): Push {
  const { service, body, length } = message;
  return {
    ...told(message),
    data: body !== null ? latin1(body) : length === undefined ? null : Buffer.alloc(length),
    service,
    serviceId,
    serviceData: serviceData === null ? null : latin1(serviceData),
    encKey: latin1(encKey),
  };
}

function told({ account, hash, namespace, timestamp, expiry }: HeldMessage) {
  return {
    account: latin1(account),
    hash: latin1(hash),
    namespace,
    timestamp,
    expiry,
  };
}

/** Bytes from the text that holds them. */
export function latin1(text: string): Buffer {
  return Buffer.from(text, 'latin1');
}
