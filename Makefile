# make demo   compare the example pair in traces/seed/ and explain what came out
# make test   run the tests            make lint   ruff and pyright
# make bench  time and memory          make picture  draw the pictures in docs/ anew
# make faults  ports with planted faults and right ones, and what parity makes of them (SEED=0)
# make fuzz   damaged files by the thousand (COUNT=10000 in each suite, SEED=0)
# make clean  remove what the other targets made
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.parity-installed
PIP_FLAGS ?=
PAIR := traces/seed

COUNT ?= 10000
SEED ?= 0

.PHONY: demo test lint bench faults fuzz picture clean install

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(PIP_FLAGS) --constraint constraints.txt --editable ".[dev]"
	@touch $@

# The pair diverges, so `parity` exits with 1 and that is right; 0 and 2 would both be wrong here.
demo: $(STAMP)
	@echo "A network was trained in MatConvNet (net.mat) and rebuilt in Keras (model.h5). Why do the two learn differently?"
	@echo "parity loads the same weights into both, feeds both the same 32 digits and compares, layer by layer:"
	@echo
	@echo "  parity compare --ref $(PAIR)/net.mat --keras $(PAIR)/model.h5 --batch $(PAIR)/batch.npz"
	@echo
	@$(BIN)/parity compare --ref $(PAIR)/net.mat --keras $(PAIR)/model.h5 --batch $(PAIR)/batch.npz; code=$$?; \
	if [ $$code -ne 1 ]; then echo "the demo expected exit code 1 (diverged) and got $$code" >&2; exit 1; fi
	@echo
	@echo "How to read it. 'match': equal up to measured rounding noise. 'born': this layer itself computes something else,"
	@echo "given the reference's own inputs. 'inherited': only its inputs differ. 'masked': it differs, but not on this batch."
	@echo "The first number of a pair is the distance in units of the noise floor with the layer run alone (about 1 is"
	@echo "noise), the second is the relative error end to end. The filters of ip1 are 32 deep on 64 channels, so MatConvNet"
	@echo "runs two groups, silently; the Keras layer is dense. The forward pass still agrees, because parity loads the"
	@echo "groups as blocks with zeros between them; training then fills the zeros. The rest of the gap is the recipe."
	@echo "parity itself exited with 1, which is what a script or a CI job would see for a divergence."

# Tests start many processes: compiled modules are kept for the next one, whatever the environment says.
test: export PYTHONDONTWRITEBYTECODE =
test: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist worksteal

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/pyright

bench: $(STAMP)
	$(BIN)/python -m bench.compare
	$(BIN)/python -m bench.load
	$(BIN)/python -m bench.traces
	$(BIN)/python -m bench.debugger

faults: $(STAMP)
	$(BIN)/python -m bench.faults --seed $(SEED)

fuzz: $(STAMP)
	$(BIN)/python -m tests.fuzz all --count $(COUNT) --seed $(SEED)

picture: $(STAMP)
	$(BIN)/python docs/picture.py
	$(BIN)/python docs/debugger.py
	$(BIN)/python docs/page.py

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
