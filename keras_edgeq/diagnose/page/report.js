"use strict";
(() => {
  const drawn = JSON.parse(document.getElementById("figures").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const coarse = matchMedia("(pointer: coarse)").matches;
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const chosen = {};

  // Colours and margins of the page; figures bring their own data.
  function themed(layout) {
    const ink = colour("--ink"), grid = colour("--grid");
    const made = {
      ...layout,
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: "system-ui, sans-serif", size: 12, color: ink },
      margin: { l: 48, r: 12, t: 34, b: 44 },
      legend: { orientation: "h", x: 0, y: 1, yanchor: "bottom", font: { color: ink } },
      hoverlabel: { bgcolor: colour("--band"), bordercolor: grid, font: { color: ink }, namelength: -1 },
      dragmode: coarse ? false : "zoom",
      shapes: (layout.shapes || []).map((one) => ({ ...one, line: { color: ink, ...one.line } })),
    };
    for (const key of Object.keys(layout).filter((name) => /^[xy]axis/.test(name))) {
      made[key] = { gridcolor: grid, zerolinecolor: grid, linecolor: grid, ...layout[key] };
    }
    return made;
  }

  function draw(name) {
    const place = document.getElementById("plot-" + name);
    const figure = (drawn[name] || [])[chosen[name] || 0];
    if (!place || !figure) return;
    const first = !place.classList.contains("js-plotly-plot");
    place.style.minHeight = figure.layout.height + "px";
    place.setAttribute("aria-label", figure.text);
    place.parentNode.querySelector(".told").textContent = figure.text;
    Plotly.react(place, figure.data, themed(figure.layout), { responsive: true, displayModeBar: false });
    if (first) {
      place.on("plotly_click", (event) => {
        const target = event.points[0].customdata;
        if (typeof target === "string") location.hash = target;
      });
    }
  }

  function choose(name, index) {
    chosen[name] = Number(index);
    const select = document.getElementById(name);
    if (select) select.value = String(index);
    draw(name);
  }

  const value = (row, column) => row.cells[column].textContent.trim();
  const size = (text) => (text === "∞" ? Infinity : text === "-∞" ? -Infinity : parseFloat(text.replace(/,/g, "")));

  // Empty cells stay last in both directions.
  function sort(table, column, down) {
    const body = table.tBodies[0], words = table.tHead.rows[0].cells[column].classList.contains("text");
    const sign = down ? -1 : 1;
    const rows = [...body.rows].sort((a, b) => {
      const left = value(a, column), right = value(b, column);
      if (!left || !right) return Number(!left) - Number(!right);
      if (words) return sign * left.localeCompare(right, undefined, { numeric: true });
      return sign * (size(left) - size(right));
    });
    body.append(...rows);
  }

  for (const table of document.querySelectorAll("table.sorts")) {
    [...table.tHead.rows[0].cells].forEach((cell, column) => {
      if (!cell.textContent) return;
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = cell.textContent;
      cell.replaceChildren(button);
      button.addEventListener("click", () => {
        const words = cell.classList.contains("text");
        const before = cell.getAttribute("aria-sort");
        const down = before ? before === "ascending" : !words;
        for (const other of cell.parentNode.cells) other.removeAttribute("aria-sort");
        cell.setAttribute("aria-sort", down ? "descending" : "ascending");
        sort(table, column, down);
      });
    });
  }

  for (const select of document.querySelectorAll("select[data-plot]")) {
    chosen[select.dataset.plot] = Number(select.value);
    select.addEventListener("change", () => choose(select.dataset.plot, select.value));
  }
  for (const shown of document.querySelectorAll("a.show")) {
    shown.addEventListener("click", () => choose(shown.dataset.plot, shown.dataset.index));
  }
  for (const button of document.querySelectorAll("button.copy")) {
    button.addEventListener("click", async () => {
      const code = button.parentNode.querySelector("code");
      try {
        await navigator.clipboard.writeText(code.textContent);
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(code);
        button.textContent = "Selected";
      }
    });
  }

  const every = () => Object.keys(drawn).forEach(draw);
  dark.addEventListener("change", every);
  every();
})();
