# Each target works on a fresh machine with Python 3.10 to 3.13, git, make and the package index.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test kill-test check format bench train conformance monitoring-test clean

demo: $(VENV)/.edge-and-cloud          ## real audio through the device path and the cloud path
	$(BIN)/python examples/voice_commands/demo.py

test: $(VENV)/.dev                     ## the whole suite, three files at a time: many tests wait for real servers
	$(BIN)/python -m pytest -n 3 --dist loadfile

kill-test: $(VENV)/.dev                ## a kill at every call of a device, or of a batch run, that changes files; a disk that refuses
	TIDEGATE_KILL=all $(BIN)/python -m pytest -s --timeout=3600 tests/integration/test_device_kill.py \
		tests/integration/test_device_faults.py tests/integration/test_predict_kill.py

monitoring-test: $(VENV)/.dev          ## a real Prometheus on a real server; needs the Debian package prometheus
	$(BIN)/python -m pytest examples/monitoring

check: $(VENV)/.dev                    ## style, types, floors, generated code
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	PATH="$(CURDIR)/$(BIN):$$PATH" protos/generate.sh --check

format: $(VENV)/.dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: $(VENV)/.dev                    ## what our own wrapper costs, the example bundle, the server beside others
	$(BIN)/python -m tidegate.bench.overhead tests/data/dense.tflite
	$(BIN)/python -m tidegate.bench.overhead tests/data/dense.onnx
	$(BIN)/tidegate bench examples/voice_commands/voice-commands.tide
	@if command -v h2load >/dev/null; then $(BIN)/python -m tidegate.bench.serving --rounds 3; \
	else echo "serving: not measured, h2load is not installed (Debian package nghttp2-client)"; fi

conformance: $(VENV)/.dev              ## TUF's own suite; tests/conformance/README.md says how to get it
	@test -n "$(SUITE)" -a -n "$(SUITE_PYTHON)" || \
	  { echo "make conformance SUITE=DIR SUITE_PYTHON=PATH: see tests/conformance/README.md" >&2; exit 2; }
	cd $(SUITE) && $(SUITE_PYTHON) -m pytest tuf_conformance \
	  --entrypoint "$(CURDIR)/$(BIN)/python $(CURDIR)/tests/conformance/tuf_client.py"

train: $(VENV)/.train                  ## train the example again; needs the Debian packages espeak-ng, flite and sox
	$(BIN)/python examples/voice_commands/train.py --work build/voice_commands

clean:
	rm -rf $(VENV) build dist

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"

$(VENV)/.edge-and-cloud: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable ".[edge,cloud]"
	@touch $@

$(VENV)/.dev: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable ".[all,convert]" --group dev
	@touch $@

$(VENV)/.train: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --editable ".[all,train]"
	@touch $@
