# shellcheck shell=bash disable=SC2154
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# What is shown: info, progress, the summary, the line on SIGUSR1, help.

shows() {
    grep -qE -- "$1" "$T/out" || fail "did not show: $1"
}

test_info_of_a_lun() {
    run 0 "$LUNFERRY" info "$LAB_LUN4K"
    shows '^size +268435456 bytes \(256.00 MiB\)'
    shows '^block size +4096 bytes'
    shows "$LAB_TARGET"
    shows 'libiscsi'
    shows '[Ww]rite cache'
    shows '^provisioning +full'
    run 0 "$LUNFERRY" info "$LAB_LUNTHIN"
    shows 'thin'
}

test_info_of_a_file() {
    truncate -s 5G "$LAB_NFS_DIR/sparse.img"
    run 0 "$LUNFERRY" info "$LAB_NFS/sparse.img"
    shows '^size +5368709120 bytes \(5.00 GiB\)'
    shows 'NFS.*3'
    shows 'libnfs'
    shows 'prefer'
    run 0 "$LUNFERRY" info "$T/../test.log"
    run 2 "$LUNFERRY" info "$LAB_NFS/none.img"
    says 'NFS3ERR_NOENT'
    rm "$LAB_NFS_DIR/sparse.img"
}

test_progress_on_a_terminal() {
    script -qec "stty cols 120; $LUNFERRY copy --rate-limit 32M random:64M null:64M" "$T/typescript" >/dev/null
    tr '\r' '\n' <"$T/typescript" | grep -qE '\[#*\.*\] +[0-9]+%.*[KMG]iB/s mean.*left.*reads [0-9]+, writes [0-9]+' ||
        fail "no progress bar"
    grep -q 'copied 64.00 MiB in' "$T/typescript" || fail "no summary"
    script -qec "$LUNFERRY copy -q random:64M ram:64M" "$T/quiet" >/dev/null
    ! grep -q copied "$T/quiet" || fail "-q is not quiet"
}

test_progress_without_a_terminal() {
    run 0 "$LUNFERRY" copy -p random:64M ram:64M
    says '^lunferry: copied 64.00 MiB in [0-9.]+ s: 64.00 MiB of data moved \([0-9.]+ [KMG]iB/s\), 0 B zeroed, 0 B skipped$'
    copy random:64M ram:64M
}

test_sigusr1_prints_a_line() {
    lab_link slow --rate 8000000 >/dev/null
    trap 'lab_link_stop slow' EXIT
    background "$LUNFERRY" copy "$(lab_link_url slow "$LAB_LUN512")" "$LAB_NFS/u.img"
    lab_wait "$HANG" is_moving "$LAB_NFS_DIR" || fail "nothing moved"
    kill -USR1 "$pid"
    lab_wait "$HANG" test -s "$T/err" || fail "said nothing"
    says '^lunferry: +[0-9]+% .* of 256.00 MiB .*left'
    kill "$pid"
    wait_status 143
}

test_help() {
    local command
    run 0 "$LUNFERRY" --help
    shows 'iscsi://'
    shows 'mountport='
    for command in copy info; do
        run 0 "$LUNFERRY" "$command" --help
        shows 'Usage: lunferry '
    done
    run 0 "$LUNFERRY" --version
}

# A name that comes from an image of strangers does nothing to the terminal.
test_names_are_printable() {
    local name
    name=$(printf 'a\302\2332J\303\251')
    qemu-img create -q -u -f qcow2 -b "$name" -F raw "$T/hostile.qcow2" 1M
    run 2 "$LUNFERRY" copy "$T/hostile.qcow2" "$T/target.img"
    says 'a\?\?2Jé'
}
