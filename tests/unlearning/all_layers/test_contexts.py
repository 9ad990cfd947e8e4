"""Contexts whose states are computed once, against reading every branch from its beginning."""

import torch

from canaryaudit.unlearning.all_layers.contexts import Contexts, branch_features
from tests.unlearning.builders import tiny_model


def test_branches_read_on_from_a_context_as_if_it_had_been_read_for_each() -> None:
    model = tiny_model("abcdef", hidden=5)
    generator = torch.Generator().manual_seed(0)
    contexts = Contexts(torch.randint(6, (3, 7), generator=generator), (2, 5, 7))
    branches, origins = torch.randint(6, (4, 3), generator=generator), torch.tensor([0, 4, 8, 5])
    assert len(contexts) == 9
    states = contexts.read(model)
    features = branch_features(model, states, branches, origins)
    for row, (branch, origin) in enumerate(zip(branches, origins.tolist(), strict=True)):
        end, window = divmod(origin, 3)
        whole = torch.cat((contexts.symbols[window, : contexts.ends[end]], branch))
        expected = model.features(whole[None, :-1])[0][0, -len(branch) :]
        torch.testing.assert_close(features[row], expected)
    torch.testing.assert_close(states.features, model.features(contexts.symbols)[0])


def test_a_branch_of_one_symbol_is_predicted_from_its_context_alone() -> None:
    model = tiny_model("abcdef", hidden=5)
    contexts = Contexts(torch.tensor([[0, 1, 2]]), (3,))
    features = branch_features(model, contexts.read(model), torch.tensor([[4], [5]]), torch.tensor([0, 0]))
    expected = model.features(contexts.symbols)[0][0, -1]
    torch.testing.assert_close(features, expected.expand(2, 1, -1))
