/**
 * How long (ms) work that is done in slices may hold the event loop at a time. Several kinds of it may come in one
 * turn, and together they must not hold it over 50 ms.
 */
export const SLICE = 8;
