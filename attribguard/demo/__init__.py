"""The first run: one network trained twice on the crosses, plain and with ActDiff, measured and drawn."""

from attribguard.demo.run import PAGE, PICTURE, RESULT, TITLES, DemoResult, run_demo
from attribguard.demo.scores import Scores
from attribguard.demo.train import Settings

__all__ = ["PAGE", "PICTURE", "RESULT", "TITLES", "DemoResult", "Scores", "Settings", "run_demo"]
