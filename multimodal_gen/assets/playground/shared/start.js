"use strict";
// Start.

$("settings").open = matchMedia("(min-width: 56rem)").matches;
if (!$("key-form").contains(document.activeElement)) $("prompt").focus();
stayConnected();
