# Nightsmith. Every target works on a fresh clone with Python 3.11+, pip and make.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
# A file's tests stay together, for what they share; in their own order, so that the longest do not come last.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder
GOAL ?= Pre-train a small mixture-of-experts language model from scratch on the Python standard library's source code \
  and get validation bits per byte at least 0.15 below the baseline; at most 4 trials and 9 minutes.

GOAL_SFT ?= Fine-tune SmolLM2-135M-Instruct with LoRA on reasoning-gym:word_sequence_reversal?min_words=3&max_words=5 \
  until exact match on held-out problems is at least 0.4; at most 2 trials and 10 minutes.

PLANNER_STUDY ?= planner-study
PLANNER_GOAL ?= examples/planner/goal.txt
PLANNER_CORPUS ?= --seed 54 --repairs 0
IN_STUDY = cd $(PLANNER_STUDY) && $(CURDIR)/$(BIN)

.DEFAULT_GOAL := help
.PHONY: help install demo demo-sft planner planner-small test test-slow test-surfaces test-slurm check format bench schemas clean

help: ## List the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

install: $(STAMP) ## Make .venv and install everything, the planner's weights included

$(STAMP): pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	$(BIN)/nightsmith model pull planner
	@touch $(STAMP)

demo: install ## One English goal to an honest verdict: about 6 minutes on 2 cores (GOAL="…" for another)
	$(BIN)/nightsmith run "$(GOAL)" --yes

demo-sft: install ## Fine-tune SmolLM2 with LoRA until held-out answers are right: about 9 minutes on 2 cores (GOAL_SFT="…")
	$(BIN)/nightsmith run "$(GOAL_SFT)" --yes

planner: install ## The planner's adapter as a study, from its corpus to a GGUF adapter: a night on 2 cores
	@test ! -e $(PLANNER_STUDY) || { echo "$(PLANNER_STUDY) is there already: name another PLANNER_STUDY." >&2; exit 2; }
	$(BIN)/python examples/planner/corpus.py $(PLANNER_STUDY) $(PLANNER_CORPUS)
	cp examples/planner/nightsmith.toml $(PLANNER_STUDY)/
	$(IN_STUDY)/nightsmith run "$$(cat $(CURDIR)/$(PLANNER_GOAL))" --yes
	$(IN_STUDY)/nightsmith export s1 --to adapter --format gguf-lora

planner-small: ## The same on 400 sayings, in minutes
	$(MAKE) planner PLANNER_STUDY=planner-study-small PLANNER_GOAL=examples/planner/goal_small.txt \
	  PLANNER_CORPUS="--only sayings --sayings 400 --held 16"

test: install ## The default tests: at most 6 minutes on 2 cores
	$(PYTEST) -m "not slow and not browser and not tmux and not slurm"

test-slow: install ## The longer tests: whole studies that are killed, interrupted, stopped
	$(PYTEST) -m "slow and not browser and not tmux and not slurm"

test-surfaces: install ## Tests in a real browser and a real terminal (Debian: apt install chromium tmux)
	$(PYTEST) -m "browser or tmux"

test-slurm: install ## Jobs on a real Slurm on loopback (Debian: apt install slurm-wlm munge)
	$(BIN)/python -m pytest -m slurm tests/trainer

check: install ## What CI checks: ruff, pyright, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

format: install ## Format and mend what ruff can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: install ## Benchmarks, with machine and commit in their output (B=name; none lists them)
	$(BIN)/python -m benchmarks $(B)

schemas: install ## Write docs/schemas and docs/graph.md anew
	$(BIN)/python docs/generate.py

clean: ## Remove .venv and caches; workspaces stay
	rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache
