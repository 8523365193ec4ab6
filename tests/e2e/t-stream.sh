# shellcheck shell=bash disable=SC2154
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# "-": stdin to every kind of target. What arrives is compared on the servers' own files.

# piped FILE ARG...: `copy ARG...` with the file in a pipe on stdin; it succeeds.
piped() {
    local file=$1
    shift
    copy "$@" < <(cat "$file")
}

test_stdin_to_new_files() {
    local size
    for size in 1 511 65536 65537 524288 1048576 1048577 16777729; do
        image "$T/in" "$size"
        piped "$T/in" - "$LAB_NFS/s.img"
        cmp "$T/in" "$LAB_NFS_DIR/s.img"
        piped "$T/in" - "$T/local"
        cmp "$T/in" "$T/local"
        rm "$T/in" "$T/local" "$LAB_NFS_DIR/s.img"
    done
    no_temporary "$LAB_NFS_DIR"
    no_temporary "$T"
}

# The head is a MiB: streams that end in it, at its end, and behind it. What lies on the LUN behind the stream
# stays.
stdin_to() {
    local size
    for size in 1 1048575 1048576 1048577 16777729; do
        image "$T/in" "$size"
        fill "$2" 252
        piped "$T/in" --overwrite - "$1"
        same "$T/in" "$2"
        [[ $(tail -c "+$((size + 1))" "$2" | tr -d '\252' | wc -c) -eq 0 ]] ||
            fail "bytes behind the stream changed"
        rm "$T/in"
    done
}

test_stdin_to_512_byte_blocks() {
    stdin_to "$LAB_LUN512" "$LAB_LUN512_FILE"
}

test_stdin_to_4096_byte_blocks() {
    stdin_to "$LAB_LUN4K" "$LAB_LUN4K_FILE"
}

test_stdin_in_order_to_lun() {
    image "$T/in" 3000001
    piped "$T/in" --overwrite --in-order - "$LAB_LUN512"
    same "$T/in" "$LAB_LUN512_FILE"
}

# Of the thin LUN it is known what is zero.
test_stdin_to_thin_lun() {
    truncate -s 64M "$T/in"
    dd if=/dev/urandom of="$T/in" bs=1M count=3 seek=20 conv=notrunc status=none
    piped "$T/in" --overwrite --discard - "$LAB_LUNTHIN"
    same "$T/in" "$LAB_LUNTHIN_FILE"
    [[ $(stat -c %b "$LAB_LUNTHIN_FILE") -lt 16384 ]] || fail "zeros were written"
}

test_stdin_as_long_as_the_lun() {
    image "$T/in" 16M
    piped "$T/in" --overwrite - "$LAB_LUNSMALL"
    cmp "$T/in" "$LAB_LUNSMALL_FILE"
}

test_stdin_longer_than_the_lun() {
    image "$T/in" 16777217
    run 3 "$LUNFERRY" copy --overwrite - "$LAB_LUNSMALL" < <(cat "$T/in")
    says "target: .* is too small: it has 16777216 bytes, and the stream has more; the target is not complete"
    head_is_blank "$LAB_LUNSMALL_FILE" || fail "the head is not blank"
}

test_stdin_into_file_in_place() {
    image "$T/in" 5000001
    truncate -s 8M "$LAB_NFS_DIR/there.img"
    fill "$LAB_NFS_DIR/there.img" 252
    piped "$T/in" -n --overwrite - "$LAB_NFS/there.img"
    same "$T/in" "$LAB_NFS_DIR/there.img"
    [[ $(stat -c %s "$LAB_NFS_DIR/there.img") -eq 8388608 ]] || fail "its size changed"
    rm "$LAB_NFS_DIR/there.img"
}

test_stdin_of_zeros_leaves_a_hole() {
    run 0 "$LUNFERRY" copy - "$LAB_NFS/z.img" < <(head -c 30000001 /dev/zero)
    [[ $(stat -c %s "$LAB_NFS_DIR/z.img") -eq 30000001 ]] || fail "has another size"
    [[ $(stat -c %b "$LAB_NFS_DIR/z.img") -lt 64 ]] || fail "has blocks"
    run 0 "$LUNFERRY" copy -S 0 - "$LAB_NFS/full.img" < <(head -c 3000001 /dev/zero)
    [[ $(stat -c %b "$LAB_NFS_DIR/full.img") -ge 5856 ]] || fail "zeros were not written"
    cmp "$LAB_NFS_DIR/full.img" <(head -c 3000001 /dev/zero)
    rm "$LAB_NFS_DIR"/{z,full}.img
}

# Ends in data, and in zeros that were never written.
test_stdin_verified() {
    image "$T/in" 20000001
    piped "$T/in" --verify - "$LAB_NFS/v.img"
    cmp "$T/in" "$LAB_NFS_DIR/v.img"
    piped "$T/in" --verify --overwrite - "$LAB_LUN512"
    same "$T/in" "$LAB_LUN512_FILE"
    truncate -s 25000001 "$T/in"
    piped "$T/in" --verify --overwrite - "$LAB_NFS/v.img"
    cmp "$T/in" "$LAB_NFS_DIR/v.img"
    rm "$LAB_NFS_DIR/v.img"
}

