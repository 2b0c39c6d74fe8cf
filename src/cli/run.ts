import { accessSync, constants } from 'node:fs';
import { userInfo } from 'node:os';
import { dirname, resolve } from 'node:path';
import { systemClock } from '../clock.ts';
import { startDaemon } from '../daemon/daemon-process.ts';
import { createLog, flushLog } from '../daemon/log.ts';
import { type Supervised, supervise } from '../daemon/supervisor.ts';
import { openSystemd } from '../daemon/systemd.ts';
import { type Config, loadConfig, runnableServices } from '../settings/config.ts';
import { hivemindListens, hivemindSectionNames, instancesIn } from '../settings/hivemind-instances.ts';
import { ConfigError } from '../settings/section.ts';
import type { Command } from './command.ts';
import { CONFIG, locateConfig } from './locate.ts';

export const command: Command = {
  summary: 'Runs everything: hivemind, web front-end, a notifier for each [notify-NAME] section, and a canary',
  words: [],
  help: [
    'For a machine without systemd, or for a container. Each daemon is its own process; one that dies is restarted.',
    'All run as the user who starts this, who need not be root but must be able to read the configuration, the keys and',
    "the credentials, to use oxend's socket and the database, and to write to the folders of the sockets that the",
    'configuration names (listen, listen_push, metrics_listen), such as /run/spns. Nothing else is written to.',
    'With sections [hivemind-NAME] there is a hivemind for each of them.',
    'SIGTERM and Ctrl-C stop all in order, the hivemind last; a second time stops them at once. If this process is',
    'killed, they stop by themselves. SIGHUP lets all read the configuration again; a new section [notify-NAME] needs a',
    'restart. systemd (Type=notify) is told when all have started. Exit code 0 if all stopped in order.',
  ].join('\n'),
  options: { config: CONFIG },
  async run(given) {
    locateConfig(given);
    const config = loadConfig(process.env);
    process.title = 'spns-run';
    const problems = unwritableFolders(config);
    if (problems.length > 0) throw new ConfigError(problems);
    const log = createLog(config.log, 'spns', { shared: true });
    if (process.getuid?.() === 0)
      log.warn('all daemons run as root, and need not: "spns run --help" says which user to use');
    const instances = instancesIn(config.ini);
    const programs: Supervised[] = [
      ...(instances.length > 0 ? instances.map((name) => `hivemind-${name}`) : ['hivemind']).map((name) => ({
        name,
        last: true,
      })),
      { name: 'web' },
      ...runnableServices(config.ini).map((service) => ({ name: `notify-${service}` })),
      ...(config.canary ? [{ name: 'canary' }] : []),
    ];
    const systemd = openSystemd(process.env);
    const watchdog =
      systemd.watchdogInterval && systemClock.setInterval(() => systemd.watchdog(), systemd.watchdogInterval);
    const supervisor = supervise(programs, {
      clock: systemClock,
      systemd,
      start: (program) => startDaemon(program.name),
      log: (level, text) => log[level](text),
    });
    for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => supervisor.stop());
    process.on('SIGHUP', () => supervisor.signal('SIGHUP'));
    const inOrder = await supervisor.done;
    if (watchdog) watchdog.cancel();
    await flushLog(log, 500);
    return inOrder ? 0 : 1;
  },
};

/**
 * What prevents running all daemons as this user from this folder: a sentence for each folder in which one of them
 * would create a socket but may not.
 */
function unwritableFolders({ ini, web, metricsListen }: Config): string[] {
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
