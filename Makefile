# make demo   MNIST trains while TensorBoard shows it, on http://localhost:8050  (BACKEND=pytorch, PORT=8051)
# make test   linters, types, and all tests: Python, TypeScript, browser

BACKEND ?= tensorflow
PORT ?= 8050
BIN := .venv/bin
EXTRA := $(if $(filter pytorch,$(BACKEND)),torch,$(BACKEND))
# Playwright comes without its browsers: the tests use the system's Chromium.
export PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD := 1

.PHONY: demo test lint environment help
.DEFAULT_GOAL := help

help:
	@sed -n 's/^# //p' Makefile

demo:
ifeq ($(filter tensorflow pytorch,$(BACKEND)),)
	@echo "BACKEND=$(BACKEND) is not a backend: write make demo BACKEND=tensorflow or BACKEND=pytorch." >&2; exit 1
endif
	@python=$$(scripts/find-python) && exec "$$python" scripts/set_up.py $(EXTRA)
	@exec $(BIN)/neural debug examples/mnist.neural --backend $(BACKEND) --port $(PORT) --every 10

test: lint
	@exec $(BIN)/pytest -q

lint: environment
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/python scripts/viewer.py check size

environment:
	@python=$$(scripts/find-python) && exec "$$python" scripts/set_up.py all,dev --browser
