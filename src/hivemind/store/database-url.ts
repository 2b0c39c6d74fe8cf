import fs from 'node:fs';
import os from 'node:os';

const SOCKET_FOLDERS = ['/var/run/postgresql', '/tmp'];

/**
 * Completes a libpq URL in the way libpq does, where node-postgres does otherwise: without a host (`postgresql:///spns`, the default) the server is sought at its
 * Unix socket, and without a user it is the one this process runs as.
 */
export function completeUrl(url: string, env: NodeJS.ProcessEnv = process.env): string {
  const parts = /^postgres(?:ql)?:\/\/(?:([^@/?]*)@)?([^/?]*)([^?]*)(?:\?(.*))?$/.exec(url);
  if (!parts) return url;
  const [, user, host, , query] = parts;
  const given = new URLSearchParams(query ?? '');
  const added: string[] = [];
  const [name, portInUrl] = (host ?? '').split(':');
  if (!name && !given.has('host') && !env.PGHOST) {
    const port = portInUrl || given.get('port') || env.PGPORT || '5432';
    const folder = SOCKET_FOLDERS.find((candidate) => fs.existsSync(`${candidate}/.s.PGSQL.${port}`));
    if (folder !== undefined) added.push(`host=${encodeURIComponent(folder)}`);
  }
  if (!user && !given.has('user') && !env.PGUSER) added.push(`user=${encodeURIComponent(os.userInfo().username)}`);
  if (added.length === 0) return url;
  return `${url}${query === undefined ? '?' : query === '' ? '' : '&'}${added.join('&')}`;
}
