# shellcheck shell=bash disable=SC2154,SC2317
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Only what has to move is moved, and what does not move reads as zeros all the same: images with holes,
# thin LUNs, LUNs that hold something else. What a thin LUN has allocated is what its file has.

# An image with holes at its start, in its middle and at its end, one of them between pieces that begin
# and end at odd bytes.
holey_size=$((64 << 20))
holey_pieces=(8M+4M 26214913+70001 28M+1M 41943040+4194303)
holey_data=$(((4 << 20) + 70001 + (1 << 20) + 4194303))
# The other way about: data at both ends.
edges_pieces=(0+3M 20M+1M 65011711+2097153)
edges_data=$(((3 << 20) + (1 << 20) + 2097153))

# holey FILE PIECE...: makes it.
holey() {
    truncate -s 0 "$1"
    truncate -s "$holey_size" "$1"
    lab_sparse write "$@"
}

# What a target may have allocated for so many bytes of DATA in PIECES: each piece may begin and end in
# the middle of a UNIT (4 KiB), the first MiB is written in any case, and the file system needs blocks
# for its map.
allowed_for() {
    local data=$1 pieces=$2 unit=${3:-4096}
    echo $((data + pieces * 2 * unit + (1 << 20) + (32 << 10)))
}

# holds FILE LEAST MOST: that many bytes of storage.
holds() {
    local now
    now=$(lab_allocated "$1")
    [[ $now -ge $2 && $now -le $3 ]] || fail "${1##*/} has $now bytes allocated, not $2 to $3"
}

# all_of BYTE FILE OFFSET LENGTH: these bytes are all BYTE (octal).
all_of() {
    local others
    others=$(dd if="$2" iflag=skip_bytes,count_bytes bs=1M skip="$3" count="$4" status=none |
        tr -d "\\$1" | wc -c)
    [[ $others -eq 0 ]] || fail "$others of the $4 bytes at $3 of ${2##*/} are not $1 (octal)"
}

# lun KIND NAME SIZE [BLOCKSIZE]: a LUN of this test; $lun is its URL, $lun_file what is behind it.
lun() {
    case $1 in
        thin) lun=$(lab_lun_thin "$2" "$3" "${4:-512}") ;;
        thick) lun=$(lab_lun_new "$2" "$3" "${4:-512}") ;;
    esac
    lun_name=$2 lun_file=$(lab_backing "$2")
}

thin_clean() {
    rm -f "$LAB_NFS_DIR"/{holey,edges,thin}.img "$LAB_NFS_DIR"/.thin.img.lunferry-*
}

# Both images, on the NFS server and as local files.
thin_images() {
    trap thin_clean EXIT
    holey "$LAB_NFS_DIR/holey.img" "${holey_pieces[@]}"
    holey "$LAB_NFS_DIR/edges.img" "${edges_pieces[@]}"
    cp --sparse=always "$LAB_NFS_DIR"/{holey,edges}.img "$T"
}

# ---- Holes stay holes ----------------------------------------------------------------------------

# thin_from PREFIX OPTION...: both images from there to an empty thin LUN.
thin_from() {
    local from=$1
    shift
    lab_lun_empty "$lun_name"
    copy "$@" "$from/holey.img" "$lun"
    same "$T/holey.img" "$lun_file"
    holds "$lun_file" "$holey_data" "$(allowed_for "$holey_data" 4 "${unit:-4096}")"
    lab_lun_empty "$lun_name"
    copy "$@" "$from/edges.img" "$lun"
    same "$T/edges.img" "$lun_file"
    holds "$lun_file" "$edges_data" "$(allowed_for "$edges_data" 3 "${unit:-4096}")"
}

# NFSv3 does not tell where the data is.
test_thin_lun_holes_found_by_reading() {
    lun thin reading 128M
    thin_images
    thin_from "$LAB_NFS"
    thin_from "$LAB_NFS" --verify
    thin_from "$LAB_NFS" --lanes 3
    unit=65536 thin_from "$LAB_NFS" -S 64k
}

test_thin_lun_holes_known_by_extents() {
    lun thin extents 128M
    thin_images
    thin_from "$T"
    thin_from "$T" --verify
    thin_from "$T" --lanes 3
}

test_thin_lun_of_4096_byte_blocks() {
    lun thin blocks 128M 4096
    thin_images
    thin_from "$LAB_NFS"
    thin_from "$T" --verify
}

