"""A dataset in words, from its manifest alone: what it holds, and what its build found."""

from collections.abc import Iterator, Mapping

from nightsmith.agent import figures
from nightsmith.tools.data.manifest import Manifest, SourceRecord, StepRecord

_DROPPED: Mapping[str, str] = {
    "dedup": "have a text that another row has already (duplicates): left out",
    "length": "are empty, too short or too long: left out",
    "decontaminate": "are also among rows that only evaluate (leakage), or among sealed ones: left out",
    "sample": "are not in the sample that the goal asks for",
    "without": "are held out by another dataset: left out of the training rows",
}
"""Step -> what it says of the rows that it dropped."""


def built(manifest: Manifest) -> str:
    """`Dataset 3f2a… is built: 96 rows of train, 12 of dev, 12 of fold0.`"""
    first, *rest = manifest.splits
    counts = [f"{figures.counted(first.rows, 'row')} of {first.name}", *(f"{s.rows:,} of {s.name}" for s in rest)]
    return f"Dataset {manifest.name} is built: {', '.join(counts)}."


def findings(manifest: Manifest) -> tuple[str, ...]:
    """What the build found in the sources and between the splits, with its counts; what was not looked for is said."""
    return (*_of_sources(manifest), *_of_steps(manifest), *_of_splits(manifest), _NOT_LOOKED_FOR)


_NOT_LOOKED_FOR = "Near-duplicates, personal data and languages were not looked for."


def _of_sources(manifest: Manifest) -> Iterator[str]:
    for source in manifest.sources:
        yield from (f"{source.ref}: {told}" for told in _problems(source))


def _problems(source: SourceRecord) -> Iterator[str]:
    if source.num_without_text:
        lacks = "text" if source.chat_columns is None else "prompt or answer"
        yield f"{figures.counted(source.num_without_text, 'record')} without {lacks}: left out."
    if source.num_replaced:
        yield f"{figures.counted(source.num_replaced, 'row')} with bytes that are not UTF-8: replaced by U+FFFD."
    for reason, number in source.skipped.items():
        yield f"{figures.counted(number, 'file')} left out: {reason}."


def _of_steps(manifest: Manifest) -> Iterator[str]:
    kinds = {step.kind for step in manifest.steps}
    yield from (_dropped(step) for step in manifest.steps if step.kind in _DROPPED and step.kind != "length")
    yield from (_dropped(step) for step in manifest.steps if step.kind == "length" and step.rows_in > step.rows_out)
    if "dedup" not in kinds:
        yield "Duplicates were kept, as the goal asks; they were not counted."


def _dropped(step: StepRecord) -> str:
    number = step.rows_in - step.rows_out
    return f"{step.kind}: {number:,} of {figures.counted(step.rows_in, 'row')} {_DROPPED[step.kind]}."


def _of_splits(manifest: Manifest) -> Iterator[str]:
    if len(manifest.splits) > 1:
        what = "text" if manifest.rows == "text" else "prompt"
        yield f"Leakage between splits: none; rows with an equal {what} are placed together."
