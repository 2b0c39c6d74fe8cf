import { systemClock } from '../clock.ts';
import { startDaemon } from '../daemon/daemon-process.ts';
import { createLog, flushLog } from '../daemon/log.ts';
import { type Supervised, supervise } from '../daemon/supervisor.ts';
import { openSystemd } from '../daemon/systemd.ts';
import { loadConfig, runnableServices } from '../settings/config.ts';
import { instancesIn } from '../settings/hivemind-instances.ts';
import { ConfigError } from '../settings/section.ts';
import type { Command } from './command.ts';
import { CONFIG, locateConfig } from './locate.ts';
import { unwritable } from './run-needs.ts';

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
    const problems = unwritable(config);
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
