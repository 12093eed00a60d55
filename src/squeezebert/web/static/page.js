/** What a visitor writes in, the model's answers on the page out. The model itself runs in worker.js. */

import { median } from "./timing.js";

const $ = (id) => document.getElementById(id);
const SHOWN = 10; // labels of a model with many, before all are asked for
const CONTROL_MS = 5000; // how long the first visit waits for the service worker, whose headers the worker gets
const READ_FOR_DIRECTION = 1000; // characters
const RIGHT_TO_LEFT =
  /[\p{Script=Adlam}\p{Script=Arabic}\p{Script=Hebrew}\p{Script=Hanifi_Rohingya}\p{Script=Mandaic}\p{Script=Nko}\p{Script=Samaritan}\p{Script=Syriac}\p{Script=Thaana}]/u;
const FORMS = { fp32: "fp32, as trained", int8: "int8, rounded", webgpu: "WebGPU, not measured" };

let worker, facts;
let asked = 0; // number of the newest question; older answers are not shown
let waiting = null; // the texts to be answered when the model is there
const taken = {}; // form -> times of this visitor's texts, ms
let medians = {}; // form -> median on a text of a known length, ms
let measuredTokens = 0;
let automatic = null;
let gpu = false;
let broken = false; // no model will come
let sent = ["", ""]; // the texts of the newest question
const wrong = new Set(); // forms that answer otherwise here than where they were exported

start().catch((error) => stop(`The page cannot start: ${error?.message ?? error}`));

async function start() {
  $("form").addEventListener("submit", (event) => {
    event.preventDefault();
    ask();
  });
  for (const id of ["text", "text-pair"]) {
    $(id).addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
        event.preventDefault();
        ask();
      }
    });
    $(id).addEventListener("input", ({ target }) => (target.dir = direction(target.value)));
  }
  $("more").addEventListener("click", () => showAll($("more").getAttribute("aria-expanded") !== "true"));
  say("Starting.");
  if (self.origin === "null") {
    stop('A frame that is kept apart runs no model: the page around it has to give its sandbox "allow-same-origin" as well.');
    return;
  }
  await serviceWorker();
  const address = new URL("worker.js", document.baseURI);
  address.search = location.search; // ?threads=2 sets the number of threads
  worker = new Worker(address, { type: "module" });
  worker.onmessage = ({ data }) => HANDLERS[data.kind](data);
  worker.onerror = (event) => {
    const message = `The model cannot be run: ${event.message || "its script cannot be loaded"}. Reload the page, or try another browser.`;
    if (facts) problem(message);
    else stop(message);
  };
}

const HANDLERS = {
  progress({ stage, loaded, total }) {
    $("progress").hidden = loaded >= total;
    $("progress").value = total ? loaded / total : 1;
    const size = megabytes(total);
    say(
      {
        loading: `Loading the model, ${size} with its engine.`,
        comparing: `Ready. Loading the other model file, ${size}, to see which is faster here.`,
        gpu: `Loading the engine for WebGPU, ${size}.`,
      }[stage],
    );
  },
  starting() {
    $("progress").hidden = true;
    say("Starting the model.");
  },
  ready(data) {
    ({ facts, gpu } = data);
    automatic = data.form;
    $("progress").hidden = true;
    $("second").hidden = facts.pair === false;
    if (facts.pair === null) $("second-label").textContent = "Second text, if there is one";
    $("from").hidden = facts.task !== "multi_label";
    const threads = data.threads === 1 ? "one thread" : `${data.threads} threads`;
    $("about").textContent = `${facts.source}, ${describeTask()}, up to ${facts.max_length} tokens. ${facts.engine.name}, ${threads}.`;
    showChoices();
    say(Object.keys(facts.files).length > 1 ? "Ready." : "Ready. Measuring.");
    if (waiting) {
      const [text, second] = waiting;
      waiting = null;
      if (facts.pair === true && !second) {
        $("summary").textContent = "This model reads two texts: write the second one too.";
        $("text-pair").focus();
      } else put(text, second);
    }
  },
  measured(data) {
    ({ medians, automatic } = data);
    const best = wrong.size && !wrong.has(automatic) ? `${automatic} answers` : `${automatic} is ${automatic === "fp32" ? "not slower" : "faster"}`;
    measuredTokens = data.tokens;
    showChoices();
    say("Ready.");
    const told = Object.entries(medians).map(([form, ms]) => `${form} ${milliseconds(ms)}`);
    $("measured").textContent =
      `Measured on this device, a text of ${measuredTokens} tokens: ${told.join(", ")}.` +
      (told.length > 1 ? ` ${best}.` : "");
  },
  kept({ kept }) {
    const can = kept && controller();
    $("offline").textContent = can ? "Everything is on this device: the page works offline." : "The page needs its server on each visit.";
  },
  chosen({ form }) {
    say(`Ready. ${form} answers.`);
  },
  refused({ choice, asked: form, message }) {
    const input = $(`choice-${choice}`);
    if (input) input.checked = true;
    problem(`${form} cannot be used here: ${message}`);
  },
  "left out"({ form, message }) {
    warn(`${form} is left out: ${message}`);
  },
  differs({ form, difference }) {
    wrong.add(form);
    warn(
      `${form} answers otherwise on this device than where it was exported (by up to ${difference.toPrecision(2)}): do not rely on it.`,
    );
    showChoices();
  },
  answer(data) {
    if (data.id !== asked) return;
    showAnswer(data);
  },
  unanswered({ id, message }) {
    if (id !== asked) return;
    $("summary").textContent = "No answer.";
    problem(`The text could not be answered: ${message}`);
  },
  failed({ message }) {
    if (!facts) {
      stop(message);
      return;
    }
    $("progress").hidden = true;
    problem(message);
    say("Ready.");
  },
};

