/**
 * What our hivemind and our notifiers say to each other beyond the original's messages, each one bencoded part:
 *
 * - `admin.register_notifier` (request, answered `OK`, by a member of a cluster with a second part, see members.ts;
 *   repeated every few seconds as a sign of life): a {@link Registration}. An original hivemind answers
 *   UNKNOWNCOMMAND; its notifiers register with `admin.register_service`.
 * - `notifier.validate_many` (request to a notifier whose registration says so): the service, and a list of
 *   service_infos as JSON; answered by a list of {@link Verdict}, in the same order.
 * - `notifier.sealed` (command to the notifier): a list of {@link SealedPush}.
 * - `admin.push_report` (command to the hivemind): a {@link PushReport} on pushes that were handed out.
 * - `admin.device_gone` (command to the hivemind): a {@link DeviceGone}.
 * - `admin.unregister_notifier` (request, answered `OK`): a {@link Registration} without its window; the notifier wants
 *   no new pushes.
 */

import { type Bencoded, BencodeError, decode, encode } from '../codec/bencode.ts';
import { Fields } from './fields.ts';

/** Bytes of {@link SealedPush.fingerprint}. */
export const FINGERPRINT_SIZE = 8;
/** The most that {@link SealedPush.doubt} may be. */
const MAX_DOUBT = 9;

/** A notifier that is ready for sealed pushes. */
export interface Registration {
  /** Name of the service it serves, 1 to 32 bytes. */
  readonly service: string;
  /**
   * 1 to 64 bytes that tell this process from all others of the service. The same for every hivemind of a cluster, so
   * that they all choose the same notifier for a device.
   */
  readonly instance: Buffer;
  /** How many unreported pushes it takes at a time. */
  readonly window: number;
  /** Whether it takes `notifier.validate_many`; false if not given. */
  readonly validatesMany?: boolean;
}

/**
 * A notifier's verdict on a service_info, as the parts of an answer to `notifier.validate`: `0`, the device's id and
 * perhaps its data; or an error code and a text.
 */
export type Verdict = readonly (string | Uint8Array)[];

/** A push that only its device can read. */
export interface SealedPush {
  /** The hivemind's number for it, used in reports. */
  readonly id: number;
  /** What the provider knows the device by. */
  readonly serviceId: string;
  /** What the notifier wanted remembered about the device. */
  readonly serviceData: Buffer | null;
  /** When the message will be deleted: unix milliseconds. */
  readonly expiry: number | bigint;
  /** Nonce and ciphertext, as the device decrypts them. */
  readonly payload: Buffer;
  /** Whether the provider's answer is wanted as text, since someone is waiting to read it. */
  readonly wantsAnswer: boolean;
  /**
   * Whether to wake the phone at once; if not, its app will show nothing. Always true of an older hivemind's pushes.
   */
  readonly urgent: boolean;
  /**
   * From a hivemind of a cluster: {@link FINGERPRINT_SIZE} bytes that are equal for the same message and device,
   * whichever hivemind sends it. Null from a hivemind that is alone, whose pushes are never copies.
   */
  readonly fingerprint: Buffer | null;
  /**
   * With a fingerprint: how doubtful the message is, 0 if not at all. A push with the same fingerprint and less doubt
   * is not a copy, and goes to the provider as well.
   */
  readonly doubt: number;
  /**
   * Of a doubtful push: the fingerprint that the same push has without doubt, which leaves out the namespace. If a push
   * was sent under that one, this one need not be sent. Null without doubt, or without a fingerprint.
   */
  readonly proven: Buffer | null;
}

/** What became of pushes; each one that was handed out is reported exactly once, by its number. */
export interface PushReport {
  readonly service: string;
  /** Taken by the provider. */
  readonly accepted: readonly number[];
  /** Finally refused by the provider, or given up. */
  readonly refused: readonly number[];
  /** Not tried: the notifier is about to stop. */
  readonly handedBack: readonly number[];
  /** The provider's answers as text, for the pushes that wanted them. */
  readonly answers: readonly (readonly [id: number, text: string])[];
}

