/** Model files in, times of their forms in the browser's engine out, in turns: see browser.py. */

import * as ort from "./engine/ort.wasm.min.mjs";

/** Random token ids below 1000, which published vocabularies have, all attended to. */
function madeUp(tokens) {
  const ids = BigInt64Array.from({ length: tokens }, (_, i) => BigInt(1 + ((i * 7919 + tokens * 104729) % 998)));
  const shape = [1, tokens];
  return {
    input_ids: new ort.Tensor("int64", ids, shape),
    attention_mask: new ort.Tensor("int64", new BigInt64Array(tokens).fill(1n), shape),
    token_type_ids: new ort.Tensor("int64", new BigInt64Array(tokens), shape),
  };
}

self.onmessage = async ({ data }) => {
  const { files, lengths, threads, runs, burst } = data;
  try {
    ort.env.wasm.numThreads = threads;
    ort.env.wasm.wasmPaths = new URL("./engine/", self.location.href).href;
    const sessions = {};
    for (const [name, url] of Object.entries(files)) {
      const bytes = new Uint8Array(await (await fetch(url)).arrayBuffer());
      sessions[name] = await ort.InferenceSession.create(bytes, { executionProviders: ["wasm"] });
    }
    const times = {};
    for (const tokens of lengths) {
      const feeds = madeUp(tokens);
      for (let round = -1; round < runs; round++) {
        for (const [name, session] of Object.entries(sessions)) {
          await session.run(feeds); // its data back in the caches
          for (let i = 0; i < burst; i++) {
            const began = performance.now();
            await session.run(feeds);
            const took = performance.now() - began;
            if (round >= 0) ((times[name] ??= {})[tokens] ??= []).push(took);
          }
        }
        self.postMessage({ progress: `${tokens} tokens, round ${round + 1} of ${runs}` });
      }
    }
    self.postMessage({ times, threads: self.crossOriginIsolated ? threads : 1 });
  } catch (error) {
    self.postMessage({ error: String(error) });
  }
};
