/* cmd_trial.c - flash trial: cuts, heals and scores one candidate of a design. */
#include "plan.h"
#include <stdlib.h>
#include <string.h>

int cmd_trial(int argc, char **argv)
{
    const char *arg[2], *end;
    static plan p;
    static candidate c;
    static result r;
    double x[FLASH_SEARCH_PARAMS_MAX];
    int threads = 1;
    const cli_option options[] = {
        {"-t", "THREADS", CLI_INT, &threads, 1, FLASH_THREADS_MAX, "threads (1)"}, {0}};
    cli_parse_all(
        argc, argv, options, "PLAN TRIAL",
        "Cuts the backbone of a plan (RUN/plan.json of flash design) to the shape that TRIAL\n"
        "names, a line {\"id\":7,\"x\":{\"layers\":4,...}} of flash search, heals it with the\n"
        "backbone as teacher, and prints {\"loss\":NATS A TOKEN,\"ttft\":SECONDS}. On the way,\n"
        "lines \"best LOSS TTFT\" say what may still become of it. The result is kept in\n"
        "RUN/trials/ID: asked again, it is printed at once. On a cluster:\n"
        "  flash design ... -o RUN -j 8 --cmd 'srun flash trial RUN/plan.json {trial.json}'\n",
        arg);
    plan_read(arg[0], &p);
    plan_open(&p);
    int id = trial_read(&p, arg[1], x);
    plan_candidate(&p, x, &c);
    end = strrchr(arg[0], '/');
    size_t n = end ? (size_t)(end + 1 - arg[0]) : 0;
    char *path = malloc(n + 32);
    if (!path) cli_fail("out of memory");
    memcpy(path, arg[0], n);
    snprintf(path + n, 32, "trials/%d", id);
    result_get(&p, &c, p.steps, 0, threads, path, 1, &r);
    printf("{\"loss\":%.17g,\"ttft\":%.17g}\n", r.loss, r.ttft);
    free(path);
    plan_close(&p);
    return 0;
}
