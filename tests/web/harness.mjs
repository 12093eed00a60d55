/** Runs the page's modules outside a browser: a job as JSON on standard input, its results as JSON out. */

import { readFileSync } from "node:fs";

const STATIC = new URL("../../src/squeezebert/web/static/", import.meta.url);
const load = (name) => import(new URL(name, STATIC).href);
const job = JSON.parse(readFileSync(0, "utf8"));

const JOBS = {
  /** Functions of a module, called one after the other. */
  async calls({ module, calls }) {
    const found = await load(module);
    return calls.map(([name, ...values]) => found[name](...values));
  },

  /** What a table of characters makes of texts. */
  async characters({ table, texts }) {
    const { Characters } = await load("tokens.js");
    const characters = new Characters(table);
    return texts.map((text) => {
      const normal = characters.normalize(text);
      return { normal, words: characters.split(normal) };
    });
  },

  /** Texts and pairs read with the library, as the page reads them. */
  async encode({ library, tokenizer, table, facts, items }) {
    const { TextReader } = await load("tokens.js");
    const { Tokenizer } = await import(library);
    const reader = new TextReader(Tokenizer, tokenizer, table, facts);
    return items.map(([text, second]) => reader.encode(text, second));
  },

  /** Forms compared where each takes a known time, on a clock of its own. */
  async compare({ times }) {
    const { compare, fastest } = await load("timing.js");
    let clock = 0, runs = 0;
    const medians = await compare(Object.keys(times), async (form) => {
      const ms = times[form][runs++ % times[form].length];
      clock += ms;
      return ms;
    }, () => clock);
    return { medians, fastest: fastest(medians), runs };
  },
};

process.stdout.write(JSON.stringify(await JOBS[job.kind](job)));
