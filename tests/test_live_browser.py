"""The live page in a real browser: what it shows, what keys do, and what it never does."""

from __future__ import annotations

import gort
import gort.pprof
import pytest
from browsing import browse, chromium
from gort.pprof import _live
from waiting import eventually, parked

NASTY = "<script>window.hacked = 1</script><img src=x onerror=hacked=1>"


@pytest.fixture(autouse=True)
def browser():
    """Skips where there is none, before anything is begun."""
    chromium()


@pytest.fixture
def server():
    with gort.pprof.serve("127.0.0.1:0") as server:
        yield server


def stays_in_page(ch):
    ch.recv_ok()


@pytest.fixture
def many():
    """Goroutines that wait at one line, some with names that are markup."""
    ch = gort.Chan()
    for i in range(30):
        name = NASTY if i % 10 == 0 else f"number {i}"
        parked(gort.spawn(stays_in_page, (ch,), name=name, labels={"<b>": NASTY}))
    yield
    ch.close()


@pytest.fixture
def busy():
    """A goroutine that computes, under a name that is markup."""
    stop = []

    def body():
        while not stop:
            sum(range(2000))
            gort.gosched()

    body.__qualname__ = body.__name__ = NASTY
    body.__code__ = body.__code__.replace(co_name=NASTY, co_qualname=NASTY)
    g = gort.go(body)
    yield
    stop.append(1)
    g.join()


def test_page_shows_figures_and_asks_nobody_else(server, many):
    code = """
    panels = page.locator(".panel")
    expect(panels).to_have_count(10)
    expect(panels.first.locator("b").first).to_have_text(__import__("re").compile("[3-9][0-9]"))
    until("document.querySelector('.chart .s0').getAttribute('d').includes('L')")
    expect(page.locator("#process")).to_contain_text("CPython 3.")
    expect(page.locator(".processor")).not_to_have_count(0)
    expect(page.locator("#health")).to_be_hidden()
    expect(page.locator("#graph")).to_be_visible()
    until("document.getElementById('graph-image').naturalWidth > 100")
    expect(page.locator("#groups .count").first).to_have_text("30")
    expect(page.locator("#groups .where").first).to_contain_text("stays_in_page")
    assert page.title().endswith("gort live")
    assert all(one.startswith((url, f"blob:{url.split('/debug')[0]}/")) for one in asked), asked
    """
    browse(server.live_url, code)


def test_names_that_are_markup_stay_text(server, many, busy):
    code = """
    page.locator("#groups summary").first.click()
    inside = page.locator("#groups .inside").first
    expect(inside).to_contain_text(arguments[0])
    expect(inside).to_contain_text("<b>=" + arguments[0])
    page.fill("#seconds", "1")
    page.click("#take")
    name = page.locator("#flame g[aria-label*='<script>']").first
    name.focus()
    expect(page.locator("#frame")).to_contain_text(arguments[0])
    assert page.evaluate("window.hacked") is None
    assert page.locator("#groups script, #flame script, main img[onerror]").count() == 0
    # And if something made markup of text, the browser would refuse.
    thrown = page.evaluate("(() => { try { document.body.innerHTML = '<b>x'; return ''; }"
                           " catch (error) { return error.name; } })()")
    assert thrown == "TypeError", thrown
    """
    browse(server.live_url, code, NASTY, "errors expected")


def test_goroutines_are_filtered_and_stay_open_while_new_ones_come(server, many):
    code = """
    groups = page.locator("#groups details")
    page.fill("#filter", "stays_in_page")
    expect(groups).to_have_count(1)
    expect(page.locator("#seen")).to_contain_text("30 of ")
    groups.first.locator("summary").focus()
    page.keyboard.press("Enter")
    expect(groups.first.locator(".inside")).to_contain_text("test_live_browser.py:")
    page.evaluate("document.querySelector('#groups details').marked = 1")
    until("!document.querySelector('#groups details').marked")
    expect(groups.first.locator(".inside")).to_contain_text("Started by")
    assert page.evaluate("document.activeElement.tagName") == "SUMMARY"
    page.fill("#filter", "number 7")
    expect(page.locator("#seen")).to_contain_text("1 of ")
    page.fill("#filter", "no such words")
    expect(groups).to_have_count(0)
    page.fill("#filter", "")
    page.select_option("#order", "longest")
    expect(groups).not_to_have_count(0)
    """
    browse(server.live_url, code)


