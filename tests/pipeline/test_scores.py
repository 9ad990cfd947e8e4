"""Requests answered by a server on loopback that speaks as OpenAI and vLLM do, and read back."""

import json
import math
import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from canaryaudit.exposure import MeasurementConfig
from canaryaudit.exposure.estimators import sampled_exposure
from canaryaudit.exposure.score_requests import score_requests
from canaryaudit.exposure.token_asker import TokenAsker
from canaryaudit.models.huggingface import HuggingFaceModel
from canaryaudit.runs.run_directory import RunDirectory
from tests.commands import canaryaudit, succeed
from tests.token_models import make_model, make_tokenizer

pytest.importorskip("transformers")
TEMPLATE = "my code is {digits:4}."


class Server:
    """A tiny model behind HTTP: legacy completions with echo, or prompt_logprobs."""

    def __init__(self) -> None:
        self.tokenizer = make_tokenizer("merged")
        self.model = make_model("gpt2", len(self.tokenizer))

    def logprobs(self, text: str) -> tuple[list[int], list[str], torch.Tensor]:
        ids = self.tokenizer(text)["input_ids"]
        with torch.no_grad():
            logs = torch.log_softmax(self.model(torch.tensor([ids])).logits[0].double(), -1)
        return ids, [self.tokenizer.decode([own]) for own in ids], logs

    def completions(self, asked: dict[str, Any]) -> dict[str, Any]:
        ids, tokens, logs = self.logprobs(asked["prompt"])
        values = [None, *(float(logs[place, own]) for place, own in enumerate(ids[1:]))]
        if asked.get("prompt_logprobs"):
            tables = [None]
            for place, own in enumerate(ids[1:]):
                best = int(logs[place].argmax())
                table = {
                    str(token): {"logprob": float(logs[place, token]), "decoded_token": self.tokenizer.decode([token])}
                    for token in {own, best}
                }
                tables.append(table)  # type: ignore[arg-type]
            return {"model": "stand-in", "choices": [{"prompt_logprobs": tables, "prompt_token_ids": ids}]}
        generated = int(logs[-1].argmax())
        values.append(float(logs[-1, generated]))
        tops = [None, *({"x": float(logs[place].max())} for place in range(len(ids)))]
        logged = {
            "tokens": [*tokens, self.tokenizer.decode([generated])],
            "token_logprobs": values,
            "top_logprobs": tops,
        }
        return {"model": "stand-in", "choices": [{"text": asked["prompt"], "logprobs": logged}]}


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[Server, str]]:
    made = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            answer = json.dumps(made.completions(asked)).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    yield made, f"http://127.0.0.1:{http.server_address[1]}/v1/completions"
    http.shutdown()
    http.server_close()
    thread.join()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "sea.txt").write_text("the sea was calm and the night was long\n\n" * 60, "utf-8")
    succeed(
        "insert", tmp_path / "sea.txt", "-o", tmp_path / "run", "-t", TEMPLATE, "-n", "2", "-r", "1", "--controls", "8"
    )
    return tmp_path / "run"


def asked(run: Path, samples: int) -> list[dict[str, Any]]:
    path = run.parent / "requests.jsonl"
    succeed("requests", run, "-o", path, "--samples", str(samples))
    header, *lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    assert header["count"] == len(lines)
    return lines


def write(run: Path, answers: list[dict[str, Any]]) -> Path:
    path = run.parent / "answers.jsonl"
    path.write_text("".join(json.dumps(own) + "\n" for own in answers), "utf-8")
    return path


def answered(server: tuple[Server, str], lines: list[dict[str, Any]], form: str) -> list[dict[str, Any]]:
    """Answer requests in a form; the first two by HTTP, as the rest would be."""
    made, address = server
    answers = []
    for number, own in enumerate(lines):
        body: dict[str, Any] = {"prompt": own["text"], "echo": True, "logprobs": 1, "max_tokens": 1}
        if form == "vllm":
            body = {"prompt": own["text"], "prompt_logprobs": 1}
        if number < 200:
            sent = urllib.request.Request(address, json.dumps(body).encode(), {"Content-Type": "application/json"})
            with urllib.request.urlopen(sent) as reply:
                answer = json.loads(reply.read())
        else:
            answer = made.completions(body)
        if form == "batch":
            answers.append({"custom_id": own["id"], "response": {"status_code": 200, "body": answer}})
        else:
            answers.append({**answer, "id": own["id"]})
    return answers


