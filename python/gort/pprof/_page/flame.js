// A flame graph of a CPU profile, roots at the top. Every name is set as text.
const Flame = (() => {
  const { svg } = Charts;
  const ROW = 20, CHARACTER = 7.3, COLOURS = 5;

  /** The tree of the calls: each node the function, samples, those of its own, and its callees. */
  function tree(profile) {
    const root = { name: "all", file: "", line: 0, count: 0, own: 0, callees: new Map(), parent: null, depth: 0 };
    for (const [count, stack] of profile.stacks) {
      let node = root;
      node.count += count;
      for (const n of stack) {
        let next = node.callees.get(n);
        if (!next) {
          const [name, file, line] = profile.frames[n];
          next = { name, file, line, count: 0, own: 0, callees: new Map(), parent: node, depth: node.depth + 1 };
          node.callees.set(n, next);
        }
        next.count += count;
        node = next;
      }
      node.own += count;
    }
    return root;
  }

  /** One of the colours: by the module, so that what belongs together looks alike. */
  function colour(node) {
    let hash = 0;
    for (const c of node.file || node.name) hash = (hash * 31 + c.codePointAt(0)) >>> 0;
    return hash % COLOURS;
  }

  const sorted = (node) => [...node.callees.values()].sort((a, b) => b.count - a.count);

  /** The graph in `place`; what is pointed at is told in `told`. */
  class Graph {
    constructor(place, told, zoomed) {
      this.place = place; this.told = told; this.zoomed = zoomed; this.words = ""; this.root = null;
      place.addEventListener("keydown", (event) => this.key(event));
      new ResizeObserver(() => this.draw()).observe(place);
    }

    show(profile) {
      this.profile = profile; this.root = this.top = tree(profile); this.width = 0; this.draw();
    }

    mark(words) { this.words = words.trim().toLowerCase(); this.width = 0; this.draw(); }

    zoom(node) {
      if (!this.root) return;
      this.top = node || this.root; this.width = 0; this.draw();
      this.zoomed(this.top !== this.root);
      this.nodes.get(this.top)?.focus();
    }

    draw() {
      const width = this.place.clientWidth;
      if (!this.root || !width || width === this.width) return;
      this.width = width; this.nodes = new Map(); this.rows = 0;
      const picture = svg("svg", { role: "group", "aria-label": "Flame graph of CPU time" });
      for (let node = this.top.parent; node; node = node.parent) this.box(picture, node, 0, width, "above");
      this.under(picture, this.top, 0, width);
      const height = (this.rows + 1) * ROW;
      picture.setAttribute("viewBox", `0 0 ${width} ${height}`);
      picture.setAttribute("height", height);
      this.place.replaceChildren(picture);
    }

    under(picture, node, x, width) {
      const pending = [[node, x, width]];
      while (pending.length) {
        const [one, left, wide] = pending.pop();
        this.box(picture, one, left, wide, "");
        let at = left;
        for (const callee of sorted(one)) {
          const part = (wide * callee.count) / one.count;
          if (part >= 0.8) pending.push([callee, at, part]);
          at += part;
        }
      }
    }

    box(picture, node, x, width, kind) {
      this.rows = Math.max(this.rows, node.depth);
      const marked = this.words && `${node.name} ${node.file}`.toLowerCase().includes(this.words);
      const fits = Math.floor((width - 8) / CHARACTER);
      const words = fits < 3 ? "" : node.name.length <= fits ? node.name : `${node.name.slice(0, fits - 1)}\u2026`;
      const text = svg("text", { x: x + 4, y: node.depth * ROW + 14 });
      text.textContent = words;
      const group = svg("g", { class: `${kind} ${marked ? "marked" : ""}`, role: "button", tabindex: node === this.top ? 0 : -1 },
        svg("rect", { x, y: node.depth * ROW, width: Math.max(width, 1), height: ROW, rx: 2, class: `f${colour(node)}` }), text);
      group.setAttribute("aria-label", this.saying(node));
      group.addEventListener("click", () => this.zoom(node));
      group.addEventListener("mouseenter", () => this.tell(node));
      group.addEventListener("focus", () => this.tell(node));
      this.nodes.set(node, group);
      picture.append(group);
    }

    saying(node) {
      const part = node.count / Math.max(this.root.count, 1);
      const ms = (node.count * this.profile.period_ns) / 1e6;
      const own = node.own ? `, ${Figures.percent(node.own / this.root.count)} its own` : "";
      return `${node.name}: ${Figures.number(node.count)} samples, ${Figures.time(ms / 1000)} of CPU, ${Figures.percent(part)}${own}`;
    }

    tell(node) {
      this.told.textContent = `${this.saying(node)}${node.file ? `\n${node.file}:${node.line}` : ""}`;
      this.at = node;
    }

    key(event) {
      const node = [...(this.nodes || [])].find(([, group]) => group === document.activeElement)?.[0];
      if (!node) return;
      const beside = node.parent ? sorted(node.parent).filter((one) => this.nodes.has(one)) : [node];
      const next = {
        ArrowUp: () => node.parent,
        ArrowDown: () => sorted(node).find((one) => this.nodes.has(one)),
        ArrowLeft: () => beside[beside.indexOf(node) - 1],
        ArrowRight: () => beside[beside.indexOf(node) + 1],
      }[event.key];
      if (next) this.nodes.get(next())?.focus();
      else if (event.key === "Enter" || event.key === " ") this.zoom(node);
      else if (event.key === "Escape") this.zoom(null);
      else return;
      event.preventDefault();
    }
  }

  return { Graph, tree };
})();
