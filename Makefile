# `make demo` and `make test` set up everything that they need; PYTHON names the interpreter for the environment.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TRITON_VENV := .venv-triton

PEERS := .venv-peers
BENCHMARKS := hash voxelize boxes segment sparse_conv

.PHONY: all demo docs test test-fast test-triton check bench bench-peers clean
all: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("sparse3d needs Python 3.11 or newer, this is " + sys.version.split()[0] + "; say PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade -c constraints.txt -e '.[dev]'
	touch $@

demo: $(VENV)/.installed
	$(BIN)/python demos/lidar_detection/run.py

# The pages of docs/ in site/. Material's notice of what follows MkDocs is no warning about them.
docs: $(VENV)/.installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

# Processes that share the tests, each with threads of its own.
WORKERS ?= 2
PYTEST := python -m pytest -q -n $(WORKERS) --dist worksteal

# On a machine that does other things too, threads that wait for each other must not spin: trainings took ten times
# as long.
test test-fast test-triton: export OMP_WAIT_POLICY ?= PASSIVE

test: $(VENV)/.installed
	$(BIN)/$(PYTEST)
	$(MAKE) test-triton

test-fast: $(VENV)/.installed
	$(BIN)/$(PYTEST) -m "not slow"

# The GPU kernels, without a GPU: Triton's interpreter runs them against the same laws, and they are compiled for
# a GPU. Triton comes with CUDA builds of torch for Linux; beside a CPU build it gets an environment of its own,
# which sees all of $(VENV). What the processes launched is compiled after all of them.
ifeq ($(shell uname -s),Linux)
test-triton: $(TRITON_VENV)/.installed
	rm -rf build/launches
	$(TRITON_VENV)/bin/$(PYTEST) --bodies triton --launches build/launches tests/ops --ignore tests/ops/test_triton.py
	$(TRITON_VENV)/bin/python -m pytest -q --bodies triton --launches build/launches tests/ops/test_triton.py
else
test-triton:
	@echo "Triton has no wheel for $(shell uname -s): the tests of the GPU kernels are left out"
endif

$(TRITON_VENV)/.installed: $(VENV)/.installed
	$(BIN)/python -m venv --without-pip $(TRITON_VENV)
	$(BIN)/python -c 'import sysconfig as s; print("import site; site.addsitedir(%r)" % s.get_path("purelib"))' \
	  > "$$($(TRITON_VENV)/bin/python -c 'import sysconfig as s; print(s.get_path("purelib"))')/_sees_venv.pth"
	$(BIN)/python -m pip --python $(TRITON_VENV)/bin/python install --quiet --no-deps -c constraints.txt triton
	touch $@

check: $(VENV)/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright

bench: $(VENV)/.installed
	for name in $(BENCHMARKS); do $(BIN)/python tools/bench_$$name.py || exit 1; done

# A second environment that sees what the first one holds (sparse3d and the same torch) and other libraries beside
# it. Open3D needs libusb-1.0, EGL, GL and X11 of the system. OPENBLAS_CORETYPE would choose slower products.
bench-peers: $(PEERS)/.installed
	for name in $(BENCHMARKS); do env -u OPENBLAS_CORETYPE $(PEERS)/bin/python tools/bench_$$name.py || exit 1; done

$(PEERS)/.installed: constraints-peers.txt $(VENV)/.installed
	$(BIN)/python -m venv $(PEERS)
	where='import sysconfig; print(sysconfig.get_path("purelib"))'; \
	echo "import site; site.addsitedir('$$($(abspath $(BIN))/python -c "$$where")')" \
		> "$$($(PEERS)/bin/python -c "$$where")/base.pth"
	$(PEERS)/bin/python -m pip install --quiet --no-deps -r constraints-peers.txt
	FORCE_ONLY_CPU=1 $(PEERS)/bin/python -m pip install --quiet --no-deps --no-build-isolation torch-scatter==2.1.2 \
		|| echo "torch-scatter did not build here (it needs a compiler): its columns stay empty"
	touch $@

clean:
	rm -rf build dist site .pytest_cache .ruff_cache
