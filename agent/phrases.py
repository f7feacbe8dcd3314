"""Texts in a goal: quoted strings, paths, model and benchmark names, and the noun phrases that may name data."""

import re
from collections.abc import Iterator

from nightsmith.agent import lexicon
from nightsmith.agent.reading import Reading

_QUOTED_RE = re.compile(
    r"\"([^\"\n]{1,200})\"|“([^”\n]{1,200})”|`([^`\n]{1,200})`|(?<!\w)'([^'\n]{1,120})'(?!\w)|«([^»\n]{1,200})»"
)
_MEASURED_RE = re.compile(
    r"[<>≤≥]=?\s?\.?\d|\b(?:at least|at most|more than|less than|above|below|under|over)\b.*(?:percent|%|\d)|"
    r"^(?=.*\d)[\d.,:e+-]+\s?[a-zA-Z%]{0,7}$"
)
"""Numbers and goals in quotes, as in JSON: they are read like the rest of the text."""
_PATH_RE = re.compile(
    rf"""(?<![\w/@])(?:
      [a-z][a-z0-9+.-]*://[^\s"'<>`]+ |
      hf:[\w./-]*\w |
      (?:~|\.{{1,2}})?/[^\s"'`,;:!?()]+ |
      [A-Za-z]:[\\/][^\s"'`,;]+ |
      [\w*?@.\[\]{{}}][\w*?@.=\[\]{{}}-]*(?:/[\w*?@.=&+\[\]{{}}-]+)+/? |
      [\w*?-][\w*?.-]*/(?=[\s,.;:!?)]|$) |
      [\w*?\[-][\w*?.\[\]&+-]*\.(?i:{lexicon.EXTENSIONS})(?:\.(?:gz|zst|bz2))?(?![\w/])
    )""",
    re.VERBOSE,
)
_GENERATED_RE = re.compile(
    r"(?<![\w/])reasoning[-_]gym(?::\w+|\s\w+_\w+)(?:\?[\w.+-]+=[\w.,+\[\]-]*(?:&[\w.+-]+=[\w.,+\[\]-]*)*)?",
    re.IGNORECASE,
)
"""A generating source with its parameters."""
_KEY_RE = re.compile(
    r"(?:data|dataset|corpus|source|src|texts|folder|dir|path|file|input|(?:base_?)?model|base|init|policy|teacher|student|judge|reward|"
    r"checkpoint|ckpt|train|eval|test|dev|from|on|prompts|prefs|out|output|name)=",
    re.IGNORECASE,
)
_NOT_PATH_RE = re.compile(
    r"^(?:and/or|or/and|[\d.]+/[\d.]+|w/o?|n/a|tokens?/s\w*|(?:gpu|gpus|cpu)/\w+|yes/no|i/o|he/she|km/h|24/7|"
    r"[\d.]+\s?[a-z]*/(?:trial|run|attempt|try|experiment|gpu|night|h|hour|day)|"
    r"input/output|e\.g|i\.e)\W*$",
    re.IGNORECASE,
)
_MODEL_RE = re.compile(
    rf"(?<![\w/.@-])(?:{lexicon.FAMILIES})(?:[-_. ]?(?:\d+[\w.]*\w|\d(?!\))|scout|maverick|oss|neo|nemo|coder|instruct|"
    rf"base|chat|small|medium|v\d[\w.]*|mini|large|nano|lite|r1|a\d+b|omni|turbo))+"
    rf"(?:-[\w.]+)*(?![\w])",
    re.IGNORECASE,
)
_PLAIN_WORDS = frozenset({"small", "command", "opt", "yi", "falcon", "bloom", "granite"})
_UNMISTAKABLE = "|".join(family for family in lexicon.FAMILIES.split("|") if family not in _PLAIN_WORDS)
_HYPHENATED_MODEL_RE = re.compile(
    rf"(?<![\w/.@-])(?:(?:\w+[-_])+(?:{_UNMISTAKABLE})(?:[-_.]?\w+)*|(?:{_UNMISTAKABLE})(?:[-_]\w+)+)(?![\w/])",
    re.IGNORECASE,
)
"""A family's name within a name of one's own: tiny-llama, llama_test."""
_TUNED_RE = re.compile(
    r"\b(?:fine-?tun(?:e|ing)|sft|tune|evaluate|score|dpo|grpo|measure|adapt)(?: of)? (?:the )?(?:model |checkpoint )?"
    r"([A-Za-z][\w.-]*\w) (?:on|with|using|by|further|until|to|in)\b",
    re.IGNORECASE,
)
"""The one word between a verb of training and its data: the model's name, whatever it is."""
_SIZED_RE = re.compile(
    r"(?<![\w/.@-])(?![\d.]+-?[bm]\b)[A-Za-z]\w*(?:[-_.]\w+)*?[-_](?:\d+x)?\d+(?:\.\d+)?[bm](?:[-_]\w+(?:\.\d+)*)*(?![\w/])",
    re.IGNORECASE,
)
"""A name that tells its size: delaybot-2b, stablelm-2-1.6b-chat."""
_HYPHENATED_RE = re.compile(r"(?<![\w/.@-])[A-Za-z][A-Za-z0-9]*(?:-[A-Za-z][A-Za-z0-9]*)+(?![\w/-]|\.\w)")
_INFLECTED_RE = re.compile(r"\w{2}(?:ed|ing|ings|ly|less|est|ised|ized|ful|able)$", re.IGNORECASE)
"""Endings of words, not of names: "seed-averaged"."""
_ONE_WORD_RE = re.compile(
    rf"(?<![\w/.@-])(?!(?:ro|chat|the)bot\b|llms?\b|lms?\b)[a-z]{{2,}}(?:{lexicon.NAME_ENDINGS})(?![\w/-])",
    re.IGNORECASE,
)
_LABELLED_RE = re.compile(
    r"\b(?:base|model|checkpoint|policy)(?: model)?(?: name)?(?:\s?[:=]\s?|\s(?:is\s)?(?=[\w.]+-))"
    r"([A-Za-z][\w.-]*\w)(?![\w/])",
    re.IGNORECASE,
)
"""A name after its label: "model: zephyr"."""
_OWN_MODEL_RE = re.compile(
    r"\b(?:(?:our|my|the|this|that|last|yesterday's|tonight's) )"
    r"(?:(?!(?:of|on|for|with|and|to|in|our|my) )[a-z][\w'.-]* ){0,3}?"
    r"(?:model|checkpoint|adapter|classifier|assistant|bot|winner|run|champion|tagger|summari[sz]er|extractor|"
    r"tutor|coach|helper|explainer|advisor|agent|parser|grader|guide|reader|writer|coder|chatbot|"
    r"ranker|translator|sft model)\b(?:-[\w.]+)?",
    re.IGNORECASE,
)
_BENCHMARK_RE = re.compile(rf"\b(?:(?i:{lexicon.BENCHMARKS})|{lexicon.CASED_BENCHMARKS})(?![\w/])")
_LANGUAGE_RE = re.compile(rf"(?:(?<![\w/.-])|(?<=\b[Nn]on-))(?!polish\b)(?i:{lexicon.LANGUAGES})(?![\w/]|-(?!only))")
_LANGUAGES_RE = re.compile(
    rf"(?<![\w/.-])(?i:{lexicon.LANGUAGES})(?:, (?:{lexicon.LANGUAGES}))*,? (?:and|or|&) "
    rf"(?:{lexicon.LANGUAGES})(?![\w/-])"
)
_COMMAND_RE = re.compile(
    r"(?<![\w/.])(?:(?:python3?|bash|sh|node)\s(?:[\w./-]+(?=\s-)|[\w./-]*[/.][\w./-]*\w)|"
    r"\.{0,2}/[\w./-]*\w(?<!\.csv)(?<!\.jsonl)(?=\s-))"
    r"(?:\s--?[a-z][\w-]*(?:=[\w./-]*\w| \d[\w.-]*\b)?)*"
)
_REWARDED_RE = re.compile(
    r"\breward(?:s|ed)?(?::| is| are|=| =)\s?(?!(?:at|above|over|below|of|to|unit|exact|must|should|not|max|min|"
    r"the (?:unit|judge))\b)([a-z][\w'’ -]*(?: [\w'’-]+){3,20})(?=[.;,\n]|$)",
    re.IGNORECASE,
)
_BY_RE = re.compile(
    r"\b(?:dup\w*|(?:near-?|fuzzy-?)?dedup\w*|de-dup\w*|split\w*|stratif\w*|balanc\w*|draw\w*|group\w*|"
    r"held out|hold out|unique|sampl\w*|duplicates)\b"
    r"[^.;:\n]{0,30}?\b(?:by|per|on)(?: the| its| column| field)* ([A-Za-z_]\w*)",
    re.IGNORECASE,
)
"""The column that a step of data work goes by."""
_ACRONYM_RE = re.compile(r"\b(?=[\w-]*[A-Z][\w-]*[A-Z\d])[A-Z][A-Za-z]*[A-Z\d][\w-]*\b")
_NAME_RE = re.compile(rf"(?<![\w/.-])(?:{lexicon.NAMES})(?![\w/]|-(?!size|only))", re.IGNORECASE)
_CALLED_RE = re.compile(
    r"\b(?:call(?:ed)?|name[ds]?|register(?:ed)?|save[ds]?|publish(?:ed)?|store[ds]?|export(?:ed)?)(?: (?:it|them|"
    r"the (?:winner|result|model|dataset|best(?: one| model)?)|that))?"
    r"(?: (?:as|to|under|in|into))? (?:the name )?([\w][\w.:/-]*[\w])|\bname\s?[:=]\s?([\w][\w./-]*\w)",
    re.IGNORECASE,
)
_FOLDER_RE = re.compile(
    r"\b(?:folder|directory|dir|file|table|dataset|column|field|bucket|split|preset|profile|repo|repository|key|"
    r"benchmark|task|metric)s?(?: called | named | is |\s?[:=]\s?| )([A-Za-z_][\w.-]*\w)|"
    r"\b(?:optimi[sz]er|schedule|scheduler|precision)(?: is |\s?[:=]\s?| )([A-Za-z_][\w.-]*\w)",
    re.IGNORECASE,
)
_BEFORE_RE = re.compile(
    r"\b([A-Za-z_][\w.-]*\w) (?:folder|directory|dir|table|dataset|column|field|preset|bucket|repo|repository|"
    r"config|schedule|optimi[sz]er|task|metric)\b",
    re.IGNORECASE,
)
_SNAKE_RE = re.compile(
    r"(?<![\w/.-])[a-z][a-z0-9]*(?:[_][a-z0-9]+)+(?![\w/])|(?<![\w/.])(?!top-)[a-z]+(?:-[a-z0-9]+)*-v?\d+(?:\.\d+)*(?![\w/%])"
)
_LEAD_RE = re.compile(
    r"\n[\s*-]*(?=\w)|(?:(?<=\s)|^|(?<=[(\"',.;:]))(?:(?:feed|give|show)\s(?:it|them)(?=\s(?:the|our|my|all)\s)|please:|upon|on|from|in|using|with|over|against|use|take|read|(?:dedupe|deduplicate|clean|"
    r"tidy|filter|prepare)(?: up)?|redact|split|"
    r"(?:feed|learn|learns|have|has|study|know|teach|use)(?=\s(?:the|our|my|these|those|all)\s)|of|inside|into|"
    r"data:|data is|data are|data =|corpus:|corpus =|corpus is|source:|dataset:|dataset is|text is|is|out of|"
    r"through|via|like|by|per|to|for|compare|evaluate|"
    r"and|but|versus|vs|vs\.|than|about|not|no|without|only|merge|combine|sample|score|benchmark|test|remove|"
    r"between|at|under|all|dataset=|data=|on:|for:|build)\s+(?=[\w'\"./~*-])",
    re.IGNORECASE,
)
_JOINING = frozenset({"and", "or", "of", "for", "from", "in"})
_LOOSE_LEADS = frozenset(
    {
        "of",
        "for",
        "and",
        "to",
        "at",
        "by",
        "under",
        "than",
        "like",
        "not",
        "no",
        "without",
        "only",
        "about",
        "all",
        "but",
        "inside",
        "is",
        "in",
        "into",
        "per",
    }
)
"""Words after which a single word is hardly ever data."""
_WORD_RE = re.compile(r"[\w'’./@+*~-]*[\w'’*/+](?=\W|$)")
MAX_WORDS = 9


