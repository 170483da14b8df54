// Steps through a recorded run (RUN, from <script>.run.js): the slide's line, its code, the values, the environment.
"use strict";
const STOPS = RUN.scenes.flatMap((scene, i) => scene.stops.map((stop, k) => ({ ...stop, scene: i, first: k === 0 })));
const $ = selector => document.querySelector(selector);
const make = (name, className, text = "") => Object.assign(document.createElement(name), { className, textContent: text });
const still = matchMedia("(prefers-reduced-motion: reduce)");
const FIRST_LINE = Number($(".code").dataset.first);

// What stands in the record only where it changes is filled in: pictures, tables, values that were read.
{
  let known, picture, table, last;
  for (const stop of STOPS) {
    if (stop.first) known = new Map(), picture = [], table = null, last = {};
    if (stop.step === last.step) stop.ended ??= last.ended; // said until the next environment step
    last = stop;
    stop.before = stop.Q ? table : stop.Q ?? table;
    stop.picture = picture = stop.picture ?? picture;
    stop.Q = table = stop.Q ?? table;
    stop.ran = stop.ran.map(([place, change, writes]) => {
      const reads = { ...known.get(place), ...change };
      known.set(place, reads);
      const named = values => new Map(Object.entries(values).filter(([, v]) => v !== null).map(([k, v]) => [RUN.statements[place][3][k], v]));
      return { place, reads: named(reads), writes: named(writes) };
    });
  }
}

// Values as docs/trace.py writes them.
function row(entries) {
  const runs = [];
  for (const entry of entries.map(text)) {
    if (runs.length && runs.at(-1)[0] === entry) runs.at(-1)[1]++;
    else runs.push([entry, 1]);
  }
  return runs.map(([entry, n]) => n > 3 ? `${entry} ×${n}` : Array(n).fill(entry).join(", ")).join(", ");
}
function text(value) {
  if (Array.isArray(value)) return `[${row(value)}]`;
  if (value === true) return "True";
  if (value === false) return "False";
  if (value === null) return "None";
  if (typeof value !== "object") return String(value);
  if (value.shape) return `[${row(value.first)}${value.first.length < value.shape[0] ? ", …" : ""}] ${value.shape.join("×")}`;
  if ("items" in value) return `${value.items} items, the last ${text(value.last)}`;
  return Object.entries(value).map(([name, entry]) => `${name} ${text(entry)}`).join(", ");
}

// Of a batch one sample can be followed: y becomes y[2]. Returns [name, value].
let sample = null;
const isBatch = value => value !== null && typeof value === "object" && (value.shape || (value.probs ?? value.loc)?.shape);
function followed(name, value, j = sample) {
  if (j === null || !isBatch(value)) return [name, value];
  const batch = value.shape ? value : value.probs ?? value.loc;
  const one = batch.first[j];
  return one === undefined ? [name, value] : [`${name}${value.shape ? "" : ".probs"}[${j}]`, one];
}

// The values beside a statement: [name, value, changed, before].
function chips({ reads, writes }) {
  const read = [...reads].filter(([name, value]) => !writes.has(name) && !(value?.shape?.length > 1 && sample === null));
  const before = name => ["number", "boolean"].includes(typeof reads.get(name)) ? reads.get(name) : undefined;
  return [...read.map(([name, value]) => [...followed(name, value), false]),
    ...[...writes].map(([name, value]) => [...followed(name, value), true, before(name)])];
}
const chipText = ([name, value, changed, before]) => name + (String(value).startsWith("moved") ? " " : " = ") + text(value)
  + (changed && before !== undefined ? ` (was ${text(before)})` : "");

