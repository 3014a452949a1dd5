/* Config and safetensors headers of a Hugging Face directory: input is config.json, a zero byte, then the JSON of a header.
 * Whatever opens must be sound: every tensor inside its file. */
#include "fuzz/fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "format/checkpoint.h"
#include "quant/planar.h"

static char directory[512];

static void write_file(const char *name, const uint8_t *head, size_t n_head, const uint8_t *data,
                       size_t n)
{
    char path[600];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    FILE *f = fopen(path, "wb");
    if (!f) abort();
    if (n_head) fwrite(head, 1, n_head, f);
    fwrite(data, 1, n, f);
    if (n_head) /* some data behind the header */
        for (int i = 0; i < 4096; i++) fputc(i & 0xff, f);
    fclose(f);
}

static void remove_directory(void)
{
    char path[600];
    static const char *const names[] = {"config.json", "model.safetensors"};
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s", directory, names[i]);
        unlink(path);
    }
    rmdir(directory);
}

static void check_extent(const fm_checkpoint *c, fm_extent at)
{
    const uint64_t size = fm_checkpoint_file_bytes(c, at.file);
    if (at.offset > size || at.bytes > size - at.offset) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!directory[0]) {
        const char *tmp = getenv("TMPDIR");
        snprintf(directory, sizeof directory, "%.400s/fuzz-directory-XXXXXX", tmp ? tmp : "/tmp");
        if (!mkdtemp(directory)) abort();
        atexit(remove_directory);
    }
    const uint8_t *zero = memchr(data, 0, size);
    const size_t n_config = zero ? (size_t)(zero - data) : size;
    const uint8_t *header = zero ? zero + 1 : data + size;
    const size_t n_header = size - (size_t)(header - data);
    uint8_t head[8];
    for (int i = 0; i < 8; i++) head[i] = (uint8_t)((uint64_t)n_header >> (8 * i));
    write_file("config.json", NULL, 0, data, n_config);
    write_file("model.safetensors", head, 8, header, n_header);

    fm_checkpoint *c;
    fm_error err = {0};
    if (fm_checkpoint_open(&c, directory, &err) != FM_OK) {
        if (!err.msg[0]) abort();
        return 0;
    }
    for (int64_t i = 0; i < fm_checkpoint_n_tensor(c); i++) {
        const fm_tensor_info *t = fm_checkpoint_tensor(c, i);
        const fm_tensor_info *s = t->source ? t->source : t;
        const int n_plane = fm_type_n_plane(fm_type_get(s->type));
        if (s->by_columns && n_plane > 1) abort(); /* readers take single floats */
        for (int k = 0; k < n_plane && !s->each; k++)
            check_extent(c, k == 0 ? (fm_extent){s->offset, s->bytes, s->file} : s->aux[k - 1]);
        for (int64_t k = 0; s->each && k < s->dim[2] * n_plane; k++) check_extent(c, s->each[k]);
    }
    fm_checkpoint_close(c);
    return 0;
}
