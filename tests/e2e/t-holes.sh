# shellcheck shell=bash disable=SC2154
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Files with holes: the bytes are the same afterwards, and what was a hole occupies nothing.

# holed FILE SIZE [MIB...]: a file of SIZE bytes, a hole but for 2 MiB of data at each of these places.
holed() {
    local file=$1 size=$2 at
    shift 2
    rm -f "$file"
    truncate -s "$size" "$file"
    for at in "$@"; do
        image "$T/data$at" 2M
        dd if="$T/data$at" of="$file" bs=1M seek="$at" conv=notrunc status=none
    done
}

occupied() {
    echo $(($(stat -c '%b * %B' "$1")))
}

# as_sparse A B [MORE]: B occupies no more than A and MORE bytes; filesystems keep a little for themselves.
as_sparse() {
    local a b
    sync "$1" "$2"
    a=$(occupied "$1") b=$(occupied "$2")
    [[ $b -le $((a + ${3:-0} + 262144)) ]] || fail "$2 occupies $b bytes, $1 only $a"
}

# Holes at the start, at the end, between, nothing else, and nowhere; the last one of an odd size.
layouts=("32M 30" "32M 0" "32M 0 9 30" "32M" "4M 0 2" "33000001 5")

# each_layout FUNCTION: with the file $T/image as each of them.
each_layout() {
    local layout words
    for layout in "${layouts[@]}"; do
        read -ra words <<<"$layout"
        echo "    data: $layout" # to be seen when it fails
        holed "$T/image" "${words[@]}"
        "$1"
    done
}

same_and_sparse() {
    cmp "$T/image" "$1" || fail "the bytes differ"
    as_sparse "$T/image" "$1"
}

file_to_file() {
    rm -f "$T/copy"
    copy "$T/image" "$T/copy"
    same_and_sparse "$T/copy"
}

test_holes_from_file_to_file() {
    each_layout file_to_file
}

# The server says how much is occupied, not where the holes are: zeros are found in what was read.
file_to_nfs_and_back() {
    rm -f "$LAB_NFS_DIR/h.img" "$T/copy"
    copy "$T/image" "$LAB_NFS/h.img"
    same_and_sparse "$LAB_NFS_DIR/h.img"
    copy "$LAB_NFS/h.img" "$T/copy"
    same_and_sparse "$T/copy"
}

test_holes_from_file_to_nfs_and_back() {
    each_layout file_to_nfs_and_back
    rm "$LAB_NFS_DIR/h.img"
}

# What the target had is punched out of it. Its first MiB, which is blanked first, stays allocated.
over_old_data() {
    truncate -s "$(stat -c %s "$T/image")" "$T/old"
    fill "$T/old" 252
    copy -n --overwrite "$T/image" "$T/old"
    cmp "$T/image" "$T/old" || fail "the bytes differ"
    as_sparse "$T/image" "$T/old" 1048576
}

test_holes_over_old_data() {
    each_layout over_old_data
}

test_holes_are_written_when_asked_to() {
    holed "$T/image" 16M 4
    copy -S 0 "$T/image" "$T/copy"
    cmp "$T/image" "$T/copy" || fail "the bytes differ"
    sync "$T/copy"
    [[ $(occupied "$T/copy") -ge 16777216 ]] || fail "there are holes"
}

# Were it read, this would take an hour.
test_holes_of_one_tebibyte() {
    holed "$T/image" 1T 0 3 500000 1048574
    run 0 "$LUNFERRY" copy --dry-run "$T/image" "$T/copy"
    [[ ! -e $T/copy ]] || fail "--dry-run made a file"
    copy "$T/image" "$T/copy"
    as_sparse "$T/image" "$T/copy"
    qemu-img compare -f raw -F raw -s "$T/image" "$T/copy" >"$T/out" || fail "$(cat "$T/out")"
}

test_nfs_files_are_cut_and_grown() {
    : >"$LAB_NFS_DIR/cut.img"
    LUNFERRY_TEST_NFS=$LAB_NFS/cut.img run 0 "${LUNFERRY%/*}/tests/test_nfs_resize"
    rm "$LAB_NFS_DIR/cut.img"
}
