import { ACCOUNT_SIZE } from '../../session/account.ts';
import { type DeviceRow, MAX_SERVICE, type Utf8 } from '../devices/device.ts';

/** From this many slots on, the namespaces of all subscriptions are read in one scan; for fewer they are looked up. */
const MANY_SLOTS = 64;

/**
 * The statement whose output {@link CopyRows} reads. Namespaces come as two bytes each in one byte string; an array
 * would take five times as much.
 *
 * @param slots the slots to read; all if not given
 */
export function copyRows(slots?: readonly number[]): string {
  const namespaces = "string_agg(int2send(namespace), '' ORDER BY namespace) AS namespaces";
  const grouped = `(SELECT subscription, ${namespaces} FROM sub_namespaces GROUP BY subscription) n ON n.subscription = s.id`;
  const each = `LATERAL (SELECT ${namespaces} FROM sub_namespaces WHERE subscription = s.id) n ON true`;
  return `COPY (
  SELECT s.account, s.session_ed25519, s.subaccount_tag, s.subaccount_sig, s.signature, s.signature_ts, s.want_data, s.enc_key, s.service, s.svcid, s.svcdata,
    n.namespaces
  FROM subscriptions s
  LEFT JOIN ${slots !== undefined && slots.length < MANY_SLOTS ? each : grouped}
  ${slots === undefined ? '' : `WHERE spns_slot(s.account) = ANY ('{${slots.join()}}'::smallint[])`}
) TO STDOUT (FORMAT binary)`;
}

const FIELDS = 12;
const SIGNATURE = Buffer.from('PGCOPY\n\xff\r\n\0', 'latin1');
/** Bytes up to the end of the length of the header's extension. */
const HEADER = 19;
const EMPTY = Buffer.alloc(0);
/** Bytes of a chunk that are joined to a row that was cut: nearly every row is shorter. */
const JOINED = 2048;

/**
 * Reads rows from PostgreSQL's binary COPY format, which comes in chunks cut anywhere. There may be a million rows, and
 * making a Buffer or a string costs more than copying 64 bytes: so one row object is reused for all, values that most
 * rows share are made once, and a service id becomes a string only if somebody reads it.
 */
export class CopyRows {
  #rest: Buffer = EMPTY;
  #started = false;
  #ended = false;
  readonly #visit: (row: DeviceRow) => void;
  readonly #at = new Int32Array(FIELDS);
  readonly #size = new Int32Array(FIELDS);
  readonly #row = makeRow();
  readonly #account = Buffer.alloc(ACCOUNT_SIZE);
  readonly #sessionEd25519 = Buffer.alloc(32);
  readonly #signature = Buffer.alloc(64);
  readonly #encKey = Buffer.alloc(32);
  readonly #serviceId = { bytes: EMPTY as Buffer, at: 0, size: 0 };
  readonly #service = new Remembered(MAX_SERVICE, (bytes) => bytes.toString());
  readonly #namespaces = new Remembered(64, readNamespaces);

  /** @param visit gets each row, which is good only during the call */
  constructor(visit: (row: DeviceRow) => void) {
    this.#visit = visit;
  }

  /** Whether the end of the data has been seen. */
  get ended(): boolean {
    return this.#ended;
  }

