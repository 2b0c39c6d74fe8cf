import { isUtf8 } from 'node:buffer';
import { BencodeError } from '../../codec/bencode.ts';
import { stringifySorted } from '../../codec/json.ts';
import { OxenmqError, type Remote } from '../../oxenmq/remote.ts';
import { decodeVerdicts, encodeServiceInfos } from '../../session/notifier-protocol.ts';
import { Code, RequestError, UnavailableError } from '../../session/request.ts';
import { MAX_SERVICE_DATA, MAX_SERVICE_ID, MIN_SERVICE_ID } from '../devices/device.ts';

/** What a notifier made of a client's service_info. */
export interface ValidDevice {
  /** Identifies the device at its provider, 32 to 999 bytes of UTF-8 without NUL. */
  readonly serviceId: string;
  /** What the notifier wants to get back with each push, at most 99,999 bytes. */
  readonly serviceData: Buffer | null;
}

/** The original's text, misspelling included: clients may compare it (docs/spec/hivemind.md, section 1.1). */
export const GENERIC_ERROR = 'An error occured while processing your request';

/** A notifier does not answer, or answers with an error: for its operator to mend, not the client's fault. */
export class NotifierError extends RequestError {
  /** A sentence for the operator. */
  readonly trouble: string;

  constructor(code: number, message: string, trouble: string) {
    super(code, message);
    this.trouble = trouble;
  }
}

/**
 * Asks a notifier whether a client's service_info names a device (docs/spec/hivemind.md, section 3).
 * @param remote the notifier; undefined if there is none
 * @throws RequestError with the codes and texts of docs/spec/hivemind.md, section 1.1
 */
export async function validateDevice(
  service: string,
  remote: Remote | undefined,
  serviceInfo: unknown,
): Promise<ValidDevice> {
  if (!remote) throw new UnavailableError(service);
  return readValidation(await request(service, remote, 'notifier.validate', stringifySorted(serviceInfo)));
}

/** A notifier that can be asked, and whether it can validate several devices in one request. */
export interface Validator {
  readonly remote: Remote;
  readonly validatesMany: boolean;
}

/** The most devices in one message, and the most bytes of their service_infos. */
const MAX_AT_ONCE = 64;
const MAX_BYTES = 65_536;

interface Waiting {
  readonly json: string;
  readonly resolve: (device: ValidDevice) => void;
  readonly reject: (error: unknown) => void;
}

interface Batch {
  readonly service: string;
  readonly remote: Remote;
  readonly waiting: Waiting[];
  bytes: number;
}

/**
 * Asks notifiers to validate devices. Those of one turn of the event loop go in one message, if the notifier supports
 * that: a message each way costs 50 us of the hivemind's thread, however many devices it is about.
 */
export class Validation {
  readonly #defer: (flush: () => void) => void;
  #batches: Batch[] = [];

  /** @param defer calls back once the requests that have been read are under way; setImmediate outside tests */
  constructor(defer: (flush: () => void) => void = setImmediate) {
    this.#defer = defer;
  }

  /**
   * Like {@link validateDevice}.
   *
   * @throws RequestError by rejection
   */
  ask(service: string, { remote, validatesMany }: Validator, serviceInfo: unknown): Promise<ValidDevice> {
    if (!validatesMany) return validateDevice(service, remote, serviceInfo);
    const json = stringifySorted(serviceInfo);
    return new Promise((resolve, reject) => {
      if (this.#batches.length === 0) this.#defer(() => this.#flush());
      const batch = this.#batchFor(service, remote, json.length);
      batch.waiting.push({ json, resolve, reject });
      batch.bytes += json.length;
    });
  }

  #batchFor(service: string, remote: Remote, bytes: number): Batch {
    const last = this.#batches.findLast((batch) => batch.remote === remote && batch.service === service);
    if (last && last.waiting.length < MAX_AT_ONCE && last.bytes + bytes <= MAX_BYTES) return last;
    const batch = { service, remote, waiting: [], bytes: 0 };
    this.#batches.push(batch);
    return batch;
  }

  #flush(): void {
    const batches = this.#batches;
    this.#batches = [];
    for (const batch of batches) void this.#send(batch);
  }

  async #send({ service, remote, waiting }: Batch): Promise<void> {
    try {
      const verdicts = await requestVerdicts(
        service,
        remote,
        waiting.map(({ json }) => json),
      );
      for (const [index, { resolve, reject }] of waiting.entries()) {
        try {
          resolve(readValidation(verdicts[index] ?? []));
        } catch (error) {
          reject(error);
        }
      }
    } catch (error) {
      for (const { reject } of waiting) reject(error);
    }
  }
}

/** Asks for a verdict on each of the service_infos. @throws RequestError */
async function requestVerdicts(service: string, remote: Remote, infos: readonly string[]): Promise<Buffer[][]> {
  const [first, ...others] = infos;
  if (first !== undefined && others.length === 0) return [await request(service, remote, 'notifier.validate', first)];
  const [reply, ...more] = await request(service, remote, 'notifier.validate_many', encodeServiceInfos(infos));
  let verdicts: Buffer[][];
  try {
    verdicts = decodeVerdicts(reply ?? Buffer.of());
  } catch (error) {
    if (!(error instanceof BencodeError)) throw error;
    throw new RequestError(Code.ERROR, GENERIC_ERROR);
  }
  if (more.length > 0 || verdicts.length !== infos.length) throw new RequestError(Code.ERROR, GENERIC_ERROR);
  return verdicts;
}

async function request(service: string, remote: Remote, name: string, part: string | Buffer): Promise<Buffer[]> {
  try {
    return await remote.request(name, [service, part]);
  } catch (error) {
    const lost = error instanceof OxenmqError && ['TIMEOUT', 'UNREACHABLE', 'CLOSED'].includes(error.code);
    throw lost
      ? timedOut(service)
      : new NotifierError(
          Code.ERROR,
          `failed to communicate with ${service} notification service`,
          `clients are refused: the notifier of ${service} answers with an error`,
        );
  }
}

/** The error for a service whose notifier does not answer. */
export function timedOut(service: string): RequestError {
  return new NotifierError(
    Code.SERVICE_TIMEOUT,
    `${service} notification service timed out`,
    `clients are told to retry: the notifier of ${service} does not answer in time`,
  );
}

/**
 * Reads a notifier's answer to `notifier.validate`.
 * @throws RequestError with the notifier's own code and text, or a generic one if the answer makes no sense
 */
function readValidation(reply: readonly Buffer[]): ValidDevice {
  const nonsense = () => new RequestError(Code.ERROR, GENERIC_ERROR);
  const [code, text, data] = reply;
  if (!code || !text || reply.length > 3 || !/^-?[0-9]{1,10}$/.test(code.toString('latin1'))) throw nonsense();
  const number = Number(code.toString('latin1'));
  // The original fails on a text that is not UTF-8; we pass on what can be decoded.
  if (number !== Code.OK) throw new RequestError(number, text.toString('utf8'));
  if (text.length < MIN_SERVICE_ID || text.length > MAX_SERVICE_ID || !isUtf8(text) || text.includes(0))
    throw nonsense();
  if (data && data.length > MAX_SERVICE_DATA) throw nonsense();
  // Copied, because the frames belong to the transport and the row lives on.
  return { serviceId: text.toString('utf8'), serviceData: data ? Buffer.from(data) : null };
}
