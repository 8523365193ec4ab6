# shellcheck shell=bash
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Functions for what runs inside tests/lab: `. "$LAB_LIB"`. Bash, fine with `set -euo pipefail`.
# Each returns non-zero, with a sentence on stderr, when it could not do what it says.
#
#   lab_lun_new NAME SIZE [BLOCKSIZE] [PARAMS]   a new LUN, all zero; prints its URL
#   lab_lun_thin NAME SIZE [BLOCKSIZE]           the same, thin: what is unmapped is a hole in its file
#   lab_lun_empty NAME           all zero again, and a thin one holds nothing
#   lab_allocated FILE           prints the bytes of storage behind it (with the file system's map of
#                                its blocks, a few KiB)
#   lab_sparse write|compare ... tests/sparse.py: pieces of data in files that are mostly holes
#   lab_lun_resize NAME SIZE     sessions stay; the target raises no unit attention for it
#   lab_lun_url NAME             lab_backing NAME (the file behind it)
#
#   lab_nfs_start  lab_nfs_stop (SIGTERM)  lab_nfs_kill (SIGKILL)  lab_nfs_restart  lab_nfs_pid
#   lab_tgt_start  lab_tgt_kill            lab_tgt_restart         lab_tgt_pid
#       start returns once the server answers. Every start of the NFS server has a new write
#       verifier; a target that starts again has the same LUNs with the same serial numbers.
#
#   lab_link NAME [RELAY-OPTION...]   a twin of both servers behind one slow or breaking link, on
#       an address of its own with the same ports; prints the address. Options: relay --help.
#       Needs build/tests/relay, or another one in LAB_RELAY.
#   lab_link_url NAME URL        the URL as it is reached through the link
#   lab_link_cut NAME            resets all its connections (and ends a stall)
#   lab_link_freeze NAME         nothing moves, connections stay; lab_link_thaw NAME
#   lab_link_counts NAME         prints connections=N open=N forward_bytes=N backward_bytes=N
#                                cuts=N, a line each
#   lab_link_stop NAME           its last counts stay in $LAB_DIR/links/NAME.counts
#
#   lab_wait SECONDS COMMAND [ARG...]   tries until COMMAND succeeds, for so long or, on a busy machine,
#                                       longer
#
# Names may hold letters, digits and -. The targets have:
LAB_TARGET=iqn.2026-01.org.lunferry:lab
LAB_CHAP_TARGET=iqn.2026-01.org.lunferry:chap
LAB_MUTUAL_TARGET=iqn.2026-01.org.lunferry:mutual

_lab_here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)

# ---- waiting and processes -----------------------------------------------------------------------

# Seconds for what works: only what is broken takes so long.
_LAB_HANG=120

_lab_error() {
    echo "lab: $*" >&2
    return 1
}

lab_wait() {
    local tries=$(($1 * 50))
    shift
    until "$@"; do
        ((tries-- > 0)) || return 1
        sleep 0.02
    done
}

# A process that nobody has waited for yet is gone all the same; but not before its last thread is: one
# that waits for a disk outlives the others, and holds the ports.
_lab_alive() {
    local task stat
    for task in "/proc/$1/task"/*; do
        stat=$(cat "$task/stat" 2>/dev/null) || continue
        [[ ${stat##*) } == Z* ]] || return 0
    done
    return 1
}

_lab_gone() {
    ! _lab_alive "$1"
}

# _lab_daemon PID-FILE LOG COMMAND...: in the background, out of reach of the terminal's signals
# and holding none of the caller's descriptors, which would keep a pipe to `tee` open.
_lab_daemon() {
    local pid_file=$1 log=$2
    shift 2
    rm -f "$pid_file"
    # shellcheck disable=SC2016 # expanded by the inner shell, whose process id becomes the server's
    setsid bash -c 'for fd in /proc/$$/fd/*; do
            fd=${fd##*/}
            ((fd < 3)) || eval "exec $fd>&-"
        done
        echo $$ >"$0.new" && mv "$0.new" "$0" && exec "$@"' \
        "$pid_file" "$@" </dev/null >>"$log" 2>&1 &
    disown # or the shell would report its death by a signal, which is what some tests are about
    lab_wait "$_LAB_HANG" test -s "$pid_file"
}

