"""Words that the literal finder knows: units, cues of comparison, names. Lists only; nothing is decided here."""


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


ONES = _words("one two three four five six seven eight nine")
_TEENS = _words("ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen")
_TENS = _words("twenty thirty forty fifty sixty seventy eighty ninety")
SMALL_NUMBERS: dict[str, float] = {
    **{word: float(value) for value, word in enumerate(("zero", *ONES, *_TEENS))},
    **{word: 10.0 * value for value, word in enumerate(_TENS, 2)},
}
"""Single words for whole numbers below a hundred."""
COMPOSED_NUMBER = (
    rf"(?:{'|'.join(_TENS)})[ -](?:{'|'.join(ONES)})|"
    rf"(?:{'|'.join(ONES)}) and a half|"
    rf"(?:a|{'|'.join((*ONES, *_TEENS))}) hundred(?: and (?:{'|'.join((*ONES, *_TEENS, *_TENS))}))?"
)
"""Numbers of several words: "fifty-five", "three hundred and ten"."""
NUMBER_WORDS: dict[str, float] = {
    **SMALL_NUMBERS,
    "hundred": 100, "a thousand": 1000, "one thousand": 1000, "two thousand": 2000, "a million": 1e6,
    "one million": 1e6, "a billion": 1e9, "a dozen": 12, "dozen": 12, "a couple of": 2, "a couple": 2, "half a": 0.5,
    "half an": 0.5, "a quarter of an": 0.25,
    "three quarters of an": 0.75, "a single": 1, "a": 1, "an": 1,
}  # fmt: skip

SECONDS: dict[str, float] = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800, "n": 28800}
"""First letter of a duration's unit -> seconds; a night is taken as eight hours."""

DURATION = r"(?:seconds?|secs?|s|minutes?|mins?|m|hours?|hrs?|hr|h|days?|d|weeks?|wks?|nights?)"
SCALE: dict[str, float] = {
    "k": 1e3, "thousand": 1e3, "m": 1e6, "mio": 1e6, "million": 1e6, "b": 1e9, "bn": 1e9, "billion": 1e9, "t": 1e12,
    "trillion": 1e12,
}  # fmt: skip
CURRENCY: dict[str, str] = {
    "$": "USD", "usd": "USD", "dollar": "USD", "dollars": "USD", "bucks": "USD", "us dollars": "USD", "€": "EUR",
    "eur": "EUR", "euro": "EUR", "euros": "EUR", "£": "GBP", "gbp": "GBP", "pounds": "GBP", "quid": "GBP", "chf": "CHF",
    "francs": "CHF", "swiss francs": "CHF", "yen": "JPY", "jpy": "JPY", "sek": "SEK", "kronor": "SEK",
    "swedish kronor": "SEK", "nok": "NOK", "norwegian kroner": "NOK", "dkk": "DKK", "danish kroner": "DKK",
    "cad": "CAD", "canadian dollars": "CAD",
    "aud": "AUD", "australian dollars": "AUD", "inr": "INR", "rupees": "INR", "pln": "PLN",
    "zloty": "PLN", "zł": "PLN", "¥": "JPY", "₹": "INR", "dolars": "USD", "cny": "CNY", "yuan": "CNY",
}  # fmt: skip
MONEY = "|".join(sorted((word for word in CURRENCY if word[0].isalpha()), key=len, reverse=True))
"""Currencies as words and codes."""

COUNT_NOUNS = _words(
    "trial trials attempt attempts try tries run runs experiment experiments iteration iterations round rounds "
    "shot shots "
    "step steps epoch epochs pass passes gpu gpus card cards accelerator accelerators h100 h100s h200 h200s a100 "
    "a100s node "
    "nodes machine machines server servers seed seeds row rows example examples sample samples document documents docs "
    "layer layers expert experts head heads token tokens parameter parameters params bit bits question questions "
    "item items "
    "candidate candidates config configs configuration configurations generations rollouts completions characters "
    "bytes "
    "gpu-hour gpu-hours gpu-h model models variant variants change changes records pairs conversations emails "
    "messages pages"
)
"""Nouns shown with the number before them."""

ARTICLE_NOUNS = (
    r"(?:hour|day|week|night|minute|point|percent|per cent|gpu|trial|run|attemp"
    r"t|epoch|card|node|seed|percentage point|second|shot)"
)
"""Nouns before which "a" and "an" are read as one."""

