"""Losses of binary linear models as functions of a row's margin m = y (x . theta), y = +1 or -1."""

import math
from typing import Protocol

import numpy as np
from scipy.special import expit

from canaryaudit.tabular.linear.arrays import Vector


class MarginLoss(Protocol):
    """A convex loss of the margin, with its first two derivatives; all shapes (num_rows,)."""

    name: str
    slope_lipschitz: float
    """Largest second derivative."""

    def value(self, margins: Vector) -> Vector:
        """Return the loss of every row, in nats for the logistic loss."""

    def slope(self, margins: Vector) -> Vector:
        """Return the first derivative."""

    def curvature(self, margins: Vector) -> Vector:
        """Return the second derivative."""


class Logistic:
    """log(1 + exp(-m)): logistic regression, in nats."""

    name = "logistic"
    slope_lipschitz = 0.25
    curvature_lipschitz = 1 / (6 * math.sqrt(3))
    """Largest third derivative."""

    def value(self, margins: Vector) -> Vector:
        """Return the loss of every row."""
        return np.logaddexp(0.0, -margins)

    def slope(self, margins: Vector) -> Vector:
        """Return the first derivative."""
        slopes: Vector = -expit(-margins)
        return slopes

    def curvature(self, margins: Vector) -> Vector:
        """Return the second derivative."""
        probability: Vector = expit(-margins)
        return probability * (1.0 - probability)


class SquaredHinge:
    """max(0, 1 - m)^2: the linear support vector machine. Its second derivative jumps at m = 1."""

    name = "squared hinge"
    slope_lipschitz = 2.0

    def value(self, margins: Vector) -> Vector:
        """Return the loss of every row."""
        slack: Vector = np.maximum(0.0, 1.0 - margins)
        return slack * slack

    def slope(self, margins: Vector) -> Vector:
        """Return the first derivative."""
        slopes: Vector = -2.0 * np.maximum(0.0, 1.0 - margins)
        return slopes

    def curvature(self, margins: Vector) -> Vector:
        """Return the second derivative; that of the left at m = 1."""
        return np.where(margins <= 1.0, 2.0, 0.0)


class Squared:
    """(1 - m)^2 = (y - x . theta)^2: the ridge classifier."""

    name = "squared"
    slope_lipschitz = 2.0

    def value(self, margins: Vector) -> Vector:
        """Return the loss of every row."""
        return (1.0 - margins) ** 2

    def slope(self, margins: Vector) -> Vector:
        """Return the first derivative."""
        return -2.0 * (1.0 - margins)

    def curvature(self, margins: Vector) -> Vector:
        """Return the second derivative."""
        return np.full_like(margins, 2.0)
