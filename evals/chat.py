"""Chat suites: likelihood of reference and of rejected answers, and answers by greedy decoding.

Rendering: `model.chat_rows`.

B rows of a batch, P shared prefix, L longest row, K longest answer, V vocabulary.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList

from nightsmith.evals.answers import exact_match, token_f1
from nightsmith.evals.suite import ChatRow, Items
from nightsmith.evals.types import SuiteSpec
from nightsmith.model.chat_rows import ChatFormat, Message, TokenRow
from nightsmith.model.prefix import prefix_cache, shared_prefix_len
from nightsmith.record.errors import NightsmithError

BATCH_ROWS = 64
BATCH_TOKENS = 8192
IGNORED = -100

OnBatch = Callable[[int, int], None]


def score_chat(
    model: Any, tokenizer: Any, rows: Sequence[ChatRow], suite: SuiteSpec, on_batch: OnBatch | None = None
) -> Items:
    """Items of a chat suite. Rows are read whole, whatever their length; num_bytes is that of the answer's text.

    Args:
        model: causal language model.
        tokenizer: its tokenizer.
        rows: conversations.
        suite: whether answers are generated, and how long they may be; whether pairs are compared.
        on_batch: progress, in passes over rows; also told at each generated token, so that it may end the evaluation.

    Raises:
        NightsmithError: no answer could end, or a row does not fit into the model's context.
    """
    model.eval()
    chat = ChatFormat(tokenizer)
    token_rows = chat.last_answers([row.messages for row in rows], [row.tools for row in rows])
    _require_context(model, rows, token_rows, suite.max_new_tokens if suite.answers else 0)
    asked = _Asked(model, token_rows, tokenizer.pad_token_id, on_batch, passes=1 + suite.answers + suite.pairs)
    references = [row.messages[-1]["content"] for row in rows]
    figures: dict[str, Any] = {}
    nll = asked.likelihood()
    if suite.answers:
        given = asked.answers(chat.stop_ids, suite.max_new_tokens)
        texts = [chat.answer_text(ids) for ids in given]
        pairs = list(zip(texts, references, strict=True))
        figures = {
            "exact_match": np.array([exact_match(*pair) for pair in pairs]),
            "token_f1": np.array([token_f1(*pair) for pair in pairs]),
            "output_tokens": np.array([float(len(ids)) for ids in given]),
            "answer": tuple(texts),
        }
    if suite.pairs:
        figures |= _pair_figures(chat, rows, asked, nll)
    return Items(
        np.array([row.row_id for row in rows], dtype=np.str_),
        nll,
        np.array([float(sum(row.trained)) for row in token_rows]),
        np.array([float(len(text.encode())) for text in references]),
        **figures,
    )


def _pair_figures(chat: ChatFormat, rows: Sequence[ChatRow], asked: "_Asked", nll: np.ndarray) -> dict[str, Any]:
    """What each row's answer, of this `nll`, has before the rejected one. Raises NightsmithError as `score_chat`."""
    worse = [(*row.messages[:-1], Message(role="assistant", content=row.rejected or "")) for row in rows]
    token_rows = chat.last_answers(worse, [row.tools for row in rows])
    _require_context(asked.model, rows, token_rows, 0)
    rejected = replace(asked, rows=token_rows)
    margin = rejected.likelihood() - nll
    return {"accuracy": (margin > 0).astype(np.float64), "margin": margin}


