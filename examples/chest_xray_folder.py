"""Chest X-rays in the NIH's form, end to end: several labels, rare ones, boxes as masks, AUROC and soft IoBB.

    python -m examples.chest_xray_folder --data DIR --network resnet18 --size 224 --epochs 5

reads a folder of ChestX-ray14 or of a data set in its form (see `attribguard.data.ChestXray14`), parts it by patient,
trains, and prints after each epoch the terms of the loss, the mean AUROC over the findings, and how much of the boxes
Grad-CAM covers. Images without boxes, nearly all, train the classifier as ever.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from statistics import mean
from typing import Annotated, Any

import timm
import torch
import typer
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchmetrics.functional.classification import binary_auroc

from attribguard import ActDiff, AttribGuardError, Guard, cam, losses, masks, probes, wrap
from attribguard.data import ChestXray14, split_by_group

Batch = dict[str, Any]


def guard_of(network: nn.Module, targets: Tensor, weight: float, size: int) -> Guard:
    """The criterion knows from the training targets, (N, 14), how rare each finding is."""
    return wrap(
        network,
        penalties=[ActDiff(weight, dilate=size // 32)],
        criterion=losses.WeightedBCE.from_targets(targets),
        reduction="annotated",  # divided by all images, the few with boxes would hardly count
        example_input=(1, size, size),
    )


def boxes_of(batch: Batch, row: int, finding: int | None = None) -> Tensor:
    """One image's boxes, (B, 4), or those of a finding; without the fraction by which one may leave the image."""
    classes, (height, width) = batch["box_classes"][row], batch["image"].shape[-2:]
    chosen = classes >= 0 if finding is None else classes == finding
    return batch["boxes"][row][chosen].clamp(min=0).minimum(torch.tensor([width, height, width, height]))


def annotation(batch: Batch) -> dict[str, Tensor]:
    """The boxes as masks, which count if each of an image's findings has one: no finding's place is irrelevant."""
    boxed = [set(classes[classes >= 0].tolist()) for classes in batch["box_classes"]]
    found = [set(target.nonzero().flatten().tolist()) for target in batch["target"]]
    counts = [bool(some) and some >= every for some, every in zip(boxed, found, strict=True)]
    mask = masks.from_boxes([boxes_of(batch, row) for row in range(len(counts))], tuple(batch["image"].shape[-2:]))
    return {"mask": mask, "annotated": torch.tensor(counts)}


def train(guard: Guard, loader: DataLoader, epochs: int, device: str, rate: float = 3e-4) -> Iterator[dict[str, float]]:
    """Train in place; yields the mean of each term over each epoch."""
    optimizer = torch.optim.AdamW(guard.parameters(), lr=rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=epochs * len(loader))
    for _ in range(epochs):
        guard.train()
        steps = []
        for batch in loader:
            given = {name: value.to(device) for name, value in annotation(batch).items()}
            out = guard(batch["image"].to(device), batch["target"].to(device), **given)
            optimizer.zero_grad()
            out.loss.backward()
            optimizer.step()
            schedule.step()
            steps.append({name: value.item() for name, value in out.terms.items()})
        yield {name: mean(step[name] for step in steps) for name in steps[0]}


@torch.no_grad()
def evaluate(network: nn.Module, loader: DataLoader, device: str) -> tuple[float, probes.SoftIoBB]:
    """Mean AUROC over the findings that some images have and some have not; soft IoBB of each boxed finding."""
    network.eval()
    logits, targets, iobb = [], [], probes.SoftIoBB()
    for batch in loader:
        images = batch["image"].to(device)
        logits.append(network(images).double().cpu())
        targets.append(batch["target"].long())
        for row, classes in enumerate(batch["box_classes"]):
            for finding in classes[classes >= 0].unique().tolist():
                mask = masks.from_boxes([boxes_of(batch, row, finding)], tuple(images.shape[-2:]))
                heat = cam(network, images[row : row + 1], finding).cpu()
                iobb.update(heat, mask, classes=[finding], groups=[batch["group"][row]])
    columns = zip(torch.cat(logits).sigmoid().unbind(1), torch.cat(targets).unbind(1), strict=True)
    scores = [binary_auroc(score, target).item() for score, target in columns if 0 < target.sum() < len(target)]
    return mean(scores) if scores else math.nan, iobb


def main(
    data: Annotated[Path, typer.Option(help="Folder in the form of ChestX-ray14.")],
    network: Annotated[str, typer.Option(help="A name that timm knows.")] = "resnet18",
    size: Annotated[int, typer.Option(min=32, help="Of the images in pixels.")] = 224,
    epochs: Annotated[int, typer.Option(min=1)] = 5,
    batch: Annotated[int, typer.Option(min=2, help="Images a step.")] = 32,
    weight: Annotated[float, typer.Option(min=0, help="Of ActDiff.")] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="Of the parts, weights and order.")] = 0,
) -> None:
    """Train on chest X-rays with boxes for some of them, and measure both what is found and where."""
    torch.manual_seed(seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        pictures = ChestXray14(data, None, size=size)
        # By patient, and not by the data set's two lists, so that both parts have boxes.
        seen, unseen = split_by_group(pictures, pictures.groups, (0.8, 0.2), seed)
        model = timm.create_model(network, in_chans=1, num_classes=len(pictures.labels))
        guard = guard_of(model, pictures.targets[seen.indices], weight, size).to(device)
        loader = DataLoader(seen, batch, shuffle=True, drop_last=True)
        for epoch, terms in enumerate(train(guard, loader, epochs, device), start=1):
            auroc, iobb = evaluate(guard.model, DataLoader(unseen, batch), device)
            shown = ", ".join(f"{name} {value:.4f}" for name, value in terms.items())
            boxed = int(iobb.per_image().values.isfinite().sum())
            where = f"soft IoBB {iobb.compute():.3f} of {boxed} boxed findings"
            print(f"epoch {epoch}: {shown}; AUROC {auroc:.3f}, {where}")
    except (AttribGuardError, OSError) as error:
        typer.echo(f"chest_xray_folder: {error}", err=True)
        raise typer.Exit(2) from None


if __name__ == "__main__":
    typer.run(main)
