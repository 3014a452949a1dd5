/* Every record carries the hash of all that came before it, so a record that was cut off, or bytes of another journal behind
 * the end of this one, end the reading. */
#include "engine/quantize_journal.h"

#include <string.h>

#include "base/bytes.h"
#include "base/hash.h"

bool fm_journal_parse_header(fm_journal *j, const uint8_t *data, size_t n)
{
    *j = (fm_journal){.data = data, .n = n};
    if (n < FM_JOURNAL_FIXED + 8 || memcmp(data, FM_JOURNAL_MAGIC, 8) != 0) return false;
    const uint64_t n_text = fm_get_le(data + 48, 8);
    if (n_text > n - FM_JOURNAL_FIXED - 8) return false;
    const size_t end = FM_JOURNAL_FIXED + (size_t)n_text;
    j->chain = fm_fnv1a(FM_FNV1A_INIT, data, end);
    if (fm_get_le(data + end, 8) != j->chain) return false;
    j->source = fm_get_le(data + 8, 8);
    j->importance = fm_get_le(data + 16, 8);
    j->header = fm_get_le(data + 24, 8);
    j->total_bytes = fm_get_le(data + 32, 8);
    j->n_tensor = fm_get_le(data + 40, 8);
    j->text = (const char *)data + FM_JOURNAL_FIXED;
    j->n_text = (size_t)n_text;
    j->at = end + 8;
    return true;
}

bool fm_journal_next(fm_journal *j, fm_journal_record *out)
{
    if (j->n - j->at < FM_JOURNAL_RECORD) return false;
    const uint8_t *const r = j->data + j->at;
    const uint64_t chain = fm_fnv1a(j->chain, r, FM_JOURNAL_RECORD - 8), kind = fm_get_le(r, 8);
    if (fm_get_le(r + 32, 8) != chain || kind < 1 || kind > 2) return false;
    const fm_journal_record found = {.is_finished = kind == 1,
                                     .tensor = fm_get_le(r + 8, 8),
                                     .bytes = fm_get_le(r + 16, 8),
                                     .hash = fm_get_le(r + 24, 8)};
    /* Tensors come one after another. */
    if (found.tensor != j->n_finished || found.tensor >= j->n_tensor) return false;
    if (found.is_finished) {
        j->n_finished++;
        j->at_bytes = 0;
    } else {
        if (found.bytes < j->at_bytes) return false;
        j->at_bytes = found.bytes;
    }
    j->chain = chain;
    j->at += FM_JOURNAL_RECORD;
    *out = found;
    return true;
}
