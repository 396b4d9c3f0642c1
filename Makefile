# Every target is sufficient on its own: it sets up what it needs.
# PYTHON chooses the interpreter (3.10 or newer), VENV the environment's folder.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?=
VENV ?= .venv
PLUGINS ?= p2p
COVERAGE_MINIMUM := 92
SOAK_MINUTES ?= 60
# Tests that run at the same time; 0 is one after the other, in one process. Two gain much, because
# most of the tests wait for processes.
WORKERS ?= 2
# Many tests start processes, which would compile all of mcpd each time.
unexport PYTHONDONTWRITEBYTECODE

bin := $(VENV)/bin
stamp := $(VENV)/.installed
# The SDK's previous generation, whose clients are tested too, cannot share an environment with it.
old_sdk := $(VENV)-mcp1/.installed
# Node.js with the clients and the conformance suite that are written for it. One folder does for
# every VENV.
node := .venv-node/.packages
# Every distribution of the repository, and the import packages in them.
plugins := $(patsubst %/pyproject.toml,%,$(sort $(wildcard plugins/*/pyproject.toml examples/*/pyproject.toml)))
dists := core $(plugins)
sources := $(foreach dist,$(dists),$(filter-out %.egg-info,$(wildcard $(dist)/src/*)))

.PHONY: help
help: ## Show the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' Makefile

$(stamp): pyproject.toml constraints.txt tools/setup.sh tools/interruptible_coverage.py $(addsuffix /pyproject.toml,$(dists))
	@PYTHON="$(PYTHON)" VENV="$(VENV)" tools/setup.sh $(dists)
	@touch $@

$(old_sdk): $(stamp) tools/environment.py
	@$(bin)/python tools/environment.py $(@D) 'mcp==1.30.*' >/dev/null
	@touch $@

$(node): $(stamp) tests/node/package.json tools/node.py tools/environment.py
	@$(bin)/python tools/node.py $(@D) tests/node/package.json
	@touch $@

.PHONY: setup
setup: $(stamp) $(old_sdk) $(node) ## Create the environment and install everything into it, editable.

.PHONY: serve
serve: $(stamp) ## Run the daemon with the bundle p2p (PLUGINS=... for others).
	@exec $(bin)/mcpd serve --plugins $(PLUGINS)

.PHONY: format
format: $(stamp) ## Format the code and mend what ruff can mend.
	$(bin)/ruff format
	$(bin)/ruff check --fix

.PHONY: lint
lint: $(stamp) ## Formatting, lint, types, import layers, plugin manifests.
	$(bin)/ruff format --check
	$(bin)/ruff check
	$(bin)/mypy $(sources) $(wildcard $(addsuffix /tests,$(dists))) tests tools benchmarks noxfile.py
	$(bin)/lint-imports
	@set -e; for plugin in $(dists); do \
	  echo "$(bin)/mcpd plugins manifest $$plugin --check"; \
	  $(bin)/mcpd plugins manifest "$$plugin" --check; \
	done

.PHONY: manifests
manifests: $(stamp) ## Write the plugins' manifests anew from their code.
	@set -e; for plugin in $(dists); do $(bin)/mcpd plugins manifest "$$plugin"; done

.PHONY: references
references: $(stamp) ## Write the reference pages of commands, hooks and settings anew from the code.
	$(bin)/python tools/references.py

.PHONY: docs
docs: $(stamp) ## Build the documentation; a warning is an error.
	NO_MKDOCS_2_WARNING=1 $(bin)/mkdocs build --strict --quiet

.PHONY: coverage
coverage: $(stamp) $(old_sdk) $(node) ## Run every test and require enough branch coverage of each package.
	@mkdir -p build
	$(bin)/coverage erase
	$(bin)/coverage run -m pytest -n $(WORKERS) --dist loadgroup $(PYTEST_ARGS) | tee build/pytest.log
	$(bin)/coverage combine --quiet
	@failed=; for source in $(sources); do \
	  echo "coverage of $$source:"; \
	  $(bin)/coverage report --include="$$source/*" --fail-under=$(COVERAGE_MINIMUM) || failed="$$failed $$source"; \
	done; \
	if [ -n "$$failed" ]; then echo "error: under $(COVERAGE_MINIMUM) %:$$failed" >&2; exit 1; fi

.PHONY: test
test: ## Everything that CI runs.
	@$(MAKE) --no-print-directory lint
	@$(MAKE) --no-print-directory docs
	@$(MAKE) --no-print-directory coverage
	@tail -n 1 build/pytest.log

.PHONY: soak
soak: $(stamp) ## An hour of tasks (SOAK_MINUTES=...), storms of cancellations, every fault of the queue.
	MCPD_STORM=100000 $(bin)/pytest -q -k storm core/tests/test_trio_cancellation.py core/tests/test_bridge.py
	MCPD_SOAK_MINUTES=$(SOAK_MINUTES) $(bin)/pytest -q -s tests/test_soak_queue.py
	MCPD_MEMORY_TASKS=20000 $(bin)/pytest -q plugins/task_queue/tests/test_memory.py
	MCPD_FAULTS=all MCPD_SIMULATIONS=20000 $(bin)/pytest -q tests/test_queue_faults.py \
	  $(addprefix plugins/task_queue/tests/test_,power_loss.py kill_points.py simulation.py dispatcher_simulation.py)

.PHONY: legacy-checkout
legacy-checkout: $(stamp) ## Find, list and load the tools of a real checkout (CHECKOUT=...).
	@[ -n "$(CHECKOUT)" ] || { echo "error: CHECKOUT=... names what holds ipfs_datasets_py" >&2; exit 2; }
	MCPD_LEGACY_CHECKOUT="$(abspath $(CHECKOUT))" $(bin)/pytest -q tests/legacy_checkout.py

.PHONY: constraints
constraints: $(stamp) ## Resolve the newest versions for every Python found and pin them.
	$(bin)/python tools/constraints.py $(dists)

.PHONY: changelog
changelog: $(stamp) ## Show the release notes that changelog.d/ amounts to.
	$(bin)/towncrier build --draft --version "$$($(bin)/mcpd --version | awk '{print $$2}')"

.PHONY: clean
clean: ## Remove the environment and everything that is built.
	rm -rf $(VENV) $(VENV)-mcp1 .venv-node .venv-fastmcp build dist site .coverage .coverage.* .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
