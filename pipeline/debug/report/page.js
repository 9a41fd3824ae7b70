"use strict";
// Data of runs enters the page as text alone: textContent, never markup.
const data = JSON.parse(document.getElementById("data").textContent);
const content = document.getElementById("rows");
const element = (tag, text, kind) => {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (kind) made.className = kind;
  return made;
};

// ---- curves: drawn again when the screen turns dark or light

async function draw() {
  const style = getComputedStyle(document.documentElement);
  let text = JSON.stringify(data.figure);
  for (const [name, placeholder] of Object.entries(data.placeholders))
    text = text.replaceAll(placeholder, style.getPropertyValue("--" + name).trim());
  const target = document.getElementById("curves");
  target.replaceChildren();
  const views = await Bokeh.embed.embed_item(JSON.parse(text), target);
  for (const root of views.roots ?? [])
    for (const model of root.model.references())
      if (model.name === "curve")
        model.on_event("tap", (event) => show(Math.round(event.x)));
  document.body.dataset.drawn = "true";
}

// ---- one step

let current = null;

async function show(step) {
  step = Math.max(data.first, Math.min(data.last, step));
  const found = data.live ? step : nearest(step);
  if (found === null) return;
  current = found;
  for (const button of document.querySelectorAll("[data-step]"))
    button.setAttribute("aria-current", String(Number(button.dataset.step) === found));
  for (const id of ["slider", "number"]) {
    const input = document.getElementById(id);
    if (input) input.value = found;
  }
  const about = data.live ? await asked("step/" + found) : data.embedded[found];
  if (current !== found) return; // another was asked for meanwhile
  content.replaceChildren();
  if (about.error) return content.append(element("p", about.error));
  content.append(element("h3", "step " + found.toLocaleString("en")), element("p", about.line, "soft"));
  if (found !== step)
    content.append(element("p", `Rows of step ${step} are not in this page; this is the nearest that is. ` +
      `For any step: python -m pipeline browse ${data.folder}`, "soft"));
  for (const row of about.rows) content.append(drawn(found, row));
  if (about.more) content.append(element("p", about.more, "soft"));
  document.body.dataset.step = found;
}

function nearest(step) {
  const steps = Object.keys(data.embedded).map(Number);
  if (!steps.length) return null;
  return steps.reduce((a, b) => (Math.abs(b - step) < Math.abs(a - step) ? b : a));
}

function drawn(step, row) {
  const card = element("article", undefined, "row");
  card.append(element("h3", "row " + row.row + (row.batch ? " of batch " + row.batch : "")));
  for (const record of row.records) {
    const box = element("div", undefined, "document");
    const span = record.tokens ? `, tokens ${record.tokens[0]}:${record.tokens[1]}` : "";
    const of = record.component ? ` (${record.component})` : "";
    box.append(element("p", `record ${record.record} of ${record.file}${of}, epoch ${record.epoch}${span}`, "soft"));
    if (record.text !== null) box.append(element("pre", record.text));
    if (data.live) box.append(findButton(record));
    card.append(box);
  }
  for (const image of row.pictures ?? []) {
    const picture = element("img");
    picture.alt = `${image.name} of row ${row.row}`;
    picture.src = image.src;
    card.append(picture);
  }
  const fields = Object.entries(row.fields);
  if (fields.length) {
    const details = element("details");
    details.append(element("summary", "fields"));
    for (const [name, value] of fields)
      details.append(element("pre", name + ": " + (typeof value === "string" ? value : JSON.stringify(value))));
    card.append(details);
  }
  return card;
}

// ---- live only

async function asked(path) {
  const answer = await fetch(path, { credentials: "same-origin" });
  return answer.json();
}

function findButton(record) {
  const button = element("button", "every step of it");
  button.addEventListener("click", async () => {
    button.disabled = true;
    const query = new URLSearchParams({ component: record.component, record: record.index });
    const found = await asked("find?" + query);
    const list = element("div", undefined, "steps");
    if (found.error) list.append(element("p", found.error));
    for (const step of found.steps ?? []) {
      const go = element("button", String(step));
      go.addEventListener("click", () => show(step));
      list.append(go);
    }
    if (found.note) list.append(element("p", found.note, "soft"));
    button.replaceWith(list);
  });
  return button;
}

for (const button of document.querySelectorAll("[data-step]"))
  button.addEventListener("click", () => show(Number(button.dataset.step)));
let waiting = 0;
for (const id of ["slider", "number"])
  document.getElementById(id)?.addEventListener("input", (event) => {
    clearTimeout(waiting);
    waiting = setTimeout(() => show(Number(event.target.value)), 60);
  });
document.addEventListener("keydown", (event) => {
  if (event.target instanceof HTMLInputElement || event.ctrlKey || event.metaKey || event.altKey) return;
  const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!by) return;
  event.preventDefault();
  if (data.live) return show((current ?? data.first) + by);
  const steps = Object.keys(data.embedded).map(Number).sort((a, b) => a - b);
  const at = steps.indexOf(current);
  show(steps[Math.max(0, Math.min(steps.length - 1, at + by))] ?? data.first);
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
draw();
if (data.shown !== null) show(data.shown);
