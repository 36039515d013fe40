"use strict";
// Numbers before texts before gaps; gaps stay last in both directions.
function compare(a, b, direction) {
  if (a === "" || b === "") return (a === "") - (b === "");
  const x = Number(a), y = Number(b);
  const order = Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b, "en", { numeric: true }) : x - y;
  return direction * order;
}

for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const direction = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
      const rows = [...table.tBodies[0].rows].sort((a, b) => compare(value(a), value(b), direction));
      table.tBodies[0].append(...rows);
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
    });
  });
}

const FIRST = 24;  // cards shown before "Show all", so that the end of the page stays within reach
const cards = document.getElementById("cards");
if (cards) {
  const every = [...cards.children];
  const [sort, direction, filter, more] = ["sort", "direction", "filter", "more"].map((id) => document.getElementById(id));
  let limit = FIRST;
  const valueOf = (card) => (sort.value === "pair" ? card.dataset.index : card.dataset[sort.value] ?? "");
  const scoreText = (card) => {
    const value = valueOf(card);
    if (!/^[qx]\d+$/.test(sort.value) || value === "") return "";
    const rounded = Number(Number(value).toPrecision(3)).toLocaleString("en", { maximumSignificantDigits: 3 });
    return `${sort.value[0].toUpperCase()} = ${rounded}`.replace("-", "−");
  };
  const arrange = () => {
    const sign = Number(direction.value);
    // Equal cards keep the order of their pairs.
    every.sort((a, b) => compare(valueOf(a), valueOf(b), sign) || a.dataset.index - b.dataset.index);
    const chosen = every.filter((card) => filter.value === "" || card.dataset.generator === filter.value);
    const visible = new Set(chosen.slice(0, limit));
    for (const card of every) {
      card.hidden = !visible.has(card);
      card.querySelector(".key-value").textContent = scoreText(card);
    }
    cards.append(...every);
    document.getElementById("shown").textContent = `${visible.size} of ${chosen.length} shown`;
    more.hidden = visible.size === chosen.length;
    more.textContent = `Show all ${chosen.length}`;
  };
  [sort, direction, filter].forEach((control) => control.addEventListener("change", arrange));
  more.addEventListener("click", () => { limit = Infinity; arrange(); });
  document.querySelector(".controls").hidden = false;
  arrange();
}
