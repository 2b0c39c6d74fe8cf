import type { Timer } from '../../../../src/clock.ts';
import type { clusterCommands } from '../../../../src/hivemind/cluster/commands.ts';
import type { LinkedMember, Links } from '../../../../src/hivemind/cluster/links.ts';
import type { FakeClock } from '../../../support/fake-clock.ts';
import type { Random } from '../../../support/random.ts';
import type { SimulatedProcess } from '../../../support/simulated-process.ts';

/** A one-way connection between two processes: what it carries is late, keeps its order, and is lost in a cut. */
export class Way {
  readonly #clock: FakeClock;
  readonly #random: Random;
  /** How long (ms) it takes at most. */
  slowest = 20;
  #isCut = false;
  #session = 0;
  #lastAt = 0;

  constructor(clock: FakeClock, random: Random) {
    this.#clock = clock;
    this.#random = random;
  }

  get isCut(): boolean {
    return this.#isCut;
  }

  /** @returns false if it is cut */
  carry(to: SimulatedProcess, what: () => void): boolean {
    if (this.#isCut) return false;
    const session = this.#session;
    const now = this.#clock.monotonic();
    this.#lastAt = Math.max(this.#lastAt, now + 1 + this.#random.int(this.slowest));
    this.#clock.setTimeout(() => {
      if (session === this.#session) to.does(what);
    }, this.#lastAt - now);
    return true;
  }

  cut(): void {
    this.#isCut = true;
    this.#session++;
  }

  mend(): void {
    this.#isCut = false;
  }
}

/** Who has links to others. */
export interface Linked extends SimulatedProcess {
  readonly name: string;
  readonly run: bigint;
  readonly commands: ReturnType<typeof clusterCommands>;
}

interface LinkOptions {
  readonly own: Linked;
  readonly find: (name: string) => Linked | undefined;
  readonly way: (from: string, to: string) => Way;
}

const RETRY = 1_000;
const ANSWERED_WITHIN = 2_000;

/** The links of a member to the others, with the manners of src/hivemind/cluster/links.ts. */
export class SimulatedLinks implements Pick<Links, 'update' | 'send' | 'troubles'> {
  readonly troubles = [];
  readonly #options: LinkOptions;
  #targets: readonly LinkedMember[] = [];
  #greeted = new Set<bigint>();
  readonly #timer: Timer;
  /** Of each request that waits for an answer. */
  readonly #asked = new Set<() => void>();

  constructor(options: LinkOptions) {
    this.#options = options;
    this.#timer = options.own.clock.setInterval(() => this.#greet(), RETRY);
  }

  close(): void {
    this.#timer.cancel();
    this.#targets = [];
    for (const fail of this.#asked) fail();
  }

  update(members: readonly LinkedMember[]): void {
    this.#targets = members;
    this.#greet();
  }

  send(name: string, command: string, part: Buffer): boolean {
    const { own, way } = this.#options;
    const to = this.#reached(name);
    return to !== undefined && way(own.name, name).carry(to, () => call(to, command, part));
  }

  /** Whether the other one has answered in time. */
  async request(name: string, command: string, part: Buffer): Promise<boolean> {
    const { own, way } = this.#options;
    const to = this.#reached(name);
    if (!to) return false;
    const { promise, resolve } = Promise.withResolvers<boolean>();
    const fail = () => resolve(false);
    const timer = own.clock.setTimeout(fail, ANSWERED_WITHIN);
    this.#asked.add(fail);
    const wasSent = way(own.name, name).carry(to, () =>
      call(to, command, part, () => way(name, own.name).carry(own, () => resolve(true))),
    );
    if (!wasSent) fail();
    const isAnswered = await promise;
    timer.cancel();
    this.#asked.delete(fail);
    return isAnswered;
  }

  #reached(name: string): Linked | undefined {
    const target = this.#targets.find((one) => one.name === name);
    const to = this.#options.find(name);
    return target && to && to.run === target.run && this.#greeted.has(to.run) ? to : undefined;
  }

  /** Those that answer are connected from then on, until they are lost. */
  #greet(): void {
    const { own, find, way } = this.#options;
    const isThere = (name: string) => !way(own.name, name).isCut && !way(name, own.name).isCut;
    this.#greeted = new Set(
      this.#targets.filter(({ name, run }) => this.#greeted.has(run) && isThere(name)).map(({ run }) => run),
    );
    for (const { name, run } of this.#targets) {
      const to = find(name);
      if (!to || to.run !== run || this.#greeted.has(run)) continue;
      way(own.name, name).carry(to, () => way(name, own.name).carry(own, () => this.#greeted.add(run)));
    }
  }
}

function call({ commands }: Linked, command: string, part: Buffer, reply: () => void = () => {}): void {
  const [category = '', name = ''] = command.split('.');
  const remote = { id: '', send: () => false, request: () => Promise.reject(new Error('nobody is asked here')) };
  void commands[category]?.commands[name]?.handler({ remote, parts: [part], reply });
}
