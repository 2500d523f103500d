// test.mjs - the page in a headless Chromium, as a reader would use it: load, type, read, stop.
// What it writes has to be what flash writes here, byte for byte. Called by `make web`:
//   node examples/web/test.mjs BUILD [RUN...]
// Needs no package: the browser is told what to do through a pipe (DevTools protocol).
import { execFileSync, spawn } from 'node:child_process';
import fs from 'node:fs';
import http from 'node:http';
import os from 'node:os';
import path from 'node:path';

const [build, ...run] = process.argv.slice(2);
const site = path.join(build, 'web');
const types = { '.html': 'text/html', '.js': 'text/javascript', '.wasm': 'application/wasm' };
let passed = 0, failed = 0;
function check(name, ok, more = '') {
    if (ok) passed++;
    else failed++;
    if (!ok) console.log(`FAILED ${name} ${more}`);
}

// --- a web server on this machine alone ---
const server = http.createServer((request, response) => {
    const name = request.url === '/' ? 'index.html' : path.basename(request.url);
    const file = path.join(site, name);
    if (!fs.existsSync(file)) return void response.writeHead(404).end();
    const type = types[path.extname(name)] ?? 'application/octet-stream';
    response.writeHead(200, { 'Content-Type': type });
    fs.createReadStream(file).pipe(response);
});
await new Promise((up) => server.listen(0, '127.0.0.1', up));

// --- a browser at the other end of a pipe ---
const profile = fs.mkdtempSync(path.join(os.tmpdir(), 'flash-web-'));
const browser = spawn(process.env.CHROMIUM ?? 'chromium', ['--headless', '--no-sandbox',
    '--disable-gpu', '--disable-dev-shm-usage', '--remote-debugging-pipe',
    `--user-data-dir=${profile}`], { stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'] });
const waiting = new Map();
let last = 0, held = '', session;
browser.on('error', (error) => { console.log(`FAILED ${error.message}`); process.exit(1); });
browser.stdio[4].on('data', (data) => {
    const messages = (held + data).split('\0');
    held = messages.pop();
    for (const message of messages.map((m) => JSON.parse(m))) {
        if (message.method === 'Runtime.exceptionThrown')
            check('no exception', false, JSON.stringify(message.params.exceptionDetails));
        if (!waiting.has(message.id)) continue;
        const { good, bad } = waiting.get(message.id);
        waiting.delete(message.id);
        if (message.error) bad(Error(message.error.message));
        else good(message.result);
    }
});
function tell(method, params = {}) {
    return new Promise((good, bad) => {
        waiting.set(++last, { good, bad });
        const message = { id: last, method, params, sessionId: session };
        browser.stdio[3].write(JSON.stringify(message) + '\0');
    });
}
async function page(script) {
    const { result, exceptionDetails } = await tell('Runtime.evaluate',
        { expression: script, awaitPromise: true, returnByValue: true });
    if (exceptionDetails) throw Error(exceptionDetails.text);
    return result.value;
}
async function until(script) {
    for (const begun = Date.now(); Date.now() - begun < 60000;) {
        if (await page(script)) return true;
        await new Promise((later) => setTimeout(later, 50));
    }
    return false;
}
const flash = path.join(build, 'flash');
function here(...options) {
    const [program, ...first] = [...run, flash];
    return execFileSync(program, [...first, 'run', path.join(site, 'tale.gguf'), ...options],
        { encoding: 'utf8' });
}

try {
    const { targetId } = await tell('Target.createTarget', { url: 'about:blank' });
    ({ sessionId: session } = await tell('Target.attachToTarget', { targetId, flatten: true }));
    await tell('Runtime.enable');
    await tell('Page.enable');
    await tell('Page.navigate', { url: `http://127.0.0.1:${server.address().port}/` });
    check('the page is ready', await until('globalThis.state && !go.disabled'),
        await page('state?.textContent'));

    await page(`temperature.value = 0; pace.value = 0; go.click()`);
    check('a text ends', await until('!go.disabled'));
    const golden = fs.readFileSync('tests/golden/tale.txt', 'utf8');
    check('the golden text', (await page('story.textContent')).startsWith(golden));

    const prompt = 'One day, a little dog';
    await page('prompt_.focus()');
    await tell('Input.insertText', { text: prompt });
    for (const type of ['keyDown', 'keyUp']) {
        await tell('Input.dispatchKeyEvent',
            { type, key: 'Enter', code: 'Enter', windowsVirtualKeyCode: 13, text: '\r' });
    }
    check('a prompt goes on', await until(`!go.disabled && story.textContent.length > 50`));
    const wrote = await page('story.textContent');
    const native = here('--temp', '0', '-p', prompt, '--echo');
    check('the same text as here', wrote === native, `${wrote}\n  here: ${native}`);
    check('its speed is told', /, \d+ tokens, \d+ a second$/.test(await page('state.textContent')));
    console.log(await page('state.textContent'));
    const { data } = await tell('Page.captureScreenshot');
    fs.writeFileSync(path.join(site, 'page.png'), Buffer.from(data, 'base64'));

    // Stopped by the first text that appears: what was on its way still comes, then nothing.
    await page(`new Promise((seen) => {
        new MutationObserver((_, watch) => {
            if (story.textContent.length <= ${prompt.length}) return;
            watch.disconnect();
            stop.click();
            seen();
        }).observe(story, { childList: true });
        pace.value = 20;
        go.click();
    })`);
    check('a text stops', await until('!go.disabled'));
    check('it says so', (await page('state.textContent')).startsWith('stopped'));
    const cut = await page('story.textContent');
    check('less than all of it', cut.length < wrote.length && wrote.startsWith(cut), cut);
    await page(`pace.value = 0; go.click()`);
    check('the whole text after a stop', await until('!go.disabled') &&
        await page('story.textContent') === wrote);
} catch (error) {
    check('the browser', false, error.stack);
}
browser.kill();
await new Promise((gone) => browser.exitCode === null ? browser.on('exit', gone) : gone());
server.close();
fs.rmSync(profile, { recursive: true, force: true, maxRetries: 5 });
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed ? 1 : 0);
