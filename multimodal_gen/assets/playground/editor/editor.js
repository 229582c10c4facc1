"use strict";
// The editor of the input picture: opened, told about, and used for the next request.

const canEdit = () => takes("inpainting");
const canPaintVideo = () => model.parameters.includes("mask_path");

// `of`: the input that it is of; of a video, its first frame is painted on.
async function edit(source, mask = null, of = "image") {
  try {
    await paintOn(source, mask);
    painting.of = of;
  } catch {
    return complain(t("This file can't be shown as a picture, so it can't be edited here."));
  }
  const largest = Math.max(painting.mask.width, painting.mask.height);
  const fresh = $("brush-size").max !== String(Math.ceil(largest / 2));
  $("brush-size").max = Math.ceil(largest / 2);
  if (fresh) $("brush-size").value = Math.max(1, Math.round(largest / 10));
  for (const side of SIDES) Object.assign($(`extend-${side}`), { step: model.size_multiple, min: 0, max: largestSide() });
  Object.assign(caret, { x: Math.round(painting.mask.width / 2), y: Math.round(painting.mask.height / 2), shown: false, down: false });
  if ($("viewer").open) $("viewer").close();
  $("editor").showModal();
  $("extend-tool").hidden = of === "video";
  choose(of === "video" && tool === "extend" ? "brush" : tool);
  fit();
  showPainting();
  board.focus();
}

async function editResult(job, i) {
  edit(await readUrl(await (await fetch(fileUrl(job.outputs[i].url))).blob()));
  if (!$("prompt").value) $("prompt").value = job.parameters.prompt;
}

// -- what it says

function showPainting() {
  if (!painting.picture || !$("editor").open) return;
  $("undo").disabled = !painting.acts.length;
  $("redo").disabled = !painting.undone.length;
  const part = painted();
  $("clear").disabled = part === 0;
  $("brush-size").nextElementSibling.textContent = t("{count} px", { count: brushSize() });
  showSides(added());
  $("painting-told").textContent = [paintedWords(part), extendedWords()].filter(Boolean).join(" ");
  redraw();
}
hear("painting", showPainting);

function paintedWords(part) {
  if (part === 0) return isExtended() ? "" : t("Paint what should change. Nothing is painted yet.");
  return t("{percent}% of the picture is painted and will be made anew; the rest stays as it is.", { percent: Math.max(1, Math.round(100 * part)) });
}

function extendedWords() {
  if (!isExtended()) return "";
  const sides = added();
  const named = { left: t("left"), top: t("top"), right: t("right"), bottom: t("bottom") };
  const list = SIDES.filter((side) => sides[side]).map((side) => t("{side} {count} px", { side: named[side], count: sides[side] })).join(", ");
  const { width, height, isSmaller } = resultSize();
  const limit = isSmaller ? t("The picture becomes smaller in it, since this model draws at most {count} pixels a side.", { count: largestSide() }) : "";
  return t("Added: {list}. It is filled with the colours of the edges and made anew, with a narrow strip of the picture beside it. The result will be {width} × {height}.", { list, width, height }) + (limit && ` ${limit}`);
}

function showSides(sides) {
  for (const side of SIDES) if (document.activeElement !== $(`extend-${side}`) || dragged) $(`extend-${side}`).value = sides[side];
  const [width, height] = wholeSize(sides);
  $("painting-size").textContent = `${width} × ${height}`;
}
const tellPen = () => say(caret.down ? t("The pen is down.") : t("The pen is up."));

// -- buttons and keys

