/** What is read of an answer, in bytes: providers' are a few hundred long. */
export const LONGEST_ANSWER = 100_000;

/** The body of an answer while it comes in. */
export class Body {
  readonly #chunks: Buffer[] = [];
  #size = 0;

  /** @returns whether more may come; if not, it is cut at {@link LONGEST_ANSWER} */
  add(chunk: Buffer): boolean {
    const room = LONGEST_ANSWER - this.#size;
    this.#chunks.push(chunk.length <= room ? chunk : chunk.subarray(0, room));
    this.#size += Math.min(chunk.length, room);
    return chunk.length <= room;
  }

  bytes(): Buffer {
    return Buffer.concat(this.#chunks);
  }
}
