# Everything from a bare machine: `make demo` and `make test` need Python >= 3.11, git and make, and nothing else.
# They create the virtual environment, install into it and run; a second call installs nothing unless pyproject.toml
# changed. `make help` lists the targets. Written for GNU make 3.81 (macOS) and later.

VENV ?= .venv
ARGS ?=
QUICK ?=
# Test processes: one for each core, at most four, because each loads its own torch.
WORKERS ?= auto

BIN = $(VENV)/bin
PY = '$(BIN)/python'

# One thread for each test worker: more would fight over the cores, and their number changes the last bits of a sum.
TEST_ENV = OMP_NUM_THREADS=1 MPLBACKEND=Agg

# Stamps in the environment say what was installed into it: the package alone, or with the tools for development.
RUN_STAMP = $(VENV)/neuronscope-run.stamp
DEV_STAMP = $(VENV)/neuronscope-dev.stamp
# An environment serves one checkout at a time: the last one that was installed into it.
OWNER = $(VENV)/neuronscope-checkout
ifneq ($(shell cat '$(OWNER)' 2>/dev/null),$(CURDIR))
STALE = stale
endif

.PHONY: help demo test check lint types docs-strict docs format bench stale
# Targets share one environment, and two installs at once would break it.
.NOTPARALLEL:
.DELETE_ON_ERROR:

help: ## list the targets
	@echo 'make TARGET [VENV=path of the virtual environment, default .venv]'
	@echo
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1|\2/p' Makefile | awk -F '|' '{ printf "%-14s %s\n", $$1, $$2 }'

demo: $(RUN_STAMP) ## train on handwritten digits, run every study, write a report to runs/demo (ARGS="--out DIR")
	@'$(BIN)/neuronscope' demo $(ARGS)

test: $(DEV_STAMP) ## all tests and documented examples (ARGS="-k foo" to choose, WORKERS=0 for one process)
	$(TEST_ENV) $(PY) -m pytest -n $(WORKERS) --maxprocesses 4 --dist loadfile --durations 10 $(ARGS)

check: lint types docs-strict test ## everything that must hold before a commit

lint: $(DEV_STAMP) ## ruff: rules and format
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

types: $(DEV_STAMP) ## mypy, strict
	$(PY) -m mypy

docs-strict: $(DEV_STAMP) ## the documentation; a broken link or reference is an error
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict --quiet --site-dir site

docs: $(DEV_STAMP) ## the documentation, into site/
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --site-dir site
	@echo 'Open site/index.html'

format: $(DEV_STAMP) ## let ruff format the code and repair what it can
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

# Every benchmark runs, also after one that failed; the exit code tells.
bench: $(DEV_STAMP) ## every benchmark, figures as JSON into bench-results/ (QUICK=1 for a short run)
	@mkdir -p bench-results; failed=''; \
	for file in bench/[!_]*.py; do \
	  [ -f "$$file" ] || { echo 'There is no benchmark in bench/.'; break; }; \
	  name=$$(basename "$$file" .py); echo "== $$name"; \
	  OMP_WAIT_POLICY=PASSIVE $(PY) "$$file" --json "bench-results/$$name.json" $(if $(QUICK),--quick) $(ARGS) \
	    || failed="$$failed $$name"; \
	done; \
	[ -z "$$failed" ] || { echo "Failed:$$failed"; exit 1; }

$(RUN_STAMP): pyproject.toml $(STALE)
	$(call install,.)
	@touch '$(RUN_STAMP)'

$(DEV_STAMP): pyproject.toml $(STALE)
	$(call install,.[dev])
	@touch '$(RUN_STAMP)' '$(DEV_STAMP)'

stale:
	@rm -f '$(RUN_STAMP)' '$(DEV_STAMP)'

# The first Python that runs, is new enough and can make environments (`python3` may be an old one, or a launcher of
# versions that are not installed). An existing environment keeps its own Python.
define install
	@[ -x '$(BIN)/python' ] || { \
	  for name in $(PYTHON) python3 python3.11 python3.12 python3.13 python3.14 python; do \
	    if "$$name" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
	      echo "Creating $(VENV) with $$name"; exec "$$name" -m venv '$(VENV)'; \
	    fi; \
	  done; \
	  echo 'neuronscope needs Python 3.11 or newer with its venv module; none was found on the PATH.' >&2; \
	  echo 'Install one (on Debian and Ubuntu: python3 and python3-venv), or name it: make PYTHON=/path/to/python' >&2; \
	  exit 1; \
	}
	@$(PY) -m pip --version >/dev/null 2>&1 || $(PY) -m ensurepip
	@echo 'Installing into $(VENV): minutes the first time (PyTorch is large), nothing the next time'
	@$(PY) -m pip install $$([ -t 1 ] || echo -qq) --editable '$(1)'
	@error=$$($(PY) -c 'import torchvision' 2>&1) || { \
	  printf '%s\n' "$$error" | tail -n 1 >&2; \
	  $(PY) -m pip list 2>/dev/null | grep '^torch' >&2; \
	  echo 'torchvision cannot be loaded in $(VENV): these versions do not belong together. Install a pair that does:' >&2; \
	  echo "  $(BIN)/python -m pip install --upgrade --force-reinstall torch torchvision" >&2; \
	  echo 'and run make again.' >&2; \
	  exit 1; \
	}
	@printf '%s' '$(CURDIR)' > '$(OWNER)'
endef
