import { createPrivateKey, type KeyObject, X509Certificate } from 'node:crypto';
import type { Section } from '../../settings/section.ts';
import type { Values } from '../../settings/table.ts';
import { readCredentialFile } from '../runtime/credential.ts';
import type { APNS } from './settings.ts';

/** How Apple knows us: by a certificate with its key, or by tokens signed with a key of the team. */
export interface ApnsCredential {
  readonly certificate?: Buffer;
  readonly token?: { readonly key: Buffer; readonly keyId: string; readonly teamId: string };
  /** Unix milliseconds; undefined for a team's key, which does not expire. */
  readonly expiry: number | undefined;
}

/** A placeholder for a wrong credential: the section's `check()` throws before anybody uses it. */
const NONE: ApnsCredential = { expiry: undefined };

/** The settings for the credential. */
type CredentialSettings = Pick<Values<typeof APNS.settings>, 'certFile' | 'keyFile' | 'keyId' | 'teamId'>;

/**
 * Reads `cert_file` (one PEM file with certificate and key, as in the original), or `key_file` (the .p8 file), `key_id`
 * and `team_id`. Whatever is wrong becomes a problem of the section.
 *
 * @param now Unix milliseconds
 */
export function readApnsCredential(
  section: Section,
  { certFile: certificate, keyFile: key, keyId, teamId }: CredentialSettings,
  now: number,
): ApnsCredential {
  if (certificate !== undefined && key !== undefined) {
    section.problem('key_file', 'is set together with cert_file: keep the one that is to be used');
  } else if (certificate !== undefined) {
    return checked(section, 'cert_file', () => {
      const pem = readCredentialFile(certificate);
      return { certificate: pem, expiry: checkCertificate(pem, now) };
    });
  } else if (key !== undefined) {
    return checked(section, 'key_file', () => {
      const pem = readCredentialFile(key);
      checkSigningKey(pem);
      return { token: { key: pem, keyId: keyId ?? '', teamId: teamId ?? '' }, expiry: undefined };
    });
  } else {
    section.problem('cert_file', 'is required and not set: add it, or key_file, key_id and team_id for a token');
  }
  return NONE;
}

function checked(section: Section, key: string, make: () => ApnsCredential): ApnsCredential {
  try {
    return make();
  } catch (error) {
    section.problem(key, (error as Error).message);
    return NONE;
  }
}

/**
 * @returns when the certificate expires, in Unix milliseconds
 * @throws Error with a sentence if it cannot be used
 */
function checkCertificate(pem: Buffer, now: number): number {
  let certificate: X509Certificate;
  try {
    certificate = new X509Certificate(pem);
  } catch (error) {
    throw new Error('holds no certificate: it must be one PEM file with the certificate and its key', { cause: error });
  }
  const expiry = Date.parse(certificate.validTo);
  const from = Date.parse(certificate.validFrom);
  if (now >= expiry) {
    throw new Error(`has a certificate that expired on ${day(expiry)}: get a new one from Apple and put it there`);
  }
  if (now < from) throw new Error(`has a certificate that is only valid from ${day(from)}: is the clock right?`);
  let key: KeyObject;
  try {
    key = createPrivateKey(pem);
  } catch (error) {
    throw new Error('holds no private key that can be read: the key must be in the same PEM file, without a password', {
      cause: error,
    });
  }
  if (!certificate.checkPrivateKey(key)) throw new Error('has a key that does not belong to its certificate');
  return expiry;
}

/** @throws Error with a sentence if it is not a key as Apple issues them */
function checkSigningKey(pem: Buffer): void {
  let key: KeyObject;
  try {
    key = createPrivateKey(pem);
  } catch (error) {
    throw new Error('holds no private key that can be read: it must be the .p8 file from Apple', { cause: error });
  }
  if (key.asymmetricKeyType !== 'ec' || key.asymmetricKeyDetails?.namedCurve !== 'prime256v1') {
    throw new Error('holds the wrong kind of key: it must be the .p8 file from Apple');
  }
}

function day(ms: number): string {
  return new Date(ms).toISOString().slice(0, 10);
}
