# shellcheck shell=bash disable=SC2154,SC2317
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# A copy that was cut off is gone on with; two copies do not get into each other's way.

resume_clean() {
    rm -f "$LAB_NFS_DIR/part.img" "$LAB_NFS_DIR/whole.img" "$LAB_NFS_DIR"/.*.lunferry-*
}

# Bytes that were written to the target by the last run, as its own summary says.
resumed_from() {
    sed -n 's/^lunferry: resuming: \(.*\) of .* are there already$/\1/p' "$T/err"
}

# begin_recorded [OPTION...] SOURCE TARGET: a copy with the journal $T/journal, in which something is
# durable when this returns, and which has some seconds yet to go.
begin_recorded() {
    background "$LUNFERRY" copy --journal "$T/journal" --flush-size 2M --rate-limit 4M "$@"
    lab_wait "$HANG" grep -qs durable "$T/journal" || fail "nothing is recorded"
}

# kill_it: the copy in the background, at once.
kill_it() {
    kill -KILL "$pid"
    wait "$pid" || true
}

# killed_and_resumed SECONDS TARGET [OPTION...]: the copy is killed after SECONDS and resumed.
killed_and_resumed() {
    local after=$1 to=$2
    shift 2
    background "$LUNFERRY" copy --journal "$T/journal" --flush-size 4M --rate-limit 64M "$@" \
        "$LAB_NFS/whole.img" "$to"
    sleep "$after"
    kill -KILL "$pid" || true
    wait "$pid" || true
    if [[ ! -e $T/journal ]]; then # killed before it began, or after its end
        [[ ! -e $LAB_NFS_DIR/part.img ]] || rm "$LAB_NFS_DIR/part.img"
        return
    fi
    run 0 "$LUNFERRY" copy --journal "$T/journal" --resume "$@" "$LAB_NFS/whole.img" "$to"
    says "resuming: "
    [[ ! -e $T/journal ]] || fail "the journal is still there"
}

test_killed_at_ten_moments_and_resumed_to_nfs() {
    local i
    image "$LAB_NFS_DIR/whole.img" 32M
    trap resume_clean EXIT
    for i in 0 1 2 3 4 5 6 7 8 9; do
        killed_and_resumed "0.0${i}$((i * 3 % 10))" "$LAB_NFS/part.img" --overwrite
        [[ ! -e $LAB_NFS_DIR/part.img ]] || same "$LAB_NFS_DIR/whole.img" "$LAB_NFS_DIR/part.img"
        no_temporary_but_the_lock
        rm -f "$LAB_NFS_DIR"/.part.img.lunferry-* "$LAB_NFS_DIR/part.img" "$T/journal"
    done
}

no_temporary_but_the_lock() {
    local left
    left=$(find "$LAB_NFS_DIR" -name '.part.img.lunferry-*' ! -name '*-lock')
    [[ -z $left || -n ${left_is_fine:-} ]] || echo "left behind: $left"
}

test_killed_at_ten_moments_and_resumed_to_a_lun() {
    local i
    image "$LAB_NFS_DIR/whole.img" 32M
    trap resume_clean EXIT
    for i in 0 1 2 3 4 5 6 7 8 9; do
        fill "$LAB_LUN512_FILE" 0
        killed_and_resumed "0.$((i * 5 % 50 + 3))" "$LAB_LUN512" --overwrite
        rm -f "$T/journal"
        [[ ! -s $T/err ]] || same "$LAB_NFS_DIR/whole.img" "$LAB_LUN512_FILE"
    done
}

