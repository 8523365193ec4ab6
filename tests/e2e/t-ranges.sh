# shellcheck shell=bash disable=SC2154,SC2317
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Parts of things: several sources that make one image, a range of one, an image that begins somewhere
# in its target. And what is refused of that, before anything is written.

ranges_clean() {
    rm -f "$LAB_NFS_DIR"/{part,long,ranged}.img "$LAB_NFS_DIR"/.*.lunferry-*
}

# random_lun: the LUN is full of bytes that do not compress. In place: the target has its file open.
random_lun() {
    image "$T/random" "$(stat -c %s "$lun_file")"
    dd if="$T/random" of="$lun_file" bs=1M conv=notrunc status=none
    rm "$T/random"
}

# part FILE OFFSET LENGTH: on stdout.
part() {
    dd if="$1" iflag=skip_bytes,count_bytes bs=1M skip="$2" count="$3" status=none
}

# ---- Several sources -----------------------------------------------------------------------------

# An NFS file and a local one whose sizes are no multiple of anything, a LUN between them. $whole has
# what they make.
three_parts() {
    trap ranges_clean EXIT
    lun thick "$1" 16M 4096
    image "$LAB_NFS_DIR/part.img" 5000001
    random_lun
    image "$T/local.img" 1234567
    cat "$LAB_NFS_DIR/part.img" "$lun_file" "$T/local.img" >"$T/whole"
    parts=("$LAB_NFS/part.img" "$lun" "$T/local.img")
}

test_three_sources_make_one_image() {
    local options
    three_parts row-of-three
    for options in "" --verify "--lanes 3" "--in-order -m 3" "--request-size 12k" "-S 0"; do
        # shellcheck disable=SC2086
        copy $options --overwrite "${parts[@]}" "$LAB_NFS/long.img"
        cmp "$T/whole" "$LAB_NFS_DIR/long.img"
        fill "$LAB_LUN512_FILE" 252
        # shellcheck disable=SC2086
        copy $options --overwrite "${parts[@]}" "$LAB_LUN512"
        same "$T/whole" "$LAB_LUN512_FILE"
        all_of 252 "$LAB_LUN512_FILE" "$(stat -c %s "$T/whole")" 8388608
    done
    copy "${parts[2]}" "${parts[1]}" "${parts[0]}" "$T/reversed.img"
    cmp <(cat "$T/local.img" "$lun_file" "$LAB_NFS_DIR/part.img") "$T/reversed.img"
    copy "${parts[0]}" null:1M "${parts[0]}" "$T/twice.img"
    cmp <(cat "$LAB_NFS_DIR/part.img" <(head -c 1M /dev/zero) "$LAB_NFS_DIR/part.img") "$T/twice.img"
    cmp <(head -c 5000001 "$T/whole") "$LAB_NFS_DIR/part.img"
}

test_holes_of_several_sources() {
    trap ranges_clean EXIT
    lun thin row-thin 16M
    lab_sparse write "$lun_file" 4M+1M
    truncate -s 40M "$T/local.img"
    lab_sparse write "$T/local.img" 30M+1M
    copy "$lun" "$T/local.img" "$LAB_NFS/long.img"
    cmp <(cat "$lun_file" "$T/local.img") "$LAB_NFS_DIR/long.img"
    holds "$LAB_NFS_DIR/long.img" $((2 << 20)) "$(allowed_for $((2 << 20)) 2)"
}

test_several_sources_resumed() {
    three_parts row-resumed
    trap 'lab_link_stop still 2>/dev/null || true; ranges_clean' EXIT
    from=$(lab_link still --stall-after 12M >/dev/null && lab_link_url still "$lun")
    background "$LUNFERRY" copy --journal "$T/journal" --flush-size 1M --request-size 256k -m 4 \
        --timeout 600 "${parts[0]}" "$from" "${parts[2]}" "$LAB_NFS/long.img"
    lab_wait 60 has_recorded 24 || fail "not even the first source is on record"
    lab_wait 60 stands_still 12 || fail "12 MiB never came"
    kill -KILL "$pid"
    wait "$pid" || true
    lab_link_cut still
    lab_wait 60 was_cut || fail "the link still stands still"
    run 2 "$LUNFERRY" copy --journal "$T/journal" --resume --request-size 256k -m 4 \
        "$from" "${parts[0]}" "${parts[2]}" "$LAB_NFS/long.img"
    [[ -e $T/journal ]] || fail "the journal is gone"
    run 0 "$LUNFERRY" copy --journal "$T/journal" --resume --request-size 256k -m 4 \
        "${parts[0]}" "$from" "${parts[2]}" "$LAB_NFS/long.img"
    says "resuming: "
    cmp "$T/whole" "$LAB_NFS_DIR/long.img"
}

