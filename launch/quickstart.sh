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
make_venv "$venv" || exit 1
if ! installed "$venv" base && ! installed "$venv" dev; then
  echo "installing xlmr-flax into $venv (minutes, the first time)"
  if ! pip_install "$venv" -e . || ! install_encoder "$venv"; then
    echo 'error: the installation failed; what pip said is above' >&2
    exit 1
  fi
  mark_installed "$venv" base
fi

# exec: a signal to this script stops the run, which saves its state; bash would end alone and leave it running.
exec "$venv/bin/xlmr-flax" run --config=configs/quickstart.py --workdir="${WORKDIR:-runs/quickstart}" "$@"
