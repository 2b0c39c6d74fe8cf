/** A JSON object. */
export type JsonObject = Readonly<Record<string, unknown>>;

/** @returns undefined unless the text is a JSON object */
export function readObject(text: string): JsonObject | undefined {
  try {
    return asObject(JSON.parse(text));
  } catch {
    return undefined;
  }
}

/** @returns undefined unless the value is an object */
export function asObject(value: unknown): JsonObject | undefined {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as JsonObject) : undefined;
}

/** Whether an object has no other keys than these. */
export function hasOnly(object: JsonObject, ...keys: string[]): boolean {
  return Object.keys(object).every((key) => keys.includes(key));
}

/** The sealed payload that a client would decrypt; undefined unless it is padded standard base64. */
export function readPayload(encoded: unknown): Buffer | undefined {
  if (typeof encoded !== 'string' || encoded === '') return undefined;
  const payload = Buffer.from(encoded, 'base64');
  return payload.toString('base64') === encoded ? payload : undefined;
}
