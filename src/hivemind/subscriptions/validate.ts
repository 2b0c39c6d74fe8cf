import { isUtf8 } from 'node:buffer';
import { stringifySorted } from '../../codec/json.ts';
import { OxenmqError, type Remote } from '../../oxenmq/remote.ts';
import { Code, RequestError, UnavailableError } from '../../session/request.ts';
import { MAX_SERVICE_DATA, MAX_SERVICE_ID, MIN_SERVICE_ID } from '../devices/device.ts';

/** What a notifier made of a client's service_info. */
export interface ValidDevice {
  /** The notifier's name for the device, 32 to 999 bytes of UTF-8 without NUL. */
  readonly serviceId: string;
  /** What the notifier wants to get back with each push, at most 99,999 bytes. */
  readonly serviceData: Buffer | null;
}

/** The original's text, spelling included: clients may look at it (docs/spec/hivemind.md, section 1.1). */
export const GENERIC_ERROR = 'An error occured while processing your request';

/** A notifier that does not answer, or not sensibly: its operator's business, not the client's. */
export class NotifierError extends RequestError {
  /** For the operator. */
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
  let reply: Buffer[];
  try {
    reply = await remote.request('notifier.validate', [service, stringifySorted(serviceInfo)]);
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
  return readValidation(reply);
}

/** The error for a service whose notifier does not answer. */
export function timedOut(service: string): RequestError {
  return new NotifierError(
    Code.SERVICE_TIMEOUT,
    `${service} notification service timed out`,
    `clients are told to come again: the notifier of ${service} does not answer in time`,
  );
}

/**
 * Reads a notifier's answer to notifier.validate.
 * @throws RequestError the notifier's own code and text, or the generic one where the answer makes no sense
 */
function readValidation(reply: readonly Buffer[]): ValidDevice {
  const nonsense = () => new RequestError(Code.ERROR, GENERIC_ERROR);
  const [code, text, data] = reply;
  if (!code || !text || reply.length > 3 || !/^-?[0-9]{1,10}$/.test(code.toString('latin1'))) throw nonsense();
  const number = Number(code.toString('latin1'));
  // The original cannot answer with a text that is not UTF-8; ours shows what can be shown of it.
  if (number !== Code.OK) throw new RequestError(number, text.toString('utf8'));
  if (text.length < MIN_SERVICE_ID || text.length > MAX_SERVICE_ID || !isUtf8(text) || text.includes(0))
    throw nonsense();
  if (data && data.length > MAX_SERVICE_DATA) throw nonsense();
  // Copied: the frames belong to the transport, the row lives on.
  return { serviceId: text.toString('utf8'), serviceData: data ? Buffer.from(data) : null };
}
