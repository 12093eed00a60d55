/** The model at work, off the page's own thread: texts in, answers out. Serves page.js; tells it of every step. */

import { Tokenizer } from "./engine/tokenizers.js";
import { answer, difference, probabilities } from "./answers.js";
import { areKept, getFile } from "./files.js";
import { compare, fastest } from "./timing.js";
import { TextReader } from "./tokens.js";

const SCOPE = new URL("./", self.location.href);
const GPU = "webgpu";
// Tokens of the text that forms are timed on, where the model reads as many
const TIMED_TOKENS = 64;

let facts, reader, ort;
const sessions = {}; // form -> session
const loading = {}; // form -> promise of it
let chosen = "auto";
let automatic = null; // the form that "auto" stands for
let gpu = null; // the engine with WebGPU, when it was asked for
let turn = Promise.resolve(); // engines run one text at a time
const fetching = {}; // form -> promise of its file's bytes
const checks = {}; // form -> promise that it was compared with the export's answers
const wrong = new Set(); // forms that answer otherwise here than where they were exported

self.onmessage = ({ data }) => {
  if (data.kind === "answer") answerText(data);
  else if (data.kind === "choose") choose(data.form);
};

open().catch((error) => fail(error));

function tell(kind, more = {}) {
  self.postMessage({ kind, ...more });
}

function fail(error) {
  tell("failed", { message: error?.message ?? String(error) });
}

/** Load the page's engine and the smaller model file, then the other one, and find out which is faster here. */
async function open() {
  facts = await readFacts();
  const forms = Object.keys(facts.files).sort((a, b) => facts.files[a].bytes - facts.files[b].bytes);
  const [first, ...others] = forms;
  const engine = facts.engine.cpu;
  const start = [engine.wasm, facts.tokenizer, facts.characters, facts.files[first]].filter(Boolean);
  const total = start.reduce((sum, file) => sum + file.bytes, 0);
  const [wasm, tokenizer, ...rest] = await together(start, total, "loading");
  const bytes = rest.pop();
  ort = await importEngine(engine.main);
  setUp(ort, engine, wasm);
  const table = rest.length ? JSON.parse(decode(rest[0])) : null;
  reader = new TextReader(Tokenizer, JSON.parse(decode(tokenizer)), table, facts);
  checkTokens();
  tell("starting");
  await session(first, bytes);
  automatic = first;
  tell("ready", { facts, threads: ort.env.wasm.numThreads, gpu: await hasGpu(), form: first });
  await check(first);
  for (const form of others) await openOther(form);
  const opened = Object.keys(sessions).filter((form) => form !== GPU);
  const medians = await compare(opened, timedRun);
  const right = Object.entries(medians).filter(([form]) => !wrong.has(form));
  automatic = fastest(right.length ? Object.fromEntries(right) : medians);
  tell("measured", { medians, tokens: timedTokens(), automatic, form: current() });
  tell("kept", { kept: await areKept([...start, ...opened.map((form) => facts.files[form])], SCOPE) });
}

/** Load a further model file. Where there is no room for it, the page goes on with those that are there. */
async function openOther(form) {
  try {
    await session(form);
    await check(form);
  } catch (error) {
    tell("left out", { form, message: error?.message ?? String(error) });
  }
}

async function readFacts() {
  let response;
  try {
    response = await fetch(new URL("site.json", SCOPE));
  } catch {
    throw new Error("site.json cannot be fetched: is this device offline?");
  }
  if (!response.ok) throw new Error(`site.json: the server answered ${response.status}`);
  try {
    return JSON.parse(decode(await response.arrayBuffer()));
  } catch {
    throw new Error("site.json is damaged: reload the page, or build it again");
  }
}

async function importEngine(path) {
  try {
    return await import(new URL(path, SCOPE).href);
  } catch {
    throw new Error(`${path} cannot be loaded: it is missing or damaged, or the server does not call it JavaScript`);
  }
}

/** The bytes of a form's file, fetched once however often it is asked for. */
function bytesOf(form) {
  return (fetching[form] ??= together([facts.files[form]], facts.files[form].bytes, "comparing")
    .then(([bytes]) => bytes)
    .finally(() => delete fetching[form]));
}

/** Fetch files side by side, telling how much of all is there. */
async function together(files, total, kind) {
  const loaded = files.map(() => 0);
  const report = () => tell("progress", { stage: kind, loaded: loaded.reduce((a, b) => a + b, 0), total });
  report();
  return Promise.all(files.map((file, i) => getFile(file, SCOPE, (bytes) => { loaded[i] = bytes; report(); })));
}