# _lab_end PID-FILE SIGNAL: and waits until it is gone.
_lab_end() {
    local pid
    pid=$(cat "$1" 2>/dev/null) || return 0
    kill -s "$2" "$pid" 2>/dev/null || true
    if ! lab_wait 5 _lab_gone "$pid"; then
        kill -KILL "$pid" 2>/dev/null || true
        lab_wait "$_LAB_HANG" _lab_gone "$pid" || _lab_error "process $pid ($1) does not end" || return
    fi
    rm -f "$1"
}

_lab_check_name() {
    [[ $1 =~ ^[A-Za-z0-9-]+$ ]] || _lab_error "'$1' is no name (letters, digits and -)"
}

# ---- NFS -----------------------------------------------------------------------------------------

# Is it the program that answers, and not only the port? 100000 rpcbind, 100003 nfs, 100005 mountd.
_lab_rpc_answers() {
    rpcinfo -T tcp 127.0.0.1 "$1" "$2" >/dev/null 2>&1
}

_lab_rpcbind_start() {
    _lab_daemon "$LAB_DIR/rpcbind.pid" "$LAB_DIR/rpcbind.log" \
        "$_lab_here/servers/rpcbind-loopback" -f -w || return
    lab_wait "$_LAB_HANG" _lab_rpc_answers 100000 2
}

# The server takes a bind address of one family into a socket address of the other without a
# look: where IPv6 exists it listens on an IPv6 socket, and 127.0.0.1 becomes "any". The mapped
# form is 127.0.0.1 to it.
_lab_nfs_bind_address() {
    if [[ -e /proc/net/if_inet6 ]]; then
        echo ::ffff:127.0.0.1
    else
        echo 127.0.0.1
    fi
}

# _lab_nfs_export ID NAME ACCESS PRIVILEGED-PORT
_lab_nfs_export() {
    cat <<END
EXPORT {
    Export_Id = $1;
    Path = $LAB_DIR/exports/$2;
    Pseudo = /lab/$2;
    Access_Type = $3;
    PrivilegedPort = $4;
    Squash = No_Root_Squash;
    SecType = sys;
    Protocols = 3;
    Transports = TCP;
    # tests look at, and make, files behind the server's back
    Attr_Expiration_Time = 0;
    FSAL { Name = VFS; }
}
END
}

_lab_nfs_configuration() {
    cat <<END
NFS_CORE_PARAM {
    Protocols = 3;
    Bind_addr = $(_lab_nfs_bind_address);
    NFS_Port = $LAB_NFS_PORT;
    MNT_Port = $LAB_MOUNT_PORT;
    Enable_UDP = false;
    Enable_NLM = false;
    Enable_RQUOTA = false;
    mount_path_pseudo = true;
    # newer servers insist on a privilege (CAP_SYS_RESOURCE) that containers lack
    Allow_Set_Io_Flusher_Fail = true;
}
NFSV4 {
    Graceless = true;
    RecoveryRoot = $LAB_DIR/nfs-recovery;
}
MDCACHE {
    # no cached directory entries: a file that was replaced on disk would stay the old one
    Dir_Chunk = 0;
}
END
    _lab_nfs_export 1 rw RW false
    _lab_nfs_export 2 ro RO false
    _lab_nfs_export 3 small RW false
    _lab_nfs_export 4 secure RW true
}

# The server's epoch is the second in which it started, and its write verifier comes from that: a
# restart within the second would look as if nothing had been lost. So it is counted.
_lab_nfs_epoch() {
    local epoch now
    now=$(date +%s)
    epoch=$(cat "$LAB_DIR/nfs.epoch" 2>/dev/null) || epoch=0
    epoch=$((epoch < now ? now : epoch + 1))
    echo "$epoch" | tee "$LAB_DIR/nfs.epoch"
}

