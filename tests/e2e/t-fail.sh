# shellcheck shell=bash disable=SC2154
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# What goes wrong for good while data moves: it ends, says where and why, and never looks finished.
# A slow link gives the time in which to break things.

slow() {
    lab_link slow --rate 8000000 >/dev/null
    trap 'lab_link_stop slow' EXIT
}

# lun_is_being_written FILE [link_has_carried]: its head is blank, and more than that has gone over the link
# "slow", which leads to the LUN (or, with link_has_carried, to the source).
lun_is_being_written() {
    head_is_blank "$1" && "${2:-link_has_taken}" slow 4000000
}

torn_head_is_blank() {
    head_is_blank "$1" || fail "the head of a torn LUN is not blank"
}

test_full_filesystem() {
    run 3 "$LUNFERRY" copy --journal none random:32M "$LAB_NFS_SMALL/big.img"
    says "target: .*big.img.*NFS3ERR_NOSPC.*; the file of that name"
    [[ ! -e $LAB_NFS_SMALL_DIR/big.img ]] || fail "a torn file has the final name"
    no_temporary "$LAB_NFS_SMALL_DIR"
}

interrupted_by() {
    slow
    image "$LAB_NFS_DIR/old.img" 1M
    cp "$LAB_NFS_DIR/old.img" "$T/before"
    # One with a journal, as after some seconds, would keep its temporary file.
    background "$LUNFERRY" copy --journal none --overwrite "$(lab_link_url slow "$LAB_LUN512")" \
        "$LAB_NFS/old.img"
    lab_wait "$HANG" is_moving "$LAB_NFS_DIR" || fail "nothing moved"
    kill -s "$1" "$pid"
    wait_status "$2"
    says "interrupted; the file of that name, if there was one, is as it was"
    cmp "$T/before" "$LAB_NFS_DIR/old.img"
    no_temporary "$LAB_NFS_DIR"
    rm "$LAB_NFS_DIR/old.img"
}

test_sigint() {
    interrupted_by INT 130
}

test_ignored_sigint_stays_ignored() {
    slow
    (
        trap '' INT
        exec "$LUNFERRY" copy "$(lab_link_url slow "$LAB_LUNSMALL")" null:16M
    ) 2>"$T/err" &
    pid=$!
    lab_wait "$HANG" link_has_carried slow 1000000 || fail "nothing moved"
    kill -INT "$pid"
    wait_status 0
}

test_sigterm() {
    interrupted_by TERM 143
}

test_sighup() {
    interrupted_by HUP 129
}

test_sigterm_while_deploying_leaves_the_head_blank() {
    slow
    fill "$LAB_LUN512_FILE" 252
    background "$LUNFERRY" copy --overwrite random:256M "$(lab_link_url slow "$LAB_LUN512")"
    lab_wait "$HANG" lun_is_being_written "$LAB_LUN512_FILE" || fail "nothing moved"
    kill "$pid"
    wait_status 143
    says "interrupted; the target is not complete"
    torn_head_is_blank "$LAB_LUN512_FILE"
}

# It is pending no more.
has_taken_sigterm() {
    local pending
    pending=$(awk '$1 == "ShdPnd:" { print $2 }' "/proc/$1/status")
    (((0x$pending & 0x4000) == 0))
}

test_second_signal_does_not_wait() {
    lab_link slow --rate 8000000 >/dev/null
    trap 'lab_link_stop slow' EXIT
    background "$LUNFERRY" copy --journal none "$(lab_link_url slow "$LAB_LUN512")" "$LAB_NFS/x.img"
    lab_wait "$HANG" is_moving "$LAB_NFS_DIR" || fail "nothing moved"
    lab_link_freeze slow
    kill "$pid"
    lab_wait "$HANG" has_taken_sigterm "$pid"
    [[ -d /proc/$pid ]] || fail "did not wait for what is on the wire"
    kill "$pid"
    wait_status 143
    rm -f "$LAB_NFS_DIR"/.x.img.lunferry-*
}

test_drain_is_bounded() {
    slow
    background "$LUNFERRY" copy --journal none "$(lab_link_url slow "$LAB_LUN512")" "$LAB_NFS/x.img"
    lab_wait "$HANG" is_moving "$LAB_NFS_DIR" || fail "nothing moved"
    lab_link_freeze slow
    kill "$pid"
    # The server that still answers gets its temporary file removed.
    wait_status 143
    no_temporary "$LAB_NFS_DIR"
}

