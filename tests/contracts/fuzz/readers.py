"""Every reader of the library: a folder of valid files, and how it reads them. A new one is a line in READERS."""

import hashlib
import importlib.util
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

import attribguard
from attribguard import checkpoint
from attribguard.auditing import AuditReport, audit
from attribguard.auditing.progress_file import ProgressFile
from attribguard.cli.subject import load_model
from attribguard.data import ChestXray14, Crosses, DecoyFashion, ImageFolderWithMasks, PadChest, read_idx
from attribguard.data.files import read_mask, read_picture
from attribguard.models.swin_unet_keys import read_checkpoint, translate
from attribguard.probes.patch_swap.pair_records import PairRecords
from attribguard.probes.patch_swap.patch_grid import PatchGrid
from attribguard.probes.patch_swap.scan_result import ScanResult
from attribguard.reproduce import records
from tests.auditing.subjects import Corner, batches
from tests.contracts.fuzz import medical
from tests.contracts.fuzz.checks import whole_item
from tests.data.idx_files import write_fashion, write_idx
from tests.data.picture_files import write_lines, write_png

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 8)).astype(np.uint8)


@dataclass(frozen=True)
class Reader:
    """`write` makes a valid folder, and `read` reads it; each of its files may be damaged between the two."""

    name: str
    write: Callable[[Path], object]
    read: Callable[[Path], object]


def linear():
    """A network small enough to be made anew for each checkpoint."""
    return nn.Linear(3, 2)


