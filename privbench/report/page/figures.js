(() => {
  const colours = () => getComputedStyle(document.documentElement);
  const resolved = (value, style) => value.replace(/var\((--[\w-]+)(?:,\s*([^()]*))?\)/g, (_, name, other) => style.getPropertyValue(name).trim() || other || "");

  // A copy that stands alone: the theme's colours written out, sizes of its own.
  function copy(svg) {
    const made = svg.cloneNode(true);
    const style = colours();
    for (const each of [made, ...made.querySelectorAll("*")]) {
      for (const name of ["style", "fill", "stroke"]) if (each.hasAttribute(name)) each.setAttribute(name, resolved(each.getAttribute(name), style));
      for (const name of ["tabindex", "role", "class", "aria-pressed"]) each.removeAttribute(name);
    }
    const [, , width, height] = svg.getAttribute("viewBox").split(/\s+/).map(Number);
    made.setAttribute("width", width);
    made.setAttribute("height", height);
    return { text: new XMLSerializer().serializeToString(made), width, height };
  }

  function save(blob, name) {
    const link = element("a", { href: URL.createObjectURL(blob), download: name });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  function picture(svg, name) {
    const { text, width, height } = copy(svg);
    const image = new Image();
    image.onload = () => {
      const canvas = element("canvas", { width: Math.round(2 * width), height: Math.round(2 * height) });
      canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
      canvas.toBlob((blob) => save(blob, `${name}.png`), "image/png");
    };
    image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(text)}`;
  }

  for (const figure of document.querySelectorAll("figure.drawing")) {
    const name = figure.dataset.name;
    const svg = figure.querySelector("svg");
    const box = figure.querySelector(".canvas");
    box.tabIndex = 0;
    box.setAttribute("role", "region");
    box.setAttribute("aria-label", `${figure.querySelector("h3").textContent} (figure)`);
    figure.querySelector(".save").hidden = false;
    figure.querySelector('[data-save="svg"]').addEventListener("click", () => save(new Blob([copy(svg).text], { type: "image/svg+xml" }), `${name}.svg`));
    figure.querySelector('[data-save="png"]').addEventListener("click", () => picture(svg, name));
    figure.querySelector('[data-save="csv"]').addEventListener("click", () => save(new Blob([data.numbers[name]], { type: "text/csv" }), `${name}.csv`));
  }
})();