  /** Takes the next chunk. @throws Error if it is not in the format */
  push(chunk: Buffer): void {
    let [bytes, from] = [chunk, 0];
    if (this.#rest.length > 0) {
      // Complete the row that was cut without copying the whole chunk.
      const joined = Buffer.concat([this.#rest, chunk.subarray(0, JOINED)]);
      const read = this.#rows(joined, 0);
      if (read >= this.#rest.length) from = read - this.#rest.length;
      else [bytes, from] = [chunk.length <= JOINED ? joined : Buffer.concat([this.#rest, chunk]), read];
    }
    const end = this.#rows(bytes, from);
    this.#rest = end === bytes.length ? EMPTY : bytes.subarray(end);
  }

  /** Reads all complete rows. @returns the offset after them */
  #rows(bytes: Buffer, from: number): number {
    let at = from;
    if (!this.#started) {
      if (bytes.length < HEADER) return at;
      if (!bytes.subarray(0, 11).equals(SIGNATURE)) throw new Error('The database did not send a binary COPY');
      const end = HEADER + bytes.readUInt32BE(HEADER - 4);
      if (bytes.length < end) return at;
      this.#started = true;
      at = end;
    }
    while (!this.#ended) {
      const next = this.#next(bytes, at);
      if (next === undefined) break;
      at = next;
    }
    return at;
  }

  /** Reads one row. @returns the offset after it, or undefined if it is not complete */
  #next(bytes: Buffer, at: number): number | undefined {
    if (at + 2 > bytes.length) return undefined;
    const fields = bytes.readInt16BE(at);
    at += 2;
    if (fields === -1) {
      this.#ended = true;
      return at;
    }
    if (fields !== FIELDS) throw new Error(`The database sent ${fields} columns instead of ${FIELDS}`);
    for (let field = 0; field < FIELDS; field++) {
      if (at + 4 > bytes.length) return undefined;
      const size = bytes.readInt32BE(at);
      at += 4;
      this.#at[field] = at;
      this.#size[field] = size;
      at += Math.max(size, 0);
    }
    if (at > bytes.length) return undefined;
    this.#visit(this.#read(bytes));
    return at;
  }

  #read(bytes: Buffer): DeviceRow {
    const row = this.#row;
    const tag = this.#view(bytes, 2);
    const tagSignature = this.#view(bytes, 3);
    row.account = this.#copy(bytes, 0, this.#account) ?? EMPTY;
    row.sessionEd25519 = this.#copy(bytes, 1, this.#sessionEd25519);
    // If one of them is missing, rowFault finds the empty one.
    row.subaccount = tag || tagSignature ? { tag: tag ?? EMPTY, signature: tagSignature ?? EMPTY } : null;
    row.signature = this.#copy(bytes, 4, this.#signature) ?? EMPTY;
    const time = this.#at[5]!;
    row.signedAt = bytes.readInt32BE(time) * 2 ** 32 + bytes.readUInt32BE(time + 4);
    row.wantData = bytes[this.#at[6]!] === 1;
    row.encKey = this.#copy(bytes, 7, this.#encKey) ?? EMPTY;
    row.service = this.#service.read(bytes, this.#at[8]!, this.#size[8]!);
    row.serviceIdBytes = this.#ascii(bytes, 9);
    if (!row.serviceIdBytes) row.serviceId = this.#view(bytes, 9)?.toString() ?? '';
    row.serviceData = this.#view(bytes, 10);
    row.namespaces = this.#namespaces.read(bytes, this.#at[11]!, this.#size[11]!);
    return row;
  }

  /** A field copied to `to`, or a view of it if it does not have that length. */
  #copy(bytes: Buffer, field: number, to: Buffer): Buffer | null {
    if (this.#size[field] !== to.length) return this.#view(bytes, field);
    const at = this.#at[field]!;
    for (let n = 0; n < to.length; n++) to[n] = bytes[at + n]!;
    return to;
  }

  /** Where a string lies; undefined if it is not ASCII without NUL. */
  #ascii(bytes: Buffer, field: number): Utf8 | undefined {
    const at = this.#at[field]!;
    const size = Math.max(this.#size[field]!, 0);
    for (let n = at; n < at + size; n++) if (bytes[n] === 0 || bytes[n]! > 0x7f) return undefined;
    this.#serviceId.bytes = bytes;
    this.#serviceId.at = at;
    this.#serviceId.size = size;
    return this.#serviceId;
  }

  #view(bytes: Buffer, field: number): Buffer | null {
    const size = this.#size[field]!;
    return size < 0 ? null : bytes.subarray(this.#at[field]!, this.#at[field]! + size);
  }
}

/** A row to be overwritten again and again. */
function makeRow() {
  let serviceId = '';
  const row = {
    account: EMPTY as Buffer,
    sessionEd25519: null as Buffer | null,
    subaccount: null as DeviceRow['subaccount'],
    signature: EMPTY as Buffer,
    signedAt: 0,
    wantData: false,
    encKey: EMPTY as Buffer,
    service: '',
    serviceIdBytes: undefined as Utf8 | undefined,
    get serviceId(): string {
      const utf8 = this.serviceIdBytes;
      return utf8 ? utf8.bytes.toString('latin1', utf8.at, utf8.at + utf8.size) : serviceId;
    },
    set serviceId(text: string) {
      serviceId = text;
    },
    serviceData: null as Buffer | null,
    namespaces: [] as readonly number[],
  };
  // A spread copy of the row has the string only, since the bytes change with the next row.
  return Object.defineProperty(row, 'serviceIdBytes', { enumerable: false });
}

/** Caches values that many rows share: for each length the last one. */
class Remembered<T> {
  readonly #make: (bytes: Buffer) => T;
  readonly #known: ({ readonly bytes: Buffer; readonly value: T } | undefined)[];

  /**
   * @param limit values of so many bytes or more are not cached
   * @param make makes a value; its bytes may be kept
   */
  constructor(limit: number, make: (bytes: Buffer) => T) {
    this.#make = make;
    this.#known = Array.from({ length: limit });
  }

  /** @param size in bytes; -1 (NULL) counts as 0 */
  read(bytes: Buffer, at: number, size: number): T {
    const length = Math.max(size, 0);
    const known = this.#known[length];
    if (known !== undefined && isAt(bytes, at, known.bytes)) return known.value;
    const own = Buffer.from(bytes.subarray(at, at + length));
    const value = this.#make(own);
    if (length < this.#known.length) this.#known[length] = { bytes: own, value };
    return value;
  }
}

function isAt(bytes: Buffer, at: number, sought: Buffer): boolean {
  for (let n = 0; n < sought.length; n++) if (bytes[at + n] !== sought[n]) return false;
  return true;
}

function readNamespaces(bytes: Buffer): readonly number[] {
  return Array.from({ length: bytes.length >> 1 }, (_, n) => bytes.readInt16BE(2 * n));
}
