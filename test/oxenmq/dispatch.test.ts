import assert from 'node:assert/strict';
import { test } from 'node:test';
import { newCounters } from '../../src/oxenmq/counters.ts';
import { Dispatch } from '../../src/oxenmq/dispatch.ts';
import type { Access, Commands } from '../../src/oxenmq/remote.ts';

const RISING: readonly Access[] = ['none', 'basic', 'admin'];

test('a call is allowed where the socket grants at least what it needs; what is not, is answered by a refusal', () => {
  const commands: Record<string, Commands[string]> = {};
  for (const access of RISING) {
    const entry = (kind: 'command' | 'request') => ({ kind, handler: () => assert.fail() });
    commands[access] = { access, commands: { say: entry('command'), ask: entry('request') } };
  }
  for (const [granted, access] of RISING.entries()) {
    const dispatch = new Dispatch(commands, access, newCounters(), () => {});
    for (const [needed, category] of RISING.entries()) {
      assert.equal(dispatch.answers(`${category}.say`), granted < needed, `${category} on ${access}`);
      assert.equal(dispatch.answers(`${category}.ask`), true);
    }
    assert.equal(dispatch.answers('no.such'), true);
  }
});
