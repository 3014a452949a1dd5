/* What a Hugging Face checkpoint calls things, per model_type: a table of configuration keys and one of tensor names, each
 * with the GGUF name that the families of model/ ask for. A new family is two tables and an entry. */
#pragma once

#include <jansson.h>

#include "format/checkpoint_internal.h"

/* A module below "layers.N." (or a global one) and its name in GGUF. */
typedef struct {
    const char *module; /* "*" stands for an expert's number */
    const char *name;   /* without ".weight"; with `whole`, as it is */
    bool whole;
    bool global;       /* not in a layer                                                 */
    fm_tensor_fix fix; /* of plain Hugging Face files; MLX has ADD_ONE applied already   */
    bool qkvz;         /* q, k, v and z of each key head: becomes attn_qkv and attn_gate */
} fm_hf_name;

typedef enum { FM_HF_INT, FM_HF_FLOAT } fm_hf_kind;

typedef struct {
    const char *hf, *key; /* of the text configuration; GGUF's, without the architecture */
    fm_hf_kind kind;
    bool optional;
} fm_hf_key;

typedef struct {
    const char *model_type; /* of the text part */
    const char *architecture;
    const fm_hf_key *keys;   /* to a NULL */
    const fm_hf_name *names; /* to a NULL */
    /* Keys that take more than copying, and refusals of what the architecture's code does not do. */
    fm_status (*more)(fm_checkpoint *c, const json_t *text, const char *path, fm_error *err);
    const char *tokenizer; /* name of the pre-tokenizer, for people */
} fm_hf_adapter;

const fm_hf_adapter *fm_hf_adapter_find(const char *model_type); /* or NULL */
void fm_hf_adapter_names(char *out, size_t size);

/* Metadata of our own making: "<arch>.<key>", or the key alone when arch is NULL. */
fm_status fm_hf_put_uint(fm_checkpoint *c, const char *arch, const char *key, uint64_t v,
                         fm_error *err);
fm_status fm_hf_put_float(fm_checkpoint *c, const char *arch, const char *key, double v,
                          fm_error *err);
fm_status fm_hf_put_bool(fm_checkpoint *c, const char *arch, const char *key, bool v,
                         fm_error *err);
fm_status fm_hf_put_str(fm_checkpoint *c, const char *arch, const char *key, const char *v,
                        fm_error *err);

/* config.json (as bytes) into the metadata of c: picks the adapter by model_type. *root is the whole document, for the
 * caller to json_decref. hf_config.c */
fm_status fm_hf_read_config(fm_checkpoint *c, const char *path, const char *json, size_t n,
                            const fm_hf_adapter **adapter, json_t **root, fm_error *err);
