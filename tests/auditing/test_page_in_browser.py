"""The page in a real browser: opened from a file, used by mouse and keyboard, at the width of a phone and of a desk."""

import shutil

import pytest
import torch

from attribguard.auditing import audit
from tests.auditing.subjects import Corner, batches

playwright = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser, and is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")
EVIL = "<script>document.title = 'broken'</script>"


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """Sixty images: every fifth mislabelled, the baseline wrong on all."""
    files = [f"{number}{EVIL}" for number in range(60)]
    given = []
    for number, batch in enumerate(batches(60)):
        target = batch["target"].clone()
        target[2] = 1 - target[2]
        given.append(batch | {"target": target, "file": files[5 * number : 5 * number + 5]})
    report = audit(Corner(), given, baseline=Corner(swap=True), class_names=["low", f"high{EVIL}"])
    return report.to_html(tmp_path_factory.mktemp("page") / "audit.html")


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser, path):
    """The page, which must neither complain nor ask for anything all along."""
    complaints, requests = [], []
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(path.as_uri())
    yield page
    assert complaints == []
    assert [url for url in requests if not url.startswith("data:")] == [path.as_uri()]
    page.close()


def cards(page):
    return page.locator("#cards li").all_inner_texts()


def test_it_opens_with_the_first_images_and_every_picture_loads(page):
    assert page.title() == "Audit" and len(cards(page)) == 24
    loaded = page.evaluate("[...document.images].every((image) => image.complete && image.naturalWidth > 0)")
    assert loaded and page.evaluate("[...document.images].every((image) => image.hasAttribute('alt'))")
    assert EVIL in cards(page)[0]  # as text


def test_filters_show_what_they_say(page):
    page.select_option("#filter", "wrong")
    assert len(cards(page)) == 12 and all("wrong" in text for text in cards(page))
    assert page.inner_text("#count") == "12 of 60 images"
    page.select_option("#filter", "changed")
    assert page.inner_text("#count") == "60 of 60 images"  # the baseline always says the other class
    page.select_option("#network", "baseline")
    page.select_option("#filter", "wrong")
    assert page.inner_text("#count") == "48 of 60 images"


def test_images_are_put_in_order_and_paged(page):
    def inside():
        return [int(text.split(" % inside")[0].rsplit(" ", 1)[1]) for text in cards(page) if "% inside" in text]

    page.select_option("#order", "outside")
    first = inside()
    page.click("#next")
    second = inside()
    assert first == sorted(first) and max(first) <= min(second)
    page.click("#next")
    assert page.inner_text("#place") == "3 of 3" and len(cards(page)) == 12 and page.is_disabled("#next")
    page.click("#back")
    assert inside() == second


def test_the_slider_changes_how_strong_the_heat_map_is(page):
    heat = page.locator(".heat-map").first
    before = heat.evaluate("(image) => getComputedStyle(image).opacity")
    page.locator("#opacity").fill("0")
    assert (before, heat.evaluate("(image) => getComputedStyle(image).opacity")) == ("0.6", "0")
    page.uncheck("#outlines")
    assert not page.locator(".outline").first.is_visible()


def test_it_works_from_the_keyboard(page):
    def focus(name):
        for _ in range(20):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.id") == name:
                return
        raise AssertionError(f"the keyboard does not reach {name}")

    focus("filter")
    page.keyboard.press("ArrowDown")
    assert page.inner_text("#count") == "12 of 60 images"
    focus("opacity")
    page.keyboard.press("Home")
    assert page.locator(".heat-map").first.evaluate("(image) => getComputedStyle(image).opacity") == "0"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_reaches_over_the_edge_and_text_stands_out(page, width, scheme):
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    pairs = page.evaluate(
        """() => [...document.querySelectorAll("p, td, th, li, label, h1, h2, button, dd, dt, .quiet, .wrong-word")]
        .filter((one) => one.innerText && !one.disabled).map((one) => {
          let back = one;
          const colour = (element) => getComputedStyle(element).backgroundColor;
          while (back && ["rgba(0, 0, 0, 0)", "transparent"].includes(colour(back))) back = back.parentElement;
          return [getComputedStyle(one).color, getComputedStyle(back ?? document.body).backgroundColor];
        })"""
    )
    assert len(pairs) > 100
    assert min(contrast(*pair) for pair in set(map(tuple, pairs))) >= 4.5  # WCAG AA


def contrast(*colours):
    """Of two colours, as WCAG 2 defines it."""

    def luminance(colour):
        parts = colour[colour.index("(") + 1 : -1].replace(",", " ").split()
        srgb = [float(part) for part in parts if part != "srgb"][:3]
        scale = 1 if colour.startswith("color(") else 255
        linear = [c / 12.92 if (c := v / scale) <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for v in srgb]
        return sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    dark, light = sorted(map(luminance, colours))
    return (light + 0.05) / (dark + 0.05)


def test_a_page_of_two_thousand_images_stays_small_and_opens(browser, tmp_path):
    torch.manual_seed(0)
    count = 0

    def loader():
        nonlocal count
        for batch in batches(2000, 50):
            image, mask = (torch.nn.functional.interpolate(batch[key], (96, 96)) for key in ("image", "mask"))
            count += len(image)
            yield {"image": image + torch.rand(image.shape), "target": batch["target"], "mask": mask}

    class Pooled(Corner):
        def forward(self, x):
            return super().forward(torch.nn.functional.adaptive_avg_pool2d(x, 8))

    path = audit(Pooled(), loader(), scan=False, concepts=False).to_html(tmp_path / "large.html")
    assert count == 2000 and path.stat().st_size < 25e6
    page = browser.new_page()
    page.goto(path.as_uri())
    assert page.inner_text("#place") == "1 of 84" and len(cards(page)) == 24
    page.close()
