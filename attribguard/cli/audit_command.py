"""The command ``attribguard audit``, and ``attribguard scan``, its part without annotations."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress

from attribguard.cli.refusals import refusing
from attribguard.cli.thresholds import findings, read_thresholds
from attribguard.errors import check_choice

__all__ = ["audit_", "scan_"]

PAGE, REPORT, ROWS = "audit.html", "audit.json", "audit.rows.jsonl"
FIGURES = ("accuracy", "auroc", "ap", "inside", "pointing", "soft_iobb", "soft_ior", "worst_group", "drop")

Model = Annotated[str, typer.Argument(metavar="MODEL", help="package.module:function, or a timm model.")]
Data = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help="A folder with images/, labels.csv (file,label[,group,split]) and perhaps masks/ or BBox_List_2017.csv; "
        "or crosses, hematomas, hematomas-unseen, organs, sites, lesions.",
    ),
]
Checkpoint = Annotated[Path | None, typer.Option(metavar="FILE", help="Weights of MODEL, and nothing but weights.")]
Out = Annotated[Path, typer.Option(metavar="DIR", help=f"Write {PAGE} and {REPORT} here.")]
Split = Annotated[str | None, typer.Option(metavar="NAME", help="Only these lines of labels.csv.")]
Size = Annotated[int | None, typer.Option(metavar="PIXELS", help="Bring pictures to this height and width.")]
Images = Annotated[int | None, typer.Option(metavar="N", help="The first so many images.")]
Device = Annotated[str, typer.Option(help="Where to run, as torch names it.")]
Batch = Annotated[int, typer.Option(metavar="N", min=1, help="Images at a time.")]
Seed = Annotated[int, typer.Option(metavar="N", min=0, help="Of intervals, scan and drawn images.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on where an interrupted run in the same folder stopped.")]
FailOn = Annotated[
    list[str] | None,
    typer.Option(
        metavar="'FIGURE<NUMBER'",
        help=f"End with exit code 1 if so; FIGURE>NUMBER too, and several times. Figures: {', '.join(FIGURES)}.",
    ),
]


def audit_(
    model: Model,
    data: Data,
    checkpoint: Checkpoint = None,
    baseline: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Another network, measured on the same images.")
    ] = None,
    baseline_checkpoint: Annotated[Path | None, typer.Option(metavar="FILE", help="Its weights.")] = None,
    out: Out = Path("audit"),
    split: Split = None,
    size: Size = None,
    images: Images = None,
    no_scan: Annotated[bool, typer.Option("--no-scan", help="Swap no patches.")] = False,
    no_concepts: Annotated[bool, typer.Option("--no-concepts", help="Count no concepts of units.")] = False,
    attribution: Annotated[
        str, typer.Option(help="gradcam, or saliency where the last map has too few cells to show a place.")
    ] = "gradcam",
    fail_on: FailOn = None,
    resume: Resume = False,
    device: Device = "cpu",
    batch_size: Batch = 32,
    seed: Seed = 0,
) -> None:
    """Find out whether a network is right for the right reasons, and write one page that shows it.

    Exit code 0; 1 if a figure crosses what --fail-on says; 2 on bad input.
    """
    subjects = {"model": (model, checkpoint)} | (
        {} if baseline is None else {"baseline": (baseline, baseline_checkpoint)}
    )
    options: dict[str, Any] = {"scan": not no_scan, "concepts": not no_concepts, "max_images": images, "seed": seed}
    options |= {"attribution": attribution}
    _run(subjects, data, out, split, size, fail_on or [], resume, device, batch_size, options)


def scan_(
    model: Model,
    data: Data,
    checkpoint: Checkpoint = None,
    out: Out = Path("scan"),
    split: Split = None,
    size: Size = None,
    images: Images = 200,
    fail_on: FailOn = None,
    device: Device = "cpu",
    batch_size: Batch = 32,
    seed: Seed = 0,
) -> None:
    """Find the patch that a network clings to, without any annotation: the audit's scan by itself, on its page.

    Exit code 0; 1 if a figure crosses what --fail-on says, such as 'drop>0.2'; 2 on bad input.
    """
    options = {"scan": True, "concepts": False, "max_images": images, "seed": seed, "attribution": "gradcam"}
    _run({"model": (model, checkpoint)}, data, out, split, size, fail_on or [], False, device, batch_size, options)


def _run(
    subjects: dict[str, tuple[str, Path | None]],
    data: str,
    out: Path,
    split: str | None,
    size: int | None,
    fail_on: list[str],
    resume: bool,
    device: str,
    batch_size: int,
    options: dict[str, Any],
) -> None:
    # Here and not above: help and errors should not wait for what only an audit needs.
    with refusing("with --resume it goes on where it stopped"):
        thresholds = read_thresholds(fail_on, FIGURES)
        from torch.utils.data import DataLoader

        from attribguard.auditing import audit
        from attribguard.auditing.rows import ATTRIBUTIONS
        from attribguard.auditing.verdict import verdict
        from attribguard.cli.data_sets import load_data
        from attribguard.cli.subject import load_model
        from attribguard.device import as_device
        from attribguard.whole_files import check_writable

        check_choice("attribution", options["attribution"], ATTRIBUTIONS)
        place = as_device(device)
        check_writable(out, (PAGE, REPORT, ROWS))
        images, classes, channels = load_data(data, split, size, options["max_images"], options["seed"])
        models = {
            name: load_model(text, file, len(classes), channels).to(place) for name, (text, file) in subjects.items()
        }
        out.mkdir(parents=True, exist_ok=True)
        rows = out / ROWS
        if not resume:
            rows.unlink(missing_ok=True)
        with Progress(console=Console(stderr=True), transient=True) as progress:
            total = min(len(images), options["max_images"] or len(images))
            bar = progress.add_task("images", total=total)
            report = audit(
                models["model"],
                DataLoader(images, batch_size=batch_size),
                baseline=models.get("baseline"),
                class_names=classes,
                resume=rows,
                on_images=lambda done: progress.update(bar, completed=done),
                names={name: text for name, (text, _) in subjects.items()} | {"data": data},
                **options,
            )
        files = [report.to_json(out / REPORT), report.to_html(out / PAGE)]
        rows.unlink()
        Console().print(report.summary())
        typer.echo(verdict(report))
        for file in files:
            typer.echo(file)
        crossed = findings(report.values(), thresholds)
    for one in crossed:
        typer.echo(f"attribguard: {one}", err=True)
    if crossed:
        raise typer.Exit(1)
