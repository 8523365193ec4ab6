# shellcheck shell=bash disable=SC2154
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# qcow2 images that qemu-img has made, where they really lie: on NFS, in a LUN, on a local path. What is read
# of them is compared with what qemu-img reads.

# chain DIR [COMPRESSION]: top.qcow2 over mid.qcow2 over base.img, which is raw; each shorter, with clusters of
# another size, and a snapshot "before" in the first; what they hold is in $T/flat.raw, and $T/before.raw.
chain() {
    image "$1/base.img" 3M
    truncate -s 5M "$1/base.img"
    (
        cd "$1" || exit
        qemu-img create -q -f qcow2 -o cluster_size=4k -b base.img -F raw mid.qcow2 7M
        qemu-io -f qcow2 -c 'write -P 7 1M 300k' -c 'write -z 2M 64k' -c 'write -P 8 6M 64k' mid.qcow2
        qemu-img create -q -f qcow2 -b mid.qcow2 -F qcow2 top.qcow2 8M
        qemu-io -f qcow2 -c 'write -P 9 512k 64k' -c 'write -c -P 10 4M 64k' -c 'write -P 11 7M 1M' top.qcow2
        qemu-img snapshot -c before top.qcow2
        qemu-io -f qcow2 -c 'write -P 12 512k 64k' -c 'write -P 13 3M 64k' top.qcow2
    ) >"$T/qemu.log"
    qemu-img convert -O raw "$1/top.qcow2" "$T/flat.raw"
    qemu-img convert -l snapshot.name=before -O raw "$1/top.qcow2" "$T/before.raw"
    ! cmp -s "$T/flat.raw" "$T/before.raw" || fail "the snapshot is like the image"
}

test_qcow2_chain_on_nfs_to_a_lun() {
    local dir=$LAB_NFS_DIR/chain
    mkdir "$dir"
    chain "$dir"
    fill "$LAB_LUN512_FILE" 252
    copy --overwrite "$LAB_NFS/chain/top.qcow2" "$LAB_LUN512"
    same "$T/flat.raw" "$LAB_LUN512_FILE"
    copy --overwrite --lanes 3 --verify -l before "$LAB_NFS/chain/top.qcow2" "$LAB_LUN512"
    same "$T/before.raw" "$LAB_LUN512_FILE"
    # The same, as compare sees it.
    run 0 "$LUNFERRY" compare "$LAB_NFS/chain/top.qcow2" "$T/flat.raw"
    run 0 "$LUNFERRY" compare -f raw -F qcow2 "$T/flat.raw" "$LAB_NFS/chain/top.qcow2"
    run 1 "$LUNFERRY" compare -f raw "$LAB_NFS/chain/top.qcow2" "$T/flat.raw"
    run 1 "$LUNFERRY" compare "$LAB_NFS/chain/top.qcow2" "$T/before.raw"
    rm -r "$dir"
}

test_qcow2_in_a_lun() {
    chain "$T"
    qemu-img convert -c -O qcow2 "$T/top.qcow2" "$T/one.qcow2"
    copy -f raw --overwrite "$T/one.qcow2" "$LAB_LUN4K"
    copy -f qcow2 "$LAB_LUN4K" "$T/out.raw"
    cmp "$T/flat.raw" "$T/out.raw"
    run 2 "$LUNFERRY" copy --overwrite "$LAB_LUN4K" "$T/out.raw"
    says 'begins like a qcow2 image; -f qcow2 reads it as one, -f raw copies it as it is'
    # A guest that has written such a header does not keep anybody from backing the LUN up.
    copy -f raw --source-range "0+$(stat -c %s "$T/one.qcow2")" "$LAB_LUN4K" "$T/back.qcow2" -O raw
    cmp "$T/one.qcow2" "$T/back.qcow2"
    # Beside a LUN lies nothing; on this machine, what the user allows.
    copy -f raw --overwrite "$T/mid.qcow2" "$LAB_LUN4K"
    run 2 "$LUNFERRY" copy -f qcow2 --allow-backing=any --overwrite "$LAB_LUN4K" "$T/out.raw"
    says 'its backing file is "base.img", a relative name, and nothing lies beside an image that is not a file'
    (cd "$T" && qemu-img rebase -u -f qcow2 -b "$T/base.img" -F raw mid.qcow2)
    copy -f raw --overwrite "$T/mid.qcow2" "$LAB_LUN4K"
    run 2 "$LUNFERRY" copy -f qcow2 --overwrite "$LAB_LUN4K" "$T/out.raw"
    says "a path from the root of this machine; if that is meant, --allow-backing=$T allows it"
    copy -f qcow2 "--allow-backing=$T" --overwrite "$LAB_LUN4K" "$T/out.raw"
    qemu-img compare -q -f qcow2 -F raw "$T/mid.qcow2" "$T/out.raw" || fail "qemu-img sees a difference"
}

