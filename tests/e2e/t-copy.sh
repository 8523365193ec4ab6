# shellcheck shell=bash disable=SC2154
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Copies that succeed: every pair of ends, sizes that are no multiple of anything, lanes, order.
# Bytes are compared on the servers' own files, and by qemu-img through its own drivers.

test_nfs_to_lun_and_back() {
    image "$LAB_NFS_DIR/template.img" 64M
    copy "$LAB_NFS/template.img" "$LAB_LUN512" --overwrite
    same "$LAB_NFS_DIR/template.img" "$LAB_LUN512_FILE"
    qemu-img compare -f raw -F raw "$LAB_NFS_DIR/template.img" \
        "json:{\"driver\":\"raw\",\"size\":67108864,\"file\":{\"driver\":\"iscsi\",\"transport\":\"tcp\",\"portal\":\"127.0.0.1:$LAB_ISCSI_PORT\",\"target\":\"$LAB_TARGET\",\"lun\":1}}" ||
        fail "qemu-img sees a difference"
    copy "$LAB_LUN512" "$LAB_NFS/backup.img"
    cmp "$LAB_LUN512_FILE" "$LAB_NFS_DIR/backup.img"
    no_temporary "$LAB_NFS_DIR"
    rm "$LAB_NFS_DIR"/{template,backup}.img
}

# What lies beyond the image stays, to the byte: 513 bytes are no multiple of any block size, so the
# last block is read, changed and written.
odd_size_to() {
    image "$LAB_NFS_DIR/odd.img" 16777729
    fill "$2" 252
    copy "$LAB_NFS/odd.img" "$1" --overwrite
    same "$LAB_NFS_DIR/odd.img" "$2"
    [[ $(tail -c +16777730 "$2" | tr -d '\252' | wc -c) -eq 0 ]] || fail "bytes beyond the image changed"
    rm "$LAB_NFS_DIR/odd.img"
}

test_odd_size_to_512_byte_blocks() {
    odd_size_to "$LAB_LUN512" "$LAB_LUN512_FILE"
}

test_odd_size_to_4096_byte_blocks() {
    odd_size_to "$LAB_LUN4K" "$LAB_LUN4K_FILE"
}

test_odd_sizes_between_files() {
    local size
    for size in 1 511 513 4097 262143 524289 1048577 3000001; do
        image "$LAB_NFS_DIR/a.img" "$size"
        copy "$LAB_NFS/a.img" "$T/local.img"
        cmp "$LAB_NFS_DIR/a.img" "$T/local.img"
        copy "$T/local.img" "$LAB_NFS/b.img"
        cmp "$T/local.img" "$LAB_NFS_DIR/b.img"
        copy --overwrite "$T/local.img" "$LAB_LUN4K"
        same "$T/local.img" "$LAB_LUN4K_FILE"
        rm "$T/local.img" "$LAB_NFS_DIR"/{a,b}.img
    done
}

test_every_kind_of_end() {
    copy "random:8M?seed=5" ram:8M
    copy "random:8M?seed=5" null:8M
    copy "random:8M?seed=5" "$T/a"
    copy "random:8M?seed=5" "$LAB_NFS/r.img"
    cmp "$T/a" "$LAB_NFS_DIR/r.img"
    copy --overwrite "$LAB_NFS/r.img" "$LAB_LUN512"
    copy --overwrite "$LAB_LUN512" "$LAB_LUN4K"
    cmp "$LAB_LUN512_FILE" "$LAB_LUN4K_FILE"
    copy null:1M "$LAB_NFS/zero.img"
    cmp -n 1M "$LAB_NFS_DIR/zero.img" /dev/zero
    rm "$LAB_NFS_DIR"/{r,zero}.img
}

test_block_device() {
    truncate -s 32M "$T/disk"
    device=$(losetup --find --show "$T/disk")
    trap 'losetup -d "$device"' EXIT
    copy "random:20000001?seed=2" "$device"
    "$LUNFERRY" copy "random:20000001?seed=2" "$T/want"
    cmp -n 20000001 "$T/want" "$device"
    run 2 "$LUNFERRY" copy "random:1M" "$device"
    says "$device holds data of a kind that is not recognised; --overwrite"
    ln -s "$device" "$T/by-id"
    copy --overwrite "random:20000001?seed=2" "$T/by-id"
    [[ -L $T/by-id ]] || fail "the link was replaced"
    copy "$device" "$LAB_NFS/from-device.img"
    cmp "$LAB_NFS_DIR/from-device.img" "$device"
    rm "$LAB_NFS_DIR/from-device.img"
}

