import subprocess
import sys

import pytest

import attribguard
from attribguard.cli import app, main


def call(*arguments):
    """The exit code of a command."""
    with pytest.raises(SystemExit) as exit_:
        app(list(arguments))
    return exit_.value.code


@pytest.fixture
def steps(monkeypatch):
    """A demo whose trainings end at their first step, by an error that no user meets."""
    taken = []

    def train(split, penalties, settings, *, on_step):
        on_step(1, 2)
        taken.append(split)
        raise RuntimeError("a bug")

    monkeypatch.setattr("attribguard.demo.run.train", train)
    return taken


def test_main_is_the_command_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["attribguard", "--help"])
    with pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code == 0
    assert "demo" in capsys.readouterr().out


def test_the_version_is_printed(capsys):
    assert call("--version") == 0
    assert capsys.readouterr().out == f"attribguard {attribguard.__version__}\n"


def test_demo_is_a_command_of_its_own_with_its_options(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    assert call("demo", "--help") == 0
    printed = capsys.readouterr().out
    assert all(option in printed for option in ("--data", "--out", "--seed"))


def test_help_does_not_wait_for_what_only_a_training_needs():
    code = "import sys, attribguard.cli; print({'matplotlib', 'torchmetrics'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data", "nowhere"], "distractor1.npz, where there is no file"),
        (["--seed", "-1"], "got seed=-1"),
        (["--out", "file"], "nothing can be written"),
    ],
)
def test_bad_input_gives_one_line_and_exit_code_2(tmp_path, monkeypatch, capsys, steps, options, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("kept")
    assert call("demo", *options) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("attribguard: ") and err.count("\n") == 1 and message in err
    assert not steps
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_error_of_the_system_gives_one_line_and_exit_code_2(tmp_path, monkeypatch, capsys):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("attribguard.demo.run_demo", full)
    assert call("demo", "--out", str(tmp_path)) == 2
    assert capsys.readouterr().err == "attribguard: [Errno 28] No space left on device\n"


def test_a_bug_is_not_taken_for_bad_input(tmp_path, steps):
    with pytest.raises(RuntimeError, match="a bug"):
        app(["demo", "--out", str(tmp_path / "out")], standalone_mode=False)
    assert not (tmp_path / "out").exists()
