// Goroutines by what they do: groups that open, with stacks and members.
const Goroutines = (() => {
  const { el } = Charts;

  /** What tells a group from others, from one answer to the next. */
  const keyOf = (group, frames) => JSON.stringify([group.state, group.created_by, group.stack.map((n) => frames[n])]);

  /** The frame that says most: the newest that is not of the standard library or of gort itself. */
  function telling(group, frames) {
    const own = group.stack.map((n) => frames[n]);
    const ours = own.find(([, file]) => !/[/\\](lib[/\\]python3|site-packages[/\\]gort[/\\])/.test(file) && !file.startsWith("<frozen"));
    return ours || own[0] || ["(not started, or in C)", "", 0];
  }

  const base = (file) => file.split("/").pop();

  function stackOf(group, frames) {
    const list = el("ol");
    for (const n of group.stack) {
      const [name, file, line] = frames[n];
      list.append(el("li", {}, name, el("span", { class: "faint" }, `${file}:${line}`)));
    }
    if (group.stack.length === 0) list.append(el("li", {}, "no Python frames"));
    const parts = [el("h4", {}, "Stack, the newest frame first"), list];
    if (group.created_by) {
      const [name, file, line] = group.created_by;
      parts.push(el("h4", {}, "Started by"), el("ol", {}, el("li", {}, name, el("span", { class: "faint" }, `${file}:${line}`))));
    }
    return el("div", { class: "stack", tabindex: "0", role: "group", "aria-label": "Stack" }, ...parts);
  }

  function membersOf(group) {
    const list = el("ol");
    for (const one of group.members) {
      const notes = [];
      if (one.waited) notes.push(`for ${Figures.age(one.waited)}`);
      if (one.locked) notes.push("locked to its thread");
      if (one.bubble) notes.push(`bubble ${one.bubble}`);
      if (one.kept_ms) notes.push(`kept the GIL for ${one.kept_ms} ms`);
      if (one.parent) notes.push(`started by ${one.parent}`);
      for (const [key, value] of Object.entries(one.labels)) notes.push(`${key}=${value}`);
      const name = one.name === null ? "" : ` ${one.name}`;
      list.append(el("li", {}, `${one.id}${name}`, el("span", { class: "faint" }, notes.join(", "))));
    }
    const left = group.count - group.members.length;
    const title = left > 0 ? `The ${group.members.length} that wait longest, of ${Figures.number(group.count)}` : "Goroutines";
    return el("div", { tabindex: "0", role: "group", "aria-label": title }, el("h4", {}, title), list);
  }

  /** Shows an answer of goroutines.json in `place`, and keeps open what is open and the focus where it is. */
  class List {
    constructor(place) { this.place = place; this.open = new Set(); }

    show(answer, order) {
      const { frames } = answer;
      const focused = document.activeElement && this.place.contains(document.activeElement)
        ? document.activeElement.parentNode.dataset.key : null;
      const groups = [...answer.groups].sort((a, b) => b[order] - a[order] || b.count - a.count);
      const nodes = groups.map((group) => this.one(group, frames, answer.total));
      const head = el("div", { class: "head", "aria-hidden": "true" },
        ...["count", "state", "longest", "where"].map((word) => el("span", {}, word)));
      this.place.replaceChildren(...(nodes.length ? [head, ...nodes] : []));
      if (focused !== null) nodes.find((node) => node.dataset.key === focused)?.firstChild.focus();
    }

    one(group, frames, total) {
      const key = keyOf(group, frames);
      const [name, file, line] = telling(group, frames);
      const summary = el("summary", {},
        el("span", { class: "count" }, Figures.number(group.count)),
        el("span", {}, group.state),
        el("span", {}, group.longest ? Figures.age(group.longest) : "\u2013"),
        el("span", { class: "where" }, name, el("span", { class: "faint" }, file ? `  ${base(file)}:${line}` : "")));
      summary.style.setProperty("--part", `${(100 * group.count) / Math.max(total, 1)}%`);
      const node = el("details", { class: "group" }, summary);
      node.dataset.key = key;
      const fill = () => node.append(el("div", { class: "inside" }, stackOf(group, frames), membersOf(group)));
      if (this.open.has(key)) { node.open = true; fill(); }
      node.addEventListener("toggle", () => {
        if (node.open) { this.open.add(key); if (node.children.length === 1) fill(); } else this.open.delete(key);
      });
      return node;
    }
  }

  return { List };
})();