_lab_nfs_answers() {
    _lab_rpc_answers 100005 3 && _lab_rpc_answers 100003 3
}

# Answers, or has died and never will.
_lab_nfs_settled() {
    _lab_nfs_answers || _lab_gone "$1"
}

lab_nfs_start() {
    local pid
    mkdir -p "$LAB_DIR/nfs-recovery"
    _lab_nfs_configuration >"$LAB_DIR/nfs.conf"
    # -F: in the foreground, so that its process id is known; NIV_EVENT: what it starts and refuses
    _lab_daemon "$LAB_NFS_PID_FILE" "$LAB_NFS_LOG" \
        ganesha.nfsd -F -f "$LAB_DIR/nfs.conf" -L "$LAB_NFS_LOG" -N NIV_EVENT \
        -p "$LAB_DIR/nfs.own-pid" -E "$(_lab_nfs_epoch)" || return
    pid=$(lab_nfs_pid)
    lab_wait "$_LAB_HANG" _lab_nfs_settled "$pid" || true
    _lab_nfs_answers || _lab_error "the NFS server does not answer; see $LAB_NFS_LOG" || return
    # it serves on without an export that it could not open
    ! grep 'Could not create export' "$LAB_NFS_LOG" >&2 ||
        _lab_error "the NFS server lacks an export; see $LAB_NFS_LOG"
}

lab_nfs_pid() {
    cat "$LAB_NFS_PID_FILE"
}

lab_nfs_stop() {
    _lab_end "$LAB_NFS_PID_FILE" TERM
}

lab_nfs_kill() {
    _lab_end "$LAB_NFS_PID_FILE" KILL
}

lab_nfs_restart() {
    lab_nfs_kill && lab_nfs_start
}

# ---- iSCSI ---------------------------------------------------------------------------------------
#
# $LAB_DIR/luns has a line for each LUN, NAME TID LUN BLOCKSIZE PARAMS: what tgtd, which remembers
# nothing, is told when it starts. It is locked while it is read and changed.

_lab_tgtadm() {
    tgtadm --lld iscsi "$@" >>"$LAB_TGT_LOG" 2>&1
}

_lab_tgt_answers() {
    tgtadm --lld iscsi --op show --mode system >/dev/null 2>&1
}

_lab_tgt_settled() {
    _lab_tgt_answers || _lab_gone "$1"
}

_lab_tgt_tune() {
    local setting
    for setting in MaxRecvDataSegmentLength=262144 MaxXmitDataSegmentLength=262144 \
        FirstBurstLength=262144 MaxBurstLength=262144 InitialR2T=No ImmediateData=Yes; do
        _lab_tgtadm --op update --mode target --tid "$1" \
            --name "${setting%=*}" --value "${setting#*=}" || return
    done
}

# _lab_tgt_target TID NAME
_lab_tgt_target() {
    _lab_tgtadm --op new --mode target --tid "$1" --targetname "$2" || return
    [[ $LAB_TUNE != 1 ]] || _lab_tgt_tune "$1" || return
    _lab_tgtadm --op bind --mode target --tid "$1" --initiator-address ALL
}

# _lab_tgt_account TID USER PASSWORD [--outgoing]: outgoing is what the target proves itself by.
_lab_tgt_account() {
    _lab_tgtadm --op new --mode account --user "$2" --password "$3" || return
    _lab_tgtadm --op bind --mode account --tid "$1" --user "$2" ${4:+"$4"}
}

_lab_tgt_targets() {
    _lab_tgt_target 1 "$LAB_TARGET" || return
    _lab_tgt_target 2 "$LAB_CHAP_TARGET" || return
    _lab_tgt_account 2 "$LAB_CHAP_USER" "$LAB_CHAP_PASSWORD" || return
    _lab_tgt_target 3 "$LAB_MUTUAL_TARGET" || return
    _lab_tgt_account 3 "$LAB_MUTUAL_USER" "$LAB_MUTUAL_PASSWORD" || return
    _lab_tgt_account 3 "$LAB_MUTUAL_TARGET_USER" "$LAB_MUTUAL_TARGET_PASSWORD" --outgoing
}

