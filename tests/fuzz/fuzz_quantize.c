/* What fm_quantize() reads of its own and of others: an importance file (input from the fifth byte on when it begins "IMTX"),
 * or the journal of an unfinished file. */
#include "fuzz/fuzz.h"

#include <string.h>
#include <unistd.h>

#include "engine/importance.h"
#include "engine/quantize_journal.h"

static void journal(const uint8_t *data, size_t n)
{
    fm_journal j;
    fm_journal_record r;
    if (!fm_journal_parse_header(&j, data, n)) return;
    FUZZ_CHECK(j.n_text <= n && j.at <= n);
    uint64_t finished = 0;
    while (fm_journal_next(&j, &r)) {
        FUZZ_CHECK(j.at <= n && r.tensor < j.n_tensor && r.tensor == finished);
        finished += r.is_finished;
    }
}

static void importance(const uint8_t *data, size_t n)
{
    char path[] = "/tmp/fm_fuzz_importance_XXXXXX";
    const int fd = mkstemp(path);
    FUZZ_CHECK(fd >= 0 && write(fd, data, n) == (ssize_t)n);
    close(fd);
    fm_importance *im;
    fm_error err = {0};
    if (fm_importance_open(&im, path, &err) == FM_OK) {
        fm_importance_place at;
        float sums[2], count;
        if (fm_importance_find(im, "a", 2, 2, &at, &err) == FM_OK)
            for (int64_t m = 0; m < at.n_matrix; m++)
                FUZZ_CHECK(fm_importance_read(im, &at, m, sums, &count, &err) == FM_OK);
        fm_importance_close(im);
    } else {
        FUZZ_CHECK(err.msg[0]);
    }
    unlink(path);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n >= 4 && memcmp(data, "IMTX", 4) == 0)
        importance(data + 4, n - 4);
    else
        journal(data, n);
    return 0;
}
