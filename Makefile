# `make` says what there is. Everything is installed into .venv, at the versions of constraints.txt.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
WORKERS ?= 2
export PIP_DISABLE_PIP_VERSION_CHECK := 1

VENV := .venv
BIN := $(VENV)/bin
DEMO := runs/tatoeba-en-es-demo
EVERYTHING := '.[test,quality,logging]'

# None of these stands in the corpus.
SENTENCES := \
	"My brother bought a new car yesterday." \
	"We need to buy some bread and milk." \
	"Where did you leave my keys?" \
	"I want to learn to play the piano." \
	"The old man lives in a small house near the sea." \
	"I think we should leave before it gets dark."
LOOK_AT := "Where did you leave my keys?"

.PHONY: help
help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## */\1\t/' | \
		while IFS=$$'\t' read -r name what; do printf '  make %-12s %s\n' "$$name" "$$what"; done

# --- the environment -----------------------------------------------------------------------------------------------

# pip's own bar needs a terminal and its log is long: one line a package is enough to see that it moves.
define PIP_INSTALL
$(BIN)/pip install --progress-bar off -c constraints.txt $(1) | awk '\
	/^ *(Using cached|Downloading) / { \
		sub(/^ */, ""); sub(/https?:.*\//, ""); sub(/\.metadata/, " (metadata)"); \
		if ($$0 !~ /metadata/) { print "  " $$0; fflush() } } \
	/^Installing collected packages/ { print "  unpacking " NF - 3 " packages"; fflush() }'
endef

