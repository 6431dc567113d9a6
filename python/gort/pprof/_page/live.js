// The page: asks for figures while it is looked at, and keeps those of the last two minutes.
(() => {
  const $ = (id) => document.getElementById(id);
  const { Panel, el } = Charts;
  const token = new URLSearchParams(location.search).get("token");
  // As the password of Basic, which has room for every character.
  const secret = btoa(String.fromCharCode(...new TextEncoder().encode(`any:${token}`)));
  const WINDOW = 10; // seconds that quantiles are of: in one there may be no value
  const COST = 20; // we take at most one part in so many of the program's time

  /** Ask this server; the token goes where no log has it. */
  async function ask(path, options = {}) {
    const headers = token === null ? {} : { Authorization: `Basic ${secret}` };
    return fetch(path, { ...options, headers, cache: "no-store", credentials: "same-origin", redirect: "error" });
  }

  async function json(path, options) {
    const answer = await ask(path, options);
    if (!answer.ok) throw new Error((await answer.text()).trim() || `status ${answer.status}`);
    return answer.json();
  }

  const times = (name) => (s, r) => [r?.[name].p50 ?? null, r?.[name].p99 ?? null];
  const PANELS = [
    [new Panel("Goroutines", Figures.number, ["in all", "running", "ready", "waiting", "in calls"]),
      (s) => [s.goroutines.total, s.goroutines.running, s.goroutines.runnable, s.goroutines.waiting, s.goroutines.outside]],
    [new Panel("Started and switched", Figures.rate, ["switches", "started"], { hint: "Goroutines taken from run queues, and how many were started" }),
      (s, r) => [r.switches, r.spawns]],
    [new Panel("Steals, hand-offs, preemptions", Figures.rate, ["steals", "hand-offs", "preemptions"]),
      (s, r) => [r.steals, r.handOffs, r.preemptions]],
    [new Panel("CPU", Figures.percent, ["of processors"], { hint: "CPU time used, of GOMAXPROCS" }), (s, r) => [r.cpu]],
    [new Panel("Wait in the run queue", Figures.time, ["p50", "p99"], { log: true, hint: "From being ready to running, last 10 s" }), times("run_queue")],
    [new Panel("Wake-up", Figures.time, ["p50", "p99"], { log: true, hint: "The same of those only that were woken, last 10 s" }), times("wake_up")],
    [new Panel("Wait for the GIL", Figures.time, ["p50", "p99"], { log: true, hint: "Threads of the runtime, where somebody else had it, last 10 s" }), times("interpreter_lock")],
    [new Panel("Collector's pauses", Figures.time, ["p50", "p99"], { log: true, hint: "Passes of CPython's collector, last 10 s" }), times("collector")],
    [new Panel("Collector's passes", Figures.rate, ["passes"]), (s, r) => [r.collections]],
    [new Panel("Memory", Figures.bytes, ["resident", "gort's heap"], { base: 1024 }), (s) => [s.memory.resident, s.memory.heap]],
  ];
  $("panels").append(...PANELS.map(([panel]) => panel.node));

  let kept = []; // answers of the last seconds, the newest last
  let paused = false, timer = 0, lost = 0;

  /** What the state says besides the panels. */
  function tell(s, r) {
    const p = s.process;
    $("process").textContent = `pid ${p.pid}, CPython ${p.python}, gort ${p.gort}: ${p.command}`;
    $("process").title = p.command;
    document.title = `${s.goroutines.total} goroutines \u2013 gort live`;
    $("health").hidden = s.health.ok;
    $("health").textContent = s.health.ok ? "" : `\u26a0 ${s.health.reasons.join("; ")}`;
    const { machines, processors } = s;
    $("scheduler").textContent = `${processors.count} of GOMAXPROCS, ${processors.idle} idle; ${machines.count} threads, `
      + `${machines.idle} asleep, ${processors.spinning} looking for work; ${Figures.number(processors.global_queue)} goroutines in the global queue; `
      + `${Figures.number(s.timers)} timers`;
    $("processors").replaceChildren(...processors.queues.map((length, i) => el("div", { class: "processor" },
      el("b", {}, `P${i}`), ` ${Figures.number(length)} queued`, r && i < r.runs.length ? `, ${Figures.rate(r.runs[i])} taken from there` : "")));
  }

  function add(s) {
    const last = kept[kept.length - 1];
    if (last && (last.process.pid !== s.process.pid || last.process.started !== s.process.started)) {
      kept = []; PANELS.forEach(([panel]) => panel.clear());
    }
    kept.push(s);
    while (kept.length > 2 && s.now_ns - kept[1].now_ns >= WINDOW * 1e9) kept.shift();
    const before = kept[kept.length - 2];
    const r = before ? Figures.between(before, s) : null;
    const wide = before ? Figures.between(kept[0], s) : null;
    tell(s, r);
    if (!r) return;
    for (const name of Object.keys(s.latencies)) r[name] = wide[name];
    PANELS.forEach(([panel, values]) => panel.add(values(s, r)));
  }

  function link(words, kind) {
    if ($("link").textContent !== words) $("link").textContent = words;
    $("link").className = kind;
  }

  async function round() {
    clearTimeout(timer);
    let pause = Number($("interval").value);
    if (paused || document.hidden) { timer = setTimeout(round, pause); return; }
    try {
      const s = await json("state.json", { signal: AbortSignal.timeout(10000) });
      lost = 0;
      if (!paused) { add(s); link("live", ""); }
      pause = Math.max(pause, (COST * s.cost_ns) / 1e6);
    } catch (error) {
      lost ||= Date.now();
      const since = Math.round((Date.now() - lost) / 1000);
      link(`no answer for ${Figures.age(since)}, trying again`, "lost");
      $("link").title = String(error.message || error);
    }
    timer = setTimeout(round, pause);
  }

  function pause() {
    paused = !paused;
    $("pause").setAttribute("aria-pressed", String(paused));
    $("pause").textContent = paused ? "Go on" : "Pause";
    link(paused ? "paused" : "live", paused ? "paused" : "");
    if (!paused) round();
  }

  // Goroutines.
  const list = new Goroutines.List($("groups"));
  let looking = 0, answer = null, seen = null, lookTimer = 0, forced = false;

  function showGroups() {
    if (!answer) return;
    list.show(answer, $("order").value);
    const of = answer.matched === answer.total ? "" : ` of ${Figures.number(answer.total)}`;
    const more = answer.left_out ? `; ${Figures.number(answer.left_out)} smaller groups are not shown` : "";
    $("seen").textContent = `${Figures.number(answer.matched)}${of} goroutines in ${answer.groups.length} groups, seen at `
      + `${seen.toLocaleTimeString()}, which took ${Figures.time(answer.cost_ns / 1e9)} of CPU${more}`;
  }

  async function look(most) {
    const mine = ++looking;
    clearTimeout(lookTimer);
    let pause = 2 * Number($("interval").value);
    try {
      const query = new URLSearchParams({ q: $("filter").value });
      if (most) query.set("most", most);
      const found = await json(`goroutines.json?${query}`);
      if (mine !== looking) return; // another look has begun since
      forced = found.skipped;
      if (forced) { // what was looked at before stays, and says when that was
        if (answer === null) {
          $("seen").textContent = `${Figures.number(found.total)} goroutines: more than ${Figures.number(found.most)} are looked at only when you press "Look now".`;
        }
        pause *= 5;
      } else { answer = found; seen = new Date(); showGroups(); pause = Math.max(pause, (COST * answer.cost_ns) / 1e6); }
    } catch (error) {
      if (mine !== looking) return;
      $("seen").textContent = `Not seen: ${error.message || error}`;
    }
    lookTimer = setTimeout(again, pause);
  }

  function again() {
    clearTimeout(lookTimer);
    if ($("follow").checked && !paused && !document.hidden) look(); else lookTimer = setTimeout(again, 1000);
  }

  const lookNow = () => look(forced ? 99999999 : 0);

  // CPU.
  const graph = new Flame.Graph($("flame"), $("frame"), (is) => { $("whole").hidden = !is; });

  async function take() {
    const seconds = Math.min(Math.max(Number($("seconds").value) || 5, 1), 300);
    $("take").disabled = true;
    const end = Date.now() + seconds * 1000;
    const tick = setInterval(() => {
      $("taken").textContent = `Sampling: ${Math.max(Math.ceil((end - Date.now()) / 1000), 0)} s to go.`;
    }, 250);
    try {
      const profile = await json(`profile.json?seconds=${seconds}`, { method: "POST" });
      const cpu = Figures.time((profile.samples * profile.period_ns) / 1e9);
      const words = `${Figures.number(profile.samples)} samples: ${cpu} of CPU in ${Figures.time(profile.duration_ns / 1e9)}.`;
      clearInterval(tick);
      $("taken").textContent = [words, ...profile.comments].join(" ") + (profile.samples ? "" : " Nothing ran.");
      graph.show(profile);
    } catch (error) {
      clearInterval(tick);
      $("taken").textContent = `No profile: ${error.message || error}`;
    }
    $("take").disabled = false;
  }

  // The graph of who starts, wakes and waits for whom: where the server has one.
  async function drawGraph() {
    try {
      const found = await ask("concurrency.svg");
      $("graph").hidden = !found.ok;
      if (!found.ok) return;
      const old = $("graph-image").src;
      $("graph-image").src = URL.createObjectURL(new Blob([await found.arrayBuffer()], { type: "image/svg+xml" }));
      if (old) URL.revokeObjectURL(old);
    } catch { $("graph").hidden = true; }
  }

  function addToken() {
    for (const id of ["profiles", "dump", "file"]) {
      const url = new URL($(id).getAttribute("href"), location.href);
      if (id === "file") url.searchParams.set("seconds", $("seconds").value || "5");
      if (token !== null) url.searchParams.set("token", token);
      $(id).href = url.href;
    }
  }

  const KEYS = {
    p: pause, g: lookNow, c: () => { if (!$("take").disabled) take(); },
    "/": () => $("filter").focus(),
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea")) return;
    if (KEYS[event.key]) { KEYS[event.key](); event.preventDefault(); }
  });
  let typing = 0;
  $("filter").addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(look, 150); });
  $("order").addEventListener("change", showGroups);
  $("look").addEventListener("click", lookNow);
  $("pause").addEventListener("click", pause);
  $("interval").addEventListener("change", round);
  $("take").addEventListener("click", take);
  $("search").addEventListener("input", () => graph.mark($("search").value));
  $("whole").addEventListener("click", () => graph.zoom(null));
  $("graph-again").addEventListener("click", drawGraph);
  $("seconds").addEventListener("input", addToken);
  document.addEventListener("visibilitychange", () => { if (!document.hidden) { round(); again(); } });
  addToken();
  round();
  look();
  drawGraph();
})();
