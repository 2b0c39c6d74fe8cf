import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { BencodeError } from '../../src/codec/bencode.ts';
import {
  decodeMembers,
  encodeMembers,
  inOneSpelling,
  type Member,
  type MemberLink,
  planLinks,
} from '../../src/session/members.ts';
import { fuzz } from '../support/fuzz.ts';

const A: Member = { name: 'a', address: 'tcp://10.0.0.1:22029' };
const B: Member = { name: 'b', address: 'tcp://10.0.0.2:22029' };
const C: Member = { name: 'c', address: 'tcp://10.0.0.3:22029' };
const LOCAL = 'ipc:///run/spns/hivemind.sock';
const OTHER = 'ipc:///run/spns/other.sock';

function link(address: string, state: MemberLink['state'], more: Partial<MemberLink> = {}): MemberLink {
  return { address, state, isGiven: false, name: undefined, members: [], ...more };
}

/** The plan in names and addresses. */
function planned(links: readonly MemberLink[], given: readonly string[] = []) {
  const { open, close, missing } = planLinks(links, given);
  return { open, close: close.map(({ address }) => address), missing: missing.map(({ name }) => name) };
}

describe('the list of hiveminds', () => {
  const list = { own: 'a', members: [A, { name: 'hive-mind_2', address: 'ipc:///run/ü.sock' }] };

  it('is written with the agreed keys, and read as it was written', () => {
    assert.equal(
      encodeMembers(list).toString(),
      'd1:mld1:a20:tcp://10.0.0.1:220291:n1:aed1:a18:ipc:///run/ü.sock1:n11:hive-mind_2ee1:n1:ae',
    );
    assert.deepEqual(decodeMembers(encodeMembers(list)), list);
    assert.deepEqual(decodeMembers(encodeMembers({ own: 'a', members: [] })), { own: 'a', members: [] });
  });

  it('is refused when it is too long, or has names and addresses that nobody could have', () => {
    const many = (length: number) => ({ own: 'a', members: Array.from({ length }, () => A) });
    assert.equal(decodeMembers(encodeMembers(many(64))).members.length, 64);
    for (const wrong of [
      many(65),
      { own: '', members: [] },
      { own: 'A', members: [] },
      { own: 'a\n', members: [] },
      { own: 'a'.repeat(65), members: [] },
      { own: 'a', members: [{ ...A, name: 'a b' }] },
      { own: 'a', members: [{ ...A, address: '' }] },
      { own: 'a', members: [{ ...A, address: 'x'.repeat(513) }] },
    ]) {
      assert.throws(() => decodeMembers(encodeMembers(wrong)), BencodeError);
    }
    for (const text of ['de', 'd1:ml1:ae1:n1:ae', 'd1:mi1e1:n1:ae', 'd1:mlde1:n1:ae', 'd1:mle1:ni1ee']) {
      assert.throws(() => decodeMembers(Buffer.from(text)), BencodeError, text);
    }
  });

  it('throws nothing but BencodeError, however it is damaged', () => {
    const intact = encodeMembers(list);
    fuzz(3_000, (noise) => {
      try {
        decodeMembers(noise.damage(intact));
      } catch (error) {
        assert.ok(error instanceof BencodeError, String(error));
      }
    });
  });
});

