# Thin on purpose: the work is in book/tasks.py, which also runs without make (python book/tasks.py book).
# PY=path/to/python uses an environment that is already there instead of making .venv.

PYTHONS := python3.11 python3.12 python3.13 python3 python
TASKS := book test unit lab notebooks classroom real address pins clean

.PHONY: help $(TASKS)

help:
	@echo "make book       build the site (the first time, this makes .venv and installs everything)"
	@echo "make test       run everything that checks the book"
	@echo "make unit       run the package's own tests only"
	@echo "make lab        open the notebooks in JupyterLab"
	@echo "make notebooks  execute every notebook in place and store its outputs"
	@echo "make classroom  make the student release and grade two sample submissions"
	@echo "make real       run the lessons on public data and weights"
	@echo "make address    carry the public address from _config.yml to notebooks and README"
	@echo "make pins       write requirements.txt from pyproject.toml (UPGRADE=1 for newer versions)"
	@echo "make clean      remove _build (.venv stays)"

$(TASKS):
	@for python in $(PYTHON) $(PYTHONS); do \
	  if command -v "$$python" >/dev/null 2>&1 && "$$python" -c \
	    'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1; \
	  then exec "$$python" book/tasks.py $@ $(if $(PY),--python "$(PY)") $(if $(UPGRADE),--upgrade) $(ARGS); fi; \
	done; \
	echo "This needs Python 3.11, 3.12 or 3.13, and none of them is on the path: install one and run 'make $@' again." >&2; \
	exit 1
