"""The playground in another language, in a real Chromium."""

from __future__ import annotations

import re

from browsers import in_each_view, made, needs_chromium, opened
from playground_server import Server
from playwright.sync_api import Browser, Page, expect

pytestmark = needs_chromium

SAME = {"ctrl", "enter", "shift", "api", "lora", "python", "curl", "cfg", "flow", "javascript"}
"""Words that Chinese texts have, too."""
NAMES = ("owner/name", "flow_euler", "euler", "normal")
"""Of the model and its settings."""

READ = """() => {
    const skipped = "[translate=no], option, script, style";
    const shown = (element) => !element.closest(skipped) && (element.checkVisibility() || element.matches(".unseen"));
    const found = [];
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) if (shown(texts.currentNode.parentElement)) found.push(texts.currentNode.data);
    for (const name of ["aria-label", "title", "placeholder", "alt", "aria-valuetext"])
        for (const each of document.querySelectorAll(`[${name}]`)) if (shown(each)) found.push(each.getAttribute(name));
    return found;
}"""  # noqa: E501


def english_on(page: Page) -> set[str]:
    """Words of Latin letters that are neither names of the model and its settings nor the same in
    both languages."""
    text = "\n".join(page.evaluate(READ))
    for name in (str(page.locator("#model").text_content()), *NAMES):
        text = text.replace(name, "")
    return {word.lower() for word in re.findall("[A-Za-z]{3,}", text)} - SAME


def test_the_page_speaks_the_chosen_language_and_remembers_it(page: Page, server: Server) -> None:
    opened(page, server.url)
    expect(page.locator("#make")).to_contain_text("Generate image")
    page.select_option("#language", label="中文")
    expect(page.locator("#make")).to_contain_text("生成图片")
    assert page.get_attribute("html", "lang") == "zh"
    page.reload()
    expect(page.locator("#state")).to_have_text("就绪")
    page.select_option("#language", label="English")
    expect(page.locator("#make")).to_contain_text("Generate image")


def test_the_browsers_language_is_the_first_one(browser: Browser, server: Server) -> None:
    for locale, said in (("zh-CN", "生成图片"), ("zh-TW", "生成图片"), ("de-DE", "Generate image")):
        context = browser.new_context(locale=locale)
        expect(opened(context.new_page(), server.url).locator("#make")).to_contain_text(said)
        context.close()


@in_each_view
def test_no_english_is_left_in_chinese(page: Page, server: Server, view: str) -> None:
    page.add_init_script("localStorage.setItem('multimodal_gen.language', '\"zh\"')")
    opened(page, server.url)
    page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
    assert not english_on(page)
    made(page, server, "红心")
    assert not english_on(page)
    for tab in page.locator("#tabs button:visible").all():
        tab.click()
        assert not english_on(page)
    page.locator("#well button.frame").first.click()
    expect(page.locator("#viewer")).to_be_visible()
    assert not english_on(page)
