/* Sizes of the tensor and metadata types of GGUF version 3. Complete on purpose: a checkpoint with
 * a block format that this engine cannot compute with still opens, so that the message about it
 * can name the tensor and the format. */
#include "format/gguf_types.h"

#include <stddef.h>

/* Sorted by id. The missing numbers were withdrawn from the format. */
// clang-format off
static const fm_gguf_type types[] = {
    { 0, "F32",       1,   4}, { 1, "F16",       1,   2}, { 2, "Q4_0",     32,  18},
    { 3, "Q4_1",     32,  20}, { 6, "Q5_0",     32,  22}, { 7, "Q5_1",     32,  24},
    { 8, "Q8_0",     32,  34}, { 9, "Q8_1",     32,  40}, {10, "Q2_K",    256,  84},
    {11, "Q3_K",    256, 110}, {12, "Q4_K",    256, 144}, {13, "Q5_K",    256, 176},
    {14, "Q6_K",    256, 210}, {15, "Q8_K",    256, 292}, {16, "IQ2_XXS", 256,  66},
    {17, "IQ2_XS",  256,  74}, {18, "IQ3_XXS", 256,  98}, {19, "IQ1_S",   256,  50},
    {20, "IQ4_NL",   32,  18}, {21, "IQ3_S",   256, 110}, {22, "IQ2_S",   256,  82},
    {23, "IQ4_XS",  256, 136}, {24, "I8",        1,   1}, {25, "I16",       1,   2},
    {26, "I32",       1,   4}, {27, "I64",       1,   8}, {28, "F64",       1,   8},
    {29, "IQ1_M",   256,  56}, {30, "BF16",      1,   2}, {34, "TQ1_0",   256,  54},
    {35, "TQ2_0",   256,  66}, {39, "MXFP4",    32,  17}, {40, "NVFP4",    64,  36},
    {41, "Q1_0",    128,  18},
};

static const struct {
    const char *name;
    uint32_t bytes;
} values[FM_GGUF_N_VALUE_TYPE] = {
    {"u8", 1},  {"i8", 1},   {"u16", 2},    {"i16", 2},   {"u32", 4}, {"i32", 4}, {"f32", 4},
    {"bool", 1}, {"string", 0}, {"array", 0}, {"u64", 8}, {"i64", 8}, {"f64", 8},
};
// clang-format on

const fm_gguf_type *fm_gguf_type_find(uint32_t id)
{
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        if (types[i].id == id) return &types[i];
    return NULL;
}

const char *fm_gguf_value_name(uint32_t value_type)
{
    return value_type < FM_GGUF_N_VALUE_TYPE ? values[value_type].name : "unknown";
}

uint32_t fm_gguf_value_bytes(uint32_t value_type)
{
    return value_type < FM_GGUF_N_VALUE_TYPE ? values[value_type].bytes : 0;
}