# Killed while it wrote the head: of that a part is there, the rest is blank.
test_half_a_head_is_resumed() {
    lab_link slow --rate 8000000 >/dev/null
    trap 'lab_link_stop slow; resume_clean' EXIT
    image "$LAB_NFS_DIR/whole.img" 32M
    fill "$LAB_LUN512_FILE" 0
    background "$LUNFERRY" copy --journal "$T/journal" --flush-size 4M --overwrite \
        "$(lab_link_url slow "$LAB_NFS/whole.img")" "$LAB_LUN512"
    lab_wait "$HANG" grep -qs durable "$T/journal" || fail "nothing is recorded"
    kill_it
    dd if="$LAB_NFS_DIR/whole.img" of="$LAB_LUN512_FILE" bs=64k seek=2 skip=2 count=3 conv=notrunc status=none
    run 0 "$LUNFERRY" copy --journal "$T/journal" --resume --overwrite \
        "$(lab_link_url slow "$LAB_NFS/whole.img")" "$LAB_LUN512"
    same "$LAB_NFS_DIR/whole.img" "$LAB_LUN512_FILE"
}

# What was made durable is not copied again.
test_resume_repeats_little() {
    local there
    image "$LAB_NFS_DIR/whole.img" 64M
    trap resume_clean EXIT
    background "$LUNFERRY" copy --journal "$T/journal" --flush-size 2M --rate-limit 8M \
        "$LAB_NFS/whole.img" "$LAB_NFS/part.img"
    # 16 MiB, of 64
    quarter_is_recorded() {
        [[ $(awk '$2 == "durable" { n += $4 } END { print n + 0 }' "$T/journal" 2>/dev/null) -ge 64 ]]
    }
    lab_wait "$HANG" quarter_is_recorded || fail "too little is recorded"
    kill_it
    run 0 "$LUNFERRY" copy -p --journal "$T/journal" --resume "$LAB_NFS/whole.img" "$LAB_NFS/part.img"
    there=$(resumed_from)
    [[ ${there%%.*} -ge 16 ]] || fail "only $there were there already"
    same "$LAB_NFS_DIR/whole.img" "$LAB_NFS_DIR/part.img"
    no_temporary "$LAB_NFS_DIR"
}

test_resume_command_is_printed() {
    lab_link slow --rate 8000000 >/dev/null
    trap 'lab_link_stop slow; resume_clean' EXIT
    image "$LAB_NFS_DIR/whole.img" 64M
    background "$LUNFERRY" copy --journal "$T/my journal" --flush-size 4M \
        "$(lab_link_url slow "$LAB_NFS/whole.img")" "$LAB_NFS/part.img"
    lab_wait "$HANG" grep -qs durable "$T/my journal" || fail "nothing is recorded"
    kill -INT "$pid"
    wait_status 130
    says "go on with: lunferry copy --resume .*'$T/my journal'.*whole.img.* .*part.img"
    sed -n 's/^lunferry: go on with: lunferry //p' "$T/err" >"$T/command"
    lab_link_stop slow
    lab_link slow >/dev/null
    eval "run 0 \"$LUNFERRY\" $(sed "s/127.0.0.[0-9]*/$(cat "$LAB_DIR/links/slow.address")/" "$T/command")" ||
        fail "the command does not work: $(cat "$T/command")"
    same "$LAB_NFS_DIR/whole.img" "$LAB_NFS_DIR/part.img"
}

test_resume_refuses_what_has_changed() {
    image "$LAB_NFS_DIR/whole.img" 32M
    trap resume_clean EXIT
    begin_recorded "$LAB_NFS/whole.img" "$LAB_NFS/part.img"
    kill_it
    touch "$LAB_NFS_DIR/whole.img"
    run 2 "$LUNFERRY" copy --journal "$T/journal" --resume "$LAB_NFS/whole.img" "$LAB_NFS/part.img"
    says "source: .*whole.img was changed since the copy was begun; start anew, without --resume"
    [[ -e $T/journal ]] || fail "the journal is gone"
    run 2 "$LUNFERRY" copy --resume "$LAB_NFS/whole.img" "$LAB_NFS/part.img"
    says "there is nothing to resume: no unfinished copy of .*whole.img to .*part.img is on record in $XDG_STATE_HOME/lunferry/"
    run 2 "$LUNFERRY" copy --journal "$T/journal" --resume "$LAB_NFS/whole.img" "$LAB_NFS/other.img"
    says "is the journal of another copy"
    run 0 "$LUNFERRY" copy --journal "$T/journal" "$LAB_NFS/whole.img" "$LAB_NFS/part.img"
    says "an earlier copy of the same was not finished .*; starting anew"
    same "$LAB_NFS_DIR/whole.img" "$LAB_NFS_DIR/part.img"
}

