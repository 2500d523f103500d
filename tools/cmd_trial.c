/* cmd_trial.c - flash trial: one candidate of a design, cut, healed and scored. */
#include "plan.h"
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { LOOKS = 4 };

/* PLAN's folder/trials/ID; the caller frees it. */
static char *result_path(const char *plan_path, int id)
{
    const char *end = strrchr(plan_path, '/');
    size_t n = end ? (size_t)(end + 1 - plan_path) : 0;
    char *path = malloc(n + 32);
    if (!path)
        cli_fail("out of memory");
    memcpy(path, plan_path, n);
    snprintf(path + n, 32, "trials/%d", id);
    return path;
}

/* Prints the last line of a result that is there, of the same candidate, and returns 1. */
static int had(const char *path, const char *what)
{
    FILE *f = fopen(path, "rb");
    size_t bytes, n = strlen(what);
    if (!f)
        return 0;
    fclose(f);
    char *text = cli_read(path, &bytes), *last = bytes > n ? text + n : text;
    int same = bytes > n + 1 && !memcmp(text, what, n) && *last == '\n' && text[bytes - 1] == '\n';
    if (same) {
        for (char *p = text; p < text + bytes - 1; p++)
            last = *p == '\n' ? p + 1 : last;
        fputs(last, stdout);
    }
    free(text);
    return same;
}

int cmd_trial(int argc, char **argv)
{
    const char *arg[2];
    static plan p;
    static candidate c;
    static char options[PLAN_ATTN + 128], what[PLAN_ATTN + 512];
    double x[FLASH_SEARCH_PARAMS_MAX], each[PLAN_TESTS_MAX], loss, kl, unhealed, last, error;
    static const double zero[PLAN_TESTS_MAX];
    flash_interval ttft;
    cli_image image;
    int threads = 1, steps = 0, scratch = 0, n;
    const cli_option table[] = {
        {"-t", "THREADS", CLI_INT, &threads, 1, FLASH_THREADS_MAX, "threads (1)"},
        {"--steps", "N", CLI_INT, &steps, 1, 1e9, "of healing (those of PLAN)"},
        {"--scratch", NULL, CLI_FLAG, &scratch, 0, 0,
         "random weights of that shape learn the text instead"},
        {0}
    };
    cli_parse_all(argc, argv, table, "PLAN TRIAL",
        "Cuts the backbone of a plan (RUN/plan.json of flash design) to the shape that TRIAL names,\n"
        "a line {\"id\":7,\"x\":{\"layers\":4,...}} of flash search, heals it with the backbone as\n"
        "teacher, and prints what came of it: {\"loss\":NATS A TOKEN,\"ttft\":SECONDS}. On the way,\n"
        "lines \"best LOSS TTFT\" say what may still become of it. The result is kept in\n"
        "RUN/trials/ID: asked again, it is printed at once. On a cluster:\n"
        "  flash design ... -o RUN -j 8 --cmd 'srun flash trial RUN/plan.json {trial.json}'\n", arg);
    plan_read(arg[0], &p);
    plan_open(&p, 1);
    int id = trial_read(&p, arg[1], x);
    plan_candidate(&p, x, &c);
    steps = steps ? steps : p.steps;
    snprintf(what, sizeof what, "{\"options\":\"%s\",\"steps\":%d,\"scratch\":%d,\"sum\":\"%016llx\"}",
             candidate_options(&c, options), steps, scratch, (unsigned long long)p.sum);
    char *path = result_path(arg[0], id);
    if (had(path, what))
        return 0;
    if (!candidate_times(&p, &c, &ttft, NULL))
        cli_fail("%s: it predicts no time for %s", p.latency, options);
    flash_model *m = candidate_model(&p, &c, &image);
    flash_trainer *t = heal_begin(&p, m, scratch, steps, threads);
    unhealed = last = heal_score(&p, t, NULL, NULL, &kl);
    char curve[LOOKS * 32] = "";
    for (int i = 1; i <= steps; i++) {
        heal_step(&p, t);
        if (i == steps || i % ((steps + LOOKS - 1) / LOOKS))
            continue;
        loss = heal_score(&p, t, NULL, NULL, NULL);
        snprintf(curve + strlen(curve), 32, "%.6f,", loss);
        /* what is left of the steps lowers it by no more than those since the last look did */
        if (i > (steps + LOOKS - 1) / LOOKS && !scratch) {
            printf("best %.17g %.17g\n", loss - fmax(last - loss, 0), ttft.mean);
            fflush(stdout);
        }
        last = loss;
    }
    loss = heal_score(&p, t, each, &n, &kl);
    paired(each, zero, n, &error);
    char line[200];
    snprintf(line, sizeof line, "{\"loss\":%.17g,\"ttft\":%.17g}\n", loss, ttft.mean);
    FILE *f = cli_open(path);
    fprintf(f, "%s\n{\"unhealed\":%.6f,\"curve\":[%s%.6f],\"kl\":%.6f,\"error\":%.6f}\n%s", what,
            unhealed, curve, loss, kl, error, line);
    cli_close(path);
    fputs(line, stdout);
    flash_trainer_free(t);
    flash_model_free(m);
    free(image.data);
    free(path);
    plan_close(&p);
    return 0;
}
