import koffi from 'koffi';
import { until } from '../support/until.ts';

const libc = koffi.load(null);
const socket = libc.func('int socket(int domain, int type, int protocol)');
const bind = libc.func('int bind(int fd, const uint8_t *address, uint32_t size)');
const recv = libc.func('long recv(int fd, _Out_ uint8_t *data, size_t length, int flags)');
const close = libc.func('int close(int fd)');

const MSG_DONTWAIT = 0x40;

/**
 * What systemd is to a daemon: a bound Unix datagram socket, which is read all the time: the kernel keeps as few as ten
 * messages. With more, a daemon that must be heard waits, and the rest is lost.
 */
export class NotifySocket {
  readonly #fd: number;
  readonly #reader: NodeJS.Timeout;
  /** Every message so far. */
  readonly messages: string[] = [];

  /** @param path may start with @ for an abstract one */
  constructor(path: string) {
    this.#fd = socket(1, 2, 0);
    const name = Buffer.from(path);
    if (path.startsWith('@')) name[0] = 0;
    const address = Buffer.concat([Buffer.from([1, 0]), name]);
    if (bind(this.#fd, address, address.length) !== 0) throw new Error(`bind ${path}: errno ${koffi.errno()}`);
    this.#reader = setInterval(() => this.read(), 5).unref();
  }

  /** Takes what has arrived; never waits. */
  read(): string[] {
    const buffer = Buffer.alloc(4096);
    for (;;) {
      const size = Number(recv(this.#fd, buffer, buffer.length, MSG_DONTWAIT));
      if (size < 0) return this.messages;
      this.messages.push(buffer.toString('utf8', 0, size));
    }
  }

  /**
   * Waits for a message that matches, later than the first `after` ones. libc's socket has no events in Node, so it is
   * asked again and again.
   */
  async message(pattern: RegExp, after = 0): Promise<string> {
    let found: string | undefined;
    await until(
      () => {
        found = this.read().find((message, index) => index >= after && pattern.test(message));
        return found !== undefined;
      },
      5,
      () => `${pattern} among ${JSON.stringify(this.messages.slice(after))}`,
    );
    return found ?? '';
  }

  close(): void {
    clearInterval(this.#reader);
    close(this.#fd);
  }
}
