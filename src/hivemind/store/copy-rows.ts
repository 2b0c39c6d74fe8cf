import type { DeviceRow } from '../devices/device.ts';

/** From so many slots on, the namespaces of all subscriptions are read through once; of fewer, those of each. */
const MANY_SLOTS = 64;

/**
 * What {@link CopyRows} reads. The namespaces come as two bytes each, in one byte string: an array would take five
 * times as much.
 *
 * @param slots whose subscriptions are to be read; all if not given
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
const EMPTY = Buffer.alloc(0);

/** Reads PostgreSQL's binary COPY format, which arrives cut anywhere, into rows. */
export class CopyRows {
  #rest: Buffer = EMPTY;
  #started = false;
  #ended = false;
  readonly #visit: (row: DeviceRow) => void;
  readonly #at: number[] = [];
  readonly #size: number[] = [];

  /** @param visit gets each row; its buffers are views, valid only during the call */
  constructor(visit: (row: DeviceRow) => void) {
    this.#visit = visit;
  }

  /** Whether the format's end was seen. */
  get ended(): boolean {
    return this.#ended;
  }

  /** @throws Error on anything that is not the format */
  push(chunk: Buffer): void {
    const bytes = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
    let at = 0;
    if (!this.#started) {
      const extension = bytes.length >= 19 ? bytes.readUInt32BE(15) : 0;
      if (bytes.length < 19 + extension) {
        this.#rest = bytes;
        return;
      }
      if (!bytes.subarray(0, 11).equals(SIGNATURE)) throw new Error('The database sent no binary COPY');
      this.#started = true;
      at = 19 + extension;
    }
    while (!this.#ended) {
      const next = this.#row(bytes, at);
      if (next < 0) break;
      at = next;
    }
    this.#rest = at === bytes.length ? EMPTY : bytes.subarray(at);
  }

  /** Reads one row; gives the offset behind it, or -1 if it is not all there. */
  #row(bytes: Buffer, at: number): number {
    if (at + 2 > bytes.length) return -1;
    const fields = bytes.readInt16BE(at);
    at += 2;
    if (fields === -1) {
      this.#ended = true;
      return at;
    }
    if (fields !== FIELDS) throw new Error(`The database sent ${fields} columns instead of ${FIELDS}`);
    for (let field = 0; field < FIELDS; field++) {
      if (at + 4 > bytes.length) return -1;
      const size = bytes.readInt32BE(at);
      at += 4;
      this.#at[field] = at;
      this.#size[field] = size;
      if (size > 0) at += size;
    }
    if (at > bytes.length) return -1;
    this.#visit(this.#read(bytes));
    return at;
  }

  #read(bytes: Buffer): DeviceRow {
    const tag = this.#bytes(bytes, 2);
    const tagSignature = this.#bytes(bytes, 3);
    const from = this.#at[11]!;
    const namespaces: number[] = [];
    for (let n = 0; n + 1 < this.#size[11]!; n += 2) namespaces.push(bytes.readInt16BE(from + n));
    return {
      account: this.#bytes(bytes, 0) ?? EMPTY,
      sessionEd25519: this.#bytes(bytes, 1),
      // One without the other is as wrong as one of a wrong length.
      subaccount: tag || tagSignature ? { tag: tag ?? EMPTY, signature: tagSignature ?? EMPTY } : null,
      signature: this.#bytes(bytes, 4) ?? EMPTY,
      signedAt: Number(bytes.readBigInt64BE(this.#at[5]!)),
      wantData: bytes[this.#at[6]!] === 1,
      encKey: this.#bytes(bytes, 7) ?? EMPTY,
      service: this.#text(bytes, 8),
      serviceId: this.#text(bytes, 9),
      serviceData: this.#bytes(bytes, 10),
      namespaces,
    };
  }

  #bytes(bytes: Buffer, field: number): Buffer | null {
    const size = this.#size[field]!;
    return size < 0 ? null : bytes.subarray(this.#at[field]!, this.#at[field]! + size);
  }

  #text(bytes: Buffer, field: number): string {
    return bytes.toString('utf8', this.#at[field]!, this.#at[field]! + Math.max(this.#size[field]!, 0));
  }
}
