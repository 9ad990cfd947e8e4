"""Train stage of a run on images."""

import torch

from canaryaudit.errors import ModelError, UsageError
from canaryaudit.image_plan import ImageTrainOptions
from canaryaudit.images.clock import work_seconds
from canaryaudit.images.network import as_input, default_blocks, make_network
from canaryaudit.images.reading import MOST_PIXELS
from canaryaudit.images.training import LoopConfig, fit
from canaryaudit.models.device import resolve_device, resolve_precision
from canaryaudit.models.weights import weights_bytes
from canaryaudit.pipeline.images.session import ImageSession
from canaryaudit.records import TRAINED_MODEL
from canaryaudit.records.images import ImageModelRecord, NetworkShape

MOST_PARAMETERS = 200_000_000


def train_images(session: ImageSession, options: ImageTrainOptions, *, anew: bool = False) -> ImageModelRecord:
    """Train the network, or report that it is already trained.

    Args:
        session: The run.
        options: How to train.
        anew: Retrain even if a model exists; everything made from the old model becomes stale.

    Raises:
        ModelError: A model was made with other options.
        UsageError: The images are too small for so many blocks.
    """
    shape = network_shape(session, options)
    run = session.run
    if run.has_model(TRAINED_MODEL) and not anew:
        record = run.trained_model()
        asked = (shape, options.epochs, options.learning_rate, options.batch_size, options.seed)
        if asked != (record.network, record.epochs, record.learning_rate, record.batch, record.seed):
            raise ModelError(
                f"{run.path} has a network trained with other options: use --force to train again, or give the same"
            )
        session.progress.info(f"Already trained: {record.parameters:,} parameters, {record.epochs} epochs.")
        return record
    device = resolve_device(options.device)
    precision = resolve_precision(options.precision, device)
    with session.stage("train", seed=options.seed, device=device.type, precision=precision):
        network = fresh_network(shape, options.seed).to(device)
        images, labels = session.training_images().to(device), session.labels().to(device)
        config = LoopConfig(options.epochs, options.learning_rate, options.batch_size, options.seed, precision)
        with work_seconds(device) as spent:
            fit(network, images, labels, config, prepare=as_input, progress=session.progress)
    record = ImageModelRecord(
        sha256=run.write_weights(TRAINED_MODEL, weights_bytes(network)),
        network=shape,
        parameters=sum(own.numel() for own in network.parameters()),
        epochs=options.epochs,
        learning_rate=options.learning_rate,
        batch=options.batch_size,
        seed=options.seed,
        device=device.type,
        precision=precision,
        seconds=spent(),
    )
    run.write_model_record(record)
    session.progress.info(f"Trained {record.parameters:,} parameters on {len(labels):,} images.")
    return record


def fresh_network(shape: NetworkShape, seed: int) -> torch.nn.Sequential:
    """Return an untrained network whose weights follow from the seed, in the order in memory that is fast."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make_network(shape).to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def network_shape(session: ImageSession, options: ImageTrainOptions) -> NetworkShape:
    """Return the sizes of the network.

    Raises:
        UsageError: The images are too small for so many blocks, or it would be too large.
    """
    record = session.record
    blocks = options.filters or default_blocks(record.height, record.width)
    if min(record.height, record.width) < 2 ** len(blocks):
        raise UsageError(
            f"--filters: {len(blocks)} blocks halve images of {record.width} x {record.height} pixels to nothing: give "
            "fewer"
        )
    shape = NetworkShape(
        height=record.height,
        width=record.width,
        channels=record.channels,
        classes=len(record.classes),
        blocks=blocks,
        dense=options.dense,
    )
    side = (record.height >> len(blocks)) * (record.width >> len(blocks))
    largest = max(blocks) ** 2 * 9 * 2 * len(blocks) + blocks[-1] * side * options.dense
    if largest > MOST_PARAMETERS or record.height * record.width > MOST_PIXELS:
        raise UsageError("--filters, --dense: so large a network cannot be trained here: give smaller numbers")
    return shape
