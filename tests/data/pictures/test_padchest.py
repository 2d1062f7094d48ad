import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from attribguard.data.pictures.padchest import PadChest
from attribguard.errors import DataError
from tests.data.picture_files import write_lines, write_png

TABLE = "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv"
HEADER = (
    ",ImageID,ImageDir,StudyDate_DICOM,StudyID,PatientID,PatientBirth,PatientSex_DICOM,ViewPosition_DICOM,Projection,"
    "MethodProjection,Pediatric,Modality_DICOM,Manufacturer_DICOM,PhotometricInterpretation_DICOM,"
    "PixelRepresentation_DICOM,PixelAspectRatio_DICOM,SpatialResolution_DICOM,BitsStored_DICOM,WindowCenter_DICOM,"
    "WindowWidth_DICOM,Rows_DICOM,Columns_DICOM,XRayTubeCurrent_DICOM,Exposure_DICOM,ExposureInTime_DICOM,"
    "XRayExposure_DICOM,RelativeXRayExposure_DICOM,ReportID,Report,MethodLabel,Labels,Localizations,"
    "LabelsLocalizationsBySentence,labelCUIS,LocalizationsCUIS"
)
NAMES = [f"20536686640136348236148679891455886468_k{number}.png" for number in range(5)]
LABELS = [
    "['emphysema', ' scoliosis']",
    "['normal']",
    "[\"Chilaiditi's sign\", '']",
    "['emphysema']",
    "['cardiomegaly']",
]
PLACES, PATIENTS, VIEWS = ["0", "0", "11", "", "0"], ["839", "839", "313", "7", "8"], ["PA", "L", "PA", "PA", "AP"]
IMAGES = np.random.default_rng(0).integers(0, 65536, (5, 6, 4))


def line(number, labels=None, patient=None):
    before = f"{number},{NAMES[number]},{PLACES[number]},20140915,sid,{patient or PATIENTS[number]},1930.0,F,POSTERO,"
    after = f'"{labels or quoted(number)}",[],[],[],[]'
    return f'{before}{VIEWS[number]},Manual,No,{"1," * 16}4765,"sin, hallazgos",Physician,{after}'


def quoted(number):
    return LABELS[number].replace('"', '""')


@pytest.fixture
def folder(tmp_path):
    for name, place, image in zip(NAMES, PLACES, IMAGES, strict=True):
        write_png(tmp_path / place / name, image, bits=16)
    write_lines(tmp_path / TABLE, HEADER, *map(line, range(5)))
    return tmp_path


def test_items_are_the_frontal_pictures_at_16_bits(folder):
    data = PadChest(folder, TABLE, ["emphysema", "Chilaiditi's sign"])
    assert data.files == [f"0/{NAMES[0]}", f"11/{NAMES[2]}", NAMES[3]]
    for index, number in enumerate([0, 2, 3]):
        item = data[index]
        assert torch.equal((item["image"] * 65535).round().long(), torch.tensor(IMAGES[number])[None])
        assert item["group"] == PATIENTS[number] and item["target"].dtype == torch.float32
    assert data.targets.tolist() == [[1, 0], [0, 1], [1, 0]] and data.groups == ["839", "313", "7"]
    batch = next(iter(DataLoader(data, batch_size=3, num_workers=2)))
    assert torch.equal(batch["target"], data.targets) and batch["file"] == data.files


def test_findings_are_all_of_the_table_unless_some_are_given(folder):
    data = PadChest(folder, TABLE, projections=["L", "PA"])
    assert data.labels == ("Chilaiditi's sign", "cardiomegaly", "emphysema", "normal", "scoliosis")
    assert data.targets.tolist() == [[0, 0, 1, 0, 1], [0, 0, 0, 1, 0], [1, 0, 0, 0, 0], [0, 0, 1, 0, 0]]
    assert len(PadChest(folder, TABLE, projections=None)) == 5
    with pytest.raises(DataError, match="no picture"):
        PadChest(folder, TABLE, projections=["COSTAL"])


def test_a_finding_that_is_nowhere_is_one_clear_error(folder):
    with pytest.raises(DataError, match="'Emphysema', which no line"):
        PadChest(folder, TABLE, ["Emphysema"])


def test_the_table_may_lie_elsewhere(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("tables") / TABLE
    (folder / TABLE).rename(elsewhere)
    assert len(PadChest(folder, elsewhere)) == 3
    with pytest.raises(DataError, match="does not exist"):
        PadChest(folder, TABLE)


BAD_LABELS = [
    "nan",
    "normal",
    "{'a'}",
    "{[]}",
    "[1]",
    "[['a']]",
    "__import__('os').getcwd()",
    "['a'",
    "[" * 9000,
    "['a']" * 2500,
]


@pytest.mark.parametrize("labels", BAD_LABELS)
def test_labels_that_are_no_list_of_words_are_refused_and_never_run(folder, labels):
    lines = [line(number, labels if number == 2 else None) for number in range(5)]
    write_lines(folder / TABLE, HEADER, *lines)
    with pytest.raises(DataError, match=r"for labels \(line 4 of"):
        PadChest(folder, TABLE)
    data = PadChest(folder, TABLE, on_error="skip")
    assert data.files == [f"0/{NAMES[0]}", NAMES[3]] and [file for file, _ in data.skipped] == [NAMES[2]]


def test_long_labels_are_not_run_but_measured(folder):
    lines = [line(number, "[" + "'a'," * 3000 + "]" if number == 2 else None) for number in range(5)]
    write_lines(folder / TABLE, HEADER, *lines)
    with pytest.raises(DataError, match=r"for labels \(line 4 of"):
        PadChest(folder, TABLE)


@pytest.mark.parametrize(
    ("act", "words", "number"),
    [
        (
            lambda folder: write_lines(folder / TABLE, HEADER, *map(line, [0, 1, 2, 3, 4, 2])),
            "again, first in line 4",
            7,
        ),
        (lambda folder: write_lines(folder / TABLE, HEADER, line(2, patient=" "), line(0)), "without a patient", 2),
        (lambda folder: (folder / "11" / NAMES[2]).unlink(), "does not exist", 4),
        (lambda folder: (folder / "11" / NAMES[2]).write_bytes(b""), "cannot be read", 4),
    ],
    ids="twice patient missing empty".split(),
)
def test_a_wrong_line_or_file_is_one_error_that_names_the_line_or_is_skipped_and_listed(folder, act, words, number):
    act(folder)
    with pytest.raises(DataError, match=words) as raised:
        PadChest(folder, TABLE)
    assert raised.value.got.endswith(f"(line {number} of {folder / TABLE})")
    data = PadChest(folder, TABLE, on_error="skip")
    assert [reason for _, reason in data.skipped] == [str(raised.value)] and data[0]["file"] == f"0/{NAMES[0]}"


def test_a_name_that_leads_out_of_the_folder_is_refused(folder):
    write_lines(folder / TABLE, HEADER, line(0).replace(NAMES[0], f"../11/{NAMES[2]}"))
    with pytest.raises(DataError, match=r"no name in the folder .*line 2"):
        PadChest(folder, TABLE)