// The code of a statement with numbers in it: for one sample of a batch, or for the first and for one that is terminal.
function worked(ran) {
  if (sample !== null) return [formula(ran, sample)].filter(Boolean);
  const ends = [...ran.reads].find(([name, value]) => /terminated|done/.test(name) && value?.first);
  const terminal = ends ? ends[1].first.findIndex((flag, j) => j > 0 && flag === 1) : -1;
  return [formula(ran, 0), terminal > 0 ? formula(ran, terminal) : ""].filter(Boolean);
}
function formula(ran, j) {
  const code = RUN.statements[ran.place][2].replace(/\.detach\(\)|torch\.from_numpy(?=\()/g, "");
  const match = /^(.+) ([-+*\/]?)= (.*)$/.exec(code);
  if (!match || !/[-+*\/]/.test(match[3].replace(/\[[^\]]*\]/g, ""))) return "";
  const one = (name, value) => Array.isArray(value) && typeof value[j] === "number" ? [`${name}[${j}]`, value[j]] : followed(name, value, j);
  let missing = false;
  const filled = match[3].replace(/[A-Za-z_][\w.]*(?:\[[^\]]*\])*(?:\.max\(\))?/g, name => {
    if (["not", "and", "or", "if", "else"].includes(name)) return name;
    const inner = name.replace(/\.max\(\)$/, "");
    if (inner !== name && Array.isArray(ran.reads.get(inner))) return `max(${row(ran.reads.get(inner))})`;
    const value = one(name, ran.reads.get(name))[1];
    if (typeof value === "number") return value < 0 ? `(${value})` : String(value);
    if (typeof value === "boolean") return text(value);
    missing = true;
    return name;
  });
  const target = match[1].split(" = ")[0];
  if (missing || !ran.writes.has(target)) return "";
  const [name, result] = one(target, ran.writes.get(target));
  if (typeof result !== "number") return "";
  return `${name} = ${match[2] ? `${text(ran.reads.get(target))} ${match[2]} (${filled})` : filled} = ${text(result)}`;
}

// ---------------------------------------------------------------------------------------------- the environment's picture

function svg(name, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}
const draw = {
  grid([cell]) {
    const [rows, columns] = RUN.world.shape, n = 24;
    const look = { X: "hell", P: "goal", T: "goal" };
    const cells = [...RUN.world.cells].map((letter, s) => {
      const x = s % columns * n, y = Math.floor(s / columns) * n;
      return svg("g", {}, svg("rect", { x, y, width: n, height: n, class: "cell" }), ...letter in look
        ? [look[letter] === "goal" ? svg("circle", { cx: x + n / 2, cy: y + n / 2, r: 9, class: "goal" }) : svg("rect", { x: x + 2, y: y + 2, width: n - 4, height: n - 4, class: "hell" })] : [],
        ...s === cell ? [svg("rect", { x: x + 6, y: y + 6, width: n - 12, height: n - 12, class: "agent" })] : []);
    });
    return svg("svg", { viewBox: `-1 -1 ${columns * n + 2} ${rows * n + 2}`, role: "img", "aria-label": `cell ${cell}` }, ...cells);
  },
  CartPoleEnv([x, angle]) {
    const at = 75 + x * 30, degrees = angle * 180 / Math.PI;
    return svg("svg", { viewBox: "0 0 150 90", role: "img", "aria-label": `cart at ${x}, pole at ${degrees.toFixed(1)} degrees` },
      svg("line", { x1: 3, y1: 80, x2: 147, y2: 80, class: "track" }), svg("line", { x1: 3, y1: 76, x2: 3, y2: 84, class: "track" }),
      svg("line", { x1: 147, y1: 76, x2: 147, y2: 84, class: "track" }), svg("rect", { x: at - 14, y: 70, width: 28, height: 10, class: "cart" }),
      svg("line", { x1: at, y1: 72, x2: at, y2: 14, class: "pole", transform: `rotate(${degrees} ${at} 72)` }));
  },
  PendulumEnv([angle, torque]) {
    const degrees = -angle * 180 / Math.PI, width = torque * 28;
    return svg("svg", { viewBox: "0 0 150 90", role: "img", "aria-label": `pendulum at ${degrees.toFixed(0)} degrees, torque ${torque}` },
      svg("line", { x1: 45, y1: 45, x2: 45, y2: 8, class: "pole", transform: `rotate(${degrees} 45 45)` }), svg("circle", { cx: 45, cy: 45, r: 3, class: "cart" }),
      svg("line", { x1: 115, y1: 60, x2: 115, y2: 76, class: "track" }), svg("rect", { x: Math.min(115, 115 + width / 2), y: 64, width: Math.abs(width / 2), height: 8, class: "agent" }),
      svg("text", { x: 115, y: 50, "text-anchor": "middle", class: "label" }, "torque"));
  },
  text(lines) {
    const box = make("div", "text");
    box.append(...lines.map(line => make("div", "", line)));
    return box;
  },
};

