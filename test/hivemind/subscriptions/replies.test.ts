import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Clock, systemClock } from '../../../src/clock.ts';
import type { Commands, Incoming, Part } from '../../../src/oxenmq/remote.ts';
import { startTestHivemind } from '../../support/hivemind.ts';
import { createSkewedDatabase } from '../../support/skewed-database.ts';
import { until } from '../../support/until.ts';
import { vectors } from '../../support/vectors.ts';

interface ReplyVectors {
  now: number;
  cases: {
    cmd: string;
    name: string;
    request: string | null;
    reply: string[];
    validate_requests_seen?: number | null;
  }[];
}

const file = vectors<ReplyVectors>('hivemind-replies.json');

/**
 * Where the original's text is its JSON library's, or does not say which field is wrong, ours is code 1 and a sentence
 * that names the field.
 */
const OURS: Record<string, string> = {
  'empty object': "'pubkey'",
  'array of empty object': "'pubkey'",
  'array element not an object': 'object',
  'array with null': 'object',
  'nested array': 'object',
  'array ok + error': "'pubkey'",
  'missing pubkey': "'pubkey'",
  'missing session_ed25519': "'session_ed25519'",
  'pubkey number': "'pubkey'",
  'missing namespaces': "'namespaces'",
  'namespaces strings': "'namespaces'",
  'namespaces not an array': "'namespaces'",
  'missing data': "'data'",
  'data 1': "'data'",
  'data null': "'data'",
  'missing sig_ts': "'sig_ts'",
  'sig_ts string': "'sig_ts'",
  'missing signature': "'signature'",
  'missing enc_key': "'enc_key'",
  'missing service': "'service'",
  'service number': "'service'",
  'missing service_info': "'service_info'",
  'subaccount and sig null': "'subaccount'",
  'pubkey too short': "'pubkey'",
  'signature wrong size': "'signature'",
  'enc_key bad': "'enc_key'",
  array: "'pubkey'",
};

const UNCLEAR = /json\.exception|Invalid value: expected bytes, hex, or base64/;

/** The notifiers of the vectors: `{token: X}` is the device X, `{reply: […]}` is answered with just that. */
function vectorNotifier(seen: { count: number }): Commands {
  const validate = (message: Incoming) => {
    seen.count++;
    const info = JSON.parse(message.parts[1]?.toString() ?? '{}') as { token?: string; reply?: (string | number[])[] };
    const parts = info.reply ?? ['0', info.token ?? ''];
    // What is no text stands in the file as a list of bytes.
    message.reply(...parts.map((part) => (typeof part === 'string' ? part : Buffer.from(part))));
  };
  return { notifier: { access: 'none', commands: { validate: { kind: 'request', handler: validate } } } };
}

test("requests are answered as the original's were", async (t) => {
  const start = Date.now();
  const clock: Clock = { ...systemClock, now: () => file.now * 1000 + 5_000 + (Date.now() - start) };
  const database = await createSkewedDatabase(t);
  await database.skew(clock.now() - start);
  const hivemind = await startTestHivemind(t, { clock, database: database.url });
  const seen = { count: 0 };
  const notifier = hivemind.connect(vectorNotifier(seen));
  notifier.send('admin.register_service', 'cap');
  notifier.send('admin.register_service', 'cap2');
  const client = hivemind.connect();
  await waitForServices(client, ['cap', 'cap2']);

  for (const { cmd, name, request, reply, validate_requests_seen } of file.cases) {
    await t.test(`${cmd}: ${name}`, async () => {
      seen.count = 0;
      const body = name.startsWith('service data') ? withServiceData(Number(name.split(' ')[2])) : request;
      const parts = body === null ? [] : name.startsWith('two data parts') ? [body, 'ignored'] : [body];
      const [answer] = await client.request(cmd, parts);
      const got = answer?.toString() ?? '';
      if (name in OURS) {
        const text = reply[0] ?? '';
        assert.match(text, UNCLEAR, 'only replies with one of these texts may differ');
        assertOurs(JSON.parse(got), JSON.parse(text), OURS[name] ?? '');
      } else {
        assert.equal(got, reply[0]);
      }
      // The original asks the notifier twice for each subscription; once is enough.
      if (typeof validate_requests_seen === 'number') {
        const once = cmd === 'push.subscribe' ? validate_requests_seen / 2 : validate_requests_seen;
        assert.equal(seen.count, once, 'requests that the notifier saw');
      }
    });
  }
});

/** The requests with much service data are left out of the file, being that long. */
function withServiceData(size: number): string {
  const request = JSON.parse(file.cases[0]?.request ?? '{}') as Record<string, unknown>;
  request.service_info = { reply: ['0', `service-data-${size}`.padEnd(40, 'x'), 'd'.repeat(size)] };
  return JSON.stringify(request);
}

/** Compares element by element: the same, but that those errors are code 1 with a sentence that names the field. */
function assertOurs(ours: unknown, theirs: unknown, field: string): void {
  if (Array.isArray(theirs)) {
    assert.ok(Array.isArray(ours));
    assert.equal(ours.length, theirs.length);
    for (const [index, element] of theirs.entries()) assertOurs(ours[index], element, field);
    return;
  }
  const { message } = theirs as { message?: string };
  if (!UNCLEAR.test(message ?? '')) {
    assert.deepEqual(ours, theirs);
    return;
  }
  const error = ours as { error: number; message: string };
  assert.equal(error.error, 1);
  assert.ok(error.message.includes(field.replaceAll("'", '')), `${error.message} should name ${field}`);
}

async function waitForServices(
  client: { request(command: string, parts: Part[]): Promise<Buffer[]> },
  names: string[],
) {
  await until(async () => {
    const [body] = await client.request('admin.get_services', []);
    const services = JSON.parse(body?.toString() ?? '[]') as { service: string; notifiers: number }[];
    return names.every((name) => services.some(({ service, notifiers }) => service === name && notifiers > 0));
  });
}
