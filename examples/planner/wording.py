"""Word stock of the corpus grammar: what goals are about, and how people say it."""

PHRASES = (
    "the Python standard library's source code", "the Python standard library", "the python stdlib", "Python's standard library source",
    "the source code of the Python standard library", "the stdlib sources", "our internal wiki", "my lecture notes", "the company handbook",
    "our Slack export", "the Linux kernel documentation", "my journal entries", "the collected works of Shakespeare", "our support tickets",
    "the legal contracts archive", "old newspaper articles", "the maintenance logs", "the Git commit messages", "our medical reports",
    "the man pages", "my recipes", "the customer emails", "the RFC documents", "chain sum problems", "simple arithmetic problems",
    "the countdown puzzles", "letter counting exercises", "the French novels", "our Go code base", "the product manuals", "the parliament speeches",
    "this folder of poems", "the Rust compiler sources", "the internal runbooks", "the quarterly reports", "the bug tracker dump", "our API docs",
    "my thesis drafts", "the chess games", "the DNA sequences", "the MIDI files", "the court decisions", "the reasoning-gym chain_sum task",
    "the Wikipedia dump", "the scraped forum posts", "the incident post-mortems", "the call transcripts",
)  # fmt: skip
FOLDERS = "notes docs corpus data src texts books wiki code archive logs mails articles stories raw papers tickets manuals transcripts lyrics".split()
PARENTS = ("./", "/data/", "~/", "../", "/mnt/corpora/", "data/", "/srv/text/", "/home/ana/", "datasets/", "/var/tmp/")
FILES = (
    "train.jsonl tickets.parquet notes.txt corpus.jsonl emails.csv dialogs.jsonl faq.csv reviews.parquet code.jsonl.gz chats.json claims.csv "
    "abstracts.parquet poems.txt qa_pairs.jsonl intents.csv letters.txt orders.parquet cases.jsonl"
).split()
URIS = ("s3://lake/crawl/2026/*.parquet", "gs://team-data/text/", "hf://datasets/org/books", "s3://corp-bucket/mails.jsonl", "file:///data/wiki.jsonl", "https://data.example.org/notes.jsonl.gz")
GLOBS = ("src/**/*.py", "*.md", "docs/*.rst", "logs/2026-*.txt", "/data/text/part-*.parquet", "notes/**/*.txt", "data/*.csv", "chapters/[0-9]*.txt")
PRETRAIN_OBJECTS = (
    "a small mixture-of-experts language model", "a tiny MoE", "a small MoE language model", "a language model", "a byte-level MoE", "a small LM", "a mixture of experts model",
    "a little language model", "a sparse language model", "a Small 4 style model", "a compact MoE LM", "a toy language model", "an MoE", "a new base model", "a byte model",
    "a mixture-of-experts LM", "a small transformer with experts",
)  # fmt: skip
PRETRAIN_VERBS = ("Pre-train {o} from scratch", "Pretrain {o}", "Train {o} from scratch", "pre-train {o}", "Please pretrain {o} from zero", "Can you train {o} from scratch",
    "I want to pre-train {o}", "Build {o} from scratch", "train {o} from random weights", "Let's pretrain {o}", "We need {o}, trained from scratch", "Run a pretraining of {o}",
    "Do a from-scratch pretraining of {o}", "Teach {o} from nothing", "Pre-training: {o}", "Start a fresh {o} and pretrain it", "learn {o} from scratch", "Make {o} from scratch")  # fmt: skip
DATA_LEADS = ("on {d}", "on {d}", "on {d}", "using {d}", "from {d}", "with {d}", "over {d}")
METRICS = {
    "bits_per_byte": ("bits per byte", "validation bits per byte", "bits-per-byte", "bpb", "the validation bpb", "held-out bits per byte", "BPB", "the bits per byte", "dev bits per byte", "bits/byte"),
    "perplexity": ("perplexity", "validation perplexity", "ppl", "the perplexity", "held-out perplexity", "dev perplexity", "PPL", "test perplexity"),
    "loss": ("loss", "validation loss", "the eval loss", "held-out loss", "dev loss", "cross-entropy", "the loss", "val loss"),
    "exact_match": ("exact match", "EM", "exact-match", "the exact match rate", "exact match on a held-out set"),
    "accuracy": ("accuracy", "held-out accuracy", "acc", "the accuracy", "validation accuracy", "classification accuracy", "test accuracy"),
    "macro_f1": ("macro F1", "macro-F1", "the macro-averaged F1", "macro f1"),
    "token_f1": ("token F1", "token-level F1"),
    "f1": ("F1", "the F1 score", "f1 score", "the current F1"),
    "pass_at_1": ("pass@1", "pass at 1", "the pass@1 rate"),
    "rouge_l": ("ROUGE-L", "rouge-l", "Rouge L"),
    "win_rate": ("win rate", "the win rate"),
    "reward": ("reward", "the mean reward", "average reward"),
}
LOWER = {"bits_per_byte", "perplexity", "loss", "output_tokens"}
SHARES = {"exact_match", "accuracy", "macro_f1", "token_f1", "f1", "pass_at_1", "rouge_l", "win_rate"}
MODELS = (
    "Qwen3-0.6B", "SmolLM2-135M-Instruct", "our model", "our support model", "my checkpoint", "Llama-3.2-1B", "mistralai/Ministral-3B", "Qwen/Qwen3-1.7B", "checkpoints/base",
    "./models/sft-v2", "gemma-3-1b", "our internal model", "Mistral Small 4", "the current model", "gpt-oss-20b", "SmolLM2", "last night's winner", "HuggingFaceTB/SmolLM2-360M",
    "phi-4-mini", "Llama 4 Scout", "our billing assistant", "models/winner-07", "Qwen3 30B-A3B", "our ticket classifier", "olmo-1b", "pythia-160m", "deepseek-v4-lite",
)  # fmt: skip
BENCHMARKS = ("MMLU", "GSM8K", "HumanEval", "MMLU-Pro", "GPQA Diamond", "IFEval", "HellaSwag", "ARC", "TruthfulQA", "MATH", "LiveCodeBench")
DISTRACTIONS = (
    "I have 2 cores and 16 GB of RAM.", "We got 3.41 last week.", "The corpus has 12,000 files.", "Our team has 5 people.", "PS: see ticket #4312.", "This is attempt number 7 of mine.",
    "Last time it crashed after 37 minutes.", "(It's the 2026 edition.)", "My laptop has 24 GB.", "There are about 800 documents in there.", "Version 2.1 of the notes came out yesterday.",
    "Thanks!", "No hurry.", "Keep me posted.", "It is for a demo on Friday.", "The previous run reached 2.95.", "Nobody will watch.", "I am new to this.", "We paid $300 for the last one.",
    "Anna said 90 % is unrealistic.", "The machine is an 8-core box.", "Python 3.12, torch 2.13.", "Use what you have.", "hi there,", "Hello!", "Good evening.",
)  # fmt: skip
