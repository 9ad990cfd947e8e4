"""Bring corrected labels into a trained network without training it again.

What an update costs is mostly reading the images through the convolutions. ``output-layer``, ``dense-layers`` and
``second-order`` read them once and keep the activations; ``last-block`` keeps those below the last block.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

import numpy as np
import torch
from torch import Tensor, nn

from canaryaudit.errors import UnlearningError
from canaryaudit.images.clock import work_seconds
from canaryaudit.images.layers import Part, cut, layers_of
from canaryaudit.images.output_layer import solve_output_layer
from canaryaudit.images.second_order import Correction, first_order, gauss_newton_step, kronecker_step
from canaryaudit.images.training import LoopConfig, Prepare, fit, outputs
from canaryaudit.progress import NullReporter, ProgressReporter
from canaryaudit.records.images import ImageMethod

METHODS: tuple[ImageMethod, ...] = get_args(ImageMethod)
PENALTY = 0.01
"""Of the exact output layer, for each row: features of rows that the network memorized are larger than of others."""


@dataclass(frozen=True, eq=False)
class Relabeled:
    """A network with corrected labels, and what it took.

    Attributes:
        module: A changed copy.
        words: What was done.
        parameters: How many of its parameters were updated.
        residual: Norm of the gradient that the exact output layer left, for each image; None without one.
        seconds: Processor time; elapsed time on a GPU.
    """

    module: nn.Module
    words: str
    parameters: int
    residual: float | None
    seconds: float
