"""The playground has no knobs that mean nothing to the model, and sizes that it can draw, in a real
Chromium."""

from __future__ import annotations

import msgspec
from browsers import StartServer, in_each_view, needs_chromium, opened
from playground_server import PICTURES
from playwright.sync_api import Page, expect

from multimodal_gen.messages.model_info import Limits

pytestmark = [needs_chromium, in_each_view]

EMOJI = msgspec.structs.replace(
    PICTURES,
    no_effect=("guidance_scale", "negative_prompt"),
    parameters=(*PICTURES.parameters, "true_cfg_scale"),
    limits=Limits(smallest_side=96, largest_side=128),
)
INFOTEXT = "a heart\nSteps: 9, Sampler: Euler, CFG scale: 2.5, Seed: 3, Size: 96x96"


def test_knobs_that_mean_nothing_are_hidden_and_sizes_end_where_the_models_do(
    page: Page, start_server: StartServer
) -> None:
    opened(page, start_server(model=EMOJI).url)
    page.evaluate("document.getElementById('settings').open = true")
    for knob in ("guidance_scale", "negative_prompt"):
        expect(page.locator(f"#{knob}")).to_be_hidden()
    expect(page.locator("#true_cfg_scale")).to_be_visible()
    for side in ("width", "height"):
        expect(page.locator(f"#{side}")).to_have_attribute("max", "128")


def test_a_pasted_cfg_scale_is_the_one_that_guides_the_model(
    page: Page, start_server: StartServer
) -> None:
    opened(page, start_server(model=EMOJI).url)
    given = page.evaluate("text => fromInfotext(text).given", INFOTEXT)
    assert (given["true_cfg_scale"], given.get("guidance_scale")) == (2.5, None)
