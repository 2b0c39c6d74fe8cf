import assert from 'node:assert/strict';
import { type AddressInfo, connect, createServer, isIP, type LookupFunction } from 'node:net';
import { test } from 'node:test';
import { type NameServers, publicLookup } from '../../../src/notifiers/webpush/addresses.ts';
import { once } from '../../support/once.ts';

/** Name servers that say something else each time, until they have nothing more to say. */
function scripted(...answers: { v4?: string[]; v6?: string[] }[]) {
  const asked = { v4: 0, v6: 0 };
  const none = () => Object.assign(new Error('no data'), { code: 'ENODATA' });
  const answer = async (kind: 'v4' | 'v6') => {
    const addresses = answers[asked[kind]++]?.[kind];
    if (!addresses) throw none();
    return addresses;
  };
  const servers: NameServers = { resolve4: () => answer('v4'), resolve6: () => answer('v6') };
  return { servers, asked };
}

/** The families are told, too: Node tries both at a time. */
function checkedFamily({ address, family }: { address: string; family: number }): string {
  assert.equal(family, isIP(address));
  return address;
}

function look(lookup: LookupFunction, host: string): Promise<string[]> {
  return new Promise((resolve, reject) => {
    lookup(host, { all: true }, (error, addresses) => {
      if (error) reject(error);
      else resolve((addresses as { address: string; family: number }[]).map(checkedFamily));
    });
  });
}

test('addresses that are not public are left out, and the rest are connected to', async () => {
  const { servers } = scripted({ v4: ['127.0.0.1', '8.8.8.8', '10.0.0.1'], v6: ['::1', '2a00:1450::1'] });
  const lookup = publicLookup(servers, []);
  assert.deepEqual(await look(lookup, 'mixed.example'), ['8.8.8.8', '2a00:1450::1']);
});

test('a caller that wants one address gets one, with its family', async () => {
  const { servers } = scripted({ v4: ['10.0.0.1', '8.8.8.8'], v6: ['2a00:1450::1'] }, { v6: ['2a00:1450::1'] });
  const lookup = publicLookup(servers, []);
  const one = () =>
    new Promise((resolve) => lookup('x.example', {}, (error, address, family) => resolve([error, address, family])));
  assert.deepEqual(await one(), [null, '8.8.8.8', 4]);
  assert.deepEqual(await one(), [null, '2a00:1450::1', 6]);
});

test('a name with addresses of only one family is found', async () => {
  const { servers } = scripted({ v6: ['2a00:1450::1'] }, { v4: ['8.8.8.8'] });
  const lookup = publicLookup(servers, []);
  assert.deepEqual(await look(lookup, 'v6.example'), ['2a00:1450::1']);
  assert.deepEqual(await look(lookup, 'v4.example'), ['8.8.8.8']);
  await assert.rejects(look(lookup, 'none.example'), { code: 'ENODATA' });
});

test('a name whose address changes after the check is refused when it is looked up again', async () => {
  const { servers, asked } = scripted({ v4: ['8.8.8.8'] }, { v4: ['127.0.0.1'] });
  const lookup = publicLookup(servers, []);
  assert.deepEqual(await look(lookup, 'rebind.example'), ['8.8.8.8']);
  await assert.rejects(look(lookup, 'rebind.example'), { code: 'ENOTPUBLIC' });
  assert.equal(asked.v4, 2);
});

test('a connection goes to an address that was checked, and looks it up once', async (t) => {
  const server = createServer((socket) => socket.end());
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => server.close());
  const { port } = server.address() as AddressInfo;
  // Where 127.0.0.1 stands for what was found to be public: what a second question would get is nobody's address.
  const answers = ['127.0.0.1', '127.0.0.2'];
  let questions = 0;
  const lookup: LookupFunction = (_host, _options, callback) => {
    callback(null, [{ address: answers[questions++]!, family: 4 }]);
  };
  const socket = connect({ host: 'rebind.example', port, lookup });
  t.after(() => socket.destroy());
  await once(socket, 'connect');
  assert.equal(socket.remoteAddress, '127.0.0.1');
  assert.equal(questions, 1);
});

test("the operator's own hosts are found as the system finds them", async () => {
  const { servers, asked } = scripted();
  assert.ok((await look(publicLookup(servers, ['localhost']), 'localhost')).includes('127.0.0.1'));
  assert.deepEqual(asked, { v4: 0, v6: 0 });
});
