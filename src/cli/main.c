/* flashmoe: finds the command and runs it. The only place that turns an error into an exit status. */
#include "cli/cli.h"

#include <string.h>

static const fm_cli_command *find_command(const char *name)
{
    for (const fm_cli_command *c = fm_cli_commands; c->name; c++) {
        if (strcmp(c->name, name) == 0) return c;
    }
    return NULL;
}

static void print_overview(FILE *out)
{
    fputs("usage: flashmoe COMMAND MODEL [options]\n"
          "\n"
          "Runs Mixture-of-Experts models that are larger than memory. MODEL is a GGUF file,\n"
          "the first file of a set (-00001-of-000NN.gguf), or a Hugging Face directory.\n"
          "\n",
          out);
    for (const fm_cli_command *c = fm_cli_commands; c->name; c++) {
        fprintf(out, "  %-10s %s\n", c->name, c->summary);
    }
    fputs("  help       this text, or the help of a command: flashmoe help run\n"
          "  version    the version of this program\n"
          "\n"
          "A model that is larger than memory, in 4 GiB:\n"
          "  flashmoe run MODEL -p 'Why is the sky blue?' --memory 4G\n",
          out);
}

static int print_version(void)
{
    const char *info = fm_build_info();
    printf("flashmoe %s%s%s%s\n", FM_VERSION, info && *info ? " (" : "", info ? info : "",
           info && *info ? ")" : "");
    return FM_EXIT_OK;
}

static int help_command(int argc, char **argv)
{
    if (argc > 1) {
        fprintf(stderr, "flashmoe help: unexpected argument \"%s\"\n", argv[1]);
        return FM_EXIT_USAGE;
    }
    if (argc == 0) {
        print_overview(stdout);
        return FM_EXIT_OK;
    }
    const fm_cli_command *command = find_command(argv[0]);
    if (!command) {
        fprintf(stderr, "flashmoe: no command \"%s\"\nsee: flashmoe help\n", argv[0]);
        return FM_EXIT_USAGE;
    }
    fm_cli_print_help(stdout, command);
    return FM_EXIT_OK;
}

static int run_command(const fm_cli_command *command, int argc, char **argv)
{
    fm_cli_options options;
    const int status = fm_cli_parse(&options, command, argc, argv);
    if (status != FM_EXIT_OK) return status;
    if (options.wants_help) {
        fm_cli_print_help(stdout, command);
        return FM_EXIT_OK;
    }
    return command->run(&options);
}

int main(int argc, char **argv)
{
    fm_cli_catch_signals();
    if (argc < 2) {
        print_overview(stderr);
        return FM_EXIT_USAGE;
    }
    const char *name = argv[1];
    const bool is_help =
        strcmp(name, "help") == 0 || strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0;
    const bool is_version = strcmp(name, "version") == 0 || strcmp(name, "--version") == 0;
    const fm_cli_command *command = find_command(name);
    if (is_help) return fm_cli_finish(help_command(argc - 2, argv + 2));
    if (is_version && argc == 2) return fm_cli_finish(print_version());
    if (is_version) {
        fprintf(stderr, "flashmoe version: unexpected argument \"%s\"\n", argv[2]);
        return FM_EXIT_USAGE;
    }
    if (!command) {
        fprintf(stderr, "flashmoe: no command \"%s\"\nsee: flashmoe help\n", name);
        return FM_EXIT_USAGE;
    }
    return fm_cli_finish(run_command(command, argc - 2, argv + 2));
}