/** A device that its provider no longer knows. */
export interface DeviceGone {
  readonly service: string;
  readonly serviceId: string;
  /** Since when, by the provider's clock if it says so, else by ours: unix milliseconds. */
  readonly time: number;
  /** The provider's own word for it, such as an error code. */
  readonly reason: string;
  /** The notifier rejected the token by its form alone, so this says nothing about the provider or our credentials. */
  readonly local: boolean;
}

/** Writes the part of `admin.register_notifier`, or of `admin.unregister_notifier`, which has no window. */
export function encodeRegistration(registration: Omit<Registration, 'window'> & { window?: number }): Buffer {
  const { service, instance, window, validatesMany } = registration;
  return encode({ i: instance, s: service, v: validatesMany ? 1 : undefined, w: window });
}

/**
 * Reads what {@link encodeRegistration} wrote; a missing window is 0.
 *
 * @throws BencodeError if it is no registration
 */
export function decodeRegistration(data: Uint8Array): Registration {
  const fields = Fields.decode('registration', data);
  const registration = {
    service: fields.text('s'),
    instance: fields.bytes('i'),
    window: fields.optionalInteger('w') ?? 0,
    validatesMany: fields.optionalInteger('v') === 1,
  };
  checkLength('service', registration.service, 32);
  checkLength('instance', registration.instance, 64);
  if (registration.window < 0) throw new BencodeError('Invalid registration: negative window');
  return registration;
}

/** Writes the second part of `notifier.validate_many`: each service_info is JSON. */
export function encodeServiceInfos(infos: readonly string[]): Buffer {
  return encode(infos);
}

/**
 * Reads what {@link encodeServiceInfos} wrote. The JSON is not parsed; the elements are views of `data`.
 *
 * @throws BencodeError if it is no list of strings
 */
export function decodeServiceInfos(data: Uint8Array): Buffer[] {
  return strings('service_infos', decode(data));
}

/** Writes the answer to `notifier.validate_many`. */
export function encodeVerdicts(verdicts: readonly Verdict[]): Buffer {
  return encode(verdicts);
}

/**
 * Reads what {@link encodeVerdicts} wrote. The parts are views of `data`, and not checked.
 *
 * @throws BencodeError if it is no list of lists of strings
 */
export function decodeVerdicts(data: Uint8Array): Buffer[][] {
  const list = decode(data);
  if (!Array.isArray(list)) throw new BencodeError('Invalid verdicts: expected a list');
  return list.map((verdict) => strings('verdict', verdict));
}

/** Writes the part of `notifier.sealed`. */
export function encodeSealedPushes(pushes: readonly SealedPush[]): Buffer {
  return encode(
    pushes.map(({ id, serviceId, serviceData, expiry, payload, wantsAnswer, urgent, fingerprint, doubt, proven }) => ({
      d: serviceId,
      e: expiry,
      f: fingerprint ?? undefined,
      g: doubt > 0 ? doubt : undefined,
      i: id,
      l: urgent ? undefined : 1,
      p: payload,
      q: wantsAnswer ? 1 : undefined,
      v: proven ?? undefined,
      x: serviceData ?? undefined,
    })),
  );
}

/**
 * Reads what {@link encodeSealedPushes} wrote. Byte strings are views of `data`.
 *
 * @throws BencodeError if it is no list of sealed pushes
 */
