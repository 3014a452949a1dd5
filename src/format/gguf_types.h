/* The numbers a GGUF file may use for kinds of metadata values; those of tensors are in quant/quant.h. */
#pragma once

#include <stdint.h>

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