$(BIN)/python:
	@command -v $(PYTHON) > /dev/null || { \
		echo "make: '$(PYTHON)' is not there. Install Python 3.11 or later, or name one: make PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "make: $(PYTHON) is $$($(PYTHON) --version 2>&1). sublayer needs Python 3.11 or later: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { \
		rm -rf $(VENV); echo "make: '$(PYTHON) -m venv' failed. On Debian and Ubuntu: apt install python3-venv"; exit 1; }

ENGINE := $(wildcard src/sublayer/fast/engine/cpp/*) hatch_build.py

$(VENV)/.installed: pyproject.toml constraints.txt $(ENGINE) | $(BIN)/python
	@echo "Installing sublayer and what it runs on into $(VENV) (a minute or two)"
	@$(call PIP_INSTALL,-e .)
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt $(ENGINE) | $(VENV)/.installed
	@echo "Installing what tests and checks need into $(VENV)"
	@$(call PIP_INSTALL,-e $(EVERYTHING))
	@touch $(VENV)/.installed $@

.PHONY: install dev
install: $(VENV)/.installed  ## sublayer into .venv
dev: $(VENV)/.installed-dev  ## the same, with the tests and the checks

# --- the demo ------------------------------------------------------------------------------------------------------

.PHONY: demo clean-demo
demo: $(VENV)/.installed  ## train a small English-Spanish translator, score it, translate, and look inside (10 minutes)
	@SECONDS=0; \
	run() { \
		printf '\n$$ sublayer'; \
		for word in "$$@"; do case $$word in *' '*) printf ' "%s"' "$$word";; *) printf ' %s' "$$word";; esac; done; \
		printf '\n'; \
		$(BIN)/sublayer "$$@"; \
	}; \
	run data fetch tatoeba-en-es; \
	if [ -e $(DEMO)/model ]; then \
		printf '\nAlready trained: %s. To train it again: make clean-demo demo\n' $(DEMO)/model; \
	elif [ -e $(DEMO) ]; then \
		printf '\nAn earlier training was stopped: going on with it. To start again: make clean-demo demo\n'; \
		run train tatoeba-en-es-demo --out $(DEMO) --resume; \
	else \
		run train tatoeba-en-es-demo --out $(DEMO); \
	fi; \
	run evaluate $(DEMO); \
	run translate $(DEMO) $(SENTENCES); \
	run attend $(DEMO) $(LOOK_AT) --out $(DEMO)/attention.png; \
	printf '\n'; \
	printf '%-10s %s\n' \
		model $(DEMO)/model \
		scores "the table above, and $(DEMO)/metrics.jsonl" \
		curves $(DEMO)/curves.png \
		attention $(DEMO)/attention.png; \
	printf 'Done in %d min %02d s after the installation.\n' $$((SECONDS / 60)) $$((SECONDS % 60))

clean-demo:  ## remove the demo's run, so that `make demo` trains again
	rm -rf $(DEMO)

# --- checks --------------------------------------------------------------------------------------------------------

.PHONY: test fuzz hostile endurance lm-eval kills test-portable test-arm lint wheel bench bench-quick
# One thread a worker: more would fight over the cores, and one makes sums repeatable.
test: $(VENV)/.installed-dev  ## all tests (WORKERS=2, or ARGS="tests/nn -k mask")
	@OMP_NUM_THREADS=1 $(BIN)/pytest -n $(WORKERS) $(ARGS)

# Where products, precision, optimizers, runners and recipes are tested. Folders, so that a new test is among them.
CALLING_ONEDNN := tests/nn tests/fast tests/models
PORTABLE := $(CALLING_ONEDNN) tests/training
AVX2 := ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2 SUBLAYER_ISA=avx2 \
	CT2_FORCE_CPU_ISA=AVX2

fuzz: $(VENV)/.installed-dev  ## all readers with inputs that nobody would write (FUZZ_EXAMPLES=20000)
	@OMP_NUM_THREADS=1 FUZZ_EXAMPLES=$${FUZZ_EXAMPLES:-20000} $(BIN)/pytest tests/fuzz/test_fuzzed_readers.py $(ARGS)

hostile: $(VENV)/.installed-dev  ## the server with requests that nobody would write (HOSTILE_EXAMPLES=5000 of each kind)
	@OMP_NUM_THREADS=1 HOSTILE_EXAMPLES=$${HOSTILE_EXAMPLES:-5000} $(BIN)/pytest tests/serving/test_hostile.py $(ARGS)

endurance: $(VENV)/.installed-dev  ## a server under full load for half an hour, with clients that hang up (ARGS="--minutes 2")
	@OMP_NUM_THREADS=1 $(BIN)/python tests/serving/endurance.py $(ARGS)

LM_EVAL := .venv-lm-eval
$(LM_EVAL)/bin/lm_eval: $(VENV)/.installed-dev
	@$(BIN)/python -m venv $(LM_EVAL)
	@$(LM_EVAL)/bin/pip install --progress-bar off -q 'lm_eval[api]==0.4.13' transformers==5.23.0
	@touch $@

lm-eval: $(LM_EVAL)/bin/lm_eval  ## lm-eval itself against a server, in an environment of its own (.venv-lm-eval)
	@OMP_NUM_THREADS=1 $(BIN)/python tests/serving/lm_eval_check.py $<

test-portable: $(VENV)/.installed-dev  ## those that depend on the processor, as a plain AVX2 one and without oneDNN
	@echo "As on a processor that has AVX2 and nothing newer"
	@$(AVX2) OMP_NUM_THREADS=1 $(BIN)/pytest -n $(WORKERS) -m "not slow" $(PORTABLE)
	@echo "Without oneDNN"
	@SUBLAYER_TEST_ONEDNN=0 OMP_NUM_THREADS=1 $(BIN)/pytest -n $(WORKERS) -m "not slow" $(CALLING_ONEDNN)

test-arm: $(VENV)/.installed-dev  ## the engine's C++ for Arm, emulated (apt install qemu-user, and g++-aarch64-linux-gnu for GCC)
	@command -v qemu-aarch64 > /dev/null || command -v qemu-aarch64-static > /dev/null || { \
		echo "make: qemu-aarch64 is not there. On Debian and Ubuntu: apt install qemu-user"; exit 1; }
	@$(BIN)/pip install --progress-bar off -q 'ziglang>=0.15,<0.18'
	@$(BIN)/pytest tests/fast/engine/test_arm.py -rs $(ARGS)

kills: $(VENV)/.installed-dev  ## kill runs 300 times, and compare what they come to (ARGS="--kills 20 --seconds 300")
	@OMP_NUM_THREADS=1 $(BIN)/python tests/kills.py $(ARGS)

lint: $(VENV)/.installed-dev  ## ruff, pyright (strict), the import contracts, and whether all tests can be collected
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/pyright
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/pytest --collect-only -qq > $(VENV)/collected.log || { cat $(VENV)/collected.log; exit 1; }

wheel: $(VENV)/.installed-dev  ## build the wheel and try it in an empty environment
	@PYTHON=$(BIN)/python bash tests/wheel_check.sh

bench: $(VENV)/.installed-dev  ## speed of training, translating and generating, beside others (35 to 45 minutes; ARGS="--simulate avx2")
	@for name in training_speed translation_speed generation_speed language_training_speed; do \
		printf '\n$$ python benchmarks/%s.py %s\n' $$name "$(ARGS)"; \
		$(BIN)/python benchmarks/$$name.py $(ARGS) || exit 1; \
	done

bench-quick: $(VENV)/.installed-dev  ## every benchmark on a tiny shape, one round: do they still run? (2 minutes)
	@OMP_NUM_THREADS=1 $(BIN)/pytest tests/benchmarks/test_quick.py --durations=0 $(ARGS)

# --- pictures ------------------------------------------------------------------------------------------------------

.PHONY: pictures
TRANSLATOR ?= runs/tatoeba-en-es
LLM ?= models/smollm2
pictures: $(VENV)/.installed-dev  ## pictures of the page, into docs/pictures (TRANSLATOR=runs/mine, LLM=models/smollm2)
	@$(BIN)/python docs/pictures.py --translator $(TRANSLATOR) --llm $(LLM)

.PHONY: comparison
comparison: $(VENV)/.installed  ## the whole of `sublayer compare`, its report into docs/compare.md (an hour and a quarter)
	@$(BIN)/sublayer compare --out runs/compare
	@cp runs/compare/report.md docs/compare.md
	@cp runs/compare/pictures/*.png docs/pictures/
	@cp runs/compare/figures/*.json docs/figures/

# --- tidying -------------------------------------------------------------------------------------------------------

.PHONY: clean
clean:  ## remove caches and builds; .venv and runs stay
	rm -rf build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests benchmarks examples -name __pycache__ -type d -prune -exec rm -rf {} +