// The table of Q-learning: a column for each state, coloured by value; the cell of [8] before and after.
function table(stop) {
  const box = make("table", "q"), n = RUN.world.actions.length, most = Math.max(1e-9, ...stop.Q.map(Math.abs));
  const states = stop.Q.length / n, cell = (name, textContent) => make(name, "", textContent);
  const head = box.insertRow();
  head.append(cell("th", "Q(s,a)"), ...Array.from({ length: states }, (_, s) => cell("th", String(s))));
  RUN.world.actions.forEach((action, a) => {
    const line = box.insertRow();
    line.append(cell("th", action));
    for (let s = 0; s < states; s++) {
      const value = stop.Q[s * n + a], td = line.insertCell();
      td.style.setProperty("--strength", `${Math.round(70 * Math.abs(value) / most)}%`);
      td.textContent = text(value);
      if (stop.cell?.[0] === s && stop.cell[1] === a) {
        td.className = "changed";
        td.textContent = `${text((stop.before ?? stop.Q)[s * n + a])} → ${text(value)}`;
      }
    }
  });
  box.setAttribute("aria-label", "the table Q(s,a)");
  return box;
}

// ------------------------------------------------------------------------------------------------------------- the player

let position = -1; // no stop is shown
const label = stop => stop.tag ? `[${stop.tag}]` : "between the slide's lines";

function clear() {
  for (const old of document.querySelectorAll(".values, .worked")) old.remove();
  for (const old of document.querySelectorAll(".now, .ran, .seen")) old.classList.remove("now", "ran", "seen");
}

// Shows a stop, and in a paler colour the values of the stops before it since the last environment step.
function render(announce = true) {
  clear();
  const stop = STOPS[position];
  $(".run").classList.toggle("on", position >= 0);
  $(".run .place").textContent = stop ? `${stop.tag ? `[${stop.tag}]` : "between"} ${position + 1}/${STOPS.length}` : "press →";
  $(".run input[type=range]").value = position;
  $(".run input[type=range]").setAttribute("aria-valuetext", stop ? `${label(stop)}, ${position + 1} of ${STOPS.length}` : "not begun");
  document.querySelectorAll(".run .scenes button").forEach((button, i) => button.setAttribute("aria-pressed", String(stop?.scene === i)));
  if (!stop) return void ($(".run .stage").replaceChildren(), $(".run .facts").replaceChildren());
  let first = position;
  while (first > 0 && !STOPS[first].first && !STOPS[first].gap && STOPS[first - 1].step === stop.step) first--;
  const shown = new Map();
  for (let i = first; i <= position; i++) for (const ran of STOPS[i].ran) shown.set(ran.place, [ran, i === position]);
  const lines = [];
  for (const [place, [ran, now]] of shown) {
    const [offset, rows] = RUN.statements[place];
    for (let k = 0; k < rows; k++) document.getElementById("L" + (FIRST_LINE + offset + k))?.classList.add(now ? "ran" : "seen");
    const line = document.getElementById("L" + (FIRST_LINE + offset));
    const values = chips(ran);
    if (now) lines.push(line);
    if (!values.length) continue;
    const box = make("div", "values" + (now ? "" : " earlier"));
    for (const chip of values) box.append(make("span", chip[2] ? "value changed" : "value", chipText(chip)));
    box.style.setProperty("--indent", line.querySelector("code").style.getPropertyValue("--indent"));
    line.append(box);
    for (const sum of now ? worked(ran) : []) {
      line.append(make("div", "worked", sum));
      line.lastChild.style.cssText = box.style.cssText;
    }
  }
  const slide = stop.tag && document.getElementById(stop.tag);
  if (slide) slide.classList.add("now");
  $(".run .line").innerHTML = slide ? slide.innerHTML : "";
  const picture = stop.picture.length ? [draw[RUN.world.kind](stop.picture)] : [];
  for (const { style, viewBox: { baseVal: box } } of picture.filter(element => element.viewBox)) style.width = `${Math.min(9.4, 5.6 * box.width / box.height)}rem`;
  $(".run .stage").replaceChildren(...picture, ...stop.Q ? [table(stop)] : []);
  const facts = [`after ${stop.step} ${RUN.env ? "environment step" : "update"}${stop.step === 1 ? "" : "s"}`];
  if (RUN.env) facts.push(`return so far ${text(stop.total)}`);
  if (stop.ended) facts[1] = `${stop.ended}: the episode's return is ${text(stop.total)}`;
  if (stop.gap) facts.push(`${stop.gap} lines left out before this one`);
  $(".run .facts").replaceChildren(...facts.map(fact => make("span", "", fact)));
  const said = stop.ran.flatMap(chips).filter(chip => chip[2]).map(chipText).join("; ");
  if (announce) $(".run .live").textContent = `${label(stop)}. ${said.slice(0, 300)}. ${facts.slice(1).join(". ")}`;
  follow(slide, lines);
  history.replaceState(null, "", `#${stop.tag}@${position + 1}`);
}

