# shellcheck shell=bash disable=SC2154,SC2317
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# What goes wrong for a while: connections that break, servers that are killed and started again or
# stand still. The copy goes on, and the bytes are right.

# Source and target of a move, the named side by way of a link: move_ends MOVE SIDE LINK.
# $from, $to; $from_file, $to_file hold the bytes.
move_ends() {
    local nfs=$LAB_NFS/move.img lun=$LAB_LUN512
    [[ $1 == nfs-to-lun ]] && from=$nfs to=$lun || from=$lun to=$LAB_NFS/moved.img
    [[ $1 == nfs-to-lun ]] && from_file=$LAB_NFS_DIR/move.img to_file=$LAB_LUN512_FILE ||
        from_file=$LAB_LUN512_FILE to_file=$LAB_NFS_DIR/moved.img
    case $2 in
        source) from=$(lab_link_url "$3" "$from") ;;
        target) to=$(lab_link_url "$3" "$to") ;;
    esac
}

move_clean() {
    rm -f "$LAB_NFS_DIR/move.img" "$LAB_NFS_DIR/moved.img" "$LAB_NFS_DIR"/.*.lunferry-*
}

# The image has SIZE; a LUN, which is larger, is compared as far as the image reaches.
move_images() {
    image "$LAB_NFS_DIR/move.img" "$1"
    dd if=/dev/urandom of="$LAB_LUN512_FILE" bs=1M count=64 conv=notrunc status=none
}

same_start() {
    local size
    size=$(stat -c %s "$1")
    [[ $(stat -c %s "$2") -lt $size ]] && size=$(stat -c %s "$2")
    cmp -n "$size" "$1" "$2" || fail "$1 and $2 differ"
}

# Every connection of one side is cut each 8 MiB.
cut_each_8_mib() {
    lab_link cut --cut-after 8M --cut-every >/dev/null
    trap 'lab_link_stop cut; move_clean' EXIT
    move_images 128M
    move_ends "$1" "$2" cut
    run 0 "$LUNFERRY" copy -p --overwrite "$from" "$to"
    says "$2: .* is away: .*; trying again"
    says "$2: .* is back after"
    says "[0-9]+ lost connections, [0-9]+ repeated requests"
    same_start "$from_file" "$to_file"
}

test_nfs_source_cut_each_8_mib() { cut_each_8_mib nfs-to-lun source; }
test_lun_target_cut_each_8_mib() { cut_each_8_mib nfs-to-lun target; }
test_lun_source_cut_each_8_mib() { cut_each_8_mib lun-to-nfs source; }
test_nfs_target_cut_each_8_mib() { cut_each_8_mib lun-to-nfs target; }

test_four_lanes_cut_each_8_mib() {
    lab_link cut --cut-after 8M --cut-every >/dev/null
    trap 'lab_link_stop cut; move_clean' EXIT
    move_images 128M
    move_ends nfs-to-lun target cut
    run 0 "$LUNFERRY" copy --lanes 4 --overwrite "$from" "$to"
    same_start "$from_file" "$to_file"
}

# A server is killed and started again in mid-copy. The moments come from a seed that is printed;
# SEED chooses another.
server_restarted() {
    local seed=${SEED:-1} server
    RANDOM=$seed
    echo "seed $seed"
    lab_link slow --rate 20000000 >/dev/null
    trap 'lab_link_stop slow; move_clean' EXIT
    move_images 64M
    for server in nfs tgt; do
        move_ends "$1" source slow
        rm -f "$T/journal"
        background "$LUNFERRY" copy --overwrite --journal "$T/journal" --flush-size 4M "$from" "$to"
        lab_wait "$HANG" grep -q durable "$T/journal" 2>/dev/null || fail "nothing moved"
        sleep "0.$((RANDOM % 400 + 100))"
        "lab_${server}_restart" || { tail -n 30 "$LAB_NFS_LOG"; fail "$server does not start"; }
        wait_status 0
        same_start "$from_file" "$to_file"
        rm -f "$LAB_NFS_DIR/moved.img"
    done
}

test_servers_restarted_while_deploying() {
    for SEED in 1 2 3; do (server_restarted nfs-to-lun); done
}
test_servers_restarted_while_backing_up() {
    for SEED in 4 5; do (server_restarted lun-to-nfs); done
}

# Silent for longer than --timeout, and then back.
server_stands_still() {
    lab_link slow --rate 30000000 >/dev/null
    trap 'lab_link_stop slow; move_clean' EXIT
    move_images 64M
    move_ends "$2" source slow
    background "$LUNFERRY" copy -p --timeout 2 --overwrite "$from" "$to"
    lab_wait "$HANG" link_has_carried slow 4000000 || fail "nothing moved"
    kill -STOP "$("lab_$1_pid")"
    lab_wait "$HANG" grep -q " is away: " "$T/err" || fail "nobody noticed"
    kill -CONT "$("lab_$1_pid")"
    wait_status 0
    says " is back after "
    same_start "$from_file" "$to_file"
}

test_nfs_server_stands_still() { server_stands_still nfs nfs-to-lun; }
test_iscsi_target_stands_still() { server_stands_still tgt nfs-to-lun; }

# ---- The thing that is there afterwards is not the one before ------------------------------------

