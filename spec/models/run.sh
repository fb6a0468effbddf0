#!/bin/sh
# Checks the models with spin, and that each mutant of a model fails: run.sh DIRECTORY (for what is generated).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
cd "$1"

# check MODEL [MUTANT]: the number of errors
check() {
  spin ${2:+-D$2} -a "$here/$1.pml" >spin.out
  cc -O2 -DSAFETY -DVECTORSZ=2048 -w -o pan pan.c
  ./pan -m100000 >pan.out
  states=$(sed -n 's/^ *\([0-9.e+]*\) states, stored.*/\1/p' pan.out)
  errors=$(sed -n 's/.*errors: \([0-9]*\).*/\1/p' pan.out)
  echo "$1${2:+ with $2}: $states states, $errors errors"
  if grep -q 'max search depth too small' pan.out; then
    echo "$1: not searched to the end" >&2
    exit 1
  fi
}

for model in inbox pool sharedchannel; do
  [ -f "$here/$model.pml" ] || continue
  check "$model"
  [ "$errors" = 0 ] || { cat pan.out; exit 1; }
  for mutant in $(sed -n 's/^#ifn*def \(MUTANT_[A-Z_]*\).*/\1/p' "$here/$model.pml" | sort -u); do
    check "$model" "$mutant"
    [ "$errors" != 0 ] || { echo "$model: $mutant was not found" >&2; exit 1; }
  done
done
