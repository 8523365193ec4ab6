# shellcheck shell=bash disable=SC2154
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Backups of a LUN that goes on changing: each an image above the one before, with the digests of both. What is
# read of the one before is counted on a link.

increment_clean() {
    rm -f "$LAB_NFS_DIR"/gen-*
}

# changes: ten clusters of the LUN, and two become zero; far apart.
changes() {
    local i
    for i in 1 2 3 4 5 6 7 8 9 10; do
        dd if=/dev/urandom of="$file" bs=64k count=1 seek=$((i * 90 + $1)) conv=notrunc status=none
    done
    dd if=/dev/zero of="$file" bs=64k count=2 seek=$((950 + 2 * $1)) conv=notrunc status=none
}

came_through() {
    lab_link_counts increments | sed -n 's/^backward_bytes=//p'
}

test_increments_with_digests() {
    local url file nfs generation before came
    trap 'lab_link_stop increments 2>/dev/null || true; increment_clean' EXIT
    url=$(lab_lun_new increments 64M)
    file=$(lab_backing increments)
    image "$T/random" 64M
    dd if="$T/random" of="$file" bs=1M conv=notrunc status=none
    rm "$T/random"
    lab_link increments >/dev/null
    nfs=$(lab_link_url increments "$LAB_NFS")
    copy -c --digests "$nfs/gen-0.dig" "$url" "$nfs/gen-0.qcow2"
    for generation in 1 2 3 4 5; do
        before=gen-$((generation - 1))
        changes "$generation"
        cp "$file" "$T/gen-$generation.raw"
        came=$(came_through)
        copy -c --lanes $((generation % 3 + 1)) -B "$nfs/$before.qcow2" --base-digests "$nfs/$before.dig" \
            --digests "$nfs/gen-$generation.dig" "$url" "$nfs/gen-$generation.qcow2"
        came=$(($(came_through) - came))
        # Eleven or twelve blocks of 256 KiB, in chunks of two; tables, and the digests of the one before.
        [[ $came -lt 8000000 ]] || fail "$came bytes were read for twelve blocks that differ"
        qemu-img check -q "$LAB_NFS_DIR/gen-$generation.qcow2" || fail "qemu-img check finds fault"
        run 0 "$LUNFERRY" checksum --check --digests "$nfs/gen-$generation.dig" "$nfs/gen-$generation.qcow2"
    done
    for generation in 1 2 3 4 5; do
        run 0 "$LUNFERRY" compare "$LAB_NFS/gen-$generation.qcow2" "$T/gen-$generation.raw"
    done
}
