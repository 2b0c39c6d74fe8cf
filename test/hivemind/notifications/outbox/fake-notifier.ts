import assert from 'node:assert/strict';
import type { Remote } from '../../../../src/oxenmq/remote.ts';
import { decodeSealedPushes, type SealedPush } from '../../../../src/session/notifier-protocol.ts';
import { decodePush } from '../../../../src/session/push.ts';

/** A notifier as the hivemind sees it: it takes what it is sent, unless told to be stuffed. */
export class FakeNotifier implements Remote {
  readonly id: string;
  readonly sealed: SealedPush[] = [];
  readonly dicts: ReturnType<typeof decodePush>[] = [];
  messages = 0;
  stuffed = false;

  constructor(id: string) {
    this.id = id;
  }

  send(command: string, ...parts: (string | Uint8Array)[]): boolean {
    if (this.stuffed) return false;
    this.messages++;
    const body = Buffer.from(parts[0] as Uint8Array);
    if (command === 'notifier.sealed') this.sealed.push(...decodeSealedPushes(body));
    else if (command === 'notifier.push') this.dicts.push(decodePush(body));
    else assert.fail(`unexpected command ${command}`);
    return true;
  }

  request(): Promise<Buffer[]> {
    return Promise.reject(new Error('not asked for here'));
  }

  get ids(): number[] {
    return this.sealed.map(({ id }) => id);
  }
}
