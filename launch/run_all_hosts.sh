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
usage: bash launch/run_all_hosts.sh --project=P --zone=Z --name=N --type=T --config=F --workdir=W [flags]
                                    [-- FLAGS OF THE RUN]
       bash launch/run_all_hosts.sh --project=P --zone=Z --name=N --follow | --status | --stop
       bash launch/run_all_hosts.sh --project=P --zone=Z --name=N --command='df -h'

Starts `xlmr-flax run` on all hosts of a TPU that is there and has the package (launch/tpu_vm.sh installs it), and shows
the log of all of them. A run of launch/tpu_vm.sh or launch/queued_resource.sh is joined if the flags are the same. It
outlives the connection. Its log on each host: xlmr-flax/state/NAME/log.

  --follow    joins a run          --status   says how it is          --stop   SIGTERM: it saves its state and ends
TEXT
}

define_place_flags
define_type_flag
define_slices_flag
define_run_flags
define_switch internal_ips 'connect to internal addresses, from a machine in the same network'
define_switch detach 'start the run and return'
define_switch follow 'show the log of the run until it ends'
define_switch status 'say whether the run is alive'
define_switch stop 'send SIGTERM to the run, and wait until it has saved'
define_flag command '' 'any other shell command'
parse_flags "$@"
require_flags project zone name
check_name
check_slices

wanted="${flag_follow:+ --follow}${flag_status:+ --status}${flag_stop:+ --stop}${flag_command:+ --command}"
case $wanted in
  '')
    require_flags type config workdir
    check_data_root
    train=(train_on_hosts "${flag_detach:+--detach}")
    ;;
  ' --follow' | ' --status' | ' --stop')
    train=(on_hosts "bash xlmr-flax/src/launch/on_host.sh ${wanted# --} --name=$(quote "$flag_name")")
    ;;
  ' --command') train=(on_hosts "$flag_command") ;;
  *) fail "only one of$wanted at a time" ;;
esac
if [[ -z $flag_dry_run ]]; then require_gcloud; fi
status=0
"${train[@]}" || status=$?
if [[ -n $flag_dry_run || -n $flag_command ]]; then exit "$status"; fi
if ((status)) || [[ $wanted == ' --follow' || -z $wanted$flag_detach ]]; then
  note "$flag_name: $(explain "$status")"
elif [[ -z $wanted ]]; then
  note "$flag_name: started; --follow shows the log"
fi # else the hosts have said how it is
exit "$(plain_code "$status")"
