#!/usr/bin/env bash
# shellcheck disable=SC2154  # parse_flags of lib.sh assigns flag_NAME
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=launch/lib.sh
source launch/lib.sh
# shellcheck source=launch/tpu.sh
source launch/tpu.sh

about() {
  cat <<'TEXT'
usage: bash launch/queued_resource.sh --project=P --zone=Z --name=N --type=T --config=F --workdir=W [flags]
                                      [-- FLAGS OF THE RUN]

Asks for a Spot TPU as a queued resource, waits until it is there, installs this package, starts `xlmr-flax run` on all
hosts, and begins again whenever the TPU is taken away or there is no capacity, until the run is done. What was trained
is not lost: the run goes on from the last state in its workdir, which therefore must outlive the TPU (/mnt/BUCKET/...).

Keep this script alive on a machine that stays on. Started again, it joins what is there. Ends with
  0    the run is done, and the TPU deleted (--keep: not)
  1, 2 a real error of the run or of gcloud; the message is above; the TPU is deleted, too (--keep: not)
  13   the installation on the hosts fails
  143  --max_attempts requests were made; the same command goes on
  130  interrupted; the request and the TPU stay; the same command goes on
Where gcloud does not answer or cannot delete the TPU, it may still exist and cost money. Where a run with other flags is
alive on the TPU, the TPU stays, and the exit code is 2. In both cases the last lines say how to delete it.
TEXT
}

define_place_flags
define_tpu_flags
define_slices_flag
define_run_flags
define_source_flags
define_switch spot 'a Spot TPU (--nospot: one that is not taken away, where the quota allows)'
flag_spot=1
define_flag valid_until '' 'give a request up after this time in the queue, and make a new one, for instance 6h'
define_flag max_attempts 50 'how many requests to make before giving up'
define_flag poll 60 'seconds between two looks at the state'
define_flag backoff 60 'seconds before a new request; doubled each time until a TPU came'
define_flag max_backoff 1800 'the longest such wait, in seconds'
define_flag settle 60 'seconds before asking for the state after a run has failed: a lost TPU is not reported at once'
define_switch keep 'do not delete the TPU at the end'
parse_flags "$@"
require_flags project zone name type config workdir
require_number max_attempts poll backoff max_backoff settle
check_tpu_flags
check_slices
check_config
if [[ -n $flag_keep ]]; then check_workdir ''; else check_workdir 1; fi
check_data_root

# Number of failures in a row after which the script gives up.
TRIES=3
# A run that lasted this many seconds counts as working and resets the number of failures.
LONG=600
attempts=0
refusals=0
joins=0
unreachable=0
undeleted=0
unknown=0
pause=$flag_backoff

# Whether gcloud's last error says that the resource does not exist.
is_absent() {
  grep --quiet --ignore-case -e NOT_FOUND -e 'not found' "$messages"
}

# ask KIND FORMAT [NAME]: prints a field of the queued resource or of a node; ABSENT if it does not exist, UNKNOWN if
# gcloud failed.
ask() {
  local answer
  local -a words
  tpu_command "$1" describe "${3:-$flag_name}" "--format=value($2)"
  if answer=$("${words[@]}" 2>"$messages"); then
    printf '%s' "$answer"
  elif is_absent; then
    printf ABSENT
  else
    cat "$messages" >&2
    printf UNKNOWN
  fi
}

# Prints the state of the TPU. Of several slices: READY if all are, else that of the first one that is not.
node_state() {
  local number state
  if ! is_multislice; then
    ask tpu-vm state
    return
  fi
  for ((number = 0; number < flag_node_count; number++)); do
    state=$(ask tpu-vm state "$flag_name-$number")
    if [[ $state != READY ]]; then break; fi
  done
  printf '%s' "$state"
}

# Sets the array `words` to the command that requests the TPU.
request_command() {
  local -a machine
  machine_flags queued-resources
  if [[ -n $flag_valid_until ]]; then machine+=("--valid-until-duration=$flag_valid_until"); fi
  if is_multislice; then
    tpu_command queued-resources create "$flag_name" "--node-count=$flag_node_count" "--node-prefix=$flag_name"
  else
    tpu_command queued-resources create "$flag_name" "--node-id=$flag_name"
  fi
  words+=("${machine[@]}" --quiet)
}

# --force also deletes the TPU of the request. Suspended and failed requests count against the quota until deleted.
delete() {
  local -a words
  tpu_command queued-resources delete "$flag_name" --force
  words+=(--quiet)
  if [[ -n $flag_dry_run ]]; then run "${words[@]}" && return; fi
  note "+ $(quote "${words[@]}")"
  "${words[@]}" 2>"$messages" || is_absent || { cat "$messages" >&2 && return 1; }
}

# refused TEXT: whether the error is permanent, so that waiting does not help. A quota error is retried a few times: a TPU
# that is being deleted still counts against the quota.
refused() {
  if grep --quiet --ignore-case quota <<<"$1"; then
    refusals=$((refusals + 1))
    ((refusals >= TRIES))
    return
  fi
  grep --quiet --ignore-case -e permission -e INVALID -e 'not enabled' -e billing -e UNIMPLEMENTED <<<"$1"
}

# remains TEXT: says that there may be a TPU at the end of the script, and how to delete it.
remains() {
  note "$flag_name: $1; to delete it:"
  note "  gcloud compute tpus queued-resources delete $(quote "$flag_name" "--project=$flag_project" "--zone=$flag_zone") --force"
}

