/* Runs a fuzz target over saved inputs, for builds without a fuzzer.
 *
 *   fuzz_x FILE|FOLDER...    every file, and every file of every folder, in order of name
 *
 * Fails when there is no input at all, so that a lost corpus does not pass for a clean one. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static int n_run, n_bad;

static void run_file(const char *path)
{
    FILE *f = fopen(path, "rb");
    struct stat info;
    if (!f || fstat(fileno(f), &info) != 0) {
        perror(path);
        n_bad++;
        if (f) fclose(f);
        return;
    }
    const size_t size = (size_t)info.st_size;
    /* Exactly as large as the input, so that a sanitizer sees a read behind its end. */
    uint8_t *data = malloc(size ? size : 1);
    if (!data || fread(data, 1, size, f) != size) {
        fprintf(stderr, "%s: cannot be read\n", path);
        n_bad++;
    } else {
        printf("%s\n", path); /* the last one before a crash is the one that caused it */
        fflush(stdout);
        LLVMFuzzerTestOneInput(data, size);
        n_run++;
    }
    free(data);
    fclose(f);
}

static void run_path(const char *path)
{
    struct stat info;
    if (stat(path, &info) != 0) {
        perror(path);
        n_bad++;
        return;
    }
    if (!S_ISDIR(info.st_mode)) {
        run_file(path);
        return;
    }
    struct dirent **entries;
    const int n = scandir(path, &entries, NULL, alphasort);
    if (n < 0) {
        perror(path);
        n_bad++;
        return;
    }
    for (int i = 0; i < n; i++) {
        char name[4096];
        if (entries[i]->d_name[0] != '.' &&
            snprintf(name, sizeof name, "%s/%s", path, entries[i]->d_name) < (int)sizeof name) {
            run_path(name);
        }
        free(entries[i]);
    }
    free(entries);
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) run_path(argv[i]);
    printf("%d inputs replayed\n", n_run);
    if (n_run == 0) fputs("no inputs\n", stderr);
    return n_bad > 0 || n_run == 0;
}
