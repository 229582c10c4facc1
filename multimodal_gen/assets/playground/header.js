"use strict";
// The header: languages by their own names.

const inItself = (tag) => new Intl.DisplayNames([tag], { type: "language" }).of(tag);
$("language").append(...["en", ...Object.keys(TRANSLATIONS)].map((tag) => h("option", { value: tag, lang: tag, selected: tag === language }, inItself(tag))));
$("language").addEventListener("change", () => {
  remember("language", $("language").value);
  location.reload();
});
