"""What a command asks for, resolved to training rows and columns; and what a record asks for, as a request."""

import operator
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from canaryaudit.errors import UnfitOptions, UnlearningError
from canaryaudit.pipeline.corrections import heldout_words, nothing_to_relabel, read_corrections
from canaryaudit.progress import ProgressReporter
from canaryaudit.records.tables import ReplacedValues, RequestRecord, TableCanary, TableRecord
from canaryaudit.table_plan import Condition, TableUnlearnOptions, parse_assignment
from canaryaudit.tabular.changes import Replacement, Request
from canaryaudit.tabular.encoding import TableRows, find_columns, known_columns
from canaryaudit.tabular.linear.arrays import Indices, Mask
from canaryaudit.tabular.planting import current_values, parsed_value, source_column
from canaryaudit.tabular.reading import read_lines

MOST_ROWS = 500_000
"""Rows that one request may name, so its record can be read again."""
_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "=": operator.eq,
    "!=": operator.ne,
}


class Resolver:
    """Resolves what a command asks for.

    Args:
        table: Columns and canaries.
        rows: All rows.
        earlier: The requests that led to the model to update.
        progress: Told of rows that the model never saw.

    Attributes:
        notes: What must be known of the request beside it.
    """

    def __init__(
        self, table: TableRecord, rows: TableRows, earlier: Sequence[RequestRecord], progress: ProgressReporter
    ) -> None:
        self.table, self.rows, self.earlier, self.progress = table, rows, earlier, progress
        self.gone = {row for request in earlier for row in request.deleted}
        self.notes: list[str] = []

    def resolve(self, options: TableUnlearnOptions) -> RequestRecord:
        """Return the request.

        Raises:
            UnlearningError: It names unknown columns, rows, labels or values, or nothing.
            CorpusError: A file cannot be read.
        """
        if options.where and not options.replace:
            raise UnfitOptions("--where says in which rows --replace puts a value: add --replace COLUMN=VALUE")
        whole = not options.asks
        columns = find_columns(self.table, options.columns, "--columns") if options.columns else ()
        if whole:
            removed = {name for request in self.earlier for name in request.columns}
            columns = tuple(name for name in self.table.sensitive if name not in removed)
        relabeled, labels = self._fixes(options.relabel) if options.relabel else ((), ())
        deleted = self._listed(options.rows) if options.rows else ()
        canaries = self._canaries(options.canary) if options.canary or whole else ()
        back = [canary for canary in canaries if canary.kind == "label"]
        own = [canary for canary in back if canary.row not in relabeled]
        request = RequestRecord(
            columns=self._with_groups(columns),
            replacements=(*self._replacements(options), *_values_back(canaries)),
            restored=tuple(canary.id for canary in canaries),
            relabeled=(*relabeled, *(canary.row for canary in own)),
            labels=(*labels, *(str(canary.original) for canary in own)),
            deleted=deleted,
        )
        rows = len(request.relabeled) + len(request.deleted)
        if rows + sum(len(own.rows or ()) for own in request.replacements) > MOST_ROWS:
            raise UnlearningError(f"the request names more than {MOST_ROWS:,} rows: split it, and chain it with --from")
        if request.model_copy(update={"restored": ()}) == RequestRecord():
            raise UnlearningError(
                "nothing to unlearn: give --columns, --replace, --relabel or --rows, or insert with --columns, "
                "--flip-labels or --plant"
            )
        return request

    def _with_groups(self, names: Sequence[str]) -> tuple[str, ...]:
        """Return columns with their one-hot groups, as far as the encoding made them."""
        if not names or self.table.matrix:
            return tuple(names)
        found: dict[str, None] = {}
        for group in self.table.groups:
            if asked := {*names} & {*group.columns}:
                found.update(dict.fromkeys(group.columns))
                if len(asked) < len(group.columns):  # Their names may be words of the data: the group's is not.
                    self.notes.append(f"all columns of {group.name} were removed, since each follows from the others")
        return tuple(found)

    # --- rows

    def _index(self) -> dict[str, int]:
        """Return each row's training row by its id, -1 if it is held out."""
        places = np.full(len(self.rows.heldout), -1)
        places[self.rows.training] = np.arange(len(self.rows.training))
        names = self.rows.ids or [str(number) for number in range(1, len(places) + 1)]
        return dict(zip(names, places.tolist(), strict=True))

    def _find(self, names: Sequence[str], path: Path) -> list[int]:
        """Return the training rows that ids stand for; -1 for rows that are held out."""
        index, seen = self._index(), dict[str, int]()
        what = f"id in {self.table.identified_by!r}" if self.table.identified_by else "row number"
        found = []
        for number, name in enumerate(names, 1):
            if name in seen:  # An id may tell who a row is about: the message names lines.
                raise UnlearningError(f"{path}: entries {seen[name]:,} and {number:,} have the same id: give each once")
            seen[name] = number
            if name not in index:
                raise UnlearningError(f"{path}: entry {number:,} is no row of the table: expected a {what}")
            if index[name] in self.gone:
                raise UnlearningError(f"{path}: entry {number:,} is a row that was deleted before: leave it out")
            found.append(index[name])
        if heldout := found.count(-1):
            self.progress.warn(heldout_words(path, heldout, len(found)))
        return found

    def _listed(self, path: Path) -> tuple[int, ...]:
        names = read_lines(path, "--rows")
        if not names:
            raise UnlearningError(f"--rows {path}: expected an id on each line, got none")
        rows = tuple(row for row in self._find(names, path) if row >= 0)
        if not rows:
            raise UnlearningError(f"--rows {path}: every row in it is held out: no model was trained on them")
        return rows

    def _fixes(self, path: Path) -> tuple[tuple[int, ...], tuple[str, ...]]:
        """Return the rows of a file of corrections whose label changes, and their labels."""
        lines = read_corrections(path, self.table.classes, self._index())
        found = self._find([line[0] for line in lines], path)
        current = self._labels()
        changes = [
            (row, label) for row, (_, label) in zip(found, lines, strict=True) if row >= 0 and label != current[row]
        ]
        if not changes:
            raise nothing_to_relabel(path, max(found) < 0)
        if len(changes) < len(lines):
            self.progress.info(f"{path}: {len(lines) - len(changes):,} of {len(lines):,} entries change nothing.")
        return tuple(row for row, _ in changes), tuple(label for _, label in changes)

    def _labels(self) -> list[str]:
        """Return the training rows' labels after the earlier requests."""
        labels = [self.table.classes[code] for code in self.rows.codes[self.rows.training].tolist()]
        for request in self.earlier:
            for row, label in zip(request.relabeled, request.labels, strict=True):
                labels[row] = label
        return labels

    # --- values

    def _replacements(self, options: TableUnlearnOptions) -> list[ReplacedValues]:
        if not options.replace:
            return []
        chosen = np.ones(len(self.rows.training), dtype=bool)
        for text in options.where:
            chosen &= self._holds(Condition.parse(text))
        chosen[list(self.gone)] = False
        if not chosen.any():
            raise UnlearningError(f"--where {' and '.join(options.where)}: no training row is so")
        rows = None if not options.where and not self.gone else tuple(np.flatnonzero(chosen).tolist())
        found = []
        for text in options.replace:
            name, value = parse_assignment(text)
            group = source_column(self.table, name, "--replace")
            found.append(ReplacedValues(column=name, value=parsed_value(group, value, "--replace"), rows=rows))
        if len({own.column for own in found}) < len(found):
            raise UnlearningError("--replace: one value for each column")
        return found

    def _holds(self, condition: Condition) -> Mask:
        group = source_column(self.table, condition.column, "--where")
        value = parsed_value(group, condition.value, "--where")
        if group.categories is not None and condition.sign not in ("=", "!="):
            raise UnlearningError(f"--where {group.name}: its values are texts, which compare with = or != only")
        current = np.array(self._values(group), dtype=object if group.categories is not None else np.float64)
        holds: Mask = np.asarray(_COMPARE[condition.sign](current, value), dtype=bool)
        return holds

    def _values(self, group: Any) -> list[float | str]:
        """Return the values of the training rows in a source column after the earlier requests."""
        values = current_values(self.table, self.rows.matrix[self.rows.training], group)
        for request in self.earlier:
            for own in request.replacements:
                if own.column == group.name:
                    for row in range(len(values)) if own.rows is None else own.rows:
                        values[row] = own.value
        return values

    # --- canaries

    def _canaries(self, ids: Sequence[str]) -> tuple[TableCanary, ...]:
        """Return the planted canaries of these ids, or all that are still there."""
        planted = {canary.id: canary for canary in self.table.canaries if canary.planted}
        for own in ids:
            if own not in planted:
                known = ", ".join([*planted][:5]) or "none"
                raise UnlearningError(f"--canary {own}: no canary is called so; the first are {known}")
        before = {own for request in self.earlier for own in request.restored}
        chosen = dict.fromkeys(ids) if ids else [own for own in planted if own not in before]
        removed = {name for request in self.earlier for name in request.columns}
        lost = {group.name for group in self.table.groups if removed >= set(group.columns)}
        found = [planted[own] for own in chosen]
        return tuple(own for own in found if own.row not in self.gone and own.column not in lost)