# _lab_lun_attach NAME TID LUN BLOCKSIZE [PARAMS]
_lab_lun_attach() {
    local where=(--mode logicalunit --tid "$2" --lun "$3")
    _lab_tgtadm --op new "${where[@]}" --bstype rdwr --blocksize "$4" \
        --backing-store "$(lab_backing "$1")" || return
    [[ -z ${5:-} ]] || _lab_tgtadm --op update "${where[@]}" --params "$5"
}

_lab_lun_attach_all() {
    local line
    while read -ra line; do
        _lab_lun_attach "${line[@]}" || return
    done <"$LAB_DIR/luns"
}

lab_tgt_start() {
    # The control socket of a tgtd that was killed would make tgtadm wait for an answer.
    rm -f /run/tgtd/socket.* /run/tgtd.ipc_abstract_namespace.*
    _lab_daemon "$LAB_TGT_PID_FILE" "$LAB_TGT_LOG" \
        tgtd -f --iscsi "portal=127.0.0.1:$LAB_ISCSI_PORT" || return
    lab_wait "$_LAB_HANG" _lab_tgt_settled "$(lab_tgt_pid)" || true
    if ! { _lab_tgt_answers && _lab_tgt_targets && _lab_lun_attach_all; }; then
        _lab_error "the iSCSI target does not start; see $LAB_TGT_LOG"
    fi
}

lab_tgt_pid() {
    cat "$LAB_TGT_PID_FILE"
}

# tgtd ignores SIGTERM while it has targets, and has nothing to save: every write is in its file.
lab_tgt_kill() {
    _lab_end "$LAB_TGT_PID_FILE" KILL
}

lab_tgt_restart() {
    lab_tgt_kill && lab_tgt_start
}

lab_backing() {
    echo "$LAB_DIR/luns.d/$1"
}

# _lab_lun_line NAME: TID LUN BLOCKSIZE PARAMS
_lab_lun_line() {
    local line
    line=$(grep -m 1 "^$1 " "$LAB_DIR/luns") || _lab_error "no LUN '$1'" || return
    echo "${line#* }"
}

lab_lun_url() {
    local line
    line=$(_lab_lun_line "$1") || return
    read -ra line <<<"$line"
    local targets=('' "$LAB_TARGET" "$LAB_CHAP_TARGET" "$LAB_MUTUAL_TARGET")
    echo "iscsi://127.0.0.1:$LAB_ISCSI_PORT/${targets[${line[0]}]}/${line[1]}"
}

# _lab_lun_register NAME TID LUN SIZE BLOCKSIZE [PARAMS]
_lab_lun_register() {
    truncate -s "$4" "$(lab_backing "$1")" || return
    echo "$1 $2 $3 $5 ${6:-}" >>"$LAB_DIR/luns"
}

_lab_lun_add() {
    local name=$1 size=$2 block_size=$3 params=$4 number
    ! grep -q "^$name " "$LAB_DIR/luns" || _lab_error "there is a LUN '$name' already" || return
    number=$(awk '$2 == 1 && $3 >= n { n = $3 + 1 } END { print n }' "$LAB_DIR/luns")
    _lab_lun_register "$name" 1 "$number" "$size" "$block_size" "$params" || return
    if ! _lab_lun_attach "$name" 1 "$number" "$block_size" "$params"; then
        _lab_error "the target refuses LUN '$name'; see $LAB_TGT_LOG"
    fi
}

lab_lun_new() {
    _lab_check_name "$1" || return
    (flock 9 && _lab_lun_add "$1" "$2" "${3:-512}" "${4:-}") 9>>"$LAB_DIR/luns.lock" || return
    lab_lun_url "$1"
}

lab_lun_thin() {
    lab_lun_new "$1" "$2" "${3:-512}" thin_provisioning=1
}

