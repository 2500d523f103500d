/* predict.c - tells whether a model will be fast enough on a device, without running the model.
   build    cc -std=c99 -O2 -I. examples/predict.c -o build/predict -lm
   run      build/predict device.latency model.gguf [PROMPT TOKENS [SECONDS [THREADS]]]
            where `flash measure` and `flash fit` made device.latency, on the device itself
   expect   "yes", "no" or "perhaps": whether the prompt is read within SECONDS; then the time that
            the prompt takes and the tokens per second after it */
#define FLASH_IMPLEMENTATION
#include "flash.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Returns the bytes of a whole file, and their number in *n. The caller frees them. Returns NULL if
   the file cannot be read. */
static char *slurp(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    char *text = NULL;
    long size = f && !fseek(f, 0, SEEK_END) ? ftell(f) : -1;
    if (size >= 0 && !fseek(f, 0, SEEK_SET) && (text = malloc((size_t)size + 1)) != NULL)
        *n = fread(text, 1, (size_t)size, f);
    if (f) fclose(f);
    return text;
}

/* Returns the type of the first feed-forward matrix, taken as the type of all weights. */
static flash_type weights_of(const flash_model *m)
{
    flash_tensor t;
    for (int i = 0; i < flash_model_arch(m)->n_layer; i++) {
        char name[40];
        snprintf(name, sizeof name, "blk.%d.ffn_up.weight", i);
        if (!flash_gguf_find_tensor(flash_model_gguf(m), name, &t)) return t.type;
    }
    return FLASH_TYPE_Q4_0;
}

int main(int argc, char **argv)
{
    flash_latency *latency;
    flash_interval ttft, token;
    flash_model *model;
    flash_model_desc md = {0};
    flash_workload work = {0};
    flash_error err;
    size_t n = 0;
    double patience = argc > 4 ? atof(argv[4]) : 4;

    work.prompt = work.position = argc > 3 ? atoi(argv[3]) : 2048;
    if (argc < 3 || work.prompt < 1 || work.prompt >= FLASH_CONTEXT_MAX) {
        fprintf(stderr, "usage: predict device.latency model.gguf [PROMPT [SECONDS [THREADS]]]\n");
        return 2;
    }
    char *text = slurp(argv[1], &n);
    md.source.path = argv[2]; /* the file is mapped; its weights are not read */
    if (!text || flash_latency_load(&latency, text, n, NULL, &err)) {
        fprintf(stderr, "%s: %s\n", argv[1], text ? err.text : "cannot be read");
        return 1;
    }
    if (flash_model_load(&model, &md, &err)) {
        fprintf(stderr, "%s: %s\n", argv[2], err.text);
        return 1;
    }
    work.arch = flash_model_arch(model);
    work.weights = weights_of(model);
    work.kv = FLASH_TYPE_Q8_0; /* must be the type that was measured */
    work.threads = argc > 5 ? atoi(argv[5]) : 2;
    if (flash_latency_predict(latency, &work, &ttft, &token)) {
        fprintf(stderr, "not measured: %s weights on %d threads\n", flash_type_name(work.weights),
                work.threads);
        return 1;
    }
    printf("%s: %d tokens of prompt take %.2f s (%.2f to %.2f), then %.1f tokens a second\n",
           ttft.hi <= patience      ? "yes"
               : ttft.lo > patience ? "no"
                                    : "perhaps",
           work.prompt, ttft.mean, ttft.lo, ttft.hi, 1 / token.mean);
    flash_model_free(model);
    flash_latency_free(latency);
    free(text);
    return ttft.lo > patience;
}
