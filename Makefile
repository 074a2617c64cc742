# Two commands to remember: `make demo` and `make test`. Both set up .venv on a machine that has only Python and make.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-all test-long fuzz mutants bench gpu wheels package coverage lint types docs clean

demo: .venv/.installed
	$(BIN)/flowsr demo --out out --force

test: .venv/.installed
	$(BIN)/python -m pytest -m "not slow and not long and not gpu" -n 2

test-all: .venv/.installed
	$(BIN)/python -m pytest -m "not gpu and not long" -n 2

test-long: .venv/.installed
	$(BIN)/python -m pytest -m "long and not gpu"

# The time of each piece of work over the bare minimum of it; `ROWS="decode-2x20 small-1x20"` measures some of it.
bench: .venv/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.bench $(ROWS) --json out/bench.json --out out/bench.png

# All that needs a GPU, in eight minutes, on a machine that has torch, torchvision, lightning and scikit-image: `make
# wheels` here, and there `make gpu WHEELS=out/wheels`. Where .venv has been set up it needs no wheels.
gpu:
	$(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON)) -m benchmarks.gpu --out out/gpu $(if $(WHEELS),--wheels $(WHEELS))

wheels: .venv/.installed
	$(BIN)/python -m benchmarks.wheels out/wheels

# Damaged files, answers and names, each part for SECONDS; `PARTS=images` runs one of them.
fuzz: SECONDS ?= 60
fuzz: SEED ?= 0
fuzz: .venv/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.fuzz $(PARTS) --seconds $(SECONDS) --seed $(SEED)

# Changes of single operators and constants that the fast tests should notice: about an hour for 200.
mutants: COUNT ?= 200
mutants: SEED ?= 0
mutants: .venv/.installed
	$(BIN)/python -m benchmarks.mutants --count $(COUNT) --seed $(SEED)

# The wheel and the sdist, checked, and the demo run from the wheel in an empty environment: minutes and some GB.
package: .venv/.installed
	$(BIN)/python -m benchmarks.package dist

# What of flowsr the fast tests run, 95 % at least, in twice their time.
coverage: .venv/.installed
	$(BIN)/python -m coverage erase
	$(BIN)/python -m coverage run -m pytest -q -m "not slow and not long and not gpu"
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage report

lint: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/.installed
	$(BIN)/pyright

docs: .venv/.installed
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html

clean:
	rm -rf .venv out dist docs/_build docs/auto_examples docs/api/generated

.venv/.installed: pyproject.toml
	@echo "Setting up .venv: minutes and some GB, this once"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	touch $@
