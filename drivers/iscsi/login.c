/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Who logs in to what: target and initiator names (RFC 7143 4.2.7), the ISID (11.12.5), CHAP secrets
 * (12.1.3), and what a refusal means (11.13.5).
 *
 * The initiator name, which target ACLs depend on, comes from the settings, else from
 * /etc/iscsi/initiatorname.iscsi (open-iscsi's file), else it is made from the machine id.
 */
#include "private.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include <lunferry/secret.h>
#include <lunferry/units.h>

#define INITIATOR_FILE "/etc/iscsi/initiatorname.iscsi"

const struct url_option login_options[] = {
    {"user", "NAME: the CHAP user, if the URL has none before the @ "
             "(else LIBISCSI_CHAP_USERNAME in the environment)"},
    {"password-file", "FILE: its first line is the CHAP password (else --password-file, "
                      "LIBISCSI_CHAP_PASSWORD in the environment, "
                      "or systemd's credential lunferry.chap-password)"},
    {"mutual-user", "NAME: the CHAP user as which the target must prove itself "
                    "(else LIBISCSI_CHAP_TARGET_USERNAME in the environment)"},
    {"mutual-password-file", "FILE: its first line is the target's CHAP password "
                             "(else LIBISCSI_CHAP_TARGET_PASSWORD in the environment)"},
    {"header-digest", "none or crc32c: a checksum over each PDU's header (default: none)"},
    {NULL, NULL},
};

/* ---- Names ------------------------------------------------------------------------------------ */

static bool name_is_valid(const char *name)
{
    if (strncmp(name, "iqn.", 4) != 0 && strncmp(name, "eui.", 4) != 0 &&
        strncmp(name, "naa.", 4) != 0)
        return false;
    if (strlen(name) > ISCSI_NAME_MAX || name[4] == '\0')
        return false;
    for (const char *c = name; *c != '\0'; c++) {
        if ((unsigned char)*c <= ' ' || *c == 0x7f || *c == '/')
            return false;
    }
    return true;
}

/* "/iqn.2001-04.com.example:disk/7" */
static int parse_path(const char *path, char target[ISCSI_NAME_MAX + 1], unsigned *lun,
                      struct blk_error *error)
{
    static const char form[] = "iscsi://host/target-name/LUN";
    const char *name, *slash;
    struct blk_error why = {0};
    uint64_t number;
    size_t len;

    name = path[0] == '/' ? path + 1 : path;
    slash = strrchr(name, '/');
    if (name[0] == '\0')
        return blk_error_set(error, EINVAL, "the target's name is missing; wanted: %s", form);
    if (slash == NULL || slash[1] == '\0')
        return blk_error_set(error, EINVAL, "the LUN is missing; wanted: %s", form);

    len = (size_t)(slash - name);
    if (len > ISCSI_NAME_MAX)
        return blk_error_set(error, EINVAL, "the target's name is longer than %d bytes",
                             ISCSI_NAME_MAX);
    memcpy(target, name, len);
    target[len] = '\0';
    if (!name_is_valid(target))
        return blk_error_set(error, EINVAL,
                             "'%s' is not a target name: it begins with iqn., eui. or naa. and has "
                             "neither spaces nor slashes; wanted: %s",
                             target, form);

    if (units_parse_number(slash + 1, 0, ISCSI_LUN_MAX, &number, &why) < 0)
        return blk_error_set(error, EINVAL, "the LUN is a number from 0 to %d, not '%s'",
                             ISCSI_LUN_MAX, slash + 1);
    *lun = (unsigned)number;
    return 0;
}

static int parse_header_digest(const struct url *url, bool *wanted, struct blk_error *error)
{
    const char *value = url_param(url, "header-digest");

    *wanted = value != NULL && strcmp(value, "crc32c") == 0;
    if (value != NULL && !*wanted && strcmp(value, "none") != 0)
        return blk_error_set(error, EINVAL, "header-digest is none or crc32c, not '%s'", value);
    return 0;
}

int login_check(const struct url *url, struct blk_error *error)
{
    char target[ISCSI_NAME_MAX + 1];
    unsigned lun;
    bool digest;
    int rc;

    if (url->host_count == 0)
        return blk_error_set(error, EINVAL,
                             "the target portal is missing; wanted: iscsi://host/target-name/LUN");
    rc = parse_path(url->path, target, &lun, error);
    if (rc == 0)
        rc = parse_header_digest(url, &digest, error);
    return rc;
}

/* Reads a file of at most size - 1 bytes, or the beginning of a longer one. */
static int read_file(const char *path, char *text, size_t size)
{
    size_t got = 0;
    ssize_t n;
    int fd;

    text[0] = '\0';
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    do {
        n = read(fd, text + got, size - 1 - got);
        if (n > 0)
            got += (size_t)n;
    } while (n > 0 || (n < 0 && errno == EINTR));
    if (n < 0) {
        int code = errno;

        close(fd);
        return -code;
    }
    close(fd);
    text[got] = '\0';
    return 0;
}

/* The value of "InitiatorName=" in open-iscsi's file, which has comments and maybe other keys. */
static bool find_initiator_name(const char *text, char name[ISCSI_NAME_MAX + 1])
{
    static const char key[] = "InitiatorName=";

    while (*text != '\0') {
        size_t blank = strspn(text, " \t");
        size_t len = strcspn(text, "\n");

        if (strncmp(text + blank, key, sizeof(key) - 1) == 0) {
            const char *value = text + blank + sizeof(key) - 1;
            size_t value_len = strcspn(value, " \t\r\n");

            if (value_len <= ISCSI_NAME_MAX) {
                memcpy(name, value, value_len);
                name[value_len] = '\0';
                return name_is_valid(name);
            }
        }
        text += len;
        text += *text == '\n';
    }
    return false;
}

/* ---- A name for a machine that has none -------------------------------------------------------- */

static uint64_t rotate(uint64_t value, unsigned bits)
{
    return value << bits | value >> (64 - bits);
}

static void sip_rounds(uint64_t v[4], unsigned count)
{
    while (count-- > 0) {
        v[0] += v[1];
        v[2] += v[3];
        v[1] = rotate(v[1], 13) ^ v[0];
        v[3] = rotate(v[3], 16) ^ v[2];
        v[0] = rotate(v[0], 32);
        v[2] += v[1];
        v[0] += v[3];
        v[1] = rotate(v[1], 17) ^ v[2];
        v[3] = rotate(v[3], 21) ^ v[0];
        v[2] = rotate(v[2], 32);
    }
}

/* SipHash-2-4 under a key of our own. */
static uint64_t keyed_hash(const char *text, size_t len)
{
    static const uint64_t key[2] = {UINT64_C(0x6c756e6665727279), UINT64_C(0x696e69746961746f)};
    uint64_t v[4] = {
        key[0] ^ UINT64_C(0x736f6d6570736575),
        key[1] ^ UINT64_C(0x646f72616e646f6d),
        key[0] ^ UINT64_C(0x6c7967656e657261),
        key[1] ^ UINT64_C(0x7465646279746573),
    };
    uint64_t word = 0;

    for (size_t i = 0; i < len; i++) {
        word |= (uint64_t)(unsigned char)text[i] << i % 8 * 8;
        if (i % 8 == 7) {
            v[3] ^= word;
            sip_rounds(v, 2);
            v[0] ^= word;
            word = 0;
        }
    }
    word |= (uint64_t)len << 56;
    v[3] ^= word;
    sip_rounds(v, 2);
    v[0] ^= word;
    v[2] ^= 0xff;
    sip_rounds(v, 4);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

/*
 * machine-id(5) asks that the id itself be kept confidential and only a keyed hash of it be shown to
 * others; 64 bits of a hash cannot give its 128 bits back. A machine without an id (a container) has
 * at least a host name.
 */
static const char *make_initiator_name(char name[ISCSI_NAME_MAX + 1])
{
    const char *from = "machine id";
    char id[256] = "";

    if (read_file("/etc/machine-id", id, sizeof(id)) < 0 || strcspn(id, "\n") < 32) {
        from = "host name";
        if (gethostname(id, sizeof(id)) < 0)
            id[0] = '\0';
        id[sizeof(id) - 1] = '\0';
    }
    snprintf(name, ISCSI_NAME_MAX + 1, "iqn.2026-01.org.lunferry:%016" PRIx64,
             keyed_hash(id, strcspn(id, "\n")));
    return from;
}

static int choose_initiator(struct login *login, const char *wanted, struct blk_error *error)
{
    char text[4096];

    if (wanted != NULL) {
        if (!name_is_valid(wanted))
            return blk_error_set(
                error, EINVAL,
                "'%s' is not an initiator name: it begins with iqn., eui. or naa., "
                "has at most %d bytes and neither spaces nor slashes",
                wanted, ISCSI_NAME_MAX);
        snprintf(login->initiator, sizeof(login->initiator), "%s", wanted);
        login->initiator_from = "option";
        return 0;
    }
    if (read_file(INITIATOR_FILE, text, sizeof(text)) == 0 &&
        find_initiator_name(text, login->initiator))
        login->initiator_from = INITIATOR_FILE;
    else
        login->initiator_from = make_initiator_name(login->initiator);
    return 0;
}

/* ---- ISID ------------------------------------------------------------------------------------- */

/* Tells the number that an ISID makes from 0. */
#define SESSION_ID_MARK (UINT64_C(1) << 40)

/* Random, because two sessions of one initiator name that share an ISID end each other. The clones of
 * a device share its 24 bits, and count its qualifier on: so the one number brings back all. */
static int choose_isid(struct login *login, uint64_t session_id, struct blk_error *error)
{
    if (session_id == 0 &&
        getrandom(&session_id, sizeof(session_id), 0) != (ssize_t)sizeof(session_id))
        return blk_error_set(error, EIO, "no random numbers for the session's ISID");
    login->isid = session_id >> 16 & 0xffffff;
    login->isid_qualifier = (uint16_t)session_id;
    return 0;
}

uint64_t login_session_id(const struct login *login)
{
    return SESSION_ID_MARK | (uint64_t)login->isid << 16 | login->isid_qualifier;
}

int login_prepare(struct login *login, const struct url *url, const struct blk_settings *settings,
                  uint64_t session_id, struct blk_error *error)
{
    int rc;

    rc = parse_path(url->path, login->target, &login->lun, error);
    if (rc == 0)
        rc = parse_header_digest(url, &login->header_digest, error);
    login->password_file = settings->password_file;
    if (rc == 0)
        rc = choose_initiator(login, settings->initiator_name, error);
    if (rc == 0)
        rc = choose_isid(login, session_id, error);
    return rc;
}

void login_prepare_clone(struct login *login, const struct login *origin, unsigned number)
{
    *login = *origin;
    login->isid_qualifier = (uint16_t)(origin->isid_qualifier + number);
}

/* ---- LUN -------------------------------------------------------------------------------------- */

int lun_field(unsigned lun)
{
    assert(lun <= ISCSI_LUN_MAX);
    return (int)(lun < 256 ? lun : 0x4000 | lun);
}

/* ---- Secrets ---------------------------------------------------------------------------------- */

static int keep(char *to, size_t size, const char *from, size_t len, const char *what,
                struct blk_error *error)
{
    if (len == 0)
        return blk_error_set(error, EINVAL, "the %s is empty", what);
    if (len >= size)
        return blk_error_set(error, EINVAL, "the %s is longer than %zu bytes", what, size - 1);
    memcpy(to, from, len);
    to[len] = '\0';
    return 0;
}

/* Where one secret, or the name with it, may stand; the first that is there counts. */
struct source {
    const char *option; /* names a file, in the URL */
    const char *file;   /* for all endpoints that have a user name */
    const char *variable;
    const char *credential; /* systemd's */
    const char *given;      /* in the URL itself */
    const char *what;
};

/* What is said closest to the endpoint counts: its own option, its URL, an option for all endpoints,
 * the environment, the service's credentials. */
static int take(char *to, size_t size, const struct source *source, struct blk_error *error)
{
    const char *value;

    to[0] = '\0';
    if (source->option != NULL)
        return secret_from_file(source->option, source->what, to, size, error);
    if (source->given != NULL)
        return keep(to, size, source->given, strlen(source->given), source->what, error);
    if (source->file != NULL)
        return secret_from_file(source->file, source->what, to, size, error);
    /* An empty variable is one that is not set. */
    value = getenv(source->variable);
    if (value != NULL && value[0] != '\0')
        return keep(to, size, value, strlen(value), source->what, error);
    return secret_from_credential(source->credential, source->what, to, size, error);
}

static int load_own(struct secrets *s, const struct url *url, const struct login *login,
                    struct blk_error *error)
{
    const struct source user = {
        .variable = "LIBISCSI_CHAP_USERNAME",
        .credential = "chap-user",
        .given = url->user != NULL ? url->user : url_param(url, "user"),
        .what = "CHAP user name",
    };
    struct source password = {
        .option = url_param(url, "password-file"),
        .variable = "LIBISCSI_CHAP_PASSWORD",
        .credential = "chap-password",
        .given = url->password,
        .what = "CHAP password",
    };
    int rc = take(s->user, sizeof(s->user), &user, error);

    if (rc < 0)
        return rc;
    if (s->user[0] != '\0')
        password.file = login->password_file;
    return take(s->password, sizeof(s->password), &password, error);
}

static int load_mutual(struct secrets *s, const struct url *url, struct blk_error *error)
{
    const struct source user = {
        .variable = "LIBISCSI_CHAP_TARGET_USERNAME",
        .credential = "chap-mutual-user",
        .given = url_param(url, "mutual-user"),
        .what = "mutual CHAP user name",
    };
    const struct source password = {
        .option = url_param(url, "mutual-password-file"),
        .variable = "LIBISCSI_CHAP_TARGET_PASSWORD",
        .credential = "chap-mutual-password",
        .what = "mutual CHAP password",
    };
    int rc = take(s->mutual_user, sizeof(s->mutual_user), &user, error);

    if (rc < 0)
        return rc;
    return take(s->mutual_password, sizeof(s->mutual_password), &password, error);
}

int secrets_load(struct secrets *secrets, const struct url *url, const struct login *login,
                 struct blk_error *error)
{
    struct secrets *s = secrets;
    int rc;

    memset(s, 0, sizeof(*s));
    rc = load_own(s, url, login, error);
    if (rc == 0)
        rc = load_mutual(s, url, error);
    if (rc < 0)
        return rc;
    if (s->password[0] != '\0' || s->mutual_password[0] != '\0')
        secret_guard();

    /* libiscsi drops a half-given pair in silence, and then logs in without CHAP. */
    if ((s->user[0] != '\0') != (s->password[0] != '\0'))
        return blk_error_set(
            error, EINVAL,
            "CHAP needs a user name and a password, and there is only a %s "
            "(options user= and password-file=, or --password-file, or "
            "LIBISCSI_CHAP_USERNAME and LIBISCSI_CHAP_PASSWORD in the environment)",
            s->user[0] != '\0' ? "user name" : "password");
    if ((s->mutual_user[0] != '\0') != (s->mutual_password[0] != '\0'))
        return blk_error_set(error, EINVAL,
                             "mutual CHAP needs a user name and a password, and there is only a %s",
                             s->mutual_user[0] != '\0' ? "user name" : "password");
    if (s->mutual_user[0] != '\0' && s->user[0] == '\0')
        return blk_error_set(error, EINVAL,
                             "mutual CHAP needs a user name and a password of ours as well");
    return 0;
}

void secrets_wipe(struct secrets *secrets)
{
    explicit_bzero(secrets, sizeof(*secrets));
}

/* ---- Refusals --------------------------------------------------------------------------------- */

/* Status-Class and Status-Detail, RFC 7143 11.13.5. */
static const struct refusal {
    unsigned status;
    int code;
    enum blk_retry retry;
    const char *words;
} refusals[] = {
    {0x0101, EREMOTE, BLK_FATAL, "target moved temporarily"},
    {0x0102, EREMOTE, BLK_FATAL, "target moved permanently"},
    {0x0200, EPROTO, BLK_FATAL, "initiator error"},
    {0x0201, EACCES, BLK_FATAL, "authentication failure"},
    {0x0202, EACCES, BLK_FATAL, "authorization failure"},
    {0x0203, ENOENT, BLK_FATAL, "target not found"},
    {0x0204, ENOENT, BLK_FATAL, "target removed"},
    {0x0205, EPROTO, BLK_FATAL, "unsupported version"},
    {0x0206, EBUSY, BLK_LOST, "too many connections"},
    {0x0207, EPROTO, BLK_FATAL, "missing parameter"},
    {0x0208, EPROTO, BLK_FATAL, "cannot include in session"},
    {0x0209, EPROTO, BLK_FATAL, "session type not supported"},
    {0x020a, EPROTO, BLK_FATAL, "session does not exist"},
    {0x020b, EPROTO, BLK_FATAL, "invalid during login"},
    {0x0300, EIO, BLK_LOST, "target error"},
    {0x0301, EAGAIN, BLK_LOST, "service unavailable"},
    {0x0302, EAGAIN, BLK_LOST, "out of resources"},
};

/* libiscsi has no call that gives the status; it stands at the end of its text: "... (513)". */
static unsigned refusal_status(const char *text)
{
    const char *open = strrchr(text, '(');

    if (strncmp(text, "Failed to log in to target. Status:", 35) != 0 || open == NULL)
        return 0;
    return (unsigned)strtoul(open + 1, NULL, 10);
}

/* The target passed no test of ours, which only the library's text tells apart. */
static int mutual_failure(struct blk_error *error, const char *library_text)
{
    static const char wrong_name[] = "Wrong CHAP targetname received: ";
    const char *name = strstr(library_text, wrong_name);

    if (name != NULL)
        return blk_error_set(error, EACCES, "mutual CHAP failed: the target's user name is '%s'",
                             name + sizeof(wrong_name) - 1);
    if (strstr(library_text, "Invalid CHAP_R") != NULL)
        return blk_error_set(error, EACCES,
                             "mutual CHAP failed: the target does not know the mutual password");
    if (strstr(library_text, "did not return CHAP_") != NULL)
        return blk_error_set(error, EACCES, "mutual CHAP failed: the target does not prove itself");
    return blk_error_set(error, EPROTO, "login failed: %s", library_text);
}

int login_failure(struct blk_error *error, const struct login *login, const struct secrets *secrets,
                  const char *library_text)
{
    unsigned status = library_text == NULL ? 0x0101 : refusal_status(library_text);
    const struct refusal *refusal = NULL;
    char advice[2 * ISCSI_NAME_MAX + 100] = "";
    bool chap = secrets->user[0] != '\0', mutual = secrets->mutual_user[0] != '\0';

    for (size_t i = 0; i < sizeof(refusals) / sizeof(refusals[0]); i++) {
        if (refusals[i].status == status)
            refusal = &refusals[i];
    }
    if (refusal == NULL)
        return mutual_failure(error, library_text);

    if (status == 0x0201)
        snprintf(advice, sizeof(advice), ": the %s",
                 !chap ? "target wants a CHAP user name and password"
                 : !mutual
                     ? "CHAP user name or password is wrong"
                     : "CHAP user name or password is wrong, or the target has no mutual CHAP");
    else if (status == 0x0202)
        snprintf(advice, sizeof(advice), ": the target does not admit the initiator %s%s",
                 login->initiator, chap ? "" : ", at least not without CHAP");
    else if (status == 0x0101 || status == 0x0102)
        snprintf(advice, sizeof(advice), ": it does not say where to, or has moved too often");
    else if (status == 0x0203) /* tgt says so to initiators that its ACL leaves out, too */
        snprintf(advice, sizeof(advice), ": no target %s there that the initiator %s may see",
                 login->target, login->initiator);
    return blk_error_set_retry(error, refusal->code, refusal->retry, "login refused: %s (%04x)%s",
                               refusal->words, status, advice);
}