def _text(match_span: tuple[int, int], value: str, sort: str) -> Reading:
    return Reading("text", value, match_span, None, sort, value)


def quoted(text: str) -> Iterator[Reading]:
    """Quoted strings, without their quotes."""
    keyed = re.match(r"\s*\{", text) is not None
    for match in _QUOTED_RE.finditer(text):
        inside = match.group()[1:-1]
        if (keyed and text.startswith(":", match.end())) or _MEASURED_RE.search(inside) or _is_sentence(inside):
            continue
        index = next(group for group in range(1, 6) if match[group] is not None)
        yield _text(match.span(index), match[index], "quoted")


def _is_sentence(quoted: str) -> bool:
    """Whether what is quoted says more than a name: its files and folders are those of the goal."""
    return quoted.count(" ") > 4 and _PATH_RE.search(quoted) is not None


def paths(text: str) -> Iterator[Reading]:
    """Paths, globs, URIs, file names and repository ids."""
    for match in _PATH_RE.finditer(text):
        value = match.group().rstrip(".,;:!?)")
        key = _KEY_RE.match(value)
        start = match.start() + (key.end() if key else 0)
        value = value[start - match.start() :]
        if value and not _NOT_PATH_RE.match(value) and re.search(r"[A-Za-z*]", value):
            yield _text((start, start + len(value)), value, "path")


