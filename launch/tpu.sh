# shellcheck shell=bash
# shellcheck disable=SC2154  # parse_flags of lib.sh assigns flag_NAME
# The gcloud commands that tpu_vm.sh, queued_resource.sh and run_all_hosts.sh share. Source it after lib.sh.
# The flags are those of https://cloud.google.com/sdk/gcloud/reference/compute/tpus.

define_place_flags() {
  define_flag project '' 'id of the Cloud project'
  define_flag zone '' 'zone of the TPU, for instance us-west4-a'
  define_flag name '' 'name of the TPU, chosen by you'
}

define_type_flag() {
  define_flag type '' 'accelerator type, for instance v5litepod-8'
}

define_tpu_flags() {
  define_type_flag
  define_flag version '' 'TPU software version; default: the one for the type'
  define_flag service_account '' "service account of the TPU's machines, NAME@PROJECT.iam.gserviceaccount.com"
  define_flag network '' "VPC network; default: the project's network named default"
  define_flag subnetwork '' 'VPC subnetwork'
  define_switch internal_ips 'machines without external addresses'
}

define_slices_flag() {
  define_flag node_count 1 'slices of this type for one run, joined by the data-centre network (Multislice)'
}

define_source_flags() {
  define_flag git '' 'URL to clone on the hosts; default: the last commit of this checkout is copied'
  define_flag ref main 'branch, tag or commit of --git'
  define_flag extras gcs 'extras of this package to install, separated by commas'
  define_flag bucket '' 'Cloud Storage bucket to mount on every host, at /mnt/BUCKET'
}

define_run_flags() {
  define_flag config '' 'config file of the run, in the checkout; FILE:ARGUMENT gives it an argument'
  define_flag workdir '' 'folder for all that the run writes; one that every host sees: /mnt/BUCKET/...'
  define_flag data_root '' 'folder of the data files, on every host; default: none, for configs that read no files'
  define_switch download "fetch the config's data into --data_root first, from worker 0"
  define_flag accept_licence '' 'datasets whose licence is accepted for --download, separated by commas, or all'
}

# Software versions for JAX, from https://cloud.google.com/tpu/docs/runtimes.
default_version() {
  case $1 in
    v6e-*) echo v2-alpha-tpuv6e ;;
    v5p-*) echo v2-alpha-tpuv5 ;;
    v5litepod-*) echo v2-alpha-tpuv5-lite ;;
    v2-* | v3-* | v4-*) echo tpu-ubuntu2204-base ;;
    *) fail "--type=$1: no software version is known for it; name one with --version (https://cloud.google.com/tpu/docs/runtimes)" ;;
  esac
}

check_tpu_flags() {
  if [[ -z $flag_version ]]; then flag_version=$(default_version "$flag_type") || exit 2; fi
  check_name
}

require_gcloud() {
  if ! command -v gcloud >/dev/null; then
    fail 'there is no gcloud on the PATH; install it (https://cloud.google.com/sdk/docs/install) and run: gcloud auth login'
  fi
}

# Checks that the hosts will find the config, before a TPU is paid for.
check_config() {
  local file=${flag_config%%:*}
  if [[ $flag_ref == -* ]]; then fail "--ref=$flag_ref: a branch, tag or commit does not begin with -"; fi
  if [[ -n $flag_git ]]; then return 0; fi
  if [[ ! -f $file ]]; then fail "--config=$flag_config: no file $file in the checkout"; fi
  if ! git rev-parse --verify --quiet HEAD >/dev/null; then
    fail 'this is no git checkout with a commit, so there is nothing to copy to the hosts: use --git=URL'
  fi
  if ! git cat-file -e "HEAD:./$file" 2>/dev/null; then
    fail "--config=$flag_config: $file is not in the last commit, which is what the hosts get: commit it"
  fi
  if [[ -n $(git status --porcelain --untracked-files=no) ]]; then
    note 'warning: the hosts get the last commit; your uncommitted changes stay here'
  fi
}

# Whether the TPU has several slices. A queued resource then has the nodes NAME-0, NAME-1, ...
is_multislice() {
  ((${flag_node_count:-1} > 1))
}

