# shellcheck shell=bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# What the end-to-end tests share. A test is a function named test_*; it fails by calling fail or by
# a command that fails (set -e holds inside it). Each runs in a process of its own, in a directory of
# its own, $T, which goes afterwards.

# shellcheck source=tests/lab-lib.sh
. "$LAB_LIB"

fail() {
    echo "    $*"
    exit 1
}

# run STATUS COMMAND [ARG...]: the command ends with STATUS; its stderr is in $T/err, its stdout in
# $T/out.
run() {
    local want=$1 got=0
    shift
    "$@" >"$T/out" 2>"$T/err" || got=$?
    if [[ $got -ne $want ]]; then
        sed 's/^/    | /' "$T/err"
        fail "exit status $got, not $want: $*"
    fi
}

copy() {
    run 0 "$LUNFERRY" copy "$@"
    # Without -p, and with no terminal, success is silent.
    [[ ! -s $T/err ]] || fail "said: $(cat "$T/err")"
}

# says PATTERN: an extended regular expression that a line on stderr matches.
says() {
    if ! grep -qE -- "$1" "$T/err"; then
        sed 's/^/    | /' "$T/err"
        fail "did not say: $1"
    fi
}

# image FILE SIZE: SIZE bytes that do not compress, other ones for each file name.
image() {
    "$LUNFERRY" copy -q --overwrite "random:$2?seed=$(cksum <<<"$1" | cut -d ' ' -f 1)" "$1"
}

# The first SIZE bytes of two files are the same.
same() {
    cmp -n "$(stat -c %s "$1")" "$1" "$2" || fail "$1 and $2 differ"
}

# No temporary file is left in a directory.
no_temporary() {
    local left
    left=$(find "$1" -name '.*lunferry-*')
    [[ -z $left ]] || fail "left behind: $left"
}

# fill FILE BYTE: the file keeps its size and holds nothing but BYTE (octal).
fill() {
    head -c "$(stat -c %s "$1")" /dev/zero | tr '\0' "\\$2" | dd of="$1" conv=notrunc bs=1M status=none
}

# background COMMAND...: starts it, with SIGINT as a terminal's job has it; $pid. wait_status STATUS: its end.
background() {
    env --default-signal=INT "$@" >"$T/out" 2>"$T/err" &
    pid=$!
}

wait_status() {
    local got=0
    wait "$pid" || got=$?
    if [[ $got -ne $1 ]]; then
        sed 's/^/    | /' "$T/err"
        fail "exit status $got, not $1"
    fi
}

# Seconds for what a test waits for. Much more than anything takes, so that it ends what hangs and nothing
# else. What is to be caught at work must not end by itself meanwhile: it goes through a link, or has a
# --rate-limit, that makes it last for many times what the catching takes.
# shellcheck disable=SC2034 # for the files t-*.sh
HANG=120

# link_has_carried NAME BYTES: from the servers.
link_has_carried() {
    [[ $(lab_link_counts "$1" | sed -n 's/^backward_bytes=//p') -ge $2 ]]
}

# link_has_taken NAME BYTES: to the servers.
link_has_taken() {
    [[ $(lab_link_counts "$1" | sed -n 's/^forward_bytes=//p') -ge $2 ]]
}

# head_is_blank FILE: of a LUN.
head_is_blank() {
    cmp -s -n 1048576 "$1" /dev/zero
}

# The copy under way has begun to move data: its temporary file is there and has blocks.
is_moving() {
    local file
    file=$(find "$1" -name '.*lunferry-*' -size +1024k | head -n 1)
    [[ -n $file && $(stat -c %b "$file") -gt 2048 ]]
}
