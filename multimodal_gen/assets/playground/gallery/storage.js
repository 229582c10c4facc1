"use strict";
// The space for results: how full it is, and what goes next.

let space = null;

async function askSpace() {
  try { space = await (await ask("v1/jobs/storage")).json(); } catch { return; }
  shelf.next = new Set(space.next.map(({ job, index }) => `${job}:${index}`));
  const percent = Math.min(100, Math.round((100 * space.used_bytes) / Math.max(1, space.quota_bytes)));
  $("space-notice").hidden = !space.nearly_full;
  $("space-notice").firstElementChild.textContent = t("The space for results is {percent}% full. When it is needed, those with a clock go next; starred ones stay longest.", { percent });
  tellHint();
  decorateAll();
}

function inBytes(bytes) {
  const units = ["kB", "MB", "GB", "TB"];
  let size = bytes / 1000;
  while (size >= 999.5 && units.length > 1) { size /= 1000; units.shift(); }
  return `${size.toLocaleString(language, { maximumFractionDigits: size < 10 ? 1 : 0 })} ${units[0]}`;
}

function tellHint() {
  const used = space && space.used_bytes ? t("{used} of {quota} used", { used: inBytes(space.used_bytes), quota: inBytes(space.quota_bytes) }) : "";
  const kept = space && space.expires_after_s !== null ? t("kept for {time}", { time: span(space.expires_after_s) }) : "";
  const nothing = isSearching() ? t("Nothing found.") : t("Nothing yet.");
  const parts = shelf.items.length ? [used, kept] : [nothing];
  $("gallery-hint").textContent = parts.filter(Boolean).join(" · ");
}

let spaceTimer = 0;
function askSpaceSoon() { clearTimeout(spaceTimer); spaceTimer = setTimeout(askSpace, 500); }
hear("jobs", askSpaceSoon);
hear("job", (job) => { if (isDone(job)) askSpaceSoon(); });
$("space-notice").querySelector("button").addEventListener("click", () => {
  $("finder-order").value = "asc";
  searchAgain();
  $("finder-order").focus();
});
