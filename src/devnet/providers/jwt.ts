import { type KeyObject, verify } from 'node:crypto';

/** A JSON Web Token whose signature is good. */
export interface Jwt {
  readonly header: Record<string, unknown>;
  readonly claims: Record<string, unknown>;
}

/**
 * Reads and verifies a JSON Web Token (RFC 7519) signed with ES256 or RS256, whichever the key is for.
 * @returns undefined if it is not one or its signature is wrong
 */
export function readJwt(token: string, publicKey: KeyObject): Jwt | undefined {
  const [header, claims, signature, ...more] = token.split('.');
  if (!header || !claims || !signature || more.length > 0) return undefined;
  const signed = Buffer.from(`${header}.${claims}`);
  const genuine = verify(
    'sha256',
    signed,
    publicKey.asymmetricKeyType === 'ec' ? { key: publicKey, dsaEncoding: 'ieee-p1363' } : publicKey,
    Buffer.from(signature, 'base64url'),
  );
  if (!genuine) return undefined;
  try {
    return {
      header: JSON.parse(Buffer.from(header, 'base64url').toString()),
      claims: JSON.parse(Buffer.from(claims, 'base64url').toString()),
    };
  } catch {
    return undefined;
  }
}
