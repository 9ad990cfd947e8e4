"""How a model that reads tokens is asked for a template's secrets: by joint tokenizations, prompt by prompt."""

from collections.abc import Sequence

import numpy as np
import torch

from canaryaudit.canaries.canary import Canary, CanarySet
from canaryaudit.canaries.space import Space
from canaryaudit.canaries.template import Template
from canaryaudit.corpus.vocabulary import Vocabulary
from canaryaudit.errors import ModelError, UnreadableText
from canaryaudit.exposure.effort import LONGEST_CLOSING
from canaryaudit.exposure.encoded_space import PAD, EncodedSpace, encode_completions
from canaryaudit.exposure.execution import Execution
from canaryaudit.exposure.probes import TemplateProbes
from canaryaudit.exposure.prompt_scoring import score_each_symbol
from canaryaudit.exposure.scoring import score_log_perplexity, symbol_bits
from canaryaudit.exposure.spellings import bits_of_other_spellings
from canaryaudit.exposure.targets import Asker, CharacterAsker, ClosingCosts, ProbeCosts, Targets
from canaryaudit.exposure.token_space import Asked, TokenSpace, tokenize, tokenize_closing
from canaryaudit.models.language_model import LanguageModel
from canaryaudit.models.token_model import TokenModel
from canaryaudit.records import OtherSpellings

SPELLED = 32
"""Secrets and references of a template of which all spellings are read."""