@dataclass
class _Asked:
    """Rows and the model that they are put to."""

    model: Any
    rows: Sequence[TokenRow]
    pad_id: int
    on_batch: OnBatch | None
    passes: int
    done: int = 0

    def __post_init__(self) -> None:
        prompts = [row.ids[: row.answer_start] for row in self.rows]
        self.prefix = shared_prefix_len(self.model, prompts)
        self.device = next(self.model.parameters()).device

    def tell(self, rows: int = 0) -> None:
        """Progress, after `rows` rows more."""
        self.done += rows
        if self.on_batch is not None:
            self.on_batch(self.done, self.passes * len(self.rows))

    @torch.inference_mode()
    def likelihood(self) -> np.ndarray:
        """Negative log-likelihood of each row's answer, stop token included, in nats, summed in float64."""
        nll = np.zeros(len(self.rows))
        for batch in _batches([len(row) for row in self.rows]):
            rows = [self.rows[i] for i in batch]
            longest = max(len(row) - row.answer_start for row in rows)
            ids_BL, mask_BL = self._pad([row.ids for row in rows])
            logits_BKV = self._logits(ids_BL, mask_BL, longest + 1)[:, :-1]
            targets_BK = torch.full((len(rows), longest), IGNORED, device=self.device)
            for place, row in enumerate(rows):
                answer = row.ids[row.answer_start :]
                targets_BK[place, longest - len(answer) :] = torch.tensor(answer, device=self.device)
            losses = F.cross_entropy(
                logits_BKV.float().flatten(0, 1), targets_BK.flatten(), ignore_index=IGNORED, reduction="none"
            )
            nll[batch] = losses.double().view(len(rows), longest).sum(1).cpu().numpy()
            self.tell(len(rows))
        return nll

    @torch.inference_mode()
    def answers(self, stop_ids: Sequence[int], max_new_tokens: int) -> list[list[int]]:
        """Greedy answers as token ids, without their stop token."""
        found: list[list[int]] = [[] for _ in self.rows]
        self.model.generation_config = GenerationConfig(
            do_sample=False,
            max_new_tokens=max_new_tokens,
            eos_token_id=list(stop_ids),
            pad_token_id=self.pad_id,
        )
        prompts = [row.ids[: row.answer_start] for row in self.rows]
        for batch in _batches([len(prompt) + max_new_tokens for prompt in prompts]):
            ids_BL, mask_BL = self._pad([prompts[i] for i in batch])
            given = self.model.generate(
                input_ids=ids_BL,
                attention_mask=mask_BL,
                stopping_criteria=StoppingCriteriaList([_Told(self)]),
                **self._cached(ids_BL),
            )[:, ids_BL.shape[1] :].tolist()
            for i, ids in zip(batch, given, strict=True):
                found[i] = ids[: next((place for place, token in enumerate(ids) if token in stop_ids), len(ids))]
            self.tell(len(batch))
        return found

    def _pad(self, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Ids and attention mask (B, L), ending together: padding stands between the shared prefix and the rest."""
        longest = max(map(len, rows))
        ids_BL = torch.full((len(rows), longest), self.pad_id)
        mask_BL = torch.zeros(len(rows), longest, dtype=torch.long)
        for place, row in enumerate(rows):
            for part, at in ((row[: self.prefix], 0), (row[self.prefix :], longest - len(row) + self.prefix)):
                ids_BL[place, at : at + len(part)] = torch.tensor(part, dtype=torch.long)
                mask_BL[place, at : at + len(part)] = 1
        return ids_BL.to(self.device), mask_BL.to(self.device)

    def _logits(self, ids_BL: Tensor, mask_BL: Tensor, keep: int) -> Tensor:
        """Logits at the last `keep` places."""
        positions_BL = (mask_BL.cumsum(1) - 1).clamp(min=0)
        return self.model(
            input_ids=ids_BL[:, self.prefix :],
            attention_mask=mask_BL,
            position_ids=positions_BL[:, self.prefix :],
            use_cache=bool(self.prefix),
            logits_to_keep=keep,
            **self._cached(ids_BL),
        ).logits

    def _cached(self, ids_BL: Tensor) -> dict[str, Any]:
        if not self.prefix:
            return {}
        return {"past_key_values": prefix_cache(self.model, ids_BL[0, : self.prefix], len(ids_BL))}


class _Told(StoppingCriteria):
    """Never stops a generation; tells of each token, so that a job that has to end need not wait for a whole batch."""

    def __init__(self, asked: _Asked) -> None:
        self._asked = asked

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:  # noqa: ARG002
        self._asked.tell()
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Places of rows of like length, longest first, so that too little memory shows at once."""
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    while order:
        size = max(1, min(BATCH_ROWS, BATCH_TOKENS // max(1, lengths[order[0]])))
        yield order[:size]
        order = order[size:]


def _require_context(model: Any, rows: Sequence[ChatRow], token_rows: Sequence[TokenRow], new_tokens: int) -> None:
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    for row, tokens in zip(rows, token_rows, strict=True):
        needed = max(len(tokens), tokens.answer_start + new_tokens)
        if context is not None and needed > context:
            raise NightsmithError(
                f"Row {row.row_id} needs {needed} tokens with its answer; the model's context has {context}. Leave "
                "such rows out when the data are built, or allow fewer new tokens."
            )