export function decodeSealedPushes(data: Uint8Array): SealedPush[] {
  const list = decode(data);
  if (!Array.isArray(list)) throw new BencodeError('Invalid sealed pushes: expected a list');
  return list.map((element) => {
    const fields = new Fields('sealed push', element);
    const [fingerprint, proven] = [fields.optionalBytes('f'), fields.optionalBytes('v')];
    for (const given of [fingerprint, proven]) {
      if (given && given.length !== FINGERPRINT_SIZE) {
        throw new BencodeError(`Invalid sealed push: a fingerprint of ${given.length} bytes`);
      }
    }
    const doubt = fields.optionalInteger('g') ?? 0;
    if (doubt < 0 || doubt > MAX_DOUBT) throw new BencodeError(`Invalid sealed push: a doubt of ${doubt}`);
    return {
      id: fields.integer('i'),
      serviceId: fields.text('d'),
      serviceData: fields.optionalBytes('x'),
      expiry: fields.wideInteger('e'),
      payload: fields.bytes('p'),
      wantsAnswer: fields.optionalInteger('q') === 1,
      urgent: fields.optionalInteger('l') !== 1,
      fingerprint,
      doubt,
      proven,
    };
  });
}

/** Writes the part of `admin.push_report`. */
export function encodePushReport(report: PushReport): Buffer {
  const { service, accepted, refused, handedBack, answers } = report;
  return encode({
    a: unlessEmpty(accepted),
    h: unlessEmpty(handedBack),
    r: unlessEmpty(refused),
    s: service,
    w: unlessEmpty(answers),
  });
}

/**
 * Reads what {@link encodePushReport} wrote.
 *
 * @throws BencodeError if it is no report
 */
export function decodePushReport(data: Uint8Array): PushReport {
  const fields = Fields.decode('push report', data);
  const answers = fields.list('w').map((answer): [number, string] => {
    const [id, text, ...more] = Array.isArray(answer) ? answer : [];
    if (typeof id !== 'number' || !Buffer.isBuffer(text) || more.length > 0) {
      throw new BencodeError('Invalid push report: expected pairs of number and text as "w"');
    }
    return [id, text.toString()];
  });
  return {
    service: fields.text('s'),
    accepted: fields.integers('a'),
    refused: fields.integers('r'),
    handedBack: fields.integers('h'),
    answers,
  };
}

/** Writes the part of `admin.device_gone`. */
export function encodeDeviceGone(gone: DeviceGone): Buffer {
  return encode({ d: gone.serviceId, l: gone.local ? 1 : undefined, r: gone.reason, s: gone.service, t: gone.time });
}

/**
 * Reads what {@link encodeDeviceGone} wrote.
 *
 * @throws BencodeError if it is no such message
 */
export function decodeDeviceGone(data: Uint8Array): DeviceGone {
  const fields = Fields.decode('device report', data);
  return {
    service: fields.text('s'),
    serviceId: fields.text('d'),
    time: fields.integer('t'),
    reason: fields.text('r'),
    local: fields.optionalInteger('l') === 1,
  };
}

/**
 * Writes the second part of `admin.drop_registrations`, by which notifiers of the newest original report dead devices
 * (docs/spec/upstream.md, section 2.1).
 *
 * @param serviceIds as `notifier.validate` answered them
 */
export function encodeDropRegistrations(serviceIds: readonly string[]): Buffer {
  return encode([...serviceIds]);
}

/**
 * Reads what {@link encodeDropRegistrations} wrote.
 *
 * @throws BencodeError if it is not a list of one or more texts
 */
export function decodeDropRegistrations(data: Uint8Array): string[] {
  const list = decode(data);
  if (!Array.isArray(list) || list.length === 0) throw new BencodeError('Invalid registrations: expected a list');
  return list.map((id) => {
    if (!Buffer.isBuffer(id)) throw new BencodeError('Invalid registrations: an element is not a string');
    return id.toString();
  });
}

function checkLength(what: string, value: string | Buffer, most: number): void {
  const length = Buffer.byteLength(value);
  if (length < 1 || length > most) throw new BencodeError(`Invalid registration: ${what} of ${length} bytes`);
}

function strings(what: string, value: Bencoded): Buffer[] {
  const isString = (element: Bencoded) => Buffer.isBuffer(element);
  if (!Array.isArray(value) || !value.every(isString)) throw new BencodeError(`Invalid ${what}: expected strings`);
  return value;
}

function unlessEmpty<T>(list: readonly T[]): readonly T[] | undefined {
  return list.length > 0 ? list : undefined;
}
