#!/usr/bin/env bash
# Run the tests of a package with every Python that is on this machine, with and without its extras, each in a fresh venv:
# the script that python_matrix.yaml replaces. Usage: python_matrix.sh ROOT OUT [PYTHONS [EXTRAS]]
set -euo pipefail

root=$(realpath "${1:?the folder of the package}")
out=$(realpath -m "${2:?the report}")
read -r -a pythons <<< "${3:-3.11 3.12 3.13 3.14}"
read -r -a extras <<< "${4:-none translit}"
mkdir -p "$(dirname "$out")"

exec 9> "$out.lock"
if ! flock --nonblock 9; then
  echo "already running" >&2
  exit 75
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 143' TERM
trap 'exit 130' INT

log() {
  echo "$(date -u +%FT%TZ) $*" >&2
}

works() {
  "$1" -c 'import platform, venv; print(platform.python_version())' 2> /dev/null
}

# A shim of pyenv is on the path even where its Python is not chosen.
find_python() {
  local candidate version
  while IFS= read -r candidate; do
    if [ -x "$candidate" ] && version=$(works "$candidate"); then
      printf '%s\n' "$candidate" > "$work/$1.path"
      printf '%s\n' "$version" > "$work/$1.version"
      return
    fi
  done < <(command -v "python$1" || true; printf '%s\n' "${PYENV_ROOT:-$HOME/.pyenv}/versions/$1".*/bin/python | sort -r)
  log "python $1 is not here: skipped"
}

test_one() {
  local python=$1 extra=$2
  local name=$python-$extra
  local venv=$work/venv/$name
  local started=$SECONDS
  export PYTHONPATH=.:extras/$extra PYTHONDONTWRITEBYTECODE=1
  cd "$root"
  log "$name: started"
  if timeout --kill-after=10 600 bash -euc '
      "$1" -m venv --clear --without-pip "$2"
      "$2/bin/python" -W error -m unittest discover
    ' bash "$(< "$work/$python.path")" "$venv" > "$work/$name.log" 2>&1 9>&-; then
    touch "$work/$name.passed"
    log "$name: passed after $((SECONDS - started)) s"
  else
    log "$name: failed with exit code $? after $((SECONDS - started)) s"
    sed "s/^/$name | /" "$work/$name.log" >&2
    return 1
  fi
}

report() {
  local python extra cells
  printf '| Python |'
  printf ' %s |' "${extras[@]}"
  printf '\n| --- |'
  printf ' --- |%.0s' "${extras[@]}"
  printf '\n'
  for python in "${pythons[@]}"; do
    cells=''
    for extra in "${extras[@]}"; do
      if [ ! -e "$work/$python.path" ]; then
        cells+=' – |'
      elif [ -e "$work/$python-$extra.passed" ]; then
        cells+=' passed |'
      else
        cells+=' FAILED |'
      fi
    done
    if [ -e "$work/$python.version" ]; then
      printf '| %s |%s\n' "$(< "$work/$python.version")" "$cells"
    else
      printf '| %s is not here |%s\n' "$python" "$cells"
    fi
  done
}

export -f log test_one
export work root
for python in "${pythons[@]}"; do
  find_python "$python"
done

status=0
for python in "${pythons[@]}"; do
  if [ -e "$work/$python.path" ]; then
    for extra in "${extras[@]}"; do
      printf '%s\0%s\0' "$python" "$extra"
    done
  fi
done | xargs --null --no-run-if-empty --max-args=2 --max-procs="$(nproc)" \
  bash -euo pipefail -c 'test_one "$1" "$2"' bash || status=1

report > "$out.new"
mv "$out.new" "$out"
cat "$out"
exit "$status"