# Between the two, somebody puts the LUN to another use.
test_resume_refuses_a_lun_that_was_written_to() {
    image "$LAB_NFS_DIR/whole.img" 32M
    trap resume_clean EXIT
    begin_recorded --overwrite "$LAB_NFS/whole.img" "$LAB_LUN512"
    kill_it
    printf 'precious' | dd of="$LAB_LUN512_FILE" bs=512 seek=1 conv=notrunc status=none
    run 2 "$LUNFERRY" copy --journal "$T/journal" --resume "$LAB_NFS/whole.img" "$LAB_LUN512"
    says "target: .* was written to since the copy was cut off"
    cmp <(printf 'precious') <(dd if="$LAB_LUN512_FILE" bs=1 skip=512 count=8 status=none)
}

test_file_that_is_no_journal_is_left_alone() {
    image "$LAB_NFS_DIR/whole.img" 1M
    trap resume_clean EXIT
    printf 'precious' >"$T/precious"
    run 2 "$LUNFERRY" copy --journal "$T/precious" "$LAB_NFS/whole.img" "$LAB_NFS/part.img"
    says "precious.*is left alone: remove it, or name another file for the journal"
    [[ $(cat "$T/precious") == precious ]] || fail "it was changed"
}

# A copy that is turned away at the lock leaves the record of an earlier one.
test_turned_away_keeps_the_journal() {
    image "$LAB_NFS_DIR/whole.img" 32M
    trap resume_clean EXIT
    begin_recorded "$LAB_NFS/whole.img" "$LAB_NFS/part.img"
    kill_it
    background "$LUNFERRY" copy --journal none --rate-limit 256k "$LAB_NFS/whole.img" "$LAB_NFS/part.img"
    local other=$pid
    other_has_it() { grep -q "pid=$other" "$LAB_NFS_DIR/.part.img.lunferry-lock" 2>/dev/null; }
    lab_wait "$HANG" other_has_it || fail "no lock"
    run 2 "$LUNFERRY" copy --journal "$T/journal" "$LAB_NFS/whole.img" "$LAB_NFS/part.img"
    says "another copy to"
    grep -q durable "$T/journal" || fail "the record is gone"
    kill "$other"
    pid=$other
    wait_status 143
    run 0 "$LUNFERRY" copy --journal "$T/journal" --resume "$LAB_NFS/whole.img" "$LAB_NFS/part.img"
    same "$LAB_NFS_DIR/whole.img" "$LAB_NFS_DIR/part.img"
}

# ---- Two at once ---------------------------------------------------------------------------------
#
# The first copy stands still while the second one tries: whatever that takes, it is still there, and has
# not got on.

stand_still() {
    kill -STOP "$1" || fail "the first copy is over already"
}

# Goes on, and ends well.
go_on() {
    kill -CONT "$1"
    pid=$1
    wait_status 0
}

test_two_copies_to_one_name() {
    image "$LAB_NFS_DIR/whole.img" 16M
    trap resume_clean EXIT
    background "$LUNFERRY" copy --journal none --rate-limit 8M "$LAB_NFS/whole.img" "$LAB_NFS/part.img"
    local first=$pid
    is_locked() { [[ -s $LAB_NFS_DIR/.part.img.lunferry-lock ]]; }
    lab_wait "$HANG" is_locked || fail "no lock file"
    stand_still "$first"
    run 2 "$LUNFERRY" copy "$LAB_NFS/whole.img" "$LAB_NFS/part.img"
    says "another copy to .*part.img is under way"
    says "process $first"
    says "break-lock"
    go_on "$first"
    same "$LAB_NFS_DIR/whole.img" "$LAB_NFS_DIR/part.img"
    no_temporary "$LAB_NFS_DIR"
}

