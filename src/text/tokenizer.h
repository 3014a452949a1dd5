/* Tokenizers inside the library: how they are made. Use is in flashmoe.h. */
#pragma once

#include "base/error.h"

/* Bytes of the largest tokenizer.json, or file beside it, that is read; those of the largest vocabularies have 20 MB. */
enum { FM_TOKENIZER_FILE_MAX = 256 << 20 };

typedef struct {
    const char *data; /* need not be terminated */
    size_t n;
} fm_text_span;

/* Kinds of tokens, as numbered in tokenizer.ggml.token_type. */
enum {
    FM_TOKEN_NORMAL = 1,
    FM_TOKEN_UNKNOWN = 2,
    FM_TOKEN_CONTROL = 3,
    FM_TOKEN_USER_DEFINED = 4,
    FM_TOKEN_UNUSED = 5,
    FM_TOKEN_BYTE = 6,
};

/* What an added token's entry says. */
enum {
    FM_ADDED_NORMALIZED = 1, /* looked for in normalised text            */
    FM_ADDED_LSTRIP = 2,     /* takes white space in front of it with it */
    FM_ADDED_RSTRIP = 4,     /* ... behind it                            */
};

/* How text becomes pieces, when it is not known by a family's name. */
typedef struct {
    const char *const *patterns; /* [n_pattern], Oniguruma syntax */
    size_t n_pattern;
    bool nfc;
    bool ignore_merges;
} fm_tokenizer_rules;

/* Where a tokenizer is made from: a vocabulary and merges behind callbacks, so that neither is
 * copied before it is packed. All strings need to live only during fm_tokenizer_create(). */
typedef struct {
    const char *origin; /* file name, for messages                                */
    const char *model;  /* "gpt2": byte-level BPE; anything else is not supported */
    const char *pre;    /* family name; NULL: `rules` say it                      */
    const fm_tokenizer_rules *rules;

    void *user;
    int32_t n_token;
    bool raw_bytes; /* normal tokens are bytes as they are, not in the byte alphabet */
    /* Normal tokens in the byte alphabet, control and user-defined ones as literal text. A span
     * with data == NULL: no such token (a gap in the numbering). */
    fm_status (*token)(void *user, int32_t id, fm_text_span *out, fm_error *err);
    /* NULL: all are normal. */
    fm_status (*token_type)(void *user, int32_t id, int32_t *out, fm_error *err);
    /* FM_ADDED_... of an added token (tokenizer.json only). NULL: none. */
    unsigned (*added)(void *user, int32_t id);

    int64_t n_merge;
    /* Merge number i in the byte alphabet: two spans, or "left right" in *left and right->data ==
     * NULL. */
    fm_status (*merge)(void *user, int64_t i, fm_text_span *left, fm_text_span *right,
                       fm_error *err);

    const int32_t *end_ids; /* ids that end a generation, besides those known by name */
    size_t n_end_id;
} fm_tokenizer_source;

/* *out is owned by the caller, fm_tokenizer_close() frees it. */
fm_status fm_tokenizer_create(fm_tokenizer **out, const fm_tokenizer_source *source, fm_error *err);

/* From the bytes of a tokenizer.json; `origin` is its name for messages. */
fm_status fm_tokenizer_from_json(fm_tokenizer **out, const char *json, size_t n, const char *origin,
                                 fm_error *err);

/* As fm_tokenize() with markup; control tokens count only where trusted[n] is set for every byte of
 * theirs. */
fm_status fm_tokenize_trusted(const fm_tokenizer *tok, int32_t **ids, size_t *n_ids,
                              const char *text, const unsigned char *trusted, size_t n,
                              fm_error *err);

/* From the bytes of a tiktoken file (lines of base64 and rank; the rank is the id) and of the tokenizer_config.json
 * beside it, whose added_tokens_decoder names the special tokens; `pre`: the family's way to split. Ids behind the
 * ranks up to 256 that the configuration does not name are "<|reserved_token_ID|>". */
fm_status fm_tokenizer_from_tiktoken(fm_tokenizer **out, const char *text, size_t n,
                                     const char *config, size_t n_config, const char *pre,
                                     const char *origin, fm_error *err);

/* Makes tokens end a generation; ids outside the vocabulary are passed over. */
void fm_tokenizer_add_ends(fm_tokenizer *tok, const int32_t *ids, size_t n);

/* Heap bytes that it holds, for the ledger. */
uint64_t fm_tokenizer_memory(const fm_tokenizer *tok);
