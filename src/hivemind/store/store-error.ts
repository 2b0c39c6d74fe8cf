/**
 * Why the database did not do what it was asked:
 * - `unavailable`: it could not be reached, did not answer in time, or the connection was lost. The same may work
 *   later. What was in flight may or may not have been carried out.
 * - `refused`: it will not accept this, now or later: a row that it cannot store, or tables of a later version.
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

/** The SQLSTATE of an error, if the server sent it. */
export function sqlState(error: unknown): string | undefined {
  const code = (error as { code?: unknown } | undefined)?.code;
  // All of them have a digit; system error codes such as EPIPE have none.
  return typeof code === 'string' && /^(?=.*\d)[0-9A-Z]{5}$/.test(code) ? code : undefined;
}

/** Whether an error is about a statement's data, so that the statement would work without some row. */
export function isDataError(error: unknown): boolean {
  // 22 data exception, 23 integrity constraint violation, 54 program limit exceeded (such as too long an index entry)
  return /^(22|23|54)/.test(sqlState(error) ?? '');
}

/** Any error as a {@link StoreError}: one of the server's own counts as a refusal. */
export function asStoreError(error: unknown): StoreError {
  if (error instanceof StoreError) return error;
  return new StoreError('refused', `The database refused it: ${(error as Error).message}`, { cause: error });
}
