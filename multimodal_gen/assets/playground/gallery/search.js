"use strict";
// The gallery's search, which the server does: words of the prompt, time, model, stars.

const sought = { words: "", when: "", model: "", starred: false, order: "desc", jobs: [], turn: 0 };
const isSearching = () => Boolean(sought.words || sought.when || sought.model || sought.starred || sought.order === "asc");

function midnight(days = 0) {
  const day = new Date();
  return new Date(day.getFullYear(), day.getMonth(), day.getDate() + days).getTime() / 1000;
}

// From when to when, in seconds since 1970.
function times() {
  if (sought.when === "today") return [midnight(), null];
  if (sought.when === "yesterday") return [midnight(-1), midnight()];
  if (sought.when === "day") {
    const [year, month, day] = ($("finder-day").value || "").split("-").map(Number);
    return year ? [new Date(year, month - 1, day).getTime() / 1000, new Date(year, month - 1, day + 1).getTime() / 1000] : [null, null];
  }
  return sought.when ? [midnight(1 - Number(sought.when)), null] : [null, null];
}

async function seek(after) {
  const turn = after ? sought.turn : (sought.turn += 1);
  const [since, before] = times();
  const query = new URLSearchParams({ limit: MOST, order: sought.order });
  const given = { after, search: sought.words, model: sought.model, starred: sought.starred || "", created_after: since, created_before: before };
  for (const [name, value] of Object.entries(given)) if (value) query.set(name, value);
  const page = await (await ask(`v1/jobs?${query}`)).json();
  if (turn !== sought.turn) return;
  const found = page.data.filter((job) => !deleted.has(job.id));
  sought.jobs = after ? [...sought.jobs, ...found] : found;
  $("older").hidden = !page.has_more;
  showGallery();
}

async function searchAgain() {
  sought.words = $("finder-words").value.trim();
  sought.when = $("finder-when").value;
  sought.model = $("finder-model").value;
  sought.order = $("finder-order").value;
  sought.starred = $("finder-starred").getAttribute("aria-pressed") === "true";
  $("finder-day").hidden = sought.when !== "day";
  $("finder-clear").hidden = !isSearching();
  try {
    if (isSearching()) await seek();
    else { sought.turn += 1; sought.jobs = []; await list(); }
    if (selection.on) forgetUnseen();
  } catch (error) { complain(inWords(error)); }
}

// A result that is new while a search is shown.
hear("job", (job) => {
  if (!isSearching() || sought.order === "asc" || !isDone(job) || sought.jobs.some((each) => each.id === job.id)) return;
  const [since, before] = times();
  const prompt = job.parameters.prompt.toLowerCase();
  const fits = sought.words.toLowerCase().split(/\s+/).every((word) => prompt.includes(word)) && (!sought.model || job.model === sought.model)
    && (!since || job.created_at >= since) && (!before || job.created_at < before);
  if (fits) sought.jobs.unshift(job);
});
hear("model", () => {
  const names = model.models || [];
  $("finder-model").hidden = names.length < 2;
  const first = $("finder-model").firstElementChild;
  $("finder-model").replaceChildren(first, ...names.map((name) => h("option", { value: name, selected: name === sought.model }, name)));
});

let typing = 0;
$("finder-words").addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(searchAgain, 250); });
for (const name of ["when", "day", "model", "order"]) $(`finder-${name}`).addEventListener("change", searchAgain);
$("finder-starred").addEventListener("click", () => {
  $("finder-starred").setAttribute("aria-pressed", $("finder-starred").getAttribute("aria-pressed") !== "true");
  searchAgain();
});
function clearSearch() {
  $("finder").reset();
  $("finder-starred").setAttribute("aria-pressed", false);
  $("finder-words").focus();
  return searchAgain();
}
$("finder-clear").addEventListener("click", clearSearch);
$("finder").addEventListener("submit", (event) => { event.preventDefault(); clearTimeout(typing); searchAgain(); });
