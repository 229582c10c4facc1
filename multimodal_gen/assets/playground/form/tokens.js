"use strict";
// How many tokens the prompt has, of those that the model reads.

let tokenTimer = 0;
let tokensAsked = 0;

function askTokens() {
  clearTimeout(tokenTimer);
  tokenTimer = setTimeout(() => countTokens().catch(() => {}), 350);  // a help, not a need
}

async function countTokens() {
  const prompt = $("prompt").value;
  const asked = (tokensAsked += 1);
  if (!prompt.trim() || !model?.counts_tokens) return showTokens({ tokens: null });
  const body = { prompt, model: model.name };
  const length = $("max_sequence_length");
  if (length.value && length.validity.valid) body.max_sequence_length = Number(length.value);
  const reply = await ask("count_tokens", { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });
  const counted = await reply.json();
  if (asked === tokensAsked) showTokens(counted);
}

function showTokens({ tokens, limit, cut }) {
  $("tokens").textContent = tokens === null ? "" : t("{tokens} of {limit} tokens", { tokens, limit });
  const told = cut ? t("The model will not read: “{words}”", { words: cut }) : "";
  if ($("cut-words").textContent !== told) $("cut-words").textContent = told;
}

for (const name of ["prompt", "max_sequence_length"]) $(name).addEventListener("input", askTokens);
$("prompt").addEventListener("blur", askTokens);
hear("model", askTokens);