/** Give up: no model will come, and what is still on its way is of no use. */
function stop(message) {
  broken = true;
  if (worker) {
    worker.onmessage = null;
    worker.terminate();
  }
  $("progress").hidden = true;
  $("ask").disabled = true;
  problem(message);
  say("The model is not running.");
  if (waiting) $("summary").textContent = "No answer.";
}

/** Put what is written to the model; while it is loading, keep the question. */
function ask() {
  if (broken) return;
  problem("");
  const texts = [$("text").value, $("text-pair").value];
  if (!facts) {
    waiting = texts;
    $("summary").textContent = "Your text will be answered as soon as the model is loaded.";
    return;
  }
  put(...texts);
}

/** Which texts the model reads is known when it is there. */
function put(text, second) {
  const pair = facts.pair === true || (facts.pair === null && second !== "");
  sent = [text, second];
  worker.postMessage({ kind: "answer", id: ++asked, text, textPair: pair ? second : null });
}

function showAnswer({ given, rows, value, tokens, truncated, ms, form }) {
  (taken[form] ??= []).push(ms);
  const summary = $("summary");
  summary.classList.add("answered");
  if (value !== undefined) {
    summary.textContent = number(value);
    summary.dataset.value = value;
  } else if (given.length) {
    const shown = rows.filter((row) => row.given);
    const several = facts.task === "multi_label";
    summary.textContent = shown.map((row) => `${row.label}${several ? "" : `, ${percent(row.probability)}`}`).join(", ");
  } else {
    summary.textContent = "None of the labels.";
  }
  summary.dir = "auto";
  const notes = [];
  if (truncated) notes.push(`The text is longer than the ${facts.max_length} tokens that the model reads: its end did not count.`);
  if (sent[0] === "") notes.push("The text is empty: this is what the model makes of nothing.");
  if (facts.pair === true && sent[1] === "") notes.push("The second text is empty.");
  const times = taken[form];
  notes.push(`${form}, ${tokens} tokens, ${milliseconds(ms)}${times.length > 1 ? `; median of ${times.length} texts ${milliseconds(median(times))}` : ""}.`);
  $("notes").textContent = notes.join(" ");
  $("table").hidden = rows === undefined;
  $("more").hidden = true;
  if (rows) showRows(rows);
}

function showRows(rows) {
  $("rows").replaceChildren(
    ...rows.map((row) => {
      const line = document.createElement("tr");
      line.classList.toggle("given", row.given);
      const label = element("th", "", { scope: "row" });
      label.append(element("bdi", row.label));
      const cell = document.createElement("td");
      cell.dataset.probability = row.probability;
      const bar = element("div", "", { class: "bar" });
      bar.style.width = `${100 * row.probability}%`;
      const track = element("div", "", { class: "track", "aria-hidden": "true" });
      track.append(bar);
      cell.append(element("span", percent(row.probability), { class: "percent" }), track);
      line.append(label, cell);
      if (row.threshold !== null) line.append(element("td", percent(row.threshold) + (row.given ? ", given" : ""), { class: "from" }));
      return line;
    }),
  );
  if (rows.length > SHOWN + 1) {
    $("more").hidden = false;
    showAll($("more").getAttribute("aria-expanded") === "true");
  }
}

function showAll(all) {
  const rows = [...$("rows").children];
  rows.forEach((row, i) => (row.hidden = !all && i >= SHOWN));
  $("more").setAttribute("aria-expanded", String(all));
  $("more").textContent = all ? `Show the ${SHOWN} likeliest` : `Show all ${rows.length} labels`;
}

