/* A fuzz target is a file with one LLVMFuzzerTestOneInput(). With clang it is linked with
 * -fsanitize=fuzzer; with any compiler together with replay.c, which runs a saved corpus.
 * Run from the root of the tree. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

/* A broken promise of the code under test. */
#define FUZZ_CHECK(x)                                                                              \
    do {                                                                                           \
        if (!(x)) {                                                                                \
            fprintf(stderr, "%s:%d: %s does not hold\n", __FILE__, __LINE__, #x);                  \
            abort();                                                                               \
        }                                                                                          \
    } while (0)
