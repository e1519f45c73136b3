// Without this script every frame of a panel is shown, one after the other. With it, a slider under
// a panel shows one at a time and moves the line in its drawing; and the two last pictures lie on
// each other, under a divider.
"use strict";

function range(name, last, at, changed) {
  const input = document.createElement("input");
  Object.assign(input, { type: "range", min: 0, max: last, value: at });
  input.setAttribute("aria-label", name);
  input.addEventListener("input", () => changed(Number(input.value)));
  return input;
}

function slide(panel) {
  const frames = [...panel.querySelectorAll(".frame")];
  if (frames.length < 2) return;
  const { label, chart, start } = panel.dataset;
  const marker = chart && document.querySelector(`#${chart} .marker`);
  const show = (at) => {
    frames.forEach((frame, i) => { frame.hidden = i !== at; });
    const { x, value } = frames[at].dataset;
    input.setAttribute("aria-valuetext", value);
    if (marker) {
      marker.classList.add("on");
      marker.setAttribute("x1", x);
      marker.setAttribute("x2", x);
    }
  };
  const input = range(label, frames.length - 1, start, show);
  const line = document.createElement("div");
  const name = document.createElement("span");
  line.className = "slider";
  name.textContent = label;
  line.append(name, input);
  panel.append(line);
  panel.classList.add("sliding");
  show(Number(start));
}

function divide(pair) {
  const input = range("Share of the picture before the edit, in percent", 100, 50, (at) => {
    pair.style.setProperty("--at", `${at}%`);
    input.setAttribute("aria-valuetext", `${at} % before, ${100 - at} % after`);
  });
  const handle = document.createElement("div");
  handle.className = "handle";
  pair.append(input, handle);
  pair.classList.add("dividing");
}

document.querySelectorAll(".frames").forEach(slide);
document.querySelectorAll(".divider").forEach(divide);
