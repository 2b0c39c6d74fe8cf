import { EventEmitter } from 'node:events';
import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  constants,
  type IncomingHttpHeaders,
  type IncomingHttpStatusHeader,
} from 'node:http2';
import type { Clock, Timer } from '../../clock.ts';
import { Body } from './body.ts';

/**
 * Lets a connection that the server says goodbye to with an error come to its end as after one without: node:http2
 * would give up at once what the server still answers, and that would be sent twice.
 */
export function outliveGoaway(session: ClientHttp2Session): void {
  session.on('goaway', (code) => {
    if (code === constants.NGHTTP2_NO_ERROR) return;
    // node:http2 calls it right after this event.
    session.destroy = () => {
      Reflect.deleteProperty(session, 'destroy');
      session.close();
    };
  });
}

/** Headers that make a library read a body in another way than as text: as an archive of any size, or as parts. */
const READING = ['content-encoding', 'content-type'];

/**
 * A request over HTTP/2, as the providers' libraries see it. They add up whatever comes, for as long as it comes, and
 * pass over streams that end without an answer. So they are shown an answer only when it is there: whole or cut at 100
 * kB, as plain text, and within the time it has. Anything else is one `error`.
 */
export class Exchange extends EventEmitter {
  readonly #stream: ClientHttp2Stream;
  readonly #deadline: Timer;
  readonly #body = new Body();
  #headers: (IncomingHttpHeaders & IncomingHttpStatusHeader) | undefined;
  #over = false;
  #text = false;
  #unsent = false;
  /** Libraries take what is aborted for something that they did themselves. */
  readonly aborted = false;
  readonly destroyed = false;

  /** @param timeout milliseconds until the whole answer must be there, from now on */
  constructor(stream: ClientHttp2Stream, clock: Clock, timeout: number) {
    super();
    this.#stream = stream;
    this.#deadline = clock.setTimeout(() => {
      this.#fail(Object.assign(new Error('timeout: no answer in time'), { code: 'ETIMEDOUT' }));
      stream.close(constants.NGHTTP2_CANCEL);
    }, timeout);
    stream.on('response', (headers) => {
      this.#headers = headers;
    });
    stream.on('data', (chunk: Buffer) => this.#add(chunk));
    // It ends also when it is closed without an answer.
    stream.on('end', () => {
      if (this.#headers) this.#finish();
    });
    stream.on('frameError', (_type, code) => {
      this.#unsent = true;
      this.#fail(Object.assign(new Error(`frame not sent (${code})`), { code: 'ECONNRESET' }));
    });
    stream.on('error', (error) => this.#fail(error));
    stream.on('close', () => {
      this.#fail(Object.assign(new Error('closed without an answer'), { code: 'ECONNRESET' }));
    });
  }

  /** The HTTP status, as soon as it is there, even of an answer that never came to its end. */
  get status(): number | undefined {
    return this.#headers?.[':status'];
  }

  /**
   * Whether the server is known not to have looked at the request, so that it may be sent again (RFC 9113, section
   * 8.7).
   */
  get unprocessed(): boolean {
    const { id, rstCode } = this.#stream;
    return (
      this.#headers === undefined && (this.#unsent || id === undefined || rstCode === constants.NGHTTP2_REFUSED_STREAM)
    );
  }

  setEncoding(): void {
    this.#text = true;
  }

  /** How long there is, is not the library's affair: its time begins anew with each byte. */
  setTimeout(): void {}

  write(chunk: string | Buffer): boolean {
    return this.#stream.write(chunk);
  }

  end(chunk?: string | Buffer): void {
    this.#stream.end(chunk);
  }

  close(code?: number): void {
    this.#stream.close(code);
  }

  destroy(error?: Error): void {
    this.#stream.destroy(error);
  }

  #add(chunk: Buffer): void {
    if (this.#over || this.#body.add(chunk)) return;
    this.#finish();
    this.#stream.close(constants.NGHTTP2_CANCEL);
  }

  #finish(): void {
    if (this.#over) return;
    this.#end();
    const headers = { ...this.#headers };
    for (const name of READING) delete headers[name];
    this.emit('response', headers);
    const body = this.#body.bytes();
    if (body.length > 0) this.emit('data', this.#text ? body.toString() : body);
    this.emit('end');
  }

  #fail(error: Error): void {
    if (this.#over) return;
    this.#end();
    this.emit('error', error);
  }

  #end(): void {
    this.#over = true;
    this.#deadline.cancel();
  }
}
