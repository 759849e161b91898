"use strict";
(() => {
  const root = document.documentElement;
  const query = new URLSearchParams(location.search);

  // Theme: the system's, until the reader chooses; kept where the browser lets a file keep something.
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const toggle = document.querySelector("[data-theme-toggle]");
  const current = () => root.dataset.theme || (dark.matches ? "dark" : "light");
  const name = () => {
    if (toggle) toggle.querySelector("[data-theme-name]").textContent = current() === "dark" ? "Light theme" : "Dark theme";
  };
  const remembered = () => { try { return localStorage.getItem("neuronscope-theme"); } catch { return null; } };
  const remember = (theme) => { try { localStorage.setItem("neuronscope-theme", theme); } catch { /* private window */ } };
  const wanted = query.get("theme") || remembered();
  if (wanted === "dark" || wanted === "light") root.dataset.theme = wanted;
  if (toggle) {
    toggle.hidden = false;
    toggle.addEventListener("click", () => {
      root.dataset.theme = current() === "dark" ? "light" : "dark";
      remember(root.dataset.theme);
      name();
    });
    dark.addEventListener("change", name);
    name();
  }

  const make = (tag, attributes, ...children) => {
    const element = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes || {})) element.setAttribute(key, value);
    element.append(...children);
    return element;
  };
  const data = (block) => {
    const script = block.querySelector('script[type="application/json"]');
    return script ? JSON.parse(script.textContent) : null;
  };
  const later = (action) => {
    let timer = 0;
    return () => { clearTimeout(timer); timer = setTimeout(action, 120); };
  };

  // Python's number formats, as far as tables use them: [,]d and [,].Nf, .Ng, .Ne, .N%
  const exponent = (text) => text.replace(/e([+-])(\d)$/, "e$10$2");
  const general = (value, digits) => {
    if (value === 0) return "0";
    const power = Number(value.toExponential(digits - 1).split("e")[1]);
    if (power < -4 || power >= digits) return exponent(value.toExponential(digits - 1).replace(/\.?0+e/, "e"));
    const text = value.toFixed(Math.max(0, digits - 1 - power));
    return text.includes(".") ? text.replace(/\.?0+$/, "") : text;
  };
  const grouped = (text) => {
    const [whole, rest] = text.split(".");
    const marked = whole.replace(/\B(?=(\d{3})+$)/g, ",");
    return rest === undefined ? marked : `${marked}.${rest}`;
  };
  const format = (value, form) => {
    if (value === null) return "–";
    if (value === "inf") return "∞";
    if (value === "-inf") return "−∞";
    const [, comma, digits, kind] = /^(,?)(?:\.(\d+))?([dfge%])$/.exec(form);
    let text;
    if (kind === "d") text = String(value);
    else if (kind === "f") text = value.toFixed(digits);
    else if (kind === "%") text = `${(100 * value).toFixed(digits)}%`;
    else if (kind === "e") text = exponent(value.toExponential(digits));
    else text = general(value, Math.max(1, Number(digits)));
    return (comma ? grouped(text) : text).replace(/-/g, "−");
  };

  // Tables. A row is {cells: [[text, number or null]], element}; elements are made when first shown.
  const FIRST = 200;
  const number = (value) => (value === "inf" ? Infinity : value === "-inf" ? -Infinity : value);
  const readRows = (block, body) => {
    const columns = data(block);
    if (!columns) {
      return [...body.rows].map((element) => ({
        element,
        cells: [...element.cells].map((cell) => [
          cell.textContent,
          cell.dataset.v === undefined ? null : cell.dataset.v === "-inf" ? -Infinity : cell.dataset.v === "inf" ? Infinity : Number(cell.dataset.v),
        ]),
      }));
    }
    const length = (columns[0].text || columns[0].number).length;
    const rows = [];
    for (let i = 0; i < length; i += 1) {
      rows.push({
        element: null,
        cells: columns.map((column) =>
          column.text
            ? [column.text[i], column.sort ? number(column.sort[i]) : null]
            : [format(column.number[i], column.format), number(column.number[i])]),
      });
    }
    return rows;
  };
  const texts = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });
  const startTable = (block) => {
    const body = block.querySelector("tbody");
    const heads = [...block.querySelectorAll(".tall thead th")];
    const numeric = heads.map((head) => head.classList.contains("num"));
    const filter = block.querySelector("[data-filter]");
    const all = block.querySelector("[data-all]");
    const count = block.querySelector("[data-count]");
    const total = Number(block.dataset.total);
    const elementOf = (row) => {
      row.element = row.element || make("tr", {}, ...row.cells.map(([text], i) => make("td", numeric[i] ? { class: "num" } : {}, text)));
      return row.element;
    };
    let rows = null;
    let most = FIRST;
    const draw = () => {
      rows = rows || readRows(block, body);
      const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
      const kept = words.length
        ? rows.filter((row) => { const text = row.cells.map((cell) => cell[0]).join("\u0001").toLowerCase(); return words.every((word) => text.includes(word)); })
        : rows;
      body.replaceChildren(...kept.slice(0, most).map(elementOf));
      const shown = Math.min(kept.length, most);
      count.textContent = words.length ? `${shown} of ${kept.length} matching rows (${total} in all)` : `${shown} of ${total} rows`;
      all.hidden = kept.length <= most;
      all.textContent = words.length ? `Show all ${kept.length} matching rows` : `Show all ${total} rows`;
    };
    const sort = (i) => {
      rows = rows || readRows(block, body);
      // Numbers are first sorted from the largest: that is what one looks for in a table of scores.
      const before = heads[i].getAttribute("aria-sort");
      const direction = before ? (before === "ascending" ? "descending" : "ascending") : numeric[i] ? "descending" : "ascending";
      const sign = direction === "ascending" ? 1 : -1;
      const missing = (cell) => (numeric[i] ? cell[1] === null : cell[0] === "–");
      rows.sort((a, b) => {
        const [left, right] = [a.cells[i], b.cells[i]];
        if (missing(left) || missing(right)) return missing(left) - missing(right);
        if (numeric[i]) return left[1] === right[1] ? 0 : sign * (left[1] < right[1] ? -1 : 1);
        return sign * texts.compare(left[0], right[0]);
      });
      heads.forEach((head) => head.removeAttribute("aria-sort"));
      heads[i].setAttribute("aria-sort", direction);
      draw();
    };
    heads.forEach((head, i) => head.querySelector("button").addEventListener("click", () => sort(i)));
    block.querySelector("[data-filter-label]").hidden = total < 6;
    filter.addEventListener("input", later(draw));
    all.hidden = total <= most;
    all.addEventListener("click", () => { most = Infinity; draw(); });
  };
  document.querySelectorAll("[data-table]").forEach(startTable);

  // Galleries: strips beyond the first ones are built from data when asked for, or when a filter finds them.
  const BATCH = 30;
  const SVG = "http://www.w3.org/2000/svg";
  const pictureOf = ([source, width, height, sharp, caption, tone, box, view]) => {
    const image = make("img", { src: source, width, height, alt: caption || "picture", loading: "lazy", decoding: "async" });
    if (sharp) image.className = "sharp";
    const frame = make("span", { class: "frame" }, image);
    if (box) {
      const svg = document.createElementNS(SVG, "svg");
      svg.setAttribute("viewBox", `0 0 ${view[0]} ${view[1]}`);
      svg.setAttribute("preserveAspectRatio", "none");
      svg.setAttribute("aria-hidden", "true");
      for (let i = 0; i < 2; i += 1) {
        const rect = document.createElementNS(SVG, "rect");
        ["x", "y", "width", "height"].forEach((key, j) => rect.setAttribute(key, box[j]));
        svg.append(rect);
      }
      frame.append(svg);
    }
    const holder = make("div", { class: tone === "plain" ? "picture" : `picture ${tone}` }, frame);
    if (caption || tone !== "plain") {
      const text = make("span", { class: "caption" });
      if (tone !== "plain") text.append(make("span", { class: "sign", role: "img", "aria-label": tone }, tone === "good" ? "✓" : "✗"), " ");
      text.append(caption);
      holder.append(text);
    }
    return holder;
  };
  const stripOf = ([label, note, pictures]) => {
    const head = make("div", { class: "label" }, make("b", {}, label));
    if (note) head.append(make("span", {}, note));
    return make("div", { class: "strip" }, head, make("div", { class: "pictures" }, ...pictures.map(pictureOf)));
  };
  const startGallery = (block) => {
    const holder = block.querySelector(".strips");
    const filter = block.querySelector("[data-filter]");
    const more = block.querySelector("[data-more]");
    const count = block.querySelector("[data-count]");
    if (!filter) return;
    const total = Number(block.dataset.total);
    let most = more ? BATCH : Infinity;
    let strips = null;
    const draw = () => {
      if (!strips) {
        const shown = [...holder.children].map((element) => ({ element, text: element.querySelector(".label").textContent.toLowerCase() }));
        const waiting = (data(block) || []).map((packed) => ({ packed, text: `${packed[0]} ${packed[1]}`.toLowerCase() }));
        strips = [...shown, ...waiting];
      }
      const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
      const kept = strips.filter((strip) => words.every((word) => strip.text.includes(word)));
      const shown = kept.slice(0, most);
      for (const strip of shown) strip.element = strip.element || stripOf(strip.packed);
      holder.replaceChildren(...shown.map((strip) => strip.element));
      count.textContent = words.length ? `${shown.length} of ${kept.length} matching rows (${total} in all)` : `${shown.length} of ${total} rows`;
      if (more) {
        more.hidden = kept.length <= most;
        more.textContent = `Show ${Math.min(BATCH, kept.length - shown.length)} more of ${kept.length}`;
      }
    };
    block.querySelector("[data-filter-label]").hidden = false;
    filter.addEventListener("input", later(draw));
    if (more) {
      more.hidden = false;
      more.textContent = `Show ${Math.min(BATCH, total - BATCH)} more of ${total}`;
      more.addEventListener("click", () => {
        const before = holder.children.length;
        most += BATCH;
        draw();
        // The button may be gone now: the keyboard goes on at the first new row.
        const next = holder.children[before];
        if (next) { next.tabIndex = -1; next.focus({ preventScroll: true }); }
      });
    }
  };
  document.querySelectorAll("[data-gallery]").forEach(startGallery);

  // Contents: folded on small screens, with the section being read marked.
  const contents = document.querySelector(".contents");
  if (contents) {
    if (!matchMedia("(min-width: 68rem)").matches) contents.querySelector("details").open = false;
    const links = new Map([...contents.querySelectorAll("a")].map((link) => [link.getAttribute("href").slice(1), link]));
    const watcher = new IntersectionObserver((entries) => {
      for (const entry of entries) {
        if (!entry.isIntersecting || !links.has(entry.target.id)) continue;
        links.forEach((link) => link.removeAttribute("aria-current"));
        links.get(entry.target.id).setAttribute("aria-current", "true");
      }
    }, { rootMargin: "-15% 0px -75% 0px" });
    document.querySelectorAll("main section[id]").forEach((section) => watcher.observe(section));
  }

  // ?sort=TABLE:COLUMN (once more for the other direction), ?all=TABLE: so that a view can be linked to.
  for (const wish of query.getAll("sort")) {
    const at = wish.indexOf(":");
    const block = [...document.querySelectorAll("[data-table]")].find((one) => one.dataset.table === wish.slice(0, at));
    const button = block && [...block.querySelectorAll("[data-sort]")].find((one) => one.dataset.sort === wish.slice(at + 1));
    if (button) button.click();
  }
  for (const wish of query.getAll("all")) {
    const block = [...document.querySelectorAll("[data-table]")].find((one) => one.dataset.table === wish);
    if (block) block.querySelector("[data-all]").click();
  }
})();
