/* tiktoken files, as Kimi's checkpoints have them, taken apart: for whoever makes a tokenizer of one, or writes it in
 * another form. */
#pragma once

#include "base/error.h"

enum { FM_TIKTOKEN_SPECIALS = 256 /* ids that follow the ranks */ };

typedef struct {
    /* The token of rank r, which is its id, is bytes[start[r] .. start[r + 1]); owned. */
    char *bytes;
    uint32_t *start;
    int32_t n_rank;
    char *special[FM_TIKTOKEN_SPECIALS]; /* id n_rank + i; owned                      */
    bool is_named[FM_TIKTOKEN_SPECIALS]; /* by the configuration, else made up by id  */
    bool user_defined[FM_TIKTOKEN_SPECIALS];
} fm_tiktoken;

/* From the bytes of tiktoken.model and of tokenizer_config.json; `origin` is the former's name for messages. After an
 * error *t holds nothing. */
fm_status fm_tiktoken_read(fm_tiktoken *t, const char *text, size_t n, const char *config,
                           size_t n_config, const char *origin, fm_error *err);
void fm_tiktoken_free(fm_tiktoken *t);

/* tokens left and right become a third one */
typedef struct {
    int32_t left, right;
} fm_token_pair;

/* The merges that ranks stand for, in ascending rank: a token of two bytes or more is what the last merge makes of its bytes
 * when only merges to lower ranks have been applied. Tokens that these do not bring down to two parts have no
 * merge, *n_without counts them. *pairs: malloc'd. Linear in the number of tokens, of which none may have more than 512
 * bytes. */
fm_status fm_tiktoken_merges(const fm_tiktoken *t, fm_token_pair **pairs, int32_t *n,
                             int32_t *n_without, fm_error *err);
