"""The Markdown table: ours beside the paper's, mean and standard deviation over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean, stdev

from attribguard.reproduce.differences import comparison_table
from attribguard.reproduce.jobs import Record, choose, finals, index
from attribguard.reproduce.recipe import Recipe, Row

__all__ = ["MAPS", "row_records", "section", "spread"]

MAPS = "-maps.png"
"""How the name of a picture of maps ends."""

_FILES = "-files"  # see Recipe.on_data


def row_records(recipe: Recipe, size: str, seeds: int, records: Sequence[Record]) -> list[tuple[Row, list[Record]]]:
    """The finished trainings that count for each row, in the table's order; empty for a row without any.

    Args:
        recipe: the table.
        size: of the run.
        seeds: how many.
        records: of the file, also those of other sizes.
    """
    done, plan = index(records), recipe.sizes[size]
    return [
        (row, [done[job.key] for job in finals(recipe, plan, row, seeds, done) if job.key in done])
        for row in recipe.rows_of(size)
    ]


def section(recipe: Recipe, size: str, seeds: int, records: Sequence[Record], pictures: Sequence[str]) -> str:
    """A table with its text, in Markdown.

    Args:
        recipe: the table.
        size: of the run.
        seeds: how many.
        records: of the file.
        pictures: their paths as the page names them.
    """
    rows = row_records(recipe, size, seeds, records)
    shown = [record for _, some in rows for record in some]
    command = f"attribguard reproduce {recipe.name.removesuffix(_FILES)}{_options(recipe, size)}"
    parts = [f"Source: {recipe.paper}. Command: `{command}`.", recipe.text]
    for title, metrics in recipe.parts or (("", tuple(recipe.metrics)),):
        parts += [f"**{title}**", _table(recipe, rows, metrics)] if title else [_table(recipe, rows, metrics)]
    if recipe.comparisons and shown:
        parts.append(comparison_table(recipe, rows))
    if shown:
        parts += [
            _facts(recipe, size, rows, records),
            *(f"![{_alt(recipe, picture)}]({picture})" for picture in pictures),
        ]
    if recipe.findings:
        parts.append(recipe.findings)
    return "\n\n".join(parts) + "\n"


def _alt(recipe: Recipe, picture: str) -> str:
    """What the picture shows, for those who do not see it."""
    shown = "where its networks look" if picture.endswith(MAPS) else f"{recipe.metrics[recipe.compared]} of each row"
    return f"{recipe.title}: {shown}"


def _options(recipe: Recipe, size: str) -> str:
    data = " --data DIR" if recipe.needs_data or recipe.name.endswith(_FILES) else ""
    return data + ("" if size == "default" else f" --{size}")


def _table(recipe: Recipe, rows: Sequence[tuple[Row, list[Record]]], metrics: Sequence[str]) -> str:
    of_paper = {metric for row, _ in rows for metric in row.paper}
    head, lines = ["row"], []
    for metric in metrics:
        head += [recipe.metrics[metric], "paper"] if metric in of_paper else [recipe.metrics[metric]]
    settings = sorted({name for row, _ in rows for name in recipe.row(row.chosen_by or row.name).searched})
    head += [*settings, "seeds"]
    for row, records in rows:
        cells = [row.name]
        for metric in metrics:
            values = [record["metrics"].get(metric) for record in records if metric in record["metrics"]]
            ours, paper = spread(values), row.paper.get(metric)
            cells.append(f"**≠** {ours}" if _differs(values, paper, recipe.tolerance) else ours)
            if metric in of_paper:
                cells.append(_of_paper(paper))
        chosen = records[0]["settings"] if records else {}
        searched = recipe.row(row.chosen_by or row.name).searched
        cells += [f"{chosen[name]:g}" if chosen and name in searched else "" for name in settings]
        lines.append([*cells, str(len(records))])
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *lines))


def spread(values: Sequence[float | None]) -> str:
    """Mean ± standard deviation, the mean alone of a single value, and how many are no numbers.

    Args:
        values: one a seed; ``None`` for what was no finite number.

    Example:
        >>> spread([0.25, 0.75]), spread([0.5]), spread([0.5, None]), spread([])
        ('0.500 ± 0.354', '0.500', '0.500 (1 nan)', '')
    """
    numbers = [value for value in values if value is not None]
    broken = len(values) - len(numbers)
    text = f"{mean(numbers):.3f}" if numbers else ""
    text += f" ± {stdev(numbers):.3f}" if len(numbers) > 1 else ""
    return f"{text} ({broken} nan)".strip() if broken else text


def _differs(values: Sequence[float | None], paper: tuple[float, float | None] | None, tolerance: float) -> bool:
    numbers = [value for value in values if value is not None]
    return bool(numbers) and paper is not None and abs(mean(numbers) - paper[0]) > tolerance


def _of_paper(paper: tuple[float, float | None] | None) -> str:
    if paper is None:
        return ""
    return f"{paper[0]:.2f}" if paper[1] is None else f"{paper[0]:.2f} ± {paper[1]:.2f}"


def _facts(recipe: Recipe, size: str, rows: Sequence[tuple[Row, list[Record]]], records: Sequence[Record]) -> str:
    """What the table rests on: trainings, time, machine and software."""
    shown = [record for _, some in rows for record in some]
    done, plan = index(records), recipe.sizes[size]
    searches = [choose(recipe, plan, row, done) for row, _ in rows]
    keys = {job.key for jobs, _ in searches for job in jobs}
    tried = [done[key] for key in keys if key in done]
    seconds = sum(record["seconds"] for record in [*shown, *tried])
    open_rows = [row.name for row, some in rows if not some]
    machines = sorted({_machine(record) for record in shown})
    software = sorted({", ".join(f"{k} {v}" for k, v in record["versions"].items()) for record in shown})
    parts = [
        f"{len(shown)} trainings and {len(tried)} of the search, {seconds / 60:.0f} minutes in all, one after the "
        f"other, on {'; '.join(machines)}; {'; '.join(software)}.",
        f"**≠** marks a mean that is more than {recipe.tolerance:g} from the paper's.",
    ]
    if open_rows:
        parts.append(f"Not run yet: {', '.join(open_rows)}.")
    return " ".join(parts)


def _machine(record: Record) -> str:
    machine = record["machine"]
    where = "" if machine["device"] == "cpu" else f", {machine['device']}"
    return f"{machine['processor']}, {machine['cores']} cores{where}"
