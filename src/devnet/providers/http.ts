import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Http2ServerRequest, Http2ServerResponse } from 'node:http2';
import { type Endless, pour } from './endless.ts';
import { answerWhen, type FakeOptions } from './script.ts';

/** An answer of a fake provider. */
export interface WebAnswer {
  /** 200 unless given. */
  readonly status?: number;
  /** Sent as JSON, or as it is if a string or a Buffer. */
  readonly body?: unknown;
  /** After that, a body that never ends. */
  readonly endless?: Endless;
  readonly headers?: Readonly<Record<string, string>>;
  /** Never answer. */
  readonly hang?: boolean;
  /** Cut the TCP connection. */
  readonly cut?: boolean;
  /** Send half of the body, then cut. */
  readonly truncate?: boolean;
}

type Incoming = IncomingMessage | Http2ServerRequest;
type Outgoing = ServerResponse | Http2ServerResponse;

/**
 * Reads a request whole and answers it, over HTTP/1.1 or HTTP/2.
 * @param look decides what to answer, by the body as text or as bytes; it counts an accepted push before the answer is
 *   sent
 * @param options when to answer
 */
export function serve(
  request: Incoming,
  response: Outgoing,
  look: (text: string, bytes: Buffer) => WebAnswer,
  options: FakeOptions,
): void {
  const chunks: Buffer[] = [];
  request.on('error', () => {});
  response.on('error', () => {});
  request.on('data', (chunk: Buffer) => chunks.push(chunk));
  request.on('end', () => {
    const bytes = Buffer.concat(chunks);
    const answer = look(bytes.toString(), bytes);
    answerWhen(options, () => respond(request, response, answer));
  });
}

function respond(request: Incoming, response: Outgoing, answer: WebAnswer): void {
  if (answer.hang || response.destroyed) return;
  if (answer.cut) {
    request.socket.destroy();
    return;
  }
  const { bytes, type } = bodyOf(answer);
  const length = answer.endless ? {} : { 'content-length': bytes.length };
  // The union of both kinds of responses has none of their overloads in common.
  const outgoing = response as ServerResponse;
  outgoing.writeHead(answer.status ?? 200, { 'content-type': type, ...length, ...answer.headers });
  if (answer.endless) {
    outgoing.write(bytes);
    pour(outgoing, answer.endless);
  } else if (answer.truncate) {
    outgoing.write(bytes.subarray(0, bytes.length / 2));
    setImmediate(() => ('stream' in request ? request.stream.close() : request.socket.destroy()));
  } else outgoing.end(bytes);
}

/** The bytes of an answer's body, and its content type. */
function bodyOf({ body = '' }: WebAnswer): { bytes: Buffer; type: string } {
  const text = typeof body === 'string' || Buffer.isBuffer(body) ? body : JSON.stringify(body);
  const type = typeof body === 'string' && body.startsWith('<') ? 'text/html' : 'application/json';
  return { bytes: Buffer.from(text), type: `${type}; charset=UTF-8` };
}

/** A page as providers' gateways send when the service behind them does not answer. */
export const HTML_PAGE = '<!DOCTYPE html><html><title>Error</title><body>That is an error.</body></html>';
