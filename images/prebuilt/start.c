// bin/melt-runner and bin/melt-scorer: starts the program of its name in `lib` by the loader and with the C library of the bundle, so that
// neither of a device is needed. Linked statically, for it must run everywhere; what it starts takes its place, and so its process number.
//
// Libraries lie in `lib` beside bin/ in a bundle, and beside the program itself in a job's folder on a device behind a link, where
// programs are links to files that lie elsewhere: so it goes by the name under which it was started.
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { most_arguments = 64, longest_path = 4096 };

int main(int argc, char ** argv) {
    static char folder[longest_path], libraries[longest_path + 8], loader[longest_path + 72], program[2 * longest_path];
    const char * slash = argc > 0 ? strrchr(argv[0], '/') : NULL;
    if (slash == NULL || slash - argv[0] >= longest_path || argc > most_arguments) {
        fprintf(stderr, "start it by its path, with at most %d arguments\n", most_arguments);
        return 127;
    }
    memcpy(folder, argv[0], (size_t)(slash - argv[0]));
    const char * const places[] = {"lib", "../lib"};
    for (int place = 0; place < 2; ++place) {
        snprintf(libraries, sizeof libraries, "%s/%s", folder, places[place]);
        snprintf(loader, sizeof loader, "%s/" MELT_LOADER, libraries);
        if (access(loader, X_OK) == 0) {
            break;
        }
    }
    snprintf(program, sizeof program, "%s%s", libraries, slash);
    char * command[most_arguments + 8] = {loader, "--inhibit-cache", "--library-path", libraries, program};
    for (int i = 1; i < argc; ++i) {
        command[4 + i] = argv[i];
    }
    execv(loader, command);
    perror(loader);
    return 127;
}
