import { createRequire } from 'node:module';

/** What a daemon tells systemd (sd_notify(3)). Without systemd none of it does anything. */
export interface Systemd {
  /** Whether systemd listens. */
  readonly enabled: boolean;
  /**
   * Milliseconds between calls of {@link Systemd.watchdog}, half of what systemd allows; undefined without watchdog.
   */
  readonly watchdogInterval: number | undefined;
  /** The start, or a reload, is over. */
  ready(): void;
  /** One line for `systemctl status`. */
  status(text: string): void;
  /** The configuration is being read again; {@link Systemd.ready} ends it. */
  reloading(): void;
  stopping(): void;
  watchdog(): void;
  close(): void;
}

const AF_UNIX = 1;
const SOCK_DGRAM = 2;
const SOCK_CLOEXEC = 0o2000000;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
/** Longest address of a Unix socket, in bytes. */
const MAX_PATH = 108;

/**
 * Opens the socket that systemd names in NOTIFY_SOCKET. Node has no Unix datagram sockets, so libc's are called through
 * koffi: that sends from our own process, so `NotifyAccess=main` is enough.
 *
 * @param env as systemd sets it: NOTIFY_SOCKET, WATCHDOG_USEC, WATCHDOG_PID
 */
export function openSystemd(env: NodeJS.ProcessEnv): Systemd {
  const send = env.NOTIFY_SOCKET ? openSocket(env.NOTIFY_SOCKET) : undefined;
  const tell = (message: string, wait: boolean) => send?.(message, wait);
  return {
    enabled: send !== undefined,
    watchdogInterval: send && watchdogInterval(env),
    // Start, stop and reload must arrive, so they wait; what is repeated anyway must never hold up the event loop.
    ready: () => tell('READY=1', true),
    status: (text) => tell(`STATUS=${text.replaceAll(/\s+/g, ' ')}`, false),
    // Type=notify-reload needs the monotonic clock in microseconds; on Linux hrtime reads that clock.
    reloading: () => tell(`RELOADING=1\nMONOTONIC_USEC=${process.hrtime.bigint() / 1000n}`, true),
    stopping: () => tell('STOPPING=1', true),
    watchdog: () => tell('WATCHDOG=1', false),
    close: () => send?.close(),
  };
}

function watchdogInterval(env: NodeJS.ProcessEnv): number | undefined {
  if (env.WATCHDOG_PID !== undefined && env.WATCHDOG_PID !== String(process.pid)) return undefined;
  const allowed = Number(env.WATCHDOG_USEC);
  return Number.isSafeInteger(allowed) && allowed > 0 ? Math.max(1, allowed / 2000) : undefined;
}

/**
 * A function that sends datagrams to the socket at `path`; undefined for a kind of address that we do not know, or if
 * there is no socket to be had.
 */
function openSocket(path: string): (((message: string, wait: boolean) => void) & { close(): void }) | undefined {
  if (!path.startsWith('/') && !path.startsWith('@')) return undefined;
  const name = Buffer.from(path);
  if (name.length > MAX_PATH) return undefined;
  // A name that starts with @ is an abstract one: its first byte is NUL.
  if (path.startsWith('@')) name[0] = 0;
  const address = Buffer.concat([Buffer.from([AF_UNIX, 0]), name]);

  // koffi is a native CommonJS addon, loaded only if systemd listens.
  const koffi = createRequire(import.meta.url)('koffi') as typeof import('koffi');
  const libc = koffi.load(null);
  const socket = libc.func('int socket(int domain, int type, int protocol)');
  const sendto = libc.func(
    'long sendto(int fd, const uint8_t *data, size_t length, int flags, const uint8_t *address, uint32_t size)',
  );
  const closeSocket = libc.func('int close(int fd)');
  let fd: number = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return undefined;
  const send = (message: string, wait: boolean) => {
    if (fd < 0) return;
    const data = Buffer.from(message);
    sendto(fd, data, data.length, MSG_NOSIGNAL | (wait ? 0 : MSG_DONTWAIT), address, address.length);
  };
  return Object.assign(send, {
    close() {
      if (fd >= 0) closeSocket(fd);
      fd = -1;
    },
  });
}
