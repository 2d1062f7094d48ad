"""A guard under Hugging Face's Trainer: a module that answers as Trainer expects, and a collator that carries masks.

    python -m examples.huggingface_trainer --out runs/trainer --annotated 250

needs `transformers` and `accelerate` (pip install "transformers[torch]"). It trains on crosses (see `plain_loop.py`) of
which only some have a mask, logs each part of the loss, and prints the AUC of Trainer's own evaluation.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor, nn
from torchmetrics.functional.classification import binary_auroc
from transformers import EvalPrediction, Trainer, TrainingArguments, set_seed

from attribguard import Guard
from attribguard.data import Crosses
from examples.plain_loop import guarded

Item = dict[str, Any]


def items_of(crosses: Crosses, annotated: int) -> list[Item]:
    """Crosses as dicts; the mask is None but for the first so many."""
    rows = enumerate(crosses)
    return [{"pixel_values": x, "labels": y, "mask": mask if i < annotated else None} for i, (x, y, mask) in rows]


def collate(items: list[Item]) -> dict[str, Tensor]:
    """A batch in which `annotated` says whose mask counts; what stands in place of the others is never read."""
    masks = [torch.ones_like(item["pixel_values"]) if item["mask"] is None else item["mask"] for item in items]
    batch = {name: torch.stack([item[name] for item in items]) for name in ("pixel_values", "labels")}
    return batch | {"mask": torch.stack(masks), "annotated": torch.tensor([item["mask"] is not None for item in items])}


class ForTrainer(nn.Module):
    """The guard as Trainer calls it: with a batch's names, for a dict of the loss and the logits.

    An argument with "label" in its name tells Trainer what to evaluate against. Without **kwargs, Trainer knows that
    the loss is a mean over the batch, and divides it where batches are accumulated.
    """

    def __init__(self, guard: Guard) -> None:
        super().__init__()
        self.guard, self.terms = guard, dict[str, Tensor]()

    def forward(
        self, pixel_values: Tensor, labels: Tensor | None = None, mask: Any = None, annotated: Any = None
    ) -> dict[str, Tensor]:
        if labels is None:
            return {"logits": self.guard(pixel_values)}
        out = self.guard(pixel_values, labels, mask=mask, annotated=annotated)
        self.terms = out.terms
        return {"loss": out.loss, "logits": out.logits}  # Trainer takes all but the loss for predictions


class GuardTrainer(Trainer):
    """Logs beside the loss what it was made of in the last step."""

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        terms = {name: value.item() for name, value in self.model.terms.items()} if "loss" in logs else {}
        super().log(logs | terms, *args, **kwargs)


def measure(prediction: EvalPrediction) -> dict[str, float]:
    logits, targets = torch.as_tensor(prediction.predictions), torch.as_tensor(prediction.label_ids)
    return {"auc": binary_auroc(logits.double().softmax(1)[:, 1], targets).item()}


def trainer_of(guard: Guard, data: list[Item], test: list[Item], out: Path, batch: int = 32, **options: Any) -> Trainer:
    options |= {"output_dir": str(out), "save_strategy": "no", "report_to": "none", "learning_rate": 3e-3}
    options |= {"per_device_train_batch_size": batch, "per_device_eval_batch_size": 128}
    # Items may hold what the module does not name; Trainer would drop that before the collator sees it.
    arguments = TrainingArguments(**options, remove_unused_columns=False)
    parts = {"data_collator": collate, "train_dataset": data, "eval_dataset": test, "compute_metrics": measure}
    return GuardTrainer(ForTrainer(guard), arguments, **parts)


def main(
    out: Annotated[Path, typer.Option(help="Folder for what Trainer writes.")] = Path("runs/trainer"),
    seed: Annotated[int, typer.Option(min=0, help="Of images, weights and order.")] = 0,
    epochs: Annotated[int, typer.Option(min=1)] = 10,
    images: Annotated[int, typer.Option(min=2, help="To train on.")] = 500,
    annotated: Annotated[int, typer.Option(min=0, help="How many of them have a mask.")] = 250,
) -> None:
    """Train a small network on crosses with ActDiff under Hugging Face's Trainer."""
    set_seed(seed)
    data, test = items_of(Crosses("train", images, seed=seed), annotated), items_of(Crosses("test", 128, seed=seed), 0)
    options = {"num_train_epochs": epochs, "logging_strategy": "epoch", "seed": seed}
    trainer = trainer_of(guarded(weight=10.0), data, test, out, **options)
    trainer.train()
    print(f"test AUC {trainer.evaluate()['eval_auc']:.3f}")


if __name__ == "__main__":
    typer.run(main)
