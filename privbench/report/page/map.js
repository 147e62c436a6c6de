(() => {
  const panel = document.getElementById("panel");
  if (!panel) return;
  const figures = [...document.querySelectorAll("#maps figure")];
  const select = document.getElementById("map-select");
  const GOALS = { identification: "of the private records re-identified", auc: "AUC, 0.5 is a coin toss", evaluator_top1: "of the classes recognised", label_accuracy: "of the labels found out" };
  const VERDICTS = { leaks: "leaks: beyond what guessing gives", "not shown to leak": "not shown to leak, which is no proof of safety", "by construction": "by construction: the protocol hands it over", "too few": "too few records to say" };
  const amount = (value, unit) => {
    for (const [size, prefix] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]]) if (value >= size) return `${(value / size).toPrecision(3)} ${prefix}${unit}`;
    return `${Number(value.toPrecision(3))} ${unit}`;
  };
  const share = (metric) => ["identification", "evaluator_top1", "label_accuracy"].includes(metric);
  const shown = (value, metric) => (value === undefined ? "–" : share(metric) ? `${fixed(100 * value, 1)} %` : fixed(value, 3));

  function load(label, used, budget, unit) {
    const part = used / budget;
    const text = `${label}: ${amount(used, unit)} of ${amount(budget, unit)} (${part >= 0.001 ? (100 * part).toPrecision(3) : "under 0.1"} %)`;
    const fill = element("i");
    fill.style.width = `${Math.min(100, 100 * part)}%`;
    return [element("p", {}, text), element("div", { class: part > 1 ? "bar over" : "bar", "aria-hidden": "true" }, fill)];
  }

  function pictures(rows) {
    const grid = element("div", { class: "images" });
    ["original", "rebuilt", "blind"].forEach((label, i) => {
      grid.append(element("span", {}, label));
      for (let j = 0; j < 4; j++) {
        const number = rows[i][j];
        grid.append(number === undefined ? element("span") : element("img", { src: data.images[number], alt: `${label} ${j + 1}` }));
      }
    });
    return grid;
  }

  function show(map, gid) {
    const part = map.parts[gid];
    if (!part) return;
    const parts = [element("h4", {}, part.name)];
    const verdict = element("p", { class: "verdict" }, VERDICTS[part.verdict] ?? part.verdict);
    verdict.dataset.verdict = part.verdict;
    verdict.style.whiteSpace = "normal";
    parts.push(verdict);
    if (part.value !== undefined) {
      const what = GOALS[part.metric] ?? part.metric.replaceAll("_", " ");
      parts.push(element("p", {}, element("b", {}, shown(part.value, part.metric)), ` ${what}`));
      parts.push(element("p", { class: "hint" }, `95 %: ${shown(part.low, part.metric)} to ${shown(part.high, part.metric)}; guessing: ${shown(part.blind, part.metric)}; ${part.n} tried${map.attack ? `; ${map.attack}` : ""}`));
    }
    if (part.slice) parts.push(element("h5", {}, "Computes"), element("p", {}, part.slice.join(", ")));
    if (part.flops_budget) parts.push(element("h5", {}, "Load in one step, of its budget"), ...load("Compute", part.flops, part.flops_budget, "FLOP"), ...load("Memory", part.memory, part.memory_budget, "B"));
    if (part.bytes_per_sample !== undefined) parts.push(element("h5", {}, "Traffic"), element("p", {}, `${amount(part.bytes_per_sample, "B")} a sample`));
    if (part.pictures) parts.push(element("h5", {}, "What it could see"), pictures(part.pictures));
    if (part.others) {
      const list = element("ul");
      for (const each of part.others) list.append(element("li", {}, `${each.attack} (${each.threat}): ${shown(each.value, each.metric)}${share(each.metric) ? "" : ` ${each.metric}`}, ${each.verdict}`));
      parts.push(element("h5", {}, "Other attacks"), list);
    }
    panel.replaceChildren(...parts);
  }

  function wire(figure) {
    const map = data.maps[figure.dataset.name];
    const svg = figure.querySelector("svg");
    if (!map || !svg) return;
    svg.setAttribute("role", "group");
    const parts = [...svg.querySelectorAll("[data-gid]")];
    const choose = (gid) => {
      for (const part of parts) part.classList.toggle("chosen", (map.blocks[part.dataset.gid] ?? part.dataset.gid) === gid);
      show(map, gid);
    };
    for (const part of parts) {
      const gid = part.dataset.gid;
      const owner = map.blocks[gid] ?? gid;
      const facts = map.parts[owner];
      if (!facts) continue;
      part.addEventListener("mouseenter", () => choose(owner));
      part.addEventListener("click", () => {
        choose(owner);
        if (matchMedia("(max-width: 62rem)").matches) panel.scrollIntoView({ block: "nearest" });
      });
      if (gid !== owner) continue; // a block: its device is walked to, not it
      part.setAttribute("tabindex", "0");
      part.setAttribute("role", "button");
      part.setAttribute("aria-label", `${facts.name}: ${facts.verdict}${facts.value === undefined ? "" : `, ${shown(facts.value, facts.metric)}`}`);
      part.addEventListener("focus", () => choose(owner));
      part.addEventListener("keydown", (event) => {
        if (event.key !== "Enter" && event.key !== " ") return;
        event.preventDefault();
        choose(owner);
      });
    }
    return () => {
      const scored = Object.entries(map.parts).filter(([, part]) => part.kind === "device" && part.value !== undefined);
      scored.sort(([, one], [, other]) => (one.metric === "mse" ? one.value - other.value : other.value - one.value));
      if (scored.length) choose(scored[0][0]);
    };
  }

  const starts = figures.map(wire);
  const pick = () => figures.forEach((figure, i) => {
    figure.hidden = figure.dataset.name !== select.value;
    if (!figure.hidden) starts[i]?.();
  });
  select.addEventListener("change", pick);
  panel.hidden = false;
  document.getElementById("map-choice").hidden = figures.length < 2;
  pick();
})();
