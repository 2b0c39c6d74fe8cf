import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { MAX_SERVICE_ID, MIN_SERVICE_ID } from '../../src/hivemind/devices/device.ts';
import { MAX_DEVICES, MAX_SUBACCOUNT_DEVICES } from '../../src/hivemind/devices/devices.ts';
import { PUSHED } from '../../src/hivemind/notifications/message-limits.ts';
import { FREE_ELEMENTS, MAX_VALUES, MIN_ELEMENT_BYTES } from '../../src/hivemind/subscriptions/subscriptions.ts';
import { MAX_ONION_SIZE } from '../../src/session/onion.ts';
import { MAX_BODY } from '../../src/session/payload.ts';
import { CLOCK_TOLERANCE, MAX_NAMESPACES, SIGNATURE_LIFETIME } from '../../src/session/subscription.ts';
import { WEB } from '../../src/settings/web.ts';

const PAGE = readFileSync(join(import.meta.dirname, '../../DOCUMENTATION.md'), 'utf8');
const CLIENTS = PAGE.slice(0, PAGE.indexOf('\n## Notifiers\n'));
const LIMITS = /\n## Limits\n(.*?)\n## /s.exec(CLIENTS)?.[1] ?? '';
const written = (value: number) => value.toLocaleString('en');

/** Each limit of the table, by the code's own constants. */
const ROWS: readonly string[] = [
  `| body of \`/subscribe\` and \`/unsubscribe\` | ${written(Number(WEB.settings.bodyLimit.default))} bytes |`,
  `up to ${written(MAX_ONION_SIZE)} are received`,
  `| ${FREE_ELEMENTS}, and one more for each ${MIN_ELEMENT_BYTES} bytes |`,
  `| values in one request, keys included | ${written(MAX_VALUES)} |`,
  `| namespaces of one subscription | ${MAX_NAMESPACES} |`,
  `| devices of one account | ${written(MAX_DEVICES)}, and ${MAX_SUBACCOUNT_DEVICES} of one subaccount`,
  `less than ${CLOCK_TOLERANCE / 3600} h ahead; unsubscribe: ${CLOCK_TOLERANCE / 3600} h off either way`,
  `| ${MIN_SERVICE_ID} to ${MAX_SERVICE_ID} bytes;`,
  `| message sent along | ${MAX_BODY} bytes |`,
  `| pushes to one device | ${written(PUSHED.burst)} at once, then ${1000 / PUSHED.every} a second |`,
];

test('each documented limit is the one in the code', () => {
  for (const row of ROWS) assert.ok(LIMITS.includes(row), `the limits lack ${row}`);
  assert.ok(PAGE.includes(`A subscription lasts **${SIGNATURE_LIFETIME / 86_400} days from \`sig_ts\`**`));
});

test('each limit on clients is documented once', () => {
  for (const [what, times] of [
    [/\b2[,.]?500\b/g, 1],
    [/\b100,000\b/g, 1],
    [/\b14 days\b/g, 1],
    [/\b24 h(ours)?\b/g, 2],
    [/\b10,485,760\b/g, 1],
    [/\b1,?000 bytes\b/g, 1],
  ] as const) {
    const found = [...CLIENTS.matchAll(what)];
    assert.equal(found.length, times, `${what}: ${found.map(({ index }) => CLIENTS.slice(index - 40, index + 30))}`);
  }
});
