"use strict";
// The page's words in the reader's language. English is written in the code; other languages stand
// in one file each, by the English text, and are filled in by the server.

const TRANSLATIONS = {};
const NOT_TRANSLATED = ["SCRIPT", "STYLE", "CODE", "KBD"];

function recall(name, otherwise = null) {
  try { return JSON.parse(localStorage.getItem(`multimodal_gen.${name}`)) ?? otherwise; } catch { return otherwise; }
}

function remember(name, value) {
  try {
    if (value === null) localStorage.removeItem(`multimodal_gen.${name}`);
    else localStorage.setItem(`multimodal_gen.${name}`, JSON.stringify(value));
  } catch { /* a private window, or full: the page works without */ }
}

const language = recall("language") || [...navigator.languages, "en"].map((tag) => tag.split("-")[0]).find((tag) => tag === "en" || tag in TRANSLATIONS);
const translated = TRANSLATIONS[language] || null;  // by numbers, which are shorter than texts

function numberOf(text) {
  let number = 5381;
  for (const letter of text) number = ((number * 33) ^ letter.codePointAt(0)) >>> 0;
  return number.toString(16);
}
const inLanguage = (text) => (translated && translated[numberOf(text)]) || text;

// `t("{count} images", { count })`
function t(text, values = {}) {
  return inLanguage(text).replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
}

function translate(root) {
  const texts = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const text = texts.currentNode.data.trim();
    if (text && !NOT_TRANSLATED.includes(texts.currentNode.parentElement.tagName)) texts.currentNode.data = texts.currentNode.data.replace(text, () => inLanguage(text));
  }
  for (const name of ["aria-label", "title", "placeholder", "alt"]) {
    for (const element of root.querySelectorAll(`[${name}]:not([translate=no])`)) element.setAttribute(name, t(element.getAttribute(name)));
  }
}
document.documentElement.lang = language;
translate(document.body);