lab_lun_empty() {
    local file size
    file=$(lab_backing "$1")
    size=$(stat -c %s "$file") || _lab_error "no LUN '$1'" || return
    truncate -s 0 "$file" && truncate -s "$size" "$file"
}

lab_allocated() {
    local blocks
    blocks=$(stat -c %b "$1") && echo $((blocks * 512))
}

lab_sparse() {
    /usr/bin/python3 "$_lab_here/sparse.py" "$@"
}

lab_lun_resize() {
    local line where
    line=$(_lab_lun_line "$1") || return
    read -ra line <<<"$line"
    where=(--mode logicalunit --tid "${line[0]}" --lun "${line[1]}")
    truncate -s "$2" "$(lab_backing "$1")" || return
    # tgtd takes a backing file's size when it opens it, and opens it again only while offline
    if ! { _lab_tgtadm --op update "${where[@]}" --params online=0 &&
        _lab_tgtadm --op update "${where[@]}" --params "path=$(lab_backing "$1")" &&
        _lab_tgtadm --op update "${where[@]}" --params online=1; }; then
        _lab_error "the target does not resize LUN '$1'; see $LAB_TGT_LOG"
    fi
}

# ---- links ---------------------------------------------------------------------------------------

_lab_relay() {
    local relay=${LAB_RELAY:-$_lab_here/../build/tests/relay}
    [[ -x $relay ]] || _lab_error "no $relay; run make, or set LAB_RELAY" || return
    echo "$relay"
}

# The first free address from 127.0.0.2 on; it belongs to the link until that is stopped.
_lab_link_claim() {
    local host
    for host in {2..254}; do
        if (set -o noclobber && echo "$1" >"$LAB_DIR/links/claimed.$host") 2>/dev/null; then
            echo "127.0.0.$host"
            return
        fi
    done
    _lab_error "no address left for link '$1'"
}

_lab_link_settled() {
    [[ -s $1.ports ]] || _lab_gone "$(cat "$1.pid")"
}

lab_link() {
    local name=$1 file=$LAB_DIR/links/$1 relay address port pairs=()
    shift
    _lab_check_name "$name" || return
    [[ ! -e $file.address ]] || _lab_error "there is a link '$name' already" || return
    relay=$(_lab_relay) || return
    address=$(_lab_link_claim "$name") || return
    echo "$address" >"$file.address"
    rm -f "$file.ports" "$file.counts" "$file.log"
    for port in 111 "$LAB_MOUNT_PORT" "$LAB_NFS_PORT" "$LAB_ISCSI_PORT"; do
        pairs+=(--listen "$address:$port" --to "127.0.0.1:$port")
    done
    _lab_daemon "$file.pid" "$file.log" "$relay" "${pairs[@]}" \
        --port-file "$file.ports" --count-file "$file.counts" "$@" || return
    lab_wait "$_LAB_HANG" _lab_link_settled "$file" || true
    if [[ ! -s $file.ports ]]; then
        cat "$file.log" >&2
        lab_link_stop "$name"
        _lab_error "link '$name' does not start" || return
    fi
    echo "$address"
}

_lab_link_file() {
    [[ -e $LAB_DIR/links/$1.address ]] || _lab_error "no link '$1'" || return
    echo "$LAB_DIR/links/$1"
}

lab_link_url() {
    local file
    file=$(_lab_link_file "$1") || return
    echo "${2/127.0.0.1/$(cat "$file.address")}"
}

# _lab_link_signal NAME SIGNAL
_lab_link_signal() {
    local file
    file=$(_lab_link_file "$1") || return
    kill -s "$2" "$(cat "$file.pid")"
}

lab_link_cut() {
    _lab_link_signal "$1" USR2
}

lab_link_freeze() {
    _lab_link_signal "$1" STOP
}

lab_link_thaw() {
    _lab_link_signal "$1" CONT
}

