/* Opens a Hugging Face directory: config.json, the safetensors files of its index, and the join of both into a checkpoint
 * with GGUF's names. Parsing is in safetensors.c and hf_config.c, the tables of the families in hf_<family>.c, the
 * recognition of storage formats in hf_storage.c. */
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/read_file.h"
#include "format/hf_tensor.h"

enum {
    CONFIG_MAX = 16 << 20,
    INDEX_MAX = 256 << 20,
    SHARDS_MAX = 4096,
};

/* Takes `path` (malloc'd) over as the next file; its number is the old c->n_file. */
static fm_status add_file(fm_checkpoint *c, char *path, fm_error *err)
{
    char **paths = path ? realloc(c->paths, ((size_t)c->n_file + 1) * sizeof *paths) : NULL;
    if (paths) c->paths = paths;
    fm_file_mark *marks = paths ? realloc(c->marks, ((size_t)c->n_file + 1) * sizeof *marks) : NULL;
    if (marks) c->marks = marks;
    if (!marks) {
        free(path);
        return fm_fail(err, FM_E_NOMEM, "no memory for the list of files");
    }
    c->paths[c->n_file] = path;
    c->marks[c->n_file++] = (fm_file_mark){0};
    return FM_OK;
}

/* ---- shards ------------------------------------------------------------------------------ */

/* Number of the file `name` of the directory, which is added when it is new. */
static fm_status shard_number(fm_checkpoint *c, const char *name, const char *index_path,
                              int32_t *number, fm_error *err)
{
    if (!name || !name[0] || strchr(name, '/') || name[0] == '.')
        return fm_fail(err, FM_E_FORMAT, "%s: weight_map names \"%.80s\", expected a file name",
                       index_path, name ? name : "(no string)");
    const size_t skip = strlen(c->directory) + 1;
    for (int32_t i = c->n_file - 1; i > 0; i--) {
        if (strcmp(c->paths[i] + skip, name) != 0) continue;
        *number = i;
        return FM_OK;
    }
    if (c->n_file > SHARDS_MAX)
        return fm_fail(err, FM_E_LIMIT, "%s: more than %d files", index_path, SHARDS_MAX);
    *number = c->n_file;
    return add_file(c, fm_path_join(c->directory, name), err);
}

static fm_status read_index(fm_checkpoint *c, fm_raw_set *raw, const char *path, const char *text,
                            size_t n, fm_error *err)
{
    json_error_t why;
    json_t *root = json_loadb(text, n, 0, &why);
    const json_t *map = json_object_get(root, "weight_map");
    fm_status st = FM_OK;
    if (!root)
        st = fm_fail(err, FM_E_FORMAT, "%s: line %d: %s", path, why.line, why.text);
    else if (!json_is_object(map) || json_object_size(map) == 0)
        st = fm_fail(err, FM_E_FORMAT, "%s: weight_map: expected an object of file names", path);
    const char *name;
    json_t *v;
    int32_t file;
    json_object_foreach((json_t *)map, name, v)
    {
        if (st == FM_OK) st = shard_number(c, json_string_value(v), path, &file, err);
    }
    for (int32_t i = 1; i < c->n_file && st == FM_OK; i++) {
        struct stat sb;
        if (stat(c->paths[i], &sb) != 0 && errno == ENOENT)
            st = fm_fail(err, FM_E_IO, "%s: shard %d of %d is missing (%s names it)", c->paths[i],
                         i, c->n_file - 1, path);
        else
            st = fm_safetensors_read(raw, i, c->paths[i], &c->marks[i], err);
    }
    json_object_foreach((json_t *)map, name, v)
    {
        if (st != FM_OK) break;
        const fm_raw_tensor *t = fm_raw_set_find(raw, name);
        st = shard_number(c, json_string_value(v), path, &file, err);
        if (st == FM_OK && (!t || t->at.file != file))
            st = fm_fail(err, FM_E_FORMAT, "%s: tensor %.200s is to be in %s, but is not there",
                         path, name, json_string_value(v));
    }
    json_decref(root);
    return st;
}

