// Compares what flash computes with what llama.cpp computes; exit code 1 if they differ.
//   node peer_compare.mjs probs NAME FLASH.jsonl PEER.jsonl TOLERANCE
//   node peer_compare.mjs perplexity PEER_DIR MODEL.gguf IDS.txt WINDOW "flash's line"
//   node peer_compare.mjs noise PEER_DIR MODEL.gguf IDS PEER.jsonl
//     prints how far llama.cpp is from itself with its other attention algorithm
//   node peer_compare.mjs grammar PEER_DIR MODEL.gguf GRAMMAR.gbnf ALLOWED
//     ALLOWED: what tests/mkallowed.c prints
import fs from "node:fs";
import path from "node:path";
import {pathToFileURL} from "node:url";

const [what, ...args] = process.argv.slice(2);
const lines = (file) => fs.readFileSync(file, "utf8").split("\n").filter((l) => l.startsWith("{"))
    .map((l) => JSON.parse(l));

// Where the peer's best is ahead of its second by more than the tolerance, the best must agree.
function probs(name, flashFile, peerFile, tolerance) {
    const flash = lines(flashFile), peer = lines(peerFile);
    if (!flash.length || flash.length !== peer.length) {
        console.log(`${name}: ${flash.length} positions against ${peer.length}`);
        return false;
    }
    let worst = 0, at = 0, sure = 0, wrong = 0, same = 0;
    flash.forEach((f, i) => {
        const p = peer[i], ours = new Map(f.top), theirs = new Map(p.top);
        if (f.token !== p.token || f.pos !== p.pos) wrong++;
        for (const id of new Set([...ours.keys(), ...theirs.keys()])) {
            const d = Math.abs((ours.get(id) ?? 0) - (theirs.get(id) ?? 0));
            if (!(d <= worst)) [worst, at] = [d, i];
        }
        const equal = f.top[0][0] === p.top[0][0];
        same += equal;
        if (p.top[0][1] - (p.top[1]?.[1] ?? 0) > tolerance) {
            sure++;
            wrong += !equal;
        }
    });
    console.log(`${name}: ${flash.length} positions, largest difference ${worst.toExponential(2)}` +
        ` (position ${at}), best equal at ${same}, at ${sure - wrong} of ${sure} with a margin`);
    return wrong === 0 && worst <= tolerance;
}

// The windows of `flash perplexity`: BOS and WINDOW-1 tokens each, all but the first scored.
async function perplexity(dir, file, idsFile, window, line) {
    const {open} = await import(pathToFileURL(path.resolve(dir, "peer.mjs")));
    const {model} = await open(["", "", path.resolve(file)]);
    const ids = fs.readFileSync(idsFile, "utf8").trim().split(/\s+/).map(Number);
    const context = await model.createContext(
        {contextSize: window + 8, batchSize: 512, threads: 1});
    const sequence = context.getSequence(), options = {temperature: 1, topK: 0, topP: 1, minP: 0};
    let sum = 0, n = 0;
    for (let i = 0; i < ids.length; i += window - 1) {
        const tokens = [model.tokens.bos, ...ids.slice(i, i + window - 1)];
        await sequence.clearHistory();
        const out = await sequence.controlledEvaluate(tokens.map((t, k) =>
            k + 1 < tokens.length ? [t, {generateNext: {probabilities: true, options}}] : t));
        for (let k = 0; k + 1 < tokens.length; k++, n++)
            sum -= Math.log(out[k].next.probabilities.get(tokens[k + 1]));
    }
    const theirs = Math.exp(sum / n), ours = Number(/perplexity ([0-9.]+)/.exec(line)?.[1]);
    const apart = Math.abs(ours / theirs - 1);
    console.log(`peer: perplexity ${theirs.toFixed(4)} over ${n} tokens; flash differs by ` +
        `${(apart * 100).toFixed(4)} %`);
    return apart <= 1e-3;
}

// Rounding activations to int8 makes small differences large: two right engines differ by as much
// as one of them from itself when only the order of its sums changes.
async function noise(dir, file, ids, peerFile) {
    const {open} = await import(pathToFileURL(path.resolve(dir, "peer.mjs")));
    const {model} = await open(["", "", path.resolve(file)]);
    const tokens = ids.split(",").map(Number);
    const context = await model.createContext({contextSize: Math.max(64, tokens.length + 8),
        batchSize: 512, threads: 1, flashAttention: false});
    const options = {temperature: 1, topK: 0, topP: 1, minP: 0};
    const out = await context.getSequence().controlledEvaluate(
        tokens.map((t) => [t, {generateNext: {probabilities: true, options}}]));
    let worst = 0;
    lines(peerFile).forEach((p, i) => {
        for (const [id, pr] of p.top)
            worst = Math.max(worst, Math.abs(pr - (out[i].next.probabilities.get(id) ?? 0)));
    });
    console.log(worst.toExponential(2));
    return true;
}

// Along texts that flash drew, llama.cpp's reader of the same grammar allows the same tokens. Not
// compared: what is no text (to llama.cpp the name of a control token is), NUL (at which it stops),
// parts of a character (it refuses first bytes of characters if some of them are excluded, and
// allows bytes that begin none).
async function grammar(dir, file, grammarFile, allowedFile) {
    const {open} = await import(pathToFileURL(path.resolve(dir, "peer.mjs")));
    const {LlamaGrammarEvaluationState} = await import(pathToFileURL(
        path.resolve(dir, "node_modules/node-llama-cpp/dist/index.js")));
    const {llama, model} = await open(["", "", path.resolve(file)]);
    const {AddonSampler} = llama._bindings;
    const rules = await llama.createGrammar({grammar: fs.readFileSync(grammarFile, "utf8")});
    let state, text = -1, places = 0, compared = 0, apart = 0;
    const skipped = (id) => /[\0\ufffd]/.test(model.detokenize([id])) ||
        (model.getTokenAttributes(id).control || model.getTokenAttributes(id).unknown) &&
        !model.isEogToken(id);
    const skip = [];
    for (const line of fs.readFileSync(allowedFile, "utf8").trim().split("\n")) {
        const [number, chosen, allowed] = line.split(" ");
        if (number !== text) {
            text = number;
            state = new LlamaGrammarEvaluationState({model, grammar: rules})._state;
        }
        for (let id = 0; id < allowed.length; id++) {
            if (skip[id] ??= skipped(id))
                continue;
            compared++;
            const theirs = AddonSampler.canBeNextTokenForGrammarEvaluationState(state, id);
            if (theirs !== (allowed[id] === "1") && !apart++)
                console.log(`text ${text}, place ${places}: token ${id} (${JSON.stringify(
                    model.detokenize([id], true))}) is ${theirs ? "" : "not "}allowed by llama.cpp`);
        }
        places++;
        if (Number(chosen) >= 0)
            AddonSampler.acceptGrammarEvaluationStateToken(state, Number(chosen));
    }
    console.log(`${path.basename(grammarFile)}: ${places} places of ${Number(text) + 1} texts, ` +
        `${apart} of ${compared} tokens allowed by one alone`);
    return compared > 0 && apart === 0;
}

const kinds = {
    noise: () => noise(...args),
    probs: () => probs(args[0], args[1], args[2], Number(args[3])),
    perplexity: () => perplexity(args[0], args[1], args[2], Number(args[3]), args[4]),
    grammar: () => grammar(...args),
};
process.exit(await kinds[what]() ? 0 : 1);