# ---- A range of the source -----------------------------------------------------------------------

test_range_of_every_kind_of_source() {
    local range from file
    trap ranges_clean EXIT
    lun thick ranged 16M 512
    image "$LAB_NFS_DIR/part.img" 5000001
    random_lun
    for range in 0+1 0+512 512+4999489 4096+100001 1048576+1048576 1M+2M 2.5M+64K; do
        read -r offset length < <(numfmt --from=iec --to=none <<<"${range/+/$'\n'}" | paste -sd ' ')
        for from in "$LAB_NFS/part.img" "$lun"; do
            file=$LAB_NFS_DIR/part.img
            [[ $from == nfs* ]] || file=$lun_file
            copy --overwrite --source-range "${range//K/k}" "$from" "$T/ranged.img"
            cmp <(part "$file" "$offset" "$length") "$T/ranged.img" || fail "$range of $from"
            [[ $(stat -c %s "$T/ranged.img") -eq $length ]] || fail "it is longer than $length"
        done
    done
    # Files have no blocks.
    copy --source-range 1234567+2000001 "$LAB_NFS/part.img" "$LAB_NFS/ranged.img"
    cmp <(part "$LAB_NFS_DIR/part.img" 1234567 2000001) "$LAB_NFS_DIR/ranged.img"
    copy --overwrite --verify --lanes 2 --source-range 15M+1M "$lun" "$LAB_NFS/ranged.img"
    cmp <(part "$lun_file" 15728640 1048576) "$LAB_NFS_DIR/ranged.img"
    copy --overwrite --source-range 1000000+234567 "$LAB_NFS_DIR/part.img" "$LAB_LUN4K"
    cmp -n 234567 <(part "$LAB_NFS_DIR/part.img" 1000000 234567) "$LAB_LUN4K_FILE"
}

test_holes_in_a_range() {
    trap ranges_clean EXIT
    lun thin ranged-thin 64M
    lab_sparse write "$lun_file" 8M+4M 40M+4M
    copy --source-range 10M+32M "$lun" "$LAB_NFS/ranged.img"
    cmp <(part "$lun_file" 10485760 33554432) "$LAB_NFS_DIR/ranged.img"
    holds "$LAB_NFS_DIR/ranged.img" $((4 << 20)) "$(allowed_for $((4 << 20)) 2)"
}

# ---- An offset in the target ---------------------------------------------------------------------

# at_offset OFFSET OPTION...: an image with holes onto a LUN full of 0xAA; what is around it stays.
at_offset() {
    local text=$1 offset from
    offset=$(numfmt --from=iec "$1")
    shift
    for from in "$LAB_NFS" "$T"; do
        fill "$lun_file" 252
        copy --overwrite --target-offset "$text" "$@" "$from/holey.img" "$lun"
        cmp -n "$holey_size" "$T/holey.img" <(tail -c +$((offset + 1)) "$lun_file") ||
            fail "at $offset of $lun_name there is something else"
        all_of 252 "$lun_file" 0 "$offset"
        all_of 252 "$lun_file" $((offset + holey_size)) $(((80 << 20) - offset - holey_size))
    done
}

test_offset_in_a_lun() {
    local kind
    thin_images
    for kind in thick thin; do
        lun "$kind" "at-$kind" 80M 4096
        at_offset 4096
        at_offset 7M
        at_offset 12345344 --verify
        at_offset $((16 << 20)) --lanes 3
        at_offset 1M -S 0
    done
}

# The image ends, and a tail begins, in the middle of a block.
test_offset_and_tail() {
    trap ranges_clean EXIT
    lun thin at-tail 32M 4096
    image "$T/odd.img" 3000001
    fill "$lun_file" 252
    copy --overwrite --target-offset 5M "$T/odd.img" "$lun"
    cmp "$T/odd.img" <(part "$lun_file" 5242880 3000001)
    all_of 252 "$lun_file" 0 5242880
    all_of 252 "$lun_file" $((5242880 + 3000001)) $(((32 << 20) - 5242880 - 3000001))
    copy --overwrite --zero-tail --target-offset 5M "$T/odd.img" "$lun"
    cmp "$T/odd.img" <(part "$lun_file" 5242880 3000001)
    all_of 252 "$lun_file" 0 5242880
    all_of 0 "$lun_file" $((5242880 + 3000001)) $(((32 << 20) - 5242880 - 3000001))
}

