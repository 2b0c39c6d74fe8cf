import { createPrivateKey, type KeyObject, sign } from 'node:crypto';
import { readCredentialFile } from '../runtime/credential.ts';

/** The content of a Google service-account file. */
export interface ServiceAccount {
  readonly projectId: string;
  readonly email: string;
  readonly key: KeyObject;
  readonly keyId: string | undefined;
  /** Where to fetch access tokens. */
  readonly tokenUri: string;
}

const SCOPE = 'https://www.googleapis.com/auth/firebase.messaging';
/** How long the signed request for a token is valid, in seconds; Google allows an hour. */
const ASSERTION_LIFETIME = 3_600;

/** Reads the JSON file that the Firebase console gives for a service account. @throws Error with a sentence */
export function readServiceAccount(path: string): ServiceAccount {
  const text = readCredentialFile(path).toString();
  let json: Record<string, unknown>;
  try {
    json = JSON.parse(text);
  } catch (error) {
    throw new Error('is not a JSON file: it must be the service-account file from the Firebase console', {
      cause: error,
    });
  }
  const field = (name: string): string => {
    const value = json?.[name];
    if (typeof value === 'string' && value !== '') return value;
    throw new Error(`has no ${name}: it must be the service-account file from the Firebase console`);
  };
  let key: KeyObject;
  try {
    key = createPrivateKey(field('private_key'));
  } catch (error) {
    if (error instanceof Error && error.message.startsWith('has no')) throw error;
    throw new Error('has a private_key that cannot be read: get a new file from the Firebase console', {
      cause: error,
    });
  }
  if (key.asymmetricKeyType !== 'rsa') throw new Error('has a private_key that is not an RSA key: get a new file');
  const tokenUri = field('token_uri');
  if (!URL.canParse(tokenUri) || !tokenUri.startsWith('https://'))
    throw new Error('has a token_uri that is not an https:// address');
  const projectId = field('project_id');
  if (!/^[\w:.-]+$/.test(projectId)) throw new Error('has an invalid project_id');
  const keyId = typeof json.private_key_id === 'string' ? json.private_key_id : undefined;
  return { projectId, email: field('client_email'), key, keyId, tokenUri };
}

/**
 * The form that requests an access token from Google (RFC 7523, section 2.1).
 *
 * @param now Unix milliseconds
 */
export function tokenRequest({ email, key, keyId, tokenUri }: ServiceAccount, now: number): string {
  const issued = Math.floor(now / 1000);
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const header = part({ alg: 'RS256', typ: 'JWT', kid: keyId });
  const claims = part({ iss: email, scope: SCOPE, aud: tokenUri, iat: issued, exp: issued + ASSERTION_LIFETIME });
  const signature = sign('sha256', Buffer.from(`${header}.${claims}`), key).toString('base64url');
  return new URLSearchParams({
    grant_type: 'urn:ietf:params:oauth:grant-type:jwt-bearer',
    assertion: `${header}.${claims}.${signature}`,
  }).toString();
}
