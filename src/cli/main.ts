#!/usr/bin/env node
import { runCommand } from './commands.ts';

// Someone who pipes us into head is not in error.
process.stdout.on('error', () => process.exit(0));
process.exitCode = await runCommand(process.argv.slice(2));
