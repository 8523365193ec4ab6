# shellcheck shell=bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Who we are: CHAP, mutual CHAP, initiator names, NFS user ids and source ports. No secret is shown.

never_shows() {
    ! grep -qF -- "$1" "$T/err" "$T/out" || fail "showed a secret"
}

# with_user URL USER[:PASSWORD]
with_user() {
    echo "${1/iscsi:\/\//iscsi://$2@}"
}

# secret_file NAME PASSWORD: one that only its owner can read, as the program wants it; prints its path.
secret_file() {
    (umask 077 && echo "$2" >"$T/$1")
    echo "$T/$1"
}

test_chap() {
    local url
    run 2 "$LUNFERRY" copy "$LAB_CHAP_URL" null:256M
    says "(authentication|CHAP|login)"
    url=$(with_user "$LAB_CHAP_URL" "$LAB_CHAP_USER:$LAB_CHAP_PASSWORD")
    copy "$url" null:256M
    run 0 "$LUNFERRY" info "$url"
    never_shows "$LAB_CHAP_PASSWORD"
    run 2 "$LUNFERRY" copy "$(with_user "$LAB_CHAP_URL" "$LAB_CHAP_USER:wrong-Password1")" null:256M
    says "(authentication|CHAP)"
    never_shows wrong-Password1
}

test_chap_from_each_source() {
    local url file
    url=$(with_user "$LAB_CHAP_URL" "$LAB_CHAP_USER")
    file=$(secret_file secret "$LAB_CHAP_PASSWORD")
    copy "$url?password-file=$file" null:256M
    copy --password-file "$file" "$url" null:256M
    LIBISCSI_CHAP_USERNAME=$LAB_CHAP_USER LIBISCSI_CHAP_PASSWORD=$LAB_CHAP_PASSWORD \
        copy "$LAB_CHAP_URL" null:256M
    secret_file lunferry.chap-user "$LAB_CHAP_USER"
    secret_file lunferry.chap-password "$LAB_CHAP_PASSWORD"
    CREDENTIALS_DIRECTORY=$T copy "$LAB_CHAP_URL" null:256M
    # What comes earlier counts, also where it is wrong.
    LIBISCSI_CHAP_PASSWORD=wrong-Password1 copy "$url?password-file=$file" null:256M
    LIBISCSI_CHAP_PASSWORD=wrong-Password1 CREDENTIALS_DIRECTORY=$T \
        run 2 "$LUNFERRY" copy "$url" null:256M
    never_shows wrong-Password1
    run 2 "$LUNFERRY" copy "$url?password-file=$T/none" null:256M
    says "$T/none"
    # With lanes each session logs in; another endpoint, without a user, is not bothered.
    copy --lanes 3 --password-file "$file" --overwrite "$LAB_LUN512" "$url"
    copy --lanes 3 --password-file "$file" "$url" null:256M
}

test_exposed_password_file() {
    local url file
    url=$(with_user "$LAB_CHAP_URL" "$LAB_CHAP_USER")
    file=$(secret_file secret "$LAB_CHAP_PASSWORD")
    chmod 644 "$file"
    run 0 "$LUNFERRY" copy "$url?password-file=$file" null:256M
    says "everybody on this machine can read the password in $file"
    run 0 "$LUNFERRY" copy --password-file "$file" "$url" null:256M
    says "everybody on this machine can read the password in $file"
    never_shows "$LAB_CHAP_PASSWORD"
}

test_mutual_chap() {
    local url file
    url=$(with_user "$LAB_MUTUAL_URL" "$LAB_MUTUAL_USER:$LAB_MUTUAL_PASSWORD")
    file=$(secret_file target-secret "$LAB_MUTUAL_TARGET_PASSWORD")
    copy "$url?mutual-user=$LAB_MUTUAL_TARGET_USER&mutual-password-file=$file" null:256M
    secret_file lunferry.chap-mutual-user "$LAB_MUTUAL_TARGET_USER"
    secret_file lunferry.chap-mutual-password "$LAB_MUTUAL_TARGET_PASSWORD"
    CREDENTIALS_DIRECTORY=$T copy "$url" null:256M
    secret_file lunferry.chap-mutual-password wrong-Password2
    CREDENTIALS_DIRECTORY=$T run 2 "$LUNFERRY" copy "$url" null:256M
    secret_file target-secret wrong-Password2
    run 2 "$LUNFERRY" copy \
        "$url?mutual-user=$LAB_MUTUAL_TARGET_USER&mutual-password-file=$file" null:256M
    never_shows wrong-Password2
    never_shows "$LAB_MUTUAL_PASSWORD"
}