test_offset_in_a_file_and_a_range() {
    trap ranges_clean EXIT
    image "$LAB_NFS_DIR/long.img" 8M
    image "$LAB_NFS_DIR/part.img" 3M
    cp "$LAB_NFS_DIR/long.img" "$T/want.img"
    part "$LAB_NFS_DIR/part.img" 12345 1000003 |
        dd of="$T/want.img" bs=64k oflag=seek_bytes seek=2000003 conv=notrunc status=none
    copy -n --overwrite --source-range 12345+1000003 --target-offset 2000003 \
        "$LAB_NFS/part.img" "$LAB_NFS/long.img"
    cmp "$T/want.img" "$LAB_NFS_DIR/long.img"
}

# From one place of a LUN to another, either way.
test_from_place_to_place_of_one_lun() {
    local to from
    trap ranges_clean EXIT
    lun thick place-to-place 16M
    for to in 0 8; do
        from=$((8 - to))
        random_lun
        cp "$lun_file" "$T/before"
        copy --overwrite --source-range "${from}M+8M" --target-offset "${to}M" "$lun" "$lun"
        cmp <(part "$T/before" $((from << 20)) 8388608) <(part "$lun_file" $((to << 20)) 8388608)
        cmp <(part "$T/before" $((from << 20)) 8388608) <(part "$lun_file" $((from << 20)) 8388608)
    done
}

test_offset_on_a_lun_is_resumed() {
    trap 'lab_link_stop still 2>/dev/null || true; ranges_clean' EXIT
    lun thin at-resumed 32M
    image "$LAB_NFS_DIR/part.img" 20M
    fill "$lun_file" 252
    killed_at 11 "$LAB_NFS/part.img" "$lun" --source-range 1M+16M --target-offset 8M
    cmp <(part "$LAB_NFS_DIR/part.img" 1048576 $((16 << 20))) <(part "$lun_file" 8388608 $((16 << 20)))
    all_of 252 "$lun_file" 0 8388608
    all_of 252 "$lun_file" $((24 << 20)) 8388608
}

# ---- Refused -------------------------------------------------------------------------------------

# untouched PATTERN... -- ARGUMENT...: refused with status 2 and a sentence with all of the patterns;
# neither of the LUNs has changed.
untouched() {
    local patterns=() pattern before
    while [[ $1 != -- ]]; do
        patterns+=("$1")
        shift
    done
    shift
    before=$(sha256sum "$small_file" "$blocks_file")
    run 2 "$LUNFERRY" copy --overwrite "$@"
    for pattern in "${patterns[@]}"; do
        says "$pattern"
    done
    [[ $(sha256sum "$small_file" "$blocks_file") == "$before" ]] || fail "a LUN was changed: $*"
    [[ ! -e $LAB_NFS_DIR/ranged.img && ! -e $T/ranged.img ]] || fail "a file was made: $*"
    no_temporary "$LAB_NFS_DIR"
}

# LUNs of 16 MiB, thin with blocks of 512 bytes and thick with 4096.
ranges_refused() {
    trap ranges_clean EXIT
    lun thin "$1-small" 16M
    random_lun
    small=$lun small_file=$lun_file
    lun thick "$1-blocks" 16M 4096
    random_lun
    blocks=$lun blocks_file=$lun_file
    image "$LAB_NFS_DIR/part.img" 8M
    nfs=$LAB_NFS/part.img
}

