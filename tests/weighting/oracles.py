"""GradNorm as the paper's Algorithm 1 has it, in loops and numpy, with differences for derivatives of the weights."""

import numpy as np


class Tasks:
    """Regressions from one shared matrix: L_i = mean over rows of (x W v_i - y_i)^2."""

    def __init__(self, x, shared, heads, targets):
        self.x, self.shared, self.heads, self.targets = x, shared, heads, targets

    def loss(self, i):
        return float(np.mean((self.x @ self.shared @ self.heads[i] - self.targets[i]) ** 2))

    def gradients(self, i):
        """Of L_i with respect to the shared matrix and the head."""
        errors = 2 * (self.x @ self.shared @ self.heads[i] - self.targets[i]) / len(self.x)
        return self.x.T @ np.outer(errors, self.heads[i]), (self.x @ self.shared).T @ errors


def train(tasks, fixed, alpha, rate, steps):
    """Algorithm 1 by plain gradient descent, each loss times its fixed weight: the weights after every step."""
    count = len(fixed)
    w = np.ones(count)
    first = [fixed[i] * tasks.loss(i) for i in range(count)]
    history = []
    for _ in range(steps):
        gradients = [tasks.gradients(i) for i in range(count)]
        ratios = [fixed[i] * tasks.loss(i) / first[i] for i in range(count)]
        inverse_rates = [ratio / np.mean(ratios) for ratio in ratios]

        def sizes(w, gradients=gradients):
            return [np.linalg.norm(w[i] * fixed[i] * gradients[i][0]) for i in range(count)]

        targets = [np.mean(sizes(w)) * r**alpha for r in inverse_rates]

        def imbalance(w, sizes=sizes, targets=targets):
            return sum(abs(size - target) for size, target in zip(sizes(w), targets, strict=True))

        slopes = []
        for i in range(count):
            step = np.eye(count)[i] * 1e-6
            slopes.append((imbalance(w + step) - imbalance(w - step)) / 2e-6)
        tasks.shared = tasks.shared - rate * sum(w[i] * fixed[i] * gradients[i][0] for i in range(count))
        for i in range(count):
            tasks.heads[i] = tasks.heads[i] - rate * w[i] * fixed[i] * gradients[i][1]
        w = w - rate * np.array(slopes)
        w = w * count / w.sum()
        history.append(w)
    return np.array(history)
