import assert from 'node:assert/strict';
import { test } from 'node:test';
import { addressTrouble } from '../../src/session/node-address.ts';

/** The first and the last of each block, and its neighbours where those are public. */
const PRIVATE = [
  ['10.0.0.0', '10.255.255.255', '9.255.255.255', '11.0.0.0'],
  ['100.64.0.0', '100.127.255.255', '100.63.255.255', '100.128.0.0'],
  ['127.0.0.0', '127.255.255.255', '126.255.255.255', '128.0.0.0'],
  ['169.254.0.0', '169.254.255.255', '169.253.255.255', '169.255.0.0'],
  ['172.16.0.0', '172.31.255.255', '172.15.255.255', '172.32.0.0'],
  ['192.0.0.0', '192.0.0.255', '191.255.255.255', '192.0.1.0'],
  ['192.0.2.0', '192.0.2.255', '192.0.1.255', '192.0.3.0'],
  ['192.88.99.0', '192.88.99.255', '192.88.98.255', '192.88.100.0'],
  ['192.168.0.0', '192.168.255.255', '192.167.255.255', '192.169.0.0'],
  ['198.18.0.0', '198.19.255.255', '198.17.255.255', '198.20.0.0'],
  ['198.51.100.0', '198.51.100.255', '198.51.99.255', '198.51.101.0'],
  ['203.0.113.0', '203.0.113.255', '203.0.112.255', '203.0.114.0'],
];
const NEVER = ['0.0.0.0', '0.1.2.3', '0.255.255.255', '224.0.0.0', '239.255.255.255', '240.0.0.0', '255.255.255.254'];
NEVER.push('255.255.255.255');

test('addresses of private networks and of this machine are refused, unless they are allowed', () => {
  for (const [first, last, ...neighbours] of PRIVATE) {
    for (const host of [first!, last!]) {
      assert.match(addressTrouble(host, false) ?? 'none', /^the address is .*, and allow_private_nodes is no$/, host);
      assert.equal(addressTrouble(host, true), undefined, host);
    }
    for (const host of neighbours) assert.equal(addressTrouble(host, false), undefined, host);
  }
});

test('what cannot be the address of a single host is always refused', () => {
  for (const host of NEVER) {
    for (const allowed of [false, true])
      assert.match(addressTrouble(host, allowed) ?? 'none', /^the address is /, host);
  }
  for (const host of ['1.0.0.0', '223.255.255.255']) assert.equal(addressTrouble(host, false), undefined, host);
});

test('what is not four decimal numbers is not an address, and leading zeros are not allowed', () => {
  const others = [
    '',
    '1.2.3',
    '1.2.3.4.5',
    '1.2.3.256',
    '010.0.0.1',
    '8.8.8.08',
    '00.1.2.3',
    '8.8.8.',
    '.8.8.8.8',
    '8..8.8',
  ];
  others.push(
    '0x8.8.8.8',
    '8.8.8.8 ',
    '-8.8.8.8',
    '8.8.8.8:1',
    'localhost',
    '::1',
    '[::ffff:8.8.8.8]',
    '134744072',
    '8.8.8.1e1',
  );
  for (const host of others) {
    for (const allowed of [false, true]) {
      assert.equal(addressTrouble(host, allowed), 'the address is no IPv4 address', host);
    }
  }
});
