"use strict";
// Inputs that survive a reload, in the browser's own database: they are too large for its storage
// of texts.

const drafts = new Promise((done) => {
  try {
    const opening = indexedDB.open("multimodal_gen", 1);
    opening.onupgradeneeded = () => opening.result.createObjectStore("inputs");
    opening.onsuccess = () => done(opening.result);
    opening.onerror = () => done(null);
  } catch { done(null); }  // a private window: the page works without
});
const saved = drafts.then((database) => database && new Promise((done) => {
  const reading = database.transaction("inputs").objectStore("inputs").get("now");
  reading.onsuccess = () => done(reading.result || null);
  reading.onerror = () => done(null);
}));

let draftsOn = false;  // not before those of the last visit are back
let draftTimer = 0;
function saveInputs() {
  if (!draftsOn) return;
  clearTimeout(draftTimer);
  draftTimer = setTimeout(async () => {
    const database = await drafts;
    const sizes = sizeTouched && given.image ? [$("width").value, $("height").value] : null;
    if (database) database.transaction("inputs", "readwrite").objectStore("inputs").put({ ...given, more: [...more], sizes }, "now");
  }, 100);
}

hear("model", async () => {
  if (draftsOn) return;
  const before = await saved;
  if (draftsOn) return;
  draftsOn = true;
  if (!before || Object.values(given).some(Boolean)) return saveInputs();
  const images = [before.image, ...before.more].filter(Boolean);
  if (images.length && isOffered("image")) addImages(images);
  for (const name of ["last_image", "video", "mask"]) if (before[name] && isOffered(name)) usePicture(name, before[name]);
  if (before.sizes && given.image) {
    [$("width").value, $("height").value] = before.sizes;
    sizeTouched = true;
  }
});