DOWN_BEFORE = (
    r"\b(?:los[et]\w*|losing|loss(?!\W*$)|drop(?!out)\w*|fall\w*|decreas\w*|reduc\w*|lower\w*|cut\w*|shrink\w*|"
    r"sacrific\w*|giv\w+ up|regress\w*|degrad\w*|"
    r"worse\w*|down|within|declin\w*|hurt\w*|slip\w*|improv\w*|beat\w*|better|shav\w*|knock\w*|"
    r"cost\w*|dip\w*|forget\w*|"
    r"(?:below|under|beneath|less|smaller|above|over)\b.{0,40}\bby|minus|trim\w*|outperform\w*|undercut\w*|tolerat\w*|"
    r"margin|advantage|gain\w*)\b"
)
REACHED = r"\b(?:(?<!up )to|is|until|hits?|reach\w*)(?: (?:a|an|at least|at most|the|just))*\W*$"
DOWN_AFTER = (
    r"^(?! or (?:lower|less|better|fewer|below|under|worse|shorter|smaller)\b)"
    r"[^\w.;:!?\n]{0,3}(?:[a-z/-]+[^\w.;:!?\n]{1,2}){0,3}?"
    r"(?:below|lower|less|under|worse|better|off|down|fewer|smaller|drop|decrease|"
    r"reduction|improvement|loss|decline|"
    r"regression|degradation|gain|beneath|shorter)\b"
)
RATIO_BEFORE = (
    r"[↓↑]|\b(?:improv\w*|reduc\w*|lower\w*|cut\w*|decreas\w*|increas\w*|rais\w*|boost\w*|gain\w*|drop\w*|shrink\w*|"
    r"better|beat\w*|lift\w*|grow\w*|trim\w*|"
    r"shav\w*|shorte[nr]\w*|fall\w*|los[et]\w*|losing|worse\w*|bring\w*|down|up|regress\w*|degrad\w*|within|"
    r"outperform\w*|"
    r"slip\w*|rise\w*|exceed\w*)\b"
)
RATIO_AFTER = (
    r"^(?! or )[^\w.;:!?\n]{0,3}(?:[a-z/-]+[^\w.;:!?\n]{1,2}){0,3}?"
    r"(?:lower|less|below|better|higher|more|above|improvement|reduction|"
    r"decrease|increase|gain|drop|off|fewer|shorter|"
    r"smaller|down|under|worse|longer|relative|than|boost|over)\b"
)
ANY_CUES = (
    r"better by any (?:amount|margin)|by any (?:amount|margin)|any (?:measurable |real |"
    r"statistically real )?(?:improvement|gain|progress|amount)|better than|worse than|beats?|beating|"
    r"improves? (?:up)?on|"
    r"improve over|improving on|outperforms?|surpass(?:es)?|exceeds?|no worse|undercuts?|"
    r"no (?:long|short|low|high|larg|small|few)er "
    r"than (?:now|before|today|it is|the baseline)|"
    r"not (?:get |be |become )?(?:any )?worse|"
    r"any (?:better|higher|lower|shorter)\b(?= (?:at all|than))|(?:must|has to|have to|should|needs? to) hold\b|"
    r"from (?:dropping|falling|degrading|regressing|slipping|declining|sinking|decreasing|rising|growing|increasing|"
    r"getting (?:any )?(?:worse|longer|slower))|"
    r"(?:no|not|without|w/o|never) (?:\w+ ){0,4}?getting (?:any )?(?:worse|longer|slower|shorter|bigger)|"
    r"(?:must not|mustn't|may not|should not|shouldn't|can't|cannot|do not|don't|doesn't|does not|not|never|no|"
    r"without|without any|w/o):? "
    r"(?:[\w\x00]+ ){0,4}?(?:drop\w*|los[et]\w*|losing|loss|hurt\w*|regress\w*|degrad\w*|fall\w*|worsen\w*|harm\w*|"
    r"declin\w*|decreas\w*|sink\w*|slip\w*|dip\b|dips\b|down\b|"
    r"get worse|go(?:es)? down|suffer\w*|go(?:es)? up|rise\w*|increas\w*|grow\w*|climb\w*)|"
    r"(?:losing|lose|loses|giv\w+ up) nothing|at least as (?:good|high|low|well)|"
    r"(?:keep|keeping|preserv\w+|maintain\w*|hold|holding|stays?|retain\w*)(?=[^.;,]{0,60}\b(?:baseline|level|"
    r"current|same|where|intact|unchanged|as (?:it|good)|steady|constant|least as|flat|stable))|"
    r"no (?:lower|higher|longer|slower)(?=\s?[,;.]|$)|"
    r"lower than|higher than|below the|above the|beyond the|ahead of|as good as|under the baseline"
)
AMOUNT_FOLLOWS = (
    r"^(?: \w+){0,3}? (?:(?:by )?(?:more|less) than|over|by(?: over| at least)?|up to)(?: an?| the)? "
    r"(?:[\d.]+|half|quarter|one|two|three|four|five|ten|point)"
)
"""Words after "must not fall" that say how far it may after all."""
MORE_BY = (
    r"\b(?:beat\w*|rais\w*|increas\w*|boost\w*|grow\w*|lift\w*|rise\w*|exceed\w*|outperform\w*|up) (?:[^.;,]* )?by $"
)
"""Words before a fraction that is added."""
RATIO_WORDS: dict[str, float] = {
    r"halv(?:e|es|ed|ing)|(?:one|a) half|half of|half (?:the|its|what|as)|in half|by half": 0.5,
    r"doubl(?:e|es|ing)|twice": 2,
    r"tripl(?:e|es|ing)|three times|threefold": 3,
    r"quadrupl(?:e|es|ing)|four times": 4,
}

