// worker.js - runs the model beside the page. In: {prompt, temperature, seed, pace} or
// {stop: true}. Out: {ready: bytes}, {text, tokens, seconds}, {end: why}, {failed: why}.
'use strict';
const PROMPT_BYTES = 4096;
let flash; // what web.c exports
let prompt_at;
let stop = false;

const bytes = (at, n) => new Uint8Array(flash.memory.buffer, at, n);
function string(at) {
    const all = new Uint8Array(flash.memory.buffer, at);
    return new TextDecoder().decode(all.subarray(0, all.indexOf(0)));
}
function check(status) {
    if (status < 0) throw Error(string(flash.why(status)));
    return status;
}

async function load() {
    const file = new Uint8Array(await (await fetch('tale.gguf')).arrayBuffer());
    const { instance } = await WebAssembly.instantiateStreaming(fetch('flash.wasm'));
    flash = instance.exports;
    const at = flash.room(file.length);
    bytes(at, file.length).set(file); // the model stays there: it is not copied again
    check(flash.load(at, file.length));
    prompt_at = flash.room(PROMPT_BYTES);
    postMessage({ ready: file.length });
}

// Writes until the text ends or is stopped, at most pace tokens a second (0: as many as can be);
// tells what there is, and listens, about 60 times a second.
async function write({ prompt, temperature, seed, pace }) {
    const MORE = 1, FULL = -8, utf8 = new TextDecoder();
    const { written } = new TextEncoder().encodeInto(prompt, bytes(prompt_at, PROMPT_BYTES - 1));
    bytes(prompt_at + written, 1)[0] = 0;
    check(flash.begin(prompt_at, temperature, seed));
    const begun = performance.now();
    let tokens = 0, busy = 0, told = begun, text = '', status;
    for (stop = false; !stop;) {
        const before = performance.now();
        const early = pace ? begun + 1000 * tokens / pace - before : 0;
        if (early <= 0) {
            status = flash.next();
            if (status === 0) {
                text += utf8.decode(bytes(flash.text(), flash.text_bytes()), { stream: true });
                if (tokens++) busy += performance.now() - before; // the first waits for the prompt
            } else if (status !== MORE) {
                break;
            }
        }
        if (early > 0 || before - told >= 16) {
            postMessage({ text, tokens, seconds: busy / 1000 });
            text = '';
            await new Promise((heard) => setTimeout(heard, Math.min(early, 16)));
            told = performance.now();
        }
    }
    if (status !== FULL) check(status);
    postMessage({ text, tokens, seconds: busy / 1000 });
    postMessage({ end: stop ? 'stopped' : status === FULL ? 'as long as it can be' : 'the end' });
}

const failed = (error) => postMessage({ failed: error.message });
const loaded = load();
loaded.catch(failed);
onmessage = ({ data }) => {
    if (data.stop) stop = true;
    else loaded.then(() => write(data)).catch(failed);
};