test_thin_lun_as_qemu_img_sees_it() {
    lun thin peer 64M
    thin_images
    copy "$T/holey.img" "$lun"
    qemu-img compare -f raw -F raw "$T/holey.img" "$lun" || fail "qemu-img sees a difference"
}

# A thin LUN tells what it holds, so that only this is read: by the bytes on the wire. The source's first
# MiB is read in any case; 512 KiB are for everything that is not data.
test_thin_lun_is_read_where_it_has_data() {
    local wire
    lun thin sparse-source 128M
    thin_images
    cp --sparse=never "$T/holey.img" "$T/full.img"
    dd if="$T/holey.img" of="$lun_file" bs=64k conv=notrunc,sparse status=none
    lab_link counted >/dev/null
    trap 'lab_link_stop counted; thin_clean' EXIT
    copy "$(lab_link_url counted "$lun")" "$LAB_NFS/thin.img"
    wire=$(lab_link_counts counted | awk -F= '/_bytes/ { n += $2 } END { print n }')
    cmp "$lun_file" "$LAB_NFS_DIR/thin.img"
    [[ $wire -ge $holey_data ]] || fail "only $wire bytes on the wire?"
    [[ $wire -le $(($(allowed_for "$holey_data" 4 65536) + (512 << 10))) ]] ||
        fail "$wire bytes on the wire, for $holey_data of data"
    holds "$LAB_NFS_DIR/thin.img" "$holey_data" "$(allowed_for "$holey_data" 4)"
}

test_new_nfs_file_is_sparse() {
    local from
    thin_images
    for from in "$LAB_NFS" "$T"; do
        copy --overwrite --verify "$from/holey.img" "$LAB_NFS/thin.img"
        cmp "$T/holey.img" "$LAB_NFS_DIR/thin.img"
        holds "$LAB_NFS_DIR/thin.img" "$holey_data" "$(allowed_for "$holey_data" 4)"
        copy --overwrite "$from/edges.img" "$LAB_NFS/thin.img"
        cmp "$T/edges.img" "$LAB_NFS_DIR/thin.img"
        holds "$LAB_NFS_DIR/thin.img" "$edges_data" "$(allowed_for "$edges_data" 3)"
    done
}

test_all_is_written_when_asked_to() {
    local from
    lun thin written 128M
    thin_images
    for from in "$LAB_NFS" "$T"; do
        lab_lun_empty "$lun_name"
        copy -S 0 "$from/holey.img" "$lun"
        same "$T/holey.img" "$lun_file"
        holds "$lun_file" "$holey_size" "$((holey_size + (64 << 10)))"
        copy -S 0 --overwrite "$from/holey.img" "$LAB_NFS/thin.img"
        cmp "$T/holey.img" "$LAB_NFS_DIR/thin.img"
        holds "$LAB_NFS_DIR/thin.img" "$holey_size" "$((holey_size + (64 << 10)))"
    done
}

# ---- Nothing old shines through ------------------------------------------------------------------

# onto_old OPTION...: both images from everywhere, onto a LUN full of 0xAA. What lies beyond them stays.
onto_old() {
    local from name
    for from in "$LAB_NFS" "$T"; do
        for name in holey edges; do
            fill "$lun_file" 252
            copy --overwrite "$@" "$from/$name.img" "$lun"
            same "$T/$name.img" "$lun_file"
            all_of 252 "$lun_file" "$holey_size" "$(($(stat -c %s "$lun_file") - holey_size))"
        done
    done
}

test_stale_bytes_of_a_thick_lun() {
    lun thick stale-thick 72M
    thin_images
    onto_old
    onto_old --verify
    onto_old --lanes 3
    onto_old -S 0
    onto_old --in-order
}

test_stale_bytes_of_a_thick_lun_of_4096_byte_blocks() {
    lun thick stale-4k 72M 4096
    thin_images
    onto_old
}

test_stale_bytes_of_a_thin_lun() {
    lun thin stale-thin 72M
    thin_images
    onto_old
    onto_old --verify
    onto_old --lanes 3
    onto_old -S 0
    # What was zeroed was given back as well.
    fill "$lun_file" 252
    copy --overwrite "$T/holey.img" "$lun"
    holds "$lun_file" $((holey_data + (8 << 20))) $(($(allowed_for "$holey_data" 4) + (8 << 20)))
}