lab_link_counts() {
    local file
    file=$(_lab_link_file "$1") || return
    rm -f "$file.counts"
    _lab_link_signal "$1" USR1 || return
    lab_wait "$_LAB_HANG" test -s "$file.counts" || _lab_error "link '$1' does not count" || return
    cat "$file.counts"
}

lab_link_stop() {
    local file address
    file=$(_lab_link_file "$1") || return
    address=$(cat "$file.address")
    # a frozen one sees the signal only when it goes on
    lab_link_thaw "$1" 2>/dev/null || true
    _lab_end "$file.pid" TERM || return
    rm -f "$file.address" "$LAB_DIR/links/claimed.${address##*.}"
}

# ---- for tests/lab itself ------------------------------------------------------------------------

_lab_environment() {
    export LAB_LIB=$_lab_here/lab-lib.sh
    export LAB_NFS_PORT=2049 LAB_MOUNT_PORT=20048 LAB_ISCSI_PORT=3260
    export LAB_NFS_PID_FILE=$LAB_DIR/nfs.pid LAB_TGT_PID_FILE=$LAB_DIR/tgt.pid
    export LAB_NFS_LOG=$LAB_DIR/nfs.log LAB_TGT_LOG=$LAB_DIR/tgt.log
    export LAB_NFS=nfs://127.0.0.1/lab/rw LAB_NFS_DIR=$LAB_DIR/exports/rw
    export LAB_NFS_RO=nfs://127.0.0.1/lab/ro LAB_NFS_RO_DIR=$LAB_DIR/exports/ro
    export LAB_NFS_SMALL=nfs://127.0.0.1/lab/small LAB_NFS_SMALL_DIR=$LAB_DIR/exports/small
    export LAB_NFS_SECURE=nfs://127.0.0.1/lab/secure LAB_NFS_SECURE_DIR=$LAB_DIR/exports/secure
    export LAB_CHAP_USER=lab LAB_CHAP_PASSWORD=lab-secret-12
    export LAB_MUTUAL_USER=both LAB_MUTUAL_PASSWORD=both-secret-12
    export LAB_MUTUAL_TARGET_USER=target LAB_MUTUAL_TARGET_PASSWORD=target-secret-12
    export LAB_ISCSI=iscsi://127.0.0.1:$LAB_ISCSI_PORT/$LAB_TARGET/
}

# _lab_first_lun NAME TID LUN SIZE BLOCKSIZE PARAMS URL-VARIABLE FILE-VARIABLE
_lab_first_lun() {
    _lab_lun_register "$1" "$2" "$3" "$4" "$5" "$6" || return
    export "$7=$(lab_lun_url "$1")" "$8=$(lab_backing "$1")"
}

_lab_first_luns() {
    mkdir -p "$LAB_DIR/luns.d" "$LAB_DIR/links" || return
    _lab_first_lun lun512 1 1 256M 512 '' LAB_LUN512 LAB_LUN512_FILE || return
    _lab_first_lun lun4k 1 2 256M 4096 '' LAB_LUN4K LAB_LUN4K_FILE || return
    _lab_first_lun thin 1 3 256M 512 thin_provisioning=1 LAB_LUNTHIN LAB_LUNTHIN_FILE || return
    _lab_first_lun readonly 1 4 16M 512 readonly=1 LAB_LUNRO LAB_LUNRO_FILE || return
    _lab_first_lun small 1 5 16M 512 '' LAB_LUNSMALL LAB_LUNSMALL_FILE || return
    _lab_first_lun chap 2 1 256M 512 '' LAB_CHAP_URL LAB_CHAP_FILE || return
    _lab_first_lun mutual 3 1 256M 512 '' LAB_MUTUAL_URL LAB_MUTUAL_FILE
}

lab_stop_all() {
    local link
    for link in "$LAB_DIR"/links/*.address; do
        [[ -e $link ]] || continue
        link=${link##*/}
        lab_link_stop "${link%.address}" || true
    done
    lab_nfs_stop || true
    lab_tgt_kill || true
    _lab_end "$LAB_DIR/rpcbind.pid" TERM || true
}
