/* The tokenizer object, for the files that make and use it. */
#pragma once

#include "text/bpe.h"
#include "text/byte_alphabet.h"
#include "text/literals.h"
#include "text/pretokenize.h"
#include "text/tokenizer.h"

enum {
    FM_TOKEN_IS_SPECIAL = 1,
    FM_TOKEN_IS_ADDED = 2,
    FM_TOKEN_IS_END = 4,
    FM_TOKEN_EXISTS = 8,
    FM_TOKEN_STRIPS_LEFT = 16,
    FM_TOKEN_STRIPS_RIGHT = 32,
};

/* Read-only once it was made. */
struct fm_tokenizer {
    int32_t n_vocab;
    char *bytes;     /* of all tokens, one after another           */
    uint32_t *start; /* [n_vocab + 1] offsets into bytes           */
    uint8_t *flags;  /* [n_vocab]                                  */
    fm_bpe bpe;
    fm_splitter *splitter;
    fm_literal_set raw;        /* added tokens, looked for in the text as given       */
    fm_literal_set normalized; /* added tokens, looked for after normalisation        */
    bool nfc;
    bool sliced; /* long texts are cut first, see fm_split_family */
    char pre[48];
};
