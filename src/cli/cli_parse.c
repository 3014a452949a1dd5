/* Numbers, sizes, lists of ids and whole files, as people give them on a command line. */
#include "cli/cli.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"

bool fm_cli_parse_int(const char *text, int64_t min, int64_t max, int64_t *out)
{
    char *end;
    errno = 0;
    const long long value = strtoll(text, &end, 10);
    if (end == text || *end || errno || isspace((unsigned char)*text)) return false;
    if (value < min || value > max) return false;
    *out = value;
    return true;
}

bool fm_cli_parse_u64(const char *text, uint64_t *out)
{
    if (!isdigit((unsigned char)*text)) return false; /* strtoull takes a minus sign */
    char *end;
    errno = 0;
    const unsigned long long value = strtoull(text, &end, 10);
    if (*end || errno) return false;
    *out = value;
    return true;
}

/* Digits with at most one point and an optional exponent; not "nan", "inf" or hexadecimal. */
bool fm_cli_parse_real(const char *text, double *out)
{
    if (strspn(text, "+-.0123456789eE") != strlen(text)) return false;
    char *end;
    const double value = strtod(text, &end);
    if (end == text || *end || !isfinite(value)) return false;
    *out = value;
    return true;
}

bool fm_cli_parse_size(const char *text, uint64_t *out)
{
    const size_t n_digit = strspn(text, "0123456789.");
    char digits[40];
    if (n_digit == 0 || n_digit >= sizeof digits || *text == '.') return false;
    memcpy(digits, text, n_digit);
    digits[n_digit] = '\0';

    static const char letters[] = "KMGT";
    const char *unit = text + n_digit;
    uint64_t factor = 1;
    if (*unit) {
        const char *letter = strchr(letters, toupper((unsigned char)*unit));
        if (letter) {
            factor = UINT64_C(1) << (10 * (letter - letters + 1));
            unit++;
            if (*unit && strcasecmp(unit, "B") != 0 && strcasecmp(unit, "iB") != 0) return false;
        } else if (strcasecmp(unit, "B") != 0) {
            return false;
        }
    }
    if (!strchr(digits, '.')) {
        uint64_t value;
        if (!fm_cli_parse_u64(digits, &value) || value > UINT64_MAX / factor) return false;
        *out = value * factor;
        return true;
    }
    double value;
    if (factor == 1 || !fm_cli_parse_real(digits, &value)) return false;
    value *= (double)factor;
    if (value >= 0x1p63) return false;
    *out = (uint64_t)value;
    return true;
}

fm_status fm_cli_parse_ids(int32_t **ids, size_t *n_ids, const char *text, const char *source,
                           fm_error *err)
{
    *ids = NULL;
    *n_ids = 0;
    int32_t *list = malloc((strlen(text) / 2 + 1) * sizeof *list);
    if (!list) return fm_fail(err, FM_E_NOMEM, "%s: no memory for its ids", source);
    size_t n = 0;
    bool may_separate = false; /* a comma is legal: an id stands before it */
    for (const char *p = text; *p;) {
        if (isspace((unsigned char)*p) || (*p == ',' && may_separate)) {
            if (*p == ',') may_separate = false;
            p++;
            continue;
        }
        char *end;
        errno = 0;
        const long long id = strtoll(p, &end, 10);
        if (end == p || errno || id < 0 || id > INT32_MAX ||
            (*end && *end != ',' && !isspace((unsigned char)*end))) {
            free(list);
            return fm_fail(err, FM_E_ARG, "%s: \"%.20s\" after %zu ids is not an id", source, p, n);
        }
        list[n++] = (int32_t)id;
        may_separate = true;
        p = end;
    }
    if (n == 0) {
        free(list);
        return fm_fail(err, FM_E_ARG, "%s: holds no ids", source);
    }
    *ids = list;
    *n_ids = n;
    return FM_OK;
}

fm_status fm_cli_check_ids(const int32_t *ids, size_t n_ids, int32_t n_vocab, const char *source,
                           fm_error *err)
{
    for (size_t i = 0; i < n_ids; i++) {
        if (ids[i] < n_vocab) continue;
        return fm_fail(err, FM_E_ARG,
                       "%s: id %d (number %zu) is outside the vocabulary, which has 0 to %d",
                       source, (int)ids[i], i + 1, (int)n_vocab - 1);
    }
    return FM_OK;
}

fm_status fm_cli_check_writable(const char *path, fm_error *err)
{
    struct stat info;
    if (stat(path, &info) == 0 && S_ISDIR(info.st_mode))
        return fm_fail_errno(err, EISDIR, "%s", path);
    const size_t n = strlen(path) + 32;
    char *temp = malloc(n);
    if (!temp) return fm_fail(err, FM_E_NOMEM, "%s: no memory for its name", path);
    snprintf(temp, n, "%s.%ld.tmp", path, (long)getpid());
    const int fd = open(temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    const int os_errno = errno;
    if (fd >= 0) {
        close(fd);
        unlink(temp);
    }
    free(temp);
    return fd >= 0 ? FM_OK : fm_fail_errno(err, os_errno, "%s", path);
}

fm_status fm_cli_check_text(const fm_cli_options *o, const char *path, size_t n, fm_error *err)
{
    char has[FM_FIGURE], may[FM_FIGURE];
    if (o->memory_bytes == 0 || n <= o->memory_bytes / 2) return FM_OK;
    return fm_fail(
        err, FM_E_NOMEM,
        "%s: a text of %s takes twice as much while it becomes tokens, the budget is %s; "
        "give a part of it",
        fm_cli_file_name(path), fm_figure_bytes(has, n), fm_figure_bytes(may, o->memory_bytes));
}

const char *fm_cli_file_name(const char *path)
{
    return path && strcmp(path, "-") == 0 ? "standard input" : path;
}

fm_status fm_cli_read_file(char **text, size_t *n, const char *path, fm_error *err)
{
    *text = NULL;
    *n = 0;
    const bool is_stdin = strcmp(path, "-") == 0;
    const char *name = fm_cli_file_name(path);
    FILE *f = is_stdin ? stdin : fopen(path, "rb");
    if (!f && fm_cli_is_interrupted()) /* while a named pipe waited for its writer */
        return fm_fail(err, FM_E_CANCELLED, "interrupted");
    if (!f) return fm_fail_errno(err, errno, "%s", name);

    fm_status st = FM_OK;
    size_t cap = 4096, used = 0;
    char *buffer = malloc(cap);
    while (buffer) {
        errno = 0;
        used += fread(buffer + used, 1, cap - used - 1, f);
        if (fm_cli_is_interrupted()) {
            st = fm_fail(err, FM_E_CANCELLED, "interrupted");
            break;
        }
        if (ferror(f)) {
            st = fm_fail_errno(err, errno, "%s", name);
            break;
        }
        if (feof(f)) break;
        if (cap - used == 1) {
            char *grown = cap <= SIZE_MAX / 2 ? realloc(buffer, cap * 2) : NULL;
            if (!grown) free(buffer);
            buffer = grown;
            cap *= 2;
        }
    }
    if (!is_stdin) fclose(f);
    if (!buffer) return fm_fail(err, FM_E_NOMEM, "%s: no memory for the text", name);
    if (st != FM_OK) {
        free(buffer);
        return st;
    }
    buffer[used] = '\0';
    *text = buffer;
    *n = used;
    return FM_OK;
}
