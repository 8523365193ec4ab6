# shellcheck shell=bash disable=SC2154
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# lunferry compare, between an NFS server and a target. What it says is held against cmp's answers
# about the servers' own files.

# poke FILE OFFSET: changes the byte there.
poke() {
    local byte
    byte=$(od -An -tu1 -j "$2" -N 1 "$1")
    # shellcheck disable=SC2059
    printf "\\$(printf %03o $((byte ^ 0x55)))" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}

# compare STATUS [OPTION...] A B: without -p, and with no terminal, only --all speaks on stderr.
compare() {
    run "$1" "$LUNFERRY" compare "${@:2}"
    [[ ! -s $T/err || $* == *--all* ]] || fail "said: $(cat "$T/err")"
}

answers() {
    [[ $(cat "$T/out") == "$1" ]] || fail "answered: $(cat "$T/out"), not: $1"
}

# A file on NFS and a LUN that hold the same; $image and $disk are the servers' files.
pair() {
    image=$LAB_NFS_DIR/pair.img
    image "$image" "$1"
    lun=$(lab_lun_new "pair-$2" "$1" "${3:-512}")
    disk=$(lab_backing "pair-$2")
    cp "$image" "$disk"
    trap 'rm -f "$image"' EXIT
}

# Both files' bytes at the first place at which cmp finds them different.
expected_first() {
    cmp -l "$image" "$disk" | head -n 1 | {
        read -r place a b
        printf 'different: at offset %d, where A has 0x%02x and B has 0x%02x\n' \
            $((place - 1)) $((8#$a)) $((8#$b))
    }
}

# The ranges by cmp's list of bytes: a gap of less than 512 bytes belongs to a range.
expected_ranges() {
    cmp -l "$1" "$2" | awk '
        { at = $1 - 1 }
        NR > 1 && at - last >= 512 { print first, last - first + 1; first = at }
        NR == 1 { first = at }
        { last = at }
        END { if (NR) print first, last - first + 1 }'
}

test_compare_says_same() {
    pair 20M same
    compare 0 "$LAB_NFS/pair.img" "$lun"
    answers "the same: 20971520 bytes"
    compare 0 -q "$lun" "$LAB_NFS/pair.img"
    answers ""
    compare 0 -m 1 --request-size 4k "$image" "$lun"
    compare 0 -m 100 --request-size 16M "$lun" "$lun"
    run 0 "$LUNFERRY" compare -p "$LAB_NFS/pair.img" "$lun"
    says "compared 20.00 MiB in"
}

test_compare_finds_a_difference_anywhere() {
    pair 20M first
    local at
    for at in 20971519 20971008 10485760 10485759 5000001 524288 524287 511 0; do
        poke "$disk" "$at"
        compare 1 "$LAB_NFS/pair.img" "$lun"
        answers "$(expected_first)"
    done
}

test_compare_blocks_of_4096_bytes() {
    pair 8M blocks 4096
    poke "$disk" 4097
    poke "$disk" 8388607
    compare 1 "$lun" "$LAB_NFS/pair.img"
    [[ $(cat "$T/out") == "different: at offset 4097, where A "* ]] || fail "$(cat "$T/out")"
}

test_compare_does_not_write() {
    pair 4M untouched
    chmod 444 "$image"
    touch -d 2001-01-01 "$image" "$disk"
    compare 0 "$LAB_NFS/pair.img" "$lun"
    [[ $(stat -c %Y "$image" "$disk" | sort -u) == "$(date -d 2001-01-01 +%s)" ]] ||
        fail "something was written"
    compare 0 "$LAB_LUNRO" "null:16M"
}

test_compare_sizes() {
    pair 3M sizes
    head -c 1000001 "$disk" >"$image"
    fill "$disk" 000
    dd if="$image" of="$disk" conv=notrunc status=none
    compare 0 "$LAB_NFS/pair.img" "$lun"
    answers "the same: 1000001 bytes; 2145727 more, which only B has, are zeros"
    compare 0 "$lun" "$LAB_NFS/pair.img"
    answers "the same: 1000001 bytes; 2145727 more, which only A has, are zeros"
    compare 1 --strict "$LAB_NFS/pair.img" "$lun"
    answers "different sizes: A has 1000001 bytes, B has 3145728"
    poke "$disk" 3000000
    compare 1 "$LAB_NFS/pair.img" "$lun"
    answers "different: at offset 3000000, where A ends after 1000001 bytes and B has 0x55"
    poke "$disk" 1000001
    compare 1 --all "$lun" "$LAB_NFS/pair.img"
    answers $'1000001 1\n3000000 1'
    : >"$image"
    compare 0 "$LAB_NFS/pair.img" null:1
    : >"$T/empty"
    compare 0 --strict "$LAB_NFS/pair.img" "$T/empty"
}

test_compare_all_lists_what_cmp_lists() {
    pair 8M all
    local at
    # Single bytes, neighbours, gaps around 512 and around the ends of chunks, a long stretch.
    for at in 0 1 512 1024 1536 2047 4000 4511 5023 524287 524288 1048065 1048576 8388096 8388607; do
        poke "$disk" "$at"
    done
    dd if=/dev/urandom of="$disk" bs=1k seek=3000 count=1500 conv=notrunc status=none
    compare 1 --all "$LAB_NFS/pair.img" "$lun"
    diff <(expected_ranges "$image" "$disk") "$T/out" || fail "the ranges differ from cmp's"
    says "different: $(wc -l <"$T/out") ranges, [0-9]+ bytes; the first at offset 0, where A has"
    cp "$T/out" "$T/want"
    compare 1 --all -q -m 3 --request-size 12k "$LAB_NFS/pair.img" "$lun"
    cmp "$T/out" "$T/want"
    [[ ! -s $T/err ]] || fail "-q said: $(cat "$T/err")"
    cp "$image" "$disk"
    compare 0 --all "$LAB_NFS/pair.img" "$lun"
    answers ""
    says "the same: 8388608 bytes"
}

test_compare_json() {
    pair 8M json
    poke "$disk" 1000
    poke "$disk" 1100
    poke "$disk" 7000000
    compare 1 --json "$LAB_NFS/pair.img" "$lun"
    cp "$T/out" "$T/one"
    compare 1 --json --all "$LAB_NFS/pair.img" "$lun"
    cp "$T/out" "$T/all"
    cp "$image" "$disk"
    compare 0 --json "$LAB_NFS/pair.img" "$lun"
    cp "$T/out" "$T/same"
    run 2 "$LUNFERRY" compare --json "$LAB_NFS/pair.img" "$LAB_NFS/none"$'\xff'.img
    python3 - "$T" "$lun" <<'END' || fail "not the JSON that was expected"
import json, sys
def lines(name):
    return [json.loads(line) for line in open(sys.argv[1] + "/" + name)]
size = 8388608
one, = lines("one")
assert one["same"] is False and one["first"]["offset"] == 1000, one
assert one["first"]["a"] ^ 0x55 == one["first"]["b"], one
assert one["a"]["size"] == one["b"]["size"] == size and one["b"]["endpoint"] == sys.argv[2], one
*ranges, end = lines("all")
assert ranges == [{"start": 1000, "length": 101}, {"start": 7000000, "length": 1}], ranges
assert end["same"] is False and end["ranges"] == 2 and end["range-bytes"] == 102, end
same, = lines("same")
assert same["same"] is True and same["compared"] == size and "first" not in same, same
failed, = lines("out")
assert failed["same"] is None and failed["a"]["size"] is None, failed
assert failed["error"].startswith("B: opening nfs://"), failed
END
}

test_compare_refuses() {
    pair 1M refuses
    run 2 "$LUNFERRY" compare "$LAB_NFS/none.img" "$lun"
    says "^lunferry: A: opening nfs://.*none.img: .*NOENT"
    run 2 "$LUNFERRY" compare "$LAB_NFS/pair.img" "${LAB_ISCSI}250"
    says "^lunferry: B: opening iscsi://"
    run 2 "$LUNFERRY" compare "$LAB_NFS/pair.img"
    says "two endpoints, A and B, are needed"
    run 2 "$LUNFERRY" compare "$LAB_NFS/pair.img" "$lun" "$lun"
    says "one argument too many"
    run 2 "$LUNFERRY" compare -m 0 "$LAB_NFS/pair.img" "$lun"
    run 2 "$LUNFERRY" compare -p -q "$LAB_NFS/pair.img" "$lun"
    says "contradict"
}

# The target's file is cut short behind its back: it then reports a medium error beyond. What differs
# before that is found all the same.
test_compare_when_reading_fails() {
    pair 8M broken
    truncate -s 6M "$disk"
    run 3 "$LUNFERRY" compare "$LAB_NFS/pair.img" "$lun"
    says "^lunferry: B: reading $lun at offset [0-9]+: .*MEDIUM ERROR"
    run 3 "$LUNFERRY" compare "$lun" "$LAB_NFS/pair.img"
    says "^lunferry: A: reading"
    poke "$disk" 6000000
    compare 1 "$LAB_NFS/pair.img" "$lun"
    answers "$(expected_first 2>/dev/null)"
    run 3 "$LUNFERRY" compare --all "$LAB_NFS/pair.img" "$lun"
    answers "6000000 1"
}

test_compare_over_a_slow_link() {
    pair 8M slow
    lab_link far --delay-us 3000 >/dev/null
    trap 'rm -f "$image"; lab_link_stop far' EXIT
    compare 0 "$(lab_link_url far "$LAB_NFS/pair.img")" "$(lab_link_url far "$lun")"
    poke "$disk" 8000000
    compare 1 "$(lab_link_url far "$LAB_NFS/pair.img")" "$lun"
    answers "$(expected_first)"
}

test_compare_is_interrupted() {
    pair 16M stopped
    lab_link slow --rate 1000000 >/dev/null
    trap 'rm -f "$image"; lab_link_stop slow' EXIT
    background "$LUNFERRY" compare -p "$(lab_link_url slow "$LAB_NFS/pair.img")" "$lun"
    lab_wait "$HANG" link_has_carried slow 1000000 || fail "nothing was read"
    kill -USR1 "$pid"
    lab_wait "$HANG" grep -q "of 16.00 MiB" "$T/err" || fail "SIGUSR1 was not answered"
    kill -INT "$pid"
    wait_status 130
    says "lunferry: interrupted$"
}

# Sessions on both sides are lost in the middle, and what they carried is read again.
test_compare_goes_on_after_lost_sessions() {
    pair 16M lost
    lab_link flaky --rate 8000000 --cut-after 4M --cut-every >/dev/null
    trap 'rm -f "$image"; lab_link_stop flaky' EXIT
    poke "$disk" 16777215
    run 1 "$LUNFERRY" compare "$(lab_link_url flaky "$LAB_NFS/pair.img")" \
        "$(lab_link_url flaky "$lun")"
    answers "$(expected_first)"
    says "^lunferry: A: nfs://.* is away: "
    says "^lunferry: A: nfs://.* is back after "
    says "^lunferry: B: iscsi://.* is away: "
    says "^lunferry: B: iscsi://.* is back after "
}

test_compare_list_that_cannot_be_written() {
    pair 2M full
    poke "$disk" 3
    local got=0
    "$LUNFERRY" compare --all "$LAB_NFS/pair.img" "$lun" >/dev/full 2>"$T/err" || got=$?
    [[ $got -eq 3 ]] || fail "exit status $got"
    says "writing to stdout failed: No space left on device"
}
