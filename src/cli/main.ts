#!/usr/bin/env node
import { runCommand } from './commands.ts';

// Piping the output into head, which closes the pipe early, is not an error.
process.stdout.on('error', () => process.exit(0));
process.exitCode = await runCommand(process.argv.slice(2));