def generated(text: str) -> Iterator[Reading]:
    """Generating sources by reference, `reasoning-gym:<task>?<parameter>=<value>&…`, whole."""
    for match in _GENERATED_RE.finditer(text):
        value = match.group().rstrip(".,")
        yield _text((match.start(), match.start() + len(value)), value, "path")


def models(text: str) -> Iterator[Reading]:
    """Model names of known families."""
    spans: list[tuple[int, int]] = []
    for pattern in (_SIZED_RE, _MODEL_RE, _HYPHENATED_MODEL_RE, _HYPHENATED_RE, _ONE_WORD_RE):
        taken = list(spans)
        for match in pattern.finditer(text):
            if pattern is _HYPHENATED_RE and _is_english(match.group()):
                continue
            if all(match.end() <= a or b <= match.start() for a, b in taken):
                spans.append(match.span())
    yield from (_text(span, text[slice(*span)], "model") for span in spans)
    for match in (*_LABELLED_RE.finditer(text), *_TUNED_RE.finditer(text)):
        if _can_be_name(match[1]):
            yield _text(match.span(1), match[1], "model")


def _can_be_name(word: str) -> bool:
    """Whether a word where a model's name may stand is no everyday word."""
    everyday = lexicon.NOT_DATA | lexicon.STOP_WORDS | lexicon.NOT_NAMES | lexicon.DETERMINERS
    first, dash, _ = word.lower().partition("-")
    return word.lower() not in everyday and not (dash and (first in lexicon.NEVER_FIRST or _INFLECTED_RE.search(word)))


