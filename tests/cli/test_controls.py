"""Is a measurement calibrated on models that were really trained? Controls tell, many of them."""

import json

import pytest
from scipy import stats

from canaryaudit.training import loop as training
from tests.commands import ROOT, succeed

EXPECTED = 1.4427


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_two_hundred_controls_look_as_if_never_seen(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(training.SIZES, "small", (16, 128, 1))
    corpus = ROOT / "corpora" / "harbour.txt"
    template = "My telephone number is {digits:10}."
    succeed("insert", corpus, "-o", "RUN", "-t", template, "-r", "8", "--controls", "200", "--seed", str(seed))
    succeed("train", "RUN", "--epochs", "6", "--precision", "fp32", "--seed", str(seed))
    result = succeed("measure", "RUN", "--seed", str(seed), "--probes", "none", "--json")
    controls = [own["exposure"]["bits"] for own in json.loads(result.out)["canaries"] if own["control"]]
    assert len(controls) == 200
    mean, pvalue = sum(controls) / 200, stats.kstest(controls, "expon", args=(0, EXPECTED)).pvalue
    print(f"seed {seed}: 200 controls, mean {mean:.2f} bits, p = {pvalue:.2f}")
    assert mean == pytest.approx(EXPECTED, abs=0.25)
    assert pvalue >= 0.01