test_qcow2_old_ones() {
    chain "$T"
    # qemu-img 7.2 ends with 1 here, and says nothing; the image is good.
    qemu-img convert -c -O qcow "$T/flat.raw" "$T/old.qcow" || :
    qemu-img compare -q -f raw -F qcow "$T/flat.raw" "$T/old.qcow" || fail "no compressed qcow image"
    copy "$T/old.qcow" "$T/out.raw"
    cmp "$T/flat.raw" "$T/out.raw"
    qemu-img convert -O qcow2 -o compat=0.10 "$T/flat.raw" "$T/old.qcow2"
    copy --overwrite "$T/old.qcow2" "$T/out.raw"
    cmp "$T/flat.raw" "$T/out.raw"
    run 2 "$LUNFERRY" copy --overwrite -f qcow2 "$T/old.qcow" "$T/out.raw"
    run 2 "$LUNFERRY" copy --overwrite -f vmdk "$T/old.qcow" "$T/out.raw"
    says '"vmdk" is no format that is known; raw, qcow2 and qcow are'
}

# Depth, what is there, and where, in the words of either.
map_lines() {
    python3 - "$1" <<'END'
import json
import sys

with open(sys.argv[1], encoding="ascii") as file:
    array = json.load(file)
lines = []
for entry in array:
    key = [entry["depth"], entry["present"], entry["zero"], entry["data"]]
    offset = entry.get("offset")
    if lines:
        start, length, last, last_offset = lines[-1]
        follows = last_offset + length == offset if None not in (offset, last_offset) else offset == last_offset
        if last == key and follows:
            lines[-1][1] += entry["length"]
            continue
    lines.append([entry["start"], entry["length"], key, offset])
for line in lines:
    print(*line)
END
}

test_qcow2_map() {
    chain "$T"
    # A raw file's holes are its own matter: all of the chain is to be qcow2 here.
    qemu-img convert -O qcow2 "$T/base.img" "$T/base.qcow2"
    (cd "$T" && qemu-img rebase -u -f qcow2 -b base.qcow2 -F qcow2 mid.qcow2)
    qemu-img map --output=json "$T/top.qcow2" >"$T/qemu.map"
    run 0 "$LUNFERRY" map --json "$T/top.qcow2"
    map_lines "$T/qemu.map" >"$T/theirs"
    map_lines "$T/out" >"$T/ours"
    diff "$T/theirs" "$T/ours" || fail "qemu-img has another map"
    grep -q '"compressed": true' "$T/out" || fail "nothing is compressed"
    run 0 "$LUNFERRY" map "$T/top.qcow2"
    grep -qE '^ +4194304 +65536 +64.00 KiB +0 +compressed +data$' "$T/out" || fail "no such row: $(cat "$T/out")"
    grep -qE '^ +524288 +65536 +64.00 KiB +0 +[0-9]+ +data$' "$T/out" || fail "no such row: $(cat "$T/out")"
    run 0 "$LUNFERRY" map -f raw "$T/top.qcow2"
    ! grep -q DEPTH "$T/out" || fail "a raw image has depth"
}