def summed(server: tuple[Server, str], lines: list[dict[str, Any]], form: str) -> list[dict[str, Any]]:
    """Answer with sums, as lm-evaluation-harness and the project's own form do."""
    answers = []
    for own in lines:
        ids, tokens, logs = server[0].logprobs(own["text"])
        ends = np.cumsum([len(token) for token in tokens])
        inside = [k for k in range(1, len(ids)) if ends[k] > len("my code is") and ends[k - 1] < len(own["text"]) - 1]
        total = sum(float(logs[k - 1, ids[k]]) for k in inside)
        if form == "lm-eval":
            answers.append({"doc_id": 1, "doc": own, "resps": [[[str(total), "False"]]]})
        else:
            answers.append({"id": own["id"], "logprob": total})
    return answers


def direct(server: tuple[Server, str], run: Path, samples: int) -> tuple[dict[str, float], np.ndarray]:
    """Return what canaries and references cost, asked of the model itself."""
    canary_set = RunDirectory.open(run).canary_set()
    asker = TokenAsker(HuggingFaceModel(server[0].model, server[0].tokenizer), canary_set)
    targets = asker.targets(TEMPLATE, canary_set.canaries)
    costs = dict(zip((own.id for own in canary_set.canaries), targets.log_perplexity_bits.tolist(), strict=True))
    references = [own.completion for own in score_requests(canary_set, samples, 0) if not own.canary]
    from canaryaudit.exposure.scoring import score_log_perplexity

    assert targets.tokens is not None
    return costs, score_log_perplexity(targets.reader, targets.start, targets.tokens.encode(references)[0])


def check(server: tuple[Server, str], run: Path, answers: list[dict[str, Any]], samples: int) -> None:
    found = canaryaudit("measure", run, "--scores", write(run, answers), "--json")
    assert found.status == 0, found.err
    costs, references = direct(server, run, samples)
    controls = [own["id"] for own in found.document["canaries"] if own["control"]]
    others = np.concatenate((references, [costs[own] for own in controls]))
    for own in found.document["canaries"]:
        assert own["log_perplexity_bits"] == pytest.approx(costs[own["id"]], abs=1e-3)
        if not own["control"]:
            directly = sampled_exposure(costs[own["id"]], others, np.log2(10_000))
            share = ((others < costs[own["id"]]).sum() + 0.5) / (len(others) + 1)
            assert own["exposure"]["bits"] == pytest.approx(directly.bits, abs=1e-3)
            assert own["exposure"]["bits"] == pytest.approx(-np.log2(share), abs=0.05)  # by hand
            assert own["exposure"]["method"] == "sampled"


@pytest.mark.parametrize("form", ["echo", "vllm", "batch", "lm-eval", "own"])
def test_answers_cost_what_the_model_itself_says(server: tuple[Server, str], run: Path, form: str) -> None:
    lines = asked(run, 100)
    answers = summed(server, lines, form) if form in ("lm-eval", "own") else answered(server, lines, form)
    check(server, run, answers, 100)
    if form == "echo":
        assert canaryaudit("verify", run).status == 0
        succeed("report", run, "-o", run.parent / "report", "--format", "md")
        assert "stand-in" in (run.parent / "report" / "report.md").read_text("utf-8")
        assert "known by its answers only" in canaryaudit("measure", run).err


@pytest.mark.slow
def test_ten_thousand_requests_are_answered_and_read_back(server: tuple[Server, str], run: Path) -> None:
    lines = asked(run, 9_000)
    assert (run.parent / "requests.jsonl").stat().st_size < 2e6
    check(server, run, answered(server, lines, "echo"), 9_000)