test_two_copies_to_one_lun() {
    image "$LAB_NFS_DIR/whole.img" 16M
    trap resume_clean EXIT
    background "$LUNFERRY" copy --overwrite --rate-limit 8M "$LAB_NFS/whole.img" "$LAB_LUN512"
    local first=$pid
    is_claimed() { compgen -G "$XDG_STATE_HOME/lunferry/*.claim" >/dev/null; }
    lab_wait "$HANG" is_claimed || fail "no claim"
    stand_still "$first"
    run 2 "$LUNFERRY" copy --overwrite random:1M "$LAB_LUN512"
    says "target: .*process $first .*is writing to it already"
    go_on "$first"
    same "$LAB_NFS_DIR/whole.img" "$LAB_LUN512_FILE"
    is_claimed && fail "the claim is still there"
    true
}

# In a directory that is not ours there is no lock file; what is written in place needs none.
test_in_place_without_a_lock() {
    local as='uid=65534&gid=65534'
    image "$LAB_NFS_DIR/whole.img" 1M
    image "$T/other.img" 1M
    trap resume_clean EXIT
    chmod 666 "$LAB_NFS_DIR/whole.img"
    run 0 "$LUNFERRY" copy -n --overwrite "$T/other.img" "$LAB_NFS/whole.img?$as"
    says "nothing keeps another lunferry from the target: .*NFS3ERR_ACCES"
    same "$T/other.img" "$LAB_NFS_DIR/whole.img"
}

test_broken_lock_makes_the_first_lose() {
    image "$LAB_NFS_DIR/whole.img" 16M
    trap resume_clean EXIT
    "$LUNFERRY" copy --rate-limit 8M "$LAB_NFS/whole.img" "$LAB_NFS/part.img" 2>"$T/first" &
    local first=$! got=0
    is_locked() { [[ -s $LAB_NFS_DIR/.part.img.lunferry-lock ]]; }
    lab_wait "$HANG" is_locked || fail "no lock file"
    kill -STOP "$first"
    "$LUNFERRY" copy --break-lock "$LAB_NFS/whole.img" "$LAB_NFS/part.img" 2>"$T/second" &
    pid=$!
    second_has_it() { grep -qs "pid=$pid" "$LAB_NFS_DIR/.part.img.lunferry-lock"; }
    has_it_or_had() { second_has_it || cmp -s "$LAB_NFS_DIR/whole.img" "$LAB_NFS_DIR/part.img"; }
    lab_wait "$HANG" has_it_or_had || fail "the lock was not broken"
    kill -CONT "$first"
    wait "$first" || got=$?
    [[ $got -eq 3 ]] || fail "the first ended with $got: $(cat "$T/first")"
    grep -q "lock" "$T/first" || fail "it said: $(cat "$T/first")"
    wait_status 0
    same "$LAB_NFS_DIR/whole.img" "$LAB_NFS_DIR/part.img"
}

test_lock_of_a_dead_process_is_taken_over() {
    image "$LAB_NFS_DIR/whole.img" 16M
    trap resume_clean EXIT
    background "$LUNFERRY" copy --rate-limit 256k "$LAB_NFS/whole.img" "$LAB_NFS/part.img"
    is_locked() { [[ -s $LAB_NFS_DIR/.part.img.lunferry-lock ]]; }
    lab_wait "$HANG" is_locked || fail "no lock file"
    kill_it
    run 0 "$LUNFERRY" copy "$LAB_NFS/whole.img" "$LAB_NFS/part.img"
    same "$LAB_NFS_DIR/whole.img" "$LAB_NFS_DIR/part.img"
}

