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
 * Lets a connection that gets a GOAWAY with an error end like one without an error: node:http2 would abort requests
 * that the server is still answering, and those pushes would be sent twice.
 */
export function outliveGoaway(session: ClientHttp2Session): void {
  session.on('goaway', (code) => {
    if (code === constants.NGHTTP2_NO_ERROR) return;
    // node:http2 calls destroy right after this event.
    session.destroy = () => {
      Reflect.deleteProperty(session, 'destroy');
      session.close();
    };
  });
}

/** Headers that could make a library decode a body: unpack it to any size, or split it into parts. */
const DECODING = ['content-encoding', 'content-type'];

/**
 * A request over HTTP/2, in place of Node's stream, as the providers' libraries see it. They collect whatever comes for
 * as long as it comes, and miss streams that end without an answer. So they are only shown an answer that is there:
 * complete or cut at 100 kB, as plain text, and in time. Anything else becomes one `error`.
 */
export class Exchange extends EventEmitter {
  readonly #stream: ClientHttp2Stream;
  readonly #deadline: Timer;
  readonly #body = new Body();
  #headers: (IncomingHttpHeaders & IncomingHttpStatusHeader) | undefined;
  #over = false;
  #text = false;
  #unsent = false;
  /** Always false: libraries take an aborted stream for something that they did themselves. */
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
    // Also emitted when the stream is closed without an answer.
    stream.on('end', () => {
      if (this.#headers) this.#finish();
    });
    stream.on('frameError', (_type, code) => {
      this.#unsent = true;
      this.#fail(Object.assign(new Error(`frame not sent (${code})`), { code: 'ECONNRESET' }));
    });
    stream.on('error', (error) => this.#fail(error));
    stream.on('close', () => {
      // Every stream ends so, and an error takes longer to make than the rest of this.
      if (!this.#over) this.#fail(Object.assign(new Error('closed without an answer'), { code: 'ECONNRESET' }));
    });
  }

  /** The HTTP status as soon as it is there, even of an answer that is never completed. */
  get status(): number | undefined {
    return this.#headers?.[':status'];
  }

  /**
   * Whether the server is known not to have processed the request, so that it may be sent again (RFC 9113, section
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

  /** Ignored: a library's timeout would start again with each byte. */
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
    for (const name of DECODING) delete headers[name];
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
