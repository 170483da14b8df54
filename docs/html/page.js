// A line of pseudocode and its code light up together; a click pins them and puts the line into the address (dqn.html#12).
"use strict";
const byKey = (kind, key) => key === null ? [] : document.querySelectorAll(
  kind === "line" ? `[data-line="${key}"]` : `li[data-flag="${key}"], .l[data-flags~="${key}"]`);

// What an element stands for: ["line", "12"], ["flag", "double"], or null.
function meaning(element) {
  const flag = element.closest("a.flag, li[data-flag]");
  if (flag) return ["flag", (flag.dataset.flag ?? flag.closest("li").dataset.flag)];
  const line = element.closest("[data-line]");
  return line && ["line", line.dataset.line];
}

function mark(name, what) {
  for (const old of document.querySelectorAll("." + name)) old.classList.remove(name);
  if (what) for (const element of byKey(...what)) element.classList.add(name);
}

for (const [enter, leave] of [["mouseover", "mouseout"], ["focusin", "focusout"]]) {
  document.addEventListener(enter, event => mark("lit", meaning(event.target)));
  document.addEventListener(leave, () => mark("lit", null));
}

// Scrolls the column that holds `element`, and the page on narrow screens, until it stands in the upper third.
function show(element) {
  const column = element.closest(".slide, .code");
  const whole = getComputedStyle(document.querySelector(".script main")).display === "block";
  const smooth = matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth";
  const top = element.getBoundingClientRect().top;
  if (whole) scrollTo({ top: scrollY + top - innerHeight / 4, behavior: "instant" });
  else column.scrollTo({ top: column.scrollTop + top - column.getBoundingClientRect().top - column.clientHeight / 4, left: 0, behavior: smooth });
}

let cameFrom = null; // the side that was clicked stays where it is; the other one is scrolled
function pin() {
  const key = decodeURIComponent(location.hash.slice(1));
  const target = document.getElementById(key);
  const what = target && meaning(target);
  mark("pinned", what);
  if (!what) return;
  const [slide, ...code] = byKey(...what);
  const whole = getComputedStyle(document.querySelector(".script main")).display === "block";
  if (cameFrom !== "slide" && !(whole && cameFrom === null)) show(slide);
  if (cameFrom !== "code" && code.length && !(whole && cameFrom === null)) show(code[0]);
  if (whole && cameFrom === null) show(slide);
  cameFrom = null;
}
addEventListener("hashchange", pin);
requestAnimationFrame(pin); // an address with a line in it

document.addEventListener("click", event => {
  const what = meaning(event.target);
  const button = event.target.closest("button.copy");
  if (button) return void copy(button);
  if (!what || event.target.closest(".no") || !getSelection().isCollapsed) return;
  event.preventDefault();
  cameFrom = event.target.closest(".slide") ? "slide" : "code";
  const old = document.querySelector(".pinned");
  if (location.hash === "#" + what[1] && old) { // a second click lets go
    history.pushState(null, "", location.pathname + location.search);
    return pin();
  }
  if (location.hash === "#" + what[1]) pin();
  else location.hash = what[1]; // hashchange pins
});
document.addEventListener("keydown", event => {
  if (event.key !== "Escape") return;
  history.pushState(null, "", location.pathname + location.search);
  mark("pinned", null);
});

// A piece of code is copied with the imports and the other pieces that it needs, so that what is pasted works.
const lineText = line => line.querySelector("code").textContent;
const linesText = selector => [...document.querySelectorAll(selector)].map(lineText).join("\n");
const chunkText = i => linesText(`#chunk-${i} .l`).trimEnd();
function textOf(button) {
  if (button.classList.contains("whole")) return linesText(".code .l") + "\n";
  if (button.dataset.chunk === undefined) return button.parentElement.querySelector("code").textContent;
  const numbers = text => text.split(" ").filter(Boolean).map(Number);
  const imports = numbers(button.dataset.imports).map(n => lineText(document.getElementById("L" + n)));
  if (!imports.length) return chunkText(button.dataset.chunk) + "\n";
  const pieces = [...numbers(button.dataset.needs), Number(button.dataset.chunk)].sort((a, b) => a - b);
  return [imports.join("\n"), ...pieces.map(chunkText)].join("\n\n\n") + "\n";
}
async function copy(button) {
  const text = textOf(button);
  try {
    await navigator.clipboard.writeText(text);
  } catch { // an old browser, or a page from the disk that may not use the clipboard
    const area = Object.assign(document.createElement("textarea"), { value: text });
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  const before = button.textContent;
  button.textContent = "copied";
  setTimeout(() => { button.textContent = before; }, 1500);
}