# begin_slowly TARGET: a copy of an NFS image, which moves data when this returns, and for which there is
# time.
begin_slowly() {
    lab_link slow --rate 8000000 >/dev/null
    trap 'lab_link_stop slow; move_clean' EXIT
    image "$LAB_NFS_DIR/move.img" 64M
    background "$LUNFERRY" copy --overwrite "$(lab_link_url slow "$LAB_NFS/move.img")" "$1"
    lab_wait "$HANG" link_has_carried slow 4000000 || fail "nothing moved"
}

test_another_lun_at_reconnect() {
    local a b
    a=$(lab_lun_new swap-a 64M 512 "scsi_sn=first")
    b=$(lab_lun_new swap-b 64M 512 "scsi_sn=second")
    [[ $a != "$b" ]]
    begin_slowly "$a"
    lab_tgt_kill
    sed -i 's/^swap-a \(.*\) scsi_sn=first/swap-a \1 scsi_sn=third/' "$LAB_DIR/luns"
    lab_tgt_start
    wait_status 3
    says "target: .*\"third\".*\"first\""
}

test_lun_shrinks_in_mid_copy() {
    local lun
    lun=$(lab_lun_new shrinks 64M)
    begin_slowly "$lun"
    lab_tgt_kill
    truncate -s 32M "$(lab_backing shrinks)"
    lab_tgt_start
    wait_status 3
    says "target: .*it has become smaller: 33554432 bytes, of which 67108864 are needed"
}

test_source_lun_grows_in_mid_copy() {
    local lun
    lun=$(lab_lun_new grows 32M)
    dd if=/dev/urandom of="$(lab_backing grows)" bs=1M count=32 conv=notrunc status=none
    lab_link slow --rate 8000000 >/dev/null
    trap 'lab_link_stop slow; move_clean' EXIT
    # Without a journal, with which the temporary file would stay.
    background "$LUNFERRY" copy --journal none "$(lab_link_url slow "$lun")" "$LAB_NFS/moved.img"
    lab_wait "$HANG" is_moving "$LAB_NFS_DIR" || fail "nothing moved"
    lab_lun_resize grows 48M
    wait_status 3
    says "source: .*changed while it was copied: its size was 33554432 bytes and is 50331648"
    [[ ! -e $LAB_NFS_DIR/moved.img ]] || fail "it has its name all the same"
    no_temporary "$LAB_NFS_DIR"
    lab_lun_resize grows 32M
    background "$LUNFERRY" copy --allow-live "$(lab_link_url slow "$lun")" "$LAB_NFS/moved.img"
    lab_wait "$HANG" is_moving "$LAB_NFS_DIR" || fail "nothing moved"
    lab_lun_resize grows 48M
    wait_status 0
    says "source: .*changed while it was copied"
}

test_source_file_written_to_in_mid_copy() {
    lab_link slow --rate 8000000 >/dev/null
    trap 'lab_link_stop slow; move_clean' EXIT
    image "$LAB_NFS_DIR/move.img" 32M
    background "$LUNFERRY" copy "$(lab_link_url slow "$LAB_NFS/move.img")" "$T/moved.img"
    lab_wait "$HANG" link_has_carried slow 4000000 || fail "nothing moved"
    printf x | dd of="$LAB_NFS_DIR/move.img" conv=notrunc status=none
    wait_status 3
    says "source: .*move.img changed while it was copied: it was written to"
    says "Copy a snapshot, or, if that is no harm, use --allow-live"
    [[ ! -e $T/moved.img ]] || fail "it has its name all the same"
}

# ---- Reading back --------------------------------------------------------------------------------

# A bit is turned over on the target, behind everybody's back.
test_flipped_bit_is_found_and_mended() {
    image "$LAB_NFS_DIR/move.img" 64M
    trap move_clean EXIT
    fill "$LAB_LUN512_FILE" 0
    background "$LUNFERRY" copy -p --overwrite --verify --rate-limit 16M "$LAB_NFS/move.img" "$LAB_LUN512"
    # A single byte of the image may be zero.
    is_there() {
        ! cmp -s -n 512 -i 10000000:0 "$LAB_LUN512_FILE" /dev/zero
    }
    lab_wait "$HANG" is_there || fail "nothing moved"
    poke "$LAB_LUN512_FILE" 10000000
    wait_status 0
    says "target: .*what was written to the 262144 bytes at offset 9961472 reads back differently"
    says "what was written was read back and is the same, after some was copied again"
    cmp -n 67108864 "$LAB_NFS_DIR/move.img" "$LAB_LUN512_FILE" || fail "it was not mended"
}

test_verify_every_kind_of_target() {
    image "$LAB_NFS_DIR/move.img" 5000000
    trap move_clean EXIT
    run 0 "$LUNFERRY" copy -p --verify "$LAB_NFS/move.img" "$LAB_NFS/moved.img"
    says "what was written was read back and is the same"
    run 0 "$LUNFERRY" copy -p --verify --lanes 2 --overwrite "$LAB_NFS/move.img" "$LAB_LUN4K"
    says "what was written was read back and is the same"
    run 0 "$LUNFERRY" copy -p --verify --overwrite "$LAB_NFS/move.img" "$T/moved.img"
    says "what was written was read back and is the same"
    same "$LAB_NFS_DIR/move.img" "$T/moved.img"
}
