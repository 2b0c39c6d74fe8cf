import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { JsonError } from '../../src/codec/json.ts';
import { parseServiceNodes, SERVICE_NODES_REQUEST } from '../../src/session/service-nodes.ts';

const key = 'ab'.repeat(32);
const node = `{"public_ip":"203.0.113.7","pubkey_x25519":"${key}","storage_lmq_port":22020,"swarm_id":16212958658533785599}`;

function reply(nodes: string, status = '200'): Buffer[] {
  const body = `{"block_hash":"${'8f'.repeat(32)}","height":1758000,"service_node_states":${nodes},"status":"OK"}`;
  return [Buffer.from(status), Buffer.from(body)];
}

describe('parseServiceNodes', () => {
  it('reads nodes with their swarm ids exact', () => {
    const { nodes, ...rest } = parseServiceNodes(reply(`[${node},${node.replace('16212958658533785599', '7')}]`));
    const swarms = [16212958658533785599n, 7n];
    assert.deepEqual(rest, { height: 1758000, blockHash: '8f'.repeat(32), swarms, skipped: 0 });
    const common = { publicKey: Buffer.from(key, 'hex'), host: '203.0.113.7', port: 22020 };
    assert.deepEqual(nodes, [
      { ...common, swarm: 16212958658533785599n },
      { ...common, swarm: 7n },
    ]);
  });

  it('counts swarm 0 as any other', () => {
    const { nodes, swarms } = parseServiceNodes(reply(`[${node.replace('16212958658533785599', '0')}]`));
    assert.deepEqual([nodes[0]?.swarm, swarms], [0n, [0n]]);
  });

  it('asks for the fields that it reads', () => {
    const { active_only, fields } = JSON.parse(SERVICE_NODES_REQUEST);
    assert.equal(active_only, true);
    const read = ['block_hash', 'height', 'public_ip', 'pubkey_x25519', 'storage_lmq_port', 'swarm_id'];
    assert.deepEqual(fields, Object.fromEntries(read.map((name) => [name, true])));
  });

  const without = (name: string) => JSON.stringify({ ...JSON.parse(node), swarm_id: 7, [name]: undefined });
  const replaced = (name: string, value: unknown) =>
    JSON.stringify({ ...JSON.parse(node), swarm_id: 7, [name]: value });
  const unreachable: [string, string][] = [
    ['without an address', without('public_ip')],
    ['at 0.0.0.0', replaced('public_ip', '0.0.0.0')],
    ['at no address', replaced('public_ip', '')],
    ['at an address that is a number', replaced('public_ip', 7)],
    ['at an address with control characters', replaced('public_ip', '1.2.3.4\u001b[2J')],
    ['at an endless address', replaced('public_ip', '1'.repeat(10_000))],
    ['without a port', without('storage_lmq_port')],
    ['with port 0', replaced('storage_lmq_port', 0)],
    ['with port 65536', replaced('storage_lmq_port', 65536)],
    ['with a fractional port', replaced('storage_lmq_port', 1.5)],
    ['with a port in quotes', replaced('storage_lmq_port', '22020')],
  ];
  for (const [name, text] of unreachable) {
    it(`treats a node ${name} as one without an address, and its swarm counts`, () => {
      const { nodes, swarms, skipped } = parseServiceNodes(reply(`[${text},${node}]`));
      assert.deepEqual(nodes[0], { publicKey: Buffer.from(key, 'hex'), host: '', port: 0, swarm: 7n });
      assert.deepEqual([nodes.length, swarms, skipped], [2, [7n, 16212958658533785599n], 0]);
    });
  }

  it('reads any port from 1 to 65535, and addresses of 45 characters', () => {
    for (const port of [1, 65535]) {
      assert.equal(parseServiceNodes(reply(`[${replaced('storage_lmq_port', port)}]`)).nodes[0]?.port, port);
    }
    for (const [length, port] of [
      [45, 22020],
      [46, 0],
    ] as const) {
      assert.equal(parseServiceNodes(reply(`[${replaced('public_ip', '1'.repeat(length))}]`)).nodes[0]?.port, port);
    }
  });

  const nameless: [string, string][] = [
    ['without a key', without('pubkey_x25519')],
    ['with an empty key', replaced('pubkey_x25519', '')],
    ['with a short key', replaced('pubkey_x25519', 'ab')],
  ];
  for (const [name, text] of nameless) {
    it(`skips a node ${name}, but not its swarm`, () => {
      const { nodes, swarms, skipped } = parseServiceNodes(reply(`[${text},${node}]`));
      assert.deepEqual([nodes.length, swarms, skipped], [1, [7n, 16212958658533785599n], 1]);
    });
  }

  const unusable: [string, string][] = [
    ['without a swarm', without('swarm_id')],
    ['with a swarm in quotes', replaced('swarm_id', '7')],
    ['with a negative swarm', replaced('swarm_id', -1)],
    ['in no swarm', node.replace('16212958658533785599', '18446744073709551615')],
    ['that is null', 'null'],
    ['that is a number', '5'],
  ];
  for (const [name, text] of unusable) {
    it(`skips a node ${name}`, () => {
      const { nodes, swarms, skipped } = parseServiceNodes(reply(`[${text},${node}]`));
      assert.deepEqual([nodes.length, swarms.length, skipped], [1, 1, 1]);
    });
  }

  it('refuses other replies with a sentence', () => {
    assert.throws(() => parseServiceNodes([]), /0 parts instead of 2/);
    assert.throws(() => parseServiceNodes([Buffer.from('TIMEOUT')]), /1 parts instead of 2/);
    assert.throws(() => parseServiceNodes([...reply('[]'), Buffer.alloc(0)]), /3 parts instead of 2/);
    assert.throws(
      () => parseServiceNodes([Buffer.from('400'), Buffer.from('Unable to parse request: x')]),
      /answered 400: Unable to parse/,
    );
    assert.throws(() => parseServiceNodes([Buffer.from('4'.repeat(30)), Buffer.from('x'.repeat(300))]), {
      message: `oxend answered ${'4'.repeat(20)}: ${'x'.repeat(200)}`,
    });
    assert.throws(() => parseServiceNodes([Buffer.from('200'), Buffer.from('nope')]), JsonError);
    for (const body of ['null', '[]', '{}', '5', '{"service_node_states":{}}']) {
      assert.throws(() => parseServiceNodes([Buffer.from('200'), Buffer.from(body)]), /without a list/);
    }
    for (const height of ['', '"height":"1",', '"height":1.5,', '"height":null,']) {
      const body = `{${height}"service_node_states":[]}`;
      assert.throws(() => parseServiceNodes([Buffer.from('200'), Buffer.from(body)]), /without a height/);
    }
    assert.throws(
      () => parseServiceNodes([Buffer.from('200'), Buffer.from('{"height":1,"service_node_states":[]}')]),
      /without a block hash/,
    );
  });
});
