/** Logits in, the answer that runtime/predictor.py gives out. */

/** What logits mean: probabilities in the order of the labels, or the number. */
export function probabilities(logits, facts) {
  if (facts.task === "regression") return [...logits];
  const scaled = Array.from(logits, (logit) => (facts.calibrated_logits ? logit : logit / facts.temperature));
  if (facts.task === "multi_label") {
    // exp of a negative number only, so that nothing overflows
    return scaled.map((x) => (x >= 0 ? 1 : Math.exp(x)) / (1 + Math.exp(-Math.abs(x))));
  }
  const largest = Math.max(...scaled);
  const odds = scaled.map((x) => Math.exp(x - largest));
  const sum = odds.reduce((a, b) => a + b, 0);
  return odds.map((x) => x / sum);
}

/**
 * The answer to one text: {value} of a number, else {given, rows}, where `rows` are {label, probability, threshold,
 * given} with the likeliest first, and `given` the labels that are given. Throws an Error for what is no number.
 */
export function answer(values, facts) {
  if (!values.every(Number.isFinite)) throw new Error("the model gave no number: its file does not run on this device");
  if (facts.task === "regression") return { value: values[0] };
  const several = facts.task === "multi_label";
  const best = values.indexOf(Math.max(...values));
  const rows = facts.labels.map((label, i) => {
    const threshold = several ? facts.thresholds?.[i] ?? 0.5 : null;
    return { label, probability: values[i], threshold, given: several ? values[i] >= threshold : i === best };
  });
  const given = rows.filter((row) => row.given).map((row) => row.label);
  return { given, rows: rows.sort((a, b) => b.probability - a.probability) };
}

/** How far values are from those of the export, relative where they exceed 1, as Predictor.self_check counts it. */
export function difference(values, expected) {
  const gaps = expected.map((wanted, i) => Math.abs(values[i] - wanted) / Math.max(1, Math.abs(wanted)));
  return gaps.every(Number.isFinite) ? Math.max(...gaps) : Infinity;
}