def test_too_many_goroutines_are_looked_at_when_asked_for(server, many, monkeypatch):
    monkeypatch.setattr(_live, "MOST", 5)
    code = """
    expect(page.locator("#seen")).to_contain_text("only when you press")
    expect(page.locator("#groups details")).to_have_count(0)
    page.locator("body").press("g")
    expect(page.locator("#groups .count").first).to_have_text("30")
    with page.expect_response("**/goroutines.json?q=") as answer:
        page.select_option("#interval", "500")
    assert answer.value.json()["skipped"]
    expect(page.locator("#groups .count").first).to_have_text("30")
    """
    browse(server.live_url, code)


def test_flame_graph_is_drawn_on_demand_and_walked_by_keys(server, busy):
    code = """
    assert not any("profile.json" in one for one in asked)
    page.fill("#seconds", "1")
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("c")
    expect(page.locator("#take")).to_be_disabled()
    expect(page.locator("#flame g").first).to_be_visible()
    expect(page.locator("#taken")).to_contain_text("samples: ")
    expect(page.locator("#take")).to_be_enabled()
    page.locator("#flame g[tabindex='0']").focus()
    expect(page.locator("#frame")).to_contain_text("all: ")
    page.keyboard.press("ArrowDown")
    expect(page.locator("#frame")).not_to_contain_text("all: ")
    below = page.locator("#frame").text_content()
    page.keyboard.press("Enter")
    expect(page.locator("#whole")).to_be_visible()
    expect(page.locator("#flame .above")).to_have_count(1)
    page.keyboard.press("ArrowUp")
    expect(page.locator("#frame")).to_contain_text("all: ")
    page.keyboard.press("Escape")
    expect(page.locator("#whole")).to_be_hidden()
    page.fill("#search", "script")
    expect(page.locator("#flame .marked").first).to_be_visible()
    page.fill("#search", "no such words")
    expect(page.locator("#flame .marked")).to_have_count(0)
    wide = page.locator("#flame svg").bounding_box()["width"]
    page.set_viewport_size({"width": 700, "height": 900})
    until(f"document.querySelector('#flame svg').viewBox.baseVal.width < {wide}")
    page.locator("#flame g").nth(1).click()
    expect(page.locator("#whole")).to_be_visible()
    page.click("#whole")
    expect(page.locator("#whole")).to_be_hidden()
    """
    browse(server.live_url, code)


def test_keys_pause_and_filter(server, many):
    code = """
    body = page.locator("body")
    body.press("p")
    expect(page.locator("#link")).to_have_text("paused")
    expect(page.locator("#pause")).to_have_attribute("aria-pressed", "true")
    body.press("p")
    expect(page.locator("#link")).to_have_text("live")
    body.press("/")
    page.keyboard.type("pgc/")
    assert page.input_value("#filter") == "pgc/"
    expect(page.locator("#link")).to_have_text("live")
    page.reload()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    seen = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        seen.add(page.evaluate("document.activeElement.id"))
    assert {"interval", "pause", "profiles", "filter", "follow", "look", "order", "take", "seconds",
            "search"} <= seen, seen
    """
    browse(server.live_url, code)


def test_server_that_goes_away_and_comes_back(many):
    first = gort.pprof.serve("127.0.0.1:0")
    address, went = first.address, []

    def body():
        eventually(lambda: gone, what="a page that has seen the server")
        first.close()
        went.append(1)

    gone: list[int] = []

    def answered(method, path, *rest, old=_live.answer):
        if "state.json" in path and not went:
            count.append(1)
            if len(count) == 3:
                gone.append(1)
        return old(method, path, *rest)

    count: list[int] = []
    code = """
    expect(page.locator("#link")).to_contain_text("no answer for")
    expect(page.locator("#link")).to_have_class("lost")
    expect(page.locator(".panel b").first).not_to_have_text("")
    page.evaluate("document.title = 'seen'")
    expect(page.locator("#link")).to_have_text("live")
    """
    closing = gort.go(body)

    def comes_back():
        closing.join()
        gort.sleep(2.5)  # the page must meet the gap: it looks once a second
        return gort.pprof.serve("{}:{}".format(*address))

    later = gort.go(comes_back)
    old, _live.answer = _live.answer, answered
    try:
        browse(first.live_url, code, "errors expected")
    finally:
        _live.answer = old
        later.join().close()