test_stdin_from_a_file_begins_where_it_stands() {
    image "$T/in" 3000001
    { dd bs=1000 count=1 status=none >/dev/null && copy - "$T/rest"; } <"$T/in"
    cmp <(tail -c +1001 "$T/in") "$T/rest"
}

# In pieces of 777 bytes, by a writer who takes his time.
test_stdin_in_small_pieces() {
    image "$T/in" 400001
    dd if="$T/in" bs=777 status=none | copy - "$LAB_NFS/p.img"
    cmp "$T/in" "$LAB_NFS_DIR/p.img"
    rm "$LAB_NFS_DIR/p.img"
}

test_stdin_that_is_empty() {
    run 2 "$LUNFERRY" copy - "$LAB_NFS/e.img" < <(:)
    says "source: - is empty: there is nothing to copy; nothing was changed"
    fill "$LAB_LUNSMALL_FILE" 252
    run 2 "$LUNFERRY" copy --overwrite - "$LAB_LUNSMALL" </dev/null
    [[ $(tr -d '\252' <"$LAB_LUNSMALL_FILE" | wc -c) -eq 0 ]] || fail "the LUN was changed"
    [[ ! -e $LAB_NFS_DIR/e.img ]] || fail "made a file"
    no_temporary "$LAB_NFS_DIR"
}

test_silent_writer_is_not_waited_for() {
    mkfifo "$T/fifo"
    exec {writer}<>"$T/fifo"
    image "$T/in" 4M
    env --default-signal=INT "$LUNFERRY" copy - "$LAB_NFS/w.img" <"$T/fifo" >"$T/out" 2>"$T/err" &
    pid=$!
    cat "$T/in" >&"$writer"
    lab_wait "$HANG" is_moving "$LAB_NFS_DIR" || fail "nothing moved"
    kill -INT "$pid"
    wait_status 130
    says "interrupted; the file of that name, if there was one, is as it was"
    no_temporary "$LAB_NFS_DIR"
}

test_refused_while_the_writer_is_silent() {
    mkfifo "$T/fifo"
    exec {writer}<>"$T/fifo"
    echo 0123456789 >&"$writer"
    fill "$LAB_LUNSMALL_FILE" 252
    run 2 "$LUNFERRY" copy - "$LAB_LUNSMALL" <"$T/fifo"
    says "holds .*; --overwrite would replace it; nothing was changed"
}

test_what_a_stream_cannot() {
    local words
    while read -r words; do
        # shellcheck disable=SC2086
        run 2 "$LUNFERRY" copy $words < <(echo 0123456789)
        says "- is a stream: .*; nothing was changed"
    done <<'END'
--lanes 2 - null:1M
--dry-run - null:1M
--zero-tail - ram:1M
--source-range 0+4k - null:1M
- null:1M null:2M
--verify null:1M -
--dry-run null:1M -
--lanes 2 null:1M -
--target-offset 4k null:1M -
--target-is-zero null:1M -
--discard null:1M -
--zero-tail null:1M -
--reserve null:1M -
-n --overwrite null:1M -
END
}

test_qcow2_in_a_stream() {
    qemu-img create -q -f qcow2 "$T/i.qcow2" 1M
    run 2 "$LUNFERRY" copy - null:1G < <(cat "$T/i.qcow2")
    says "begins like a qcow2 image; -f qcow2 reads it as one, -f raw copies it as it is"
    run 2 "$LUNFERRY" copy -f qcow2 - null:1G < <(cat "$T/i.qcow2")
    says "a qcow2 image cannot be read from a stream"
    piped "$T/i.qcow2" -f raw - "$T/copy"
    cmp "$T/i.qcow2" "$T/copy"
}

# ---- stdout -----------------------------------------------------------------------------------------

# silent_copy ARG...: like copy, and stdout is left alone.
silent_copy() {
    "$LUNFERRY" copy "$@" 2>"$T/err" || fail "exit status $?: $(cat "$T/err")"
    [[ ! -s $T/err ]] || fail "said: $(cat "$T/err")"
}

