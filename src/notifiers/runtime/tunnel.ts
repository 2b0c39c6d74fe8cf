import { Agent, type AgentOptions } from 'node:https';
import { connect, isIP, type Socket } from 'node:net';
import { Duplex } from 'node:stream';
import { type ConnectionOptions, connect as secure, type TLSSocket } from 'node:tls';
import type { Clock } from '../../clock.ts';
import { authority, type HttpProxy } from './proxy.ts';

/** How long a proxy's answer to CONNECT may be, in bytes: a status and a few headers. */
const LONGEST_HEAD = 16_384;
/** How long the proxy may take to make the connection, in milliseconds. */
const TIMEOUT = 10_000;
const END_OF_HEAD = '\r\n\r\n';

/**
 * A connection through an HTTP proxy (RFC 9110, section 9.3.6) that can be written to at once: what is written waits
 * until the proxy has made the connection. So TLS and HTTP/2 use it like any other socket. If the proxy does not make
 * the connection, it ends with an error whose `code` is `ERR_PROXY_` and the proxy's status, or the code of what went
 * wrong on the way to the proxy.
 */
class Tunnel extends Duplex {
  readonly #proxy: HttpProxy;
  readonly #target: string;
  readonly #clock: Clock;
  #socket: Socket | undefined;

  /** @param target `host:port` */
  constructor(proxy: HttpProxy, target: string, clock: Clock) {
    super({ allowHalfOpen: false });
    this.#proxy = proxy;
    this.#target = target;
    this.#clock = clock;
    // Users of the tunnel notice its end by their own connection through it.
    this.on('error', () => {});
  }

  override _construct(callback: (error?: Error) => void): void {
    const { host, port, authorization } = this.#proxy;
    const socket = connect({ host, port, noDelay: true });
    this.#socket = socket;
    let head = Buffer.alloc(0);
    const end = (error?: Error) => {
      deadline.cancel();
      socket.off('data', read);
      socket.off('error', fail);
      socket.off('close', closed);
      if (error) socket.on('error', () => {}).destroy();
      callback(error);
    };
    const fail = (error: NodeJS.ErrnoException) => end(proxyError(error.code ?? 'FAILED', error));
    const closed = () => end(proxyError('CLOSED'));
    const deadline = this.#clock.setTimeout(() => end(proxyError('TIMEOUT')), TIMEOUT);
    const read = (chunk: Buffer) => {
      head = Buffer.concat([head, chunk]);
      const length = head.indexOf(END_OF_HEAD);
      if (length < 0) {
        if (head.length > LONGEST_HEAD) end(proxyError('NONSENSE'));
        return;
      }
      const [, status] = /^HTTP\/1\.[01] (\d{3})\b/.exec(head.toString('latin1', 0, length)) ?? [];
      if (status === undefined) end(proxyError('NONSENSE'));
      else if (!status.startsWith('2')) end(proxyError(status));
      else {
        this.#pass(socket, head.subarray(length + END_OF_HEAD.length));
        end();
      }
    };
    socket.on('data', read);
    socket.on('error', fail);
    socket.on('close', closed);
    const who = authorization === undefined ? '' : `proxy-authorization: ${authorization}\r\n`;
    socket.write(`CONNECT ${this.#target} HTTP/1.1\r\nhost: ${this.#target}\r\n${who}\r\n`);
  }

  override _read(): void {
    this.#socket?.resume();
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, callback: (error?: Error | null) => void): void {
    this.#socket?.write(chunk, callback);
  }

  override _final(callback: (error?: Error | null) => void): void {
    this.#socket?.end(() => callback());
  }

  override _destroy(error: Error | null, callback: (error?: Error | null) => void): void {
    this.#socket?.destroy();
    callback(error);
  }

  /** Passes on everything that comes from now on, which is the provider's. */
  #pass(socket: Socket, first: Buffer): void {
    socket.on('data', (chunk: Buffer) => {
      if (!this.push(chunk)) socket.pause();
    });
    socket.on('end', () => this.push(null));
    socket.on('error', (error) => this.destroy(error));
    socket.on('close', () => this.destroy());
    if (first.length > 0) this.push(first);
  }
}

function proxyError(what: string, cause?: Error): Error {
  const error = new Error(`the proxy did not make the connection (${what})`, cause && { cause });
  return Object.assign(error, { code: `ERR_PROXY_${what}` });
}

/**
 * A TLS connection to a provider through a proxy, which can be used at once.
 *
 * @param options of TLS, without those for the address
 */
export function connectThrough(
  proxy: HttpProxy,
  { host, port }: { readonly host: string; readonly port: number },
  options: ConnectionOptions,
  clock: Clock,
): TLSSocket {
  const socket = new Tunnel(proxy, authority(host, port), clock);
  const name = isIP(host) === 0 ? { servername: host } : {};
  const connection = secure({ ...options, host, port, ...name, socket });
  // Without this, an unused connection would live for as long as the proxy likes.
  socket.on('close', () => connection.destroy());
  return connection;
}

/** An agent whose connections go through the proxy, if there is one. */
export function agentThrough(proxy: HttpProxy | undefined, options: AgentOptions, clock: Clock): Agent {
  const agent = new Agent(options);
  if (proxy) {
    agent.createConnection = ({ host, port, ...rest }) => {
      const where = { host: host ?? 'localhost', port: Number(port ?? 443) };
      return connectThrough(proxy, where, rest as ConnectionOptions, clock);
    };
  }
  return agent;
}