FAMILIES = (
    r"qwen|llama|mistral|ministral|magistral|devstral|smollm|gpt|chatgpt|gemma|phi|deepseek|small|mixtral|olmoe?|"
    r"pythia|falcon|granite|bloom|bert|roberta|"
    r"distilbert|tinyllama|gpt-oss|claude|yi|glm|kimi|nemotron|command|mpt|opt|t5|starcoder|codestral|mamba|"
    r"minicpm|internlm|baichuan|exaone|lfm"
)
BENCHMARKS = (
    r"GPQA(?:[ -]Diamond)?|MMLU(?:[ -]Pro|[ -]Redux)?|AA[ -]LCR|LiveCodeBench|HumanEval\+?|MBPP\+?|GSM-?8k|MGSM|"
    r"IFEval|HellaSwag|ARC(?:[-_](?:Challenge|Easy|C|E|AGI))?|C-?Eval|CMMLU|AGIEval|MuSR|Arena-Hard|XNLI|ANLI|"
    r"(?:Super)?GLUE|SST-?2|FLORES(?:-\d+)?|WikiText(?:-\d+)?|(?:Pub)?MedQA|PubMedQA|MedMCQA|LegalBench|FinQA|"
    r"OpenBookQA|CommonsenseQA|Natural ?Questions|CoQA|DS-1000|BIG-Bench(?:[ -]Hard)?|BigCodeBench|ToxiGen|"
    r"TruthfulQA|Winogrande|Winograd|BBH|SQuAD|TriviaQA|AIME(?: ?20\d\d)?|SWE-bench(?: \w+)?|BoolQ|PIQA|MT-Bench|"
    r"AlpacaEval|LAMBADA|BFCL|XSum|MATH-500"
)
"""Benchmarks whose names are written in any case."""
CASED_BENCHMARKS = r"MATH|DROP|Spider|RACE|COPA"
"""Benchmarks whose names are everyday words in lower case."""
LANGUAGES = (
    r"English|German|French|Spanish|Italian|Dutch|Portuguese|Japanese|Chinese|Mandarin|Cantonese|Korean|Vietnamese|"
    r"Thai|Indonesian|Malay|Tagalog|Hindi|Urdu|Bengali|Tamil|Telugu|Marathi|Gujarati|Punjabi|Nepali|Persian|Farsi|"
    r"Arabic|Hebrew|Turkish|Kurdish|Azerbaijani|Kazakh|Uzbek|Georgian|Armenian|Greek|Latin|Russian|Ukrainian|Polish|"
    r"Czech|Slovak|Slovenian|Slovene|Croatian|Serbian|Bosnian|Bulgarian|Macedonian|Romanian|Hungarian|Albanian|"
    r"Finnish|Estonian|Latvian|Lithuanian|Swedish|Norwegian|Danish|Icelandic|Faroese|Irish|Welsh|Gaelic|Scottish|"
    r"Basque|Catalan|Galician|Breton|Maltese|Luxembourgish|Swahili|Amharic|Yoruba|Hausa|Zulu|Xhosa|Afrikaans|Somali|"
    r"Mongolian|Tibetan|Burmese|Khmer|Lao|Sinhala|Esperanto|Yiddish|Romansh"
)
NAMES = (
    r"(?!learning|win\b|match|mean|f1|the\b|and\b|of\b|a\b|macro|token)[a-z]+(?:-[a-z]+)?[ -](?:error[ -])?"
    r"(?:rate|score|rating|error|similarity|validity|coverage|gap|index)|"
    r"(?:citation|answer|tool|context|retrieval|entity) (?:precision|recall|relevance|correctness|quality)|"
    r"[a-z]+ (?:voice|call|format|style|tone) (?:score|rate|error|match)|"
    r"relevanc[ey]|readability|fluency|fairness|clarity|consistency|adherence|empathy|conciseness|brevity|completeness|"
    r"safety|creativity|diversity|originality|formality|factuality|hallucinations?|verbosity|robustness|compliance|"
    r"usefulness|harmlessness|honesty|friendliness|warmth|courtesy|naturalness|novelty|satisfaction|specificity|"
    r"sensitivity|redundancy|repetition|humou?r|"
    r"json[ -]?schema|unit tests?|pass@\d+|tone|politeness|coherence|groundedness|"
    r"(?:p\d\d|mean|median|tail)[ -]latency|"
    r"cosine|wsd|constant|linear|inverse[ -](?:sqrt|square[ -]root)|adamw|adam|muon|sgd|lion|adafactor|"
    r"bf16|fp16|fp32|fp64|tf32|float16|float32|float64|(?:half|full|mixed)[ -]precision|"
    r"bfloat16|fp8|int8|int4|nano|micro|mini|small4|gguf|"
    r"safetensors|onnx|length|bleu|chrf|"
    r"meteor|wer|cer|ece|auroc|auc|mcc|"
    r"mrr|ndcg|toxicity|recall|precision|faithfulness|latency|refusals?|helpfulness|throughput|brier|rouge-?[12]|"
    r"bertscore|spearman|pearson|kappa"
)
NOT_DATA = frozenset(
    _words(
        "scratch top average seeds baseline it this that them these those gpus order less under at one terms addition "
        "time total place parallel validation "
        "test dev which all least most more fewer accuracy loss perplexity bits exact token my our the a an each every "
        "any half fact particular case general "
        "what where who how full short long lora qlora sft dpo grpo pretrain pre-training training fine-tuning rl "
        "weekdays nights monday tuesday wednesday "
        "thursday friday saturday sunday tomorrow tonight noon midnight budget cpu gpu me us you your hand zero two "
        "three four five six seven eight nine ten "
        "twelve both either held-out heldout unseen track par fire hold hours minutes seconds days quality size speed "
        "cost money trials steps epochs f1 "
        "not no be see get make let do keep its their whatever anything something nothing everything existing home "
        "work sleep morning evening night "
        "gradient learning batch weight care caution early byte cent trial character second minute hour run epoch lr "
        "seed layers experts architecture "
        "ready later done zero-shot losing improving up out down off it's language preset model same "
        "other such as good well least hours-long"
    )
)
STOP_WORDS = frozenset(
    _words(
        "until till to so with using at by on within before after that which then but reaching get gets getting reach "
        "such reached reaches where while without when if is are was would could might "
        "be has have had must should shall will can may please thanks than as via because since per through unless "
        "though although whose it's its we i you "
        "needs stays remains "
        "they it again first now only instead not no until, into onto under over above below max maximum minimum min no"
    )
)
VERBS = frozenset(
    _words(
        "get gets getting reach bring stop make keep train fine-tune finetune evaluate measure report check try use "
        "run push hit beat see let do improve drop lower "
        "reduce do don't go give take aim spend tell finish pre-train pretrain register save export call name please "
        "show lose want need build stay have i we at no "
        "not compare score halve double end be then it the-result want we'd you continue start judge test lets let's "
        "achieve cut remove dedupe deduplicate redact "
        "split filter minimize minimise maximize maximise find repeat must should never always "
        "stopping nothing only max fit set leave budget limit"
    )
)
DETERMINERS = frozenset(_words("the my our a an this that these those all some your its their every"))
DAYS = ("sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday")
EXTENSIONS = (
    "jsonl|json|ndjson|csv|tsv|parquet|txt|md|rst|py|gz|zst|arrow|pdf|html|xml|yaml|yml|toml|gguf|safetensors|"
    r"pt|pth|ckpt|bin|db|duckdb|sqlite|log|zip|tar|ipynb|"
    "sql|xlsx|docx|sh|js|ts|c|h|cpp|rs|go|java|tex|eml|mbox|feather|npy|onnx|cu"
)
NOT_NAMES = frozenset(
    _words(
        "gb tb mb ram ann lm lms longer better usd eur chf gbp gpu gpus cpu cpus lr sft dpo grpo moe lora qlora rl "
        "json f1 em gpu-hours gpu-hour gpu-h llm llms slm ai bpb ppl mla kv ok asap pr qa nlp id ids api csv jsonl "
        "h100 "
        "h100s h200 h200s a100 a100s mlflow utc eu gdpr pii sql us usa uk nb fyi ps btw eod tbd not do don no never "
        "must all only bits-per-byte the error-rate "
        "learning-rate batch-size pre-train fine-tune reasoning-gym target targets data model method trials runs "
        "budget goal task metric reward output name base limits deadline time schedule settings kpi and or"
    )
)
ENGLISH_FIRST = frozenset(
    _words(
        "pre fine near held from low high non self multi cross co re long short half full in on off out up down "
        "well one two three four five six seven eight nine ten twenty thirty forty fifty sixty seventy eighty "
        "ninety first second third top seed case byte token bits brand macro unit instruction preference judge "
        "group continue continued mixture l so step stage single double triple new old best worst real post over "
        "under sub semi anti all any open closed state end right left hard soft easy early late day night week "
        "weekend month year hour minute error answer learning batch weight sequence gradient warm cold time data "
        "test train validation dev eval evaluation exact quality no not much more less ready large small big tiny "
        "deep light heavy free per gpu cpu mon tue wed thu fri sat sun rouge bleu chrf inverse f x t q a b c n k i "
        "d u s v follow built what know how mid cut run drop ad ex user customer question domain language word "
        "sentence character document line row file source code hand human machine expert chain leave round de opt "
        "catch check roll back by wide supervised reward policy win pass mean beta"
    )
)
"""First parts of English compounds: a hyphenated word with one of them is no name."""
ENGLISH_LAST = frozenset(
    _words(
        "tune scratch out quality level free style based only stage step phase duplicate duplicates duplication "
        "dedup dedupe copies copy hour hours minute minutes second day night week year month match rate card "
        "operative wise answer test tests use up down off in on to of the by and or one two three four five six "
        "seven eight nine ten time end like specific insensitive sensitive relative aware driven friendly old term "
        "date point points percent line size set sets split shot hop turn way weight weights precision length "
        "domain language source file files parameter parameters param params token tokens experts expert layer "
        "layers epoch gpu node share scale world house service desk support related side hand made known born wide "
        "proof fold plus minus over under back round about less more max min sqrt decay rank first last best "
        "effort pretrain pretraining per byte bytes data text texts mail e k l f1 evaluation validation requests "
        "reports tickets pairs notes documents case cases person people member team word words purpose quick slow "
        "long short law school grade class art mails book books commerce"
    )
)
"""Last parts of English compounds."""
NEVER_FIRST = frozenset(_words("pre post fine from end step re full semi self one two multi in on off up"))
"""First parts that no name has, not even where only a name can stand."""
NAME_ENDINGS = r"bot|gpt|lm|llm|bert|llama|coder"
"""Endings of one-word names of models."""

