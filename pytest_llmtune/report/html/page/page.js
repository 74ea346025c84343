"use strict";
// Everything a model said is put in place with textContent, never as HTML.
(() => {
  const PAGE = 100;

  function element(tag, text, className) {
    const made = document.createElement(tag);
    if (text !== undefined) made.textContent = text;
    if (className) made.className = className;
    return made;
  }

  function block(title, text, className) {
    const pre = element("pre", text);
    pre.dir = "auto";
    const made = element("div", undefined, className);
    made.append(element("h4", title), pre);
    return made;
  }

  function folded(title, text) {
    const made = element("details");
    const pre = element("pre", text);
    pre.dir = "auto";
    made.append(element("summary", title), pre);
    return made;
  }

  // a button that copies a text; where the browser has no clipboard for pages from the disk, the old way
  function copier(title, text) {
    const button = element("button", title, "copy");
    button.type = "button";
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(text());
      } catch {
        const area = element("textarea", text(), "hidden");
        document.body.append(area);
        area.select();
        document.execCommand("copy");
        area.remove();
      }
      button.textContent = "Copied";
      setTimeout(() => (button.textContent = title), 1500);
    });
    return button;
  }

  // a template's {column} fields, as the plugin fills them
  function filled(text, row) {
    return text.replace(/\{\{|\}\}|\{([^{}]*)\}/g, (found, name) => (name === undefined ? found[0] : (row[name] ?? found)));
  }

  function curl(asks, row) {
    const messages = asks.messages.map((message) => ({ ...message, content: filled(message.content, row) }));
    const body = JSON.stringify({ ...asks.body, messages }).replaceAll("'", "'\\''");
    return (
      'curl "${OPENAI_BASE_URL:-https://api.openai.com/v1}/chat/completions" -H "Authorization: Bearer $OPENAI_API_KEY" ' +
      `-H "Content-Type: application/json" -d '${body}'`
    );
  }

  // the headers of a table sort it
  function sortable(table) {
    const body = table.tBodies[0];
    [...table.tHead.rows[0].cells].forEach((head, place) => {
      const button = element("button", head.textContent);
      button.type = "button";
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const value = (row) => row.cells[place].textContent.trim();
        const figure = (row) => parseFloat(value(row).replace(/[$,]/g, ""));
        const order = (a, b) => {
          const [x, y] = [figure(a), figure(b)];
          return Number.isNaN(x) || Number.isNaN(y) ? value(a).localeCompare(value(b)) : x - y;
        };
        body.append(...[...body.rows].sort((a, b) => (down ? order(b, a) : order(a, b))));
      });
    });
  }

  function blocks(all) {
    const made = element("div", undefined, "blocks");
    made.append(...all);
    return made;
  }

  const FILTERS = {
    all: () => true,
    flipped: (one) => Boolean(one.flip),
    lost: (one) => one.flip === "lost",
    gained: (one) => one.flip === "gained",
    failed: (one) => one.outcome !== "right",
    passing: (one) => one.outcome === "right",
    unknown: (one) => one.outcome === "unknown",
  };

  class Examples {
    constructor(root) {
      this.root = root;
      this.all = JSON.parse(root.querySelector(".data").textContent);
      this.body = root.querySelector("tbody");
      this.filter = root.querySelector("select");
      this.search = root.querySelector("input");
      this.sort = { key: "index", down: false };
      this.page = 0;
      this.open = new Set();
      for (const one of this.all) one.found = (one.question + "\n" + one.answer + "\n" + one.id).toLowerCase();
      this.asks = JSON.parse(root.querySelector(".asks").textContent || "null");
      // what needs a look comes first; passing rows are a choice away
      this.filter.value = ["flipped", "failed"].find((name) => this.all.some(FILTERS[name])) ?? "all";
      this.filter.addEventListener("change", () => this.show(0));
      this.search.addEventListener("input", () => this.show(0));
      root.querySelector(".previous").addEventListener("click", () => this.show(this.page - 1));
      root.querySelector(".following").addEventListener("click", () => this.show(this.page + 1));
      for (const button of root.querySelectorAll("[data-sort]")) {
        button.addEventListener("click", () => this.order(button.dataset.sort));
      }
      this.show(0);
    }

    order(key) {
      this.sort = { key, down: this.sort.key === key && !this.sort.down };
      this.show(0);
    }

    chosen() {
      const text = this.search.value.trim().toLowerCase();
      const { key, down } = this.sort;
      const compare = (a, b) => {
        const [x, y] = [a[key] ?? "", b[key] ?? ""];
        const order = typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y));
        return (down ? -order : order) || a.index - b.index;
      };
      return this.all.filter((one) => FILTERS[this.filter.value](one) && one.found.includes(text)).sort(compare);
    }

    show(page) {
      const chosen = this.chosen();
      const pages = Math.max(1, Math.ceil(chosen.length / PAGE));
      this.page = Math.min(Math.max(page, 0), pages - 1);
      const rows = chosen.slice(this.page * PAGE, (this.page + 1) * PAGE);
      this.body.replaceChildren(...rows.flatMap((one) => this.rows(one)));
      this.root.querySelector(".count").textContent = `${chosen.length} of ${this.all.length} examples`;
      this.root.querySelector(".page").textContent = `page ${this.page + 1} of ${pages}`;
      this.root.querySelector(".pages").hidden = pages === 1;
      this.root.querySelector(".previous").disabled = this.page === 0;
      this.root.querySelector(".following").disabled = this.page === pages - 1;
      for (const button of this.root.querySelectorAll("[data-sort]")) {
        const active = button.dataset.sort === this.sort.key;
        if (active) button.parentElement.setAttribute("aria-sort", this.sort.down ? "descending" : "ascending");
        else button.parentElement.removeAttribute("aria-sort");
      }
    }

    rows(one) {
      const row = element("tr");
      const cell = (label, text, className) => {
        const made = element("td", text, className);
        made.dataset.label = label;
        made.dir = "auto";
        row.append(made);
      };
      cell("Row", one.index, "n");
      cell("Outcome", one.flip ? `${one.outcome} (${one.flip})` : one.outcome, one.flip || one.outcome);
      cell("Question", one.question);
      cell("Expected", one.expected);
      cell("Answer", one.answer);
      cell("Baseline", one.before);
      cell("Score", one.score ?? "", "n");
      cell("USD per 1,000", one.cost, "n");
      const button = element("button", "Details");
      button.type = "button";
      button.setAttribute("aria-label", `Details of row ${one.index}`);
      const last = element("td");
      last.append(button);
      row.append(last);
      const detail = this.open.has(one) ? [this.detail(one)] : [];
      button.setAttribute("aria-expanded", String(detail.length > 0));
      button.addEventListener("click", () => {
        if (this.open.delete(one)) row.nextElementSibling.remove();
        else {
          this.open.add(one);
          row.after(this.detail(one));
        }
        button.setAttribute("aria-expanded", String(this.open.has(one)));
      });
      return [row, ...detail];
    }

    detail(one) {
      const row = element("tr", undefined, "detail");
      const cell = element("td");
      cell.colSpan = 9;
      cell.append(blocks(Object.entries(one.row).map(([name, value]) => block(name, value))));
      if (this.asks) cell.append(copier("Copy the request as curl", () => curl(this.asks, one.row)));
      if (one.error) cell.append(block("Error", one.error));
      if (one.votes.length) cell.append(element("h4", "Votes"), this.votes(one));
      const responses = one.responses.map((text, index) => {
        const right = one.right[index];
        const [verdict, look] = right === undefined ? ["", ""] : right ? [" (right)", "good"] : [" (wrong)", "bad"];
        const made = block(`Response ${index + 1} of ${one.responses.length}${verdict}`, text, look);
        const thought = one.thoughts[index];
        if (thought) made.append(folded("Reasoning", thought));
        return made;
      });
      cell.append(blocks(responses));
      row.append(cell);
      return row;
    }

    votes(one) {
      const list = element("ul", undefined, "votes");
      for (const [answer, count] of one.votes) {
        const item = element("li");
        const bar = element("span", undefined, "bar");
        bar.append(element("span"));
        bar.firstChild.style.width = `${(100 * count) / Math.max(count, one.responses.length)}%`;
        item.append(element("span", `${count} ×`), bar, element("bdi", answer));
        list.append(item);
      }
      return list;
    }
  }

  // "--good" in a figure stands for the CSS variable's value
  function painted(value, style) {
    if (typeof value === "string" && value.startsWith("--")) return style.getPropertyValue(value).trim();
    if (Array.isArray(value)) return value.map((item) => painted(item, style));
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, painted(item, style)]));
    }
    return value;
  }

  function draw(place, size) {
    const style = getComputedStyle(document.documentElement);
    const figure = painted(JSON.parse(document.getElementById(place.dataset.figure).textContent), style);
    const colors = painted({ color: "--text", line: "--line" }, style);
    const axis = { fixedrange: true, gridcolor: colors.line, zerolinecolor: colors.line, linecolor: colors.line, automargin: true, exponentformat: "none" };
    const layout = {
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: colors.color, family: "system-ui, sans-serif" },
      margin: { t: 28, r: 16, b: figure.data.length > 1 ? 84 : 44, l: 52 },
      legend: { orientation: "h", yref: "container", y: 0, yanchor: "bottom" },
      hoverlabel: { align: "left" },
      dragmode: false,
      ...figure.layout,
      ...size,
      xaxis: { ...axis, nticks: place.clientWidth < 500 ? 5 : 8, ...figure.layout.xaxis },
      yaxis: { ...axis, ...figure.layout.yaxis },
    };
    // no tool bar and no dragging: a finger must be able to scroll past a figure
    Plotly.react(place, figure.data, layout, { responsive: true, displayModeBar: false });
  }

  function drawAll(size = {}) {
    if (typeof Plotly !== "undefined") document.querySelectorAll("[data-figure]").forEach((place) => draw(place, size));
  }

  document.querySelectorAll(".examples").forEach((root) => new Examples(root));
  document.querySelectorAll("table.sortable").forEach(sortable);
  for (const text of document.querySelectorAll(".copied")) text.after(copier("Copy", () => text.textContent));
  // what scrolls can be reached by keyboard
  const reachable = (root) => root.querySelectorAll("pre").forEach((pre) => pre.scrollHeight > pre.clientHeight && (pre.tabIndex = 0));
  reachable(document);
  document.addEventListener("toggle", (event) => reachable(event.target), true);
  // on paper everything is open, and charts are as wide as two of a row; afterwards the page is as it was
  let opened = [];
  function printing(on) {
    document.documentElement.classList.toggle("printing", on);
    if (on) opened = [...document.querySelectorAll("details:not([open])")];
    for (const one of opened) one.open = on;
    drawAll(on ? { width: 320, height: 300 } : {});
  }
  addEventListener("beforeprint", () => printing(true));
  addEventListener("afterprint", () => printing(false));
  drawAll();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawAll());
})();
