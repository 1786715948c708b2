// bin/melt-runner: starts the runner by the loader and with the C library of the bundle, so that it needs neither of a device. Linked
// statically, for it must run everywhere; what it starts takes its place, and so its process number.
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { most_arguments = 64, longest_path = 4096 };

int main(int argc, char ** argv) {
    static char folder[longest_path], loader[longest_path + 64], libraries[longest_path + 64], runner[longest_path + 64];
    const ssize_t length = readlink("/proc/self/exe", folder, sizeof folder - 1);
    if (length < 0 || argc > most_arguments) {
        perror("melt-runner: /proc/self/exe");
        return 127;
    }
    for (int levels = 0; levels < 2; ++levels) {  // without bin/melt-runner
        char * slash = strrchr(folder, '/');
        if (slash == NULL) {
            fprintf(stderr, "melt-runner: %s lies in no bundle\n", folder);
            return 127;
        }
        *slash = '\0';
    }
    snprintf(loader, sizeof loader, "%s/lib/" MELT_LOADER, folder);
    snprintf(libraries, sizeof libraries, "%s/lib", folder);
    snprintf(runner, sizeof runner, "%s/lib/melt-runner", folder);
    char * command[most_arguments + 8] = {loader, "--inhibit-cache", "--library-path", libraries, runner};
    for (int i = 1; i < argc; ++i) {
        command[4 + i] = argv[i];
    }
    execv(loader, command);
    perror(loader);
    return 127;
}
