#!/usr/bin/env bash
# Looks for input that breaks a fuzz test, a short while for each: `make test` runs
# them with the inputs that are known only.
#
# usage: fuzz.sh TIME [PATTERN]    TIME for each, such as 5s; PATTERN: a regular expression that the test's name matches
# exit:  0 nothing was found; 1 something was, and is written below a package's testdata, or no test has such a name
set -euo pipefail
cd "$(dirname "$0")/.."

# Go before 1.27 fails a run that has found nothing when its time is over at an unlucky moment (https://go.dev/issue/75804). It says no more
# than this then; whatever is found is followed by what was found.
is_out_of_time() {
  [[ $(sed -n '/^--- FAIL: /,$p' "$1" | sed -n 2,3p) == $'    context deadline exceeded\nFAIL' ]]
}

time=$1 pattern=${2:-.}
ran=0 failed=0
while read -r dir; do
  while read -r test; do
    [[ $test =~ $pattern ]] || continue
    ran=$((ran + 1))
    # Making a finding small may take longer than finding it.
    found=''
    go test -run '^$' -fuzz "^$test\$" -fuzztime "$time" -fuzzminimizetime 1s "$dir" >.cache/fuzz.txt 2>&1 ||
      is_out_of_time .cache/fuzz.txt || found=1
    printf '%-50s %s\n' "$test" "$(grep -o 'execs: [0-9]*' .cache/fuzz.txt | tail -1)${found:+  FAILED}"
    if [[ $found ]]; then
      failed=1
      cat .cache/fuzz.txt >&2
    fi
  done < <(grep -hoE '^func Fuzz[A-Za-z0-9_]+' "$dir"/*_test.go 2>/dev/null | cut -d' ' -f2)
done < <(go list -f '{{.Dir}}' ./...)

if ((ran == 0)); then
  echo "fuzz: no fuzz test has a name that matches $pattern." >&2
  exit 1
fi
exit "$failed"
