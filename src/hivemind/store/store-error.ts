/**
 * Why the database did not do what it was asked:
 * - `unavailable`: it could not be reached, did not answer in time, or the connection was lost; the same may work
 *   later. Whether something that was in flight was carried out is not known.
 * - `refused`: it does not accept this, now or later: a row that it cannot store, or tables of a later version.
 * - `locked`: another hivemind works on this database.
 */
export type StoreErrorCode = 'unavailable' | 'refused' | 'locked';

export class StoreError extends Error {
  readonly code: StoreErrorCode;

  constructor(code: StoreErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'StoreError';
    this.code = code;
  }
}

/** The SQLSTATE of an error that the server sent. */
export function sqlState(error: unknown): string | undefined {
  const code = (error as { code?: unknown } | undefined)?.code;
  // A digit is in every one of them, and in none of the system's own, such as EPIPE.
  return typeof code === 'string' && /^(?=.*\d)[0-9A-Z]{5}$/.test(code) ? code : undefined;
}

/** Whether an error is about the data of a statement, so that the same statement without a certain row would work. */
export function isDataError(error: unknown): boolean {
  // 22 data exception, 23 integrity constraint violation, 54 program limit exceeded (as of an index entry that is too
  // long)
  return /^(22|23|54)/.test(sqlState(error) ?? '');
}

/** As what the store throws: an error of the server's own is a refusal. */
export function asStoreError(error: unknown): StoreError {
  if (error instanceof StoreError) return error;
  return new StoreError('refused', `The database refused it: ${(error as Error).message}`, { cause: error });
}
