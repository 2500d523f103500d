// Runs a WebAssembly program as a command: node tests/wasi.mjs PROGRAM [ARGUMENT...]
//   make test SCRIPTS= CC='clang --target=wasm32-wasi' RUN='node --no-warnings tests/wasi.mjs' B=build/wasm
//       CFLAGS='-msimd128 -D_WASI_EMULATED_PROCESS_CLOCKS -lwasi-emulated-process-clocks'
// Not part of the matrix: node 20 itself crashes now and then on its way out, after a test's summary.
import fs from 'node:fs';
import { WASI } from 'node:wasi';

const [file, ...args] = process.argv.slice(2);
const wasi = new WASI({
    version: 'preview1', args: [file, ...args], env: process.env,
    preopens: { '.': '.', '..': '..', '/tmp': '/tmp' }, returnOnExit: true,
});
const program = await WebAssembly.compile(fs.readFileSync(file));
process.exit(wasi.start(await WebAssembly.instantiate(program, wasi.getImportObject())));