test_qcow2_info() {
    chain "$T"
    run 0 "$LUNFERRY" info "$T/top.qcow2"
    grep -qE '^format +qcow2$' "$T/out" || fail "no format"
    grep -qE '^virtual size +8388608 bytes' "$T/out" || fail "no virtual size"
    [[ $(grep -c '^backing image, depth' "$T/out") -eq 2 ]] || fail "no chain of three"
    run 0 "$LUNFERRY" info --json "$T/top.qcow2"
    python3 - "$T/out" <<'END' || fail "not as it is: $(cat "$T/out")"
import json
import sys

with open(sys.argv[1], encoding="utf-8") as file:
    top = json.load(file)
mid = top["backing"]
base = mid["backing"]
assert top["format"] == mid["format"] == "qcow2" and base["format"] == "raw"
assert [top["virtual-size"], mid["virtual-size"], base["virtual-size"]] == [8 << 20, 7 << 20, 5 << 20]
assert [top["cluster-size"], mid["cluster-size"]] == [65536, 4096]
assert top["snapshots"] == 1 and top["compression"] == "zlib" and top["version"] == 3
assert top["incompatible-features"] == [] and top["backing-file"] == "mid.qcow2"
assert all(isinstance(image["allocated"], int) for image in (top, mid, base))
assert "backing" not in base and "cluster-size" not in base
END
}

test_qcow2_backing_outside() {
    local dir=$LAB_NFS_DIR/vms
    mkdir -p "$dir" "$LAB_NFS_DIR/templates" "$LAB_NFS_DIR/templates-2"
    image "$LAB_NFS_DIR/templates/base.img" 1M
    cp "$LAB_NFS_DIR/templates/base.img" "$LAB_NFS_DIR/templates-2"
    (cd "$dir" && qemu-img create -q -f qcow2 -b ../templates/base.img -F raw a.qcow2)
    run 2 "$LUNFERRY" copy "$LAB_NFS/vms/a.qcow2" "$T/out.raw"
    says 'source: opening nfs://.*/vms/a.qcow2: its backing file is "../templates/base.img", which lies outside of the image.s own directory; if that is meant, --allow-backing=../templates allows it; nothing was changed$'
    copy --allow-backing=/elsewhere --allow-backing=../templates "$LAB_NFS/vms/a.qcow2" "$T/out.raw"
    cmp "$LAB_NFS_DIR/templates/base.img" "$T/out.raw"
    (cd "$dir" && qemu-img rebase -u -f qcow2 -b ../templates-2/base.img -F raw a.qcow2)
    run 2 "$LUNFERRY" info --allow-backing=../templates "$LAB_NFS/vms/a.qcow2"
    says 'lies outside'
    # A URL, as it stands.
    qemu-img rebase -u -f qcow2 -b "$LAB_NFS/templates/base.img" -F raw "$dir/a.qcow2"
    run 2 "$LUNFERRY" map "$LAB_NFS/vms/a.qcow2"
    says "a URL; if that is meant, --allow-backing=$LAB_NFS/templates allows it"
    copy --overwrite "--allow-backing=$LAB_NFS/templates" "$LAB_NFS/vms/a.qcow2" "$T/out.raw"
    cmp "$LAB_NFS_DIR/templates/base.img" "$T/out.raw"
    rm -r "$dir" "$LAB_NFS_DIR"/templates{,-2}
}

