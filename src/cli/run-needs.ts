import { accessSync, constants } from 'node:fs';
import { userInfo } from 'node:os';
import { dirname, resolve } from 'node:path';
import { type Config, runnableServices } from '../settings/config.ts';
import { hivemindListens, hivemindSectionNames } from '../settings/hivemind-instances.ts';

/**
 * What prevents running all daemons as this user from this folder: a sentence for each folder in which one of them
 * would create a socket but may not.
 */
export function unwritable({ ini, web, metricsListen }: Config): string[] {
  const places: readonly (readonly [setting: string, address: string | undefined])[] = [
    ...hivemindListens(ini).flatMap(({ instance, listen, listenPush }) => {
      const [section] = hivemindSectionNames(instance);
      return [[`[${section}].listen`, listen] as const, [`[${section}].listen_push`, listenPush] as const];
    }),
    ['[web].listen', web.listen],
    ...(['hivemind', 'web'] as const).map((name) => [`[${name}].metrics_listen`, metricsListen(name)] as const),
    ...runnableServices(ini).map((service) => {
      const section = `notify-${service}` as const;
      return [`[${section}].metrics_listen`, metricsListen(section)] as const;
    }),
  ];
  const user = userInfo();
  return places.flatMap(([setting, address]) => {
    const path = /^(?:ipc:\/\/|unix:)([^@].*)$/.exec(address ?? '')?.[1];
    if (path === undefined) return [];
    const folder = dirname(resolve(path));
    try {
      accessSync(folder, constants.W_OK | constants.X_OK);
      return [];
    } catch (error) {
      const missing = (error as NodeJS.ErrnoException).code === 'ENOENT';
      const what = missing ? 'is not there' : `may not be written to by the user ${user.username} (${user.uid})`;
      return [
        `${setting} = ${address}: the folder ${folder} ${what}: install -d -o ${user.uid} -m 750 ${folder}, or set it to another`,
      ];
    }
  });
}
