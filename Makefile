# Needs Python 3.11 or later, make and a package index; everything else goes into .venv.

PYTHON ?= python3
INSTALL = .venv/bin/python -m pip install --disable-pip-version-check -c constraints.txt
# Written last, so that an installation which was interrupted is gone on with.
INSTALLED = .venv/.installed
INSTALLED_PARITY = .venv/.installed-parity

.PHONY: .venv quickstart test parity lint clean

.venv: $(INSTALLED)

$(INSTALLED): setup.py pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(INSTALL) -e '.[dev,quickstart]'
	touch $@

# The constraint names a release of torch that has a small build for CPUs.
$(INSTALLED_PARITY): $(INSTALLED)
	$(INSTALL) -e '.[parity]'
	touch $@

quickstart: $(INSTALLED)
	.venv/bin/python experiments/quickstart.py

test: $(INSTALLED)
	.venv/bin/python -m pytest --ignore=tests/parity -m 'not long'

parity: $(INSTALLED_PARITY)
	.venv/bin/python -m pytest tests/parity

lint: $(INSTALLED)
	.venv/bin/ruff check .

# The environment and the downloaded models stay.
clean:
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
