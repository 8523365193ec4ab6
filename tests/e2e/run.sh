#!/usr/bin/env bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# tests/lab tests/e2e/run.sh [PATTERN]
#
# Runs the end-to-end tests whose names match PATTERN (all), one after the other, in the lab that it
# finds itself in. LUNFERRY is the program. Each test's name and outcome is printed, at the end
# "N passed, N failed, N skipped"; E2E_COUNTS, if set, is a file that gets the three numbers.
set -euo pipefail
cd "$(dirname "$0")"
: "${LAB_DIR:?is to be run by tests/lab}" "${LUNFERRY:?says which program to test}"
export LUNFERRY

# shellcheck source=tests/e2e/lib.sh
. ./lib.sh
for file in t-*.sh; do
    # shellcheck disable=SC1090
    . "./$file"
done

passed=0 failed=0 names=()
for name in $(compgen -A function test_); do
    [[ $name =~ ${1:-.} ]] || continue
    T=$LAB_DIR/test
    mkdir "$T"
    export T
    # Not in a condition: that would switch set -e off inside.
    set +e
    (
        set -e
        "$name"
    ) >"$LAB_DIR/test.log" 2>&1
    status=$?
    set -e
    if [[ $status -eq 0 ]]; then
        passed=$((passed + 1))
        echo "ok      ${name#test_}"
    else
        failed=$((failed + 1))
        names+=("${name#test_}")
        echo "FAILED  ${name#test_}"
        cat "$LAB_DIR/test.log"
        [[ ! -s $T/err ]] || tail -n 20 "$T/err" | sed 's/^/    err| /'
    fi
    rm -rf "$T"
done
[[ $failed -eq 0 ]] || echo "failed: ${names[*]}"
echo "end to end: $passed passed, $failed failed, 0 skipped"
[[ -z ${E2E_COUNTS:-} ]] || echo "$passed $failed 0" >"$E2E_COUNTS"
[[ $failed -eq 0 && $passed -gt 0 ]]
