# shellcheck shell=bash disable=SC2154
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# --delta: what the target holds is read beside the source, and only what differs is written.

# changed FILE: another one with three changes, of a byte, of 100,000 bytes and of a MiB of zeros.
changed() {
    cp "$1" "$T/next"
    printf x | dd of="$T/next" bs=1 seek=5000001 conv=notrunc status=none
    dd if=/dev/urandom of="$T/next" bs=100000 count=1 seek=30 conv=notrunc status=none
    dd if=/dev/zero of="$T/next" bs=1M count=1 seek=6 conv=notrunc status=none
}

# What differs at most, in units of 4 KiB: one, and 26, and what of the zeros is written as such.
moved_at_most() {
    local words
    words=$(grep -o '[0-9.]* [KM]iB of data moved' "$T/err") || fail "nothing is said of what was moved"
    awk -v most="$1" '{ if ($1 * ($2 == "MiB" ? 1024 : 1) > most) exit 1 }' <<<"$words" ||
        fail "$words, and at most $1 KiB were to be"
}

test_delta_onto_a_lun() {
    local lanes
    image "$T/template" 9000001
    for lanes in 1 3; do
        copy --overwrite "$T/template" "$LAB_LUN512"
        changed "$T/template"
        run 0 "$LUNFERRY" copy -p --lanes "$lanes" --delta --overwrite "$T/next" "$LAB_LUN512"
        moved_at_most $((4 * 27 + 1024))
        same "$T/next" "$LAB_LUN512_FILE"
        run 0 "$LUNFERRY" copy -p --lanes "$lanes" --delta --overwrite "$T/next" "$LAB_LUN512"
        says ' 0 B of data moved'
        same "$T/next" "$LAB_LUN512_FILE"
    done
}

test_delta_in_place() {
    image "$T/template" 9000001
    cp "$T/template" "$T/target"
    changed "$T/template"
    run 0 "$LUNFERRY" copy -p -n --delta --overwrite "$T/next" "$T/target"
    moved_at_most $((4 * 27 + 1024))
    cmp "$T/next" "$T/target"
}

# Only what a thin LUN holds is read, and what becomes zero is freed.
test_delta_onto_a_thin_lun() {
    local name=delta-thin url file
    url=$(lab_lun_thin "$name" 64M)
    file=$(lab_backing "$name")
    image "$T/template" 9000001
    copy "$T/template" "$url"
    changed "$T/template"
    run 0 "$LUNFERRY" copy -p --delta --overwrite "$T/next" "$url"
    moved_at_most $((4 * 27))
    same "$T/next" "$file"
}

test_delta_is_refused() {
    image "$T/template" 9000001
    run 2 "$LUNFERRY" copy --delta "$T/template" "$T/new.img"
    says 'a new file holds nothing that it could differ from'
    [[ ! -e $T/new.img ]] || fail "something was made"
    copy --overwrite "$T/template" "$LAB_LUN512"
    run 2 "$LUNFERRY" copy --delta "$T/template" "$LAB_LUN512"
    says '--overwrite would replace it'
    run 2 "$LUNFERRY" copy --delta --overwrite --discard "$T/template" "$LAB_LUN512"
    says '--delta counts on what the target holds'
    run 2 "$LUNFERRY" copy --delta --overwrite --target-is-zero "$T/template" "$LAB_LUN512"
    says '--delta counts on what the target holds'
}
