# make demo   the whole job on sample models: look, tie, prove, convert to PyTorch
# make test   everything that must pass: ruff, mypy, pytest
# make lint   ruff and mypy only
# make benchmark
#
# A machine needs Python 3.11, 3.12 or 3.13, and nothing else: everything goes into .venv.
# PYTHON=... chooses the interpreter, PIP_FLAGS=... is handed to pip. On Linux,
#   make demo PIP_FLAGS="--extra-index-url https://download.pytorch.org/whl/cpu"
# fetches the small build of PyTorch, without CUDA.

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= $(firstword $(foreach name,python3.11 python3.12 python3.13 python3,$(shell \
	$(name) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
	2>/dev/null && echo $(name))))
INSTALL = $(BIN)/python -m pip install -qq --disable-pip-version-check \
	--constraint constraints.txt $(PIP_FLAGS)

export TF_CPP_MIN_LOG_LEVEL ?= 3
export TF_ENABLE_ONEDNN_OPTS ?= 0
MAKEFLAGS += --no-print-directory

.PHONY: demo test lint benchmark clean

demo: $(VENV)/demo.stamp
	@PATH="$(CURDIR)/$(BIN):$$PATH" sh sample_models/demo.sh

test: lint
	@$(BIN)/python -m pytest --quiet --numprocesses 2 --dist worksteal $(PYTEST_FLAGS)

lint: $(VENV)/test.stamp
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check .
	@$(BIN)/mypy --no-error-summary
	@for folder in sample_models benchmarks; do \
		(cd $$folder && ../$(BIN)/mypy --no-error-summary --config-file ../pyproject.toml .) \
		|| exit 1; done

benchmark: $(VENV)/test.stamp
	@for script in help_speed inspect_vs_keras convert_imports \
		torch_inspect torch_tie torch_duplicates; do \
		$(BIN)/python benchmarks/$$script.py || exit 1; echo; done

clean:
	rm -rf $(VENV) build .mypy_cache .pytest_cache .ruff_cache .hypothesis

# The stamps make the second run start at once, and a changed pin install again.
$(VENV)/demo.stamp: $(BIN)/python pyproject.toml constraints.txt
	@echo "Installing tiesurgeon with Keras and PyTorch into $(VENV) (minutes, once) ..."
	@$(INSTALL) --editable '.[keras,torch]'
	@touch $@

$(VENV)/test.stamp: $(BIN)/python pyproject.toml constraints.txt
	@echo "Installing tiesurgeon with all that its tests use into $(VENV) (minutes, once) ..."
	@$(INSTALL) --editable '.[dev]'
	@touch $@ $(VENV)/demo.stamp

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "tiesurgeon needs Python 3.11, 3.12 or 3.13 (or PYTHON=...)"; exit 1; }
	@"$(PYTHON)" -m venv $(VENV) || { rm -rf $(VENV); exit 1; }