test_bad_ranges() {
    ranges_refused bad-range
    untouched "--source-range" "empty" "1 or more" -- --source-range 1M+0 "$nfs" "$small"
    untouched "OFFSET\+LENGTH" "64k\+1G" -- --source-range 1M "$nfs" "$small"
    untouched "--source-range" -- --source-range 1M+ "$nfs" "$small"
    untouched "--source-range" -- --source-range +1M "$nfs" "$small"
    untouched "--source-range" "1x" "k, M, G" -- --source-range 1x+1M "$nfs" "$small"
    untouched "--source-range" "2MB" "k, M, G" -- --source-range 1M+2MB "$nfs" "$small"
    untouched "--source-range" -- --source-range -1+1M "$nfs" "$small"
    untouched "8 EiB" -- --source-range 4k+9223372036854775807 "$nfs" "$small"
    untouched "8388608 bytes" "add up to 8388609" -- --source-range 8M+1 "$nfs" "$small"
    untouched "8388608 bytes" "add up to 8388609" -- --source-range 7M+1048577 "$nfs" "$LAB_NFS/ranged.img"
    untouched "16777216 bytes" -- --source-range 16M+512 "$small" "$LAB_NFS/ranged.img"
    untouched "blocks of 4096 bytes" "512 is no multiple" "0 and 4096 are" -- \
        --source-range 512+8k "$blocks" "$small"
    untouched "blocks of 512 bytes" "1000 is no multiple" "512 and 1024 are" -- \
        --source-range 1000+8k "$small" "$T/ranged.img"
    untouched "one SOURCE" -- --source-range 0+1M "$nfs" "$small" "$blocks"
    untouched "one range" -- --source-range 0+1M --source-range 2M+1M "$nfs" "$small"
}

test_bad_offsets() {
    ranges_refused bad-offset
    untouched "--target-offset" "1Z" "k, M, G" -- --target-offset 1Z "$nfs" "$small"
    untouched "--target-offset" "new file" -- --target-offset 1M "$nfs" "$LAB_NFS/ranged.img"
    untouched "--target-offset" "new file" -- --target-offset 1M "$nfs" "$T/ranged.img"
    # An existing one would be replaced by a new one.
    untouched "--target-offset" "new file" "-n" -- --target-offset 1M "$small" "$nfs"
    untouched "--zero-tail" "new file" -- --zero-tail "$nfs" "$LAB_NFS/ranged.img"
    untouched "16777216 bytes" "16777216$|16777216;" -- --target-offset 16M "$nfs" "$small"
    untouched "16777216 bytes" -- --target-offset 1T "$nfs" "$small"
    untouched "blocks of 4096 bytes" "512 is no multiple" "0 and 4096 are" -- \
        --target-offset 512 "$nfs" "$blocks"
    untouched "too small" "target-offset" -- --target-offset 9M "$nfs" "$small"
    untouched "too small" -- "$nfs" "$nfs" "$nfs" "$small"
    untouched "-S" "1x" -- -S 1x "$nfs" "$small"
    untouched "-S" "16M" -- -S 17M "$nfs" "$small"
}

test_empty_source_among_several() {
    ranges_refused empty
    : >"$T/empty.img"
    untouched "$T/empty.img is empty" -- "$nfs" "$T/empty.img" "$small"
}

test_ranges_of_one_lun_that_overlap() {
    ranges_refused overlap
    untouched "overlap" -- --source-range 0+8M --target-offset 4M "$small" "$small"
    untouched "overlap" -- --source-range 4M+8M "$small" "$small"
    untouched "overlap" -- --source-range 4M+4M --target-offset 8388096 "$small" "$small"
    untouched "same thing" -- --target-offset 8M "$small" "$small"
    untouched "same thing|overlap" -- "$nfs" "$small" "$small"
    cp "$LAB_NFS_DIR/part.img" "$T/before"
    untouched "overlap" -- -n --source-range 0+1M --target-offset 1000000 "$nfs" "$nfs"
    cmp "$T/before" "$LAB_NFS_DIR/part.img"
}

# What is unmapped first, or zeroed behind the image, must not be what is to be read.
test_discard_and_tail_spare_the_source() {
    ranges_refused spared
    untouched "same thing" -- --discard --source-range 8M+4M "$small" "$small"
    untouched "same thing" -- --zero-tail --source-range 8M+4M "$small" "$small"
    untouched "same thing" -- --zero-tail --target-offset 1M --source-range 8M+4M "$small" "$small"
    # Before the offset nothing is touched.
    cp "$small_file" "$T/before"
    copy --overwrite --discard --zero-tail --source-range 1M+2M --target-offset 8M "$small" "$small"
    cmp -n 8388608 "$T/before" "$small_file"
    cmp <(part "$T/before" 1048576 2097152) <(part "$small_file" 8388608 2097152)
    all_of 0 "$small_file" $((10 << 20)) $((6 << 20))
}
