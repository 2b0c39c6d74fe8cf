/** Where an HTTP server listens: a TCP port or a Unix socket. */
export type ListenAddress = { readonly host: string; readonly port: number } | { readonly path: string };

/** What an address must look like, as part of an error. */
const FORM = 'must be host:port, [IPv6]:port or unix:/path';

/**
 * Reads `host:port`, `[IPv6 address]:port` (port 0: any that is free) or `unix:/path`.
 *
 * @throws Error that says what is expected
 */
export function parseListen(text: string): ListenAddress {
  if (text.startsWith('unix:')) {
    const path = text.slice('unix:'.length);
    if (path === '') throw new Error(FORM);
    if (Buffer.byteLength(path) > 107)
      throw new Error('the path of a Unix socket can have 107 bytes at most: use a shorter one');
    return { path };
  }
  const match = /^(?:\[([0-9a-f:.%]+)\]|([^:[\]/\s]+)):(\d{1,5})$/i.exec(text);
  if (!match) throw new Error(FORM);
  const port = Number(match[3]);
  if (port > 65535) throw new Error('the port must be 65535 at most');
  return { host: match[1] ?? match[2] ?? '', port };
}

/** Checks an address by {@link parseListen}, and returns the text itself. */
export function checkedListen(text: string): string {
  parseListen(text);
  return text;
}

/** Writes an address as {@link parseListen} reads it. */
export function formatListen(address: ListenAddress): string {
  if ('path' in address) return `unix:${address.path}`;
  return address.host.includes(':') ? `[${address.host}]:${address.port}` : `${address.host}:${address.port}`;
}
