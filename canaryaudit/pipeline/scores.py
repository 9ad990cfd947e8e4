"""Requests to a model behind an API, and the measurement of its answers."""

import json
from itertools import chain
from pathlib import Path

from canaryaudit.errors import MeasurementError, RunDirectoryError
from canaryaudit.exposure import MeasuredModel
from canaryaudit.exposure.score_requests import measure_scores, requests_answered, score_requests
from canaryaudit.models.score_file import read_answers
from canaryaudit.pipeline.measure import finish_measurement, measurement_config
from canaryaudit.pipeline.session import RunSession
from canaryaudit.plan import MeasureOptions, RequestOptions
from canaryaudit.records import TRAINED_MODEL, ExternalModel, Measurement, ModelRecord
from canaryaudit.runs.run_directory import RunDirectory
from canaryaudit.storage.files import atomic_write, sha256_of

SCHEME = "scores:"
COST = "bits that the server's log-probabilities give to the tokens that cover the secret, after the template's prefix"
FORMAT = "canaryaudit-requests"


def write_requests(run: RunDirectory, output: Path, options: RequestOptions) -> int:
    """Write the requests of a run; return their number.

    Raises:
        RunDirectoryError: The file is there, or cannot be written.
    """
    if output.exists():
        raise RunDirectoryError(f"{output} exists: choose another name, or remove it")
    requests = score_requests(run.canary_set(), options.num_references, options.seed)
    header = {"format": FORMAT, "version": 1, "count": len(requests)}
    lines = ({"id": own.id, "prompt": own.prompt, "completion": own.completion, "text": own.text} for own in requests)
    atomic_write(output, "".join(f"{json.dumps(own, ensure_ascii=False)}\n" for own in chain([header], lines)))
    return len(requests)


def run_score_measurement(session: RunSession, path: Path, options: MeasureOptions) -> Measurement:
    """Measure a model by its answers to the run's requests.

    Raises:
        MeasurementError: The answers cannot be used; the message says why.
        RunDirectoryError: The run has a model of its own.
    """
    run = session.run
    if run.has_model(TRAINED_MODEL) and not run.external_model():
        raise RunDirectoryError(
            f"{run.path} already has a model that canaryaudit trained: insert again with -o for another run"
        )
    config = measurement_config(options)
    requests = requests_answered(_first_id(path), run.canary_set())
    answers = read_answers(path, {own.id: own.text for own in requests})
    sha256 = sha256_of(path)
    with session.stage("measure", str(TRAINED_MODEL), seed=config.seed, device="api"):
        recorded_as = MeasuredModel(str(TRAINED_MODEL), sha256, "as answered")
        measurement = measure_scores(requests, answers.scored, run.canary_set(), recorded_as, config)
    described = ExternalModel(source=f"{SCHEME}{path}", kind=answers.model or "a model behind an API", cost=COST)
    run.write_model_record(ModelRecord(external=described, sha256=sha256))
    return finish_measurement(session, measurement)


def _first_id(path: Path) -> str:
    """Return the id of the first answer, which tells what was asked."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            for line in file:
                answer = json.loads(line) if line.strip() else None
                if isinstance(answer, dict) and answer.get("format") != FORMAT:
                    document = answer.get("doc")
                    inner = document.get("id") if isinstance(document, dict) else None
                    return str(answer.get("custom_id") or inner or answer.get("id"))
    except OSError as error:
        raise MeasurementError(f"--scores {path}: {error.strerror}; give the file of the answers") from None
    except ValueError:
        raise MeasurementError(f"--scores {path}: expected JSON Lines, one answer per line") from None
    raise MeasurementError(f"--scores {path} is empty: expected one answer per request")
