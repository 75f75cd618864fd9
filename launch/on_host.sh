#!/usr/bin/env bash
# Runs on every host of a TPU, started by the other scripts; also useful on any Linux machine that you log in to.
# shellcheck disable=SC2154  # parse_flags of lib.sh assigns flag_NAME
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=launch/lib.sh
source "$here/lib.sh"
# shellcheck source=launch/caches.sh
source "$here/caches.sh"

about() {
  cat <<'TEXT'
usage: bash launch/on_host.sh install [--jax=tpu] [--extras=gcs] [--bucket=NAME]
       bash launch/on_host.sh run [--name=NAME] [--detach] -- xlmr-flax run --config=... --workdir=...
       bash launch/on_host.sh follow | status | stop [--name=NAME]
       bash launch/on_host.sh alive

install  makes the environment HOME/xlmr-flax/venv from this checkout; with --bucket, mounts gs://NAME at /mnt/NAME
run      starts the command so that it outlives the connection, and follows its log. The same command given again while
         it runs joins it: gcloud repeats a command when the connection drops
follow   joins a command that runs
status   says whether it runs, or how it ended
stop     sends SIGTERM, upon which xlmr-flax saves its state, and waits up to --wait seconds for the end; a second
         stop only waits
alive    exit code 0 if any run is alive here, else 1

Exit code of run and follow: 0 done; 143 stopped and saved; 11 and 12 where the command ended with 1 and 2, since 1 and 2
are gcloud's own; 13 the installation failed; 15 another command runs under this name; else the command's. Of stop: 14 where
the run is still alive after --wait seconds.
TEXT
}

base=$HOME/xlmr-flax
define_flag name run 'name of the run on this host'
define_flag jax tpu "extra of jax that brings the device: tpu, cuda12, cuda13; none: the CPU's"
define_flag extras gcs 'extras of this package (setup.py), separated by commas'
define_flag bucket '' 'Cloud Storage bucket to mount'
define_flag wait 600 'seconds that stop waits for the end'
define_switch detach 'do not follow the log'

# The TPU images are Ubuntu 22.04 with Python 3.10; uv installs a newer one.
python_for_venv() {
  local found
  if found=$(find_python 2>/dev/null) && "$found" -c 'import venv, ensurepip' 2>/dev/null; then
    printf '%s' "$found"
    return 0
  fi
  python3 -m pip install --quiet --user uv >&2
  python3 -m uv python install --quiet 3.12 >&2
  python3 -m uv python find --no-project --managed-python 3.12
}

mount_bucket() {
  local place=/mnt/$1 release
  if mountpoint --quiet "$place" 2>/dev/null; then return 0; fi
  if ! command -v gcsfuse >/dev/null; then
    # Follows https://cloud.google.com/storage/docs/cloud-storage-fuse/install.
    # shellcheck source=/dev/null
    release=gcsfuse-$(source /etc/os-release && printf '%s' "$VERSION_CODENAME")
    run sudo curl --silent --show-error --fail --output /usr/share/keyrings/cloud.google.asc \
      https://packages.cloud.google.com/apt/doc/apt-key.gpg
    run sudo bash -c "echo 'deb [signed-by=/usr/share/keyrings/cloud.google.asc] \
https://packages.cloud.google.com/apt $release main' > /etc/apt/sources.list.d/gcsfuse.list"
    # A fresh machine updates itself and holds apt's lock for some minutes.
    run sudo apt-get -o DPkg::Lock::Timeout=600 update --quiet
    run sudo env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600 install --quiet --yes fuse gcsfuse
  fi
  run sudo install --directory --owner="$(id -un)" "$place"
  # On machine types with TPUs, gcsfuse keeps sizes and times of files for ever, so that hosts do not see each other's.
  run gcsfuse --implicit-dirs --metadata-cache-ttl-secs=0 "$1" "$place"
}

install_package() {
  local venv=$base/venv what=. python
  local -a packages
  cd "$here/.."
  # shellcheck source=launch/venv.sh
  source launch/venv.sh
  if [[ -n $flag_extras ]]; then what=".[$flag_extras]"; fi
  packages=(-e "$what")
  if [[ -n $flag_jax && $flag_jax != none ]]; then packages+=("jax[$flag_jax]"); fi
  if [[ -n $flag_bucket ]]; then mount_bucket "$flag_bucket"; fi
  if [[ -n $flag_dry_run ]]; then
    say "makes $venv, unless it is there"
    run "$venv/bin/python" -m pip install "${packages[@]}"
    return 0
  fi
  mkdir -p "$base"
  if ! "$venv/bin/python" -c 'import pip' 2>/dev/null; then
    python=$(python_for_venv)
    PYTHON=$python make_venv "$venv"
  fi
  if ! installed "$venv" "host-$flag_extras-$flag_jax"; then
    pip_install "$venv" "${packages[@]}"
    install_encoder "$venv"
    mark_installed "$venv" "host-$flag_extras-$flag_jax"
  fi
  "$venv/bin/xlmr-flax" --version
}

