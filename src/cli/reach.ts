import { lookup } from 'node:dns/promises';
import { isIP } from 'node:net';
import { networkInterfaces } from 'node:os';
import { parseBindAddress } from '../oxenmq/bind-address.ts';
import type { IpcTrouble } from '../oxenmq/ipc-trouble.ts';
import { HIVEMIND } from '../settings/hivemind.ts';
import type { Ini } from '../settings/ini.ts';
import { runProgram, type User } from './child.ts';
import type { DaemonUsers } from './separation.ts';

/** What was found; `good` holds what was checked and is in order. */
export interface Reached {
  readonly problems: string[];
  readonly warnings: string[];
  readonly good: string[];
}

/**
 * Checks, as each daemon's own user, whether the daemons can connect to each other and to oxend, and whether the
 * addresses at which they are to listen exist on this machine.
 *
 * @param folder to which relative paths are relative
 */
export async function reach(ini: Ini, users: DaemonUsers, folder: string): Promise<Reached> {
  const reached: Reached = { problems: [], warnings: [], good: [] };
  const value = (key: string) => ini.sections.get('hivemind')?.get(key)?.value.trim() || undefined;

  const oxend = value('oxend_rpc');
  const oxendPath = pathOf(oxend);
  if (oxendPath !== undefined) {
    const trouble = await connecting(oxendPath, users.hivemind, folder);
    if (trouble?.lasting) reached.problems.push(`[hivemind].oxend_rpc = ${oxend}: ${trouble.text}`);
    else if (trouble)
      reached.warnings.push(
        `[hivemind].oxend_rpc = ${oxend}: ${trouble.text}: is oxend running, and is this its socket?`,
      );
    else reached.good.push("oxend's socket");
  }

  const listen = value('listen') ?? HIVEMIND.settings.listen.default ?? '';
  const push = value('listen_push');
  for (const [who, key, address, user] of [
    ['notifiers', 'listen', listen, users.notifier],
    ['the web front-end', push === undefined ? 'listen' : 'listen_push', push ?? listen, users.web],
  ] as const) {
    const path = pathOf(address);
    const trouble = path === undefined ? undefined : await connecting(path, user, folder);
    // The hivemind may just not be running, which is no fault of the configuration.
    if (trouble?.lasting)
      reached.problems.push(`[hivemind].${key} = ${address}: ${who} cannot connect: ${trouble.text}`);
  }
  const { listen: local, listenPush, listenCurve, listenCurvePublic } = HIVEMIND.settings;
  for (const { key } of [local, listenPush, listenCurve, listenCurvePublic]) {
    const odd = await notHere(value(key));
    if (odd) reached.warnings.push(`[hivemind].${key} = ${value(key)}: ${odd}`);
  }
  return reached;
}

function pathOf(address: string | undefined): string | undefined {
  return address?.startsWith('ipc://') ? address.slice('ipc://'.length) : undefined;
}

async function connecting(path: string, as: User | undefined, cwd: string): Promise<IpcTrouble | undefined> {
  const { code, output, errors } = await runProgram('cli/socket-main.ts', [path], { as, cwd });
  if (code !== 0) return { text: `the check failed: ${errors || output}`, lasting: false };
  return output === '' ? undefined : JSON.parse(output);
}

/** Why an address may not be this machine's: only a warning, since a network interface may not be up yet. */
async function notHere(text: string | undefined): Promise<string | undefined> {
  if (text === undefined) return undefined;
  let host: string;
  try {
    const address = parseBindAddress(text);
    if (address.protocol === 'ipc') return undefined;
    host = address.host;
  } catch {
    // Problems of the setting itself have been reported already.
    return undefined;
  }
  if (isIP(host) === 0) {
    const found = await lookup(host).catch(() => undefined);
    if (!found) return `neither a network interface nor a host is known by the name ${host}`;
    host = found.address;
  }
  if (/^(127\.|0\.0\.0\.0$|::1?$|::ffff:)/.test(host)) return undefined;
  const ours = Object.values(networkInterfaces()).flatMap((all = []) => all.map(({ address }) => address));
  return ours.includes(host) ? undefined : `this machine has no address ${host} now, so nothing could listen there`;
}
