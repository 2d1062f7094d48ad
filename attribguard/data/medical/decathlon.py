"""The Medical Segmentation Decathlon: volumes and the organs in them, slice by slice."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal

import torch
from torch.utils.data import Dataset

from attribguard.data.files.paths import inside_folder
from attribguard.data.files.refusals import OnError, Refusals
from attribguard.data.medical.labelled_volume import Case, open_case, read_description
from attribguard.data.medical.nifti import Shelf
from attribguard.data.medical.reading import check_window, fitted
from attribguard.data.sizes import Size, as_size, check_alike
from attribguard.errors import DataError, check_choice

__all__ = ["MedicalDecathlon"]

Plane = Literal["axial", "coronal", "sagittal"]
Kept = Literal["all", "with", "without"]
# Of the axes right, anterior, superior: that of the slices, of the rows and of the columns.
_AXES: dict[str, tuple[int, int, int]] = {"axial": (2, 1, 0), "coronal": (1, 2, 0), "sagittal": (0, 2, 1)}


class MedicalDecathlon(Dataset[dict[str, Any]]):
    """Slices of one task of the Medical Segmentation Decathlon, and whether they show an organ.

    Reads the labelled (``training``) volumes of a task's own ``dataset.json``. Of the volumes only headers and labels
    are read now; the images when an item is asked for. A packed volume (``.nii.gz``) is unpacked as a whole, and the
    last ones are kept: go through the slices in order, or unpack the files once (``gunzip``), of which single slices
    are then read at any place. ``x.nii`` is taken where ``dataset.json`` names ``x.nii.gz`` and only the other exists.
    Needs the extra ``medical``: ``pip install "attribguard[medical]"``.

    Slices are cut along the axis of the volume that is nearest to the plane's normal, and not resampled. They are
    turned as radiologists look at them: the patient's right is on the left of axial and coronal slices, the front at
    the top of axial and on the left of sagittal ones, and the head at the top of coronal and sagittal ones. They
    follow each other from the feet to the head, from the back to the front, and from left to right.

    Items are dicts: ``image`` (C, H, W) float32, for CT in Hounsfield units, or in [0, 1] with a window; ``target`` ()
    int64, 1 if the slice shows the organ; ``mask`` (1, H, W) float32, 1 on the organ, and so 0 everywhere in a slice
    without; ``annotated`` () bool, always True; ``group``, the name of the volume, one a patient; ``file``, the image
    relative to the folder; ``slice``, its place in the volume.

    Source: Simpson et al. (2019); Viviano et al., Section 5, who detect the liver, the left atrium and the pancreas at
    100 x 100 pixels. They do not say how slices were chosen from the volumes.

    Args:
        folder: that holds the task's.
        task: name of the task's folder, such as ``"Task09_Spleen"``.
        plane: ``"axial"``, ``"coronal"`` or ``"sagittal"``.
        organ: names of the labels that count as the organ; all but the background (0) by default.
        keep: ``"all"`` slices, or those ``"with"`` or ``"without"`` the organ.
        size: to which images (bilinearly) and masks (by area, at least half) are brought, (H, W) or one number for
            squares, whatever the spacing of the voxels; by default that of the volumes, which must then agree. An
            organ of few pixels may vanish from a smaller mask; the target stays.
        window: (center, width) in Hounsfield units, see :func:`attribguard.data.ct_window`.
        on_error: ``"raise"``: the first bad file is an error, now if its header or label shows it, or else when its
            item is asked for; ``"skip"``: the images are read through now too, and volumes with a bad file are left
            out and listed, with reasons, in ``skipped``.

    Attributes:
        labels: the names in ``dataset.json``, by number.
        targets: (n,) int64, 1 where a slice shows the organ.
        groups: the name of the volume of each slice.
        files: the image of each slice.
        skipped: (file, reason) of what was left out.

    Raises:
        DataError: if nibabel is missing; if ``dataset.json`` is missing, damaged, or names a file twice or outside of
            the folder; if a volume is missing, damaged, not finite, or its label has another size or place or values
            that ``dataset.json`` does not name; if volumes differ in size and none was given; or if no slice is left.
        RangeError: if ``plane``, ``organ``, ``keep``, ``window`` or ``on_error`` is out of range.

    Example:
        >>> import json, nibabel, tempfile
        >>> import numpy as np
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     task = Path(folder, "Task09_Spleen")
        ...     task.mkdir()
        ...     for name, dtype in (("ct.nii.gz", "int16"), ("spleen.nii.gz", "uint8")):
        ...         volume = np.zeros((6, 5, 2), dtype)
        ...         volume[1:3, 2, 1] = 1  # something on the left, in the upper slice
        ...         nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), task / name)
        ...     entries = [{"image": "./ct.nii.gz", "label": "./spleen.nii.gz"}]
        ...     labels = {"0": "background", "1": "spleen"}
        ...     _ = (task / "dataset.json").write_text(json.dumps({"labels": labels, "training": entries}))
        ...     data = MedicalDecathlon(folder, "Task09_Spleen", "axial", organ="spleen")
        ...     data.targets, data[1]["mask"][0]
        (tensor([0, 1]), tensor([[0., 0., 0., 0., 0., 0.],
                [0., 0., 0., 0., 0., 0.],
                [0., 0., 0., 1., 1., 0.],
                [0., 0., 0., 0., 0., 0.],
                [0., 0., 0., 0., 0., 0.]]))
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        task: str,
        plane: Plane = "axial",
        *,
        organ: str | Collection[str] | None = None,
        keep: Kept = "all",
        size: Size = None,
        window: tuple[float, float] | None = None,
        on_error: OnError = "raise",
    ) -> None:
        check_choice("plane", plane, tuple(_AXES))
        check_choice("keep", keep, ("all", "with", "without"))
        check_window(window)
        self._size, refusals = as_size(size), Refusals(on_error)
        self._root, self._plane, self._window = Path(folder), _AXES[plane], window
        self._shelf, self.skipped = Shelf(), refusals.skipped
        description = inside_folder(folder, f"{task}/dataset.json")
        self.labels, pairs = read_description(description)
        names = [organ] if isinstance(organ, str) else organ
        for name in names or ():
            check_choice("organ", name, tuple(self.labels.values()))
        self._organ = [n for n, name in self.labels.items() if (n > 0 if names is None else name in names)]
        self._at: list[tuple[Case, int]] = []  # the slice of a volume that each item is
        targets: list[int] = []
        seen = set[Path]()
        for pair in pairs:
            with refusals.about(f"{task}/{pair[0]}"):
                case = open_case(self._root, description, pair, seen)
                shown = case.slices_with(self._organ, self.labels, self._plane[0])
                if on_error == "skip":  # what is damaged must show before the slices are counted
                    case.image.read_through()
                chosen = [at for at, shows in enumerate(shown) if keep == "all" or shows == (keep == "with")]
                self._at += [(case, at) for at in chosen]
                targets += shown[chosen].tolist()
        if not self._at:
            raise DataError(
                got=f"{description} without a slice to keep; {len(self.skipped)} volumes were skipped",
                needed=f"volumes of which some slices are kept by keep={keep!r}",
                fix="check the task, the organ and what was skipped",
            )
        if self._size is None:
            check_alike("slices", [(case.file, case.size(self._plane)) for case, _ in self._at])
        self.targets = torch.tensor(targets).long()
        self.groups, self.files = [case.name for case, _ in self._at], [case.file for case, _ in self._at]

    def __len__(self) -> int:
        return len(self._at)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One slice, as the class describes it; raises DataError if its image is damaged."""
        case, at = self._at[index]
        image, label = (
            torch.from_numpy(case.cut(one, at, self._plane, self._shelf)) for one in (case.image, case.label)
        )
        mask = torch.isin(label, torch.tensor(self._organ).float()).float()
        image, mask = fitted(image, mask, self._size, self._window)
        return {
            "image": image, "target": self.targets[index].clone(), "mask": mask, "annotated": torch.tensor(True),
            "group": case.name, "file": case.file, "slice": at,
        }  # fmt: skip
