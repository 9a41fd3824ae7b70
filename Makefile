# `make train` and `make test` do the work; `make check` and `make test-all` complete CI. Each makes its own environment the first time.
PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
TRAIN := .venv/ready-train
TEST := .venv/ready-test
DOCS := .venv/ready-docs
BENCH := .venv-bench/ready
# an environment is made anew where these change: the last two are copied into it
PINNED := pyproject.toml constraints.txt lockstep_shadow.py lockstep_data.py
RUN ?= runs/default
PYTHONS ?= python3.11 python3.12 python3.13

.PHONY: train spike test test-all chaos check bench bench-check docs wheel test-wheel clean

# marked when whole: a kill in the middle must not leave half an environment behind
.venv/made:
	rm -rf .venv
	$(PYTHON) -m venv .venv
	touch $@

$(TRAIN): $(PINNED) | .venv/made
	$(INSTALL) -e '.[harness]'
	touch $@

$(TEST): $(PINNED) | .venv/made
	$(INSTALL) -e '.[dev,torch,ray,loops]'
	touch $(TRAIN) $@

$(DOCS): $(PINNED) | .venv/made
	$(INSTALL) -e '.[docs]'
	touch $@

# peers have an environment of their own: some bring packages that other tests cannot stand
$(BENCH): $(PINNED)
	rm -rf .venv-bench
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,torch,peers]'
	touch $@

train: $(TRAIN)  ## train the reference model on the embedded corpus; run again to resume
	$(BIN)/python -m harness train --run $(RUN) $(ARGS)

spike: $(TRAIN)  ## plant bad documents, find them by their loss spikes, train without them
	$(BIN)/python examples/spike/walk.py runs/spike

# a folder of its own: sessions beside this one are left alone, and nothing stays; bytecode is kept
# wherever that is forbidden, since tests start hundreds of interpreters
PYTEST = temp=$$(mktemp -d); trap 'rm -rf "$$temp"' EXIT; \
	PYTHONDONTWRITEBYTECODE= TMPDIR=$$temp $(BIN)/python -m pytest -n 2 --basetemp $$temp/pytest

test: $(TEST)  ## tests, doctests and README's blocks: under five minutes on two idle cores
	@$(PYTEST) --dist loadfile -m "not long" $(ARGS)

test-all: $(TEST)  ## what `make test` leaves out: tests of minutes, the laws on three times as many examples
	@$(PYTEST) --dist load -m long $(ARGS)
	@$(PYTEST) --dist load -m "hypothesis and not long" --hypothesis-profile thorough $(ARGS) || [ $$? = 5 ]  # 5: ARGS name none of them

chaos: $(TEST)  ## 1,000 SIGKILLs and SIGTERMs at random moments of training: some two hours on two cores; KILLS=30 for fewer
	$(BIN)/python -m tests.harness.chaos --kills $(or $(KILLS),1000) --jobs 2

check: $(TEST)  ## lint, format, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

bench: $(BENCH)  ## every workload beside its peers and limit, in one run; writes docs/benchmarks.md
	.venv-bench/bin/python -m benchmarks

bench-check: $(BENCH)  ## the same, fails where a ratio fell by more than a fifth
	.venv-bench/bin/python -m benchmarks --check

docs: $(DOCS)  ## the pages, into build/docs; a broken link is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet
	@echo "open build/docs/index.html"

wheel: $(TEST)  ## the wheel and the sdist, into dist/
	$(BIN)/python -m build --outdir dist .

test-wheel: $(TEST)  ## the wheel, installed into empty environments of these interpreters, passes the tests
	$(BIN)/python tests/tools/installed.py --pythons "$(PYTHONS)" $(ARGS)

clean:  ## remove the environment and what runs made
	rm -rf .venv .venv-bench runs build dist *.egg-info
