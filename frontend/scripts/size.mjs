// Fails when the built viewer, gzipped, is larger than what a slow connection should have to fetch.
import { readdirSync, readFileSync } from "node:fs";
import { gzipSync } from "node:zlib";

const LIMIT_KB = 80;
const folder = new URL("../../tensorboard_plugin_neuraldbg/static/", import.meta.url);

const sizes = readdirSync(folder).map((name) => [name, gzipSync(readFileSync(new URL(name, folder))).length / 1000]);
for (const [name, kilobytes] of sizes) console.log(`${kilobytes.toFixed(1).padStart(7)} KB  ${name}`);
const total = sizes.reduce((sum, [, kilobytes]) => sum + kilobytes, 0);
console.log(`${total.toFixed(1).padStart(7)} KB  gzipped in all, of ${LIMIT_KB} KB`);
if (total > LIMIT_KB) {
  console.error(`The viewer is ${(total - LIMIT_KB).toFixed(1)} KB over its limit of ${LIMIT_KB} KB.`);
  process.exitCode = 1;
}
