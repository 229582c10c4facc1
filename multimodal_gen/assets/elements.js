"use strict";
// Elements by their ids, and new ones; for all pages.

const $ = (id) => document.getElementById(id);

// Properties where there are some, attributes else, and listeners: `onclick`.
function h(tag, props, ...kids) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(props || {})) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name in made && !name.startsWith("aria")) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...kids.filter((kid) => kid !== null && kid !== undefined));
  return made;
}