test_lanes() {
    local lanes
    image "$LAB_NFS_DIR/l.img" 33554945
    for lanes in 1 2 4; do
        copy --lanes "$lanes" --overwrite "$LAB_NFS/l.img" "$LAB_LUN512"
        same "$LAB_NFS_DIR/l.img" "$LAB_LUN512_FILE"
        copy --lanes "$lanes" --overwrite "$LAB_LUN512" "$LAB_NFS/back.img"
        cmp "$LAB_LUN512_FILE" "$LAB_NFS_DIR/back.img"
        copy --lanes "$lanes" --overwrite "$LAB_NFS/l.img" "$T/local.img"
        cmp "$LAB_NFS_DIR/l.img" "$T/local.img"
    done
    rm "$LAB_NFS_DIR"/{l,back}.img
}

test_in_order_and_small_requests() {
    image "$LAB_NFS_DIR/o.img" 5000001
    local options
    for options in --in-order "--in-order -m 1" "-m 1" "-W -m 3" "--request-size 4k" \
        "--request-size 12k -m 100" "--request-size 16M -m 2" "--in-order --request-size 64k"; do
        fill "$LAB_LUNSMALL_FILE" 125
        # shellcheck disable=SC2086
        copy $options --overwrite "$LAB_NFS/o.img" "$LAB_LUNSMALL"
        same "$LAB_NFS_DIR/o.img" "$LAB_LUNSMALL_FILE"
        # shellcheck disable=SC2086
        copy $options --overwrite "$LAB_LUNSMALL" "$LAB_NFS/back.img"
        cmp "$LAB_LUNSMALL_FILE" "$LAB_NFS_DIR/back.img"
    done
    rm "$LAB_NFS_DIR"/{o,back}.img
}

test_replaces_a_file_whole_and_keeps_its_mode() {
    image "$LAB_NFS_DIR/new.img" 3M
    image "$LAB_NFS_DIR/old.img" 9M
    chmod 640 "$LAB_NFS_DIR/old.img"
    copy --overwrite "$LAB_NFS/new.img" "$LAB_NFS/old.img"
    cmp "$LAB_NFS_DIR/new.img" "$LAB_NFS_DIR/old.img"
    [[ $(stat -c %a "$LAB_NFS_DIR/old.img") == 640 ]] || fail "its mode changed"
    (umask 027 && copy "$LAB_NFS/new.img" "$LAB_NFS/made.img")
    [[ $(stat -c %a "$LAB_NFS_DIR/made.img") == 640 ]] || fail "the umask was not obeyed"
    rm "$LAB_NFS_DIR"/{new,old,made}.img
}

test_in_place() {
    image "$LAB_NFS_DIR/small.img" 1500001
    image "$LAB_NFS_DIR/place.img" 3M
    cp "$LAB_NFS_DIR/place.img" "$T/before"
    run 2 "$LUNFERRY" copy -n "$LAB_NFS/small.img" "$LAB_NFS/place.img"
    says "needs --overwrite"
    local inode
    inode=$(stat -c %i "$LAB_NFS_DIR/place.img")
    copy -n --overwrite "$LAB_NFS/small.img" "$LAB_NFS/place.img"
    same "$LAB_NFS_DIR/small.img" "$LAB_NFS_DIR/place.img"
    cmp <(tail -c +1500002 "$T/before") <(tail -c +1500002 "$LAB_NFS_DIR/place.img")
    [[ $(stat -c %i "$LAB_NFS_DIR/place.img") == "$inode" ]] || fail "another file took its place"
    run 2 "$LUNFERRY" copy -n --overwrite "$LAB_NFS/place.img" "$LAB_NFS/small.img"
    says "too small"
    run 2 "$LUNFERRY" copy -n --overwrite "$LAB_NFS/place.img" "$LAB_NFS/none.img"
    says "none.img does not exist"
    rm "$LAB_NFS_DIR"/{small,place}.img
}

test_paths_through_directories_and_links() {
    mkdir -p "$LAB_NFS_DIR/a b/c"
    image "$LAB_NFS_DIR/a b/c/disk%20.img" 1M
    ln -s "c/disk%20.img" "$LAB_NFS_DIR/a b/link.img"
    copy "$LAB_NFS/a%20b/c/disk%2520.img" "$T/one"
    copy "$LAB_NFS/a%20b/link.img" "$T/two"
    cmp "$T/one" "$LAB_NFS_DIR/a b/c/disk%20.img"
    cmp "$T/two" "$T/one"
    copy "$T/one" "$LAB_NFS/a%20b/new.img"
    cmp "$T/one" "$LAB_NFS_DIR/a b/new.img"
    rm -r "$LAB_NFS_DIR/a b"
}
