/** How much of an answer is read, in bytes: providers' have a few hundred. */
export const LONGEST_ANSWER = 100_000;

/** The body of an answer while it comes in. */
export class Body {
  readonly #chunks: Buffer[] = [];
  #size = 0;

  /** @returns false if the body had to be cut at {@link LONGEST_ANSWER} */
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
