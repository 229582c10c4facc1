"use strict";
// Input images and videos.

function readUrl(blob) {
  return new Promise((done, failed) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result);
    reader.onerror = () => failed(reader.error);
    reader.readAsDataURL(blob);
  });
}

function usePicture(name, url) {
  if (name === painting.of && url !== given[name] && isOwnMask()) usePicture("mask", null);
  given[name] = url;
  const [img, input, button] = $(`${name}-pick`).children;
  button.hidden = !url;
  img.hidden = !url;
  if (url) showIn(img, name, url); else { img.removeAttribute("src"); input.value = ""; }
  wrong(input, "");
  if (name === "image") showMore(); else showUsed();
  if (name === "image" && sizeOfExtended) sizeTouched = sizeOfExtended = false;
  if (!model) return;
  $("edit-image").hidden = !given.image || !canEdit();
  $("edit-video").hidden = !given.video || !canPaintVideo();
  const follows = given.image !== null && model.picture_size !== "default";
  $("size-hint").hidden = !follows;
  if (!sizeTouched) for (const side of ["width", "height"]) $(side).value = follows ? "" : model.defaults[side];
  $("strength").placeholder = (given.mask ? model.defaults.inpainting_strength : model.defaults.strength) ?? "";
}

// A picture as it is, a video by its first frame.
async function showIn(img, name, url) {
  img.src = name === "video" ? await firstFrame(url).catch(() => "") : url;
  img.hidden = !img.getAttribute("src");
}

async function firstFrame(url) {
  const film = h("video", { muted: true, playsInline: true, preload: "auto" });
  film.src = URL.createObjectURL(await blobOf(url));
  try {
    await new Promise((done, failed) => { film.onloadeddata = done; film.onerror = failed; });
    const canvas = h("canvas", { width: film.videoWidth, height: film.videoHeight });
    canvas.getContext("2d").drawImage(film, 0, 0);
    return canvas.toDataURL("image/jpeg");
  } finally {
    URL.revokeObjectURL(film.src);
  }
}

function blobOf(url) {
  const [head, data] = url.split(",");
  return new Blob([Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0))], { type: /^data:([^;,]*)/.exec(head)[1] });
}

for (const name of Object.keys(given)) {
  $(name).addEventListener("change", async () => { if ($(name).files.length) await useFiles(name, $(name).files); });
  $(`${name}-pick`).take = (files) => useFiles(name, files);
  $(`${name}-pick`).lastElementChild.addEventListener("click", () => { dropUsed(name, given[name]); $(name).focus(); });
}

async function useFiles(name, files) {
  const urls = await Promise.all(Array.from(files, readUrl));
  if (name === "image") addImages(urls); else usePicture(name, urls[0]);
  if (name !== "video") $(name).value = "";
}

function addImages(urls) {
  const most = model.limits.max_images;
  const all = most > 1 ? [given.image, ...more, ...urls].filter(Boolean) : urls;
  if (all.length > most) toast(most > 1 ? t("The maximum is {count} images.", { count: most }) : t("This model takes one image."));
  more.splice(0, more.length, ...all.slice(1, most));
  usePicture("image", all[0]);
}

function showMore() {
  $("more-images").replaceChildren(...more.map((url, i) => slot(h("div", { className: "pick", draggable: true }, h("img", { alt: "", src: url, draggable: false }), h("span", { className: "hint" }, t("Image {number}", { number: i + 2 })),
    h("button", { className: "square", type: "button", "aria-label": t("Move image {number} forward", { number: i + 2 }), title: t("Move forward"), onclick: () => { moveImage(i + 1, i); focusIn($("more-images").children[i - 1] || $("image-pick")); } }, icon("up")),
    h("button", { className: "square", type: "button", "aria-label": t("Remove image {number}", { number: i + 2 }), onclick: () => { more.splice(i, 1); showMore(); $("image").focus(); } }, icon("x"))), i + 1)));
  slot($("image-pick"), 0);
  $("image-pick").draggable = more.length > 0;
  $("image-pick").firstElementChild.draggable = false;
  showUsed();
}
const focusIn = (box) => box.querySelector("button:not([hidden])").focus();

function moveImage(from, to) {
  const all = [given.image, ...more];
  all.splice(to, 0, ...all.splice(from, 1));
  more.splice(0, more.length, ...all.slice(1));
  if (all[0] !== given.image) usePicture("image", all[0]); else showMore();
}

// Image number `i`: it takes files that are dropped on it, and can be dragged to another's place.
function slot(box, i) {
  box.take = (files) => useFiles("image", files);
  box.ondragstart = (event) => { event.dataTransfer.setData("text/x-input-image", i); event.dataTransfer.effectAllowed = "move"; };
  box.ondragover = (event) => { if (isMoved(event)) event.preventDefault(); };
  box.ondrop = (event) => { if (isMoved(event)) { event.preventDefault(); moveImage(Number(event.dataTransfer.getData("text/x-input-image")), i); } };
  return box;
}
const isMoved = (event) => event.dataTransfer.types.includes("text/x-input-image");

// The inputs that go along, beside the prompt.
function showUsed() {
  saveInputs();
  const labels = { image: t("Input image"), mask: t("Mask"), last_image: t("Last frame"), video: t("Input video") };
  const images = more.map((url, i) => ["image", url, t("Image {number}", { number: i + 2 })]);
  const pictures = [["image", given.image, labels.image], ...images, ...["last_image", "video"].map((name) => [name, given[name], labels[name]])].filter(([, url]) => url);
  if (given.mask && !given.image && !given.video) pictures.push(["mask", given.mask, labels.mask]);
  $("used").hidden = !pictures.length;
  $("used").replaceChildren(...pictures.map(usedChip));
}

function usedChip([name, url, label], i) {
  const isMasked = given.mask && url === (given.video || given.image);
  const img = h("img", { alt: "" });
  showIn(img, name, url);
  const frame = h("span", {}, img);
  if (isMasked) showMask(frame, given.mask);
  const without = () => { dropUsed(name, url); ($("used").querySelectorAll(".square")[i] || $("prompt")).focus(); };
  return h("div", {}, h("button", { type: "button", onclick: () => openUsed(name, url) }, frame, isMasked ? t("{label}, painted", { label }) : label),
    h("button", { type: "button", className: "square", "aria-label": t("Do without: {label}", { label }), title: t("Do without it"), onclick: without }, icon("x")));
}

async function showMask(frame, mask) {
  const picture = await pictureOf(mask);
  const over = opaque(picture, { naturalWidth: 96, naturalHeight: Math.max(1, Math.round((96 * picture.naturalHeight) / picture.naturalWidth)) });
  const pen = over.getContext("2d");
  pen.globalCompositeOperation = "source-in";
  pen.fillStyle = STRIPES;
  pen.fillRect(0, 0, over.width, over.height);
  frame.append(over);
}

function openUsed(name, url) {
  if (url === given.image && canEdit()) return edit(given.image, given.mask);
  if (url === given.video && canPaintVideo()) return editVideo();
  $("settings").open = true;
  $(name).focus();
}

function dropUsed(name, url) {
  if (name !== "image") return usePicture(name, null);
  if (url === given.image) return usePicture("image", more.shift() || null);
  more.splice(more.indexOf(url), 1);
  showMore();
}
