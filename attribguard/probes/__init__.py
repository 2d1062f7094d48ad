"""What a trained network has learned, measured without training it."""

from attribguard.probes.gradient_cosine import GradientCosine
from attribguard.probes.task_similarity import TaskSimilarity, task_similarity

__all__ = ["GradientCosine", "TaskSimilarity", "task_similarity"]