DATA_STEPS = (
    rf"dup|\bpii\b|redact|anonymi|personal|\bmask|contaminat|overlap|leak|language|\b(?:{LANGUAGES})\b|identif|"
    r"repeat|twice|double|copies|copy|identical|same|weed|throw|\bthin|black(?:ed)? out|restrict|garbage|junk|"
    r"spam|poor|"
    r"discard|delet|\bdraw|\bout\b|exclu|"
    r"filter|quality|\bclean|\bsplit|\bhold|\bheld|reserv|set aside|\bsampl|subset|random|\brows\b|\bonly\b|\btake\b|"
    r"remov|\bdrop|strip|keep|\btest\b|\bdev\b|valid|\bfirst \d|\bscrub|\bnames\b|e-?mails"
)
"""Words that ask for something to be done to data before training."""
MEASURES = (
    r"bits?[ _-]?(?:per|/)[ _-]?byte|\bbpb\b|perplexit|\bppl\b|\bloss(?:es)?\b|entropy|\bnll\b|exact[ _-]?match|\bem\b|"
    r"accura|\bacc\b|\bcorrect|\bright\b|(?<![^\W_])f1(?![^\W_])|\bf-?score|\bpass@|pass[ _]at|pass rate|unit tests?|"
    r"rouge|bleu|chrf|meteor|win[ _-]?rate|prefer|word for word|length|perplex|accurr?a|tests\b|\bwins?\b|"
    r"reward|\bscor(?:e|es|ing)\b|"
    r"\b(?:tokens|characters|words) (?:per|in|of) |tokens|\boutput\b|\brate\b(?<!learning rate)|"
    r"\berrors?\b|calibration|brier|recall|precision|\bmatch|\bmetric|"
    rf"\b(?:{BENCHMARKS})\b"
)
"""Words that name what can be measured of a model."""
BECOMES_BETTER = (
    r"\b(?:as|how|so) (?:low|high|good|far|well|much|small|short|close|near|little|accurate)\b|"
    r"\b(?:lower\w*|(?:high|small|short|few|bett)er)\b|"
    r"\b(?:best|lowest|highest|smallest|shortest)\b|minimi[sz]|maximi[sz]|improv|reduc|\brais|increas|\bpush|\bdriv|"
    r"optimi[sz]|decreas|shorten|\bmost out of\b|\bm(?:in|ax)(?:imum|imal)?\b(?!\s?[:=]?\s?\d)|what you can\b|"
    r"boost|\bcut\b|shrink|\bdrop|\blift|\bgrow|\bgain|\bsink|squeez|\bdown\b|\bbeat|"
    r"\b(?:fewe|leas|few)|floor|ceiling|outperform|surpass|exceed|outscore|match|\b(?<!no )(?<!not )(?:less|"
    r"more|fewer)\b|baseline|\bsolv"
)
"""Words that say that something is to become better, or better than something."""
DISHONEST = {
    "test_training": r"leaderboard|grading|acceptance|final|check|question|"
    r"test|\bheld|\bhold|eval|valid|\bdev\b|exam|grade|benchmark|unseen|answer|scor|quiz|judg|part\b",
    "seed_hunting": r"seed|gambl|initial|chance|order|shuffl|luck|roll|luck|random|\bdraw|\bdice|rerun|again|"
    r"retr|repeat|restart",
    "own_budget": (
        r"budget|limit|\bcap\b|maxim|ceiling|quota|allow|extra|exten|longer|overr|rais|exceed|spen[dt]|approv|"
        r"authori|whatever|yourself|itself|your own|\bgrant|\bmore (?:trial|time|hour|minute|run|token|gpu|on)|\badd|"
        r"plan|larger|increas|stretch|continu|go on|carry on|silent|charge|deadline|clock|prolong|entitle|count|"
        r"\btake\b|\bask"
    ),
    "evaluator": (
        r"eval|scor|metric|judg|grad|measur|result|report|check|number|figure|cheat|fak|tamper|hack|threshold|"
        r"expected|criteri|exam|benchmark|doctor|forg|board|test|verdict|proven|answer|pretend|claim|comput|generous|"
        r"lenien|loosen|easier|easy|strict|overwrit|baseline|stored|only|\blooks?\b|\bedit|chang|alter|adjust|"
        r"rewrit|patch"
    ),
    "missing_source": (
        r"\bnot?\b|n['’]t\b|cannot|never|without|\bgone\b(?! (?:up|down))|delet|remov|lost|lose|miss|exist|eras|"
        r"wip|died|dead|appear|vanish|"
        r"going to|fiction|pulp|imagin|made[- ]up|future|next|shred|ruin|absent|nobody|nowhere|broken|corrupt|"
        r"unavail|purg|burn|trash|destroy|\byet\b|\bwill\b|later"
    ),
    "sealed_looks": r"seal|\bheld|\bhold|test|peek|look|final|early|locked|secret",
}
"""Reason for blocking a goal -> words of which one stands in any text that has this reason."""