function setUp(engine, files, wasm) {
  const cores = navigator.hardwareConcurrency || 1;
  const asked = Number(new URL(self.location.href).searchParams.get("threads"));
  // Threads need memory that is shared, which browsers give to isolated pages alone
  const threads = asked > 0 ? Math.min(Math.ceil(asked), cores) : Math.min(4, Math.ceil(cores / 2));
  engine.env.wasm.numThreads = self.crossOriginIsolated ? threads : 1;
  engine.env.wasm.wasmPaths = { mjs: new URL(files.glue, SCOPE).href };
  engine.env.wasm.wasmBinary = wasm;
  engine.env.logLevel = "error";
}

/** The session of a form, opened when it is first asked for. */
function session(form, bytes = null) {
  return (loading[form] ??= create(form, bytes).catch((error) => {
    delete loading[form];
    throw error;
  }));
}

async function create(form, bytes) {
  if (form === GPU) {
    const engine = facts.engine.gpu;
    const [wasm] = await together([engine.wasm], engine.wasm.bytes, "gpu");
    tell("starting");
    gpu = await importEngine(engine.main);
    setUp(gpu, engine, wasm);
  }
  bytes ??= await bytesOf(form === GPU ? gpuForm() : form);
  const options = { executionProviders: [form === GPU ? "webgpu" : "wasm"], graphOptimizationLevel: "all" };
  return (sessions[form] = await (form === GPU ? gpu : ort).InferenceSession.create(bytes, options));
}

function gpuForm() {
  return "fp32" in facts.files ? "fp32" : Object.keys(facts.files)[0];
}

async function hasGpu() {
  try {
    return Boolean(facts.engine.gpu && (await navigator.gpu?.requestAdapter()));
  } catch {
    return false;
  }
}

/** Run a form on tokens; returns the logits and how long it took. One run at a time, in the order of asking. */
function run(form, tokens) {
  const next = turn.then(async () => {
    const engine = form === GPU ? gpu : ort;
    const shape = [1, tokens.ids.length];
    const tensor = (values) => new engine.Tensor("int64", BigInt64Array.from(values, BigInt), shape);
    const feeds = {
      input_ids: tensor(tokens.ids),
      attention_mask: tensor(tokens.ids.map(() => 1)),
      token_type_ids: tensor(tokens.types),
    };
    const began = performance.now();
    const outputs = await sessions[form].run(feeds);
    const logits = Array.from(await outputs[sessions[form].outputNames[0]].getData());
    return { logits, ms: performance.now() - began };
  });
  turn = next.catch(() => {});
  return next;
}

function timedTokens() {
  return Math.min(TIMED_TOKENS, facts.max_length);
}

async function timedRun(form) {
  const [sample] = facts.samples;
  const { ids } = reader.encode(sample.text, sample.text_pair);
  const count = timedTokens();
  return (await run(form, { ids: Array.from({ length: count }, (_, i) => ids[i % ids.length]), types: Array(count).fill(0) })).ms;
}

/** Answer the export's own texts, once, and say so where the answers differ from the export's. */
function check(form) {
  return (checks[form] ??= compareSamples(form));
}

async function compareSamples(form) {
  const known = form === GPU ? gpuForm() : form;
  let worst = 0;
  for (const sample of facts.samples.filter((one) => known in one.expected)) {
    const { logits } = await run(form, reader.encode(sample.text, sample.text_pair));
    worst = Math.max(worst, difference(probabilities(logits, facts), sample.expected[known]));
  }
  if (worst <= facts.tolerance[known]) return;
  wrong.add(form);
  tell("differs", { form, difference: worst });
}

function checkTokens() {
  for (const { text, ids } of facts.token_checks) {
    if (reader.plainIds(text).join() !== ids.join()) {
      const reads = facts.characters ? "this browser reads" : "the page's library reads";
      throw new Error(`${reads} text otherwise than the model was trained on: no answer of it would be right`);
    }
  }
}

function current() {
  return chosen === "auto" ? automatic : chosen;
}

async function choose(form) {
  const before = chosen;
  chosen = form;
  try {
    if (form !== "auto") {
      await session(form);
      await check(form);
    }
    if (chosen === form) tell("chosen", { choice: form, form: current() });
  } catch (error) {
    if (chosen === form) chosen = before;
    tell("refused", { choice: chosen, form: current(), asked: form, message: error?.message ?? String(error) });
  }
}

async function answerText({ id, text, textPair }) {
  const form = current() in sessions ? current() : automatic;
  try {
    const tokens = reader.encode(text, textPair);
    const { logits, ms } = await run(form, tokens);
    const values = probabilities(logits, facts);
    const told = { ...answer(values, facts), tokens: tokens.ids.length, truncated: tokens.truncated };
    tell("answer", { id, ...told, values, ms, form });
  } catch (error) {
    tell("unanswered", { id, message: error?.message ?? String(error) });
  }
}

function decode(bytes) {
  return new TextDecoder().decode(bytes);
}