test_everything_to_stdout() {
    local size
    for size in 1 65537 524288 16777729; do
        image "$LAB_NFS_DIR/in.img" "$size"
        silent_copy "$LAB_NFS/in.img" - | cat | cmp - "$LAB_NFS_DIR/in.img"
        silent_copy -m 64 "$LAB_NFS/in.img" - >"$T/out.img"
        cmp "$T/out.img" "$LAB_NFS_DIR/in.img"
        silent_copy "$T/out.img" - | copy - "$LAB_NFS/again.img"
        cmp "$T/out.img" "$LAB_NFS_DIR/again.img"
        silent_copy - - < <(cat "$T/out.img") | cmp - "$T/out.img"
        rm "$LAB_NFS_DIR"/{in,again}.img
    done
    copy --overwrite random:256M "$LAB_LUN4K"
    silent_copy "$LAB_LUN4K" - | cmp - "$LAB_LUN4K_FILE"
    silent_copy --source-range 4k+10000001 "$LAB_LUN4K" - |
        cmp - <(tail -c +4097 "$LAB_LUN4K_FILE" | head -c 10000001)
}

# Holes are not read, and are zeros there.
test_sparse_to_stdout() {
    truncate -s 100000001 "$T/in"
    dd if=/dev/urandom of="$T/in" bs=1M count=3 seek=20 conv=notrunc status=none
    silent_copy "$T/in" - | cmp - "$T/in"
    silent_copy -S 0 "$T/in" - | cmp - "$T/in"
    run 0 "$LUNFERRY" copy -p "$T/in" -
    cmp "$T/out" "$T/in"
    says "copied 95.37 MiB"
}

test_stdout_is_appended_to() {
    image "$T/in" 3000001
    {
        echo first
        silent_copy "$T/in" -
        silent_copy --sync "$T/in" -
    } >"$T/all"
    cmp "$T/all" <(echo first && cat "$T/in" "$T/in")
}

test_qcow2_image_to_stdout() {
    truncate -s 8M "$T/raw"
    dd if=/dev/urandom of="$T/raw" bs=64k count=20 seek=30 conv=notrunc status=none
    qemu-img convert -c -O qcow2 "$T/raw" "$LAB_NFS_DIR/i.qcow2"
    silent_copy "$LAB_NFS/i.qcow2" - | cmp - "$T/raw"
    rm "$LAB_NFS_DIR/i.qcow2"
}

test_reader_of_stdout_goes() {
    local status
    image "$LAB_NFS_DIR/in.img" 64M
    set +e
    "$LUNFERRY" copy "$LAB_NFS/in.img" - 2>"$T/err" | head -c 1000000 | cmp -n 1000000 - "$LAB_NFS_DIR/in.img"
    status=("${PIPESTATUS[@]}")
    set -e
    [[ "${status[*]}" == "3 0 0" ]] || fail "exit statuses ${status[*]}"
    says "target: writing - at offset [0-9]*: whoever was to read it has gone \(broken pipe\); the target is not complete"
    [[ $(wc -l <"$T/err") -eq 1 ]] || fail "said more than that"
    rm "$LAB_NFS_DIR/in.img"
}

# onto FILE COMMAND...: with stdout there; '': closed.
onto() {
    local file=$1
    shift
    if [[ $file ]]; then
        "$@" >"$file"
    else
        "$@" >&-
    fi
}

test_stdout_that_is_full() {
    image "$T/in" 4M
    run 3 onto /dev/full "$LUNFERRY" copy "$T/in" -
    says "target: writing - at offset 0: no space left on device; the target is not complete"
    run 2 onto '' "$LUNFERRY" copy "$T/in" -
    says "target: opening -: stdout is closed"
    run 2 "$LUNFERRY" copy - null:1M <&-
    says "source: opening -: stdin is closed"
}

test_silent_reader_is_not_waited_for() {
    mkfifo "$T/fifo"
    exec {reader}<>"$T/fifo"
    env --default-signal=INT "$LUNFERRY" copy random:64M - >"$T/fifo" 2>"$T/err" &
    pid=$!
    head -c 1000000 <&"$reader" >/dev/null
    kill -INT "$pid"
    wait_status 130
    says "interrupted; the target is not complete"
}

test_sizes_of_reads_and_writes() {
    local sizes
    image "$T/in" 20000001
    for sizes in 4k,1M 1M,4k 12k,8k 64k,192k 16M,12M 4k 16M; do
        piped "$T/in" --request-size "$sizes" - "$LAB_NFS/r.img"
        silent_copy --request-size "$sizes" "$LAB_NFS/r.img" - | cmp - "$T/in"
        piped "$T/in" --overwrite --request-size "$sizes" - "$LAB_LUN4K"
        silent_copy --request-size "$sizes" --source-range 0+20000001 "$LAB_LUN4K" - | cmp - "$T/in"
        copy -n --overwrite --request-size "$sizes" --target-offset 4k "$T/in" "$LAB_LUN512"
        cmp <(tail -c +4097 "$LAB_LUN512_FILE" | head -c 20000001) "$T/in"
        rm "$LAB_NFS_DIR/r.img"
    done
    run 2 "$LUNFERRY" copy --request-size 64k,1000 "$T/in" null:1G
    says "request-size.*1000"
    run 2 "$LUNFERRY" copy --verify --request-size 64k,192k "$T/in" null:1G
    says "the longer --request-size is a multiple of 256k"
}
