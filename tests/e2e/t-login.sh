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
    url=$(with_user "$LAB_CHAP_URL" "$LAB_CHAP_USER")
    echo "$LAB_CHAP_PASSWORD" >"$T/secret"
    copy "$url?password-file=$T/secret" null:256M
    LIBISCSI_CHAP_USERNAME=$LAB_CHAP_USER LIBISCSI_CHAP_PASSWORD=$LAB_CHAP_PASSWORD \
        copy "$LAB_CHAP_URL" null:256M
    run 2 "$LUNFERRY" copy "$url?password-file=$T/none" null:256M
    says "$T/none"
}

test_mutual_chap() {
    local url
    url=$(with_user "$LAB_MUTUAL_URL" "$LAB_MUTUAL_USER:$LAB_MUTUAL_PASSWORD")
    echo "$LAB_MUTUAL_TARGET_PASSWORD" >"$T/target-secret"
    copy "$url?mutual-user=$LAB_MUTUAL_TARGET_USER&mutual-password-file=$T/target-secret" null:256M
    echo wrong-Password2 >"$T/target-secret"
    run 2 "$LUNFERRY" copy \
        "$url?mutual-user=$LAB_MUTUAL_TARGET_USER&mutual-password-file=$T/target-secret" null:256M
    never_shows wrong-Password2
    never_shows "$LAB_MUTUAL_PASSWORD"
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
