// Panels with their figures and a line for each: text is only ever set as text.
const Charts = (() => {
  const SVG = "http://www.w3.org/2000/svg";
  const WIDTH = 240, HEIGHT = 74, TOP = 12, BOTTOM = 13;
  const POINTS = 121;

  /** An element with text and children. */
  function el(name, attributes = {}, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children.map(nodeOf));
    return made;
  }
  const nodeOf = (child) => (child instanceof Node ? child : document.createTextNode(String(child)));

  /** An element of SVG. */
  function svg(name, attributes = {}, ...children) {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  }

  /** The least of 1, 2, 5, 10... that is no less. */
  function rounded(most) {
    if (!(most > 0)) return 1;
    const power = 10 ** Math.floor(Math.log10(most));
    return [1, 2, 5, 10].map((n) => n * power).find((n) => n >= most * 0.999999);
  }

  /** A panel: its title, and of each series the name and how its values are written. */
  class Panel {
    constructor(title, write, names, { log = false, hint = "", base = 1 } = {}) {
      this.write = write; this.names = names; this.log = log; this.title = title; this.base = base;
      this.values = names.map(() => []);
      this.bold = names.map(() => el("b", {}, "\u2013"));
      const values = el("div", { class: names.length > 2 ? "values many" : "values" });
      names.forEach((name, i) => {
        const key = svg("svg", { viewBox: "0 0 18 8", "aria-hidden": "true" }, svg("path", { class: `s s${i}`, d: "M1 4H17" }));
        values.append(el("span", { class: "value" }, key, this.bold[i], el("span", { class: "name" }, name)));
      });
      this.chart = svg("svg", { class: "chart", role: "img", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none" });
      this.node = el("div", { class: "panel" }, el("h3", hint ? { title: hint } : {}, title), values, this.chart);
      this.lines = names.map((_, i) => svg("path", { class: `s s${i}`, "vector-effect": "non-scaling-stroke" }));
      this.most = el("span", { class: "name" });
      this.chart.append(svg("path", { class: "grid", d: `M0 ${TOP}H${WIDTH}M0 ${HEIGHT - BOTTOM}H${WIDTH}`, "vector-effect": "non-scaling-stroke" }), ...this.lines);
      this.foot = el("div", { class: "value" }, this.most);
      this.node.append(this.foot);
    }

    /** Forget what was before. */
    clear() { this.values = this.names.map(() => []); }

    /** Add a value for each series; null leaves a gap. */
    add(values) {
      values.forEach((value, i) => {
        this.values[i].push(value);
        if (this.values[i].length > POINTS) this.values[i].shift();
        this.bold[i].textContent = value === null ? "\u2013" : this.write(value);
      });
      this.draw();
    }

    /** Draw the lines anew. */
    draw() {
      const all = this.values.flat().filter((value) => value !== null);
      const most = this.base === 1024 ? Math.max(...all, 1) * 1.1 : rounded(Math.max(...all, 0));
      const least = this.log ? Math.min(...all.filter((value) => value > 0), most / 10) : 0;
      const height = HEIGHT - TOP - BOTTOM;
      const place = (value) => {
        const part = this.log ? Math.log(Math.max(value, least) / least) / Math.log(most / least) : value / most;
        return HEIGHT - BOTTOM - height * Math.min(Math.max(part || 0, 0), 1);
      };
      this.lines.forEach((line, s) => {
        let path = "", gap = true;
        this.values[s].forEach((value, i) => {
          const x = WIDTH - ((this.values[s].length - 1 - i) * WIDTH) / (POINTS - 1);
          if (value === null) { gap = true; return; }
          path += `${gap ? "M" : "L"}${x.toFixed(1)} ${place(value).toFixed(1)}`;
          if (gap) path += "h0.01";
          gap = false;
        });
        line.setAttribute("d", path);
      });
      const range = this.log ? `${this.write(least)} to ${this.write(most)}, log` : `0 to ${this.write(most)}`;
      this.most.textContent = all.length ? range : "nothing yet";
      const said = this.names.map((name, i) => `${name} ${this.bold[i].textContent}`).join(", ");
      this.chart.setAttribute("aria-label", `${this.title}: ${said}`);
    }
  }

  return { Panel, el, svg };
})();
