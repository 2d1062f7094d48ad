"""A guard in PyTorch Lightning: a module whose training step is a guarded call and that logs each part of the loss.

    python -m examples.lightning_module --out runs/lightning

needs `lightning` (pip install lightning). It trains on crosses (see `plain_loop.py`), writes the logged figures to
`metrics.csv` and the checkpoint `last.ckpt`, and reads that back.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import lightning
import torch
import typer
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor
from torch.utils.data import DataLoader
from torchmetrics.classification import BinaryAUROC

from attribguard.data import Crosses
from examples.plain_loop import auc, falling, guarded


class GuardedClassifier(lightning.LightningModule):
    """Classifies crosses under ActDiff; batches are (images, targets, masks)."""

    def __init__(self, weight: float = 10.0, rate: float = 3e-3) -> None:
        super().__init__()
        self.save_hyperparameters()  # so that a checkpoint can be loaded without repeating them
        self.guard = guarded(weight)
        self.auc = BinaryAUROC()

    def forward(self, x: Tensor) -> Tensor:
        return self.guard(x)

    def training_step(self, batch: tuple[Tensor, ...], index: int) -> Tensor:
        x, y, mask = batch
        out = self.guard(x, y, mask=mask)
        self.log("train/loss", out.loss, on_step=False, on_epoch=True, prog_bar=True)
        terms = {f"train/{name}": value for name, value in out.terms.items()}
        self.log_dict(terms, on_step=False, on_epoch=True)
        return out.loss

    def validation_step(self, batch: tuple[Tensor, ...], index: int) -> None:
        x, y, _ = batch
        self.auc.update(self(x).double().softmax(1)[:, 1], y)
        self.log("test/auc", self.auc, prog_bar=True)

    def configure_optimizers(self) -> dict[str, Any]:
        optimizer = torch.optim.Adam(self.parameters(), lr=self.hparams["rate"])
        schedule = falling(optimizer, int(self.trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def main(
    out: Annotated[Path, typer.Option(help="Folder to write to, made if need be.")] = Path("runs/lightning"),
    seed: Annotated[int, typer.Option(min=0, help="Of images, weights and order.")] = 0,
    weight: Annotated[float, typer.Option(min=0, help="Of ActDiff.")] = 10.0,
    epochs: Annotated[int, typer.Option(min=1)] = 10,
    images: Annotated[int, typer.Option(min=2, help="To train on.")] = 500,
) -> None:
    """Train a small network on crosses with ActDiff under Lightning."""
    lightning.seed_everything(seed, verbose=False)
    data, test = Crosses("train", images, seed=seed), Crosses("test", 128, seed=seed)
    logger = CSVLogger(out, name="", version="")
    trainer = lightning.Trainer(
        max_epochs=epochs, logger=logger, log_every_n_steps=1, enable_checkpointing=False, enable_model_summary=False
    )
    loaders = DataLoader(data, batch_size=32, shuffle=True), DataLoader(test, batch_size=128)
    trainer.fit(GuardedClassifier(weight), *loaders)
    trainer.save_checkpoint(out / "last.ckpt")
    network = GuardedClassifier.load_from_checkpoint(out / "last.ckpt").guard.unwrap()
    print(f"AUC of {out / 'last.ckpt'}: train {auc(network, data):.3f}, test {auc(network, test):.3f}")


if __name__ == "__main__":
    typer.run(main)
