// Shows a recorded run (RUN, from <script>.run.js) on the page of its script. The strings are finished; nothing is computed here.
"use strict";
const $ = selector => document.querySelector(selector);
const $$ = selector => [...document.querySelectorAll(selector)];
const STOPS = RUN.stops.map(([tag, step, scene, ran, formula, place, title, card, caption, strip, picture]) =>
  ({ tag, step, scene, ran, formula, place, title, card, caption, strip, picture }));
const UNIT = RUN.settings.env === "language" ? "update" : "step";
const text = i => RUN.strings[i];

// What needs a script is not on the page without one.
const button = ([name, label, title]) => `<button data-do="${name}" title="${title}" aria-label="${title}">${label}</button>`;
const BUTTONS = [["back", "◀", "one line back (←)"], ["forward", "line ▶", "one line (→)"], ["step", "step ▶", `one ${UNIT} (s)`],
  ["update", "update ▶", "to the next update (u)"], ["play", "play", "play (p)"]];
const tick = ([title, stop]) =>
  `<button data-go="${stop}" style="left:${100 * stop / (STOPS.length - 1)}%" title="${title}" aria-label="${title}"></button>`;
document.documentElement.classList.add("js");
$("nav").insertAdjacentHTML("afterend", `<header class="bar">
  <div class="player" role="group" aria-label="the recorded run">${BUTTONS.map(button).join("")}</div>
  <div class="time"><div class="ticks">${RUN.scenes.map(tick).join("")}</div>
    <input type="range" min="0" max="${STOPS.length - 1}" value="0" aria-label="the run's timeline"><output></output></div>
  <div class="views">${["run", "slide", "code"].map(name => `<button data-view="${name}">${name}</button>`).join("")}</div>
  ${button(["lecture", "lecture", "lecture mode (f): slide and code, large"])}</header>`);
$("aside").insertAdjacentHTML("afterbegin", `<button class="go" data-do="forward">▶ Step through a run</button><section class="run"></section>`);
$("aside").insertAdjacentHTML("beforeend", `<h2>Ask this run</h2>
  <ol class="ask">${RUN.ask.map(([question, stop, tag]) => `<li><a href="#${tag}@${stop}">${question}</a></li>`).join("")}</ol>
  <p class="keys">→ ← line · s ${UNIT} · u update · p play · 1 2 3 ask · f lecture · Esc leave</p>`);

let at = -1; // the stop that is shown; -1: none
let timer = null;

function mark(name, elements) {
  for (const old of $$("." + name)) old.classList.remove(name);
  for (const element of elements) element.classList.add(name);
}

// Puts a line's first row at one third of the code's height.
function center(row) {
  const pane = $(".code");
  pane.scrollTop = row.offsetTop - Math.round(pane.clientHeight / 3);
}

function showLine(tag, formula = "") {
  const line = $(`.lines [data-line="${tag}"]`), heads = $$(`.head[data-line="${tag}"]`);
  mark("now", [line, ...$$(`.l[data-line="${tag}"]`)]);
  const box = $(".code .formula") ?? Object.assign(document.createElement("div"), { className: "formula" });
  box.innerHTML = formula;
  box.hidden = !formula;
  box.setAttribute("role", "status");
  heads.at(-1).after(box);
  center(heads[0]);
  if (line.offsetParent) {
    const pane = $(".slide"), top = line.offsetTop, bottom = top + line.offsetHeight;
    if (top < pane.scrollTop || bottom > pane.scrollTop + pane.clientHeight) pane.scrollTop = top - 60;
  }
  return line.innerHTML;
}

function render() {
  const stop = STOPS[at];
  document.body.classList.toggle("running", at >= 0);
  if (!stop) return void mark("ran", []), mark("now", []), $(".code .formula")?.remove();
  const [title, first] = RUN.scenes[stop.scene], output = $(".time output"), formula = text(stop.formula);
  const later = first && STOPS[first].step - STOPS[first - 1].step;
  $(".run").innerHTML = `<div class="here"><div class="line">${showLine(stop.tag, formula)}</div><div class="formula">${formula}</div></div>
    <p class="place">${text(stop.place)}</p><div class="picture">${text(stop.picture)}</div>
    <h2 class="title">${text(stop.title)}</h2><dl class="card">${text(stop.card)}</dl>
    <figure class="strip"><figcaption>${text(stop.caption)}</figcaption><div>${text(stop.strip)}</div></figure>`;
  mark("ran", stop.ran.flatMap(n => $$(`.l[data-s="${n}"]`)));
  $(".time input").value = at;
  output.textContent = `${at + 1}/${STOPS.length} · ${title}${later ? ` · ${later.toLocaleString("en")} ${UNIT}${later > 1 ? "s" : ""} later` : ""}`;
  $(".time input").setAttribute("aria-valuetext", output.textContent);
  const x = 44 + 250 * Math.min(1, stop.step / RUN.spark.lines[0].at(-1)[0]), chart = $(".chart");
  const you = chart.querySelector(".you") ?? chart.appendChild(document.createElementNS(chart.namespaceURI, "path"));
  you.setAttribute("class", "you");
  you.setAttribute("d", UNIT === "step" ? `M${x} 5V112` : "");
  $(".learning").dataset.here = UNIT === "step" ? "you are here" : "what this run learns";
  history.replaceState(null, "", `#${stop.tag}@${at}`);
}

