import { stringifySorted } from '../codec/json.ts';
import { CliError, type Command, print, UsageError } from './command.ts';
import { TO_HIVEMIND, withAdmin } from './hivemind.ts';

/** How long to wait, ms: the hivemind gives the notifier 15 s to check the token, and the provider 30 s to answer. */
const PATIENCE = 50_000;

export const command: Command = {
  summary: "Sends one real push through the running server, and shows the provider's answer",
  words: ['SERVICE', '[TOKEN]'],
  help: [
    'TOKEN is the device token that the app gave to the server, for example from its debug log. The push is',
    'sealed with a key that nobody has, so the phone shows its generic notification. Nothing is stored.',
    'Exit code 0 when the provider accepted it, else 1.',
  ].join('\n'),
  options: {
    info: { type: 'string', value: 'JSON', help: 'the whole service_info, for a service that takes more than a token' },
    ...TO_HIVEMIND,
  },
  async run(given) {
    const [service = '', token] = given.words;
    const request = [service, stringifySorted(serviceInfo(token, given.text('info')))];
    const answer = (await withAdmin(given, (admin) => admin.ask('admin.test_push', request, PATIENCE))) as {
      ok: boolean;
      answer: string;
    };
    if (!answer.ok) throw new CliError(`not accepted: ${answer.answer}`);
    print(answer.answer);
    return 0;
  },
};

function serviceInfo(token: string | undefined, json: string | undefined): unknown {
  if ((token === undefined) === (json === undefined))
    throw new UsageError('test-push needs a TOKEN or --info, one of them');
  if (json === undefined) return { token };
  try {
    return JSON.parse(json);
  } catch (error) {
    throw new UsageError(`--info is not JSON: ${(error as Error).message}`);
  }
}
