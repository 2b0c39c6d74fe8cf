import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

/**
 * The path of one of the files in `certificates/`: `ca.pem`, or `server.pem` and `apns.pem`, each a certificate and its
 * key.
 */
function path(name: string): string {
  return fileURLToPath(new URL(`certificates/${name}`, import.meta.url));
}

/** The certificate of the fake providers' own authority, which a notifier must trust. */
export const CA_FILE = path('ca.pem');
/** A client certificate as Apple gives to developers, with its key, issued by that authority. */
export const APNS_CLIENT_FILE = path('apns.pem');

/** The certificate of a fake provider, for `localhost`, `127.0.0.1` and `::1`. */
export function serverCertificate(): { cert: Buffer; key: Buffer; ca: Buffer } {
  const pem = readFileSync(path('server.pem'));
  return { cert: pem, key: pem, ca: readFileSync(CA_FILE) };
}
