// Runs a WebAssembly program as a command: node tests/wasi.mjs PROGRAM [ARGUMENT...]
import fs from 'node:fs';
import { WASI } from 'node:wasi';

const [file, ...args] = process.argv.slice(2);
const wasi = new WASI({
    version: 'preview1', args: [file, ...args], env: process.env,
    preopens: { '.': '.', '..': '..', '/tmp': '/tmp' }, returnOnExit: true,
});
const program = await WebAssembly.compile(fs.readFileSync(file));
process.exit(wasi.start(await WebAssembly.instantiate(program, wasi.getImportObject())));
