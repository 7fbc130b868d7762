PYTHON ?= python3
BIN := .venv/bin

NETWORKS := dusk sunset autumn golden overcast monochrome

.PHONY: stylize demo app test test-page lint docs gpu-evidence clean

stylize: .venv/installed
	$(BIN)/python stylize.py content=examples/pavilion.jpg style=examples/sunset.jpg \
		output=pavilion_at_sunset.jpg overwrite=true

demo: .venv/installed
	for network in $(NETWORKS); do \
		$(BIN)/python stylize.py method=feedforward network=$$network content=examples \
			output=demo/$$network overwrite=true || exit 1; \
	done
	for style in dusk sunset autumn; do \
		$(BIN)/python stylize.py method=feedforward content=examples style=examples/$$style.jpg \
			output=demo/any/$$style overwrite=true || exit 1; \
	done

app: .venv/app
	$(BIN)/python -m photostyle.app

test: .venv/installed
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal

# What of the page needs a browser: Chromium must be installed.
test-page: .venv/browser
	REQUIRE_BROWSER=1 $(BIN)/python -m pytest -m browser tests/app

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

docs: .venv/installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

# By the machine's own Python where its PyTorch sees a GPU.
gpu-evidence:
	if $(PYTHON) -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' 2>/dev/null; \
	then python=$(PYTHON); else python=$(BIN)/python; fi; \
	$$python -m benchmarks.gpu_evidence $(ARGUMENTS)

# The stamp is written last, so that an interrupted installation is taken up again.
.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable '.[docs,test]'
	touch $@

.venv/app .venv/browser: .venv/installed
	$(BIN)/pip install --quiet --editable '.[$(@F)]'
	touch $@

clean:
	rm -rf .venv build site *.egg-info