def _is_english(word: str) -> bool:
    """Whether a hyphenated word is a compound of the language ("low-quality", "fine-tuned") and no name."""
    first, *_, last = word.lower().split("-")
    if re.search(rf"(?:{lexicon.NAME_ENDINGS})$", last) and last != "chatbot":
        return False
    return (
        _INFLECTED_RE.search(word) is not None
        or first in lexicon.ENGLISH_FIRST
        or last in lexicon.ENGLISH_LAST
        or word.lower() in lexicon.NOT_NAMES
        or re.fullmatch(rf"{lexicon.NAMES}|{lexicon.BENCHMARKS}", word, re.IGNORECASE) is not None
    )


def commands(text: str) -> Iterator[Reading]:
    """Commands that are not quoted: a program with its flags."""
    for match in _COMMAND_RE.finditer(text):
        yield _text(match.span(), match.group(), "command")


def rewards(text: str) -> Iterator[Reading]:
    """What earns the reward, in words: "reward: answers that stay polite"."""
    for match in _REWARDED_RE.finditer(text):
        yield _text(match.span(1), match[1], "described")


def language_pairs(text: str) -> Iterator[Reading]:
    """Several languages together: "English and Welsh"."""
    for match in _LANGUAGES_RE.finditer(text):
        yield _text(match.span(), match.group(), "name")


