# shellcheck shell=bash disable=SC2154
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# How long an image would be: qemu-img says the same, and what qemu-img makes is no longer.

# sizes FILE: the two numbers of a JSON object of either program.
sizes() {
    python3 -c '
import json
import sys
with open(sys.argv[1], encoding="ascii") as file:
    sizes = json.load(file)
print(sizes["required"], sizes["fully-allocated"])' "$1"
}

# measures ENDPOINT OPTION...: both ways of printing say the same; $T/sizes.
measures() {
    run 0 "$LUNFERRY" measure --json "${@:2}" "$1"
    sizes "$T/out" >"$T/sizes"
    run 0 "$LUNFERRY" measure "${@:2}" "$1"
    sed -nE 's/^(required|fully allocated) size: ([0-9]+) \(.*\)$/\2/p' "$T/out" | paste -sd ' ' | cmp - "$T/sizes" ||
        fail "the text and the object differ"
}

# as_qemu_measures FORMAT FILE PROPERTIES: as a qcow2 image.
as_qemu_measures() {
    measures "$2" -f "$1" -O qcow2 ${3:+-o "$3"}
    qemu-img measure --output=json -f "$1" -O qcow2 ${3:+-o "$3"} "$2" >"$T/qemu"
    sizes "$T/qemu" | diff - "$T/sizes" || fail "qemu-img has other sizes of $2 with $3"
}

# scattered FILE SIZE: pieces of data of many lengths, at block boundaries of the file system and across clusters.
scattered() {
    python3 - "$1" "$2" <<'END'
import sys

size = int(sys.argv[2])
with open(sys.argv[1], "wb") as file:
    file.truncate(size)
    at = 12288
    for number in range(60):
        length = (number * 7 % 23 + 1) * 4096
        if at + length > size:
            break
        file.seek(at)
        file.write(b"x" * length)
        at += length + (number * 5 % 31 + 1) * 4096 * (1 + number % 3 * 16)
END
}

test_measure_as_qemu_does() {
    local size properties
    for size in 0 512 65536 66048 1048576 33554432 1099511627776; do
        scattered "$T/a.img" "$size"
        for properties in "" cluster_size=512 cluster_size=4k cluster_size=2M refcount_bits=1 \
            cluster_size=4k,refcount_bits=64 extended_l2=on extended_l2=on,cluster_size=16k compat=0.10 \
            lazy_refcounts=on compression_type=zstd; do
            [[ $size -lt 1099511627776 || $properties != cluster_size=512 ]] || continue
            as_qemu_measures raw "$T/a.img" "$properties"
        done
        [[ $size -eq 0 ]] || [[ ! -s $T/err ]] || fail "said: $(cat "$T/err")"
    done
}

test_measure_of_images() {
    local properties
    scattered "$T/a.img" 33554432
    (
        cd "$T" || exit
        qemu-img convert -O qcow2 a.img base.qcow2
        qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 top.qcow2
        qemu-io -c 'write 20M 300k' -c 'write -z 1M 1M' -c 'write 5M 1k' top.qcow2 >"$T/qemu-io"
        qemu-img convert -c -O qcow2 top.qcow2 packed.qcow2
        qemu-img snapshot -c before top.qcow2
        qemu-io -c 'write 30M 1M' top.qcow2 >"$T/qemu-io"
    )
    for properties in "" cluster_size=4k cluster_size=1M extended_l2=on; do
        as_qemu_measures qcow2 "$T/top.qcow2" "$properties"
        as_qemu_measures qcow2 "$T/packed.qcow2" "$properties"
    done
    measures "$T/packed.qcow2" -O qcow2
    cp "$T/sizes" "$T/want"
    measures "$T/top.qcow2" -l before -O qcow2
    cmp "$T/sizes" "$T/want" || fail "the snapshot has another size"
}

