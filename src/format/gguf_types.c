/* Sizes of the metadata types of GGUF version 3; those of its tensor types are in quant/quant.c. */
#include "format/gguf_types.h"

#include <stddef.h>

// clang-format off
static const struct {
    const char *name;
    uint32_t bytes;
} values[FM_GGUF_N_VALUE_TYPE] = {
    {"u8", 1},  {"i8", 1},   {"u16", 2},    {"i16", 2},   {"u32", 4}, {"i32", 4}, {"f32", 4},
    {"bool", 1}, {"string", 0}, {"array", 0}, {"u64", 8}, {"i64", 8}, {"f64", 8},
};
// clang-format on

const char *fm_gguf_value_name(uint32_t value_type)
{
    return value_type < FM_GGUF_N_VALUE_TYPE ? values[value_type].name : "unknown";
}

uint32_t fm_gguf_value_bytes(uint32_t value_type)
{
    return value_type < FM_GGUF_N_VALUE_TYPE ? values[value_type].bytes : 0;
}
