/** Bytes in a unit, which references and sizes count in. */
const UNIT = 8;
const SLAB_SIZE = 256 * 1024;
/** A reference is 17 bits of slab number and 15 bits of the cell's first unit in it. */
const UNIT_BITS = 15;
const UNIT_MASK = (1 << UNIT_BITS) - 1;
const MAX_SLABS = 2 ** (32 - UNIT_BITS);
/** Up to this many units there is a cell of each size; above, the sizes are an eighth of a power of two apart. */
const EXACT = 128;
/** Cells of more units than this get a slab of their own. */
const MAX_CELL = SLAB_SIZE / 8 / UNIT;
const LARGE = -1;
const UNUSED = -2;
/** Empty slabs that are kept for reuse; more than these are given back to the system. */
const SPARE_SLABS = 64;

/** The sizes of cells, in units. */
const SIZES: number[] = [];
for (let size = 1; size <= EXACT; size++) SIZES.push(size);
for (let base = EXACT; base < MAX_CELL; base *= 2)
  for (let step = 1; step <= 8; step++) SIZES.push(base + (base / 8) * step);
const CLASS_OF = new Uint8Array(MAX_CELL + 1);
for (let units = 1, cls = 0; units <= MAX_CELL; units++) {
  if (units > SIZES[cls]!) cls++;
  CLASS_OF[units] = cls;
}

const NOTHING = Buffer.alloc(0);
const NO_WORDS = new Uint32Array(0);

/**
 * Memory for millions of small records, which the garbage collector does not scan. Records of one size share slabs; a
 * slab that has become empty can serve any size, so churn does not make the arena grow. A reference stays valid until
 * its record is freed.
 */
export class Arena {
  /** slab → its bytes, and the same memory as 32-bit words. Slab 0 is never used, since reference 0 stands for none. */
  readonly #slabs: Buffer[] = [NOTHING];
  readonly #words: Uint32Array[] = [NO_WORDS];
  readonly #class: number[] = [UNUSED];
  readonly #used: number[] = [];
  /** slab → first freed cell (its unit + 1, 0 for none; each freed cell holds the next in its first word) */
  readonly #freed: number[] = [];
  /** slab → first unit never used */
  readonly #fresh: number[] = [];
  /** class → slabs with room */
  readonly #open: number[][] = SIZES.map(() => []);
  readonly #spare: number[] = [];
  readonly #unusedNumbers: number[] = [];

  /** Bytes taken from the system. */
  reserved = 0;
  /** Bytes of the cells in use. */
  inUse = 0;

  /**
   * Makes a cell of at least `bytes` bytes, not cleared.
   * @returns a reference to it, never 0
   * @throws Error if all 2^17 slabs, 32 GB and more, are in use
   */
  alloc(bytes: number): number {
    const units = Math.ceil(bytes / UNIT) || 1;
    if (units > MAX_CELL) return this.#allocLarge(units * UNIT);
    const cls = CLASS_OF[units]!;
    const open = this.#open[cls]!;
    const slab = open.length > 0 ? open[open.length - 1]! : this.#openSlab(cls);
    const size = SIZES[cls]!;
    let unit = this.#freed[slab]! - 1;
    if (unit >= 0) this.#freed[slab] = this.#words[slab]![unit * (UNIT / 4)]!;
    else {
      unit = this.#fresh[slab]!;
      this.#fresh[slab] = unit + size;
    }
    this.#used[slab]!++;
    this.inUse += size * UNIT;
    if (this.#freed[slab] === 0 && this.#fresh[slab]! + size > SLAB_SIZE / UNIT) open.pop();
    return ((slab << UNIT_BITS) | unit) >>> 0;
  }

  free(ref: number): void {
    const slab = ref >>> UNIT_BITS;
    const cls = this.#class[slab]!;
    if (cls === LARGE) {
      this.inUse -= this.#slabs[slab]!.length;
      this.#release(slab);
      return;
    }
    const unit = ref & UNIT_MASK;
    const size = SIZES[cls]!;
    const open = this.#open[cls]!;
    const wasFull = this.#freed[slab] === 0 && this.#fresh[slab]! + size > SLAB_SIZE / UNIT;
    this.#words[slab]![unit * (UNIT / 4)] = this.#freed[slab]!;
    this.#freed[slab] = unit + 1;
    this.inUse -= size * UNIT;
    if (wasFull) open.push(slab);
    // Keep the last slab with room, or a single record that comes and goes would take and release one each time.
    if (--this.#used[slab]! === 0 && open.length > 1) {
      open.splice(open.indexOf(slab), 1);
      this.#class[slab] = UNUSED;
      if (this.#spare.length < SPARE_SLABS) this.#spare.push(slab);
      else this.#release(slab);
    }
  }

  /** The slab that holds the cell, which begins at {@link offset}. */
  bytes(ref: number): Buffer {
    return this.#slabs[ref >>> UNIT_BITS]!;
  }

  /** The same slab as 32-bit words in the machine's byte order; the cell begins at `offset(ref) / 4`. */
  words(ref: number): Uint32Array {
    return this.#words[ref >>> UNIT_BITS]!;
  }

  offset(ref: number): number {
    return (ref & UNIT_MASK) * UNIT;
  }

  #openSlab(cls: number): number {
    const slab = this.#spare.pop() ?? this.#newSlab(SLAB_SIZE);
    this.#class[slab] = cls;
    this.#used[slab] = 0;
    this.#freed[slab] = 0;
    this.#fresh[slab] = 0;
    this.#open[cls]!.push(slab);
    return slab;
  }

  #allocLarge(bytes: number): number {
    const slab = this.#newSlab(bytes);
    this.#class[slab] = LARGE;
    this.inUse += bytes;
    return (slab << UNIT_BITS) >>> 0;
  }

  #newSlab(bytes: number): number {
    const slab = this.#unusedNumbers.pop() ?? this.#slabs.length;
    if (slab >= MAX_SLABS) throw new Error('The arena is full');
    // Shared memory, though with nobody: V8 collects garbage the sooner the more memory it knows in other buffers, 28
    // times while a million subscriptions are loaded.
    const buffer = Buffer.from(new SharedArrayBuffer(bytes));
    this.#slabs[slab] = buffer;
    this.#words[slab] = new Uint32Array(buffer.buffer);
    this.reserved += bytes;
    return slab;
  }

  #release(slab: number): void {
    this.reserved -= this.#slabs[slab]!.length;
    this.#slabs[slab] = NOTHING;
    this.#words[slab] = NO_WORDS;
    this.#class[slab] = UNUSED;
    this.#unusedNumbers.push(slab);
  }
}
