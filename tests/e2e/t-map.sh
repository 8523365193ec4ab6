# shellcheck shell=bash disable=SC2154
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# What lunferry map says of real things, and that qemu-img says the same of those that it knows.

# ranges FILE: a JSON map as lines "START LENGTH data|zeros", neighbours of one kind made one, after a
# look at whether it is all there is to say.
ranges() {
    python3 - "$1" <<'END'
import json
import sys

lines = []
with open(sys.argv[1], encoding="ascii") as file:
    array = json.load(file)
for entry in array:
    kind = "zeros" if entry["zero"] else "data"
    assert entry["zero"] != entry["data"] and entry["depth"] == 0, entry
    assert entry.get("kind", kind) == kind, entry
    end = lines[-1][0] + lines[-1][1] if lines else 0
    assert entry["start"] == end and entry["length"] > 0, entry
    if lines and lines[-1][2] == kind:
        assert "kind" not in entry, "lunferry says in two what is one"
        lines[-1][1] += entry["length"]
    else:
        lines.append([entry["start"], entry["length"], kind])
for line in lines:
    print(*line)
END
}

# maps ENDPOINT: the ranges of its map, with --json and without, which are the same, are in $T/ranges.
maps() {
    run 0 "$LUNFERRY" map --json "$1"
    ranges "$T/out" >"$T/ranges"
    run 0 "$LUNFERRY" map "$1"
    sed '1d; $d' "$T/out" | awk '{ print $1, $2, $NF }' | cmp - "$T/ranges" ||
        fail "the table and the array differ"
    awk '{ bytes[$3] += $2; count[$3]++ } END {
        printf "data: %.0f bytes %d zeros: %.0f bytes %d\n", bytes["data"], count["data"], bytes["zeros"],
            count["zeros"] }' "$T/ranges" >"$T/total"
    tail -n 1 "$T/out" | sed -E 's/ \([^)]*\) in ([0-9]+) ranges?;?/ \1/g' | cmp - "$T/total" ||
        fail "the totals are not those of the ranges"
}

# is "START LENGTH KIND"...: just these.
is() {
    printf '%s\n' "$@" | diff - "$T/ranges" || fail "the map is another one"
}

# piece FILE OFFSET LENGTH: bytes that are not zero, there, in KiB.
piece() {
    head -c "$3K" /dev/zero | tr '\0' x | dd of="$1" bs=1K seek="$2" conv=notrunc status=none
}

as_qemu_does() {
    qemu-img map --output=json -f raw "$1" >"$T/qemu"
    ranges "$T/qemu" | diff - "$T/ranges" || fail "qemu-img has another map"
}

test_map_of_a_sparse_file() {
    local file=$T/sparse.img
    # With holes at the start, at the end, and between; at multiples of what any file system has as blocks.
    truncate -s 12M "$file"
    piece "$file" 1024 2048
    piece "$file" 5120 64
    piece "$file" 5248 64
    maps "$file"
    is "0 1048576 zeros" "1048576 2097152 data" "3145728 2097152 zeros" "5242880 65536 data" \
        "5308416 65536 zeros" "5373952 65536 data" "5439488 7143424 zeros"
    as_qemu_does "$file"
    # A size that is no multiple of 4 KiB (of 512 bytes it has to be, for qemu-img), and data up to it.
    head -c 512 /dev/zero | tr '\0' x >>"$file"
    maps "$file"
    as_qemu_does "$file"
    [[ $(tail -n 1 "$T/ranges") == *" data" ]] || fail "the last byte is not data"
}

test_map_of_all_or_nothing() {
    truncate -s 3M "$T/hole.img"
    maps "$T/hole.img"
    is "0 3145728 zeros"
    as_qemu_does "$T/hole.img"
    image "$T/full.img" 3M
    maps "$T/full.img"
    is "0 3145728 data"
    as_qemu_does "$T/full.img"
    [[ ! -s $T/err ]] || fail "said: $(cat "$T/err")"
    : >"$T/empty.img"
    run 0 "$LUNFERRY" map --json "$T/empty.img"
    [[ $(cat "$T/out") == "[]" ]] || fail "an empty file has ranges"
    run 0 "$LUNFERRY" map "$T/empty.img"
    [[ ! -s $T/err ]] || fail "said: $(cat "$T/err")"
}

test_map_of_many_ranges() {
    local file=$T/many.img
    # More than one answer's worth, far apart.
    python3 -c '
import sys
with open(sys.argv[1], "wb") as file:
    file.truncate(1 << 40)
    for number in range(2000):
        file.seek(number * (512 << 20) + (1 << 20))
        file.write(b"x" * 65536)
' "$file"
    maps "$file"
    [[ $(wc -l <"$T/ranges") -eq 4001 ]] || fail "$(wc -l <"$T/ranges") ranges"
    as_qemu_does "$file"
}

