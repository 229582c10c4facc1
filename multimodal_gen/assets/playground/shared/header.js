"use strict";
// The header's languages, by their own names, and the window's title.

const inItself = (tag) => new Intl.DisplayNames([tag], { type: "language" }).of(tag);
$("language").append(...["en", ...Object.keys(TRANSLATIONS)].map((tag) => h("option", { value: tag, lang: tag, selected: tag === language }, inItself(tag))));
$("language").addEventListener("change", () => {
  remember("language", $("language").value);
  location.reload();
});

// How far the work is that runs, also for who looks at another window.
function showTitle() {
  const running = jobs.filter((job) => job.status === "in_progress").at(-1);
  const parts = [running ? `${percent(running)} %` : null, model?.name, "multimodal_gen"].filter(Boolean);
  if (document.title !== parts.join(" · ")) document.title = parts.join(" · ");
}
for (const name of ["job", "jobs"]) hear(name, showTitle);
