import type { Outbox } from '../../../../src/hivemind/notifications/outbox/outbox.ts';
import { Acknowledgements, reportedAs } from '../../../../src/notifiers/runtime/acknowledgements.ts';
import type { Delivery, Outcome } from '../../../../src/notifiers/runtime/backend.ts';
import { Copies, type GivenPush, marksOf } from '../../../../src/notifiers/runtime/copies.ts';
import { Sender } from '../../../../src/notifiers/runtime/sender.ts';
import type { Remote } from '../../../../src/oxenmq/remote.ts';
import { decodeSealedPushes } from '../../../../src/session/notifier-protocol.ts';
import type { FakeClock } from '../../../support/fake-clock.ts';
import type { Random } from '../../../support/random.ts';
import { SimulatedProcess } from '../../../support/simulated-process.ts';
import type { Way } from './ways.ts';

export const SERVICE = 'apns';
const PING = 5_000;

/** A hivemind as its notifiers know it. */
export interface Hivemind extends SimulatedProcess {
  readonly name: string;
  readonly outbox: Outbox;
}

export interface NotifierOptions {
  readonly clock: FakeClock;
  readonly random: Random;
  readonly name: string;
  readonly window: number;
  readonly maxAge: number;
  readonly hiveminds: () => Iterable<Hivemind>;
  readonly way: (from: string, to: string) => Way;
  /** Gives a push to the provider. */
  readonly send: (notifier: SimulatedNotifier, push: Delivery, doubt: number) => Promise<Outcome>;
}

/** What it holds of one hivemind's pushes. */
interface MemberLink {
  readonly acknowledgements: Acknowledgements;
  /** The run that it is registered with. */
  registered: Hivemind | undefined;
}

/**
 * A notifier: how it tells copies apart, sends and acknowledges is the real thing, joined as
 * src/notifiers/runtime/notifier.ts joins it.
 */
export class SimulatedNotifier extends SimulatedProcess {
  readonly name: string;
  readonly #options: NotifierOptions;
  readonly #copies: Copies<MemberLink>;
  readonly #sender: Sender<GivenPush<MemberLink>>;
  readonly #links = new Map<string, MemberLink>();
  readonly #doubts = new WeakMap<Delivery, number>();
  #isDraining = false;

  constructor(options: NotifierOptions) {
    super(options.clock);
    this.#options = options;
    this.name = options.name;
    this.#copies = new Copies(this.clock, options.maxAge + 600_000);
    this.#sender = new Sender<GivenPush<MemberLink>>({
      backend: {
        batch: 1,
        validate: () => {
          throw new Error('nobody subscribes here');
        },
        send: (pushes) => Promise.all(pushes.map((push) => options.send(this, push, this.#doubts.get(push) ?? 0))),
      },
      clock: this.clock,
      random: (size) => options.random.bytes(size),
      maxQueue: 100_000,
      maxRetrying: 100_000,
      done: (push, end) => {
        this.#copies.end(push, end);
        for (const { link, id } of push.givers) {
          if (id !== undefined) link.acknowledgements.end(id, reportedAs(end));
        }
      },
    });
    this.clock.setTimeout(() => this.#ping(), 0);
    this.clock.setTimeout(() => {
      this.#ping();
      this.clock.setInterval(() => this.#ping(), PING);
    }, options.random.int(PING));
  }

  /** What it holds. */
  get held(): number {
    return this.#sender.held;
  }

  /** That hivemind and it have lost each other. */
  lose(hivemind: Hivemind): void {
    const link = this.#links.get(hivemind.name);
    this.does(() => {
      if (link) link.registered = undefined;
    });
    hivemind.does(() => hivemind.outbox.gone(this.#remote(hivemind)));
  }

  /** Ends in order: takes nothing new, hands back what it has not sent, and reports. */
  async stop(): Promise<void> {
    this.#isDraining = true;
    for (const { registered } of this.#links.values()) {
      if (registered) {
        this.#options
          .way(this.name, registered.name)
          .carry(registered, () => registered.outbox.services.get(SERVICE)?.drain(this.name));
      }
    }
    await new Promise<void>((resolve) => this.clock.setTimeout(resolve, 500));
    const finished = this.#sender.stop();
    await Promise.race([finished, new Promise<void>((resolve) => this.clock.setTimeout(resolve, 5_000))]);
    for (const { acknowledgements } of this.#links.values()) acknowledgements.flush();
    // What was sent is still on its way to the hiveminds.
    await new Promise<void>((resolve) => this.clock.setTimeout(resolve, 100));
  }

  #ping(): void {
    if (this.#isDraining) return;
    const { hiveminds, way, window } = this.#options;
    for (const hivemind of hiveminds()) {
      way(this.name, hivemind.name).carry(hivemind, () => {
        hivemind.outbox.register(SERVICE, this.#remote(hivemind), window, Buffer.from(this.name));
        way(hivemind.name, this.name).carry(this, () => {
          const link = this.#linkOf(hivemind.name);
          if (link.registered === hivemind) return;
          link.registered = hivemind;
          link.acknowledgements.flush();
        });
      });
    }
  }

  #linkOf(name: string): MemberLink {
    let link = this.#links.get(name);
    if (!link) {
      const made: MemberLink = {
        registered: undefined,
        acknowledgements: new Acknowledgements(this.clock, (report) => {
          const { registered } = made;
          if (!registered || registered.isDead) return false;
          return this.#options
            .way(this.name, name)
            .carry(registered, () =>
              registered.outbox.report(this.#remote(registered), { service: SERVICE, ...report }),
            );
        }),
      };
      link = made;
      this.#links.set(name, link);
    }
    return link;
  }

  /** As that hivemind sees it. */
  #remote(hivemind: Hivemind): Remote {
    return {
      id: this.name,
      send: (_command, part) => {
        if (this.isDead || !(part instanceof Uint8Array)) return false;
        return this.#options.way(hivemind.name, this.name).carry(this, () => this.#take(hivemind.name, part));
      },
      request: () => Promise.reject(new Error('nobody is asked here')),
    };
  }

  #take(name: string, part: Uint8Array): void {
    const link = this.#linkOf(name);
    for (const sealed of decodeSealedPushes(part)) {
      const { id, serviceId, serviceData, expiry, payload, wantsAnswer, urgent } = sealed;
      if (!link.acknowledgements.take(id)) continue;
      const giver = { link, id, wantsAnswer };
      const marks = marksOf(sealed);
      const known = this.#copies.find(marks, giver);
      if (known !== undefined) {
        if (known !== 'joined') link.acknowledgements.end(id, known);
        continue;
      }
      const push = {
        givers: [giver],
        ...marks,
        returnable: true,
        id: serviceId,
        payload,
        data: serviceData,
        expiry: Number(expiry),
        urgent,
      };
      this.#doubts.set(push, marks.doubt);
      this.#copies.add(push);
      this.#sender.add(push);
    }
  }
}
