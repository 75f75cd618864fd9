#!/usr/bin/env bash
# From a bare checkout to a report, on a laptop: makes .venv, installs the package, runs configs/quickstart.py.
#   bash launch/quickstart.sh                              report in runs/quickstart
#   WORKDIR=/tmp/first bash launch/quickstart.sh           somewhere else
#   bash launch/quickstart.sh --config.recipe.log_every=1   further arguments go to `xlmr-flax run`
# PYTHON=python3.12 chooses the interpreter of a new environment; VENV=DIR chooses its folder.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=launch/venv.sh
source launch/venv.sh

venv=${VENV:-.venv}
workdir=${WORKDIR:-runs/quickstart}
# A --workdir among the arguments overrides WORKDIR; the last one counts, as in the command itself.
previous=
dry_run=
for argument in "$@"; do
  case $argument in
    --workdir=*) workdir=${argument#*=} ;;
    --dry_run | --help) dry_run=1 ;;
  esac
  if [[ $previous == --workdir ]]; then workdir=$argument; fi
  previous=$argument
done

if [[ $workdir == '~/'* ]]; then workdir=$HOME/${workdir#'~/'}; fi  # as the command reads it

make_venv "$venv" || exit 1
if ! installed "$venv" base && ! installed "$venv" dev; then
  echo "installing xlmr-flax into $venv (minutes, the first time)"
  if ! pip_install "$venv" -e . || ! install_encoder "$venv"; then
    echo 'error: the installation failed; what pip said is above' >&2
    exit 1
  fi
  mark_installed "$venv" base
fi

status=0
"$venv/bin/xlmr-flax" run --config=configs/quickstart.py --workdir="$workdir" "$@" || status=$?
if ((status)); then
  echo "error: the run ended with exit code $status; started again, it uses what it has finished" >&2
  exit "$status"
fi
if [[ -n $dry_run ]]; then exit 0; fi
if [[ -f $workdir/report/index.html ]]; then
  echo "open in a browser: $(cd "$workdir/report" && pwd)/index.html"
else
  echo "error: the run ended without $workdir/report/index.html" >&2
  exit 1
fi
