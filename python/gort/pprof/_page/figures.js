"use strict";
// Figures of two answers of state.json: rates of counters, quantiles of histograms; and how they are written.
const Figures = (() => {
  /** The buckets that grew, as [bucket, by how many]. */
  function grown(before, after) {
    const old = new Map(before.counts);
    return after.counts.map(([i, n]) => [i, n - (old.get(i) || 0)]).filter(([, n]) => n > 0);
  }

  /** The upper bound, in seconds, of the bucket that the quantile is in; null without values. */
  function quantile(counts, bounds, q) {
    const total = counts.reduce((sum, [, n]) => sum + n, 0);
    let left = Math.max(q * total, 1);
    for (const [i, n] of counts) {
      left -= n;
      if (left <= 0) return bounds[Math.min(i, bounds.length - 1)] / 1e9;
    }
    return null;
  }

  /** What happened each second between two answers, and how long things took. */
  function between(before, after) {
    const seconds = (after.now_ns - before.now_ns) / 1e9;
    if (!(seconds > 0)) return null;
    const rate = (name) => (after.counters[name] - before.counters[name]) / seconds;
    const old = before.processors.runs;
    const each = after.processors.runs.slice(0, old.length).map((n, i) => (n - old[i]) / seconds);
    const found = {
      seconds,
      runs: each,
      switches: each.reduce((a, b) => a + b, 0) + rate("global_pops"),
      spawns: rate("created"),
      steals: rate("steals"),
      handOffs: rate("hand_offs"),
      preemptions: rate("preemptions"),
      collections: rate("collections"),
      cpu: after.counters.cpu_available_ns > before.counters.cpu_available_ns
        ? rate("cpu_used_ns") / rate("cpu_available_ns") : 0,
    };
    for (const name of Object.keys(after.latencies)) {
      const counts = grown(before.latencies[name], after.latencies[name]);
      found[name] = { p50: quantile(counts, after.bounds_ns, 0.5), p99: quantile(counts, after.bounds_ns, 0.99) };
    }
    return found;
  }

  const scaled = (n, steps, base) => {
    let at = 0;
    while (Math.abs(n) >= base && at < steps.length - 1) { n /= base; at++; }
    const digits = n === 0 || Math.abs(n) >= 100 || (at === 0 && Number.isInteger(n)) ? 0 : Math.abs(n) >= 10 ? 1 : 2;
    return `${n.toFixed(digits)}${steps[at]}`;
  };
  const number = (n) => (Math.abs(n) < 10000 && Number.isInteger(n) ? n.toLocaleString("en") : scaled(n, ["", "k", "M", "G"], 1000));
  const rate = (n) => (n < 1000 ? `${n === 0 || n >= 10 ? Math.round(n) : n.toFixed(1)}/s` : `${number(n)}/s`);
  const bytes = (n) => scaled(n, [" B", " KiB", " MiB", " GiB", " TiB"], 1024);
  const percent = (n) => `${(100 * n).toFixed(n < 0.1 ? 1 : 0)}%`;

  /** A short time; null is one that nobody measured. */
  function time(seconds) {
    if (seconds === null || seconds === undefined) return "\u2013";
    if (seconds < 1e-6) return `${Math.round(seconds * 1e9)} ns`;
    if (seconds < 1e-3) return scaled(seconds * 1e6, [" \u00b5s"], 1000);
    if (seconds < 1) return scaled(seconds * 1e3, [" ms"], 1000);
    return scaled(seconds, [" s"], 1000);
  }

  /** A long time. */
  function age(seconds) {
    if (seconds < 60) return `${Math.floor(seconds)} s`;
    if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
    if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
    return `${Math.floor(seconds / 86400)} d ${Math.floor((seconds % 86400) / 3600)} h`;
  }

  return { between, quantile, grown, number, rate, bytes, percent, time, age };
})();