def _values_back(canaries: Sequence[TableCanary]) -> list[ReplacedValues]:
    """Return what gives canaries' rows their own values back, rows of the same value together."""
    rows: dict[tuple[str, str | float], list[int]] = defaultdict(list)
    for canary in canaries:
        if canary.kind == "value":
            rows[canary.column, canary.original].append(canary.row)
    return [
        ReplacedValues(column=column, value=value, rows=tuple(own))
        for (column, value), own in sorted(rows.items(), key=str)
    ]


def scaling_warning(record: RequestRecord, table: TableRecord, rows: TableRows) -> str:
    """Return a warning if a request takes away a value that a column was scaled by; empty if none.

    Args:
        record: The request.
        table: What the columns are, and how they were scaled.
        rows: All rows. Columns were scaled before canaries were planted, so giving values back takes nothing away.
    """
    changed: dict[str, set[int]] = {}
    for own in record.replacements:
        everywhere = range(len(rows.training)) if own.rows is None else own.rows
        changed.setdefault(own.column, set()).update(everywhere)
    planted = {(canary.column, canary.row) for canary in table.canaries if canary.kind == "value"}
    found = []
    for place, group in enumerate(table.groups, 1):
        if (group.offset, group.width) == (0.0, 1.0) or group.categories is not None:
            continue
        gone = {*record.deleted, *changed.get(group.name, ())}
        gone -= {row for column, row in planted if column == group.name}
        if gone:
            values = current_values(table, rows.matrix[rows.training[sorted(gone)]], group)
            if {group.offset, group.offset + group.width} & {*values}:
                found.append(f"column {place:,}" if table.matrix else group.name)
    if not found:
        return ""
    return (
        f"columns such as {', '.join(found[:3])} were scaled by the smallest and largest value, and the request takes "
        "one of them away: the scaler still depends on it; insert the table again without it"
    )


def to_request(record: RequestRecord, table: TableRecord, label: Callable[[str], Any]) -> Request:
    """Return the request of a record, in the units of models.

    Args:
        record: The record.
        table: What its columns are.
        label: Returns a class as the estimator knows it.
    """
    replacements = []
    for own in record.replacements:
        group = source_column(table, own.column, "request")
        places = known_columns(table).find(list(group.columns))
        if group.categories is None:
            if not isinstance(own.value, float):
                raise UnlearningError(f"the request puts a text into the numbers of column {own.column!r}")
            values: Any = (own.value - group.offset) / group.width
        else:
            values = [float(name == own.value) for name in group.categories]
        rows: Indices | None = None if own.rows is None else np.array(own.rows, dtype=np.intp)
        replacements.append(Replacement(places.tolist(), values, rows))
    labels: Mapping[int, Any] = {row: label(text) for row, text in zip(record.relabeled, record.labels, strict=True)}
    return Request(
        columns=list(record.columns),
        replacements=tuple(replacements),
        rows=np.array(record.deleted, dtype=np.intp),
        labels=labels,
    )
