import type { IncomingHttpHeaders } from 'node:http';
import { type Agent, request } from 'node:https';
import { Body } from './body.ts';

/** A provider's complete answer. */
export interface Reply {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly text: string;
}

export interface PostOptions {
  readonly agent: Agent;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string | Buffer;
  /** Milliseconds until the answer must be there. */
  readonly timeout: number;
}

/**
 * Sends a POST over the agent's kept-alive connections. An answer longer than 100 kB is cut there, and its connection
 * closed.
 *
 * @throws Error if no complete answer comes in time
 */
export function post(url: string, { agent, headers, body, timeout }: PostOptions): Promise<Reply> {
  return new Promise((resolve, reject) => {
    const signal = AbortSignal.timeout(timeout);
    const length = { 'content-length': String(Buffer.byteLength(body)) };
    const outgoing = request(url, { method: 'POST', agent, headers: { ...headers, ...length }, signal }, (incoming) => {
      const body = new Body();
      const done = () =>
        resolve({ status: incoming.statusCode ?? 0, headers: incoming.headers, text: body.bytes().toString() });
      incoming.on('data', (chunk: Buffer) => {
        if (body.add(chunk)) return;
        done();
        incoming.destroy();
      });
      incoming.on('end', () => {
        if (incoming.complete) done();
        else reject(new Error('the answer is cut off'));
      });
      incoming.on('error', reject);
    });
    outgoing.on('error', (error) => reject(signal.aborted ? new Error('no answer in time', { cause: error }) : error));
    outgoing.end(body);
  });
}

/** Why a request failed, in a few words that are the same each time and contain no addresses. */
export function trouble(error: unknown): string {
  const { code, message } = error as NodeJS.ErrnoException;
  if (message === 'no answer in time') return message;
  return `connection trouble${typeof code === 'string' ? ` (${code})` : ''}`;
}

/** Parses JSON; undefined if it is not an object. */
export function jsonObject(text: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null && !Array.isArray(value)
      ? (value as Record<string, unknown>)
      : undefined;
  } catch {
    return undefined;
  }
}
