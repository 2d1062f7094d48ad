import re

import pytest

from attribguard.auditing import audit
from attribguard.auditing.page import render
from tests.auditing.subjects import Corner, batches

EVIL = "<script>alert('x')</script>"


@pytest.fixture(scope="module")
def page():
    files = [f"{EVIL}&{number}.png" for number in range(40)]
    groups = [f"<b>{number % 2}</b>" for number in range(40)]
    given = [
        batch | {"file": files[5 * number : 5 * number + 5], "group": groups[5 * number : 5 * number + 5]}
        for number, batch in enumerate(batches(40))
    ]
    names = {"model": f"model {EVIL}", "baseline": "plain", "data": f"data {EVIL}"}
    return render(audit(Corner(), given, baseline=Corner(swap=True), class_names=[f"low {EVIL}", "high"], names=names))


def test_what_comes_from_data_is_escaped(page):
    assert EVIL not in page and "<b>0</b>" not in page
    assert page.count("<script") == 2 and "&lt;script&gt;" in page  # the page's own two


def test_the_page_asks_nothing_of_the_network(page):
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?!data:)""", page)
    assert "http:" not in page and "https:" not in page and "@import" not in page and "url(" not in page


def test_it_has_a_section_for_everything_that_was_found(page):
    titles = re.findall(r"<h2[^>]*>(.*?)</h2>", page)
    assert titles == ["Figures", "Where it looks", "What it clings to", "What its units know", "Left out, and settings"]


def test_a_report_without_scan_units_and_regions_is_a_page_too():
    pairs = [(batch["image"], batch["target"]) for batch in batches(12)]
    text = render(audit(Corner(), pairs, scan=False))
    assert "What it clings to" not in text and "no image is annotated" in text
