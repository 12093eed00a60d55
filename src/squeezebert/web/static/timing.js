/** Times of each form in, which one answers out. */

// Rounds in which every form runs in turn, and how long all may take; fewer rounds than the least say nothing
const ROUNDS = 15;
const LEAST_ROUNDS = 5;
const BUDGET_MS = 6000;

export function median(times) {
  const ordered = [...times].sort((a, b) => a - b);
  const middle = ordered.length >> 1;
  return ordered.length % 2 ? ordered[middle] : (ordered[middle - 1] + ordered[middle]) / 2;
}

/** The form with the least median; fp32 unless another is really faster. `medians` is form -> ms. */
export function fastest(medians) {
  let best = "fp32" in medians ? "fp32" : Object.keys(medians)[0];
  for (const [name, ms] of Object.entries(medians)) if (ms < medians[best]) best = name;
  return best;
}

/**
 * Run every form in turn and return form -> median ms. `run(form)` runs one and returns how long it took.
 *
 * In turn, so that what slows the device slows all alike; each first once untimed, so that its weights are in the
 * processor's caches again, as when it runs alone.
 */
export async function compare(forms, run, now = () => performance.now()) {
  const times = Object.fromEntries(forms.map((form) => [form, []]));
  const began = now();
  for (let round = 0; round < ROUNDS; round++) {
    for (const form of forms) {
      await run(form);
      times[form].push(await run(form));
    }
    if (round + 1 >= LEAST_ROUNDS && now() - began > BUDGET_MS) break;
  }
  return Object.fromEntries(forms.map((form) => [form, median(times[form])]));
}
