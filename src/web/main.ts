import { runDaemon } from '../daemon/run.ts';
import { startWeb } from './web.ts';

await runDaemon('web', startWeb);
