/* Cuts text into the pieces that byte-pair encoding works inside: one or more regular expressions,
 * each applied inside the pieces that the previous ones left. */
#pragma once

#include "base/error.h"

typedef struct fm_splitter fm_splitter;

/* patterns [n_pattern], Oniguruma syntax, NUL-terminated. A match is a piece, and so is the text
 * between two matches. No pattern at all: the text is one piece. */
fm_status fm_splitter_create(fm_splitter **out, const char *const *patterns, size_t n_pattern,
                             fm_error *err);
void fm_splitter_destroy(fm_splitter *s);
uint64_t fm_splitter_memory(const fm_splitter *s);

/* Ends of pieces in text order; the first begins at 0. Zero-initialise, free(end). */
typedef struct {
    size_t *end;
    size_t n, cap;
} fm_pieces;

/* text[n] is valid UTF-8; pieces that were in *out are replaced. FM_E_LIMIT when a pattern needs
 * too many steps or too much memory on this text. Any thread. */
fm_status fm_splitter_run(const fm_splitter *s, fm_pieces *out, const char *text, size_t n,
                          fm_error *err);

/* Kimi's tokenization script hands a text over in slices of this many characters, and cuts those again where more
 * characters than the other number are all white space or all none. */
enum { FM_SLICE_CHARS = 400000, FM_SLICE_RUN = 25000 };

/* How the text of a model family becomes pieces, by the name that GGUF files use
 * (tokenizer.ggml.pre). */
typedef struct {
    const char *name;
    const char *const *patterns; /* NULL-terminated */
    bool nfc;                    /* text is brought to NFC first */
    bool rank_by_id;             /* see bpe.h */
    bool sliced;                 /* long texts are cut first: FM_SLICE_... */
} fm_split_family;

const fm_split_family *fm_split_family_find(const char *name, size_t n); /* NULL: unknown */
const fm_split_family *fm_split_family_at(size_t i);                     /* NULL: no more */
/* The known names, separated by ", ". */
void fm_split_family_names(char *out, size_t size);
extern const char fm_pattern_gpt2[];