/** The radio buttons of the model files, with sizes and times as they become known. */
function showChoices() {
  const forms = ["auto", ...Object.keys(facts.files), ...(gpu ? ["webgpu"] : [])];
  if (!$("choice-auto")) {
    $("choices").replaceChildren(
      ...forms.map((form) => {
        const line = element("div", "", { class: "choice" });
        const input = element("input", "", { type: "radio", name: "form", id: `choice-${form}`, value: form });
        input.checked = form === "auto";
        input.addEventListener("change", () => {
          problem("");
          worker.postMessage({ kind: "choose", form });
        });
        line.append(input, element("label", "", { for: input.id }));
        return line;
      }),
    );
  }
  for (const form of forms) {
    const label = $(`choice-${form}`).nextElementSibling;
    if (form === "auto") {
      label.replaceChildren("Whichever is faster here ", element("span", `(${automatic})`));
      continue;
    }
    const file = form === "webgpu" ? facts.engine.gpu.wasm : facts.files[form];
    const more = form === "webgpu" ? `${megabytes(file.bytes)} to load` : megabytes(file.bytes);
    const ms = form in medians ? `, median ${milliseconds(medians[form])}` : "";
    const unlike = wrong.has(form) ? ", answers otherwise here" : "";
    label.replaceChildren(`${FORMS[form]} `, element("span", `(${more}${ms}${unlike})`));
  }
}

function describeTask() {
  if (facts.task === "regression") return "gives a number";
  return facts.task === "multi_label" ? `any of ${facts.labels.length} labels` : `one of ${facts.labels.length} labels`;
}

/** The page's own service worker, when it answers for it: one of a page above this one may do so too. */
function controller() {
  const found = navigator.serviceWorker?.controller;
  return found?.scriptURL === new URL("sw.js", document.baseURI).href ? found : null;
}

/** Register the service worker, and wait a little until the page is under it. Without one the page needs its server. */
async function serviceWorker() {
  const container = navigator.serviceWorker;
  if (!container) return;
  try {
    const registration = await container.register("sw.js", { updateViaCache: "none" });
    if (controller()) {
      offerUpdate(registration);
      return;
    }
    const coming = registration.installing ?? registration.waiting;
    if (!coming) return; // the visitor reloaded past it
    await Promise.race([
      new Promise((resolve) => container.addEventListener("controllerchange", () => controller() && resolve())),
      new Promise((resolve) => coming.addEventListener("statechange", () => coming.state === "redundant" && resolve())),
      new Promise((resolve) => setTimeout(resolve, CONTROL_MS)),
    ]);
  } catch {
    // Forbidden by the visitor, or not over HTTPS
  }
}

function offerUpdate(registration) {
  const offer = () => {
    if (!registration.waiting || $("reload")) return;
    const button = element("button", "Load it", { type: "button", id: "reload" });
    button.addEventListener("click", () => {
      // Another tab may have taken it already
      if (!registration.waiting) location.reload();
      navigator.serviceWorker.addEventListener("controllerchange", () => location.reload(), { once: true });
      registration.waiting?.postMessage("take over");
    });
    $("update").append("A newer version of this page is here. ", button);
  };
  offer();
  registration.addEventListener("updatefound", () => {
    registration.installing?.addEventListener("statechange", offer);
  });
}

function element(name, text, attributes = {}) {
  const made = document.createElement(name);
  made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

/** Say where things stand; told again only when it changes, for those who hear it. */
function say(text) {
  if ($("status").textContent !== text) $("status").textContent = text;
}

function problem(text) {
  $("problem").hidden = text === "";
  $("problem").textContent = text;
}

/** Say what stays true while the page is open. */
function warn(text) {
  $("warnings").append(element("p", text));
}

/** Which way a text runs, by its first letter. The browser's own way, dir="auto", takes seconds for a long text. */
function direction(text) {
  const [first] = /\p{L}/u.exec(text.slice(0, READ_FOR_DIRECTION)) ?? [];
  return first && RIGHT_TO_LEFT.test(first) ? "rtl" : "ltr";
}

function percent(share) {
  if (share > 0 && share < 0.001) return "below 0.1\u00a0%";
  if (share < 1 && share > 0.999) return "above 99.9\u00a0%";
  return `${(100 * share).toFixed(1)}\u00a0%`;
}

function number(value) {
  return String(Number(value.toPrecision(5)));
}

function milliseconds(ms) {
  return `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;
}

function megabytes(bytes) {
  return bytes < 1e5 ? `${Math.ceil(bytes / 1e3)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}
