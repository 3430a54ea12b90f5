# Needs Python 3.11 or later, make and a package index. Everything else is installed into .venv.

PYTHON ?= python3
INSTALL = .venv/bin/python -m pip install --disable-pip-version-check -c constraints.txt
# Touched after a complete installation, so that an interrupted one is repeated.
INSTALLED = .venv/.installed
INSTALLED_PARITY = .venv/.installed-parity
INSTALLED_AOT = .venv/.installed-aot
INSTALLED_DOCS = .venv/.installed-docs
INSTALLED_NOTEBOOKS = .venv/.installed-notebooks

.PHONY: .venv aot apertium quickstart test test-long parity benchmarks docs notebooks \
  lint clean

.venv: $(INSTALLED)

$(INSTALLED): setup.py pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(INSTALL) -e '.[dev,quickstart,serve]'
	touch $@

# constraints.txt names a release of torch that has a small build for CPUs.
$(INSTALLED_PARITY): $(INSTALLED)
	$(INSTALL) -e '.[parity,data]'
	touch $@

# The compiler for TPUs; it needs no TPU.
$(INSTALLED_AOT): $(INSTALLED)
	$(INSTALL) -e '.[aot]'
	touch $@

$(INSTALLED_DOCS): $(INSTALLED)
	$(INSTALL) -e '.[docs]'
	touch $@

$(INSTALLED_NOTEBOOKS): $(INSTALLED)
	$(INSTALL) -e '.[notebooks]'
	touch $@

# Rules of the translator Apertium, from Debian packages; as root or with sudo.
APERTIUM = apertium apertium-eng-spa apertium-eng-cat apertium-en-gl apertium-eo-en apertium-eu-en \
  apertium-hbs-eng apertium-isl-eng apertium-mkd-eng apertium-es-pt apertium-es-ro apertium-fr-es \
  apertium-spa-ita
SUDO = $(shell test "$$(id -u)" = 0 || echo sudo)

apertium:
	$(SUDO) apt-get update
	$(SUDO) apt-get install --yes --no-install-recommends $(APERTIUM)

quickstart: $(INSTALLED)
	.venv/bin/python experiments/quickstart.py

# Two processes: most of the time is spent tracing and compiling, which takes one core each.
TWO = --numprocesses 2 --dist loadfile --durations 25

# Small models take longer to compile than to run, so LLVM does not optimize here. It does in the
# other targets.
test: $(INSTALLED)
	XLA_FLAGS=--xla_backend_optimization_level=0 \
	  .venv/bin/python -m pytest $(TWO) --ignore=tests/parity \
	  --ignore=tests/planning/test_paper_model.py -m 'not long'

# These tests take minutes each.
test-long: $(INSTALLED)
	.venv/bin/python -m pytest --ignore=tests/parity -m long

# Torch's threads spin while they wait, and would take the cores from the other process.
parity: $(INSTALLED_PARITY)
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest $(TWO) tests/parity

aot: $(INSTALLED_AOT)
	.venv/bin/python -m pytest $(TWO) tests/planning

# Takes more than an hour on an idle machine. Candidates are sampled with the paper's k and m; the
# texts for training are those of the quickstart.
benchmarks: $(INSTALLED_PARITY) runs/benchmark/.EXECUTED quickstart
	.venv/bin/python benchmarks/filter_scoring.py --record --run runs/benchmark \
	  --candidates 2000 --repeats 1
	.venv/bin/python benchmarks/call_sampling.py --record
	test -d runs/exported || .venv/bin/toolformer export --checkpoint runs/quickstart/model \
	  --output_dir runs/exported
	.venv/bin/python benchmarks/generation.py --record --exported runs/exported
	.venv/bin/python benchmarks/decoding.py --record --rows 1
	.venv/bin/python benchmarks/decoding.py --record --rows 32
	.venv/bin/python benchmarks/prefill.py --record
	.venv/bin/python benchmarks/finetuning.py --record
	.venv/bin/python benchmarks/finetuning.py --record --dtype bfloat16
	.venv/bin/python benchmarks/finetuning.py --record --lora_rank 16
	.venv/bin/python benchmarks/finetuning.py --record --data runs/quickstart/calculator \
	  runs/quickstart/wikisearch
	.venv/bin/python benchmarks/filter_scoring.py --record --run runs/benchmark --distinct \
	  --candidates 100
	.venv/bin/python benchmarks/call_sampling.py --record --temperature 1.0 --texts 4 \
	  --repeats 1
	.venv/bin/python benchmarks/filter_scoring.py --record --run runs/benchmark --dtype bfloat16 \
	  --candidates 20 --repeats 1
	.venv/bin/python benchmarks/serving.py --record --sides served generate
	.venv/bin/python benchmarks/serving_load.py --record
	.venv/bin/python benchmarks/serving_load.py --record --model smollm2-135m --requests 200 \
	  --rounds 1

runs/benchmark/.EXECUTED: | $(INSTALLED)
	mkdir -p runs
	head -60 "$$(.venv/bin/toolformer fetch word-problems)" > runs/benchmark.jsonl
	for stage in sample execute; do .venv/bin/toolformer annotate --gin_file quickstart.gin \
	  --gin.calculator/ToolConfig.k=20 --gin.calculator/ToolConfig.m=10 \
	  --gin.calculator/ToolConfig.tau_s=0.0 --corpus runs/benchmark.jsonl \
	  --checkpoint smollm2-135m --tools calculator --output_dir runs/benchmark --stage $$stage \
	  || exit 1; done
	touch $@

# The site, into build/site; a warning is an error. Needs no network.
docs: $(INSTALLED_DOCS)
	NO_MKDOCS_2_WARNING=1 JAX_PLATFORMS=cpu .venv/bin/python -m mkdocs build

# Executes copies of the notebooks on the CPU, in build/notebooks. The site then shows their outputs.
notebooks: $(INSTALLED_NOTEBOOKS)
	.venv/bin/python -m pytest tests/test_notebooks.py
	rm -rf build/notebooks
	mkdir -p build/notebooks
	cp colab/*.ipynb build/notebooks
	PATH="$(CURDIR)/.venv/bin:$$PATH" JAX_PLATFORMS=cpu .venv/bin/python -m pytest \
	  $(TWO) --nbmake --nbmake-timeout 900 --overwrite build/notebooks/*.ipynb

lint: $(INSTALLED)
	.venv/bin/ruff check .
	.venv/bin/mypy

# Keeps the environment and the downloaded models.
clean:
	rm -rf build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
