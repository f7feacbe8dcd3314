"""Training text as a stream of byte tokens, and the order in which its windows are trained on. Torch-free."""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nightsmith.evals.suite import EvidenceAltered
from nightsmith.model.presets import BOS, EOS
from nightsmith.record.digest import file_digest
from nightsmith.record.errors import NightsmithError

Tokens = NDArray[np.uint16]


def read_tokens(path: Path, digest: str) -> Tokens:
    """The texts of a published training file as one stream.

    Raises:
        NightsmithError: the file is absent.
        EvidenceAltered: it is not the file with that digest.
    """
    if not path.is_file():
        raise NightsmithError(f"The training data {path} is absent. Build the dataset again.")
    if (found := file_digest(path)) != digest:
        raise EvidenceAltered(
            f"The training data {path} has SHA-256 {found[:12]}, the spec names {digest[:12]}: it was changed. "
            "Build the dataset again and start with its digest."
        )
    parquet: Any = import_module("pyarrow.parquet")
    return pack([str(text).encode() for text in parquet.read_table(path, columns=["text"])["text"].to_pylist()])


def pack(texts: Sequence[bytes]) -> Tokens:
    """BOS, bytes, EOS of each text, one after the other, (tokens,).

    Windows are cut from this stream wherever they fall: a window may hold the end of one document and the beginning of
    the next. Attention sees across, and only the EOS and BOS between them tell the model, unless the spec asks for
    `separate_documents`.
    """
    stream = np.empty(sum(map(len, texts)) + 2 * len(texts), dtype=np.uint16)
    end = 0
    for text in texts:
        start, end = end, end + len(text) + 2
        stream[start] = BOS
        stream[start + 1 : end - 1] = np.frombuffer(text, dtype=np.uint8)
        stream[end - 1] = EOS
    return stream


class Windows:
    """Batches of windows of seq_len + 1 tokens that overlap by one, so that every token but the first is predicted.

    Every epoch goes through all windows once in a new order. Batch `step` is a function of seed and step alone: that is
    what makes a resumed run see the data that an undisturbed one sees.
    """

    def __init__(self, tokens: Tokens, seq_len: int, batch_size: int, seed: int) -> None:
        """Raises NightsmithError where the tokens do not fill one window."""
        self.count = (len(tokens) - 1) // seq_len
        if self.count < 1:
            raise NightsmithError(
                f"The training data has {len(tokens)} tokens, fewer than the {seq_len + 1} of one window. "
                "Give more data or a smaller seq_len."
            )
        self._tokens, self._seq_len, self._batch_size, self._seed = tokens, seq_len, batch_size, seed
        self._epoch, self._order = -1, np.empty(0, dtype=np.int64)

    def batch(self, step: int) -> NDArray[np.int64]:
        """Tokens of the step's windows, (batch_size, seq_len + 1)."""
        places = range(step * self._batch_size, (step + 1) * self._batch_size)
        starts = [self._window(place) * self._seq_len for place in places]
        return np.stack([self._tokens[start : start + self._seq_len + 1] for start in starts]).astype(np.int64)

    def _window(self, place: int) -> int:
        epoch, offset = divmod(place, self.count)
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = np.random.default_rng([self._seed, epoch]).permutation(self.count)
        return int(self._order[offset])
