/* Hashes, and the tables over names from files: names that were chosen to collide cost no more than
 * others. */
#include "base/hash.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/clock.h"
#include "format/name_index.h"
#include "text/bpe.h"

/* From `openssl mac -macopt c-rounds:1 -macopt d-rounds:3 -macopt size:8 ... SIPHASH`, whose bytes
 * are the number with the low ones first. */
static void hash_is_siphash_1_3(void **state)
{
    (void)state;
    static const struct {
        size_t n;
        uint64_t hash;
    } rows[] = {
        {0, UINT64_C(0xabac0158050fc4dc)},  {1, UINT64_C(0xc9f49bf37d57ca93)},
        {7, UINT64_C(0xd3927d989bb11140)},  {8, UINT64_C(0x369095118d299a8e)},
        {15, UINT64_C(0xd320d86d2a519956)}, {16, UINT64_C(0xcc4fdd1a7d908b66)},
        {63, UINT64_C(0x9d199062b7bbb3a8)},
    };
    const fm_hash_seed seed = {UINT64_C(0x0706050403020100), UINT64_C(0x0f0e0d0c0b0a0908)};
    uint8_t bytes[63];
    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (uint8_t)i;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        assert_true(fm_hash_bytes(seed, bytes, rows[i].n) == rows[i].hash);
}

static void seeds_differ(void **state)
{
    (void)state;
    const fm_hash_seed x = fm_hash_seed_new(), y = fm_hash_seed_new();
    assert_true(x.a != y.a && x.b != y.b);
    assert_true(fm_hash_bytes(x, "name", 4) != fm_hash_bytes(y, "name", 4));
}

/* ---- names that collide -------------------------------------------------------------------------- */

/* Names whose hashes without a seed begin in 4096 neighbouring slots of a table with 2^19, and of
 * every smaller one: with them each search goes through about half of all names. */
enum { N = 200000, NAME = 8, SLOTS = 1 << 19, CROWDED = 4096 };

typedef uint32_t (*slot_fn)(const char *name);

static uint32_t slot_of_index(const char *name)
{
    return (uint32_t)fm_fnv1a(FM_FNV1A_INIT, name, strlen(name));
}

static uint32_t slot_of_bytes(const char *name)
{
    const uint64_t h = fm_fnv1a(FM_FNV1A_INIT, name, NAME); /* tokens may hold zeros */
    return (uint32_t)(h ^ h >> 32);
}

static void write_name(char name[NAME], uint32_t number)
{
    static const char digits[] = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_";
    for (int k = 0; k < NAME - 1; k++, number /= 64) name[k] = digits[number % 64];
    name[NAME - 1] = 0;
}

static char *crowded_names(slot_fn slot_of)
{
    char *names = malloc((size_t)N * NAME);
    assert_non_null(names);
    int n = 0;
    for (uint32_t i = 0; n < N; i++) {
        write_name(names + (size_t)n * NAME, i);
        n += (slot_of(names + (size_t)n * NAME) & (SLOTS - 1)) < CROWDED;
    }
    return names;
}

/* Sanitizers and loaded machines included; without seeds minutes. */
static void check_time(uint64_t since_us)
{
    if (fm_now_us() - since_us > 10000000) fail_msg("names that collide are searched one by one");
}

static const char *name_at(const void *owner, uint32_t i)
{
    return (const char *)owner + (size_t)i * NAME;
}

static void index_finds_names_that_collide(void **state)
{
    (void)state;
    char *names = crowded_names(slot_of_index), other[NAME];
    fm_name_index x = {0};
    const uint64_t t0 = fm_now_us();
    for (uint32_t i = 0; i < N; i++) {
        assert_int_equal(fm_name_index_find(&x, name_at, names, name_at(names, i)), UINT32_MAX);
        assert_true(fm_name_index_add(&x, name_at, names));
        if (i % 256 == 0) check_time(t0);
    }
    for (uint32_t i = 0; i < N; i++) {
        assert_int_equal(fm_name_index_find(&x, name_at, names, name_at(names, i)), i);
        if (i % 256 == 0) check_time(t0);
    }
    write_name(other, UINT32_MAX);
    assert_int_equal(fm_name_index_find(&x, name_at, names, other), UINT32_MAX);
    fm_name_index_deinit(&x);
    free(names);
}

static void tokens_that_collide_are_found(void **state)
{
    (void)state;
    char *names = crowded_names(slot_of_bytes);
    uint32_t *start = malloc(((size_t)N + 1) * sizeof *start);
    for (uint32_t i = 0; i <= N; i++) start[i] = i * NAME;
    fm_bpe b;
    assert_int_equal(fm_bpe_init(&b, names, start, N, 0, NULL), FM_OK);
    const uint64_t t0 = fm_now_us();
    for (int32_t i = 0; i < N; i++) {
        assert_true(fm_bpe_add_token(&b, i));
        if (i % 256 == 0) check_time(t0);
    }
    for (int32_t i = 0; i < N; i++) {
        assert_int_equal(fm_bpe_find(&b, name_at(names, (uint32_t)i), NAME), i);
        assert_false(fm_bpe_add_token(&b, i)); /* the same bytes once more */
        if (i % 256 == 0) check_time(t0);
    }
    assert_int_equal(fm_bpe_find(&b, "other", 5), -1);
    fm_bpe_deinit(&b);
    free(names);
    free(start);
}

/* "ab" in a vocabulary where only the last of many merges makes it one token. */
static void merges_that_collide_are_found(void **state)
{
    (void)state;
    static const char bytes[] = "ababx";
    static const uint32_t start[] = {0, 1, 2, 4, 5};
    fm_bpe b;
    assert_int_equal(fm_bpe_init(&b, bytes, start, 4, N + 1, NULL), FM_OK);
    for (int32_t id = 0; id < 4; id++) assert_true(fm_bpe_add_token(&b, id));
    const uint64_t t0 = fm_now_us();
    int n = 0;
    for (int32_t left = 2; n < N; left++) {
        for (int32_t right = 0; right < 4096 && n < N; right++) {
            const uint64_t pair = (uint64_t)left << 32 | (uint32_t)right;
            const uint64_t h = pair * UINT64_C(0x9E3779B97F4A7C15);
            if (((uint32_t)(h >> 32) & (SLOTS - 1)) >= CROWDED) continue;
            fm_bpe_add_merge(&b, left, right, 3);
            if (n++ % 256 == 0) check_time(t0);
        }
    }
    fm_bpe_add_merge(&b, 0, 1, 2);
    fm_id_vec out = {0};
    fm_bpe_scratch s = {0};
    assert_int_equal(fm_bpe_encode(&b, &s, &out, "ab", 2, NULL), FM_OK);
    assert_int_equal(out.n, 1);
    assert_int_equal(out.ids[0], 2);
    free(out.ids);
    fm_bpe_scratch_deinit(&s);
    fm_bpe_deinit(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hash_is_siphash_1_3),
        cmocka_unit_test(seeds_differ),
        cmocka_unit_test(index_finds_names_that_collide),
        cmocka_unit_test(tokens_that_collide_are_found),
        cmocka_unit_test(merges_that_collide_are_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