check_slices() {
  if [[ ! $flag_node_count =~ ^[1-9][0-9]{0,3}$ ]]; then fail "--node_count=$flag_node_count: not a number from 1 to 9999"; fi
  if is_multislice && [[ $flag_workdir == gs://* ]]; then
    fail "--workdir=$flag_workdir: only a run of one process can use it; use --bucket=B --workdir=/mnt/B/..."
  fi
}

# check_workdir DELETES: results must not exist only on a TPU that is deleted (DELETES: 1 if the script deletes it).
check_workdir() {
  local use='use --bucket=B --workdir=/mnt/B/... (or --workdir=gs://B/...)'
  case $flag_workdir in
    gs://?*) ;;
    /mnt/?*)
      if [[ -n $flag_bucket && $flag_workdir/ != "/mnt/$flag_bucket/"* ]]; then
        fail "--workdir=$flag_workdir: --bucket=$flag_bucket is mounted at /mnt/$flag_bucket, and the workdir is not in it"
      elif [[ -z $flag_bucket && -n $1 ]]; then
        note "warning: --workdir=$flag_workdir without --bucket: nothing is mounted there on a new TPU, and it is deleted at the end"
      fi
      ;;
    *)
      if [[ -n $1 ]]; then fail "--workdir=$flag_workdir: the only copy of the results would be deleted with the TPU; $use"; fi
      note "warning: --workdir=$flag_workdir: a local folder is lost with the TPU; $use"
      ;;
  esac
}

# Checks for a data root, because a run without data fails on a TPU that is paid for. A config with tasks of the embedded
# world (world_...) needs no data, and a config can set data_root itself.
check_data_root() {
  local word
  if [[ -n $flag_download && -z $flag_data_root ]]; then
    fail '--download needs --data_root: the folder to fetch into, one that every host sees (/mnt/BUCKET/data)'
  fi
  if [[ -n $flag_data_root ]] || grep --quiet --no-messages -e world_ -e data_root "${flag_config%%:*}"; then return 0; fi
  for word in ${rest[@]+"${rest[@]}"}; do
    case $word in --config.data_root | --config.data_root=?* | *world_*) return 0 ;; esac
  done
  note "warning: --config=$flag_config without --data_root: the hosts have no XLMR_DATA_ROOT, and a run that reads files fails there,"
  note '  when the TPU has been created and costs money (--data_root=/mnt/BUCKET/data; configs of world_ tasks need none)'
}

# dry_run_header: explains that the printed commands are no script: some depend on the output of earlier ones.
dry_run_header() {
  say 'to be read, or pasted one at a time; nothing was run'
}

# tpu_command NODE_OR_QUEUE VERB ARGUMENTS...: sets the array `words` to a gcloud command.
tpu_command() {
  words=(gcloud compute tpus "$1" "$2" "${@:3}" "--project=$flag_project" "--zone=$flag_zone")
}

# Sets the array `machine` to the flags that describe the machines to create.
machine_flags() {
  machine=("--accelerator-type=$flag_type")
  if [[ $1 == tpu-vm ]]; then machine+=("--version=$flag_version"); else machine+=("--runtime-version=$flag_version"); fi
  if [[ -n $flag_spot ]]; then machine+=(--spot); fi
  if [[ -n $flag_service_account ]]; then
    machine+=("--service-account=$flag_service_account" --scopes=https://www.googleapis.com/auth/cloud-platform)
  fi
  if [[ -n $flag_network ]]; then machine+=("--network=$flag_network"); fi
  if [[ -n $flag_subnetwork ]]; then machine+=("--subnetwork=$flag_subnetwork"); fi
  if [[ -n $flag_internal_ips ]]; then machine+=(--internal-ips); fi
}

# hosts_command VERB WHICH ARGUMENTS...: sets the array `words` to gcloud's ssh or scp. WHICH: all (hosts), or 0, the
# first host.
hosts_command() {
  if is_multislice; then
    tpu_command queued-resources "$1" "${@:3}" "--node=$2" "--worker=$2"
  else
    tpu_command tpu-vm "$1" "${@:3}" "--worker=$2"
  fi
  if [[ -n $flag_internal_ips ]]; then words+=(--internal-ip); fi
}

# on_hosts COMMAND: runs a command on all hosts at once. gcloud returns the first exit code that is not 0, in the order of
# the workers. If the connection drops, it reconnects and starts the command again (up to ten times).
on_hosts() {
  local -a words
  hosts_command ssh all "$flag_name"
  run "${words[@]}" "--command=$1" --quiet
}

# Installs the checkout in xlmr-flax/src on every host, and the environment in the same parent folder.
install_on_hosts() {
  local archive target=xlmr-flax/src fetch
  local -a install words
  install=(bash "$target/launch/on_host.sh" install "--extras=$flag_extras")
  if [[ -n $flag_bucket ]]; then install+=("--bucket=$flag_bucket"); fi
  if [[ -n $flag_git ]]; then
    fetch="git clone --quiet -- $(quote "$flag_git") $target && git -C $target checkout --quiet $(quote "$flag_ref")"
  else
    fetch="mkdir -p $target && tar -xzf xlmr-flax-src.tar.gz -C $target"
    archive=$(git rev-parse --git-path xlmr-flax-src.tar.gz)
    run git archive --format=tar.gz "--output=$archive" HEAD || return
    hosts_command scp all "$archive" "$flag_name:xlmr-flax-src.tar.gz"
    run "${words[@]}" --quiet || return
  fi
  # The files of a running process are not replaced: it may still import some of them.
  on_hosts "bash $target/launch/on_host.sh alive 2>/dev/null || { rm -rf $target && $fetch && $(quote "${install[@]}"); }"
}

# Whether a type has one host and several chips.
is_one_host() {
  case $1 in v5litepod-4 | v5litepod-8 | v6e-4 | v6e-8 | v4-8 | v5p-8) return 0 ;; esac
  return 1
}

