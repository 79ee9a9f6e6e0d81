#!/bin/bash
# Usage: backup.sh ROOT TO. The script that backup.yaml stands in for. DAILY, WEEKLY and NOTIFY are taken from the environment.
set -euo pipefail
root=$(realpath "$1")
mkdir -p "$2/daily" "$2/weekly"
to=$(realpath "$2")
daily=${DAILY:-7}
weekly=${WEEKLY:-4}
read -ra notify <<<"${NOTIFY:-echo}"
state=${STATE:-$HOME/.local/state/backup}
day=$(date -u +%F)
file=$day.tar.gz
mkdir -p "$state"

log() { printf '%s %s\n' "$(date -u +%FT%TZ)" "$*" | tee -a "$state/log" >&2; }

ended() {
  local code=$?
  rm -rf "$to/new"
  if ((code)); then
    log "failed with $code"
    "${notify[@]}" "backup of $root failed; see $state/log" || log "could not notify"
  fi
}

exec 9>"$state/lock"
flock --nonblock 9 || { log "already running"; exit 75; }
trap ended EXIT
trap 'exit 143' TERM
trap 'exit 130' INT

# One at a time of all scripts of this machine that agree on this file.
export disk=${DISK:-/tmp/disk.$UID.lock}
on_disk() { flock "$disk" timeout --kill-after=10 2h "$@" 9>&-; }
export -f on_disk

archive() {
  on_disk tar --create --gzip --file="$to/new/$file" --exclude-tag-all=.nobackup --directory="$root" .
}

touch "$to/.nobackup"
for attempt in 1 2 3; do
  rm -rf "$to/new"
  mkdir "$to/new"
  log "archive: attempt $attempt"
  code=0
  archive || code=$?
  ((code == 1 && attempt < 3)) || break
  sleep "${DELAY:-30}"
done
((code == 0)) || exit "$code"
gzip --test "$to/new/$file"
(cd "$to/new" && sha256sum "$file" >"$file.sha256")

log "keep: $file"
mv "$to/new/$file" "$to/new/$file.sha256" "$to/daily"
if [[ -z $(find "$to/weekly" -name '*.gz' -newermt '156 hours ago') ]]; then
  ln -f "$to/daily/$file.sha256" "$to/daily/$file" "$to/weekly"
fi

check() { cd "$(dirname "$1")" && on_disk sha256sum --check --quiet "$1"; }
export -f check
log "check"
find "$to/daily" "$to/weekly" -name '*.sha256' -print0 | xargs -0 -r -n 1 -P "$(nproc)" bash -c 'check "$1"' check

rotate() {
  local folder=$1 keep=$2 old
  find "$folder" -name '*.gz' | sort -r | tail -n "+$((keep + 1))" | while read -r old; do
    log "rotate: $old"
    rm -- "$old" "$old.sha256"
  done
}
rotate "$to/daily" "$daily"
rotate "$to/weekly" "$weekly"
log "done"
