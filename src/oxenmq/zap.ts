/**
 * Who may connect to a CURVE socket: libzmq asks by ZAP (ZeroMQ RFC 27), over one socket for the whole process
 * (docs/spec/oxenmq.md, section 2).
 */

import { Router } from 'zeromq';
import { receiveAll } from './socket.ts';

const ENDPOINT = 'inproc://zeromq.zap.01';

/** Decides on a client by its X25519 key of 32 bytes. */
export type Allow = (publicKey: Buffer) => boolean;

let handler: Router | undefined;
let numbered = 0;
const domains = new Map<string, Allow>();

/** One socket's admission. */
export interface Admission {
  /** The `zapDomain` to set on the socket. */
  readonly domain: string;
  /** Ends it; the socket must be closed by then. */
  release(): void;
}

/**
 * Makes an admission for one socket. The ZAP handler exists for as long as there are admissions.
 *
 * @param allow if it throws, the client is turned away
 */
export function admit(allow: Allow): Admission {
  handler ??= openHandler();
  const domain = `spns-${++numbered}`;
  domains.set(domain, allow);
  return {
    domain,
    release() {
      if (!domains.delete(domain) || domains.size > 0) return;
      // Closing alone would leave the endpoint taken for a moment.
      handler?.disconnect(ENDPOINT);
      handler?.close();
      handler = undefined;
    },
  };
}

function openHandler(): Router {
  const socket = new Router({ linger: 0, sendTimeout: 0 });
  socket.bindSync(ENDPOINT);
  void receiveAll(
    socket,
    (frames) => {
      // The envelope goes back unchanged.
      const answer = [...frames.slice(0, 2), ...decide(frames.slice(2))];
      // The socket that asked may be gone by now.
      socket.send(answer).catch(() => {});
    },
    () => {},
  );
  return socket;
}

/** @returns version, request id, status, text, user id, metadata */
function decide([version, requestId, domain, , , mechanism, key]: Buffer[]): (string | Buffer)[] {
  const answer = (status: string, text: string, userId = '') => ['1.0', requestId ?? '', status, text, userId, ''];
  if (version?.toString() !== '1.0' || !mechanism) return answer('500', 'Internal error: invalid auth request');
  const allow = domains.get(domain?.toString() ?? '');
  if (!allow) return answer('400', `Unknown authentication domain: ${domain}`);
  if (mechanism.toString() !== 'CURVE') return answer('500', 'Invalid authentication request mechanism');
  if (key?.length !== 32) return answer('500', 'Invalid public key size for CURVE authentication');
  try {
    if (allow(key)) return answer('200', '', key.toString('hex'));
  } catch {
    // Denied below.
  }
  return answer('400', 'Access denied');
}
