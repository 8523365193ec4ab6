# shellcheck shell=bash disable=SC2154,SC2317
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Digests: taken while copying, taken by lunferry checksum, checked. What they are is held against digests.py, which
# has them from hashlib and the documented format.

checksum_clean() {
    rm -rf "$LAB_NFS_DIR"/sum* "$LAB_NFS_DIR"/.sum*
}

# A file on NFS, $image, of three parts: data, a hole with a little in it, data; its size is odd.
sum_image() {
    image=$LAB_NFS_DIR/sum.img
    trap checksum_clean EXIT
    image "$image" 9M
    truncate -s 30M "$image"
    printf x | dd of="$image" bs=1 seek=20000000 conv=notrunc status=none
    image "$T/end" 1M
    cat "$T/end" >>"$image"
    printf 'odd' >>"$image"
}

# checksum STATUS [OPTION...] ENDPOINT
checksum() {
    run "$1" "$LUNFERRY" checksum "${@:2}"
}

# What it says of an image by its bytes.
root_is() {
    [[ $(cut -d ' ' -f 1 "$T/out") == "$(./digests.py - "$1" "${2:-262144}")" ]] ||
        fail "answered: $(cat "$T/out")"
}

poke_at() {
    printf '\125' | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}

# damage FILE OFFSET: a byte becomes another, and the times stay: what a disk does when it rots.
damage() {
    touch -r "$1" "$T/times"
    poke_at "$1" "$2"
    touch -r "$T/times" "$1"
}

test_checksum_of_every_kind_of_end() {
    local lun
    sum_image
    checksum 0 "$LAB_NFS/sum.img"
    root_is "$image"
    checksum 0 --lanes 3 -m 2 --request-size 4k "$image"
    root_is "$image"
    lun=$(lab_lun_new sums 32M 4096)
    copy --overwrite "$image" "$lun"
    checksum 0 "$lun"
    root_is "$(lab_backing sums)"
    checksum 0 -f raw "random:5M?seed=3"
    "$LUNFERRY" copy "random:5M?seed=3" "$T/random"
    root_is "$T/random"
}

# A terabyte with two bytes in it takes no longer than they do, and is what it is.
test_checksum_of_a_sparse_terabyte() {
    truncate -s 1T "$T/sparse"
    printf x | dd of="$T/sparse" bs=1 seek=7777777777 conv=notrunc status=none
    printf x | dd of="$T/sparse" bs=1 seek=777777777777 conv=notrunc status=none
    checksum 0 --digests "$T/sums" "$T/sparse"
    [[ $(stat -c %s "$T/sums") -lt 400 ]] || fail "the digest file is long"
    checksum 0 --digests "$T/sums" --check --lanes 2 "$T/sparse"
    damage "$T/sparse" 777777777778
    checksum 1 --digests "$T/sums" --check "$T/sparse"
    grep -qx "$((777777777778 / 262144 * 262144)) 262144" "$T/out" || fail "said $(cat "$T/out")"
}

test_digests_of_a_copy() {
    local lanes
    sum_image
    for lanes in 1 3; do
        copy --digests "$LAB_NFS/sum.sums" --lanes "$lanes" "$image" "$LAB_NFS/sum.copy"
        same "$image" "$LAB_NFS_DIR/sum.copy"
        run 0 ./digests.py "$LAB_NFS_DIR/sum.sums" "$LAB_NFS_DIR/sum.copy"
        checksum 0 --digests "$LAB_NFS/sum.sums" --check "$LAB_NFS/sum.copy"
        grep -q ': the same$' "$T/out" || fail "answered: $(cat "$T/out")"
        [[ $(cut -d ' ' -f 1 "$T/out") == "$(./digests.py - "$image")" ]] || fail "another root"
        no_temporary "$LAB_NFS_DIR"
        rm "$LAB_NFS_DIR/sum.sums" "$LAB_NFS_DIR/sum.copy"
    done
    # From a LUN, read back too, to a local file; and from several sources.
    copy --overwrite "$image" "$LAB_LUN512"
    copy --digests "$T/sums" --verify "$LAB_LUN512" "$T/lun.img"
    run 0 ./digests.py "$T/sums" "$T/lun.img"
    copy --digests "$T/sums2" --request-size 4k "$image" "$T/end" "$T/joined"
    run 0 ./digests.py "$T/sums2" "$T/joined"
    checksum 0 --digests "$T/sums2" --check "$T/joined"
}

# By another name it is the same file, and on a server that was restarted.
test_digests_of_a_file_that_was_renamed() {
    sum_image
    copy --digests "$T/sums" "$image" "$LAB_NFS/sum.copy"
    mv "$LAB_NFS_DIR/sum.copy" "$LAB_NFS_DIR/sum.moved"
    lab_nfs_restart
    checksum 0 --digests "$T/sums" --check "$LAB_NFS/sum.moved"
    cp -p "$LAB_NFS_DIR/sum.moved" "$LAB_NFS_DIR/sum.again"
    checksum 2 --digests "$T/sums" --check "$LAB_NFS/sum.again"
    says 'these are the digests of another file \(nfs .*\) than .*sum.again'
}

