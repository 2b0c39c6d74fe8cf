import { HIVEMIND } from './hivemind.ts';
import type { Ini, IniSection } from './ini.ts';
import { Section } from './section.ts';

const PREFIX = 'hivemind-';

/** Where the hiveminds of this file listen. */
export interface HivemindListen {
  /** Undefined for the hivemind of `[hivemind]` itself. */
  readonly instance: string | undefined;
  /** The ZeroMQ address that it binds for notifiers and commands. */
  readonly listen: string;
  /** The one for web front-ends. */
  readonly listenPush: string | undefined;
}

/** The instances that have a section `[hivemind-NAME]`. */
export function instancesIn(ini: Ini): string[] {
  return [...ini.sections.keys()].flatMap((name) =>
    name.startsWith(PREFIX) && name.length > PREFIX.length ? [name.slice(PREFIX.length)] : [],
  );
}

/** The sections that the settings of a hivemind stand in: what the first does not have is in the next. */
export function hivemindSectionNames(instance: string | undefined): [string, ...string[]] {
  return instance === undefined ? ['hivemind'] : [PREFIX + instance, 'hivemind'];
}

/**
 * The section of one instance: the keys of `[hivemind-NAME]`, and those of `[hivemind]` where it has none. Without an
 * instance, or a section for it, `[hivemind]` alone.
 *
 * @param credentials as for {@link Section}
 */
export function hivemindSection(ini: Ini, instance: string | undefined, credentials?: string): Section {
  const common: IniSection = ini.sections.get('hivemind') ?? new Map();
  const [name] = hivemindSectionNames(instance);
  const own = instance === undefined ? undefined : ini.sections.get(name);
  if (!own) return new Section('hivemind', common, ini.defaults, credentials);
  return new Section(name, own, new Map([...ini.defaults, ...common]), credentials);
}

/**
 * Every hivemind of the file: those of the sections `[hivemind-NAME]` or, if there are none, that of `[hivemind]`.
 * Whoever reaches one of them learns of the others, even on other machines. One whose address is wrong is left out:
 * its own process complains.
 */
export function hivemindListens(ini: Ini): HivemindListen[] {
  const instances = instancesIn(ini);
  return (instances.length > 0 ? instances : [undefined]).flatMap((instance) => {
    const section = hivemindSection(ini, instance);
    const listen = HIVEMIND.settings.listen.read(section, 'notifier');
    const listenPush = HIVEMIND.settings.listenPush.read(section, 'notifier');
    return section.problems.length > 0 ? [] : [{ instance, listen, listenPush }];
  });
}
