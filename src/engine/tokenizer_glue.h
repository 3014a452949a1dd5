/* Joins checkpoints and tokenizers, which do not know each other. */
#pragma once

#include "format/checkpoint.h"
#include "text/tokenizer.h"

/* A tokenizer from the metadata tokenizer.ggml.*; *out is owned by the caller and keeps nothing of
 * the checkpoint, so fm_checkpoint_drop_tokenizer() may follow. *passed_over (NULL is fine) says which id that only some
 * files have, the end of a turn or of a message, cannot be used, code FM_OK for none. */
fm_status fm_tokenizer_from_checkpoint(fm_tokenizer **out, const fm_checkpoint *c,
                                       fm_error *passed_over, fm_error *err);

/* From tokenizer.json or tiktoken.model of a Hugging Face directory; tokens that end a generation from
 * generation_config.json and config.json. */
fm_status fm_tokenizer_from_directory(fm_tokenizer **out, const char *directory, fm_error *err);

/* The token that the model wants in front of every text: bos_token when its file says add_bos_token; -1:
 * none. */
fm_status fm_tokenizer_bos_of_directory(const char *directory, const fm_tokenizer *tok, int32_t *id,
                                        fm_error *err); /* by its tokenizer_config.json */
fm_status fm_tokenizer_bos(const fm_checkpoint *c, const fm_tokenizer *tok, int32_t *id,
                           fm_error *err);
