"""Makes docs/results.md and its pictures of the rows in benchmarks/results: python -m benchmarks.results_page"""

from pathlib import Path

from attribguard.reproduce import RECIPES, results_page, results_pictures

ROOT = Path(__file__).parent.parent
ROWS, PAGE, PICTURES = ROOT / "benchmarks" / "results", ROOT / "docs" / "results.md", ROOT / "docs" / "images"


def main():
    PAGE.write_text(results_page(ROWS, RECIPES), "utf-8")
    for name, content in results_pictures(ROWS, RECIPES).items():
        (PICTURES / name).write_bytes(content)


if __name__ == "__main__":
    main()
