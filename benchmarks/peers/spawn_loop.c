/* The limit: a program N times, W at a time, and nothing else. Prints how many ended with success. */
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>

extern char **environ;

int main(int argc, char **argv) {
    if (argc < 4) return 2;
    int wanted = atoi(argv[1]), workers = atoi(argv[2]), started = 0, ended = 0, succeeded = 0;
    char **command = argv + 3;
    while (ended < wanted) {
        while (started < wanted && started - ended < workers) {
            pid_t pid;
            if (posix_spawnp(&pid, command[0], NULL, NULL, command, environ) != 0) return 1;
            started++;
        }
        int status;
        if (waitpid(-1, &status, 0) < 0) return 1;
        ended++;
        succeeded += WIFEXITED(status) && WEXITSTATUS(status) == 0;
    }
    printf("%d\n", succeeded);
    return 0;
}
