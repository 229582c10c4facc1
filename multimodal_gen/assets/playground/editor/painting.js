"use strict";
// The picture of an edit: what is painted on it and added around it, as a list of acts that can be
// undone. Lengths are pixels of the picture, from its upper left corner.

const SIDES = ["left", "top", "right", "bottom"];
const painting = { of: "image", source: null, picture: null, mask: document.createElement("canvas"), first: null, acts: [], undone: [], known: null };
const added = () => painting.acts.findLast((act) => act.kind === "extend")?.sides || { left: 0, top: 0, right: 0, bottom: 0 };
const isExtended = () => SIDES.some((side) => added()[side]);
const brushOf = () => painting.mask.getContext("2d", { willReadFrequently: true });

function pictureOf(url) {
  return new Promise((done, failed) => {
    const img = new Image();
    img.onload = () => done(img);
    img.onerror = () => failed(new Error("it is not a picture"));
    img.src = url;
  });
}

// Another picture or mask begins anew; those that were edited last go on, and can be undone.
async function paintOn(source, mask) {
  if (painting.known && painting.known[0] === source && painting.known[1] === mask) return;
  const picture = await pictureOf(source);
  const first = mask ? opaque(await pictureOf(mask), picture) : null;
  Object.assign(painting, { source, picture, first, acts: [], undone: [], known: [source, mask] });
  Object.assign(painting.mask, { width: picture.naturalWidth, height: picture.naturalHeight });
  replay();
}

// A mask as the server takes it (what is transparent changes, else what is white), as a canvas that
// is opaque where the picture changes.
function opaque(mask, { naturalWidth: width, naturalHeight: height }) {
  const made = h("canvas", { width, height });
  const pen = made.getContext("2d");
  pen.drawImage(mask, 0, 0, width, height);
  const pixels = pen.getImageData(0, 0, width, height);
  const { data } = pixels;
  let sees = false;
  for (let i = 3; i < data.length && !sees; i += 4) sees = data[i] < 255;
  for (let i = 0; i < data.length; i += 4) {
    const change = sees ? 255 - data[i + 3] : Math.round(0.299 * data[i] + 0.587 * data[i + 1] + 0.114 * data[i + 2]);
    data[i] = data[i + 1] = data[i + 2] = 255;
    data[i + 3] = change;
  }
  pen.putImageData(pixels, 0, 0);
  return made;
}

const ACTS = {
  stroke(pen, { points, erase }) { points.forEach((point, i) => segment(pen, points[i - 1] || point, point, erase)); },
  box(pen, { x, y, width, height }) { pen.fillRect(x, y, width, height); },
  clear(pen) { pen.clearRect(0, 0, painting.mask.width, painting.mask.height); },
  invert(pen) {
    pen.globalCompositeOperation = "xor";
    pen.fillRect(0, 0, painting.mask.width, painting.mask.height);
  },
  extend() { /* it is around the picture */ },
};

function perform(act) {
  const pen = brushOf();
  pen.save();
  pen.fillStyle = pen.strokeStyle = "#fff";
  ACTS[act.kind](pen, act);
  pen.restore();
}

function segment(pen, [fromX, fromY], [x, y, size], erase) {
  pen.globalCompositeOperation = erase ? "destination-out" : "source-over";
  pen.lineCap = "round";
  pen.lineWidth = size;
  pen.beginPath();
  pen.moveTo(fromX, fromY);
  pen.lineTo(x, y + (fromX === x && fromY === y ? 0.01 : 0));  // a point is a line, too
  pen.stroke();
}

function replay() {
  const pen = brushOf();
  pen.clearRect(0, 0, painting.mask.width, painting.mask.height);
  if (painting.first) pen.drawImage(painting.first, 0, 0);
  painting.acts.forEach(perform);
  tell("painting");
}

// Strokes are performed while they are drawn.
function acted(act, performed = false) {
  painting.acts.push(act);
  painting.undone.length = 0;
  if (!performed) perform(act);
  tell("painting");
}

function undo() { if (painting.acts.length) { painting.undone.push(painting.acts.pop()); replay(); } }
function redo() { if (painting.undone.length) { painting.acts.push(painting.undone.pop()); replay(); } }

// Sides of whole pixels, so that width and height are multiples of the model's.
function extend(sides) {
  const { naturalWidth, naturalHeight } = painting.picture;
  const wanted = Object.fromEntries(SIDES.map((side) => [side, Math.max(0, Math.round(Number(sides[side]) || 0))]));
  for (const [near, far, own] of [["left", "right", naturalWidth], ["top", "bottom", naturalHeight]]) {
    if (!(wanted[near] + wanted[far])) continue;
    const larger = wanted[near] > wanted[far] ? near : far;
    wanted[larger] += (model.size_multiple - ((own + wanted[near] + wanted[far]) % model.size_multiple)) % model.size_multiple;
  }
  if (JSON.stringify(wanted) !== JSON.stringify(added())) acted({ kind: "extend", sides: wanted });
  return wanted;
}

