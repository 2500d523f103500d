/* bench_paper.c - the search of MobileLLM-Flash at its own sizes, with the latency of this machine:
   200 trials in batches of 8 over the paper's space, then members of the front are measured.
   build: cc -std=c99 -O2 tools/bench_paper.c -o bench_paper -lm
   usage: bench_paper LATENCY [MEMBERS [THREADS]]; LATENCY is of `flash measure --space paper` and
   `flash fit --least`, Q4_0, keys and values Q8_0, prompts of 2,048: `make bench-paper` does it
   all. The weights are random, and so the loss is a STAND-IN, a formula (FlashToy-P in
   tests/problems.h): what is tested here is the latency. */
#define _POSIX_C_SOURCE 199309L /* a clock */
#include "../flash.h"
#include "../tests/problems.h"
#include <stdio.h>

enum { TRIALS = 200, BATCH = 8, MEMBERS_MAX = 16, ROUNDS = 5, PROMPT = 2048 };

static flash_latency *latency;
static int threads = 2;

static void die(const char *what)
{
    fprintf(stderr, "bench_paper: %s\n", what);
    exit(1);
}

/* Layers, d_model, d_ffn and the layers' kinds, as flash measure --space paper has them. */
static void shape_of(const double *x, flash_arch *a)
{
    memset(a, 0, sizeof *a);
    strcpy(a->name, "flash");
    a->n_layer = (int)x[0];
    a->d_model = (int)x[1];
    a->d_head = a->rope_dims = 64;
    a->n_vocab = 202048;
    a->n_ctx = 8192;
    a->tied = 1;
    a->norm_eps = 1e-5f;
    a->rope_style = FLASH_ROPE_HALVES;
    a->rope_base = 10000;
    a->rope_factor = a->rope_attn_factor = 1;
    a->attention_scale = .125f;
    a->qk_norm = 1;
    a->embedding_scale = 1;
    for (int l = 0; l < a->n_layer; l++) {
        flash_layer *y = &a->layer[l];
        int kind = (int)x[3 + l];
        y->attention = (uint8_t)(kind == 1  ? FLASH_ATTENTION_WINDOW
                                     : kind ? FLASH_ATTENTION_SKIP
                                            : FLASH_ATTENTION_FULL);
        y->n_head = (uint16_t)(kind < 2 ? 32 : 0);
        y->n_kv_head = (uint16_t)(kind < 2 ? 8 : 0);
        y->window = kind == 1 ? 256 : 0;
        y->d_ffn = (int)x[2];
        y->rope_base = kind < 2 ? a->rope_base : 0;
    }
}

static flash_workload work_of(const flash_arch *a)
{
    flash_workload w = {a, FLASH_TYPE_Q4_0, FLASH_TYPE_Q8_0, threads, 256, PROMPT, PROMPT};
    return w;
}

static double ttft(void *user, const double *x)
{
    flash_interval t;
    flash_arch a;
    shape_of(x, &a);
    flash_workload w = work_of(&a);
    (void)user;
    if (flash_latency_predict(latency, &w, &t, NULL))
        die("LATENCY is not of Q4_0 weights, Q8_0 keys and values, and so many threads");
    return t.mean;
}

int main(int argc, char **argv)
{
    static const problem paper = {"FlashToy-P", PAPER, 0, 0, {0, 0}, 0};
    static const double largest[19] = {16, 2048, 8192};
    double reference[2] = {0, 2.55}; /* TTFT, and FlashToy-P's of the loss */
    static flash_param param[64];
    static char name[64][8];
    static char text[1 << 24];
    int ids[TRIALS], n, members = argc > 2 ? atoi(argv[2]) : 6, chosen = 0;
    flash_search_summary sum;
    flash_search_desc d;
    flash_search *s;
    flash_trial t[BATCH];
    flash_error err;
    FILE *f = argc > 1 ? fopen(argv[1], "rb") : NULL;
    threads = argc > 3 ? atoi(argv[3]) : threads;
    if (!f || members < 1 || members > MEMBERS_MAX)
        die("usage: bench_paper LATENCY [MEMBERS [THREADS]]");
    size_t bytes = fread(text, 1, sizeof text, f);
    fclose(f);
    if (flash_latency_load(&latency, text, bytes, NULL, &err)) die(err.text);
    problem_desc(&paper, 1, &d, param, name);
    d.known[0] = ttft;
    reference[0] = 1.05 * ttft(NULL, largest);
    d.reference = reference;
    d.max_trials = TRIALS;
    if (flash_search_create(&s, &d, &err)) die(err.text);
    for (int done = 0; done < TRIALS; done += BATCH) {
        for (int i = 0; i < BATCH; i++)
            if (flash_search_ask(s, &t[i], &err)) die(err.text);
        for (int i = 0; i < BATCH; i++) {
            double y[2];
            problem_values(&paper, t[i].x, y); /* of which the first is known */
            if (flash_search_tell(s, t[i].id, y, &err)) die(err.text);
        }
    }
    n = flash_search_front(s, ids, TRIALS);
    flash_search_summarize(s, &sum);
    printf("bench paper trials=%d front=%d hypervolume=%.4f reference=%.3f,%.3f loss=stand-in\n",
           TRIALS, n, sum.hypervolume, sum.reference[0], sum.reference[1]);

    /* members at even steps of the front, all of them measured in every round */
    flash_trial member[MEMBERS_MAX];
    double least[MEMBERS_MAX][2], off[2] = {0, 0};
    for (int i = 0; i < members && i < n; i++) {
        int at = members > 1 && n > members ? (int)((double)i * (n - 1) / (members - 1) + .5) : i;
        flash_search_trial(s, ids[at], &member[chosen]);
        least[chosen][0] = least[chosen][1] = 1e300;
        chosen++;
    }
    for (int round = 0; round < ROUNDS; round++)
        for (int i = 0; i < chosen; i++) {
            flash_measure_desc how;
            flash_measurement m;
            flash_arch a;
            memset(&how, 0, sizeof how);
            how.repeats = 1;
            shape_of(member[i].x, &a);
            flash_workload w = work_of(&a);
            if (flash_latency_measure(&m, &w, &how, &err)) die(err.text);
            least[i][0] = m.median.prefill < least[i][0] ? m.median.prefill : least[i][0];
            least[i][1] = m.median.decode < least[i][1] ? m.median.decode : least[i][1];
        }
    for (int i = 0; i < chosen; i++) {
        flash_interval first, token;
        flash_arch a;
        char kinds[17] = "";
        shape_of(member[i].x, &a);
        flash_workload w = work_of(&a);
        flash_latency_predict(latency, &w, &first, &token);
        for (int l = 0; l < a.n_layer; l++) kinds[l] = "fws"[(int)member[i].x[3 + l]];
        off[0] += fabs(first.mean / least[i][0] - 1) / chosen;
        off[1] += fabs(token.mean / least[i][1] - 1) / chosen;
        printf("bench paper member=%d layers=%d d_model=%d d_ffn=%d attention=%s weights=%llu "
               "stand_in_loss=%.4f ttft_s=%.3f measured_s=%.3f decode_tok_s=%.1f "
               "measured_tok_s=%.1f\n",
               member[i].id, a.n_layer, a.d_model, (int)member[i].x[2], kinds,
               (unsigned long long)flash_arch_params(&a), member[i].y[1], first.mean, least[i][0],
               1 / token.mean, 1 / least[i][1]);
    }
    printf("bench paper members=%d ttft_mape=%.4f decode_mape=%.4f rounds=%d\n", chosen, off[0],
           off[1], ROUNDS);
    flash_search_free(s);
    flash_latency_free(latency);
    return 0;
}