test_nfs_source_killed() {
    slow
    image "$LAB_NFS_DIR/k.img" 128M
    fill "$LAB_LUN512_FILE" 252
    background "$LUNFERRY" copy --journal none --overwrite --give-up 2 "$(lab_link_url slow "$LAB_NFS/k.img")" "$LAB_LUN512"
    lab_wait "$HANG" lun_is_being_written "$LAB_LUN512_FILE" link_has_carried || fail "nothing moved"
    lab_nfs_kill
    wait_status 3
    lab_nfs_start
    says "source: reading nfs://.*k.img at offset [0-9]+: given up after 2 s without progress: .*[Cc]onnect"
    torn_head_is_blank "$LAB_LUN512_FILE"
    rm "$LAB_NFS_DIR/k.img"
}

test_nfs_target_killed() {
    slow
    background "$LUNFERRY" copy --journal none --give-up 2 "$LAB_LUN512" "$(lab_link_url slow "$LAB_NFS/k.img")"
    lab_wait "$HANG" is_moving "$LAB_NFS_DIR" || fail "nothing moved"
    lab_nfs_kill
    wait_status 3
    lab_nfs_start
    says "target: .*nfs://.*k.img.*given up after 2 s without progress"
    says "the temporary file is still there"
    [[ ! -e $LAB_NFS_DIR/k.img ]] || fail "a torn file has the final name"
    rm -f "$LAB_NFS_DIR"/.k.img.lunferry-*
}

test_iscsi_source_killed() {
    slow
    background "$LUNFERRY" copy --journal none --give-up 2 "$(lab_link_url slow "$LAB_LUN512")" "$LAB_NFS/k.img"
    lab_wait "$HANG" is_moving "$LAB_NFS_DIR" || fail "nothing moved"
    lab_tgt_kill
    wait_status 3
    lab_tgt_start
    says "source: reading iscsi://.* at offset [0-9]+: given up after 2 s without progress: .*[Cc]onnect"
    no_temporary "$LAB_NFS_DIR"
}

test_iscsi_target_killed() {
    slow
    fill "$LAB_LUN512_FILE" 252
    background "$LUNFERRY" copy --journal none --give-up 2 --overwrite random:256M "$(lab_link_url slow "$LAB_LUN512")"
    lab_wait "$HANG" lun_is_being_written "$LAB_LUN512_FILE" || fail "nothing moved"
    lab_tgt_kill
    wait_status 3
    lab_tgt_start
    says "target: .*iscsi://.*given up after 2 s without progress"
    torn_head_is_blank "$LAB_LUN512_FILE"
}

# Frozen in mid-copy, its session is dead after --timeout, and it is given up after --give-up.
test_nfs_server_stopped() {
    slow
    background "$LUNFERRY" copy --journal none --timeout 2 --give-up 5 "$LAB_LUN512" "$(lab_link_url slow "$LAB_NFS/s.img")"
    lab_wait "$HANG" is_moving "$LAB_NFS_DIR" || fail "nothing moved"
    kill -STOP "$(lab_nfs_pid)"
    wait_status 3
    kill -CONT "$(lab_nfs_pid)"
    says "target: .*s.img.*no (answer|sign of life).*2 s"
    [[ ! -e $LAB_NFS_DIR/s.img ]] || fail "a torn file has the final name"
    rm -f "$LAB_NFS_DIR"/.s.img.lunferry-*
}

test_iscsi_target_stopped() {
    slow
    background "$LUNFERRY" copy --journal none --timeout 2 --give-up 5 --overwrite "random:256M" "$(lab_link_url slow "$LAB_LUN512")"
    lab_wait "$HANG" link_has_taken slow 4000000 || fail "nothing moved"
    kill -STOP "$(lab_tgt_pid)"
    wait_status 3
    kill -CONT "$(lab_tgt_pid)"
    says "target: .*iscsi://.*no (answer|sign of life).*2 s"
}

test_stopped_before_the_start() {
    kill -STOP "$(lab_nfs_pid)"
    run 2 "$LUNFERRY" copy --timeout 1 "$LAB_NFS/x.img" null:1M
    kill -CONT "$(lab_nfs_pid)"
    says "source: .*no (answer|sign of life)"
    kill -STOP "$(lab_tgt_pid)"
    run 2 "$LUNFERRY" copy --timeout 1 "$LAB_LUN512" null:256M
    kill -CONT "$(lab_tgt_pid)"
    says "source: .*no (answer|sign of life)"
}

test_file_cut_short_while_it_is_read() {
    slow
    image "$LAB_NFS_DIR/short.img" 64M
    background "$LUNFERRY" copy "$(lab_link_url slow "$LAB_NFS/short.img")" "$T/x.img"
    lab_wait "$HANG" is_moving "$T" || fail "nothing moved"
    truncate -s 1M "$LAB_NFS_DIR/short.img"
    wait_status 3
    says "source: .*short.img.*end"
    [[ ! -e $T/x.img ]] || fail "a torn file has the final name"
    rm "$LAB_NFS_DIR/short.img"
}
