# shellcheck shell=bash disable=SC2154
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# qcow2 images that are written to servers: what is there afterwards, and what is when something goes wrong. What is
# in them, for images of every kind, is t-write-oracle.sh's.

# is_good FILE RAW: qemu-img finds no error and no leak in it, and the bytes of RAW.
is_good() {
    qemu-img check -q -f qcow2 "$1" || fail "qemu-img check: status $?"
    qemu-img compare -q -f raw -F qcow2 "$2" "$1" || fail "$1 does not hold what $2 does"
}

# has_no_magic FILE: nobody would take it for an image.
has_no_magic() {
    head_is_empty "$1" || fail "$1 begins with $(head -c 8 "$1" | od -An -tx1)"
}

head_is_empty() {
    cmp -s -n 4 "$1" /dev/zero
}

# what_is_copied FILE: 24 MiB, of which 8 compress and 8 are a hole.
what_is_copied() {
    image "$1" 8M
    truncate -s 16M "$1"
    head -c 8M < <(seq 2000000) >>"$1"
}

test_write_qcow2_on_nfs() {
    local words
    what_is_copied "$T/a.img"
    for words in "" "--lanes 2" "--lanes 2 -c" "--lanes 2 -c --sync -o cluster_size=4k"; do
        # shellcheck disable=SC2086
        copy --overwrite $words "$T/a.img" "$LAB_NFS/written.qcow2"
        is_good "$LAB_NFS_DIR/written.qcow2" "$T/a.img"
        run 0 "$LUNFERRY" compare -q "$T/a.img" "$LAB_NFS/written.qcow2"
    done
    no_temporary "$LAB_NFS_DIR"
    rm "$LAB_NFS_DIR/written.qcow2"
}

# The file behind it is longer than the image; with clusters as large as its blocks, or larger.
test_write_qcow2_on_a_lun() {
    local words
    what_is_copied "$T/a.img"
    for words in "" "--lanes 2 -c" "--lanes 4 -o cluster_size=2M" "-c -o cluster_size=4k"; do
        fill "$LAB_LUN4K_FILE" 252
        # shellcheck disable=SC2086
        copy --overwrite -O qcow2 $words "$T/a.img" "$LAB_LUN4K"
        is_good "$LAB_LUN4K_FILE" "$T/a.img"
        run 0 "$LUNFERRY" compare -q -F qcow2 "$T/a.img" "$LAB_LUN4K"
    done
    run 2 "$LUNFERRY" copy --overwrite -O qcow2 -o cluster_size=512 "$T/a.img" "$LAB_LUN4K"
    says 'clusters of 512 bytes are smaller than the blocks of .*, which have 4096; use -o cluster_size=4096'
    image "$T/b.img" 17M
    run 3 "$LUNFERRY" copy --overwrite -O qcow2 "$T/b.img" "$LAB_LUNSMALL"
    head_is_empty "$LAB_LUNSMALL_FILE" || fail "a torn image has a magic"
}

# Five generations of a LUN that changes: each holds what has changed, and shows the LUN as it was then.
test_write_increments_of_a_lun() {
    local lun file number base=()
    lun=$(lab_lun_new generations 32M)
    file=$(lab_backing generations)
    mkdir "$LAB_NFS_DIR/gens"
    for number in 0 1 2 3 4; do
        image "$T/new-$number" 64k
        # Clusters 10, 11, ... and all of them again as cluster 100.
        dd if="$T/new-$number" of="$file" bs=64k seek=$((10 + number)) conv=notrunc status=none
        dd if="$T/new-$number" of="$file" bs=64k seek=100 conv=notrunc status=none
        copy --lanes 2 -c -O qcow2 "${base[@]}" "$lun" "$LAB_NFS/gens/$number.qcow2"
        cp --sparse=always "$file" "$T/state-$number"
        base=(-B "$number.qcow2" -F qcow2)
    done
    for number in 0 1 2 3 4; do
        is_good "$LAB_NFS_DIR/gens/$number.qcow2" "$T/state-$number"
        copy --overwrite --allow-backing=any "$LAB_NFS/gens/$number.qcow2" "$T/restored"
        cmp "$T/restored" "$T/state-$number"
        qemu-img map --output=json "$LAB_NFS_DIR/gens/$number.qcow2" >"$T/map"
        python3 - "$T/map" <<'END' || fail "generation $number holds something else"
import json
import sys
with open(sys.argv[1], encoding="ascii") as file:
    own = sum(entry["length"] for entry in json.load(file) if entry["depth"] == 0 and entry["data"])
sys.exit(own != 2 * 65536)
END
    done
    rm -r "$LAB_NFS_DIR/gens"
}

