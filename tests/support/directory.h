/* Tiny models (tests/tiny) as Hugging Face directories. Plain ones hold the values that tests/vectors/model has logits for;
 * the codes and scales of the others are defined in tests/vectors/directory/README.md. */
#pragma once

#include "tiny/tiny_model.h"

typedef struct {
    const char *spec;
    const char *
        format; /* "plain", "mlx4", "mlx2", "fp8", "fp8-row", "int4", "mxfp4" (MLX), "blocks" (gpt-oss) */
    int n_shards; /* 0 or 1: model.safetensors */
    bool
        one_by_one; /* plain: every expert's matrices are tensors of their own; gpt-oss: as mlx-lm has them */
    int n_vocab;     /* rows of embedding and head; 0: those of the spec */
    bool multimodal; /* values under text_config, a prefix, vision and draft tensors beside */
    const char *model_type; /* NULL: that of the spec */
    bool draft_unlike; /* experts of the draft layer fused where others are one by one, and the other way round */
} directory_options;

/* Creates the directory `path` with config.json and safetensors files. Fails the test on error. Specs with a draft layer
 * have it there too, but for MLX, whose converters leave it out. */
void directory_write(const char *path, const directory_options *opt);