# Checks the arguments as well: after a restart of the machine, another process may have this pid.
running() {
  [[ -f $state/pid && $(ps -o args= -p "$(cat "$state/pid")" 2>/dev/null) == *supervise* ]]
}

# Runs the command and writes its exit code. Survives the end of the connection. Forwards the first SIGTERM alone, since a
# second one ends xlmr-flax before it has saved. One that comes before the command starts ends this with 143.
supervise() {
  local child='' stopped=''
  trap 'if [[ -z $stopped ]]; then stopped=1; tell "$child"; fi' TERM
  fetch_tokens &
  child=$!
  await "$child"
  awaited=143
  if [[ -z $stopped ]]; then
    child=
    "$@" &
    child=$!
    if [[ -n $stopped ]]; then tell "$child"; fi # it came after the check above
    if [[ -n ${token_store:-} ]]; then store_tokens_while "$child" & fi
    await "$child"
    child=
    store_tokens
  fi
  printf '%s' "$awaited" > "$state/exit.part"
  mv "$state/exit.part" "$state/exit"
}

# tell PID: sends SIGTERM, if there is a PID.
tell() {
  if [[ -n $1 ]]; then kill -TERM "$1" 2>/dev/null || true; fi
}

# mounted_bucket COMMAND...: prints where the bucket of the workdir is mounted, nothing if it is not.
mounted_bucket() {
  local word place
  for word in "$@"; do
    case $word in
      --workdir=/mnt/*/*)
        place=${word#--workdir=/mnt/}
        place=/mnt/${place%%/*}
        if mountpoint --quiet "$place" 2>/dev/null; then printf '%s' "$place"; fi
        ;;
    esac
  done
}

start() {
  local words
  words=$(quote "$@")
  if running; then
    if [[ $(cat "$state/command") != "$words" ]]; then
      note "error: $flag_name runs another command: $(cat "$state/command")"
      note "stop it first: bash launch/on_host.sh stop --name=$flag_name"
      exit 15
    fi
    note "joining $flag_name, which runs already"
    return 0
  fi
  mkdir -p "$state"
  rm -f "$state/exit"
  printf '%s' "$words" > "$state/command"
  : > "$state/log"
  keep_caches "$(mounted_bucket "$@")"
  export -f supervise tell await fetch_tokens store_tokens store_tokens_while copy_entries
  export state
  cd "$here/.."
  # A separate session, so that the end of the connection does not stop it.
  PATH="$base/venv/bin:$PATH" setsid nohup bash -c 'supervise "$@"' supervise "$@" </dev/null >>"$state/log" 2>&1 &
  printf '%s' "$!" > "$state/pid"
}

# Shows the log until the command ends; returns the command's exit code (see --help).
follow() {
  local status
  if [[ ! -f $state/log ]]; then fail "--name=$flag_name: nothing was started under this name"; fi
  tail -n "${1:-50}" --follow --sleep-interval=0.2 --pid="$(cat "$state/pid")" "$state/log" 2>/dev/null || true
  if [[ ! -f $state/exit ]]; then
    note "error: $flag_name was killed without leaving an exit code"
    return 137
  fi
  status=$(cat "$state/exit")
  note "$flag_name on $(uname -n): exit code $status"
  case $status in 1 | 2) return $((status + 10)) ;; esac
  return "$status"
}

any_alive() {
  for state in "$base"/state/*; do
    if running; then return 0; fi
  done
  return 1
}

show_status() {
  if running; then
    echo "$flag_name on $(uname -n): runs: $(cat "$state/command")"
  elif [[ -f $state/exit ]]; then
    echo "$flag_name on $(uname -n): ended with exit code $(cat "$state/exit")"
  else
    echo "$flag_name on $(uname -n): never started, or killed"
  fi
}

stop() {
  local waited=0
  if running; then tell "$(cat "$state/pid")"; fi
  while running && ((waited < flag_wait * 2)); do
    sleep 0.5
    waited=$((waited + 1))
  done
  show_status
  if running; then return 14; fi
}

command=${1:-}
case $command in
  install | run | follow | status | stop | alive) shift ;;
  --help | -h) usage && exit 0 ;;
  *) fail "'$command': the commands are install, run, follow, status, stop, alive; see --help" ;;
esac
parse_flags "$@"
require_number wait
check_name
state=$base/state/$flag_name
case $command in
  install)
    # Not `(...) || exit`: the subshell would then not stop at the first command that fails.
    set +e
    (set -e && install_package)
    status=$?
    set -e
    if ((status)); then
      note "error: the installation on $(uname -n) failed; what pip said is above"
      exit 13
    fi
    ;;
  run)
    if ((!${#rest[@]})); then fail 'run needs a command after --'; fi
    if [[ -n $flag_dry_run ]]; then
      run "${rest[@]}"
    else
      fresh=+1
      if running; then fresh=50; fi
      start "${rest[@]}"
      if [[ -z $flag_detach ]]; then follow "$fresh"; fi
    fi
    ;;
  follow) follow ;;
  status) show_status ;;
  alive) any_alive ;;
  stop) if [[ -n $flag_dry_run ]]; then say 'sends SIGTERM to the command'; else stop; fi ;;
esac
