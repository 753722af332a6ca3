// Turns policy.js into a component: node build.js WIT WORLD OUTPUT. `overlan policy build` calls it.
import { writeFile } from 'node:fs/promises';
import { resolve } from 'node:path';
import { componentize } from '@bytecodealliance/componentize-js';

const [wit, worldName, output] = process.argv.slice(2);
const { component } = await componentize({
  sourcePath: resolve('policy.js'),
  witPath: resolve(wit),
  worldName,
  // A policy has no clock, no randomness, no files and no network: nothing of WASI may be imported.
  disableFeatures: ['random', 'stdio', 'clocks', 'http', 'fetch-event'],
});
await writeFile(output, component);
