import assert from 'node:assert/strict';
import { test } from 'node:test';
import { specialBlock } from '../src/special-addresses.ts';

test('public addresses are not special', () => {
  for (const address of [
    '8.8.8.8',
    '168.63.129.15',
    '168.63.129.17',
    '2600:1901:0:38d7::',
    '2a00:1450:4001:80b::200a',
    '2000::',
    '2001:200::',
    '2001:db7:ffff::',
    '2001:db9::1',
    '3ffe:ffff::',
    '3fff:1000::',
    '::ffff:8.8.8.8',
    '::ffff:808:808',
    '64:ff9b::8.8.8.8',
    '64:ff9b::808:808',
  ]) {
    assert.equal(specialBlock(address), undefined, address);
  }
});

test('for IPv6 everything is special except what is routed on the internet', () => {
  for (const address of [
    '::',
    '::1',
    '1fff:ffff::',
    '4000::',
    'fe80::1',
    'fc00::1',
    'fd00:ec2::254',
    'ff02::1',
    'fec0::1',
    '100::1',
    '2001::1',
    '2001:0:53aa:64c:0:7f:8000:1',
    '2001:1ff::',
    '2001:db8::1',
    '2002:7f00:1::',
    '3fff::1',
    '3fff:fff::',
    '::127.0.0.1',
    '::ffff:127.0.0.1',
    '::FFFF:7f00:1',
    '0:0:0:0:0:ffff:a9fe:a9fe',
    '64:ff9b::10.0.0.1',
    '64:ff9b:1::8.8.8.8',
    '64:ff9b::7f00:1',
  ]) {
    assert.ok(specialBlock(address), address);
  }
});

test('for IPv4 addresses that lead into a cloud are special, too', () => {
  for (const address of ['169.254.169.254', '168.63.129.16', '100.100.100.200', '192.0.0.192', '127.0.0.1']) {
    assert.ok(specialBlock(address), address);
  }
});

test('what is not an address is reported separately', () => {
  for (const text of [
    '',
    '1.2.3',
    '1.2.3.256',
    '01.2.3.4',
    '0x7f000001',
    'localhost',
    ':',
    ':::',
    '1::2::3',
    '1:2:3:4:5:6:7',
    '1:2:3:4:5:6:7:8:9',
    '1:2:3:4:5:6:7::8',
    '::12345',
    '::g',
    '::1.2.3',
    '1.2.3.4::',
    'fe80::1%eth0',
  ]) {
    assert.equal(specialBlock(text), null, text);
  }
});
