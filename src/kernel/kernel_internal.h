/* Between the files of kernel/ only: what each instruction set puts into its table.
 *
 * kernel.c builds the tables once. A set is filled by two functions: one for the products with
 * weight matrices (matmul_*.c) and one for everything else (ops_*.c). Both may overwrite what an
 * earlier set left in the table, so a set inherits what it does not improve.
 */
#pragma once

#include <stdbool.h>

#include "kernel/kernel.h"

/* Fill every member except those below and the name. */
void fm_ops_generic(fm_kernels *k);
void fm_ops_avx2(fm_kernels *k);
void fm_ops_avx512(fm_kernels *k);
void fm_ops_neon(fm_kernels *k);

/* Fill quantize, act_form, matmul and, unless it is rows, book_layout. */
void fm_matmul_reference(fm_kernels *k);
void fm_matmul_generic(fm_kernels *k);
void fm_matmul_avx2(fm_kernels *k);
void fm_matmul_avxvnni(fm_kernels *k);
void fm_matmul_avx512(fm_kernels *k, bool has_vbmi, bool one_multiplier);
void fm_matmul_neon(fm_kernels *k);

/* Products of several tokens, into a table of the avx512 resp. neon set; false, and nothing done, when the compiler knew
 * no such instructions. */
bool fm_matmul_amx(fm_kernels *k);
bool fm_matmul_i8mm(fm_kernels *k);

/* The matmul of the avx512 set by planes of bytes alone; with the K formats and IQ4_XS of many tokens as words; with all
 * formats of many tokens as words and fewer multiplications, for one multiplier; and with activations of 8 bits. */
void fm_product_avx512(const fm_matrix *w, int64_t row0, int64_t row1, const void *const *act,
                       float *const *y, int64_t n_tok);
void fm_product_words_avx512(const fm_matrix *w, int64_t row0, int64_t row1, const void *const *act,
                             float *const *y, int64_t n_tok);
void fm_product_halved_avx512(const fm_matrix *w, int64_t row0, int64_t row1,
                              const void *const *act, float *const *y, int64_t n_tok);
void fm_product_avx512_int8(const fm_matrix *w, int64_t row0, int64_t row1, const void *const *act,
                            float *const *y, int64_t n_tok);

/* Change a table of the set to activations of 8 bits (fm_kernels_int8): quantize, and matmul where it leaves out half of
 * the products. */
void fm_int8_generic(fm_kernels *k);
void fm_int8_avx2(fm_kernels *k);
void fm_int8_avxvnni(fm_kernels *k);
void fm_int8_avx512(fm_kernels *k);
void fm_int8_neon(fm_kernels *k);
void fm_int8_amx(fm_kernels *k); /* after fm_int8_avx512() */

/* fm_kernels.quantize, see there. The quantized forms come out bit-identical. */
void fm_quantize_generic(fm_act form, void *dst, const float *x, int64_t n);
void fm_quantize_avx2(fm_act form, void *dst, const float *x, int64_t n);
void fm_quantize_avxvnni(fm_act form, void *dst, const float *x, int64_t n);
void fm_quantize_avx512(fm_act form, void *dst, const float *x, int64_t n);

/* act_form of every set that computes with quantized activations: t->act. */
fm_act fm_act_form_of_type(const fm_type_traits *t);

/* Makes fm_book_entries (book_entries.h) resp. the tables of matmul_book*_vbmi.c and matmul_e4m3_vbmi.c; before the first
 * product, once. */
void fm_book_entries_init(void);
void fm_matmul_book_init_vbmi(void);
void fm_matmul_e4m3_init_vbmi(void);

/* Products with E4M3 weights: matmul_e4m3_<set>.c. */
void fm_matmul_e4m3_avx2(const fm_matrix *w, int64_t row0, int64_t row1, const void *const *act,
                         float *const *y, int64_t n_tok);
void fm_matmul_e4m3_avx512(const fm_matrix *w, int64_t row0, int64_t row1, const void *const *act,
                           float *const *y, int64_t n_tok);
void fm_matmul_e4m3_vbmi(const fm_matrix *w, int64_t row0, int64_t row1, const void *const *act,
                         float *const *y, int64_t n_tok);

/* Products with the formats of code books: in rows; in panels as the set generic. */
void fm_matmul_book_avx2(const fm_matrix *w, int64_t row0, int64_t row1, const void *const *act,
                         float *const *y, int64_t n_tok);
void fm_matmul_book_avxvnni(const fm_matrix *w, int64_t row0, int64_t row1, const void *const *act,
                            float *const *y, int64_t n_tok);