def test_no_request_says_what_it_is(run: Path) -> None:
    lines = asked(run, 60)
    canaries = json.loads((run / "canaries.json").read_text("utf-8"))["canaries"]
    assert {own["completion"] for own in canaries} <= {own["completion"] for own in lines}
    assert len({own["completion"] for own in lines}) == len(lines) == 70
    places = [k for k, own in enumerate(lines) if own["completion"] in {canary["completion"] for canary in canaries}]
    assert places != list(range(len(places)))
    assert set(lines[0]) == {"id", "prompt", "completion", "text"}
    assert "exists: choose another name" in canaryaudit("requests", run, "-o", run.parent / "requests.jsonl").err


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("equal", "all answers are equal"),
        ("positive", "is no log-probability"),
        ("missing", "of 70 requests have no answer"),
        ("twice", "a second answer to"),
        ("unknown", "no request has its id"),
        ("truncated", "are cut off before its end"),
        ("misaligned", "do not spell the text"),
        ("short", "log-probabilities of"),
        ("generated", "no log-probabilities of the text that was sent"),
        ("text", "expected a JSON object"),
        ("foreign", "have no id of a request"),
        ("two forms", "are no same cost: answer all requests in one form"),
        ("two models", "answers of several models (another, stand-in)"),
    ],
)
def test_broken_answers_are_refused_with_the_reason(
    server: tuple[Server, str], run: Path, how: str, message: str
) -> None:
    answers = answered(server, asked(run, 60), "echo")
    logged = answers[5]["choices"][0]["logprobs"]
    if how == "equal":
        answers = [{"id": own["id"], "logprob": -1.5} for own in answers]
    elif how == "positive":
        logged["token_logprobs"][2] = 0.4
    elif how == "missing":
        answers = answers[:-3]
    elif how == "twice":
        answers.append(answers[0])
    elif how == "unknown":
        answers[5]["id"] = "s0-n60-999999"
    elif how == "truncated":
        logged["tokens"], logged["token_logprobs"] = logged["tokens"][:3], logged["token_logprobs"][:3]
    elif how == "misaligned":
        logged["tokens"][1] = "xyz"
    elif how == "short":
        logged["token_logprobs"] = logged["token_logprobs"][:-1]
    elif how == "generated":
        answers[5]["choices"][0]["logprobs"] = None
    elif how == "foreign":
        answers[0]["id"] = "17"
    elif how == "two forms":
        answers[5] = {"id": answers[5]["id"], "logprob": -9.5}
    elif how == "two models":
        answers[5]["model"] = "another"
    path = write(run, answers)
    if how == "text":
        path.write_text(path.read_text("utf-8") + "[1]\n", "utf-8")
    assert message in canaryaudit("measure", run, "--scores", path).complaint


def test_what_servers_write_besides_changes_nothing(server: tuple[Server, str], run: Path) -> None:
    """A mark at the file's beginning, a token before every text, line breaks within texts, and impossible tokens."""
    answers = answered(server, asked(run, 60), "echo")
    plain = json.loads(succeed("measure", run, "--scores", write(run, answers), "--json").out)
    for own in answers:
        logged = own["choices"][0]["logprobs"]
        logged["tokens"].insert(0, "<s>")
        logged["token_logprobs"][:1] = [None, -3.5]
        logged["top_logprobs"].insert(0, None)
        own["note"] = "a\u2028b\u0085c"
    answers[0]["choices"][0]["logprobs"]["token_logprobs"][-2] = -math.inf
    lines = "".join(json.dumps(own, ensure_ascii=False) + "\n" for own in answers)
    write(run, []).write_bytes(b"\xef\xbb\xbf" + lines.encode())
    found = json.loads(succeed("measure", run, "--scores", run.parent / "answers.jsonl", "--json").out)
    for one, other in zip(plain["canaries"], found["canaries"], strict=True):
        assert other["log_perplexity_bits"] == one["log_perplexity_bits"]
        assert abs(other["exposure"]["bits"] - one["exposure"]["bits"]) < 0.1


def test_requests_are_the_same_again(run: Path) -> None:
    canary_set = RunDirectory.open(run).canary_set()
    assert score_requests(canary_set, 60, 3) == score_requests(canary_set, 60, 3)
    assert score_requests(canary_set, 60, 3) != score_requests(canary_set, 60, 4)
    assert MeasurementConfig().seed == 0
