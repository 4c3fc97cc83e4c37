"""Gaussians of feature rows that come in batches, and the Frechet distance of two."""

from __future__ import annotations

import numpy as np


class FeatureStatistics:
    """Mean and covariance of rows that come in batches, in float64; memory O(size^2)."""

    def __init__(self, size: int) -> None:
        self.count = 0
        self.mean = np.zeros(size)
        self.scatter = np.zeros((size, size))  # sum of outer products of deviations from the mean

    def update(self, rows: np.ndarray) -> None:
        """Add rows (N, size), N >= 1."""
        rows = np.asarray(rows, np.float64)
        mean, total = rows.mean(axis=0), self.count + len(rows)
        shift, deviations = mean - self.mean, rows - mean
        # Chan, Golub and LeVeque (1979): sums of squares would lose digits
        self.scatter += deviations.T @ deviations
        self.scatter += np.outer(shift * (self.count * len(rows) / total), shift)
        self.mean = self.mean + shift * (len(rows) / total)
        self.count = total

    @property
    def covariance(self) -> np.ndarray:
        """(size, size), as np.cov gives it; of two rows or more."""
        return self.scatter / (self.count - 1)


def frechet_distance(
    mean_a: np.ndarray, cov_a: np.ndarray, mean_b: np.ndarray, cov_b: np.ndarray
) -> float:
    """Squared distance of two Gaussians: |a - b|^2 + Tr(A + B - 2 (A B)^1/2).

    The trace of the root is the sum of the square roots of the eigenvalues of A^1/2 B A^1/2, which
    is symmetric: no complex numbers, no addition to the diagonal where a covariance is singular,
    and a third of the time. (pytorch-fid's own needs an argument that SciPy is about to drop.)
    """
    from scipy import linalg

    values, vectors = linalg.eigh(cov_a)
    root = vectors * np.sqrt(values.clip(min=0))  # root @ root.T = A
    common = np.sqrt(linalg.eigvalsh(root.T @ cov_b @ root).clip(min=0)).sum()
    difference = mean_a - mean_b
    distance = difference @ difference + np.trace(cov_a) + np.trace(cov_b) - 2 * common
    return float(max(0.0, distance))  # rounding goes below 0
