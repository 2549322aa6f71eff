"""Any text classifier or reward model as a scorer, through text and with its own tokenizer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from pipelines.config.scorer import ScorerSection
from pipelines.errors import UsageError
from pipelines.models.score import read_logit
from pipelines.models.text_classifier import TextClassifier
from pipelines.scorers.base import Completion, Dialogue, Progress, checked_scores
from pipelines.scorers.opening import open_classifier


class ClassifierScorer:
    """One class of a sequence classifier; `TextClassifier` says how it reads a dialogue.

    Attributes:
        name: what tables call it.
    """

    def __init__(
        self,
        name: str,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        section: ScorerSection,
        *,
        progress: Progress | None = None,
    ) -> None:
        self.name = name
        self._classifier = TextClassifier(name, model, tokenizer)
        self._class = choose_logit(model, section.label, name)
        self._section = section
        self._progress = progress

    @property
    def truncated(self) -> int:
        """Texts cut so far."""
        return self._classifier.truncated

    @property
    def num_parameters(self) -> int:
        """Of the model."""
        return self._classifier.model.num_parameters()

    @classmethod
    def load(
        cls, name: str, section: ScorerSection, device: torch.device, *, progress: Progress | None = None
    ) -> ClassifierScorer:
        """Load the classifier that ``section.path`` names; see `open_classifier` for the errors.

        Raises:
            UsageError: also where a choice among several classes is missing.
        """
        return cls(name, *open_classifier(section, device), section, progress=progress)

    def __call__(self, prompts: Sequence[Dialogue], completions: Sequence[Completion]) -> list[float]:
        """The chosen output of the chosen class for each pair.

        Raises:
            DataError: the chat template refuses a dialogue, or a score is not finite.
        """
        rows = [
            self._classifier.encode(prompt, answer.text) for prompt, answer in zip(prompts, completions, strict=True)
        ]
        logits = self._classifier.all_logits(rows, self._section.batch_size, self._progress)
        scores = scores_of(logits, self._class, self._section)
        return checked_scores(f"the classifier {self.name}", scores, len(rows))


def scores_of(logits: Tensor, chosen: int, section: ScorerSection) -> list[float]:
    """What `section.output` names, negated where lower is better.

    Args:
        logits: [B, classes]; a single class is read as yes or no (sigmoid), several as one of them (softmax).
        chosen: index of the class.
        section: of a classifier.
    """
    found = logits[:, chosen]
    if logits.shape[1] == 1:
        found = read_logit(found, section.output)
    elif section.output != "logit":
        found = logits.log_softmax(-1)[:, chosen]
        found = found.exp() if section.output == "probability" else found
    return (-found if section.lower_is_better else found).tolist()


def choose_logit(model: PreTrainedModel, label: int | str | None, name: str) -> int:
    """Index of the logit that is the score: the only one, or the one that `label` names by index or by class name.

    Raises:
        UsageError: there are several and `label` names none of them.
    """
    classes = {int(index): str(text) for index, text in (model.config.id2label or {}).items()}
    if label is None and len(classes) == 1:
        return 0
    if isinstance(label, int) and label in classes:
        return label
    found = [index for index, text in classes.items() if text == label]
    if len(found) == 1:
        return found[0]
    shown = ", ".join(f"{index}: {text}" for index, text in sorted(classes.items()))
    said = f"has no class {label!r}" if label is not None else f"has {len(classes)} classes, and none was chosen"
    raise UsageError(f"the classifier {name} {said}", hint=f"set `label` to one of these: {shown}")
