# shellcheck shell=bash
# Flags, quoting and --dry_run for the scripts of this folder. Source it. Works with bash 3.2, which macOS still
# ships.
#
#   define_flag zone '' 'zone of the TPU'      --zone=Z or --zone Z; its value is then $flag_zone
#   define_switch spot 'may be preempted'      --spot, --nospot; $flag_spot is 1 or empty
#   parse_flags "$@"                           fills the variables; what follows -- is in the array `rest`
#   require_flags zone                         an error that names the flag, unless it has a value
#   run COMMAND...                             shows the command, and runs it unless --dry_run was given

flag_names=''
switch_names=''
rest=()

# fail MESSAGE: reports a usage error and exits before anything was done.
fail() {
  printf 'error: %s\n' "$1" >&2
  exit 2
}

# note MESSAGE: prints progress to stderr; stdout has the commands that --dry_run prints, and remarks after #.
note() {
  printf '%s\n' "$1" >&2
}

define_flag() {
  flag_names="$flag_names $1"
  printf -v "flag_$1" '%s' "$2"
  printf -v "default_$1" '%s' "$2"
  printf -v "help_$1" '%s' "$3"
}

define_switch() {
  define_flag "$1" '' "$2"
  switch_names="$switch_names $1"
}

is_switch() {
  case " $switch_names " in *" $1 "*) return 0 ;; esac
  return 1
}

is_flag() {
  case " $flag_names " in *" $1 "*) return 0 ;; esac
  return 1
}

# quote ARGUMENTS...: prints one line that a shell parses into exactly these words.
quote() {
  local word line='' escaped="'\\''"
  for word in "$@"; do
    if [[ -z $word || $word =~ [^A-Za-z0-9_@%+=:,./-] ]]; then
      word="'${word//\'/$escaped}'"
    fi
    line="$line${line:+ }$word"
  done
  printf '%s' "$line"
}

# closest WORD CANDIDATES...: prints the candidate with the smallest edit distance, if it is close enough for a suggestion.
closest() {
  printf '%s\n' "$@" | awk '
    function least(a, b) { return a < b ? a : b }
    NR == 1 { word = $0; length_of_word = length(word); next }
    {
      for (j = 0; j <= length($0); j++) row[j] = j
      for (i = 1; i <= length_of_word; i++) {
        corner = row[0]; row[0] = i
        for (j = 1; j <= length($0); j++) {
          above = row[j]
          same = substr(word, i, 1) == substr($0, j, 1)
          row[j] = least(least(above, row[j - 1]) + 1, corner + !same)
          corner = above
        }
      }
      if (found == "" || row[length($0)] < distance) { distance = row[length($0)]; found = $0 }
    }
    END { if (found != "" && distance <= least(3, length_of_word / 2)) print found }'
}

unknown_flag() {
  local near
  # shellcheck disable=SC2086  # a list of words
  near=$(closest "$1" $flag_names help)
  if [[ -n $near ]]; then fail "unknown flag --$1; the closest is --$near"; fi
  # shellcheck disable=SC2086
  fail "unknown flag --$1; the flags are$(printf ' --%s' $flag_names help)"
}

# usage: prints the help: the script's text (its function `about`), then the flags.
usage() {
  local name value
  about
  printf '\nflags:\n'
  for name in ${flag_names# dry_run} dry_run; do
    value="help_$name"
    printf '  --%-22s %s' "$name$(is_switch "$name" || printf '=...')" "${!value}"
    value="default_$name"
    if [[ -n ${!value} ]]; then printf ' (default: %s)' "${!value}"; fi
    printf '\n'
  done
  printf '  --%-22s %s\n' help 'this text'
}

# parse_flags ARGUMENTS...; every script has --dry_run and --help.
parse_flags() {
  local name
  while (($#)); do
    case $1 in
      --help | -h) usage && exit 0 ;;
      --) shift && rest=("$@") && return 0 ;;
      --?*) name=${1#--} name=${name%%=*} ;;
      *) fail "unexpected argument '$1'; flags are written --name=value, and what follows -- goes to xlmr-flax run" ;;
    esac
    if [[ $name == config.* ]]; then
      fail "--$name belongs to xlmr-flax run: write it after --"
    elif is_flag "$name"; then
      set_flag "$@"
      shift "$words_taken"
    elif is_switch "${name#no}" && [[ $1 != *=* ]]; then
      printf -v "flag_${name#no}" '%s' ''
      shift
    else
      unknown_flag "$name"
    fi
  done
}

# set_flag --NAME[=VALUE] [VALUE]: sets a flag; $words_taken is the number of words used.
words_taken=1
set_flag() {
  local name=${1#--} value
  words_taken=1
  if is_switch "${name%%=*}"; then
    value=1
    if [[ $name == *=* ]]; then
      case ${name#*=} in
        1 | true) ;;
        0 | false) value='' ;;
        *) fail "$1: a switch is true or false" ;;
      esac
    fi
  elif [[ $name == *=* ]]; then
    value=${name#*=}
  elif (($# > 1)); then
    value=$2 words_taken=2
  else
    fail "--$name needs a value"
  fi
  printf -v "flag_${name%%=*}" '%s' "$value"
}

require_flags() {
  local name variable help
  for name in "$@"; do
    variable="flag_$name" help="help_$name"
    if [[ -z ${!variable} ]]; then fail "--$name is required: ${!help}"; fi
  done
}

require_number() {
  local name variable
  for name in "$@"; do
    variable="flag_$name"
    if [[ ! ${!variable} =~ ^[0-9]+$ ]]; then fail "--$name=${!variable}: not a whole number"; fi
  done
}

# Checks a name, because it becomes part of paths and commands on the hosts.
check_name() {
  # shellcheck disable=SC2154  # the script defines the flag
  if [[ ! $flag_name =~ ^[a-z]([-a-z0-9]*[a-z0-9])?$ ]]; then
    fail "--name=$flag_name: small letters, digits and -, a letter first"
  fi
}

# run COMMAND...: prints the command; runs it unless this is a dry run.
run() {
  if [[ -n ${flag_dry_run:-} ]]; then
    printf '%s\n' "$(quote "$@")"
  else
    note "+ $(quote "$@")"
    "$@"
  fi
}

# say TEXT: prints a remark between the commands of a dry run.
say() {
  if [[ -n ${flag_dry_run:-} ]]; then printf '# %s\n' "$1"; fi
}

# await PID: waits for a child, also if this shell receives signals meanwhile; $awaited is the child's exit code.
awaited=0
# shellcheck disable=SC2034  # the callers read $awaited
await() {
  local again=0
  while true; do
    awaited=0
    wait "$1" || awaited=$?
    if ! kill -0 "$1" 2>/dev/null; then break; fi
  done
  # A signal at the very end can hide the exit code. 127: the shell has already reported it above and forgotten it.
  wait "$1" 2>/dev/null || again=$?
  if ((again != 127)); then awaited=$again; fi
}

define_switch dry_run 'print the exact commands, and run none of them'