test_qcow2_backing_that_cannot_be() {
    cd "$T" || exit
    qemu-img create -q -f qcow2 a.qcow2 1M
    qemu-img rebase -u -f qcow2 -b none.qcow2 -F qcow2 a.qcow2
    run 2 "$LUNFERRY" copy a.qcow2 out.raw
    says 'backing file of a.qcow2: opening none.qcow2: no such file'
    qemu-img rebase -u -f qcow2 -b a.qcow2 -F qcow2 a.qcow2
    run 2 "$LUNFERRY" copy a.qcow2 out.raw
    says 'it is the same file as a.qcow2, which stands above it: such a chain has no end'
    qemu-img rebase -u -f qcow2 -b 'json:{"driver":"file","filename":"/etc/passwd"}' -F raw a.qcow2
    run 2 "$LUNFERRY" copy --allow-backing=any a.qcow2 out.raw
    says 'in the way of a driver of QEMU'
    qemu-img rebase -u -f qcow2 -b /etc/passwd -F raw a.qcow2
    run 2 "$LUNFERRY" copy a.qcow2 out.raw
    says 'its backing file is "/etc/passwd", a path from the root of this machine'
    [[ ! -e out.raw ]] || fail "there is a target"
}

test_qcow2_data_file() {
    local dir=$LAB_NFS_DIR/split
    mkdir "$dir"
    image "$dir/flat.raw" 2M
    (cd "$dir" && qemu-img convert -O qcow2 -o data_file=the.data flat.raw a.qcow2)
    copy "$LAB_NFS/split/a.qcow2" "$T/out.raw"
    cmp "$dir/flat.raw" "$T/out.raw"
    mv "$dir/the.data" "$dir/other"
    run 2 "$LUNFERRY" copy --overwrite "$LAB_NFS/split/a.qcow2" "$T/out.raw"
    says 'data file of nfs://.*/a.qcow2: opening nfs://.*/the.data: .*NFS3ERR_NOENT'
    rm -r "$dir"
}

# What the target becomes is in its name, or in -O, which counts more.
test_qcow2_is_written_by_name() {
    image "$T/a.img" 1M
    copy "$T/a.img" "$LAB_NFS/b.qcow2"
    qemu-img check -q -f qcow2 "$LAB_NFS_DIR/b.qcow2"
    qemu-img compare -q -f raw -F qcow2 "$T/a.img" "$LAB_NFS_DIR/b.qcow2"
    copy -O qcow2 "$T/a.img" "$T/b.img"
    qemu-img compare -q -f raw -F qcow2 "$T/a.img" "$T/b.img"
    run 2 "$LUNFERRY" copy "$T/none.img" "$T/b.qcow"
    says 'by its name it is to be a qcow image'
    [[ ! -e $T/b.qcow ]] || fail "something was made"
    copy --overwrite -O raw "$T/a.img" "$LAB_NFS/b.qcow2"
    cmp "$T/a.img" "$LAB_NFS_DIR/b.qcow2"
    rm "$LAB_NFS_DIR/b.qcow2"
}

# What is resumed is the same chain, the file at its end too, and the same snapshot.
test_qcow2_resume() {
    chain "$T"
    background "$LUNFERRY" copy --journal "$T/j" --request-size 4k -m 1 --rate-limit 4k "$T/top.qcow2" "$LAB_NFS/r.img"
    lab_wait "$HANG" test -s "$T/j" || fail "no journal"
    kill -s KILL "$pid"
    wait_status 137
    run 2 "$LUNFERRY" copy --resume --journal "$T/j" -l before "$T/top.qcow2" "$LAB_NFS/r.img"
    says 'is the journal of another copy'
    run 2 "$LUNFERRY" copy --resume --journal "$T/j" -f raw "$T/top.qcow2" "$LAB_NFS/r.img"
    says 'is not the one of the unfinished copy any more'
    cp "$T/j" "$T/j.kept"
    run 0 "$LUNFERRY" copy --resume --journal "$T/j" "$T/top.qcow2" "$LAB_NFS/r.img"
    cmp "$T/flat.raw" "$LAB_NFS_DIR/r.img"
    rm "$LAB_NFS_DIR/r.img"
    mv "$T/j.kept" "$T/j"
    touch "$T/base.img"
    run 2 "$LUNFERRY" copy --resume --journal "$T/j" "$T/top.qcow2" "$LAB_NFS/r.img"
    says 'was changed since the copy was begun'
    no_temporary "$LAB_NFS_DIR"
}
