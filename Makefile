# make demo   sets up and runs the main job: `askonce demo`
# make test   sets up and runs the whole test-suite
# make lint   ruff, mypy, pyright, import-linter
# make bench  measures; writes tests/benchmarks/RESULTS.md
# make bench-peers measures beside litellm, LangChain and others; writes tests/benchmarks/PEERS.md
# make matrix asks every SDK and framework through the doors; writes tests/integrations/MATRIX.md
# make notebooks  runs the notebooks' sources and writes what they show
# make docs   builds the reference from the docstrings, into build/docs
# make wheel  builds the wheel and runs the tests against it, sources absent

PYTHON ?= python3
VENV   ?= .venv
RUN    ?= -m pytest
ARGS   ?=
# Tests wait for servers and clocks more than they compute: two processes, a file stays in one.
SPREAD ?= -n 2 --dist loadfile

export PYTHON
bin := $(VENV)/bin

.PHONY: demo test lint format bench bench-peers matrix notebooks docs wheel clean help

help:
	@sed -n 's/^# //p' $(firstword $(MAKEFILE_LIST))

# Each environment is made again when what it is made from changes.
$(VENV)-demo/.ready: pyproject.toml .ci/setup
	@.ci/setup $(VENV)-demo "-e .[openai,cli]"
	@touch $@

$(VENV)/.ready: pyproject.toml .ci/setup
	@.ci/setup $(VENV) "-e .[all]" group:dev
	@touch $@

demo: $(VENV)-demo/.ready
	@$(VENV)-demo/bin/askonce demo $(ARGS)

test: $(VENV)/.ready
	@$(bin)/python $(RUN) $(SPREAD) $(ARGS)

lint: $(VENV)/.ready
	@$(bin)/ruff check
	@$(bin)/ruff format --check
	@$(bin)/mypy
	@$(bin)/mypy tests/typing
	@$(bin)/pyright --pythonpath $(bin)/python
	@$(bin)/lint-imports

format: $(VENV)/.ready
	@$(bin)/ruff check --fix --quiet || true
	@$(bin)/ruff format

bench: $(VENV)/.ready
	@$(bin)/python tests/benchmarks/run.py $(ARGS)

bench-peers: $(VENV)/.ready
	@PATH="$(abspath $(bin)):$$PATH" $(bin)/python tests/benchmarks/peers/run.py $(ARGS)

matrix: $(VENV)/.ready
	@PATH="$(abspath $(bin)):$$PATH" $(bin)/python tests/integrations/matrix/run.py $(ARGS)

notebooks: $(VENV)/.ready
	@$(bin)/python notebooks/sources/render.py $(ARGS)
	@$(bin)/python notebooks/sources/grafana.py

$(VENV)-docs/.ready: pyproject.toml .ci/setup
	@.ci/setup $(VENV)-docs "-e .[all]" group:docs
	@touch $@

docs: $(VENV)-docs/.ready
	@$(VENV)-docs/bin/python notebooks/sources/reference.py build/docs

wheel: $(VENV)/.ready
	@.ci/wheel

clean:
	rm -rf $(VENV) $(VENV)-* dist build .coverage* .hypothesis .mypy_cache .pytest_cache .ruff_cache