# The export of 8 MiB.
test_write_qcow2_full_filesystem() {
    local words
    image "$T/a.img" 16M
    for words in "" "-c" "--lanes 2 -c"; do
        image "$LAB_NFS_SMALL_DIR/old.qcow2" 1M
        cp "$LAB_NFS_SMALL_DIR/old.qcow2" "$T/before"
        # shellcheck disable=SC2086
        run 3 "$LUNFERRY" copy --overwrite $words "$T/a.img" "$LAB_NFS_SMALL/old.qcow2"
        says 'target: .*old.qcow2.*NFS3ERR_NOSPC.*; the file of that name'
        cmp "$T/before" "$LAB_NFS_SMALL_DIR/old.qcow2"
        no_temporary "$LAB_NFS_SMALL_DIR"
    done
    rm "$LAB_NFS_SMALL_DIR/old.qcow2"
}

# written_slowly OPTION...: begins a copy over an older file; $pid.
written_slowly() {
    lab_link slow --rate 8000000 >/dev/null
    trap 'lab_link_stop slow; rm -f "$LAB_NFS_DIR"/.*.lunferry-* "$LAB_NFS_DIR/old.qcow2"' EXIT
    image "$T/a.img" 32M
    image "$LAB_NFS_DIR/old.qcow2" 1M
    cp "$LAB_NFS_DIR/old.qcow2" "$T/before"
    background "$LUNFERRY" copy --overwrite "$@" "$T/a.img" "$(lab_link_url slow "$LAB_NFS/old.qcow2")"
    lab_wait "$HANG" is_moving "$LAB_NFS_DIR" || fail "nothing moved"
}

killed() {
    local left
    written_slowly "$@"
    kill -s KILL "$pid"
    wait_status 137
    cmp "$T/before" "$LAB_NFS_DIR/old.qcow2"
    left=$(find "$LAB_NFS_DIR" -name '.*lunferry-*' -size +1024k)
    [[ -f $left ]] || fail "no temporary file, or several: $left"
    has_no_magic "$left"
}

test_write_qcow2_killed() { killed; }
test_write_qcow2_killed_compressing() { killed --lanes 2 -c; }

# What the server lost is written again, and nothing is left over in the image.
server_restarted_under_an_image() {
    written_slowly --flush-size 4M "$@"
    lab_nfs_restart
    wait_status 0
    is_good "$LAB_NFS_DIR/old.qcow2" "$T/a.img"
    no_temporary "$LAB_NFS_DIR"
}

test_write_qcow2_server_restarted() { server_restarted_under_an_image; }
test_write_qcow2_server_restarted_compressing() { server_restarted_under_an_image -c; }
test_write_qcow2_server_restarted_two_lanes() { server_restarted_under_an_image --lanes 2 -c -o cluster_size=2M; }

test_write_qcow2_target_restarted() {
    lab_link slow --rate 8000000 >/dev/null
    trap 'lab_link_stop slow' EXIT
    image "$T/a.img" 24M
    fill "$LAB_LUN512_FILE" 252
    background "$LUNFERRY" copy --overwrite -c -O qcow2 "$T/a.img" "$(lab_link_url slow "$LAB_LUN512")"
    lab_wait "$HANG" link_has_taken slow 4000000 || fail "nothing moved"
    head_is_empty "$LAB_LUN512_FILE" || fail "it has a magic before it is complete"
    lab_tgt_restart
    wait_status 0
    is_good "$LAB_LUN512_FILE" "$T/a.img"
}

# The image has whole sectors, and its backing image more than zeros behind the end of the disk.
test_write_qcow2_of_half_a_sector() {
    local size
    image "$T/base.img" 1M
    for size in 1 513 65537 700001; do
        head -c "$size" /dev/zero >"$T/zeros.img"
        head -c "$size" "$T/base.img" >"$T/same.img"
        truncate -s "$size" "$T/hole.img"
        for name in zeros same hole; do
            copy --overwrite -B base.img "$T/$name.img" "$T/a.qcow2"
            is_good "$T/a.qcow2" "$T/$name.img"
            run 0 "$LUNFERRY" compare -q "$T/$name.img" "$T/a.qcow2"
        done
    done
}
