import http from 'node:http';
import { systemClock } from '../src/clock.ts';
import { Listener } from '../src/oxenmq/listener.ts';

/**
 * Answers push.subscribe and onion requests at once and looks at none of them: what benchmarks' clients can do at most.
 * It takes push.copy, too, to which there is no answer.
 * Its arguments are an address for OxenMQ and the path of a Unix socket for HTTP.
 */
const [listen = '', httpListen = ''] = process.argv.slice(2);
const ANSWER = '{"added":true,"message":"Subscription successful","success":true}';
/** About as long as an encrypted answer. */
const ENCRYPTED = Buffer.alloc(190);

const listener = new Listener({
  clock: systemClock,
  address: listen,
  access: 'none',
  commands: {
    push: {
      access: 'none',
      commands: {
        subscribe: { kind: 'request', handler: (message) => message.reply(ANSWER) },
        copy: { kind: 'command', handler: () => {} },
      },
    },
  },
});
await listener.bind();
const server = http.createServer((request, response) => {
  request.resume();
  request.on('end', () => response.end(ENCRYPTED));
});
server.listen(httpListen, () => process.send?.('listening'));
