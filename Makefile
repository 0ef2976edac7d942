# Everything is made in .venv, so nothing outside this folder changes. `make` alone lists the commands.
# README.md gives the same steps without make.

PYTHON ?= python3
LAB_FLAGS ?=

python := .venv/bin/python
# else JupyterLab asks at its first start whether it may fetch news, and looks for updates
offline := {"@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": false}}
as_root := $(if $(filter 0,$(shell id -u)),--allow-root)

.PHONY: help lab walkthrough test clean

help:
	@echo "make lab          opens JupyterLab on notebooks/00_start_here.ipynb"
	@echo "make walkthrough  executes every notebook, offline, and writes pages: build/index.html"
	@echo "make test         ruff, mypy and every test, each notebook included"
	@echo "make clean        removes .venv, build and caches"
	@echo
	@echo "PYTHON=python3.12 picks the interpreter of a new .venv (3.11 or newer)."

lab: .venv/.lab
	$(python) -m jupyterlab --ServerApp.root_dir="$(CURDIR)" $(as_root) $(LAB_FLAGS) notebooks/00_start_here.ipynb

walkthrough: .venv/.lab
	$(python) tests/walkthrough

test: .venv/.test
	$(python) -m ruff check
	$(python) -m mypy
	$(python) -m pytest

# Stamps: an environment is made once, and mended when pyproject.toml changes. Whatever `.test` holds, `.lab` holds.
.venv/.lab: pyproject.toml | .venv/bin/python
	$(python) -m pip install --disable-pip-version-check --editable .
	@touch $@

.venv/.test: pyproject.toml | .venv/bin/python
	$(python) -m pip install --disable-pip-version-check --editable ".[test,vit]"
	@touch .venv/.lab $@

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "grafeat needs Python 3.11 or newer, which '$(PYTHON)' is not. Name another: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv .venv || { rm -rf .venv; exit 1; }
	@mkdir -p .venv/share/jupyter/lab/settings
	@echo '$(offline)' > .venv/share/jupyter/lab/settings/overrides.json

clean:
	rm -rf .venv build notebooks/build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .benchmarks
	find grafeat notebooks tests \( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf {} +
