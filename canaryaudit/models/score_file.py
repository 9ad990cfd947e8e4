"""Answers of models behind an API: log-probabilities of the requests' texts, in the forms that servers give.

========================  =====================================================================================
own                       ``{"id", "logprob"}``, natural logarithm, summed over the completion
echo                      OpenAI's legacy completions with ``echo`` and ``logprobs``: ``choices[0].logprobs``
vllm                      ``prompt_logprobs`` of vLLM, with ``prompt_token_ids`` or the text of each token
lm-eval                   samples of lm-evaluation-harness, ``resps``
========================  =====================================================================================

Every line has the request's id, as ``id`` or ``custom_id``; batch files have the answer as ``response.body``.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from canaryaudit.errors import MeasurementError
from canaryaudit.formatting import shorten
from canaryaudit.models.language_model import LOG2_E

_IMPOSSIBLE_BITS = 1e4
"""Cost of what a model holds for impossible, as where it is asked itself: an infinite one has no mean."""
_MOST_POSITIVE = 1e-6
"""Natural logarithm by which rounding may lift a probability above 1."""


@dataclass(frozen=True)
class ScoredText:
    """An answer.

    Attributes:
        bits: Cost of the whole completion; None if it is to be summed over tokens.
        ends: Characters of the whole text up to the end of each token; empty if the answer is a sum.
        token_bits: Cost of each token; NaN for the first one, which nothing precedes.
        likeliest: Whether each token is the likeliest; empty if the answer does not say.
    """

    bits: float | None
    ends: tuple[int, ...] = ()
    token_bits: tuple[float, ...] = ()
    likeliest: tuple[bool, ...] = ()


@dataclass(frozen=True)
class Answers:
    """All answers of a file.

    Attributes:
        scored: By the request's id.
        model: What the answers call the model; may be empty.
    """

    scored: dict[str, ScoredText]
    model: str


def read_answers(path: Path, texts: Mapping[str, str]) -> Answers:
    """Read the answers to requests.

    Args:
        path: JSON Lines.
        texts: The whole text of each request, by id.

    Raises:
        MeasurementError: The file cannot be read, or an answer is not one to its request; the message says why.
    """
    try:
        lines = path.read_text("utf-8-sig").split("\n")  # Other line breaks may be part of a text.
    except (OSError, UnicodeDecodeError) as error:
        raise MeasurementError(f"--scores {path}: cannot be read ({shorten(str(error), 80)}): check the path") from None
    scored: dict[str, ScoredText] = {}
    names: list[str] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"--scores {path}, line {number}"
        answer = _parsed(line, where)
        if answer.get("format") == "canaryaudit-requests":
            continue  # The requests' own header.
        identifier = _identifier(answer)
        if identifier not in texts:
            raise MeasurementError(
                f"{where}: no request has its id ({shorten(str(identifier), 40)}): answer the requests"
            )
        if identifier in scored:
            raise MeasurementError(f"{where}: a second answer to {identifier}: keep one")
        body = _body(answer)
        if isinstance(name := body.get("model"), str):
            names.append(name)
        scored[identifier] = _scored(body, texts[identifier], where)
    _check(scored, texts, path)
    if len(set(names)) > 1:
        several = shorten(", ".join(sorted(set(names))), 80)
        raise MeasurementError(f"--scores {path}: answers of several models ({several}): measure each on its own")
    return Answers(scored, names[0] if names else "")


def _parsed(line: str, where: str) -> dict[str, Any]:
    try:
        answer = json.loads(line)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise MeasurementError(f"{where}: expected a JSON object: write JSON Lines, one answer per line")
    return answer


def _identifier(answer: Mapping[str, Any]) -> str:
    document = answer.get("doc")
    inner = document.get("id") if isinstance(document, Mapping) else None
    return str(answer.get("custom_id") or inner or answer.get("id"))


def _body(answer: dict[str, Any]) -> dict[str, Any]:
    response = answer.get("response")
    if isinstance(response, Mapping):
        body = response.get("body", response)
        return dict(body) if isinstance(body, Mapping) else {}
    return answer


def _scored(body: Mapping[str, Any], text: str, where: str) -> ScoredText:
    choices = body.get("choices")
    choice = choices[0] if isinstance(choices, Sequence) and choices and isinstance(choices[0], Mapping) else {}
    try:
        for own in (body, choice):
            if own.get("prompt_logprobs") is not None:
                ids = own.get("prompt_token_ids", body.get("prompt_token_ids"))
                return _of_vllm(own["prompt_logprobs"], ids, text, where)
        if isinstance(choice.get("logprobs"), Mapping):
            return _of_echo(choice["logprobs"], text, where)
        if "resps" in body:
            total, is_greedy = _flat(body["resps"])[:2]
            return ScoredText(_bits(float(total), where), likeliest=(str(is_greedy) == "True",))
        if isinstance(body.get("token_logprobs"), Sequence):
            return _of_echo(body, text, where)
        if "logprob" in body:
            return ScoredText(_bits(float(body["logprob"]), where))
    except (TypeError, ValueError, KeyError, IndexError):
        pass
    raise MeasurementError(
        f"{where}: no log-probabilities of the text that was sent: expected logprob, an echo with logprobs, "
        "prompt_logprobs or resps; ask for echo=true with logprobs=1, or for prompt_logprobs"
    )


def _flat(value: Any) -> list[Any]:
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    return list(value)


def _of_echo(logs: Mapping[str, Any], text: str, where: str) -> ScoredText:
    """Read OpenAI's form; a token that was generated besides is left out, and one before every text is no text."""
    values, tokens = list(logs["token_logprobs"]), [str(token) for token in logs["tokens"]]
    if values[:1] == [None] and not text.startswith(tokens[0]) and text.startswith(tokens[1]):
        tokens[0] = ""
    joined = "".join(tokens)
    if not joined.startswith(text):
        what = "are cut off before its end" if text.startswith(joined) else "do not spell the text that was sent"
        raise MeasurementError(f"{where}: its tokens {what}: send the text as it is, and raise the limit of its length")
    tops = logs.get("top_logprobs") or []
    likeliest = [_is_top(value, top) for value, top in zip(values, tops, strict=False)]
    whole = likeliest if len(likeliest) == len(values) else []
    return _of_tokens(values, _cumulated([len(token) for token in tokens]), whole, text, where)


