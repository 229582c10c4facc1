"use strict";
// Tools of the editor, by pointer (mouse, finger, pen) and by keyboard.

let tool = "brush";
const brushSize = () => Number($("brush-size").value);
const fingers = new Map();  // pointer id -> its place on the board
let pinch = null;
let act = null;      // of the tool, while it is used
let edges = [];      // sides that are dragged
let panning = false;

function choose(name) {
  tool = name;
  for (const button of $("editor-tools").children) button.setAttribute("aria-pressed", button.dataset.tool === name);
  $("brush-options").hidden = name !== "brush" && name !== "eraser";
  $("box-options").hidden = name !== "box";
  $("extend-options").hidden = name !== "extend";
  lift();
  board.dataset.tool = name;
  if (view.fits) requestAnimationFrame(fit); else redraw();
}

// -- what a tool does at a point of the picture

function press(x, y, { size = brushSize(), erase = tool === "eraser" } = {}) {
  Object.assign(caret, { x, y, down: true });
  if (tool === "box") caret.from = [x, y];
  else if (tool === "extend") return;
  else {
    act = { kind: "stroke", erase, points: [] };
    draft(x, y, size);
  }
  redraw();
}

function draft(x, y, size = brushSize()) {
  const pen = brushOf();
  pen.save();
  pen.strokeStyle = "#fff";
  segment(pen, act.points.at(-1) || [x, y], [x, y, size], act.erase);
  pen.restore();
  act.points.push([x, y, size]);
}

function moveTo(x, y, size) {
  Object.assign(caret, { x, y });
  if (act && caret.down) draft(x, y, size);
  redraw();
}

function lift() {
  const { from } = caret;
  if (act) acted(act, true);
  if (from) {
    const [x, y, width, height] = [Math.min(from[0], caret.x), Math.min(from[1], caret.y), Math.abs(from[0] - caret.x), Math.abs(from[1] - caret.y)];
    if (width >= 1 && height >= 1) acted({ kind: "box", x, y, width, height });
  }
  Object.assign(caret, { from: null, down: false });
  act = null;
  redraw();
}

// A second finger means the view, not the brush.
function abandon() {
  const began = act;
  Object.assign(caret, { from: null, down: false });
  act = null;
  dragged = null;
  edges = [];
  if (began) replay();
  redraw();
}

// -- pointers

function placeOf(event) {
  const { left, top } = board.getBoundingClientRect();
  return [event.clientX - left, event.clientY - top];
}
const sizeBy = (event) => (event.pointerType === "pen" && event.pressure ? brushSize() * Math.min(1, 0.2 + 1.1 * event.pressure) : brushSize());

// Sides of the frame that a point of the board takes hold of: two at a corner.
function near(x, y) {
  const { left, top, right, bottom } = frameOf(added());
  const reach = 26;
  if (x < left - reach || x > right + reach || y < top - reach || y > bottom + reach) return [];
  const across = Math.abs(x - left) < reach ? ["left"] : Math.abs(x - right) < reach ? ["right"] : [];
  const along = Math.abs(y - top) < reach ? ["top"] : Math.abs(y - bottom) < reach ? ["bottom"] : [];
  return [...across, ...along];
}

board.addEventListener("pointerdown", (event) => {
  if (event.button === 2) return;
  board.setPointerCapture(event.pointerId);
  const [x, y] = placeOf(event);
  fingers.set(event.pointerId, [x, y]);
  if (fingers.size === 2) { abandon(); pinch = spread(); return; }
  edges = tool === "extend" && event.button === 0 ? near(x, y) : [];
  panning = event.button === 1 || (tool === "extend" && !edges.length);
  if (panning) { event.preventDefault(); return; }
  caret.shown = true;
  if (edges.length) dragged = { ...added() };
  else press(...toPicture(x, y), { size: sizeBy(event), erase: tool === "eraser" || (event.buttons & 32) > 0 });
});

const spread = () => {
  const [[x, y], [toX, toY]] = fingers.values();
  return { x: (x + toX) / 2, y: (y + toY) / 2, far: Math.hypot(toX - x, toY - y) || 1 };
};

