"use strict";
// Words of a model that knows only some: a list that can be searched, and marks at the others.

const MOST_SHOWN = 60;
let vocabulary = null;   // {of: model's name, things, colors, …, known: Set of words}
let fetching = null;

const wordsIn = (text) => Array.from(text.matchAll(/<[^>]*>|[\p{L}\p{N}]+(?:['’&][\p{L}\p{N}]+)*/gu)).filter(([word]) => word[0] !== "<");

async function vocabularyOf(name) {
  if (vocabulary?.of === name) return vocabulary;
  fetching ??= ask(`model_info/known_words?model=${encodeURIComponent(name)}`).then((reply) => reply.json()).finally(() => { fetching = null; });
  const found = await fetching;
  const texts = [...Object.keys(found.things), ...Object.values(found.things).flat(), ...found.words, ...found.colors, ...found.backgrounds, ...found.colored];
  return (vocabulary = { ...found, of: name, known: new Set(texts.flatMap((text) => wordsIn(text.toLowerCase()).map(([word]) => word))) });
}

// A plural is known by its singular, and a word that is being written by its beginning. Little words
// mean little.
function knows(word, written) {
  const { known } = vocabulary;
  const singular = [word.replace(/s$/, ""), word.replace(/es$/, ""), word.replace(/ies$/, "y"), word.replace(/['’]s$/, "")];
  return word.length < 3 || /^\p{N}+$/u.test(word) || [word, ...singular].some((each) => known.has(each)) || (written && Array.from(known).some((each) => each.startsWith(word)));
}

let unknownTold = "";
function showUnknown() {
  const field = $("prompt");
  const unknown = wordsIn(field.value).filter(({ 0: word, index }) => !knows(word.toLowerCase(), document.activeElement === field && field.selectionStart === index + word.length));
  const parts = [];
  let at = 0;
  for (const { 0: word, index } of unknown) {
    parts.push(field.value.slice(at, index), h("mark", {}, word));
    at = index + word.length;
  }
  $("marks").replaceChildren(...parts, `${field.value.slice(at)}\n`);
  $("marks").scrollTop = field.scrollTop;
  const listed = [...new Set(unknown.map(([word]) => word))].join(", ");
  if (listed === unknownTold) return;
  unknownTold = listed;
  $("unknown-words").textContent = listed && `${t("The model doesn't know: {words}.", { words: listed })} ${t(vocabulary.unknown)}`;
}

let unknownTimer = 0;
async function lookUp() {
  if (!model?.knows_words) {
    if (unknownTold) { unknownTold = ""; $("marks").replaceChildren(); $("unknown-words").textContent = ""; }
    return;
  }
  try { await vocabularyOf(model.name); } catch { return; }  // a help, not a need
  showUnknown();
}
// Later also when the field is left: what appears must not move a button while it is pressed.
function lookUpSoon() { clearTimeout(unknownTimer); unknownTimer = setTimeout(lookUp, 350); }
$("prompt").addEventListener("input", () => { $("marks").replaceChildren(); lookUpSoon(); });
$("prompt").addEventListener("blur", lookUpSoon);
$("prompt").addEventListener("scroll", () => { $("marks").scrollTop = $("prompt").scrollTop; });
hear("model", lookUp);

function insert(word) {
  const field = $("prompt");
  const before = field.value.slice(0, field.selectionStart);
  field.setRangeText(`${/\S$/.test(before) ? " " : ""}${word}`, field.selectionStart, field.selectionEnd, "end");
  field.dispatchEvent(new Event("input", { bubbles: true }));
  $("ideas").close();
  field.focus();
}

async function showKnown() {
  if (!model.knows_words) return;
  try { await vocabularyOf(model.name); } catch (error) { return complain(inWords(error)); }
  const sought = $("search-known").value.trim().toLowerCase();
  const all = Object.entries(vocabulary.things);
  const found = all.filter(([name, also]) => [name, ...also].some((each) => each.includes(sought)));
  // What begins with it comes first.
  found.sort(([a], [b]) => b.startsWith(sought) - a.startsWith(sought));
  $("known-count").textContent = found.length > MOST_SHOWN
    ? t("{count} of {total} things; the first {shown} are shown.", { count: found.length, total: all.length, shown: MOST_SHOWN })
    : t("{count} of {total} things.", { count: found.length, total: all.length });
  $("known").replaceChildren(...found.slice(0, MOST_SHOWN).map(([name, also]) => h("li", {},
    h("button", { type: "button", onclick: () => insert(name) }, name, also.length ? h("small", {}, also.join(", ")) : null))));
  $("known-notes").replaceChildren(...[
    t("{count} of them also come in {colors}: “a purple car”.", { count: vocabulary.colored.length, colors: vocabulary.colors.join(", ") }),
    t("Backgrounds come in {colors}: “a dog on a blue background”.", { colors: vocabulary.backgrounds.join(", ") }),
    t(vocabulary.unknown),
  ].map((note) => h("p", {}, note)));
}
$("search-known").addEventListener("input", showKnown);
