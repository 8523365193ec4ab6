# shellcheck shell=bash disable=SC2154
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# What may be said of the image that is made, and what does not go together: nothing is opened then, and nothing is
# made.

# option_refused SENTENCE OPTION...: an extended regular expression.
option_refused() {
    local sentence=$1
    shift
    run 2 "$LUNFERRY" copy "$@" "$T/none.img" "$T/made.img"
    says "^lunferry( copy)?: $sentence"
    [[ ! -e $T/made.img ]] || fail "something was made"
}

test_target_options_one_by_one() {
    option_refused '-O: "vmdk" is no format that is known; raw, qcow2 and qcow are$' -O vmdk
    option_refused '-O: qcow images can only be read; raw and qcow2 are written$' -O qcow
    option_refused '-F: "vmdk" is no format' -O qcow2 -B base -F vmdk
    option_refused '-o: "size" is not known; these are: cluster_size, compat, .*, refcount_bits$' -O qcow2 -o size=1G
    option_refused '-o: "" is not known' -O qcow2 -o cluster_size=4k,
    option_refused '-o cluster_size: 0 is no power of two between 512 and 2M$' -O qcow2 -o cluster_size=0
    option_refused '-o cluster_size: 3000 is no power of two' -O qcow2 -o cluster_size=3000
    option_refused '-o cluster_size: 4G is no power of two' -O qcow2 -o cluster_size=4G
    option_refused '-o cluster_size: "on" is not a size' -O qcow2 -o cluster_size
    option_refused '-o compat: "1.0" is not known; 1.1 \(or v3\) and 0.10 \(or v2\) are$' -O qcow2 -o compat=1.0
    option_refused '-o compression_type: "lz4" is not known; zlib and zstd are$' -O qcow2 -o compression_type=lz4
    option_refused '-o extended_l2: "yes" is neither on nor off$' -O qcow2 -o extended_l2=yes
    option_refused '-o lazy_refcounts: "" is neither on nor off$' -O qcow2 -o lazy_refcounts=
    option_refused '-o refcount_bits: "0" is out of range: it must be from 1 to 64$' -O qcow2 -o refcount_bits=0
    option_refused '-o refcount_bits: 24 is no power of two' -O qcow2 -o refcount_bits=24
    option_refused '--compression: "zst" is not known; zlib and zstd are$' -O qcow2 --compression zst:3
    option_refused '--compression: "20" is out of range: it must be from 1 to 19$' -O qcow2 --compression zstd:20
    option_refused '--compression: "10" is out of range: it must be from 1 to 9$' -O qcow2 --compression zlib:10
    option_refused '--compression: "" is not a whole decimal number' -O qcow2 --compression zlib:
}

test_target_options_together() {
    option_refused 'a raw image cannot be compressed: -c is for -O qcow2$' -c
    option_refused 'a raw image cannot be compressed: -c is for -O qcow2$' -O raw --compression zlib
    option_refused '-o lazy_refcounts=off: a raw image has no properties; -O qcow2 makes' -o lazy_refcounts=off
    option_refused 'a raw image has no backing image: -B is for -O qcow2$' -B base
    option_refused '-F says of what format the backing image is: it needs -B too$' -O qcow2 -F raw
    option_refused '-o compression_type=zlib and --compression zstd contradict each other$' \
        -O qcow2 -o compression_type=zlib --compression zstd:3
    option_refused 'zstd needs compat=1.1' -O qcow2 -o compat=0.10,compression_type=zstd
    option_refused 'zstd needs compat=1.1' -O qcow2 --compression zstd -o compat=v2
    # All of -o counts, wherever it stands.
    option_refused '-o extended_l2 needs compat=1.1$' -O qcow2 -o extended_l2 -o compat=v2
    option_refused '-o lazy_refcounts needs compat=1.1$' -o lazy_refcounts=on,compat=0.10 -O qcow2
    option_refused '-o extended_l2 needs clusters of 16k or more' -O qcow2 -o extended_l2=on,cluster_size=8k
    option_refused '-o refcount_bits=1 is too little for -c' -O qcow2 -c -o refcount_bits=1
    run 2 "$LUNFERRY" copy "$T/none.img" "$T/made.qcow"
    says 'made.qcow: by its name it is to be a qcow image, which can only be read; -O raw or -O qcow2'
}

# What only a raw target has, or only one that is there already.
test_target_qcow2_is_made_anew() {
    local option
    for option in '-n --overwrite' '--target-offset 1M' '--zero-tail' '--discard' '--target-is-zero'; do
        # shellcheck disable=SC2086
        option_refused "${option%% *}: an image of the format qcow2 is always made anew and whole" -O qcow2 $option
    done
    option_refused '--resume: what an unfinished qcow2 image holds is known only when it is finished' \
        -O qcow2 --resume --journal "$T/j"
    option_refused '--delta: a new image holds nothing that SOURCE could differ from, unless -B' -O qcow2 --delta
    option_refused '--verify: a qcow2 image can be read when it is finished' -O qcow2 --verify
    option_refused '--request-size: 65536 bytes are no multiple of the cluster size, 131072$' \
        -O qcow2 --request-size 64k -o cluster_size=128k
}

# Nothing is left of what could not be begun, and the backing image is as it was.
test_target_backing_image_that_cannot_be() {
    image "$T/a.img" 1M
    run 2 "$LUNFERRY" copy -O qcow2 -B none.img "$T/a.img" "$T/made.qcow2"
    says 'none.img: no such file'
    cp "$T/a.img" "$T/base.qcow2"
    run 2 "$LUNFERRY" copy -B base.qcow2 "$T/a.img" "$T/made.qcow2"
    says 'backing file: .*base.qcow2'
    run 2 "$LUNFERRY" copy --overwrite -B base.qcow2 -F raw "$T/a.img" "$T/base.qcow2"
    says 'base.qcow2'
    cmp "$T/a.img" "$T/base.qcow2"
    [[ ! -e $T/made.qcow2 ]] || fail "something was made"
    no_temporary "$T"
}

# Of how much room there could be need is not asked: a thin disk is longer than files may be here.
test_target_longer_than_a_file_may_be() {
    local lanes
    for lanes in 1 3; do
        (ulimit -f 16384 && exec "$LUNFERRY" copy -q -c --lanes "$lanes" null:1T random:4M "$T/thin-$lanes.qcow2") ||
            fail "with $lanes lanes it ended with $?"
        qemu-img check -q "$T/thin-$lanes.qcow2" || fail "qemu-img check finds fault"
        qemu-io -f qcow2 -r -c "read -P 0 1023G 1G" "$T/thin-$lanes.qcow2" >"$T/out"
        ! grep -q 'verification failed' "$T/out" || fail "what was zeros is not"
        run 0 "$LUNFERRY" copy -q --source-range 1T+4M "$T/thin-$lanes.qcow2" "$T/tail-$lanes"
        run 0 "$LUNFERRY" compare "$T/tail-$lanes" random:4M
    done
}
