import pytest

from attribguard.cli import app
from attribguard.cli.reproduce_command import default_jobs
from attribguard.reproduce import RECIPES
from tests.reproduce.small import small, train


def call(*arguments):
    """The exit code of a command."""
    with pytest.raises(SystemExit) as exit_:
        app(["reproduce", *arguments])
    return exit_.value.code


@pytest.fixture
def table(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(RECIPES, "small", small())


def test_the_list_names_every_table(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    assert call("--list") == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in RECIPES)


def test_a_run_prints_its_files_and_shows_progress_on_the_error_stream(table, capsys, tmp_path):
    assert call("small", "--out", "out", "--seeds", "1", "--jobs", "1") == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == ["out/small.jsonl", "out/small.md", "out/small.png"]
    assert "trainings" in err and (tmp_path / "out" / "small.md").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "got NAME=None; needed one of"),
        (["nothing"], "got NAME='nothing'"),
        (["small", "--quick", "--full"], "got --quick and --full"),
        (["small", "--seeds", "0"], "got seeds=0"),
        (["small", "--jobs", "0"], "got jobs=0"),
        (["decoy-fashion"], "got decoy-fashion without data"),
        (["decoy-fashion", "--data", "nowhere"], "nowhere"),
    ],
)
def test_bad_input_gives_one_line_and_exit_code_2(table, capsys, tmp_path, arguments, message):
    assert call(*arguments) == 2
    out, err = capsys.readouterr()
    assert out == "" and list(tmp_path.iterdir()) == []
    assert err.splitlines()[-1].startswith("attribguard: ") and message in err.splitlines()[-1]


@pytest.mark.parametrize(
    ("device", "environment", "expected"), [("cpu", {}, 3), ("cuda", {}, 1), ("cpu", {"WORLD_SIZE": "2"}, 1)]
)
def test_cores_train_side_by_side_unless_there_is_an_accelerator_or_a_launcher(
    monkeypatch, device, environment, expected
):
    monkeypatch.setattr("os.cpu_count", lambda: 3)
    assert default_jobs(device, environment) == expected


def test_an_interruption_says_how_to_go_on(table, capsys, monkeypatch, tmp_path):
    left = [3]

    def interrupted(run):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return train(run)

    monkeypatch.setitem(RECIPES, "small", small(function=interrupted))
    assert call("small", "--jobs", "1") == 130
    assert capsys.readouterr().err.endswith("attribguard: interrupted; the same command goes on where it stopped\n")
    assert (tmp_path / "reproduced" / "small.jsonl").read_text("utf-8").count("\n") == 3
