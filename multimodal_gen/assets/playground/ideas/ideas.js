"use strict";
// Example prompts of the model: on the empty stage, and in a dialog.

function write(prompt) {
  $("prompt").value = prompt;
  $("prompt").dispatchEvent(new Event("input", { bubbles: true }));
  if ($("ideas").open) $("ideas").close();
  $("prompt").focus();
  $("prompt").setSelectionRange(prompt.length, prompt.length);
}

const idea = ({ prompt, picture }) => h("li", {}, h("button", { type: "button", onclick: () => write(prompt) },
  picture ? h("img", { src: picture, alt: "", width: 96, height: 96 }) : null, h("span", {}, prompt)));

// For a stage without a result.
function nothingYet() {
  const examples = model?.example_prompts || [];
  if (!examples.length) return h("p", {}, t("Results appear here."));
  return h("div", { className: "first-look" },
    h("p", {}, t("What shall it be? Choose one of these, or write your own.")),
    h("ul", { className: "ideas", translate: false }, ...examples.map(idea)));
}

hear("model", ({ example_prompts: examples, knows_words: knows }) => {
  $("prompt").placeholder = examples[0]?.prompt || "a red heart";
  $("open-ideas").hidden = !examples.length && !knows;
  $("idea-pictures").replaceChildren(...examples.map(idea));
  $("knows").hidden = !knows;
  if (!jobs.length) $("well").replaceChildren(nothingYet());
});

$("open-ideas").addEventListener("click", () => {
  $("ideas").showModal();
  showKnown();
});
$("close-ideas").addEventListener("click", () => $("ideas").close());
$("ideas").addEventListener("click", (event) => { if (event.target === $("ideas")) $("ideas").close(); });
