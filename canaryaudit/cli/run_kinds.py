"""Which flags a command takes for which kind of run."""

import typer

from canaryaudit.errors import UsageError
from canaryaudit.records import RunKind

_OUTPUT = {"as_json", "quiet", "verbose"}
_TEXT_AND_TABLE = {"delimiter", "escape", "header", "encoding"}
_SHARED = {
    "insert": {"corpus", "output", "holdout", "seed", "dry_run", "force"},
    "train": {"run", "force"},
    "measure": {"run", "model"},
    "unlearn": {"run", "name", "method", "canary", "start", "seed", "force"},
    "report": {"run", "formats", "output", "key", "step_summary"},
}
"""Parameters of each command that runs of all kinds have."""
_KINDS: dict[str, dict[str, frozenset[RunKind]]] = {
    "insert": {
        **dict.fromkeys(_TEXT_AND_TABLE, frozenset[RunKind](("text", "table"))),
        **dict.fromkeys(("target", "flip_labels", "identified_by"), frozenset[RunKind](("table", "images"))),
        **dict.fromkeys(("columns", "plant", "drop", "names", "scale"), frozenset[RunKind](("table",))),
        "image": frozenset[RunKind](("images",)),
    },
    "train": {
        **dict.fromkeys(("loss", "c", "intercept", "model", "tolerance"), frozenset[RunKind](("table",))),
        **dict.fromkeys(("epochs", "device", "precision", "seed"), frozenset[RunKind](("text", "images"))),
        **dict.fromkeys(("filters", "dense", "learning_rate", "batch_size"), frozenset[RunKind](("images",))),
    },
    "measure": {"device": frozenset[RunKind](("text", "images"))},
    "unlearn": {
        **dict.fromkeys(("columns", "replace", "where", "rows", "save"), frozenset[RunKind](("table",))),
        "relabel": frozenset[RunKind](("table", "images")),
        "device": frozenset[RunKind](("text", "images")),
    },
    "report": {
        **dict.fromkeys(("against", "certify", "fail_residual"), frozenset[RunKind](("table",))),
        "reveal_secrets": frozenset[RunKind](("text", "table")),
        "fail_auc": frozenset[RunKind](("images",)),
    },
}
"""Parameters that only some have; all others are for runs on text."""
_CALLED: dict[RunKind, tuple[str, str]] = {
    "text": ("text", "text"),
    "table": ("tables", "a table"),
    "images": ("images", "images"),
}
"""Several runs of a kind, and one."""
_HOW: dict[RunKind, str] = {
    "text": "",
    "table": ": name the table's column of labels with --target",
    "images": ": name the column of images with --image",
}


def refuse_others(context: typer.Context, command: str, kind: RunKind) -> None:
    """Refuse flags that are for runs of another kind.

    Raises:
        UsageError: One was given.
    """
    for parameter in context.command.params:
        name = parameter.name or ""
        source = context.get_parameter_source(name)
        if source is None or source.name != "COMMANDLINE" or name in _SHARED[command] | _OUTPUT:
            continue
        kinds = _KINDS[command].get(name, frozenset[RunKind](("text",)))
        if kind in kinds:
            continue
        flag = max(parameter.opts, key=len)
        ordered: list[RunKind] = [own for own in _CALLED if own in kinds]
        allowed = " and ".join(_CALLED[own][0] for own in ordered)
        if command == "insert" and kind == "text":
            raise UsageError(f"{flag} is for runs on {allowed}{_HOW[ordered[0]]}")
        help_page = "" if kind == "text" else f": see canaryaudit {command} --help"
        raise UsageError(f"{flag} is for runs on {allowed}, not on {_CALLED[kind][1]}{help_page}")