# An image that is no multiple of anything, whose last bytes are a hole.
test_stale_bytes_behind_a_last_block() {
    local kind
    trap thin_clean EXIT
    truncate -s 12583425 "$T/odd.img"
    lab_sparse write "$T/odd.img" 5M+1000
    for kind in thick thin; do
        lun "$kind" "last-$kind" 16M 4096
        fill "$lun_file" 252
        copy --overwrite --verify "$T/odd.img" "$lun"
        same "$T/odd.img" "$lun_file"
        all_of 252 "$lun_file" 12583425 $((16777216 - 12583425))
    done
}

test_zero_tail() {
    local kind from
    thin_images
    for kind in thick thin; do
        lun "$kind" "tail-$kind" 100M
        for from in "$LAB_NFS" "$T"; do
            fill "$lun_file" 252
            copy --overwrite --zero-tail "$from/edges.img" "$lun"
            same "$T/edges.img" "$lun_file"
            all_of 0 "$lun_file" "$holey_size" $(((100 << 20) - holey_size))
        done
        fill "$lun_file" 252
        copy --overwrite --zero-tail --verify --lanes 2 "$LAB_NFS/holey.img" "$lun"
        same "$T/holey.img" "$lun_file"
        all_of 0 "$lun_file" "$holey_size" $(((100 << 20) - holey_size))
    done
    holds "$lun_file" "$holey_data" "$(allowed_for "$holey_data" 4)"
}

# ---- What the user says --------------------------------------------------------------------------

# It is a promise: where it does not hold, what was there stays.
test_target_is_zero() {
    local from
    lun thin promised 64M
    thin_images
    for from in "$LAB_NFS" "$T"; do
        thin_from "$from" --target-is-zero
        fill "$lun_file" 252
        copy --overwrite --target-is-zero "$from/holey.img" "$lun"
        all_of 252 "$lun_file" 2097152 $((8388608 - 2097152))
        all_of 252 "$lun_file" $((13 << 20)) $((11 << 20))
        all_of 252 "$lun_file" $((46 << 20)) $((17 << 20))
        cmp -i 8388608 -n 4194304 "$T/holey.img" "$lun_file"
        cmp -i 28M -n 1M "$T/holey.img" "$lun_file"
    done
    lun thick promised-thick 64M
    copy --target-is-zero "$T/edges.img" "$lun"
    same "$T/edges.img" "$lun_file"
    holds "$lun_file" "$edges_data" "$(allowed_for "$edges_data" 3)"
}

# The space is given back before anything is copied: while the source stands still, the LUN is empty.
test_discard_comes_first() {
    lun thin discarded 64M
    image "$LAB_NFS_DIR/thin.img" 64M
    fill "$lun_file" 252
    lab_link still --stall-after 4M >/dev/null
    trap 'lab_link_stop still; thin_clean' EXIT
    background "$LUNFERRY" copy --overwrite --discard --timeout 600 \
        "$(lab_link_url still "$LAB_NFS/thin.img")" "$lun"
    is_given_back() { [[ $(lab_allocated "$lun_file") -le $((8 << 20)) ]]; }
    lab_wait 60 stands_still 4 || fail "the source was not read"
    lab_wait 60 is_given_back || fail "$(lab_allocated "$lun_file") bytes are allocated still"
    lab_link_cut still
    wait_status 0
    cmp "$LAB_NFS_DIR/thin.img" "$lun_file"
}

test_discard_of_old_data() {
    local from
    lun thin discarded-old 64M
    thin_images
    for from in "$LAB_NFS" "$T"; do
        fill "$lun_file" 252
        run 0 "$LUNFERRY" copy -p --overwrite --discard --verify "$from/holey.img" "$lun"
        cmp "$T/holey.img" "$lun_file"
        # The LUN was empty by then, so that no zeros had to be made.
        [[ $(as_copied) == *,"0 B",* ]] || fail "the copy did $(as_copied)"
        holds "$lun_file" "$holey_data" "$(allowed_for "$holey_data" 4)"
    done
}

# ---- 1 TiB ---------------------------------------------------------------------------------------