# finish CODE MESSAGE: ends the script.
finish() {
  note "$flag_name: $2"
  if [[ -n $flag_keep ]]; then
    remains 'the TPU is kept and costs money'
  else
    delete || remains 'error: it cannot be deleted (see above); a TPU may still exist and cost money'
  fi
  exit "$1"
}

# lose REASON: call it if the TPU is gone or was never created. Deletes the request and waits; the loop then makes a new
# request.
lose() {
  note "$flag_name: $1"
  if delete; then
    undeleted=0
  else
    undeleted=$((undeleted + 1))
    if ((undeleted >= TRIES)); then
      remains 'error: it cannot be deleted (see above), so no new one can be asked for; a TPU may still exist and cost money'
      exit 1
    fi
  fi
  if ((attempts >= flag_max_attempts)); then
    note "$flag_name: $attempts requests were made, which is --max_attempts; started again, the run goes on"
    if ((undeleted)); then remains 'it was not deleted (see above); a TPU may still exist and cost money'; fi
    exit 143
  fi
  joins=0
  note "$flag_name: going on in $pause s"
  sleep "$pause"
  pause=$((pause * 2 < flag_max_backoff ? pause * 2 : flag_max_backoff))
}

request() {
  local error
  local -a words
  attempts=$((attempts + 1))
  note "$flag_name: request $attempts of at most $flag_max_attempts"
  request_command
  note "+ $(quote "${words[@]}")"
  if "${words[@]}" 2>"$messages"; then return 0; fi
  error=$(cat "$messages")
  note "$error"
  if grep --quiet -e ALREADY_EXISTS -e 'already exists' <<<"$error"; then return 0; fi
  if refused "$error"; then
    note "error: $flag_name: the request is refused, and waiting does not fix that (see above)"
    exit 1
  fi
  lose 'no capacity, or the service failed'
}

# Installs the package and runs the command on an existing TPU, and decides what to do when it ends.
train() {
  local status=0 queue node started=$SECONDS
  pause=$flag_backoff
  refusals=0
  install_on_hosts || status=$?
  if ((!status)); then train_on_hosts '' || status=$?; fi
  note "$flag_name: $(explain "$status")"
  if ((status == 15)); then
    remains 'the TPU stays and costs money'
    exit 2
  fi
  if ((!status)); then finish 0 'the run is done'; fi
  if ((SECONDS - started > LONG)); then joins=0 unreachable=0; fi
  sleep "$flag_settle"
  queue=$(ask queued-resources state.state)
  node=$(node_state)
  if [[ $queue == UNKNOWN || $node == UNKNOWN ]]; then return 0; fi
  if [[ $queue != ACTIVE || $node != READY ]]; then
    unreachable=0
    lose "preempted (request $queue, TPU $node)"
    return 0
  fi
  joins=$((joins + 1))
  case $status in
    143 | 13) if ((joins >= TRIES)); then finish "$status" "$joins times in a row, on a TPU that is well"; fi ;;
    1 | 255)
      if ((joins < TRIES)); then return 0; fi
      unreachable=$((unreachable + 1))
      if ((unreachable >= 2)); then finish 1 'two TPUs could not be reached: ssh keys? the firewall?'; fi
      lose "not reached $joins times in a row"
      ;;
    *) finish "$(plain_code "$status")" 'an error of the run, on a TPU that is well: not started again' ;;
  esac
}

active() {
  local node
  node=$(node_state)
  case $node in
    READY) train ;;
    CREATING | STARTING | RESTARTING | REPAIRING | UNKNOWN) sleep "$flag_poll" ;;
    *) lose "preempted (TPU $node)" ;;
  esac
}

failed() {
  local reason
  reason=$(ask queued-resources state.failedData.error.message)
  if refused "$reason"; then finish 1 "the request failed: $reason"; fi
  lose "the request failed: $reason"
}

# Checks the state once and acts on it.
step() {
  local state
  state=$(ask queued-resources state.state)
  if [[ $state != UNKNOWN ]]; then unknown=0; fi
  case $state in
    ABSENT) request ;;
    ACTIVE) active ;;
    FAILED) failed ;;
    SUSPENDED) lose 'preempted (request SUSPENDED)' ;;
    UNKNOWN)
      unknown=$((unknown + 1))
      if ((unknown >= 10 * TRIES)) || refused "$(cat "$messages")"; then
        remains 'error: gcloud does not say how it is (see above); a TPU may still exist and cost money'
        exit 1
      fi
      sleep "$flag_poll"
      ;;
    *)
      note "$(date '+%H:%M:%S') $flag_name: $state"
      sleep "$flag_poll"
      ;;
  esac
}

if [[ -n $flag_dry_run ]]; then
  dry_run_header
  say 'until the run is done:'
  request_command
  run "${words[@]}"
  tpu_command queued-resources describe "$flag_name" '--format=value(state.state)'
  say "every $flag_poll s, until it says ACTIVE:"
  run "${words[@]}"
  install_on_hosts
  train_on_hosts ''
  say 'after SUSPENDED, FAILED or a lost TPU, and at the end:'
  delete
  exit 0
fi
require_gcloud
messages=$(mktemp)
trap 'rm -f "$messages"' EXIT
trap 'remains "the request, and a TPU that came, stay and cost money; the same command goes on"; exit 130' INT TERM HUP
while true; do step; done