# While it copies: the arguments that others see; and the process lets nobody look into it.
test_password_is_hidden_from_ps() {
    local url pid=
    url=$(with_user "$LAB_CHAP_URL" "$LAB_CHAP_USER:$LAB_CHAP_PASSWORD")
    chmod 755 "$T" # the program is run as somebody else
    # The leak sanitizer of a build for tests cannot look into it either.
    background env ASAN_OPTIONS="${ASAN_OPTIONS:-}:detect_leaks=0" \
        setpriv --reuid 65534 --regid 65534 --clear-groups \
        "$LUNFERRY" copy -p --rate-limit 16M "$url" null:256M
    lab_wait "$HANG" grep -q MiB "$T/err" || fail "nothing moved"
    tr '\0' ' ' <"/proc/$pid/cmdline" >"$T/cmdline"
    grep -qF "iscsi://$LAB_CHAP_USER:***@" "$T/cmdline" || fail "arguments: $(cat "$T/cmdline")"
    grep -qF -- "$LAB_CHAP_PASSWORD" "$T/cmdline" && fail "ps shows the password"
    [[ $(stat -c %u "/proc/$pid/environ") -eq 0 ]] || fail "its memory is open to its user"
    grep -qE "^Max core file size +0 +0 " "/proc/$pid/limits" || fail "it may dump core"
    kill -INT "$pid"
    wait_status 130
    never_shows "$LAB_CHAP_PASSWORD"
}

# Errors of the arguments themselves.
test_password_is_hidden_in_usage_errors() {
    local url=iscsi://me:hunter2@127.0.0.1/iqn.2026-01.org.example:a/0 arguments
    for arguments in "copy $url" "copy a b $url" "copy --lanes $url a b" "copy --lanes=$url a b" \
        "copy --none=$url a b" "copy $url?x=1 null:1M" "copy iscsi//me:hunter2@h/x null:1M" \
        "info $url $url" "info ${url/iqn./}" "$url" "copy a $url?password=hunter2"; do
        # shellcheck disable=SC2086
        run 2 "$LUNFERRY" $arguments
        never_shows hunter2
    done
}

test_initiator_name() {
    run 0 "$LUNFERRY" info --initiator-name iqn.2026-01.org.example:me "$LAB_LUN512"
    grep -q 'iqn.2026-01.org.example:me' "$T/out" || fail "another name was used"
}

test_nfs_user() {
    image "$LAB_NFS_DIR/private.img" 1M
    chown 4242:4343 "$LAB_NFS_DIR/private.img"
    chmod 640 "$LAB_NFS_DIR/private.img"
    copy "$LAB_NFS/private.img?uid=4242&gid=1" null:1M
    copy "$LAB_NFS/private.img?uid=1&gid=4343" null:1M
    copy "$LAB_NFS/private.img?uid=1&gid=1&gids=7,4343" null:1M
    run 2 "$LUNFERRY" copy "$LAB_NFS/private.img?uid=1&gid=1" null:1M
    says "(NFS3ERR_ACCES|allows uid 1, gid 1 no reading)"
    rm "$LAB_NFS_DIR/private.img"
}

test_nfs_ports_in_the_url() {
    image "$LAB_NFS_DIR/p.img" 1M
    copy "$LAB_NFS/p.img?nfsport=$LAB_NFS_PORT&mountport=$LAB_MOUNT_PORT" null:1M
    run 2 "$LUNFERRY" copy "$LAB_NFS/p.img?nfsport=2050&mountport=$LAB_MOUNT_PORT" null:1M
    says "2050.*refused"
    rm "$LAB_NFS_DIR/p.img"
}

test_privileged_source_port() {
    image "$LAB_NFS_SECURE_DIR/s.img" 1M
    copy "$LAB_NFS_SECURE/s.img" null:1M
    chmod 755 "$T" # the program is run as somebody else
    run 2 setpriv --reuid 65534 --regid 65534 --clear-groups "$LUNFERRY" copy \
        "$LAB_NFS_SECURE/s.img" null:1M
    says "\"insecure\".*cap_net_bind_service"
    rm "$LAB_NFS_SECURE_DIR/s.img"
}