test_checksum_finds_what_differs() {
    sum_image
    copy --digests "$T/sums" "$image" "$LAB_NFS/sum.copy"
    damage "$LAB_NFS_DIR/sum.copy" 262143
    damage "$LAB_NFS_DIR/sum.copy" 262144
    damage "$LAB_NFS_DIR/sum.copy" 15000000
    damage "$LAB_NFS_DIR/sum.copy" $((31 << 20))
    checksum 1 --digests "$T/sums" --check --lanes 2 "$LAB_NFS/sum.copy"
    says 'sum.copy is not what .*sums says: 786435 bytes in 3 ranges of blocks'
    [[ $(cat "$T/out") == "0 524288
$((15000000 / 262144 * 262144)) 262144
$((31 << 20)) 3" ]] || fail "answered: $(cat "$T/out")"
    checksum 1 -q --json --digests "$T/sums" --check "$LAB_NFS/sum.copy"
    python3 - "$T/out" <<'PY'
import json, sys
lines = [json.loads(line) for line in open(sys.argv[1])]
assert lines[0] == {"start": 0, "length": 524288}, lines
assert len(lines) == 4 and lines[-1]["same"] is False, lines
assert lines[-1]["ranges"] == 3 and lines[-1]["range-bytes"] == 786435, lines
PY
    [[ ! -s $T/err ]] || fail "said: $(cat "$T/err")"
}

test_digests_of_no_use() {
    sum_image
    copy --digests "$T/sums" "$image" "$LAB_NFS/sum.copy"
    # Written to since.
    cp "$LAB_NFS_DIR/sum.copy" "$T/keep"
    poke_at "$LAB_NFS_DIR/sum.copy" 5
    checksum 2 --digests "$T/sums" --check "$LAB_NFS/sum.copy"
    says 'sum.copy has changed since these digests were taken: it was written to'
    [[ ! -s $T/out ]] || fail "answered: $(cat "$T/out")"
    truncate -s 1M "$LAB_NFS_DIR/sum.copy"
    checksum 2 --digests "$T/sums" --check "$LAB_NFS/sum.copy"
    says 'of an image of 32505859 bytes, and .* has 1048576'
    # Damaged, cut off, something else, not there.
    checksum 0 --digests "$T/fresh" "$image"
    cp "$T/fresh" "$T/bad"
    poke_at "$T/bad" 700
    checksum 2 --digests "$T/bad" --check "$image"
    says 'bad: the digest file is damaged: its own checksum is wrong'
    head -c 500 "$T/fresh" >"$T/bad"
    checksum 2 --digests "$T/bad" --check "$image"
    says 'bad: the digest file is cut off'
    checksum 2 --digests "$T/keep" --check "$image"
    says 'keep: this is no digest file'
    checksum 2 --digests "$T/none" --check "$image"
    says 'none: no such file'
}

test_digests_refused() {
    sum_image
    checksum 2 --digests "$T/sums" "$LAB_LUN512"
    says 'digests are kept of files, whose times show that they have not changed; this has none'
    checksum 2 --digests "$T/sums" "random:1M"
    run 2 "$LUNFERRY" copy --overwrite --digests "$T/sums" "$image" "$LAB_LUN512"
    says '--digests is for a new file, which does not change any more, and iscsi://.* is none'
    cp "$image" "$T/there"
    run 2 "$LUNFERRY" copy -n --overwrite --digests "$T/sums" "$image" "$T/there"
    says '--digests is for a new file'
    [[ ! -e $T/sums ]] || fail "made a digest file"
    # Nothing but a digest file is replaced by one.
    echo precious >"$T/diary"
    run 2 "$LUNFERRY" copy --digests "$T/diary" "$image" "$T/new"
    says 'diary: it exists; --overwrite would replace it'
    run 2 "$LUNFERRY" copy --overwrite --digests "$T/diary" "$image" "$T/new"
    says 'diary: it exists and is no digest file: it is left alone'
    checksum 2 --overwrite --digests "$image" "$image"
    [[ $(cat "$T/diary") == precious && ! -e $T/new ]] || fail "something was changed"
    run 2 "$LUNFERRY" copy --digests "$T/new" "$image" "$T/new"
    says 'new is TARGET: they need a file of their own'
    [[ ! -e $T/new ]] || fail "made an image all the same"
    checksum 0 --digests "$T/sums" "$image"
    checksum 2 --digests "$T/sums" "$image"
    checksum 0 --overwrite --digests "$T/sums" "$image"
    run 2 "$LUNFERRY" copy --digests "$LAB_LUN512" "$image" "$T/new"
    says 'a digest file has a local path or an nfs:// URL'
    run 2 "$LUNFERRY" copy --resume --digests "$T/more" "$image" "$T/new"
    says 'lunferry checksum --digests FILE TARGET'
    checksum 2 --check "$image"
    says '--digests FILE'
}

# By another name it is the target all the same, and not a digest file any more when it is its turn.
test_digests_over_the_target() {
    sum_image
    checksum 0 --digests "$T/sums" "$image"
    ln -s . "$T/here"
    run 3 "$LUNFERRY" copy --overwrite --digests "$T/here/sums" "$image" "$T/sums"
    says 'here/sums: it is no digest file any more: it is left alone; the target is complete'
    same "$image" "$T/sums"
}

# A qcow2 image is longer then, so that they would be the digests of nothing.
test_digests_of_half_a_sector() {
    head -c 300001 /dev/urandom >"$T/odd"
    run 2 "$LUNFERRY" copy --digests "$T/sums" "$T/odd" "$T/odd.qcow2"
    says '--digests: a qcow2 image has whole sectors of 512 bytes, .* SOURCE ends in the middle of one, at 300001'
    [[ ! -e $T/sums && ! -e $T/odd.qcow2 ]] || fail "something was made"
    copy --digests "$T/sums" "$T/odd" "$T/odd.img"
    checksum 0 --check --digests "$T/sums" "$T/odd.img"
}

# The state now, and a snapshot, of a chain: each with a digest file of its own.
test_checksum_of_qcow2() {
    trap checksum_clean EXIT
    mkdir "$LAB_NFS_DIR/sums"
    chain "$LAB_NFS_DIR/sums"
    checksum 0 --digests "$T/now" "$LAB_NFS/sums/top.qcow2"
    root_is "$T/flat.raw"
    checksum 0 --digests "$T/then" -l before "$LAB_NFS/sums/top.qcow2"
    root_is "$T/before.raw"
    checksum 0 --digests "$T/now" --check --lanes 2 "$LAB_NFS/sums/top.qcow2"
    checksum 0 --digests "$T/then" --check -l before "$LAB_NFS/sums/top.qcow2"
    checksum 2 --digests "$T/now" --check -l before "$LAB_NFS/sums/top.qcow2"
    says 'another file'
    # What is behind it counts.
    touch "$LAB_NFS_DIR/sums/base.img"
    checksum 2 --digests "$T/now" --check "$LAB_NFS/sums/top.qcow2"
    says 'has changed since these digests were taken'
}

# Somebody else takes the digest file's name meanwhile: it is theirs, and the copy is there all the same.
test_digest_file_made_meanwhile() {
    trap checksum_clean EXIT
    image "$T/whole" 16M
    background "$LUNFERRY" copy --journal "$T/journal" --rate-limit 4M --digests "$T/sums" \
        "$T/whole" "$LAB_NFS/sum.copy"
    lab_wait "$HANG" is_moving "$LAB_NFS_DIR" || fail "it does not begin"
    echo mine >"$T/sums"
    wait_status 3
    says 'digests: .*; the target is complete'
    ! grep -q 'go on with' "$T/err" || fail "says that it can be resumed"
    [[ $(cat "$T/sums") == mine && ! -e $T/journal ]] || fail "something is not as it should be"
    same "$T/whole" "$LAB_NFS_DIR/sum.copy"
    no_temporary "$LAB_NFS_DIR"
    no_temporary "$T"
}

# The command that goes on makes no digests, and says who does.
test_digests_of_a_copy_that_is_resumed() {
    local option
    trap checksum_clean EXIT
    image "$T/whole" 32M
    for option in "--digests $T/sums" "--digests=$T/sums" "--dig=$T/sums"; do
        # shellcheck disable=SC2086
        background "$LUNFERRY" copy --journal "$T/journal" --flush-size 2M --rate-limit 4M $option \
            "$T/whole" "$LAB_NFS/sum.copy"
        lab_wait "$HANG" grep -qs durable "$T/journal" || fail "nothing is recorded"
        kill -INT "$pid"
        wait_status 130
        says "its digests are then made with: lunferry checksum --digests .*$T/sums .*sum.copy"
        grep 'go on with' "$T/err" >"$T/command"
        ! grep -q -e --dig "$T/command" || fail "said: $(cat "$T/command")"
        [[ ! -e $T/sums ]] || fail "made a digest file"
        mv "$T/journal" "$T/kept"
    done
    mv "$T/kept" "$T/journal"
    sed -i 's/.*go on with: lunferry //; s/--rate-limit 4M//' "$T/command"
    # shellcheck disable=SC2046
    run 0 "$LUNFERRY" $(cat "$T/command")
    checksum 0 --digests "$T/sums" "$LAB_NFS/sum.copy"
    root_is "$LAB_NFS_DIR/sum.copy"
}