static fm_status read_shards(fm_checkpoint *c, fm_raw_set *raw, fm_error *err)
{
    char *index = fm_path_join(c->directory, "model.safetensors.index.json");
    if (!index) return fm_fail(err, FM_E_NOMEM, "%s: no memory", c->directory);
    struct stat sb;
    fm_status st;
    if (stat(index, &sb) == 0) {
        char *text;
        size_t n;
        st = fm_read_file(&text, &n, index, INDEX_MAX, err);
        if (st == FM_OK) st = read_index(c, raw, index, text, n, err);
        free(text);
    } else {
        st = add_file(c, fm_path_join(c->directory, "model.safetensors"), err);
        if (st == FM_OK && stat(c->paths[1], &sb) != 0 && errno == ENOENT)
            st = fm_fail(err, FM_E_IO,
                         "%s: has neither model.safetensors nor model.safetensors.index.json",
                         c->directory);
        else if (st == FM_OK)
            st = fm_safetensors_read(raw, 1, c->paths[1], &c->marks[1], err);
    }
    free(index);
    return st;
}

/* ---- all --------------------------------------------------------------------------------- */

static fm_status put_name(fm_checkpoint *c, fm_error *err)
{
    const char *end = c->directory + strlen(c->directory);
    const char *start = end;
    while (start > c->directory && start[-1] != '/') start--;
    return fm_hf_put_str(c, NULL, "general.name", start, err);
}

/* Most downloads leave a directory that holds a GGUF file: the first by name is the one to give. */
static fm_status fail_without_config(const char *directory, fm_error *err)
{
    char first[256] = "";
    DIR *d = opendir(directory);
    for (const struct dirent *e; d && (e = readdir(d));) {
        const size_t n = strlen(e->d_name);
        if (n < 6 || n >= sizeof first || strcmp(e->d_name + n - 5, ".gguf") != 0) continue;
        if (!first[0] || strcmp(e->d_name, first) < 0)
            snprintf(first, sizeof first, "%s", e->d_name);
    }
    if (d) closedir(d);
    if (first[0])
        return fm_fail(err, FM_E_IO, "%s: is a directory that holds a GGUF file: give %s/%s itself",
                       directory, directory, first);
    return fm_fail(err, FM_E_IO,
                   "%s: has no config.json, so it is no Hugging Face directory, and no GGUF file",
                   directory);
}

fm_status fm_hf_open(fm_checkpoint *c, const char *path, fm_error *err)
{
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/') n--;
    c->directory = malloc(n + 1);
    if (!c->directory) return fm_fail(err, FM_E_NOMEM, "%s: no memory", path);
    memcpy(c->directory, path, n);
    c->directory[n] = 0;
    FM_TRY(add_file(c, fm_path_join(c->directory, "config.json"), err));
    struct stat sb;
    if (stat(c->paths[0], &sb) != 0)
        return errno == ENOENT ? fail_without_config(c->directory, err)
                               : fm_fail_errno(err, errno, "%s", c->paths[0]);
    char *text = NULL;
    json_t *root = NULL;
    const fm_hf_adapter *adapter;
    fm_raw_set raw = {0};
    size_t n_text;
    fm_status st = fm_read_file(&text, &n_text, c->paths[0], CONFIG_MAX, err);
    if (st == FM_OK) {
        c->marks[0].bytes = n_text;
        st = fm_hf_read_config(c, c->paths[0], text, n_text, &adapter, &root, err);
    }
    free(text);
    if (st == FM_OK) st = put_name(c, err);
    if (st == FM_OK) st = read_shards(c, &raw, err);
    if (st == FM_OK) st = fm_hf_map(c, adapter, root, &raw, err);
    json_decref(root);
    fm_raw_set_deinit(&raw);
    return st;
}
