import assert from 'node:assert/strict';
import { test } from 'node:test';
import { clusterCommands } from '../../../src/hivemind/cluster/commands.ts';
import { slotBits } from '../../../src/hivemind/cluster/roster.ts';
import type { Incoming } from '../../../src/oxenmq/remote.ts';
import {
  decodeHello,
  encodeChanged,
  encodeHeard,
  encodeHello,
  encodeLeaving,
  encodeProgress,
} from '../../../src/session/cluster-protocol.ts';

const b = { name: 'b', run: 7n };
const MESSAGES = {
  hello: encodeHello({ ...b, version: '2.0.0' }),
  progress: encodeProgress({ ...b, handed: [], ended: ['12345678'], none: [] }),
  changed: encodeChanged({ ...b, slots: slotBits([3]) }),
  leaving: encodeLeaving(b),
  heard: encodeHeard({ ...b, servers: [{ key: Buffer.alloc(32, 1), slot: 9 }] }),
};

/** The commands of member a, what they told it, and the means to call one. */
function world() {
  const told: unknown[][] = [];
  const log: string[] = [];
  const own = { name: 'a', run: 1n, version: '2.0.0' };
  const { cluster } = clusterCommands({
    own,
    onProgress: ({ ended }) => told.push(['progress', ended]),
    onChanged: ({ slots }) => told.push(['changed', slots]),
    onLeaving: (sender) => told.push(['leaving', sender]),
    onHeard: ({ servers }) => told.push(['heard', servers]),
    log: { warn: (text) => log.push(text) },
  });
  /** @returns what is answered; undefined if nothing is */
  const call = (name: keyof typeof MESSAGES, ...parts: Buffer[]): Buffer[] | undefined => {
    let answer: Buffer[] | undefined;
    const reply = (...given: Buffer[]) => (answer = given);
    cluster!.commands[name]!.handler({ parts, reply } as unknown as Incoming);
    return answer;
  };
  return { own, cluster: cluster!, told, log, call };
}

test('only who may register notifiers may call them, and only a greeting and a progress are answered', () => {
  const { own, cluster, told, log, call } = world();
  assert.equal(cluster.access, 'admin');
  const kinds = Object.entries(cluster.commands).map(([name, { kind }]) => [name, kind]);
  assert.deepEqual(kinds, [
    ['hello', 'request'],
    ['progress', 'request'],
    ['changed', 'command'],
    ['leaving', 'command'],
    ['heard', 'command'],
  ]);
  assert.deepEqual(call('hello', MESSAGES.hello)?.map(decodeHello), [own]);
  assert.deepEqual(call('progress', MESSAGES.progress), []);
  for (const name of ['changed', 'leaving', 'heard'] as const) assert.equal(call(name, MESSAGES[name]), undefined);
  assert.deepEqual(told, [
    ['progress', ['12345678']],
    ['changed', slotBits([3])],
    ['leaving', b],
    ['heard', [{ key: Buffer.alloc(32, 1), slot: 9 }]],
  ]);
  assert.deepEqual(log, []);
});

test('what cannot be read is ignored and logged, and a greeting like that is not answered', () => {
  const { told, log, call } = world();
  for (const name of ['hello', 'progress', 'changed', 'leaving', 'heard'] as const) {
    for (const parts of [[], [Buffer.from('le')]]) {
      const answer = call(name, ...parts);
      assert.deepEqual(answer, name === 'progress' ? [] : undefined, name);
      assert.match(log.pop() ?? '', /^ignoring a message from another hivemind: Invalid/, name);
    }
  }
  assert.deepEqual([told, log], [[], []]);
});
