#!/usr/bin/env bash
# Lint, format, types, documentation and tests, in a virtual environment of the checkout. Arguments go to pytest:
#   bash tests/run.sh                  all but the tests marked slow
#   bash tests/run.sh fast                 only the tests marked fast: no compilation, under two minutes
#   bash tests/run.sh -m slow              the slow tests
#   bash tests/run.sh --relative_folders   the commands of the tests with relative folders
#   bash tests/run.sh newest               in a new environment, with the newest release of all that setup.py allows
#   bash tests/run.sh pythons              the tests marked fast, with each Python that is here, in .venv-VERSION
# Other environments than the newest one get the versions of constraints/, if there is a file for their Python.
# PYTHON=python3.12 chooses the interpreter of a new environment; VENV=DIR chooses its place; TESTS_ONLY=1 leaves out lint,
# types and documentation.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
# shellcheck source=launch/venv.sh
source launch/venv.sh

if [[ ${1:-} == pythons ]]; then
  shift
  failed=()
  for version in 3.11 3.12 3.13; do
    if ! python=$(python_of "$version"); then
      echo "== Python $version is not here: skipped"
      continue
    fi
    echo "== Python $version"
    PYTHON=$python VENV=.venv-$version bash tests/run.sh fast "$@" || failed+=("$version")
  done
  if ((${#failed[@]})); then
    echo "FAILED with Python ${failed[*]}" >&2
    exit 1
  fi
  exit 0
fi

newest=
if [[ ${1:-} == newest ]]; then
  newest=1
  shift
fi
venv=${VENV:-.venv${newest:+-newest}}
if [[ -n $newest && -f $venv/pyvenv.cfg ]]; then rm -rf "$venv"; fi
make_venv "$venv" || exit 1
bin=$(cd "$venv/bin" && pwd)
if [[ -n $newest ]]; then
  echo "installing the newest releases into $venv (minutes)"
  # In an empty environment pip takes the newest release of everything that the requirements allow.
  pip_install "$venv" -U pip &&
    pip_install "$venv" -e '.[dev]' 'torch==2.13.0' && install_encoder "$venv" || exit 1
  "$bin/python" -m pip list --format=freeze --disable-pip-version-check
elif ! installed "$venv" dev; then
  echo "installing xlmr-flax with the dev extra into $venv (minutes, the first time)"
  # torch first and pinned, so that the tests' reference implementation is the same everywhere; where a wheel for the
  # CPU is on offer for that version, pip takes it and leaves the CUDA libraries out.
  pinned=()
  constraints=constraints/py$("$bin/python" -c 'import sys; print("{}{}".format(*sys.version_info))').txt
  if [[ -f $constraints ]]; then pinned=(-c "$constraints"); fi
  pip_install "$venv" 'torch==2.13.0' "${pinned[@]}" && pip_install "$venv" -e '.[dev]' "${pinned[@]}" &&
    install_encoder "$venv" || exit 1
  mark_installed "$venv" dev
fi

if [[ ${1:-} == fast ]]; then
  shift
  set -- -m 'fast and not slow' -n 2 --dist loadfile "$@"
fi

failed=()
step() {
  local name=$1
  shift
  echo "== $name"
  "$@" || failed+=("$name (exit code $?)")
}
if [[ -z ${TESTS_ONLY:-} ]]; then
  step 'ruff check' "$bin/ruff" check .
  step 'ruff format' "$bin/ruff" format --check --quiet .
  step 'mkdocs build' env NO_MKDOCS_2_WARNING=1 "$bin/mkdocs" build --strict --quiet
  step 'pyright' "$bin/pyright" --pythonpath "$bin/python"
fi
step 'pytest' "$bin/python" -m pytest -q "$@"

if ((${#failed[@]})); then
  printf 'FAILED: %s\n' "${failed[@]}" >&2
  exit 1
fi