function go(to) {
  at = Math.max(0, Math.min(STOPS.length - 1, to));
  if (document.body.dataset.view === "slide") view("run");
  render();
}

// On a narrow screen one of run, slide and code is shown.
function view(name) {
  document.body.dataset.view = name;
  for (const button of $$(".views button")) button.setAttribute("aria-pressed", String(button.dataset.view === name));
}

// The slide's letters are as large as lets all of its lines be seen.
function fit() {
  const pane = $(".slide"), most = document.body.classList.contains("lecture") ? 20 : 16;
  for (let size = most; size >= 12; size -= 0.5) {
    pane.style.setProperty("--fit", size + "px");
    if (pane.scrollHeight <= pane.clientHeight) break;
  }
}

const ahead = test => {
  const i = STOPS.findIndex((stop, k) => k > at && test(stop, STOPS[k - 1]));
  return i < 0 ? STOPS.length - 1 : i;
};
const actions = {
  forward: () => go(at + 1),
  back: () => go(at - 1),
  step: () => go(ahead((stop, before) => before && (stop.step > before.step || stop.scene > before.scene))),
  update: () => go(ahead(stop => RUN.update.split(" ").includes(stop.tag))),
  play() {
    const playing = timer !== null;
    clearInterval(timer);
    timer = playing ? null : setInterval(() => at + 1 < STOPS.length ? go(at + 1) : actions.play(), 1200);
    $("[data-do=play]").textContent = playing ? "play" : "pause";
  },
  lecture() {
    document.body.classList.toggle("lecture");
    resized();
  },
  leave() {
    if (timer !== null) actions.play();
    document.body.classList.remove("lecture");
    resized();
    at = -1;
    history.replaceState(null, "", location.pathname + location.search);
    render();
  },
};
const KEYS = { ArrowRight: "forward", ArrowLeft: "back", PageDown: "forward", PageUp: "back", s: "step", u: "update", p: "play", f: "lecture", Escape: "leave" };
document.addEventListener("keydown", event => {
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  const question = RUN.ask[Number(event.key) - 1];
  if (!question && !KEYS[event.key]) return;
  event.preventDefault();
  if (question) go(question[1]);
  else actions[KEYS[event.key]]();
});

document.addEventListener("click", event => {
  const button = event.target.closest("button"), line = event.target.closest("[data-line]");
  if (button?.dataset.do) actions[button.dataset.do]();
  else if (button?.dataset.go) go(Number(button.dataset.go));
  else if (button?.dataset.view) view(button.dataset.view), at < 0 ? resized() : render();
  else if (line && getSelection().isCollapsed) {
    event.preventDefault();
    choose(line.dataset.line);
  }
});
$(".time input").addEventListener("input", event => go(Number(event.target.value)));

// A line of the slide: during a run its next stop, otherwise its code.
function choose(tag) {
  const next = [...STOPS.keys()].map(k => (at + 1 + k) % STOPS.length).find(k => STOPS[k].tag === tag);
  if (at >= 0 && next !== undefined) return go(next);
  history.replaceState(null, "", "#" + tag);
  view("code");
  showLine(tag);
}

// Pointing at a line lights its other half.
document.addEventListener("mouseover", event => {
  const line = event.target.closest("[data-line]");
  mark("lit", line ? $$(`[data-line="${line.dataset.line}"]`) : []);
});

let down = null; // a swipe
document.addEventListener("touchstart", event => { down = event.touches[0]; }, { passive: true });
document.addEventListener("touchend", event => {
  const { clientX, clientY } = event.changedTouches[0];
  const x = clientX - down.clientX, y = clientY - down.clientY;
  if (at >= 0 && Math.abs(x) > 60 && Math.abs(x) > 3 * Math.abs(y)) go(at + (x < 0 ? 1 : -1));
});

// dqn.html#12: that line; dqn.html#12@57: that stop.
function open() {
  const [, tag, stop] = /^#(\w*)(?:@(\d+))?$/.exec(decodeURIComponent(location.hash)) ?? [];
  if (stop !== undefined) return go(Number(stop));
  if (tag && $(`.lines [data-line="${tag}"]`)) return choose(tag);
  if (!tag) center($(".head"));
}
addEventListener("hashchange", open);
function resized() {
  fit();
  center($(".head.now") ?? $(".head"));
}
addEventListener("resize", resized);
$("[aria-current]").scrollIntoView({ block: "nearest", inline: "center" });
view("run");
fit();
open();