for (const button of $("editor-tools").children) button.addEventListener("click", () => choose(button.dataset.tool));
$("brush-size").addEventListener("input", () => { caret.shown = true; showPainting(); });
for (const side of SIDES) {
  $(`extend-${side}`).addEventListener("change", () => {
    extend(Object.fromEntries(SIDES.map((each) => [each, $(`extend-${each}`).value])));
    for (const each of SIDES) $(`extend-${each}`).value = added()[each];
    fit();
  });
}
// What a pen that is still down has painted comes first.
const afterStroke = (change) => () => { lift(); change(); };
const changes = { undo: afterStroke(undo), redo: afterStroke(redo), invert: afterStroke(() => acted({ kind: "invert" })), clear: afterStroke(() => { if (isPainted()) acted({ kind: "clear" }); }) };
for (const [id, change] of Object.entries({ ...changes, "zoom-out": () => zoom(1 / 1.4), "zoom-fit": fit, "zoom-in": () => zoom(1.4) })) $(id).addEventListener("click", change);

const EDITOR_KEYS = { b: () => choose("brush"), e: () => choose("eraser"), r: () => choose("box"), x: () => { if (painting.of === "image") choose("extend"); }, i: changes.invert, Delete: changes.clear,
  "[": () => resizeBrush(1 / 1.25), "]": () => resizeBrush(1.25), "+": () => zoom(1.4), "=": () => zoom(1.4), "-": () => zoom(1 / 1.4), 0: fit };
function resizeBrush(by) {
  $("brush-size").value = Math.max(1, by > 1 ? Math.ceil(brushSize() * by) : Math.floor(brushSize() * by));
  caret.shown = true;
  showPainting();
}
$("editor").addEventListener("keydown", (event) => {
  const control = event.ctrlKey || event.metaKey;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const found = control ? { z: event.shiftKey ? changes.redo : changes.undo, y: changes.redo, Enter: use }[key] : event.target.matches("input[type=number]") || event.altKey ? null : EDITOR_KEYS[key];
  if (!found) return;
  event.preventDefault();
  event.stopPropagation();
  found();
});

// -- the end

const isOwnMask = () => given.mask !== null && painting.known !== null && painting.known[1] === given.mask;

function use() {
  lift();
  const extended = isExtended();
  const [picture, mask] = finished();
  const size = resultSize();
  $("editor").close();
  if (painting.of === "image" && picture !== given.image) usePicture("image", picture);
  usePicture("mask", mask);
  if (extended) {
    [$("width").value, $("height").value] = [size.width, size.height];
    sizeTouched = sizeOfExtended = true;
    saveInputs();
  }
  toast(mask ? t("Say what the picture shows, then generate: only the painted parts change.") : t("Nothing is painted: the whole picture may change."));
  $("prompt").focus();
  $("prompt").select();
}
$("edit-use").addEventListener("click", use);
$("edit-cancel").addEventListener("click", () => $("editor").close());
$("editor").addEventListener("close", abandon);

async function editVideo() {
  try { edit(await firstFrame(given.video), given.mask, "video"); } catch { complain(t("This browser can't show the video, so it can't be painted on here.")); }
}
$("edit-video").addEventListener("click", editVideo);
$("edit-image").addEventListener("click", () => edit(given.image, given.mask));
viewerActs.push((job, i) => (canEdit() && job.kind === "image" ? h("button", { className: "small", type: "button", onclick: () => editResult(job, i) }, icon("brush"), t("Edit")) : null));
tileActs.push((job, i) => (canEdit() && job.kind === "image" && job.outputs[i].url
  ? h("button", { type: "button", "aria-label": `${t("Edit")}: ${job.parameters.prompt}`, title: t("Edit"), onclick: () => editResult(job, i) }, icon("brush")) : null));
let hadEditor = false;
hear("model", () => {
  if (hadEditor === canEdit()) return;
  hadEditor = canEdit();
  tiles.clear();  // they were made without knowing
  showGallery();
});
viewerActs.push((job, i) => (job.kind === "video" && isOffered("video") ? h("button", { className: "small", type: "button", onclick: () => startFromVideo(job, i) }, t("Use as input")) : null));
async function startFromVideo(job, i) {
  usePicture("video", await readUrl(await (await fetch(fileUrl(job.outputs[i].url))).blob()));
  $("viewer").close();
  $("prompt").focus();
  toast(t("The next request uses this video as input."));
}
