/* The numbers a GGUF file may use: block formats of tensors and kinds of metadata values. Sizes
 * only; what the bytes of a block mean is the business of quant/. */
#pragma once

#include <stdint.h>

typedef struct {
    uint32_t id;
    const char *name;     /* "Q4_K"                    */
    uint32_t block_elems; /* elements along dim[0]     */
    uint32_t block_bytes; /* bytes of those elements   */
} fm_gguf_type;

/* NULL for a number that the format does not define (or has withdrawn). */
const fm_gguf_type *fm_gguf_type_find(uint32_t id);

/* Stands in place of the magic "GGUF" while fm_quantize() writes a file. */
#define FM_GGUF_UNFINISHED "FMQ\x01"

/* Kinds of metadata values, as numbered in the file. */
enum {
    FM_GGUF_U8 = 0,
    FM_GGUF_I8 = 1,
    FM_GGUF_U16 = 2,
    FM_GGUF_I16 = 3,
    FM_GGUF_U32 = 4,
    FM_GGUF_I32 = 5,
    FM_GGUF_F32 = 6,
    FM_GGUF_BOOL = 7,
    FM_GGUF_STRING = 8,
    FM_GGUF_ARRAY = 9,
    FM_GGUF_U64 = 10,
    FM_GGUF_I64 = 11,
    FM_GGUF_F64 = 12,
    FM_GGUF_N_VALUE_TYPE = 13,
};

/* "u32", "string"; "unknown" outside the table. */
const char *fm_gguf_value_name(uint32_t value_type);

/* Bytes of one scalar of this kind; 0 for strings, arrays and unknown numbers. */
uint32_t fm_gguf_value_bytes(uint32_t value_type);