const wholeSize = (sides = added()) => [painting.picture.naturalWidth + sides.left + sides.right, painting.picture.naturalHeight + sides.top + sides.bottom];

// Size of the result, and whether the model's limits make the picture smaller in it than it would
// be alone.
function resultSize(sides = added()) {
  const [width, height] = wholeSize(sides);
  const { size_multiple: step, limits, defaults, picture_size: rule } = model;
  const usual = Math.sqrt((defaults.width * defaults.height) / (painting.mask.width * painting.mask.height));
  const wanted = rule === "own" ? 1 : rule === "within" ? Math.min(1, usual) : usual;
  const scale = Math.min(wanted, largestSide() / width, largestSide() / height, Math.sqrt(limits.max_pixels / (width * height)));
  const [wide, tall] = [width, height].map((side) => Math.max(step, Math.min(Math.round((side * scale) / step) * step, Math.floor(largestSide() / step) * step)));
  return { width: wide, height: tall, isSmaller: scale < wanted };
}

// Draw the picture, and around it the colours of its edges.
function drawWhole(pen, { left, top, right, bottom }) {
  const { picture } = painting;
  const { naturalWidth: width, naturalHeight: height } = picture;
  const columns = [[0, 1, -left, left], [0, width, 0, width], [width - 1, 1, width, right]];
  const lines = [[0, 1, -top, top], [0, height, 0, height], [height - 1, 1, height, bottom]];
  for (const [x, w, toX, toW] of columns) for (const [y, hgt, toY, toH] of lines) if (toW && toH) pen.drawImage(picture, x, y, w, hgt, toX, toY, toW, toH);
}

// The mask, opaque where the picture changes: what is painted, what is added, and a strip beside
// that, in which the old fades into the new.
function drawMask(pen, sides) {
  const { naturalWidth: width, naturalHeight: height } = painting.picture;
  const [whole, tall] = wholeSize(sides);
  const strip = Math.max(2, Math.round(Math.min(width, height) / 24));
  pen.fillStyle = "#fff";
  pen.drawImage(painting.mask, 0, 0);
  const bands = { left: [-sides.left, -sides.top, sides.left, tall, 0, 0, strip, 0], top: [-sides.left, -sides.top, whole, sides.top, 0, 0, 0, strip],
    right: [width, -sides.top, sides.right, tall, width, 0, width - strip, 0], bottom: [-sides.left, height, whole, sides.bottom, 0, height, 0, height - strip] };
  for (const side of SIDES) {
    if (!sides[side]) continue;
    const [x, y, w, hgt, ...line] = bands[side];
    pen.fillStyle = "#fff";
    pen.fillRect(x, y, w, hgt);
    const fade = pen.createLinearGradient(...line);
    fade.addColorStop(0, "#fff");
    fade.addColorStop(1, "#fff0");
    pen.fillStyle = fade;
    pen.fillRect(Math.min(line[0], line[2]), Math.min(line[1], line[3]), Math.abs(line[0] - line[2]) || width, Math.abs(line[1] - line[3]) || height);
  }
}

const isPainted = () => painted() > 0;

// Part of the picture, 0 to 1; told from a small copy, unless that has lost what is tiny.
function painted() {
  const small = h("canvas", { width: 64, height: 64 });
  const pen = small.getContext("2d", { willReadFrequently: true });
  pen.imageSmoothingQuality = "high";
  pen.drawImage(painting.mask, 0, 0, 64, 64);
  return opacity(pen, 64, 64) || opacity(brushOf(), painting.mask.width, painting.mask.height);
}

function opacity(pen, width, height) {
  const { data } = pen.getImageData(0, 0, width, height);
  let sum = 0;
  for (let i = 3; i < data.length; i += 4) sum += data[i];
  return sum / (255 * width * height);
}

// [picture, mask] as data URLs of one size; white is where the picture changes.
function finished() {
  const sides = added();
  const [width, height] = wholeSize(sides);
  const sheet = (draw, colour) => {
    const canvas = h("canvas", { width, height });
    const pen = canvas.getContext("2d");
    pen.fillStyle = colour;
    pen.fillRect(0, 0, width, height);
    pen.translate(sides.left, sides.top);
    draw(pen, sides);
    return canvas.toDataURL("image/png");
  };
  const picture = isExtended() ? sheet(drawWhole, "#fff0") : painting.source;
  painting.known = [picture, isPainted() || isExtended() ? sheet(drawMask, "#000") : null];
  return painting.known;
}