def _write_npz(folder):
    image = np.zeros((2, 6, 6), np.uint8)
    image[0, 2, 3] = 255
    for name, save in (("plain", np.savez), ("packed", np.savez_compressed)):
        save(folder / f"{name}.npz", image=image, mask=image // 255, label=np.array([0, 1]))


def _read_npz(folder):
    for path in sorted(folder.glob("*.npz")):
        data = Crosses.from_npz(path)
        assert set(data.images.unique().tolist()) <= {0.0, 1.0} and data.masks.shape == data.images.shape
        assert len(data.targets) == len(data.images)


def _write_idx(folder):
    write_idx(folder / "images.gz", (3, 4, 5), bytes(range(60)))
    write_idx(folder / "labels.gz", (3,), [0, 1, 9])


def _read_idx(folder):
    assert read_idx(folder / "images.gz", 3).ndim == 3
    assert read_idx(folder / "labels.gz", 1).ndim == 1


def _write_fashion(folder):
    images = np.random.default_rng(1).integers(0, 256, (2, 28, 28)).astype(np.uint8)
    write_fashion(folder, *[(images, np.array([3, 9], np.uint8))] * 2)


def _write_pictures(folder):
    write_png(folder / "gray.png", PIXELS, filters=(0, 1, 2, 3, 4))
    write_png(folder / "deep.png", np.stack([PIXELS.astype(np.uint16) * 257] * 3, 2), 16, filters=(4, 3, 1))
    write_png(folder / "alpha.png", np.stack([PIXELS, PIXELS * 0 + 255], 2))
    Image.fromarray(PIXELS % 4).convert("P").save(folder / "palette.png")
    Image.fromarray(PIXELS > 99).save(folder / "bits.png")
    Image.fromarray(PIXELS).save(folder / "gray.jpg")
    Image.fromarray(np.stack([PIXELS] * 3, 2)).save(folder / "colours.jpg", progressive=True)
    write_png(folder / "mask.png", (PIXELS > 99).astype(np.uint8))


def _read_pictures(folder):
    for path in sorted(folder.glob("[!.]*")):
        picture = (read_mask if path.stem == "mask" else read_picture)(path)
        assert picture.ndim == 3 and picture.min() >= 0 and picture.max() <= 1


def _write_image_folder(folder):
    for name in ("a.png", "b.png"):
        write_png(folder / "images" / name, PIXELS)
    write_png(folder / "masks" / "a.png", (PIXELS > 99).astype(np.uint8))
    write_lines(folder / "labels.csv", "file,label,group,split", "a.png,1,ann,train", "b.png,0,bob,train")
    write_lines(folder / "boxes.csv", "Image Index,Bbox [x,y,w,h]", "a.png,1,1,4,3.5")


def _read_image_folder(folder):
    cache = folder.parent / "cache"
    _read_items(ImageFolderWithMasks(folder, masks="some", boxes="boxes.csv", size=4, on_error="skip", cache=cache))
    _read_items(ImageFolderWithMasks(folder, "train", masks="none"))


def _write_chest_xray(folder):
    for name in ("1_000.png", "2_000.png"):
        write_png(folder / "images" / name, PIXELS)
    lines = ("1_000.png,Mass|Hernia,0,1", "2_000.png,No Finding,0,2")
    write_lines(folder / "Data_Entry_2017.csv", "Image Index,Finding Labels,Follow-up #,Patient ID", *lines)
    box = "1_000.png,Mass,1,1,2,2,,,"
    write_lines(folder / "BBox_List_2017.csv", "Image Index,Finding Label,Bbox [x,y,w,h],,,", box)
    write_lines(folder / "train_val_list.txt", "1_000.png")
    write_lines(folder / "test_list.txt", "2_000.png")


def _write_padchest(folder):
    write_png(folder / "0" / "a.png", PIXELS.astype(np.uint16) * 257, 16)
    write_png(folder / "b.png", PIXELS)
    lines = ("a.png,0,7,PA,\"['normal', ' mass']\"", "b.png,9,8,PA,['mass']")
    write_lines(folder / "table.csv", "ImageID,ImageDir,PatientID,Projection,Labels", *lines)


def _read_items(data):
    for index in range(len(data)):
        whole_item(data[index])


def _write_report(folder):
    options = {"baseline": Corner(swap=True), "class_names": ["low", "high"]}
    audit(Corner(), list(batches(20, group=["a", "b"] * 10)), **options).to_json(folder / "report.json")


def _read_report(folder):
    report = AuditReport.from_json(folder / "report.json")
    report.values(), report.summary()
    report.to_html(folder.parent / "page.html")
    report.to_json(folder.parent / "again.json")
    assert AuditReport.from_json(folder.parent / "again.json") == report


def _write_scan(folder):
    certainty = np.random.default_rng(0).random((8, 2, 4))
    grid, picture = PatchGrid((4, 4), 2, 2), np.zeros((4, 4), np.uint8)
    scan = ScanResult(certainty, certainty[:, 0, 0], (0,) * 8, grid, 5, 0, "swap", "mean", None, 0, picture)
    (folder / "scan.json").write_text(scan.to_json())


def _read_scan(folder):
    scan = ScanResult.from_json((folder / "scan.json").read_bytes().decode("utf-8", "replace"))
    scan.heatmap(), scan.curves, scan.argmin, scan.interval(), str(scan)
    assert scan.untested or np.isfinite(scan.p_values).all()
    assert scan.irrelevant_mask().shape[2:] == scan.grid.image


PAIR = {"key": "0123", "source_class": 0, "target_class": 1, "sources": 8, "targets": 2, "drop": [0.1, 0.2],
        "p_values": [0.5, 0.01], "untested": None}  # fmt: skip
ROW = {"row": "a", "final": True, "seed": 0, "settings": {"weight": 1.0}, "metrics": {"test": 0.5, "valid": None},
       "curves": {"valid": [0.5, None]}, "maps": {"m": [[0.5]]}, "seconds": 1.5,
       "machine": {"processor": "x", "cores": 2, "device": "cpu"}, "versions": {"torch": "2"}}  # fmt: skip


def _write_jsonl(name, *lines):
    return lambda folder: write_lines(folder / name, *map(json.dumps, lines))


def _read_records(folder):
    for record in records.read(folder / "rows.jsonl"):
        records.append(folder.parent / "again.jsonl", record)
    (folder.parent / "again.jsonl").unlink(missing_ok=True)


def _write_progress(folder):
    rows = audit(Corner(), list(batches(4))).images
    ProgressFile(folder / "rows.jsonl", {"model": linear_of_ones()}, {}).add(rows)


def linear_of_ones():
    network = linear()
    for parameter in network.parameters():
        nn.init.ones_(parameter)
    return network


def _write_checkpoints(folder):
    weights = linear().state_dict()
    torch.save(weights, folder / "zip.pt")
    torch.save({"epoch": 3, "state_dict": weights, "more": [1, "x", (None, 2.5)]}, folder / "trainer.pt")
    torch.save(weights, folder / "legacy.pth", _use_new_zipfile_serialization=False)
    save_file(weights, folder / "plain.safetensors")


def _read_checkpoints(folder):
    for path in sorted(folder.glob("[!.]*")):
        model = load_model(f"{__name__}:linear", path, 2, 3)
        assert model.weight.shape == (2, 3)
        model(torch.ones(1, 3))


def _write_swin(folder):
    tensors = {"patch_embed.proj.weight": torch.ones(2, 3), "layers.1.downsample.norm.bias": torch.ones(4)}
    torch.save({"model": tensors, "epoch": 1}, folder / "swin.pt")


def _read_swin(folder):
    tensors = read_checkpoint(folder / "swin.pt")
    translate(tensors)
    assert all(tensor.sum().numel() == 1 for tensor in tensors.values() if tensor.numel() < 10**7)


def _training():
    guard = attribguard.wrap(nn.Sequential(nn.Flatten(), linear_of_ones()), penalties=[attribguard.RRR(1.0)])
    return guard, torch.optim.SGD(guard.parameters(), 0.1, momentum=0.9)


def _write_training(folder):
    guard, optimizer = _training()
    guard(torch.ones(2, 3, 1, 1), torch.tensor([0, 1])).loss.backward()
    optimizer.step()
    checkpoint.save(folder / "run.ckpt", guard, optimizer, step=3)


def _read_training(folder):
    # Whoever can change the content can compute its checksum.
    head, _, payload = (folder / "run.ckpt").read_bytes().partition(b"\n")
    if re.fullmatch(rb"attribguard checkpoint 1 [0-9a-f]{64}", head):
        head = b"attribguard checkpoint 1 " + hashlib.sha256(payload).hexdigest().encode()
        (folder / "run.ckpt").write_bytes(head + b"\n" + payload)
    checkpoint.load(folder / "run.ckpt", *_training())


READERS = [
    Reader("npz", _write_npz, _read_npz),
    Reader("idx", _write_idx, _read_idx),
    Reader("Fashion-MNIST", _write_fashion, lambda folder: _read_items(DecoyFashion("train", folder))),
    Reader("pictures", _write_pictures, _read_pictures),
    Reader("image folder", _write_image_folder, _read_image_folder),
    Reader("ChestX-ray14", _write_chest_xray,
           lambda folder: _read_items(ChestXray14(folder, "train_val_list.txt", on_error="skip"))),
    Reader("PadChest", _write_padchest, lambda folder: _read_items(PadChest(folder, "table.csv", on_error="skip"))),
    Reader("report", _write_report, _read_report),
    Reader("scan", _write_scan, _read_scan),
    Reader("pairs", _write_jsonl("pairs.jsonl", PAIR, PAIR | {"source_class": 2}),
           lambda folder: PairRecords(folder / "pairs.jsonl").find(0, 1, "0123")),
    Reader("records", _write_jsonl("rows.jsonl", ROW, ROW | {"seed": 1}), _read_records),
    Reader("progress", _write_progress,
           lambda folder: ProgressFile(folder / "rows.jsonl", {"model": linear_of_ones()}, {})),
    Reader("checkpoints", _write_checkpoints, _read_checkpoints),
    Reader("training", _write_training, _read_training),
    Reader("Swin checkpoint", _write_swin, _read_swin),
]  # fmt: skip

if all(map(importlib.util.find_spec, ("SimpleITK", "pydicom", "nibabel"))):
    READERS += [Reader(*each) for each in medical.readers()]