board.addEventListener("pointermove", (event) => {
  const [x, y] = placeOf(event);
  const before = fingers.get(event.pointerId);
  if (before) fingers.set(event.pointerId, [x, y]);
  if (pinch) {
    if (fingers.size < 2) return;
    const now = spread();
    pan(now.x - pinch.x, now.y - pinch.y);
    zoom(now.far / pinch.far, now.x, now.y);
    pinch = now;
  } else if (panning && before) {
    pan(x - before[0], y - before[1]);
  } else if (dragged) {
    drag(...toPicture(x, y));
  } else if (caret.down && before) {
    for (const each of event.getCoalescedEvents?.() || [event]) moveTo(...toPicture(...placeOf(each)), sizeBy(each));
    if (act === null) moveTo(...toPicture(x, y));
  } else if (event.pointerType !== "touch" && !caret.down) {
    caret.shown = true;
    moveTo(...toPicture(x, y));
  }
  if (tool === "extend" && !before) board.style.cursor = CURSORS[near(x, y).join(" ")] || "grab";
});
const CURSORS = { left: "ew-resize", right: "ew-resize", top: "ns-resize", bottom: "ns-resize", "left top": "nwse-resize", "right bottom": "nwse-resize", "left bottom": "nesw-resize", "right top": "nesw-resize" };

function drag(x, y) {
  const { naturalWidth, naturalHeight } = painting.picture;
  const by = { left: -x, top: -y, right: x - naturalWidth, bottom: y - naturalHeight };
  for (const side of edges) dragged[side] = Math.max(0, Math.round(by[side] / model.size_multiple) * model.size_multiple);
  showSides(dragged);
  redraw();
}

function released(event) {
  if (!fingers.delete(event.pointerId)) return;
  if (fingers.size === 0) pinch = null;
  if (dragged) { const sides = dragged; dragged = null; edges = []; extend(sides); if (view.fits) fit(); }
  else if (!panning && !pinch) lift();
  if (event.pointerType === "touch") caret.shown = false;
  panning = false;
}
board.addEventListener("pointerup", released);
board.addEventListener("pointercancel", (event) => { abandon(); released(event); });
board.addEventListener("pointerleave", () => { if (!caret.down && document.activeElement !== board) { caret.shown = false; redraw(); } });
board.addEventListener("contextmenu", (event) => event.preventDefault());
board.addEventListener("wheel", (event) => {
  event.preventDefault();
  const [x, y] = placeOf(event);
  if (event.shiftKey) return pan(-event.deltaY, 0);
  zoom(Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.0015)), x, y);
}, { passive: false });

// -- keyboard

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
board.addEventListener("focus", () => { if (painting.picture && board.matches(":focus-visible")) { caret.shown = true; redraw(); } });
board.addEventListener("blur", () => { lift(); caret.shown = false; redraw(); });
board.addEventListener("keydown", (event) => {
  const arrow = ARROWS[event.key];
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (arrow) {
    const far = event.shiftKey ? 1 : Math.max(1, Math.round(Math.max(painting.mask.width, painting.mask.height) / 32));
    if (tool === "extend") return extendBy(arrow, event);
    caret.shown = true;
    const [x, y] = [[caret.x, painting.mask.width], [caret.y, painting.mask.height]].map(([at, whole], i) => Math.max(0, Math.min(whole, Math.round(at + far * arrow[i]))));
    moveTo(x, y);
    keepInSight(x, y);
  } else if ((event.key === " " || event.key === "Enter") && tool !== "extend") {
    if (!event.repeat) { caret.shown = true; if (caret.down) lift(); else press(caret.x, caret.y); tellPen(); }
  } else return;
  event.preventDefault();
});

function extendBy([x, y], event) {
  event.preventDefault();
  const side = x < 0 ? "left" : x > 0 ? "right" : y < 0 ? "top" : "bottom";
  const sides = { ...added() };
  sides[side] = Math.max(0, sides[side] + (event.shiftKey ? -1 : 1) * model.size_multiple);
  extend(sides);
  if (view.fits) fit();
}

// The pen stays in sight.
function keepInSight(x, y) {
  const [atX, atY] = toBoard(x, y);
  const [wide, tall] = boardSize();
  const into = (at, whole) => (at < 0 ? -at + whole / 4 : at > whole ? whole - at - whole / 4 : 0);
  if (into(atX, wide) || into(atY, tall)) pan(into(atX, wide), into(atY, tall));
}
