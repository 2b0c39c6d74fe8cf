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

/**
 * Reads rows from PostgreSQL's binary COPY format. There may be a million, and making a Buffer or a string costs more
 * than copying 300 bytes: so each row is copied to the same place, where most of its fields lie as those of the last
 * row did, whose Buffers then serve again. Values that most rows share are made once, and a service id becomes a string
 * only if somebody reads it.
 */
export class CopyRows {
  #started = false;
  #ended = false;
  readonly #visit: (row: DeviceRow) => void;
  /** What the message has but for the header, and where in it the fields of a row lie; sizes are -1 for NULL. */
  #bytes = Buffer.alloc(2048);
  readonly #at = new Int32Array(FIELDS);
  readonly #size = new Int32Array(FIELDS);
  readonly #views: Buffer[] = Array.from({ length: FIELDS }, () => EMPTY);
  readonly #row = makeRow();
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

  /**
   * Takes the next message, which PostgreSQL never ends within a row.
   *
   * @throws Error if it is not in the format
   */
  push(message: Buffer): void {
    const from = this.#started ? 0 : headerSize(message);
    this.#started = true;
    if (message.length > this.#bytes.length) {
      this.#bytes = Buffer.alloc(2 * message.length);
      this.#views.fill(EMPTY);
    }
    const end = message.copy(this.#bytes, 0, from);
    for (let at = 0; at < end && !this.#ended; ) at = this.#next(at, end);
  }

  /** Reads one row. @returns the offset after it */
  #next(at: number, end: number): number {
    const bytes = this.#bytes;
    // What lies behind the end is of an earlier row.
    const fields = at + 2 > end ? FIELDS : bytes.readInt16BE(at);
    at += 2;
    if (fields === -1) {
      this.#ended = true;
      return at;
    }
    if (fields !== FIELDS) throw new Error(`The database sent ${fields} columns instead of ${FIELDS}`);
    for (let field = 0; field < FIELDS; field++) {
      const size = at + 4 > end ? end : bytes.readInt32BE(at);
      at += 4;
      this.#at[field] = at;
      this.#size[field] = size;
      if (size > 0) at += size;
    }
    if (at > end) throw new Error('The database sent a part of a row');
    this.#visit(this.#read());
    return at;
  }

  #read(): DeviceRow {
    const row = this.#row;
    const bytes = this.#bytes;
    const tag = this.#view(2);
    const tagSignature = this.#view(3);
    row.account = this.#view(0) ?? EMPTY;
    row.sessionEd25519 = this.#view(1);
    // If one of them is missing, rowFault finds the empty one.
    row.subaccount = tag || tagSignature ? { tag: tag ?? EMPTY, signature: tagSignature ?? EMPTY } : null;
    row.signature = this.#view(4) ?? EMPTY;
    const time = this.#at[5]!;
    row.signedAt = bytes.readInt32BE(time) * 2 ** 32 + bytes.readUInt32BE(time + 4);
    row.wantData = bytes[this.#at[6]!] === 1;
    row.encKey = this.#view(7) ?? EMPTY;
    row.service = this.#service.read(bytes, this.#at[8]!, this.#size[8]!);
    row.serviceIdBytes = this.#ascii(9);
    if (!row.serviceIdBytes) row.serviceId = this.#view(9)?.toString() ?? '';
    row.serviceData = this.#view(10);
    row.namespaces = this.#namespaces.read(bytes, this.#at[11]!, this.#size[11]!);
    return row;
  }

  /** Where a string lies; undefined if it is not ASCII without NUL. */
  #ascii(field: number): Utf8 | undefined {
    const bytes = this.#bytes;
    const at = this.#at[field]!;
    const size = Math.max(this.#size[field]!, 0);
    for (let n = at; n < at + size; n++) if (bytes[n] === 0 || bytes[n]! > 0x7f) return undefined;
    this.#serviceId.bytes = bytes;
    this.#serviceId.at = at;
    this.#serviceId.size = size;
    return this.#serviceId;
  }

  /** A field's bytes; null if it is NULL. */
  #view(field: number): Buffer | null {
    const at = this.#at[field]!;
    const size = this.#size[field]!;
    if (size < 0) return null;
    const last = this.#views[field]!;
    if (last.length === size && last.byteOffset === this.#bytes.byteOffset + at) return last;
    const view = this.#bytes.subarray(at, at + size);
    this.#views[field] = view;
    return view;
  }
}

/** The size of the header. @throws Error if there is none */
function headerSize(message: Buffer): number {
  const size = message.length < HEADER ? Number.NaN : HEADER + message.readUInt32BE(HEADER - 4);
  if (!message.subarray(0, SIGNATURE.length).equals(SIGNATURE) || !(size <= message.length))
    throw new Error('The database did not send a binary COPY');
  return size;
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
