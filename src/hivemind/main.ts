import { runDaemon } from '../daemon/run.ts';
import { startHivemind } from './hivemind.ts';

await runDaemon('hivemind', startHivemind);