def own_models(text: str) -> Iterator[Reading]:
    """Models that the text points at ("our support model")."""
    for match in _OWN_MODEL_RE.finditer(text):
        yield _text(match.span(), match.group(), "phrase")


def benchmarks(text: str) -> Iterator[Reading]:
    """Known benchmarks by name."""
    for match in _BENCHMARK_RE.finditer(text):
        yield _text(match.span(), match.group(), "name")


def names(text: str) -> Iterator[Reading]:
    """Words that can be a name: acronyms, columns, presets, optimizers, the name the result is to have."""
    shouted = sum(map(str.isupper, text)) > sum(map(str.islower, text))
    for pattern in (_NAME_RE, _LANGUAGE_RE, *(() if shouted else (_ACRONYM_RE,)), _SNAKE_RE):
        for match in pattern.finditer(text):
            if match.group().lower() in lexicon.NOT_NAMES:
                continue
            yield _text(match.span(), match.group(), "name")
    everyday = lexicon.NOT_DATA | lexicon.STOP_WORDS | lexicon.VERBS | _JOINING
    for pattern in (_CALLED_RE, _FOLDER_RE, _BEFORE_RE, _BY_RE):
        for match in pattern.finditer(text):
            group = match.lastindex or 1
            word = match[group].lower()
            is_column = pattern is _BY_RE and word == "language"
            if word not in lexicon.NOT_NAMES and (is_column or word not in everyday):
                yield _text(match.span(group), match[group], "name")


def data_phrases(text: str) -> Iterator[Reading]:
    """Noun phrases after words such as "on" and "from": short, and longer where the phrase may go on."""
    for lead in _LEAD_RE.finditer(text):
        for start, end in _noun_phrases(text, lead.end()):
            if " " not in text[start:end] and lead.group().strip().lower() in _LOOSE_LEADS:
                continue
            yield _text((start, end), text[start:end], "phrase")


def _noun_phrases(text: str, start: int) -> Iterator[tuple[int, int]]:
    """Ends of a noun phrase that starts at `start`: at the first joining word, and at the clause's end."""
    words = _words(text, start)
    if not words or _leads_nowhere([word.lower() for word, _, _ in words]):
        return
    joins = [index for index, (word, _, _) in enumerate(words) if word.lower() in _JOINING and index]
    ends = {words[-1][2]} | {words[index - 1][2] for index in joins[:2] if words[index][0].lower() != "of"}
    for end in sorted(ends):
        if text[start:end].lower() not in lexicon.DETERMINERS:
            yield start, end


def _leads_nowhere(words: list[str]) -> bool:
    """Whether the phrase has no noun that could name data ("the baseline", "scratch", "4 trials")."""
    content = [word for word in words if word not in lexicon.DETERMINERS]
    nowhere = lexicon.NOT_DATA | (
        frozenset[str]() if words[0] in lexicon.DETERMINERS else lexicon.VERBS | lexicon.STOP_WORDS
    )
    counted = bool(content) and content[0][0].isdigit() and not re.fullmatch(r"(?:19|20)\d\d", content[0])
    return not content or content[0] in nowhere or counted or (len(content) == 1 and content[0][0].isdigit())


def _words(text: str, start: int) -> list[tuple[str, int, int]]:
    """Words from `start` to the end of the clause, at most nine."""
    words: list[tuple[str, int, int]] = []
    position = start
    while len(words) < MAX_WORDS:
        match = _WORD_RE.match(text, position)
        if match is None or not match.group().strip("/*+-.~@'") or _ends_phrase(match.group().lower(), words):
            break
        words.append((match.group(), match.start(), match.end()))
        position = match.end()
        if position >= len(text) or text[position] != " ":
            break
        position += 1
    while words and words[-1][0].lower() in _JOINING:
        words.pop()
    return words


def _ends_phrase(word: str, words: list[tuple[str, int, int]]) -> bool:
    if not words:
        return False
    after_join = words[-1][0].lower() in _JOINING
    blocked = lexicon.STOP_WORDS | (
        lexicon.VERBS | lexicon.NOT_DATA - lexicon.DETERMINERS if after_join else frozenset[str]()
    )
    number = re.fullmatch(r"[\d.]+(?:e-?\d+)?", word) is not None and re.fullmatch(r"20\d\d", word) is None
    return word in blocked or number
