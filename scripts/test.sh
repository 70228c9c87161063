#!/usr/bin/env bash
# Runs go test and closes with what a reader wants to know: which tests were
# skipped and why, and how many passed.
#
# usage: test.sh NAME [go test arguments...]    NAME labels the events file
#        TEST_MODULE is the folder of the module to test, by default the root
# exit:  0 all passed; not 0 when a test failed, when no test ran at all, or
#        when CI=true and a test was skipped
set -euo pipefail
cd "$(dirname "$0")/.."

name=$1
shift
root=$PWD
events=$root/.cache/tests/$name.json
mkdir -p "${events%/*}"

status=0
cd "${TEST_MODULE:-.}"
go tool -modfile="$root/tools/go.mod" gotestsum \
  --format "${TEST_FORMAT:-pkgname}" --format-hide-empty-pkg --jsonfile "$events" \
  -- "$@" || status=$?

# Only events of tests are counted: a package's own events carry no "Test".
count() { grep -c "\"Action\":\"$1\".*\"Test\":" "$events" || true; }
passed=$(count pass) failed=$(count fail) skipped=$(count skip)

if ((passed + failed == 0)); then
  echo "$name: no test ran." >&2
  status=1
fi
if ((skipped > 0)) && [[ ${CI:-} == true ]]; then
  echo "$name: with CI=true no test may be skipped, and $skipped were: see 'Skipped' above for each one's reason." >&2
  status=1
fi
if ((status == 0 && failed > 0)); then
  status=1
fi

# The last line of .ci/run repeats these.
echo "$passed passed, $failed failed, $skipped skipped" | tee "$root/.cache/tests/$name.txt"
exit "$status"