# The figure is enough for what is then made.
test_measure_is_enough() {
    local properties length
    scattered "$T/a.img" 33554432
    for properties in cluster_size=64k cluster_size=512 cluster_size=2M; do
        measures "$T/a.img" -O qcow2 -o "$properties"
        qemu-img convert -O qcow2 -o "$properties" "$T/a.img" "$T/a.qcow2"
        length=$(stat -c %s "$T/a.qcow2")
        read -r required full <"$T/sizes"
        [[ $length -le $required && $required -le $full ]] || fail "$length, measured as $required, $full"
    done
}

test_measure_raw() {
    scattered "$T/a.img" 1048576
    measures "$T/a.img"
    [[ $(cat "$T/sizes") == "1048576 1048576" ]] || fail "$(cat "$T/sizes")"
    measures "$T/a.img" -O raw
    [[ $(cat "$T/sizes") == "1048576 1048576" ]] || fail "$(cat "$T/sizes")"
    [[ ! -s $T/err ]] || fail "said: $(cat "$T/err")"
}

# What cannot be known without reading is said.
test_measure_says_what_it_does_not_know() {
    truncate -s 1M "$LAB_NFS_DIR/measured.img"
    measures "$LAB_NFS/measured.img" -O qcow2
    says 'measured.img does not tell where its data is: all of it counts as data$'
    [[ $(cat "$T/sizes") == "1376256 1376256" ]] || fail "$(cat "$T/sizes")"
    measures "$LAB_NFS/measured.img"
    [[ ! -s $T/err ]] || fail "said: $(cat "$T/err")"
    rm "$LAB_NFS_DIR/measured.img"
    measures null:1M -O qcow2 -c
    says 'what -c saves is not known before it is done'
    [[ $(cat "$T/sizes") == "327680 1376256" ]] || fail "$(cat "$T/sizes")"
    measures null:1M -O qcow2 -B base.img
    says 'what base.img has already is not known before it is read'
    measures null:1M -O qcow2 -B base.img -F raw -o compat=0.10
    [[ $(cat "$T/sizes") == "1376256 1376256" ]] || fail "$(cat "$T/sizes")"
}

test_measure_of_a_lun() {
    measures "$LAB_LUN4K" -O qcow2
    says 'does not tell where its data is'
    [[ $(cat "$T/sizes") == "268763136 268763136" ]] || fail "$(cat "$T/sizes")"
}

test_measure_usage() {
    run 2 "$LUNFERRY" measure
    says 'a SOURCE is needed'
    run 2 "$LUNFERRY" measure null:1M null:2M
    says '"null:2M" is one argument too many: only SOURCE'
    run 2 "$LUNFERRY" measure -c null:1M
    says 'a raw image cannot be compressed'
    run 2 "$LUNFERRY" measure --json -O qcow2 -o cluster_size=512 null:1T
    says 'would need an L1 table of more than 32 MiB; a larger -o cluster_size makes it smaller'
    [[ ! -s $T/out ]] || fail "printed: $(cat "$T/out")"
    run 2 "$LUNFERRY" measure "$T/none.img"
    says 'none.img: no such file'
    run 0 "$LUNFERRY" measure --help
    grep -q '^Usage: lunferry measure' "$T/out" || fail "no help"
    run 0 "$LUNFERRY" --help
    grep -qE '^  measure +[a-z]' "$T/out" || fail "the help does not name it"
    local status=0
    "$LUNFERRY" measure null:1M >/dev/full 2>"$T/err" || status=$?
    [[ $status -eq 3 ]] || fail "exit status $status"
    says 'writing to stdout failed: No space left on device'
}

test_measure_interrupted() {
    local address
    address=$(lab_link frozen)
    trap 'lab_link_stop frozen' EXIT
    lab_link_freeze frozen
    background "$LUNFERRY" measure -O qcow2 "$(lab_link_url frozen "$LAB_LUN512")"
    lab_wait 20 is_connected "$address" "$LAB_ISCSI_PORT" || fail "does not connect"
    kill -s INT "$pid"
    wait_status 130
    says '^lunferry: interrupted$'
}
