# shellcheck shell=bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# What is refused, before anything is touched: exit status 2 and a sentence that says what to do.

refuses() {
    run 2 "$LUNFERRY" copy "$1" "$2"
    says "$3"
    no_temporary "$LAB_NFS_DIR"
}

test_missing_file() {
    refuses "$LAB_NFS/none.img" null:1M "source: opening .*none.img: .*NFS3ERR_NOENT"
    refuses "$LAB_NFS/no/such/dir.img" null:1M "source: .*(NFS3ERR_NOENT|MNT3ERR_NOENT)"
    refuses "$T/none.img" null:1M "source: opening $T/none.img: no such file"
    refuses null:1M "$T/no/dir.img" "target: .*$T/no: no such file"
}

test_missing_lun() {
    refuses "${LAB_ISCSI}77" null:1M "LUN 77 does not exist"
    refuses "${LAB_ISCSI%:lab/}:none/1" null:1M "target.* not (found|known)"
}

test_nobody_listens() {
    refuses "iscsi://127.0.0.1:3999/$LAB_TARGET/1" null:1M "127.0.0.1.*3999.*refused"
    refuses "nfs://127.0.0.99/x/y.img" null:1M "127.0.0.99.*refused"
    refuses "nfs://no-such-host.invalid/x/y.img" null:1M "no-such-host.invalid.*does not resolve"
}

test_second_portal_is_tried() {
    copy "iscsi://127.0.0.1:3999,127.0.0.1:$LAB_ISCSI_PORT/$LAB_TARGET/5" null:16M
}

test_read_only_export() {
    image "$LAB_NFS_RO_DIR/a.img" 1M
    copy "$LAB_NFS_RO/a.img" null:1M
    refuses "$LAB_NFS_RO/a.img" "$LAB_NFS_RO/b.img" "target: creating .*NFS3ERR_ROFS"
    rm "$LAB_NFS_RO_DIR/a.img"
}

test_read_only_lun() {
    copy "$LAB_LUNRO" null:16M
    refuses random:1M "$LAB_LUNRO" "target: opening .*write.protected"
}

test_target_too_small() {
    refuses random:17M "$LAB_LUNSMALL" \
        "too small: it has 16777216 bytes .*, the source has 17825792"
    refuses random:16777217 "$LAB_LUNSMALL" "16777217"
    copy --overwrite random:16M "$LAB_LUNSMALL"
}

test_existing_file() {
    image "$LAB_NFS_DIR/a.img" 1M
    cp "$LAB_NFS_DIR/a.img" "$T/before"
    refuses random:1M "$LAB_NFS/a.img" "a.img exists .*--overwrite"
    cmp "$T/before" "$LAB_NFS_DIR/a.img"
    refuses random:1M "$T/before" "before exists .*--overwrite"
    mkdir "$LAB_NFS_DIR/dir"
    refuses random:1M "$LAB_NFS/dir" "is a directory"
    refuses random:1M / "/ is a directory"
    ln -s a.img "$LAB_NFS_DIR/link.img"
    ln -s before "$T/link"
    run 2 "$LUNFERRY" copy --overwrite random:1M "$LAB_NFS/link.img"
    says "link.img is a symbolic link"
    run 2 "$LUNFERRY" copy --overwrite random:1M "$T/link"
    says "link is a symbolic link"
    rm -r "$LAB_NFS_DIR"/{a.img,link.img,dir}
}

test_occupied_lun() {
    local before
    truncate -s 0 "$LAB_LUNSMALL_FILE"
    truncate -s 16M "$LAB_LUNSMALL_FILE"
    copy random:1M "$LAB_LUNSMALL"
    refuses random:1M "$LAB_LUNSMALL" "holds data of a kind that is not recognised; --overwrite"
    truncate -s 0 "$LAB_LUNSMALL_FILE"
    truncate -s 16M "$LAB_LUNSMALL_FILE"
    mke2fs -q -t ext4 -L precious "$LAB_LUNSMALL_FILE"
    before=$(sha256sum <"$LAB_LUNSMALL_FILE")
    refuses random:1M "$LAB_LUNSMALL" 'holds ext4 labelled "precious"; --overwrite would replace it'
    [[ $(sha256sum <"$LAB_LUNSMALL_FILE") == "$before" ]] || fail "the refusal changed the LUN"
    # A lone byte at the very end counts too.
    truncate -s 0 "$LAB_LUNSMALL_FILE"
    truncate -s 16M "$LAB_LUNSMALL_FILE"
    printf x | dd of="$LAB_LUNSMALL_FILE" bs=1 seek=16777215 conv=notrunc status=none
    refuses random:1M "$LAB_LUNSMALL" "holds data"
    copy --overwrite random:1M "$LAB_LUNSMALL"
}

test_same_thing_on_both_ends() {
    run 2 "$LUNFERRY" copy --overwrite "$LAB_LUN512" "$LAB_LUN512"
    says "are the same thing"
    image "$LAB_NFS_DIR/a.img" 1M
    run 2 "$LUNFERRY" copy -n --overwrite "$LAB_NFS/a.img" "$LAB_NFS/a.img"
    says "are the same thing"
    cp "$LAB_NFS_DIR/a.img" "$T/a.img"
    run 2 "$LUNFERRY" copy -n --overwrite "$T/a.img" "$T/../test/a.img"
    says "are the same thing"
    ln "$T/a.img" "$T/hard-link"
    run 2 "$LUNFERRY" copy -n --overwrite "$T/hard-link" "$T/a.img"
    says "are the same thing"
    cmp "$T/a.img" "$LAB_NFS_DIR/a.img"
    rm "$LAB_NFS_DIR/a.img"
}

