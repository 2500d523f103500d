/* flash.c - the command line tool `flash`: calls the subcommands, which are in cmd_*.c, and prints
   help. `make build/flash` compiles it, with all the C files of this folder that have no main,
   except naive_train.c. */
#include "../flash.h"
#include "cli.h"
#include <string.h>

static const struct command {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *about;
} commands[] = {
#define CLI_X(name, about) {#name, cmd_##name, about},
    CLI_COMMANDS(CLI_X)
#undef CLI_X
};
enum { N_COMMANDS = sizeof commands / sizeof *commands };

static void usage(FILE *to)
{
    fprintf(to, "usage: flash COMMAND [MODEL] [options]\n\n");
    for (int i = 0; i < N_COMMANDS; i++)
        fprintf(to, "  %-12s %s\n", commands[i].name, commands[i].about);
    fprintf(to, "\nMODEL is a GGUF file. `flash COMMAND --help` lists a command's options.\n");
}

static int dispatch(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "";
    if (!strcmp(name, "help") && argc > 2) {
        char *help[] = {argv[0], argv[2], "--help", NULL};
        return dispatch(3, help);
    }
    if (!strcmp(name, "help") || !strcmp(name, "--help") || !strcmp(name, "-h")) {
        usage(stdout);
        return 0;
    }
    if (!strcmp(name, "--version")) {
        puts(flash_build_info());
        return 0;
    }
    for (int i = 0; i < N_COMMANDS; i++)
        if (!strcmp(name, commands[i].name)) return commands[i].run(argc - 1, argv + 1);
    if (*name) fprintf(stderr, "flash: unknown command %s\n", name);
    usage(stderr);
    return 2;
}

int main(int argc, char **argv)
{
    int status = dispatch(argc, argv);
    if (!status && (fflush(stdout) || ferror(stdout))) cli_fail("cannot write to standard output");
    return status;
}