def _cumulated(lengths: Sequence[int]) -> list[int]:
    ends, total = [], 0
    for length in lengths:
        total += length
        ends.append(total)
    return ends


def _is_top(value: Any, top: Any) -> bool:
    return isinstance(top, Mapping) and bool(top) and value is not None and value >= max(top.values()) - 1e-9


def _of_vllm(logs: Sequence[Any], ids: Sequence[int] | None, text: str, where: str) -> ScoredText:
    """Read vLLM's form: for each token of the prompt a table of candidates, in which the token itself always is."""
    values: list[Any] = []
    tokens: list[str] = []
    likeliest: list[bool] = []
    for place, table in enumerate(logs):
        if table is None:
            values.append(None)
            likeliest.append(False)
            continue
        alone = next(iter(table.values())) if len(table) == 1 else None
        chosen = alone if ids is None else table.get(str(ids[place]))
        if chosen is None:
            raise MeasurementError(f"{where}: which token was read is not said: add prompt_token_ids")
        values.append(chosen["logprob"])
        tokens.append(str(chosen["decoded_token"]))
        likeliest.append(chosen.get("rank") == 1)
    # The first token has no entry, so its text is what the others leave.
    rest = "".join(tokens)
    first = text[: len(text) - len(rest)] if rest and text.endswith(rest) else None
    if first is None and not text.startswith(rest):
        raise MeasurementError(f"{where}: its tokens do not spell the text that was sent: send it as it is")
    return _of_tokens(values, _cumulated([len(first or ""), *map(len, tokens)]), likeliest, text, where)


def _of_tokens(
    values: Sequence[Any], ends: Sequence[int], likeliest: Sequence[bool], text: str, where: str
) -> ScoredText:
    if len(values) != len(ends):
        raise MeasurementError(f"{where}: {len(values)} log-probabilities of {len(ends)} tokens: expected one for each")
    if not ends or ends[-1] < len(text):
        raise MeasurementError(f"{where}: its tokens are cut off before the text's end: raise the limit of its length")
    bits = tuple(math.nan if value is None else _bits(float(value), where) for value in values)
    return ScoredText(None, tuple(ends), bits, tuple(likeliest))


def _bits(logprob: float, where: str) -> float:
    if math.isnan(logprob) or logprob > _MOST_POSITIVE:
        raise MeasurementError(
            f"{where}: {logprob:g} is no log-probability: expected a natural logarithm, at most 0, of the text sent"
        )
    return min(max(0.0, -logprob * LOG2_E), _IMPOSSIBLE_BITS)


def _check(scored: Mapping[str, ScoredText], texts: Mapping[str, str], path: Path) -> None:
    if missing := [own for own in texts if own not in scored]:
        raise MeasurementError(
            f"--scores {path}: {len(missing):,} of {len(texts):,} requests have no answer, such as {missing[0]}: "
            "answer all of them"
        )
    if len({own.bits is None for own in scored.values()}) > 1:
        raise MeasurementError(
            f"--scores {path}: sums over completions and log-probabilities of tokens are no same cost: answer all "
            "requests in one form"
        )
    sums = {own.bits if own.bits is not None else own.token_bits[1:] for own in scored.values()}
    if len(sums) < 2 <= len(texts):
        raise MeasurementError(
            f"--scores {path}: all answers are equal: the server does not score the text that was sent"
        )


def tokens_of(scored: ScoredText) -> Iterator[tuple[int, int, float]]:
    """Yield where each token begins and ends, in characters of the whole text, and its cost in bits."""
    begin = 0
    for end, bits in zip(scored.ends, scored.token_bits, strict=True):
        yield begin, end, bits
        begin = end
