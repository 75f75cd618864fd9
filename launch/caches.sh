# shellcheck shell=bash
# Keeps what a run caches in the bucket, so that the machine after a preemption has it. on_host.sh sources it.
#
# Compiled programs are read and written there by JAX. Tokens are read through memory maps, for which a mounted bucket is
# too slow: they are copied to the local disk before the run, and new ones to the bucket while it runs.

# keep_caches PLACE: chooses the folders of a run whose bucket is mounted at PLACE ('' = none). Variables that are set stay.
keep_caches() {
  if [[ -z $1 ]]; then return 0; fi
  export JAX_COMPILATION_CACHE_DIR=${JAX_COMPILATION_CACHE_DIR:-$1/cache/jax}
  if [[ -n ${XLMR_CACHE:-} ]]; then return 0; fi
  export XLMR_CACHE=$HOME/.cache/xlmr_flax/tokens
  export token_store=$1/cache/tokens
}

# copy_entries FROM TO STAGED: copies the entries of a token cache (xlmr_flax/data/cache.py) that TO lacks. An entry is
# complete when it has index.json, which is written last. STAGED: 1 = copy to another name and rename, so that a run never
# finds a part; a bucket may not rename folders, and nothing reads entries there.
copy_entries() {
  local entry name target
  for entry in "$1"/*/; do
    name=${entry%/} name=${name##*/}
    if [[ ! -f $entry/index.json || -f $2/$name/index.json ]]; then continue; fi
    target=$2/${3:+.part-}$name
    mkdir -p "$target" || return
    cp "$entry"*.npy "$target/" || return
    cp "$entry/index.json" "$target/" || return
    if [[ -n $3 ]]; then mv "$target" "$2/$name" || return; fi
  done
}

fetch_tokens() {
  if [[ -n ${token_store:-} ]]; then copy_entries "$token_store" "$XLMR_CACHE" 1 || true; fi
}

store_tokens() {
  if [[ -n ${token_store:-} ]]; then copy_entries "$XLMR_CACHE" "$token_store" '' || true; fi
}

# store_tokens_while PID [SECONDS]: stores new entries every minute while a process lives; a Spot TPU goes without notice.
store_tokens_while() {
  while kill -0 "$1" 2>/dev/null; do
    sleep "${2:-60}"
    store_tokens
  done
}
