/** A JSON object with values of any kind. */
export type JsonObject = Readonly<Record<string, unknown>>;

/** @returns undefined if the text is no JSON, or none of an object */
export function readObject(text: string): JsonObject | undefined {
  try {
    return asObject(JSON.parse(text));
  } catch {
    return undefined;
  }
}

/** @returns undefined if it is not one */
export function asObject(value: unknown): JsonObject | undefined {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as JsonObject) : undefined;
}

/** Whether an object has no other keys than these. */
export function hasOnly(object: JsonObject, ...keys: string[]): boolean {
  return Object.keys(object).every((key) => keys.includes(key));
}

/** The sealed payload that a client would decrypt: standard base64, whole; undefined if it is not that. */
export function readPayload(encoded: unknown): Buffer | undefined {
  if (typeof encoded !== 'string' || encoded === '') return undefined;
  const payload = Buffer.from(encoded, 'base64');
  return payload.toString('base64') === encoded ? payload : undefined;
}
