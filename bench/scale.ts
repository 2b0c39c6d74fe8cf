import { randomBytes } from 'node:crypto';
import { ENOUGH } from '../src/hivemind/monitoring/sparing.ts';
import { holdersOf, SLOTS, swarmsOfSlots } from '../src/session/slots.ts';

/**
 * `src/cli/node bench/scale.ts`: the table of docs/scale.md, from the constants that stand there. Which hivemind holds
 * what, and is connected to whom, is worked out by the daemon's own rules, over random swarm ids.
 */
const SERVERS_A_SWARM = 7;
const MESSAGES_A_DAY = 50;
const PEAK = 3;
const US_A_RAW = { mainThread: 25, process: 40 };
const SECOND_OF_FIRST = 0.6;
const MS_A_RENEWAL = { mainThread: 0.13, process: 0.17 };
const RENEWALS_A_DAY = 2;
const BUSY = 0.5;
const MB_A_PROCESS = 150;
const MB_A_MILLION = 440;
const KB_A_CONNECTION = 31;
const RENEWED_AFTER = 50 * 60;
const COPIES = 2;

for (const millions of [1, 10, 100]) for (const servers of [2_000, 10_000]) row(millions * 1e6, servers);

function row(accounts: number, servers: number): void {
  const raw = (accounts * MESSAGES_A_DAY * PEAK * SERVERS_A_SWARM) / 86_400;
  const renewals = (accounts * RENEWALS_A_DAY * PEAK) / 86_400;
  const cores = (kind: 'mainThread' | 'process') =>
    (raw * US_A_RAW[kind] * (1 + (COPIES - 1) * SECOND_OF_FIRST)) / 1e6 + (renewals * MS_A_RENEWAL[kind]) / 1e3;
  const swarms = Math.round(servers / SERVERS_A_SWARM);
  const ids = Array.from({ length: swarms }, () => randomBytes(8).readBigUInt64BE());
  // Slots are not dealt out evenly, so the fullest hivemind decides.
  let instances = COPIES;
  let fullest = slotsOf(instances);
  const isTooMuch = () => (cores('mainThread') * fullest.length) / (SLOTS * COPIES) > BUSY && fullest.length > 1;
  while (isTooMuch() && instances < SLOTS) fullest = slotsOf(++instances);
  const connections = swarmsOfSlots(ids, fullest).size * SERVERS_A_SWARM;
  const held = (accounts * fullest.length) / SLOTS;
  const gigabytes = (MB_A_PROCESS + (held * MB_A_MILLION) / 1e6 + (connections * KB_A_CONNECTION) / 1e3) / 1e3;
  const asked = SERVERS_A_SWARM + (COPIES - 1) * ENOUGH;
  const renewed = (accounts * asked) / servers / RENEWED_AFTER;
  const cells = [
    `${accounts / 1e6}M`,
    servers.toLocaleString('en'),
    Math.round(raw).toLocaleString('en'),
    cores('process').toFixed(1),
    `${instances}${isTooMuch() ? ', and too few' : ''}`,
    ((cores('mainThread') * fullest.length) / (SLOTS * COPIES)).toFixed(2),
    gigabytes.toFixed(1),
    connections.toLocaleString('en'),
    renewed.toFixed(1),
    renewals.toFixed(0),
  ];
  process.stdout.write(`| ${cells.join(' | ')} |\n`);
}

/** The slots of the fullest of so many hiveminds. */
function slotsOf(instances: number): number[] {
  const names = Array.from({ length: instances }, (_, n) => `h${n}`);
  const held = new Map<string, number[]>(names.map((name) => [name, []]));
  for (let slot = 0; slot < SLOTS; slot++)
    for (const name of holdersOf(slot, names, COPIES)) held.get(name)?.push(slot);
  return [...held.values()].reduce((most, slots) => (slots.length > most.length ? slots : most));
}