# ---- Reservations --------------------------------------------------------------------------------

test_reserved_while_it_is_copied_to() {
    image "$LAB_NFS_DIR/whole.img" 16M
    trap resume_clean EXIT
    fill "$LAB_LUN512_FILE" 252
    background "$LUNFERRY" copy --reserve --overwrite --rate-limit 8M "$LAB_NFS/whole.img" "$LAB_LUN512"
    local first=$pid
    lab_wait "$HANG" head_is_blank "$LAB_LUN512_FILE" || fail "nothing moved"
    stand_still "$first"
    # Another initiator, and it is told who holds it.
    run 2 env XDG_STATE_HOME="$T/other" "$LUNFERRY" copy --reserve --overwrite --initiator-name iqn.2026-01.org.example:other \
        random:1M "$LAB_LUN512"
    says "target: .*reserv.*key [0-9a-f]{16}"
    says "break-reservation"
    run 3 env XDG_STATE_HOME="$T/other" "$LUNFERRY" copy --overwrite \
        --initiator-name iqn.2026-01.org.example:other random:1M "$LAB_LUN512"
    says "RESERVATION CONFLICT"
    go_on "$first"
    same "$LAB_NFS_DIR/whole.img" "$LAB_LUN512_FILE"
    # Released: anyone may write again.
    run 0 "$LUNFERRY" copy --overwrite --initiator-name iqn.2026-01.org.example:other random:1M "$LAB_LUN512"
}

test_broken_reservation_ends_the_first_copy() {
    local key
    image "$LAB_NFS_DIR/whole.img" 32M
    trap resume_clean EXIT
    fill "$LAB_LUN512_FILE" 252
    "$LUNFERRY" copy --reserve --overwrite --rate-limit 8M "$LAB_NFS/whole.img" "$LAB_LUN512" 2>"$T/first" &
    local first=$! got=0
    lab_wait "$HANG" head_is_blank "$LAB_LUN512_FILE" || fail "nothing moved"
    kill -STOP "$first"
    run 2 env XDG_STATE_HOME="$T/other" "$LUNFERRY" copy --reserve --overwrite --initiator-name iqn.2026-01.org.example:other \
        random:1M "$LAB_LUN512"
    key=$(grep -oE 'key [0-9a-f]{16}' "$T/err" | head -n 1)
    run 0 env XDG_STATE_HOME="$T/other" "$LUNFERRY" copy --reserve --break-reservation "${key#key }" --overwrite \
        --initiator-name iqn.2026-01.org.example:other random:1M "$LAB_LUN512"
    kill -CONT "$first"
    wait "$first" || got=$?
    [[ $got -eq 3 ]] || fail "the first ended with $got: $(cat "$T/first")"
    grep -qiE "reserv" "$T/first" || fail "it said: $(cat "$T/first")"
}

test_own_reservation_of_a_killed_run_is_taken_over() {
    image "$LAB_NFS_DIR/whole.img" 32M
    trap resume_clean EXIT
    begin_recorded --reserve --overwrite "$LAB_NFS/whole.img" "$LAB_LUN512"
    kill_it
    run 0 "$LUNFERRY" copy --reserve --resume --journal "$T/journal" "$LAB_NFS/whole.img" "$LAB_LUN512"
    same "$LAB_NFS_DIR/whole.img" "$LAB_LUN512_FILE"
    run 0 "$LUNFERRY" copy --overwrite --initiator-name iqn.2026-01.org.example:other random:1M "$LAB_LUN512"
}

test_reservation_of_a_file_is_refused() {
    run 2 "$LUNFERRY" copy --reserve random:1M "$LAB_NFS/part.img"
    says "a new file cannot be reserved; --reserve is for LUNs"
    run 2 "$LUNFERRY" copy --reserve random:1M null:1M
    says "knows no reservations"
    [[ ! -e $LAB_NFS_DIR/part.img ]] || fail "it was written all the same"
}