def test_token_in_the_address_is_enough(many):
    with gort.pprof.serve("127.0.0.1:0", token="se cr\u00e9t&\u2713") as server:
        code = """
        expect(page.locator("#groups .count").first).to_have_text("30")
        page.fill("#seconds", "1")
        page.click("#take")
        expect(page.locator("#taken")).to_contain_text("samples")
        answer = context.request.get(page.locator("#file").get_attribute("href"))
        assert answer.status == 200 and answer.headers["content-type"] == "application/octet-stream"
        told = [one for one in asked if "token" in one]
        assert len(told) == 1, told
        """
        browse(f"{server.live_url}?token=se%20cr%C3%A9t%26%E2%9C%93", code)


def test_page_of_elsewhere_gets_nothing_and_starts_nothing(server, many):
    code = """
    # A page of another origin, on the same machine so that only the server can refuse it.
    port = url.split(":")[2].split("/")[0]
    other = f"http://localhost:{port}/other"
    context.route(other, lambda route: route.fulfill(body="<p>x", content_type="text/html"))
    page.goto(other)
    for path, method in (("state.json", "GET"), ("profile.json?seconds=1", "POST")):
        for mode in ("cors", "no-cors"):
            got = page.evaluate(
                "async ([path, method, mode]) => { try { const a = await fetch(path, {method, mode});"
                " return [a.type, a.status, await a.text()]; } catch (error) { return 'refused'; } }",
                [url + path, method, mode])
            assert got in ("refused", ["opaque", 0, ""]), got
    page.set_content(f"<iframe src='{url}'></iframe>")
    page.wait_for_timeout(500)  # nothing is to appear
    assert not [f for f in page.frames if f.url == url and f.query_selector("#panels")]
    """
    done = []

    def note(values, wait, old=_live._profile):
        done.append(values)
        return old(values, wait)

    old, _live._profile = _live._profile, note
    try:
        browse(server.live_url, code, "errors expected")
    finally:
        _live._profile = old
    assert done == []


def test_concurrency_graph_is_shown_where_there_is_one_and_runs_nothing(server):
    code = """
    picture = ("<svg xmlns='http://www.w3.org/2000/svg' width='120' height='40'>"
               "<script>window.hacked = 1; parent.hacked = 1</script><text y='20'>graph</text></svg>")
    context.route("**/concurrency.svg", lambda route: route.fulfill(
        body=picture, content_type="image/svg+xml"))
    page.reload()
    expect(page.locator("#graph")).to_be_visible()
    until("document.getElementById('graph-image').naturalWidth === 120")
    assert page.evaluate("window.hacked") is None
    """
    browse(server.live_url, code)


def test_words_can_be_read_in_light_and_dark_and_on_small_screens(server, many, busy):
    code = """
    contrast = '''() => {
      const rgb = (s) => s.match(/[0-9.]+/g).map(Number);
      const part = (c) => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
      const light = ([r, g, b]) => 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
      const ground = (node) => {
        for (; node; node = node.parentElement) {
          const c = rgb(getComputedStyle(node).backgroundColor);
          if (c.length === 3 || c[3] === 1) return c;
        }
        return [255, 255, 255];
      };
      const bad = [];
      const check = (node, text, back) => {
        const [a, b] = [light(rgb(text)), light(back)].sort((x, y) => y - x);
        const ratio = (a + 0.05) / (b + 0.05);
        if (ratio < 4.5) bad.push([node.tagName, node.className.baseVal || node.className, ratio]);
      };
      for (const node of document.querySelectorAll("h1, h2, h3, h4, p, a, b, span, label, button, select, summary, li, kbd"))
        if (node.offsetParent) check(node, getComputedStyle(node).color, ground(node));
      for (const node of document.querySelectorAll("#flame g:not(.above)"))
        check(node, getComputedStyle(node.querySelector("text")).fill, rgb(getComputedStyle(node.querySelector("rect")).fill));
      return bad;
    }'''
    page.fill("#seconds", "1")
    page.click("#take")
    expect(page.locator("#flame g").first).to_be_visible()
    page.locator("#groups summary").first.click()
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        assert page.evaluate(contrast) == [], scheme
    for width in (1280, 800, 390):
        page.set_viewport_size({"width": width, "height": 800})
        over = page.evaluate("document.scrollingElement.scrollWidth - innerWidth")
        assert over <= 0, (width, over)
    """
    browse(server.live_url, code)
