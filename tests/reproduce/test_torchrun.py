import os
import subprocess
import sys
from pathlib import Path

from attribguard.reproduce.records import read
from tests.reproduce.small import small

ROOT = Path(__file__).parents[2]
SCRIPT = """
import sys
from pathlib import Path
from attribguard.reproduce import reproduce
from tests.reproduce.small import small
reproduce(small(), Path(sys.argv[1]))
"""


def test_two_processes_of_torchrun_share_a_table_and_write_what_one_writes(tmp_path):
    script = tmp_path / "run.py"
    script.write_text(SCRIPT)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--no-python"]
    # Outputs into one file and not through pipes: a process that outlives the launcher would keep a pipe open.
    with (tmp_path / "log").open("w") as log:
        done = subprocess.run(
            [*torchrun, sys.executable, str(script), str(tmp_path / "two")],
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            stdout=log,
            stderr=subprocess.STDOUT,
            timeout=300,
            check=False,
        )
    assert done.returncode == 0, (tmp_path / "log").read_text()
    subprocess.run(
        [sys.executable, str(script), str(tmp_path / "one")], env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True
    )
    two, one = (read(tmp_path / name / "small.jsonl") for name in ("two", "one"))

    def figures(records):
        return sorted((record["row"], record["final"], record["seed"], str(record["metrics"])) for record in records)

    assert figures(two) == figures(one)
    assert len(one) == len(small().rows) * 2 + 4  # and no training twice
