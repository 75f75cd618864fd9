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
usage: bash launch/tpu_vm.sh --project=P --zone=Z --name=N --type=T --config=F --workdir=W [flags] [-- FLAGS OF THE RUN]

One TPU, now: creates it unless it is there, installs this package on its hosts, starts `xlmr-flax run` on all of them,
shows the log, and with --delete deletes the TPU when the run has ended, however it ended (a TPU on which a run with other
flags is alive stays). Where there is no capacity, it stops: launch/queued_resource.sh waits and starts again instead.

The run outlives this script: after Ctrl-C or a lost connection, the same command joins it, and
launch/run_all_hosts.sh --stop ends it. Exit code: xlmr-flax's (0 done, 143 stopped and saved).
TEXT
}

define_place_flags
define_tpu_flags
define_run_flags
define_source_flags
define_switch spot 'a Spot VM: cheaper, may be taken away at any time'
define_switch install 'install on the hosts (--noinstall: they have it from before)'
flag_install=1
define_switch detach 'start the run and return; launch/run_all_hosts.sh --follow shows the log'
define_switch delete 'delete the TPU when the run has ended'
parse_flags "$@"
require_flags project zone name type config workdir
check_tpu_flags
check_config
if [[ -n $flag_detach && -n $flag_delete ]]; then fail '--delete and --detach: nobody would be there to delete it'; fi
check_workdir "$flag_delete"
check_data_root

tpu_exists() {
  local state
  local -a words
  tpu_command tpu-vm describe "$flag_name" '--format=value(state)'
  if [[ -n $flag_dry_run ]]; then
    run "${words[@]}"
    say 'only if there is none:'
    return 1
  fi
  state=$("${words[@]}" 2>/dev/null) || return 1
  case $state in
    PREEMPTED | TERMINATED | STOPPED | STOPPING | DELETING)
      fail "the TPU $flag_name is $state; delete it first (gcloud compute tpus tpu-vm delete)"
      ;;
  esac
  note "using the TPU $flag_name, which is there ($state)"
}

create() {
  local -a words machine
  machine_flags tpu-vm
  tpu_command tpu-vm create "$flag_name"
  run "${words[@]}" "${machine[@]}" --quiet
}

delete() {
  local -a words
  tpu_command tpu-vm delete "$flag_name"
  run "${words[@]}" --quiet
}

if [[ -z $flag_dry_run ]]; then require_gcloud; fi
dry_run_header
if ! tpu_exists; then create; fi
say 'then, in any case:'
status=0
if [[ -n $flag_install ]]; then install_on_hosts || status=$?; fi
if ((!status)); then train_on_hosts "${flag_detach:+--detach}" || status=$?; fi
if [[ -n $flag_dry_run ]]; then
  if [[ -n $flag_delete ]]; then
    say 'when the run has ended:'
    delete
  fi
  exit 0
fi
if [[ -n $flag_detach && $status == 0 ]]; then
  note "$flag_name: started; launch/run_all_hosts.sh --follow shows the log"
else
  note "$flag_name: $(explain "$status")"
fi
if [[ -n $flag_delete ]] && ((status != 15)); then
  delete
else
  note "the TPU is still there and costs money; to delete it:"
  note "  gcloud compute tpus tpu-vm delete $(quote "$flag_name" "--project=$flag_project" "--zone=$flag_zone")"
fi
exit "$(plain_code "$status")"
