#!/bin/bash
# Usage: log_shipping.sh LOGS URL/. The script that log_shipping.yaml stands in for.
set -euo pipefail
export logs to state uplink delay
logs=$(realpath "$1")
to=$2
state=${STATE:-$HOME/.local/state/log_shipping}
uplink=${UPLINK:-/tmp/uplink.$UID}
delay=${DELAY:-5}
mkdir -p "$state/shipped" "$uplink"

log() { printf '%s %s\n' "$(date -u +%FT%TZ)" "$*" | tee -a "$state/log" >&2; }

# Run a command while holding one of two slots that all scripts of this machine share.
with_slot() {
  local slot code
  while true; do
    for slot in 1 2; do
      code=0
      flock --nonblock --conflict-exit-code 199 "$uplink/$slot" "$@" || code=$?
      ((code == 199)) || return "$code"
    done
    sleep 0.2
  done
}

send() {
  timeout --kill-after=10 10m curl --silent --show-error --fail --upload-file "$1" "$to"
}

ship() {
  local path=$1 name mark folder packed attempt code wait=$delay
  name=$(printf %s "${path#"$logs"/}" | tr / +)
  mark=$state/shipped/$(printf '%s\n%s' "$path" "$to" | sha256sum | cut -c1-64)
  if [[ -e $mark && $(<"$mark") == "$(sha256sum <"$path")" ]]; then
    return 0
  fi
  folder=$(mktemp -d)
  # shellcheck disable=SC2064  # this folder, not whatever is in the variable then
  trap "rm -rf '$folder'" EXIT
  packed=$folder/$name.gz
  for attempt in 1 2 3 4 5; do
    code=0
    gzip --stdout -- "$path" >"$packed" || return 1
    with_slot bash -c 'send "$1"' send "$packed" || code=$?
    case $code in
      0)
        sha256sum <"$path" >"$mark.new"
        mv "$mark.new" "$mark"
        log "$path: shipped"
        return 0
        ;;
      6 | 7 | 28 | 52 | 55 | 56 | 124) log "$path: attempt $attempt exited with $code" ;;
      *) break ;;
    esac
    sleep "$wait"
    wait=$((wait * 2))
  done
  log "$path: failed with $code"
  return 1
}
export -f log with_slot send ship

exec 9>"$state/lock"
flock --nonblock 9 || exit 0
find "$logs" -type f -name '*-20[0-9][0-9][0-9][0-9][0-9][0-9]' -print0 |
  xargs -0 -r -n 1 -P "$(nproc)" bash -c 'ship "$1"' ship 9>&-