# Disks that take hours to read, and whose data is little.
test_one_tebibyte_there_and_back() {
    local pieces=(0+2M 1000000001+12345 300G+4M 512G+64k 1099511619584+8192)
    local data=$(((2 << 20) + 12345 + (4 << 20) + 65536 + 8192))
    trap thin_clean EXIT
    truncate -s 1T "$T/tera.img"
    lab_sparse write "$T/tera.img" "${pieces[@]}"
    lun thin tera 1T
    copy "$T/tera.img" "$lun"
    lab_sparse compare "$T/tera.img" "$lun_file"
    holds "$lun_file" "$data" "$(allowed_for "$data" 5)"
    copy "$lun" "$LAB_NFS/thin.img"
    lab_sparse compare "$T/tera.img" "$LAB_NFS_DIR/thin.img"
    holds "$LAB_NFS_DIR/thin.img" "$data" "$(allowed_for "$data" 5)"
    copy --lanes 3 "$lun" "$T/back.img"
    lab_sparse compare "$T/tera.img" "$T/back.img"
    holds "$T/back.img" "$data" "$(allowed_for "$data" 5)"
}

# ---- Cut off, and resumed ------------------------------------------------------------------------

# has_recorded GRANULES: the journal says that so many are durable.
has_recorded() {
    [[ $(awk '$2 == "durable" { n += $4 } END { print n + 0 }' "$T/journal" 2>/dev/null) -ge $1 ]]
}

# stands_still MIB: so much has passed through the link, and no more will.
stands_still() {
    [[ $(lab_link_counts still | awk -F= '/_bytes/ { n += $2 } END { print n }') -ge $(($1 << 20)) ]]
}

was_cut() { lab_link_counts still | grep -q '^cuts=1$'; }

# killed_at MIB SOURCE TARGET [OPTION...]: the source stands still when so much has come over; some
# of it is durable, which is on record, and the copy is killed. Then it is resumed.
killed_at() {
    local at=$1 from to=$3
    from=$(lab_link still --stall-after "$1M" >/dev/null && lab_link_url still "$2")
    shift 3
    background "$LUNFERRY" copy --journal "$T/journal" --flush-size 1M --request-size 256k -m 4 \
        --timeout 600 --overwrite "$@" "$from" "$to"
    lab_wait 60 has_recorded 1 || fail "nothing is on record at $at MiB"
    lab_wait 60 stands_still "$at" || fail "$at MiB never came"
    kill -KILL "$pid"
    wait "$pid" || true
    # What connects before the relay has seen the signal would be cut as well.
    lab_link_cut still
    lab_wait 60 was_cut || fail "the link still stands still"
    run 0 "$LUNFERRY" copy --journal "$T/journal" --resume --request-size 256k -m 4 "$@" "$from" "$to"
    says "resuming: "
    lab_link_stop still
    [[ ! -e $T/journal ]] || fail "the journal is still there"
}

test_killed_and_resumed_onto_a_thin_lun() {
    local at
    lun thin resumed 72M
    thin_images
    trap 'lab_link_stop still 2>/dev/null || true; thin_clean' EXIT
    for at in 12 27 43; do
        fill "$lun_file" 252
        killed_at "$at" "$LAB_NFS/holey.img" "$lun"
        same "$T/holey.img" "$lun_file"
        all_of 252 "$lun_file" "$holey_size" $((8 << 20))
    done
    fill "$lun_file" 252
    killed_at 22 "$LAB_NFS/edges.img" "$lun" --verify
    same "$T/edges.img" "$lun_file"
}

test_killed_and_resumed_to_a_new_nfs_file() {
    local at
    lun thin resumed-from 64M
    thin_images
    trap 'lab_link_stop still 2>/dev/null || true; thin_clean' EXIT
    dd if="$T/holey.img" of="$lun_file" bs=64k conv=notrunc,sparse status=none
    for at in 4 7 9; do # of the 10 MiB of data
        killed_at "$at" "$lun" "$LAB_NFS/thin.img"
        cmp "$T/holey.img" "$LAB_NFS_DIR/thin.img"
        rm "$LAB_NFS_DIR/thin.img"
    done
    for at in 12 27 43; do
        killed_at "$at" "$LAB_NFS/holey.img" "$LAB_NFS/thin.img" --verify
        cmp "$T/holey.img" "$LAB_NFS_DIR/thin.img"
        rm "$LAB_NFS_DIR/thin.img"
    done
}

# ---- What would be done --------------------------------------------------------------------------

