import { runDaemon } from '../../daemon/run.ts';
import { startCanary } from './canary.ts';

await runDaemon('canary', startCanary);
