#!/usr/bin/env bash
# Checks what no compiler checks: that generated code, formatting and go.mod
# files are up to date, and that nothing was committed that should not be.
#
# Works on the tree as it is, committed or not. What the generators change is
# left in place, so that fixing means committing.
#
# exit: 0 all is well; 1 something is not, and stderr says what to do
set -uo pipefail
cd "$(dirname "$0")/.."

status=0
fail() {
  printf 'verify: %s\n' "$*" >&2
  status=1
}

# Every file git knows or would add, and its content's digest.
snapshot() {
  git ls-files --cached --others --exclude-standard -z |
    while IFS= read -r -d '' file; do
      [[ -f $file ]] && sha256sum -- "$file"
    done
}

if ! git rev-parse --is-inside-work-tree >/dev/null; then
  fail 'needs a git work tree to know which files are ours.'
  exit 1
fi

echo 'verify: go generate'
before=$(snapshot)
if ! make --no-print-directory generate; then
  fail 'make generate failed.'
fi
if ! difference=$(diff <(printf '%s\n' "$before") <(snapshot)); then
  printf '%s\n' "$difference" | awk '/^[<>]/ { print $3 }' | sort -u >&2
  fail 'make generate changed the files above: they were out of date. Commit them.'
fi

echo 'verify: formatting'
if ! go tool -modfile=tools/go.mod golangci-lint fmt --diff ./... ||
  ! (cd bench && go tool -modfile=../tools/go.mod golangci-lint fmt --diff ./...); then
  fail 'formatting differs as shown: run make fmt.'
fi

echo 'verify: go mod tidy'
while IFS= read -r -d '' mod; do
  folder=$(dirname "$mod")
  if ! (cd "$folder" && go mod tidy -diff); then
    fail "$mod is not tidy: run 'go mod tidy' beside it."
  fi
done < <(git ls-files --cached --others --exclude-standard -z -- go.mod '*/go.mod')

# Text files only (-I), with line numbers, in what git knows or would add.
search() { git grep --untracked --exclude-standard -nIE "$@"; }

echo 'verify: paths of one machine'
if search '(^|[^a-zA-Z])/(work|farm|root)/' >&2; then
  fail 'the lines above name folders of one machine: make them relative, or take them from the environment.'
fi

# In a synctest bubble the clock is fake and a sleep costs nothing; elsewhere it
# makes a test slow on a good day and wrong on a bad one.
echo 'verify: sleeps in tests'
while IFS= read -r file; do
  if ! grep -q '"testing/synctest"' "$file"; then
    grep -Hn 'time\.Sleep(' "$file" >&2
    fail "$file sleeps: wait for a condition, or use testing/synctest."
  fi
done < <(search -l 'time\.Sleep\(' -- '*_test.go')

if ((status == 0)); then
  echo 'verify: ok'
fi
exit "$status"