# What the estimate on stdout says, and what the summary of a copy says was done: data, zeroed, skipped.
as_estimated() {
    sed -nE 's/^to read and write +([0-9.]+ [A-Za-z]+) in .*/\1/p
             s/^to be made zero +([0-9.]+ [A-Za-z]+) in .*/\1/p
             s/^there already +([0-9.]+ [A-Za-z]+)$/\1/p' "$T/out" | paste -sd ,
}

as_copied() {
    tr '\r' '\n' <"$T/err" |
        sed -nE 's/^.*copied .*: ([^:]*) of data moved \(.*\), (.*) zeroed, (.*) skipped$/\1,\2,\3/p'
}

# estimated WANT OPTION... SOURCE TARGET: the dry run says WANT and changes nothing of the LUN; the copy
# then does it.
estimated() {
    local want=$1 before got
    shift
    before=$(sha256sum <"$lun_file" && lab_allocated "$lun_file")
    run 0 "$LUNFERRY" copy --dry-run "$@"
    [[ ! -s $T/err ]] || fail "said: $(cat "$T/err")"
    got=$(as_estimated)
    [[ $got == "$want" ]] || fail "the estimate is $got, not $want, of: $*"
    [[ $(sha256sum <"$lun_file" && lab_allocated "$lun_file") == "$before" ]] ||
        fail "the dry run changed the LUN"
    run 0 "$LUNFERRY" copy -p "$@"
    got=$(as_copied)
    [[ $got == "$want" ]] || fail "the copy did $got, not $want, of: $*"
}

# Of 64 MiB, 9 MiB are data. To a LUN, the head's first MiB comes to that, a hole or not.
dry_image() {
    trap thin_clean EXIT
    holey "$T/dry.img" 8M+4M 26M+1M 40M+4M
}

test_dry_run_says_what_a_copy_does() {
    local kind
    dry_image
    for kind in thin thick; do
        lun "$kind" "dry-$kind" 64M
        [[ $kind == thick ]] || estimated "10.00 MiB,0 B,54.00 MiB" "$T/dry.img" "$lun"
        fill "$lun_file" 252
        estimated "10.00 MiB,54.00 MiB,0 B" --overwrite "$T/dry.img" "$lun"
        cmp "$T/dry.img" "$lun_file"
        estimated "64.00 MiB,0 B,0 B" --overwrite -S 0 "$T/dry.img" "$lun"
        estimated "10.00 MiB,0 B,54.00 MiB" --overwrite --target-is-zero "$T/dry.img" "$lun"
        cmp "$T/dry.img" "$lun_file"
    done
}

# A target that has data where the image has zeros, and zeros where it has data.
test_dry_run_where_the_target_holds_something_else() {
    dry_image
    lun thin dry-other 64M
    lab_sparse write "$lun_file" 6M+4M 50M+2M
    estimated "10.00 MiB,4.00 MiB,50.00 MiB" --overwrite "$T/dry.img" "$lun"
    cmp "$T/dry.img" "$lun_file"
}

test_dry_run_of_a_new_file() {
    dry_image
    lun thin dry-new 64M
    run 0 "$LUNFERRY" copy --dry-run "$T/dry.img" "$LAB_NFS/thin.img"
    [[ $(as_estimated) == "9.00 MiB,0 B,55.00 MiB" ]] || fail "the estimate is $(as_estimated)"
    [[ ! -e $LAB_NFS_DIR/thin.img ]] || fail "it was made all the same"
    no_temporary "$LAB_NFS_DIR"
    run 0 "$LUNFERRY" copy -p "$T/dry.img" "$LAB_NFS/thin.img"
    [[ $(as_copied) == "9.00 MiB,0 B,55.00 MiB" ]] || fail "the copy did $(as_copied)"
    # NFSv3 does not tell where the data is; the copy finds out.
    run 0 "$LUNFERRY" copy --dry-run "$LAB_NFS/thin.img" "$lun"
    [[ $(as_estimated) == "64.00 MiB,0 B,0 B" ]] || fail "the estimate is $(as_estimated)"
    grep -q "^The source does not tell where its data is" "$T/out" || fail "said nothing of that"
    run 0 "$LUNFERRY" copy -p "$LAB_NFS/thin.img" "$lun"
    [[ $(as_copied) == "10.00 MiB,0 B,54.00 MiB" ]] || fail "the copy did $(as_copied)"
    run 2 "$LUNFERRY" copy --dry-run "$T/dry.img" "$LAB_NFS/thin.img"
    says "thin.img exists .*--overwrite"
}