# chain_refused SENTENCE ARGUMENT...: nothing of base.qcow2 and top.qcow2 is changed.
chain_refused() {
    local sentence=$1 before
    shift
    before=$(sha256sum "$T/base.qcow2" "$T/top.qcow2")
    run 2 "$LUNFERRY" copy --overwrite "$@"
    says "$sentence"
    [[ $(sha256sum "$T/base.qcow2" "$T/top.qcow2") == "$before" ]] || fail "an image of the chain was changed"
}

# An image is read from more places than its name tells.
test_target_within_the_chain_of_the_source() {
    image "$T/a.img" 3M
    copy "$T/a.img" "$T/base.qcow2"
    truncate -s 8M "$T/base.qcow2"
    qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 "$T/top.qcow2" 3M
    chain_refused 'base.qcow2 is read as a part of' -n -O raw "$T/base.qcow2" "$T/base.qcow2"
    chain_refused 'base.qcow2 is read as a part of' -n -O raw "$T/top.qcow2" "$T/base.qcow2"
    chain_refused 'base.qcow2 is read as a part of' -n -O raw --delta "$T/top.qcow2" "$T/base.qcow2"
    chain_refused 'base.qcow2 is read as a part of' -O raw "$T/top.qcow2" "$T/base.qcow2"
    chain_refused 'base.qcow2 is read as a part of' "$T/top.qcow2" "$T/base.qcow2"
    # A new file may take the place of the one that was read.
    copy --overwrite "$T/top.qcow2" "$T/top.qcow2"
    run 0 "$LUNFERRY" compare "$T/a.img" "$T/top.qcow2"
}

test_target_that_is_its_own_base() {
    image "$T/a.img" 3M
    copy "$T/a.img" "$T/base.qcow2"
    qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 "$T/top.qcow2" 3M
    ln -s base.qcow2 "$T/link.qcow2"
    chain_refused 'is its own backing file' -B base.qcow2 "$T/a.img" "$T/base.qcow2"
    chain_refused 'is its own backing file' -B base.qcow2 "$T/a.img" "$T/../test/base.qcow2"
    chain_refused 'is its own backing file' -B top.qcow2 "$T/a.img" "$T/base.qcow2"
    chain_refused 'is its own backing file' -B link.qcow2 "$T/a.img" "$T/base.qcow2"
}

# Two names that nothing shows to be one: localhost may have another address than 127.0.0.1, and the
# path through a link is another one. No byte is lost.
test_same_file_by_an_alias() {
    image "$LAB_NFS_DIR/a.img" 3M
    cp "$LAB_NFS_DIR/a.img" "$T/before"
    lab_link alias >/dev/null
    copy -n --overwrite "$(lab_link_url alias "$LAB_NFS/a.img")" "$LAB_NFS/a.img"
    lab_link_stop alias
    cmp "$T/before" "$LAB_NFS_DIR/a.img"
    rm "$LAB_NFS_DIR/a.img"
}

test_usage() {
    local line
    while IFS='|' read -r arguments line; do
        # shellcheck disable=SC2086
        run 2 "$LUNFERRY" $arguments
        says "$line"
    done <<'EOF'
copy|SOURCE and a TARGET
copy null:1M|SOURCE and a TARGET
copy --source-range 0+1 null:1M null:1M null:1M|for one SOURCE
copy -m 0 null:1M null:1M|-m
copy -m x null:1M null:1M|-m
copy --request-size 5000 null:1M null:1M|multiple of 4k
copy --request-size 32M null:1M null:1M|between 4k and 16M
copy --timeout 0 null:1M null:1M|--timeout
copy -W --in-order null:1M null:1M|contradict
copy --in-order --lanes 2 null:1M null:1M|one lane
copy -p -q null:1M null:1M|contradict
copy ftp://x/y null:1M|known are iscsi
copy nfs://h/e/f?version=4 null:1M|version=4 is not possible: .*use NFSv3
copy nfs://h/e/f?vers=3 null:1M|unknown option .*nfsport
copy nfs://h/e/f?gids=1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17 null:1M|16
copy iscsi://h/iqn.2000-01.x:y null:1M|lun
copy iscsi://h/iqn.2000-01.x:y/z null:1M|LUN
copy iscsi://[::1/iqn.2000-01.x:y/1 null:1M|not closed
copy null:12Q null:1M|12Q
frobnicate|no command "frobnicate"
info|ENDPOINT
EOF
}

test_warns_of_another_sector_size() {
    image "$LAB_NFS_DIR/gpt.img" 2M
    printf 'EFI PART' | dd of="$LAB_NFS_DIR/gpt.img" bs=1 seek=512 conv=notrunc status=none
    run 0 "$LUNFERRY" copy --overwrite "$LAB_NFS/gpt.img" "$LAB_LUN4K"
    says "partition table for 512-byte sectors, .* has 4096-byte blocks"
    copy --overwrite "$LAB_NFS/gpt.img" "$LAB_LUN512"
    rm "$LAB_NFS_DIR/gpt.img"
}