// Scrolls as little as is needed for the slide's line and the code to be seen.
function follow(slide, lines) {
  const narrow = getComputedStyle($(".script main")).display === "block";
  const need = (element, last = element) => {
    const column = element.closest(".slide, .code"), area = narrow ? { top: 0, bottom: $(".run").getBoundingClientRect().top } : column.getBoundingClientRect();
    const top = element.getBoundingClientRect().top - area.top - 48, bottom = last.getBoundingClientRect().bottom - area.bottom + 24;
    const by = top < 0 ? top : bottom > 0 ? Math.min(bottom, top) : 0;
    if (by) (narrow ? window : column).scrollBy({ top: by, left: 0, behavior: "instant" });
  };
  if (slide && !narrow) need(slide);
  const sorted = lines.filter(Boolean).sort((a, b) => a.id.slice(1) - b.id.slice(1));
  if (sorted.length) need(sorted[0], sorted.at(-1));
}

function go(to, announce) {
  position = Math.max(0, Math.min(STOPS.length - 1, to));
  mark("pinned", null);
  render(announce);
}
const ahead = test => { const i = STOPS.findIndex((stop, k) => k > position && test(stop, k)); return i < 0 ? STOPS.length - 1 : i; };
const newStep = (stop, k) => k > 0 && (stop.first || stop.step > STOPS[k - 1].step);
const actions = {
  forward: () => go(position + 1),
  back: () => go(position - 1),
  step: () => go(ahead(newStep)),
  update: () => go(ahead(stop => stop.tag && RUN.update.split(" ").includes(stop.tag))),
  play,
};
let timer = null;
function play() {
  const running = timer !== null;
  clearInterval(timer);
  timer = running ? null : setInterval(() => position + 1 < STOPS.length ? go(position + 1, false) : play(), still.matches ? 1600 : 800);
  if (running) render();
  const button = $(".run [data-do=play]");
  button.firstChild.textContent = running ? "play " : "pause ";
}
const KEYS = { ArrowRight: "forward", ArrowLeft: "back", s: "step", u: "update", p: "play" };
document.addEventListener("keydown", event => {
  const name = KEYS[event.key];
  if (event.key === "Escape" && position >= 0) {
    if (timer !== null) play();
    position = -1;
    return render();
  }
  const own = event.target.closest("select, textarea") || (event.target.closest("input") && event.key.startsWith("Arrow"));
  if (!name || own || event.ctrlKey || event.altKey || event.metaKey) return;
  event.preventDefault();
  actions[name]();
});
$(".run").addEventListener("click", event => {
  const button = event.target.closest("button");
  if (button?.dataset.do) actions[button.dataset.do]();
  if (button?.dataset.scene) go(STOPS.findIndex(stop => stop.scene === Number(button.dataset.scene)));
});
$(".run input[type=range]").addEventListener("input", event => go(Number(event.target.value)));
$(".run select")?.addEventListener("change", event => {
  sample = event.target.value === "" ? null : Number(event.target.value);
  if (position >= 0) render();
});
$(".run input[type=range]").max = STOPS.length - 1;

// dqn.html#12@137: position 137; if the run has been recorded anew, the next place of line 12.
function open() {
  const match = /^#(\w*)@(\d+)$/.exec(decodeURIComponent(location.hash));
  if (!match) return;
  let to = Math.max(0, Math.min(STOPS.length, Number(match[2])) - 1);
  if (match[1] && STOPS[to].tag !== match[1]) {
    const next = STOPS.findIndex((stop, k) => k >= to && stop.tag === match[1]);
    to = next < 0 ? to : next;
  }
  go(to);
}
addEventListener("hashchange", open);
requestAnimationFrame(open);
render();
