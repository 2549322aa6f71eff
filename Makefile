# Everything runs in a virtual environment of its own; one stamp says that it is complete.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test slow attack attack-full mutants breaks lock lint typecheck clean help

help: ## Show the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(STAMP)

demo: $(STAMP) ## SFT, labels, reward model, PPO and evaluation on a self-made task; about 3 minutes on 2 cores
	$(BIN)/rlhf all --config configs/quickstart.yaml

test: $(STAMP) ## All tests but the slow ones and those for a GPU
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal

slow: $(STAMP) ## The longer proofs, all programs started cold, and the properties on all of their examples
	OMP_NUM_THREADS=1 COLD=1 EXAMPLES=full $(BIN)/python -m pytest -m 'slow or hypothesis'

breaks: $(STAMP) ## Known mistakes of PPO implementations, put in one by one: a test must notice each
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.ppo.breaks

attack: $(STAMP) ## Signals, failing calls and flipped bits from a seed; a table of what held; some minutes
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.attack

attack-full: $(STAMP) ## The same with every call that changes the run directory; some hours
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.attack --interruptions 120 --calls -1 --flips 1000

mutants: $(STAMP) ## Mutation testing of PPO's maths and its learner; what may survive: docs/mutants.md
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[mutation]'
	rm -rf mutants
	OMP_NUM_THREADS=1 $(BIN)/mutmut run --max-children 1
	$(BIN)/python -m tests.ppo.mutants

lock: $(STAMP) ## Write requirements.lock anew: every runtime package of constraints.txt with the hashes of its files
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv>=0.9'
	$(BIN)/uv pip compile pyproject.toml --constraints constraints.txt --universal --python-version 3.11 \
		--generate-hashes --no-annotate --custom-compile-command 'make lock' --quiet --output-file requirements.lock

lint: $(STAMP) ## ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

typecheck: $(STAMP) ## mypy, strict everywhere
	$(BIN)/mypy

clean: ## Remove the environment and caches; runs/ stays
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache .hypothesis dist build mutants
