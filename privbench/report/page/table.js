(() => {
  const SLICE = 200;
  const columns = data.columns;
  const at = (name, row) => columns[name].of[columns[name].at[row]];
  const HEADS = [
    ["regime", "Regime"], ["attack", "Attack"], ["seat", "Seat"], [null, "95 % interval"],
    ["value", "Leakage"], ["blind", "Blind", "num"], ["accuracy", "Accuracy", "num"], ["epsilon", "ε", "num"],
    ["bytes_per_sample", "kB/sample", "num"], ["verdict", "Verdict"],
  ];
  const SEARCHED = ["study", "row", "data", "model", "regime", "defense", "threat", "attack", "variant", "seat", "metric", "verdict", "fingerprint"];
  const SHORT = { identification: "re-identified", evaluator_top1: "top-1", label_accuracy: "labels found", auc: "AUC", psnr_db: "PSNR dB", psnr_20db_rate: "PSNR from 20 dB", "ssim_0.6_rate": "SSIM from 0.6", perceptual: "perceptual distance", column_gain: "gain a column" };
  const SHARES = new Set(["identification", "evaluator_top1", "label_accuracy", "auc", "balanced_accuracy", "ssim", "psnr_20db_rate", "ssim_0.6_rate"]);
  const number = (value) => typeof value === "number";
  const state = { words: "", regime: "", goal: "", verdict: "", column: "", every: false, sort: null, down: false, shown: SLICE };
  const groups = Object.keys(data.groups);
  let chosen = [];

  const body = element("table", { class: "rows", role: "table", "aria-label": "Leakage of each seat" });
  const told = element("p", { class: "told", role: "status" });
  const more = element("button", { type: "button", id: "more-rows" });

  // ---- choosing
  function matches() {
    const words = state.words.toLowerCase().split(/\s+/).filter(Boolean);
    const tests = words.map((word) => SEARCHED.map((name) => [columns[name].at, columns[name].of.map((v) => String(v ?? "").toLowerCase().includes(word))]));
    const wanted = ["regime", "goal", "verdict", "column"].filter((name) => state[name] !== "");
    const found = [];
    for (let row = 0; row < data.count; row++) {
      if (!state.every && !at("head", row)) continue;
      if (!wanted.every((name) => String(at(name, row) ?? "") === state[name])) continue;
      if (!tests.every((test) => test.some(([place, hit]) => hit[place[row]]))) continue;
      found.push(row);
    }
    return found;
  }

  function sorted(rows) {
    const group = (row) => { const place = groups.indexOf(at("column", row)); return place < 0 ? groups.length : place; };
    const compare = (one, other) => {
      const [a, b] = [at(state.sort, one), at(state.sort, other)];
      const empty = (v) => v === null || v === "" || v === "nan";
      if (empty(a) || empty(b)) return empty(a) - empty(b); // at the end in either order
      const order = number(a) && number(b) ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
      return state.down ? -order : order;
    };
    return rows.sort((one, other) => group(one) - group(other) || (state.sort ? compare(one, other) : 0) || one - other);
  }

  // ---- drawing
  const scales = {};
  function scale(metric) {
    if (SHARES.has(metric) || /^tpr_/.test(metric ?? "")) return [0, 1];
    if (!scales[metric]) {
      const seen = [Infinity, -Infinity];
      for (let row = 0; row < data.count; row++) {
        if (at("metric", row) !== metric) continue;
        for (const name of ["value", "low", "high", "blind"]) {
          const value = at(name, row);
          if (number(value)) { seen[0] = Math.min(seen[0], value); seen[1] = Math.max(seen[1], value); }
        }
      }
      scales[metric] = seen[1] > seen[0] ? seen : [seen[0] - 1, seen[0] + 1];
    }
    return scales[metric];
  }

  function whisker(row) {
    const cell = element("td", { class: "whisker", role: "cell" });
    const value = at("value", row);
    if (!number(value)) return cell;
    const [from, to] = scale(at("metric", row));
    const x = (v) => (4 + 92 * Math.min(1, Math.max(0, (v - from) / (to - from)))).toFixed(2) + "%";
    const verdict = at("verdict", row);
    const svg = drawn("svg", { "aria-hidden": "true" });
    const marks = drawn("g", { class: verdict === "leaks" || verdict === "claim broken" ? "leaks" : verdict === "by construction" ? "given" : "" });
    const line = (name, a, b, y, z) => marks.append(drawn("line", { class: name, x1: x(a), x2: x(b), y1: y, y2: z }));
    line("base", from, to, "50%", "50%");
    const [low, high, blind] = [at("low", row), at("high", row), at("blind", row)];
    if (number(blind)) line("blind", blind, blind, "5%", "95%");
    if (at("goal", row) === "audit" && number(low)) {
      line("span", low, to, "50%", "50%"); // a bound has one end
      line("span", low, low, "30%", "70%");
    } else if (number(low) && number(high)) {
      line("span", low, high, "50%", "50%");
      line("span", low, low, "30%", "70%");
      line("span", high, high, "30%", "70%");
    }
    marks.append(drawn("circle", { class: "dot", cx: x(value), cy: "50%", r: 3.5 }));
    svg.append(marks);
    cell.append(svg);
    return cell;
  }

  const text = (value, digits, factor = 1) => (number(value) ? fixed(value * factor, digits) : value === null || value === "" ? "–" : String(value));
  const spaced = (value) => String(value ?? "").replaceAll("_", " ");

  const COVERED = {
    released: ["released", "api", "iterates"],
    updates: ["released", "api", "server", "server_active", "client", "wire"],
  };
  function epsilon(row) {
    const value = at("epsilon", row);
    if (!number(value)) return "–";
    const covers = at("epsilon_covers", row);
    return covers === at("threat", row) || COVERED[covers]?.includes(at("threat", row)) ? fixed(value, 2) : "none";
  }

  function cells(row) {
    const cell = (name, content, ...rest) => element("td", { class: name, role: "cell" }, content, ...rest);
    const metric = at("metric", row);
    const name = SHORT[metric] ?? spaced(metric);
    const variant = at("variant", row) ? ` (${spaced(at("variant", row))})` : "";
    const seat = at("seat", row) || (at("seats", row) > 1 ? `${at("seats", row)} seats` : "");
    const bound = at("goal", row) === "audit";
    const value = cell("value", metric ? (bound ? "at least " : "") + text(at("value", row), 3) : "–");
    if (metric && bound) value.append(element("br"), element("small", {}, number(at("power", row)) ? `${name}, power ${fixed(at("power", row), 2)}` : name));
    else if (metric) value.append(` [${text(at("low", row), 3)}, ${text(at("high", row), 3)}]`, element("br"), element("small", {}, name));
    const beaten = at("against_blind", row);
    if (metric && /^(no better|worse)/.test(beaten ?? "")) value.append(element("br"), element("small", { class: "beaten" }, beaten));
    const verdict = cell("verdict", at("verdict", row));
    verdict.dataset.verdict = at("verdict", row);
    const defense = at("defense", row) ? element("span", { class: "sub" }, ` +${at("defense", row)}`) : null;
    return [
      cell("who", at("regime", row) ?? "", defense),
      cell("attack", (at("attack", row) ?? "") + variant, element("br"), element("span", { class: "sub" }, at("threat", row) ?? "")),
      cell("seat", seat), whisker(row), value,
      cell("num extra", text(at("blind", row), 3)), cell("num extra", text(at("accuracy", row), 3)),
      cell("num extra", epsilon(row)), cell("num extra", text(at("bytes_per_sample", row), 2, 1e-3)), verdict,
    ];
  }

  function detail(row) {
    const list = element("dl");
    const add = (name, value) => { if (value !== null && value !== "" && value !== undefined) list.append(element("dt", {}, name), element("dd", {}, String(value))); };
    add("why", at("reason", row));
    for (const name of at("goal", row) === "audit" ? ["low", "power"] : ["value", "low", "high", "blind"]) if (at("metric", row)) add(name, at(name, row));
    add("blind is", at("blind_name", row));
    add("records (n)", at("n", row));
    add("non-members", at("n_negative", row) || null);
    add("interval over", at("over", row));
    add("note", at("note", row));
    add("goal, metric", [at("goal", row), at("metric", row)].filter(Boolean).join(", "));
    add("saw of the members", at("capture", row));
    add("recorded", at("recorded", row));
    add("pairs to learn from", at("pairs", row) ? `${at("pairs", row)}${at("n_pairs", row) === null ? "" : ` (${at("n_pairs", row)})`}` : null);
    add("rows, steps seen", at("rows_seen", row) === null ? null : `${at("rows_seen", row)}, ${at("steps_seen", row)}`);
    add("against guessing", at("against_blind", row));
    add("depth of the shallowest layer seen", at("depth", row));
    add("share of its channels", at("share_seen", row));
    add("epochs, parties", at("epochs_seen", row) === null ? null : `${at("epochs_seen", row)}, ${at("coalition", row) ?? "none"}`);
    add("accuracy", at("accuracy", row));
    add("bytes a sample", at("bytes_per_sample", row));
    add("epsilon", at("epsilon", row));
    add("data, model", [at("data", row), at("model", row)].filter(Boolean).join(", "));
    add("study, row, seed", [at("study", row), at("row", row), at("seed", row)].filter((v) => v !== "" && v !== null).join(", "));
    add("fingerprint", at("fingerprint", row));
    return element("tr", { class: "detail", role: "row" }, element("td", { colspan: HEADS.length + 1, role: "cell" }, list));
  }

  function line(row) {
    const button = element("button", { type: "button", "aria-expanded": "false", "aria-label": `Details of ${at("regime", row)}, ${at("attack", row)}, ${at("seat", row) || at("threat", row)}` });
    const made = element("tr", { class: "row", role: "row" }, element("td", { class: "open", role: "cell" }, button), ...cells(row));
    made.addEventListener("click", () => {
      const open = button.getAttribute("aria-expanded") === "true";
      button.setAttribute("aria-expanded", String(!open));
      if (open) made.nextElementSibling.remove();
      else made.after(detail(row));
    });
    return made;
  }

  function draw(from = 0) {
    const parts = document.createDocumentFragment();
    const until = Math.min(state.shown, chosen.length);
    let last = from ? at("column", chosen[from - 1]) : undefined;
    for (let i = from; i < until; i++) {
      const group = at("column", chosen[i]);
      if (i === 0 || group !== last) {
        const why = data.groups[group] ? `: ${data.groups[group]}. ` : ". ";
        const head = element("td", { colspan: HEADS.length + 1, role: "cell" }, element("b", {}, group ? group[0].toUpperCase() + group.slice(1) : "Other rows"), element("span", {}, `${why}Compare within this column.`));
        parts.append(element("tr", { class: "group", role: "row" }, head));
        last = group;
      }
      parts.append(line(chosen[i]));
    }
    if (from) rows.append(parts);
    else rows.replaceChildren(parts);
    told.textContent = `${chosen.length} of ${data.count} row${data.count === 1 ? "" : "s"}${until < chosen.length ? `, the first ${until} shown` : ""}`;
    more.hidden = until >= chosen.length;
    more.textContent = `Show ${Math.min(SLICE, chosen.length - until)} more of ${chosen.length - until}`;
  }

  function update() {
    state.shown = SLICE;
    chosen = sorted(matches());
    draw();
  }

  // ---- controls
  const heads = element("tr", { role: "row" }, element("th", { class: "nosort", scope: "col", role: "columnheader" }, element("span", { class: "skip" }, "Details")));
  for (const [name, label, kind] of HEADS) {
    const head = element("th", { scope: "col", role: "columnheader", class: (kind ?? "") + (name ? "" : " nosort") });
    if (!name) head.append(label);
    else {
      const button = element("button", { type: "button" }, label);
      head.append(button);
      head.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => {
        const numeric = ["value", "blind", "accuracy", "epsilon", "bytes_per_sample"].includes(name);
        if (state.sort !== name) [state.sort, state.down] = [name, numeric]; // largest first
        else if (state.down === numeric) state.down = !numeric;
        else state.sort = null;
        for (const other of heads.children) if (other.hasAttribute("aria-sort")) other.setAttribute("aria-sort", "none");
        if (state.sort) head.setAttribute("aria-sort", state.down ? "descending" : "ascending");
        update();
      });
    }
    heads.append(head);
  }
  const rows = element("tbody", { role: "rowgroup" });
  body.append(element("thead", { role: "rowgroup" }, heads), rows);

  const filters = element("div", { class: "filters", role: "search", "aria-label": "Filter rows" });
  const find = element("input", { type: "search", id: "find", placeholder: "device-3, lira, leaks …", autocomplete: "off" });
  let waiting = 0;
  find.addEventListener("input", () => {
    cancelAnimationFrame(waiting);
    waiting = requestAnimationFrame(() => { state.words = find.value; update(); });
  });
  filters.append(element("label", { class: "find" }, "Find", find));
  for (const [name, label] of [["regime", "Regime"], ["goal", "Goal"], ["column", "Seat column"], ["verdict", "Verdict"]]) {
    const select = element("select", { id: `filter-${name}` }, element("option", { value: "" }, "all"));
    for (const value of columns[name].of) if (value) select.append(element("option", { value }, name === "goal" ? value : spaced(value)));
    select.addEventListener("change", () => { state[name] = select.value; update(); });
    filters.append(element("label", {}, label, select));
  }
  const every = element("input", { type: "checkbox", id: "every" });
  every.addEventListener("change", () => { state.every = every.checked; update(); });
  if (columns.head.of.includes(false)) filters.append(element("label", { class: "check" }, every, "every metric and seat"));
  more.addEventListener("click", () => {
    const from = Math.min(state.shown, chosen.length);
    state.shown += SLICE;
    draw(from);
  });
  document.getElementById("table-box").append(filters, told, element("div", { class: "scroll" }, body), more);
  update();
})();