# Sets the array `training` to the `xlmr-flax run` command. On one host, a plan of many runs does one a chip, also a --shard
# of it; -1 changes nothing where the plan is too small or the workdir is an address. Of several slices, the mesh is told:
# only the axis `data` may span them.
training_command() {
  training=(xlmr-flax run "--config=$flag_config" "--workdir=$flag_workdir")
  if is_multislice; then
    training+=(--config.mesh.slices=-1)
  elif is_one_host "$flag_type"; then
    training+=(--devices_a_run=-1)
  fi
  if [[ -n $flag_data_root ]]; then training+=("--config.data_root=$flag_data_root"); fi
  training+=(${rest[@]+"${rest[@]}"})
}

# With --download, one host downloads the data. Exit code 3 (files to be fetched by hand) is no error here: the run may not
# need these files, and reports an error if it does.
download_data() {
  local -a fetch words
  local word status=0
  if [[ -z $flag_download ]]; then return 0; fi
  fetch=(xlmr-flax download "--config=$flag_config" "--data_root=$flag_data_root")
  if [[ -n $flag_accept_licence ]]; then fetch+=("--accept_licence=$flag_accept_licence"); fi
  for word in ${rest[@]+"${rest[@]}"}; do
    case $word in --config.*=*) fetch+=("$word") ;; esac
  done
  fetch=(bash xlmr-flax/src/launch/on_host.sh run "--name=$flag_name-data" -- "${fetch[@]}")
  hosts_command ssh 0 "$flag_name"
  run "${words[@]}" "--command=$(quote "${fetch[@]}")" --quiet || status=$?
  if ((status == 3)); then
    note 'warning: some data must be got by hand, or have a licence that was not accepted (see above)'
    return 0
  fi
  return "$status"
}

# Starts the same command on all hosts; on_host.sh keeps it alive without the connection. DETACH: '' or --detach.
train_on_hosts() {
  local -a training
  download_data || return
  training_command
  on_hosts "$(quote bash xlmr-flax/src/launch/on_host.sh run "--name=$flag_name" ${1:+"$1"} -- "${training[@]}")"
}

# Maps an exit code of on_host.sh to that of xlmr-flax: 11 and 12 stand for 1 and 2. 15, a run with other flags, is 2, too.
plain_code() {
  case $1 in 11 | 12) echo $(($1 - 10)) ;; 15) echo 2 ;; *) echo "$1" ;; esac
}

# explain CODE: prints one sentence that explains the exit code of the command on the hosts.
explain() {
  case $1 in
    0) echo 'done' ;;
    143) echo 'stopped, its state saved: the same command goes on from there' ;;
    11 | 12) echo "xlmr-flax ended with exit code $(($1 - 10)); its message is above" ;;
    13) echo 'the installation failed; what pip said is above' ;;
    14) echo 'still alive on a host: it saves its state, or waits for others; a second --stop waits for it again' ;;
    15) echo 'another command runs there under this name (see above); it goes on' ;;
    137) echo 'killed on the host; out of memory, perhaps (host memory, not TPU memory)' ;;
    1 | 255) echo 'gcloud or ssh failed, or the connection was lost; the run may still be alive on the hosts' ;;
    *) echo "ended with exit code $1" ;;
  esac
}
