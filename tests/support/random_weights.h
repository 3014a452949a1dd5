/* Random weights and activations that are valid, ordinary and awkward, the same on every machine; without
 * cmocka, so that programs for another processor can have them. */
#pragma once

#include <stdint.h>

#include "quant/quant.h"

/* GGUF's quantized types. */
enum { N_QUANTIZED = 20 };
extern const uint32_t quantized[N_QUANTIZED];

void random_start(uint64_t seed); /* not 0 */
uint32_t random_u32(void);
float random_float(void); /* in [-1, 1) */

typedef enum {
    W_RANDOM,   /* any bits, ordinary scales         */
    W_ZERO,     /* all bits 0                        */
    W_LARGEST,  /* all weight bits 1, largest scale */
    W_DENORMAL, /* any bits, denormal scales       */
    W_LOWEST,   /* 0x80 everywhere: -128 in Q8_0; in Q6_K weights -32 with scales -128, in IQ4_XS
                 weights -127 with scales -32, in Q3_K -4 with -32                   */
    W_COUNT
} weight_kind;

/* One block of a type with one plane. */
void fill_block(const fm_type_traits *t, uint8_t *p, weight_kind kind);

/* The planes of a type that has several, in rows: any codes that are numbers, ordinary scales. */
void fill_planes(const fm_type_traits *t, uint8_t *const *plane, int64_t n_out, int64_t n_in);

typedef enum { X_RANDOM, X_ZERO, X_SPIKE, X_DENORMAL, X_NOT_FINITE, X_COUNT } activation_kind;
void fill_activations(float *x, int64_t n, activation_kind kind);