describe('which hiveminds to connect to', () => {
  it('are only those in the settings while nobody has announced others', () => {
    assert.deepEqual(planned([], [LOCAL, OTHER]), { open: [LOCAL, OTHER], close: [], missing: [] });
    const alone = [link(LOCAL, 'up', { isGiven: true })];
    assert.deepEqual(planned(alone, [LOCAL]), { open: [], close: [], missing: [] });
  });

  it('include every member that one of them announces, and the one in the settings is not connected twice', () => {
    const local = link(LOCAL, 'up', { isGiven: true, name: 'a', members: [A, B] });
    assert.deepEqual(planned([local], [LOCAL]), { open: [B.address], close: [], missing: ['b'] });
    const both = [local, link(B.address, 'up', { name: 'b', members: [A, B] })];
    assert.deepEqual(planned(both, [LOCAL]), { open: [], close: [], missing: [] });
  });

  it('wait for those in the settings to say who they are, but not for one that fails', () => {
    const local = link(LOCAL, 'up', { isGiven: true, name: 'a', members: [A, B] });
    const other = { isGiven: true };
    assert.deepEqual(planned([local, link(OTHER, 'new', other)], [LOCAL, OTHER]).open, []);
    assert.deepEqual(planned([local, link(OTHER, 'failed', other)], [LOCAL, OTHER]).open, [B.address]);
    // One that has just broken may be back in a moment.
    const broken = link(OTHER, 'down', { ...other, name: 'b', members: [A, B] });
    assert.deepEqual(planned([local, broken], [LOCAL, OTHER]), { open: [], close: [], missing: ['b'] });
    assert.deepEqual(planned([local, { ...broken, state: 'failed' }], [LOCAL, OTHER]).open, [B.address]);
  });

  it('leave out the second address of a member, and not the one in the settings', () => {
    const learned = link(A.address, 'up', { name: 'a', members: [A] });
    const local = link(LOCAL, 'up', { isGiven: true, name: 'a', members: [A] });
    assert.deepEqual(planned([learned, local], [LOCAL]).close, [A.address]);
    const other = link(OTHER, 'up', { isGiven: true, name: 'a', members: [A] });
    assert.deepEqual(planned([local, other], [LOCAL, OTHER]), { open: [], close: [OTHER], missing: [] });
  });

  it('keep those that answer, whatever others say, and drop those that are gone for all of them', () => {
    const local = link(LOCAL, 'up', { isGiven: true, name: 'a', members: [A] });
    const b = { name: 'b', members: [A, B] };
    assert.deepEqual(planned([local, link(B.address, 'up', b)], [LOCAL]).close, []);
    assert.deepEqual(planned([local, link(B.address, 'down', b)], [LOCAL]).close, [B.address]);
    assert.deepEqual(planned([local, link(C.address, 'new')], [LOCAL]).close, [C.address]);
    // The lists of all who answer count together.
    const apart = [local, link(B.address, 'up', b), link(C.address, 'failed', { name: 'c' })];
    assert.deepEqual(planned([...apart, link('x', 'up', { name: 'd', members: [C] })], [LOCAL]).close, []);
  });

  it('follow a member to another address', () => {
    const moved = { ...B, address: 'tcp://10.0.9.9:22029' };
    const local = link(LOCAL, 'up', { isGiven: true, name: 'a', members: [A, moved] });
    const before = link(B.address, 'down', { name: 'b', members: [A, B] });
    assert.deepEqual(planned([local, before], [LOCAL]), {
      open: [moved.address],
      close: [B.address],
      missing: ['b'],
    });
  });

  it('report a member as missing whose address is that of another one', () => {
    const local = link(LOCAL, 'up', { isGiven: true, name: 'a', members: [A, B, { ...C, address: B.address }] });
    const both = link(B.address, 'up', { name: 'c', members: [A, B] });
    assert.deepEqual(planned([local, both], [LOCAL]), { open: [], close: [], missing: ['b'] });
  });

  it('know a member with an invalid address, and do not try it', () => {
    const spell = (address: string) => {
      if (address === 'nowhere') throw new Error('no address');
      return address.toLowerCase();
    };
    const members = inOneSpelling(
      [
        { name: 'a', address: 'TCP://H:1' },
        { name: 'b', address: 'nowhere' },
      ],
      spell,
    );
    assert.deepEqual(members, [
      { name: 'a', address: 'tcp://h:1' },
      { name: 'b', address: '' },
    ]);
    const local = link(LOCAL, 'up', { isGiven: true, name: 'a', members });
    assert.deepEqual(planned([local], [LOCAL]), { open: [], close: [], missing: ['b'] });
  });

  it('are the members last known and those in the settings when nobody answers', () => {
    const learned = [
      link(B.address, 'down', { name: 'b', members: [A, B, C] }),
      link(C.address, 'failed', { name: 'c', members: [A, B, C] }),
    ];
    assert.deepEqual(planned(learned, [LOCAL]), { open: [A.address, LOCAL], close: [], missing: ['a', 'b', 'c'] });
  });

  it('are never more than so many, whatever is announced', () => {
    const members = Array.from({ length: 64 }, (_, n) => ({ name: `m${n}`, address: `tcp://h:${n + 1}` }));
    const others = members.map(({ name, address }) => ({ name: `x${name}`, address: `${address}0` }));
    const local = link(LOCAL, 'up', { isGiven: true, name: 'a', members });
    const second = link(OTHER, 'up', { isGiven: true, name: 'b', members: others });
    assert.equal(planned([local, second], [LOCAL, OTHER]).open.length, 62);
  });

  it('settle: what was done is not wanted again, and nothing is opened and closed in turn', () => {
    fuzz(2_000, ({ below }) => {
      const names = ['a', 'b', 'c', undefined];
      const states = ['new', 'up', 'down', 'failed'] as const;
      const listed = () => [A, B, C, { ...B, address: A.address }].filter(() => below(2) === 0);
      const at = [LOCAL, OTHER, A.address, B.address, C.address].filter(() => below(3) > 0);
      const links = at.map((address) =>
        link(address, states[below(4)]!, {
          isGiven: address.startsWith('ipc'),
          name: names[below(4)],
          members: listed(),
        }),
      );
      const given = [LOCAL, OTHER];
      const { open, close } = planLinks(links, given);
      const next = [
        ...links.filter((one) => !close.includes(one)),
        ...open.map((address) => link(address, 'new', { isGiven: given.includes(address) })),
      ];
      const again = planLinks(next, given);
      assert.deepEqual(again.open, []);
      assert.deepEqual(again.close, []);
      assert.equal(new Set(next.map(({ address }) => address)).size, next.length);
    });
  });
});
