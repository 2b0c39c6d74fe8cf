import { type ClusterWorld, SECOND } from './world.ts';

/** What may go wrong. Each begins at once, if it can now, and ends by itself. */
export type Fault = (world: ClusterWorld) => void;

/** One that may fail, at work or not, so that another one at work is left. */
function anyBut({ random, members, working }: ClusterWorld): string | undefined {
  const name = random.pick([...members.keys()]);
  return working.some((member) => member.name !== name) ? name : undefined;
}

/** What an operator does. */
export const PLANNED: Readonly<Record<string, Fault>> = {
  'a member comes'(world) {
    const { random, absent } = world;
    if (absent.length > 0) world.start(random.pick(absent));
  },
  'a member leaves'(world) {
    if (world.working.length <= 1) return;
    world.stop(world.random.pick(world.working).name);
  },
  'a member is restarted'(world) {
    if (world.working.length <= 1) return;
    const { name } = world.random.pick(world.working);
    world.stop(name, () => world.later(SECOND / 2, 3 * SECOND, () => world.start(name)));
  },
};

/** What befalls members and the ways between them. */
export const OURS: Readonly<Record<string, Fault>> = {
  'a member is killed'(world) {
    const name = anyBut(world);
    if (name === undefined) return;
    world.kill(name);
    world.later(SECOND / 2, 15 * SECOND, () => world.start(name));
  },
  'a member stands still'(world) {
    const name = anyBut(world);
    if (name !== undefined) world.pause(name, 100 + world.random.int(12 * SECOND));
  },
  'a member is split from the database'(world) {
    const { random, working } = world;
    if (working.length === 0) return;
    const how = random.pick(['refused', 'silent'] as const);
    world.split(random.pick(working).name, how, random.pick([2, 8, 40]) * SECOND);
  },
  'the database is away'(world) {
    const ms = world.random.pick([1, 5, 20]) * SECOND;
    for (const { name } of world.members.values()) world.split(name, 'refused', ms);
  },
  'two members lose each other'(world) {
    const { random, options } = world;
    const [one, other] = [random.pick(options.names), random.pick(options.names)];
    if (one !== other) world.cut(one, other, 100 + random.int(10 * SECOND));
  },
  'members hear of each other late'(world) {
    const { random, options } = world;
    const way = world.way(random.pick(options.names), random.pick(options.names));
    way.slowest = 1_500;
    world.later(SECOND, 10 * SECOND, () => {
      way.slowest = 20;
    });
  },
  'somebody else writes for long'(world) {
    world.original(world.random.int(30 * SECOND));
  },
};

/** What befalls storage servers: one at a time of them costs nothing. */
export const SERVERS: Readonly<Record<string, Fault>> = {
  'a storage server is lost to a member'(world) {
    const { random, servers, working } = world;
    if (working.length > 0) random.pick(servers).loseTo(random.pick(working).name, 100 + random.int(30 * SECOND));
  },
  'a member has no network when another one is restarted'(world) {
    const [one, other] = world.working;
    if (!one || !other) return;
    for (const server of world.servers) server.loseTo(one.name, 30 * SECOND);
    world.later(8 * SECOND, 20 * SECOND, () => world.stop(other.name, () => world.start(other.name)));
  },
  'a storage server is restarted'(world) {
    world.random.pick(world.servers).restart(100 + world.random.int(20 * SECOND));
  },
  'a storage server answers nothing'(world) {
    const server = world.random.pick(world.servers);
    server.answer = world.random.pick([undefined, 7, 77]);
    world.later(SECOND, 30 * SECOND, () => {
      server.answer = 'success';
    });
  },
  'a storage server keeps an old connection of a member'(world) {
    const { random, servers, working } = world;
    if (working.length > 0) random.pick(servers).goDeaf(random.pick(working), 60 * SECOND);
  },
  'a storage server is slow'(world) {
    const server = world.random.pick(world.servers);
    server.delay = 5 * SECOND;
    world.later(SECOND, 30 * SECOND, () => {
      server.delay = 50;
    });
  },
};

/** What befalls notifiers and the provider. */
export const NOTIFIERS: Readonly<Record<string, Fault>> = {
  'the provider is silent'(world) {
    world.providerSilentUntil = world.clock.monotonic() + world.random.int(8 * SECOND);
  },
  'a notifier is killed'(world) {
    const [notifier, another] = world.notifiers;
    if (!notifier || !another) return;
    world.killNotifier(notifier);
    world.later(SECOND / 2, 5 * SECOND, () => world.startNotifier());
  },
  'a notifier is restarted'(world) {
    const [notifier, another] = world.notifiers;
    if (!notifier || !another) return;
    world.stopNotifier(notifier, () => world.later(SECOND / 2, 5 * SECOND, () => world.startNotifier()));
  },
  'a notifier and a member lose each other'(world) {
    const { random, notifiers, working } = world;
    if (notifiers.length === 0 || working.length === 0) return;
    world.notifiersChanged = true;
    world.cut(random.pick(notifiers).name, random.pick(working).name, 100 + random.int(20 * SECOND));
  },
};
