# shellcheck shell=bash disable=SC2154
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# qcow2 images that lunferry writes, as qemu-img judges them. The head of tests/oracle/write.py tells more: how to
# have other ones, and more of them (ORACLE_SEED, ORACLE_CASES).

# write_oracle SUITE [OPTION...]
write_oracle() {
    mkdir "$T/oracle"
    ../oracle/write.py "${@:2}" "$1" "$T/oracle" || fail "lunferry and qemu-img disagree"
}

test_write_oracle_matrix() {
    write_oracle matrix
}

test_write_oracle_behind() {
    write_oracle behind
}

test_write_oracle_increments() {
    write_oracle increments
}

test_write_oracle_on_nfs_and_a_lun() {
    local lun suite cases
    lun=$(lab_lun_new write-oracle 32M)
    for suite in matrix:20 behind:4 increments:2; do
        cases=${suite#*:}
        mkdir "$LAB_NFS_DIR/oracle"
        ../oracle/write.py --url "$LAB_NFS/oracle" --lun "$lun" --lun-file "$(lab_backing write-oracle)" \
            --cases "$cases" "${suite%:*}" "$LAB_NFS_DIR/oracle" || fail "lunferry and qemu-img disagree"
        rm -r "$LAB_NFS_DIR/oracle"
    done
}