test_map_of_memory() {
    maps null:1M
    is "0 1048576 zeros"
    maps ram:1M
    is "0 1048576 zeros"
    [[ ! -s $T/err ]] || fail "said: $(cat "$T/err")"
    maps random:1M
    is "0 1048576 data"
}

test_map_of_a_lun() {
    local lun file
    lun=$(lab_lun_new mapped 64M)
    file=$(lab_backing mapped)
    piece "$file" 8192 1024
    maps "$lun"
    # Whatever the target tells: what is data must not be called anything else, and all of it is there.
    awk '$3 == "zeros" && $1 < 9437184 && $1 + $2 > 8388608 { exit 1 }
        { end = $1 + $2 } END { exit end != 67108864 }' "$T/ranges" || fail "data is called zeros"
    piece "$LAB_LUNTHIN_FILE" 131072 1024
    maps "$LAB_LUNTHIN"
    grep -q '^134217728 1048576 data$' "$T/ranges" || fail "the data is not where it is"
    # LUNs that are not thin have nothing to tell.
    maps "$LAB_LUN4K"
    is "0 268435456 data"
    says "does not tell where its data is: all of it counts as data$"
}

test_map_of_an_nfs_file() {
    truncate -s 8M "$LAB_NFS_DIR/mapped.img"
    piece "$LAB_NFS_DIR/mapped.img" 1024 64
    maps "$LAB_NFS/mapped.img"
    is "0 8388608 data"
    says "mapped.img does not tell where its data is: .*, although it takes only [0-9]+ bytes: it is sparse"
    image "$LAB_NFS_DIR/mapped.img" 1M
    maps "$LAB_NFS/mapped.img"
    says "mapped.img does not tell where its data is: all of it counts as data$"
    rm "$LAB_NFS_DIR/mapped.img"
}

test_map_changes_nothing() {
    truncate -s 1M "$T/a.img"
    piece "$T/a.img" 512 64
    cp --sparse=always "$T/a.img" "$T/b.img"
    chmod a-w "$T/a.img"
    stat -c '%s %b %Y %Z' "$T/a.img" >"$T/before"
    maps "$T/a.img"
    stat -c '%s %b %Y %Z' "$T/a.img" | cmp - "$T/before"
    cmp "$T/a.img" "$T/b.img"
}

test_map_usage() {
    run 2 "$LUNFERRY" map
    says 'an ENDPOINT is needed'
    run 2 "$LUNFERRY" map null:1M null:2M
    says '"null:2M" is one argument too many'
    run 2 "$LUNFERRY" map --frobnicate null:1M
    run 2 "$LUNFERRY" map null:0
    run 2 "$LUNFERRY" map --json "$LAB_NFS/none.img"
    says 'opening nfs://.*/none.img: .*NFS3ERR_NOENT'
    [[ ! -s $T/out ]] || fail "printed something of a map that there is none of"
    run 0 "$LUNFERRY" map --help
    grep -q '^Usage: lunferry map' "$T/out" || fail "no help"
    run 0 "$LUNFERRY" --help
    grep -qE '^  map +[a-z]' "$T/out" || fail "the help does not name it"
}

test_map_into_a_full_disk() {
    local status=0
    "$LUNFERRY" map null:1M >/dev/full 2>"$T/err" || status=$?
    [[ $status -eq 3 ]] || fail "exit status $status"
    says 'writing to stdout failed: No space left on device'
}

# is_connected ADDRESS PORT: somebody is, as the kernel writes it (01: established; earlier ones may linger).
# What the program itself does is waited for: what /proc says of its process may still be about the shell
# that it was forked from.
is_connected() {
    local remote
    printf -v remote '%02X00007F:%04X' "${1##*.}" "$2"
    awk -v remote="$remote" '$3 == remote && $4 == "01" { found = 1 } END { exit !found }' /proc/net/tcp
}

test_map_interrupted() {
    local address
    address=$(lab_link frozen)
    trap 'lab_link_stop frozen' EXIT
    lab_link_freeze frozen
    background "$LUNFERRY" map "$(lab_link_url frozen "$LAB_LUN512")"
    lab_wait 20 is_connected "$address" "$LAB_ISCSI_PORT" || fail "does not connect"
    kill -s INT "$pid"
    wait_status 130
    says '^lunferry: interrupted$'
}