class TokenAsker:
    """Asks a model that reads tokens.

    Args:
        model: The model.
        canary_set: Tells the spaces of templates.
    """

    def __init__(self, model: TokenModel, canary_set: CanarySet) -> None:
        self._model, self._canary_set = model, canary_set

    @property
    def device(self) -> torch.device:
        """Of the model."""
        return self._model.device

    def targets(self, text: str, members: Sequence[Canary]) -> Targets:
        """Encode a template's canaries and score them; see ``Asker``."""
        template = Template.parse(text)
        space = self._canary_set.space(template)
        inserted = np.array([not own.control for own in members])
        whole = EncodedSpace.of(space, _vocabulary(space))
        rows = encode_completions([own.completion for own in members], _vocabulary(space), whole.max_length)
        return self._scored(space, template.prefix or "\n", (template, members, inserted), 0, (whole, rows))

    def asked(self, targets: Targets, prompt: str, canary: int, given: int) -> Targets:
        """Return the same canaries after another prompt, and after some characters; see ``Asker``."""
        kept = targets.alike(canary, given).tolist()
        known = targets.canaries[canary].completion[:given]
        space = self._canary_set.space(targets.template).after(known)
        chosen = (targets.template, [targets.canaries[index] for index in kept], targets.inserted[kept])
        prompt = _readable(prompt)
        whole = targets.text_space.after(targets.text_rows[canary, :given])
        return self._scored(space, prompt + known, chosen, given, (whole, targets.text_rows[kept, given:]))

    def _scored(
        self,
        space: Space,
        prompt: str,
        members: tuple[Template, Sequence[Canary], np.ndarray],
        given: int,
        by_characters: tuple[EncodedSpace, np.ndarray],
    ) -> Targets:
        template, canaries, inserted = members
        completions = [own.completion[given:] for own in canaries]
        tokens = TokenSpace(space, Asked(prompt, template.suffix), self._model.tokenizer, completions)
        reader, start = self._model.open(tokens.prompt, tokens.columns, tokens.encoded.max_length)
        rows, ends = tokens.encode(completions)
        return Targets(
            tokens.encoded,
            start,
            rows,
            inserted,
            score_log_perplexity(reader, start, rows),
            reader=reader,
            template=template,
            canaries=canaries,
            symbol_bits=symbol_bits(reader, start, rows),
            ends=ends,
            text_space=by_characters[0],
            text_rows=by_characters[1],
            tokens=tokens,
        )

    def probe_costs(
        self, targets: Targets, fresh: np.ndarray, probes: TemplateProbes, execution: Execution
    ) -> ProbeCosts:
        """Score the canaries, then fresh members, under every probe, prompt by prompt; see ``Asker``.

        Of a secret whose beginning is given, the tokens count that end behind it: what a token holds of both sides of
        the border cannot be told apart. The same is done with every reference. A prompt that the model cannot read is
        left out, unless it is the template's own.
        """
        vocabulary = _vocabulary(self._canary_set.space(targets.template))
        completions = [own.completion for own in targets.canaries]
        completions += [vocabulary.decode(row[row >= 0]) for row in fresh]
        bits = np.zeros((len(probes.probes), len(completions)))
        greedy = np.zeros(bits.shape, dtype=bool)
        tick, read = execution.ticker("probes"), 0
        unread: dict[int, str] = {}
        for number, prompt in enumerate(probes.prompts):
            asked = Asked(_readable(prompt.text), targets.template.suffix)
            try:
                joint = tokenize(self._model.tokenizer, asked, completions)
                columns = np.unique(joint.ids[joint.ids >= 0])
                rows = np.searchsorted(columns, joint.ids).astype(np.int32)
                rows[joint.ids < 0] = PAD
                unique, inverse = np.unique(rows, axis=0, return_inverse=True)
                reader, start = self._model.open(joint.prompt, columns, rows.shape[1])
            except UnreadableText as error:
                if prompt.family == "template":
                    raise
                unread[number] = str(error).partition(": ")[0]
                continue
            each, likeliest = (own[0][inverse.reshape(-1)] for own in score_each_symbol(reader, start, unique))
            for index, probe in enumerate(probes.probes):
                if probe.prompt == number:
                    counted = (joint.ids >= 0) & (joint.ends > probe.given if probe.given else True)
                    bits[index] = np.where(counted, each, 0.0).sum(1)
                    greedy[index] = (likeliest | ~counted).all(1)
            read += rows.size
            tick(number + 1, len(probes.prompts))
        return ProbeCosts(bits, greedy, read, unread)

    def closing_costs(self, targets: Targets, members: np.ndarray) -> ClosingCosts | None:
        """Return what the closing text's own tokens cost after members of the space; see ``Asker``."""
        template = targets.template
        vocabulary = _vocabulary(self._canary_set.space(template))
        whole = tokenize_closing(
            self._model.tokenizer,
            Asked(template.prefix or "\n", template.suffix),
            [vocabulary.decode(row[row >= 0]) for row in members],
            LONGEST_CLOSING,
        )
        if not whole.is_closing.any():
            return None
        columns, rows = np.unique(whole.ids[whole.ids >= 0]), whole.ids
        rows = np.where(rows < 0, PAD, np.searchsorted(columns, rows)).astype(np.int32)
        unique, inverse = np.unique(rows, axis=0, return_inverse=True)
        try:
            reader, start = self._model.open(whole.prompt, columns, rows.shape[1])
        except UnreadableText:  # With the closing text it is too long for the model.
            return None
        each = score_each_symbol(reader, start, unique)[0][0][inverse.reshape(-1)]
        return ClosingCosts(np.where(whole.is_closing, each, 0.0).astype(float).sum(1), rows.size)

    def other_spellings(self, targets: Targets, rng: np.random.Generator) -> OtherSpellings | None:
        """Return what other tokenizations of the same text add; see ``Asker``."""
        tokens = targets.tokens
        if tokens is None:
            return None
        chosen = np.flatnonzero(targets.inserted)[:SPELLED]
        fresh = targets.space.sample(SPELLED, rng) if tokens.drawn is None else tokens.drawn[:SPELLED]
        rows = np.concatenate((targets.completions[chosen], fresh))
        costs = score_log_perplexity(targets.reader, targets.start, rows).tolist()
        ids = [tokens.columns[row[row >= 0]].tolist() for row in rows]
        least, most = bits_of_other_spellings(self._model, tokens.prompt, ids, costs)
        return OtherSpellings(
            template=targets.template.text,
            secrets_bits={targets.canaries[index].id: float(least[at]) for at, index in enumerate(chosen.tolist())},
            references=len(fresh),
            references_mean_bits=float(least[len(chosen) :].mean()),
            references_max_bits=float(least[len(chosen) :].max()),
            uncertain_bits=float((most - least).max()),
        )

    def greedy_text(self, targets: Targets) -> str:
        """Return what the model itself says after the template's prefix; see ``Asker``."""
        tokens, tokenizer = targets.tokens, self._model.tokenizer
        if tokens is None:
            return ""
        longest = len(tokens.lead) + max(len(own.completion) for own in targets.canaries)
        every = np.arange(len(tokenizer.pieces))
        try:
            reader, state = self._model.open(tokens.prompt, every, longest)
        except ModelError:  # Character by character it is longer than what the model reads.
            longest = tokens.encoded.max_length
            reader, state = self._model.open(tokens.prompt, every, longest)
        found: list[int] = []
        while len(found) < longest and len(tokenizer.decode(found)) < longest:
            chosen = state.log2_probs[:, : len(every)].argmax(1)
            found.append(int(chosen))
            state = reader.advance(state, chosen)
        return tokenizer.decode(found).removeprefix(tokens.lead)


def asker_of(model: LanguageModel | TokenModel, canary_set: CanarySet) -> Asker:
    """Return how a model is asked."""
    return TokenAsker(model, canary_set) if isinstance(model, TokenModel) else CharacterAsker(model, canary_set)


def _readable(prompt: str) -> str:
    """Return a prompt; one of blanks alone after a line break.

    Many tokenizers join a blank to what follows, and then no token would be left to read before the secret.
    """
    return prompt if prompt.strip(" ") else "\n" + prompt


def _vocabulary(space: Space) -> Vocabulary:
    return Vocabulary("".join(sorted(space.symbols)))
