"use strict";
// The board that shows a painting: where it is, how large, and what is drawn over it.

const board = $("board");
const view = { x: 0, y: 0, scale: 1, fits: true };
const TINT = "#ff2d87";
const STRIPES = stripes();
const tint = document.createElement("canvas");
const caret = { x: 0, y: 0, shown: false, down: false };  // the pen that the keyboard moves, and the pointer's
let dragged = null;  // sides, while they are dragged
let drawing = false;

// Two colours, so that one is seen on any picture.
function stripes() {
  const made = h("canvas", { width: 8, height: 8 });
  const pen = made.getContext("2d");
  pen.fillStyle = TINT;
  pen.fillRect(0, 0, 8, 8);
  pen.strokeStyle = "#6d28d9";
  pen.lineWidth = 2;
  for (const x of [-8, 0, 8]) { pen.moveTo(x, 8); pen.lineTo(x + 8, 0); }
  pen.stroke();
  return pen.createPattern(made, "repeat");
}

const shownSides = () => dragged || added();
const boardSize = () => [board.clientWidth, board.clientHeight];

function fit() {
  const sides = shownSides();
  const [width, height] = wholeSize(sides);
  const [wide, tall] = boardSize();
  const margin = tool === "extend" ? 44 : 12;
  view.scale = Math.min((wide - 2 * margin) / width, (tall - 2 * margin) / height);
  view.x = (wide - width * view.scale) / 2 + sides.left * view.scale;
  view.y = (tall - height * view.scale) / 2 + sides.top * view.scale;
  view.fits = true;
  redraw();
}

// Keep the point at (x, y) of the board where it is.
function zoom(by, x = boardSize()[0] / 2, y = boardSize()[1] / 2) {
  const scale = Math.min(64, Math.max(0.02, view.scale * by));
  pan((x - view.x) * (1 - scale / view.scale), (y - view.y) * (1 - scale / view.scale));
  view.scale = scale;
  redraw();
}

function pan(x, y) {
  view.x += x;
  view.y += y;
  view.fits = false;
  redraw();
}

const toPicture = (x, y) => [(x - view.x) / view.scale, (y - view.y) / view.scale];
const toBoard = (x, y) => [view.x + x * view.scale, view.y + y * view.scale];

function redraw() {
  if (drawing || !$("editor").open) return;
  drawing = true;
  requestAnimationFrame(() => { drawing = false; if ($("editor").open) draw(); });
}

function draw() {
  const ratio = devicePixelRatio;
  const [wide, tall] = boardSize().map((side) => Math.round(side * ratio));
  for (const canvas of [board, tint]) if (canvas.width !== wide || canvas.height !== tall) Object.assign(canvas, { width: wide, height: tall });
  const [pen, over] = [board, tint].map((canvas) => canvas.getContext("2d"));
  const onPicture = [view.scale * ratio, 0, 0, view.scale * ratio, view.x * ratio, view.y * ratio];
  for (const each of [pen, over]) {
    each.setTransform(1, 0, 0, 1, 0, 0);
    each.clearRect(0, 0, wide, tall);
    each.setTransform(...onPicture);
    each.imageSmoothingEnabled = view.scale * ratio < 3;
  }
  const sides = shownSides();
  drawWhole(pen, sides);
  drawMask(over, sides);
  over.setTransform(1, 0, 0, 1, 0, 0);
  over.globalCompositeOperation = "source-in";
  over.fillStyle = STRIPES;
  over.fillRect(0, 0, wide, tall);
  over.globalCompositeOperation = "source-over";
  pen.setTransform(1, 0, 0, 1, 0, 0);
  pen.globalAlpha = 0.55;
  pen.drawImage(tint, 0, 0);
  pen.globalAlpha = 1;
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  if (tool === "extend") drawFrame(pen, sides); else if (caret.shown) drawCaret(pen);
}

// Lines that are seen on any picture.
function outline(pen, path, dash = []) {
  for (const [colour, width] of [["#000a", 3.5], ["#fff", 1.5]]) {
    pen.setLineDash(dash);
    pen.strokeStyle = colour;
    pen.lineWidth = width;
    pen.beginPath();
    path();
    pen.stroke();
  }
  pen.setLineDash([]);
}

function frameOf(sides) {
  const [left, top] = toBoard(-sides.left, -sides.top);
  const [width, height] = wholeSize(sides).map((side) => side * view.scale);
  return { left, top, right: left + width, bottom: top + height, width, height };
}

function drawFrame(pen, sides) {
  const { left, top, right, bottom, width, height } = frameOf(sides);
  const [x, y] = toBoard(0, 0);
  outline(pen, () => pen.rect(x, y, painting.picture.naturalWidth * view.scale, painting.picture.naturalHeight * view.scale), [5, 5]);
  outline(pen, () => pen.rect(left, top, width, height));
  for (const [atX, atY, upright] of [[left, (top + bottom) / 2, true], [right, (top + bottom) / 2, true], [(left + right) / 2, top, false], [(left + right) / 2, bottom, false]]) {
    pen.fillStyle = "#fff";
    pen.strokeStyle = "#000a";
    pen.beginPath();
    pen.roundRect(atX - (upright ? 5 : 18), atY - (upright ? 18 : 5), upright ? 10 : 36, upright ? 36 : 10, 5);
    pen.fill();
    pen.stroke();
  }
}

function drawCaret(pen) {
  const [x, y] = toBoard(caret.x, caret.y);
  if (tool === "box") {
    if (caret.from) {
      const [fromX, fromY] = toBoard(...caret.from);
      pen.fillStyle = `${TINT}66`;
      pen.fillRect(fromX, fromY, x - fromX, y - fromY);
      outline(pen, () => pen.rect(fromX, fromY, x - fromX, y - fromY));
    }
    outline(pen, () => { pen.moveTo(x - 9, y); pen.lineTo(x + 9, y); pen.moveTo(x, y - 9); pen.lineTo(x, y + 9); });
  } else {
    outline(pen, () => pen.arc(x, y, Math.max(2, (brushSize() / 2) * view.scale), 0, 7), caret.down ? [] : [4, 3]);
  }
}

new ResizeObserver(() => { if ($("editor").open && painting.picture) { if (view.fits) fit(); else redraw(); } }).observe(board);
