# shellcheck shell=bash disable=SC2154
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Images by chance, made by qemu-img and qemu-io: lunferry reads from them what qemu-img does. The head of
# tests/oracle/run.py tells more: how to have other ones, and more of them (ORACLE_SEED, ORACLE_CASES).

# oracle SUITE [OPTION...]
oracle() {
    mkdir "$T/oracle"
    ../oracle/run.py "${@:2}" "$1" "$T/oracle" || fail "lunferry and qemu-img disagree"
}

test_qcow2_oracle_matrix() {
    oracle matrix
}

test_qcow2_oracle_random() {
    oracle random
}

test_qcow2_oracle_version_1() {
    oracle qcow
}

test_qcow2_oracle_damaged() {
    oracle damaged
}

test_qcow2_oracle_on_nfs_and_a_lun() {
    local lun
    lun=$(lab_lun_new oracle 64M)
    mkdir "$LAB_NFS_DIR/oracle"
    ../oracle/run.py --url "$LAB_NFS/oracle" --lun "$lun" --lun-file "$(lab_backing oracle)" nfs \
        "$LAB_NFS_DIR/oracle" || fail "lunferry and qemu-img disagree"
    rm -r "$LAB_NFS_DIR/oracle"
}
