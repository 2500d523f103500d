/* game.c - two characters of a game talk in turns. One model speaks for both of them and may use
   2 ms of every frame. After each line a third session names the mood of the speaker, as JSON that
   follows a schema.
   build    cc -std=c99 -O2 -I. examples/game.c -o build/game -lm
   run      build/game model.gguf [SECONDS [MILLISECONDS A FRAME]]
   expect   the first scene, line by line, then a table of how long the model held up the frames.
            With another budget the words stay the same; they take more frames or fewer. */
#define _POSIX_C_SOURCE 200809L /* clock_gettime, nanosleep */
#define FLASH_IMPLEMENTATION
#include "flash.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#ifdef _WIN32
#include <windows.h>
#endif

static const char schema[] =
    "{\"type\": \"object\", \"properties\": {\"mood\": {\"enum\": [\"happy\", \"sad\", \"angry\","
    " \"scared\", \"surprised\"]}}, \"required\": [\"mood\"], \"additionalProperties\": false}";
enum { HZ = 60, LINES = 6, LINE_TOKENS = 40 }; /* frames per second; limits of a scene, a line */

static const char *const name[2] = {"Tom", "Lily"};
static const char *const quote[] = {"\""};                              /* ends a line */
static const double edge[] = {0.5, 1, 1.5, 2, 2.25, 2.5, 3, 4, 8, 1e9}; /* of the histogram [ms] */

/* Returns the time of a monotonic clock [s]. */
static double now(void *user)
{
    (void)user;
#ifdef _WIN32
    LARGE_INTEGER t, f;
    QueryPerformanceCounter(&t);
    QueryPerformanceFrequency(&f);
    return (double)t.QuadPart / (double)f.QuadPart;
#else
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
#endif
}

/* Sleeps, in place of the rest of a game: its own work and the wait for the screen. */
static void rest(double seconds)
{
#ifdef _WIN32
    Sleep((DWORD)(seconds * 1000));
#else
    struct timespec t = {0, (long)(seconds * 1e9)};
    if (seconds > 0) nanosleep(&t, NULL);
#endif
}

/* Each character has a session that holds the whole conversation: its own lines as it generated
   them, the lines of the other as text that was fed to it. */
typedef struct scene {
    flash_session *mind[2], *heart; /* one for each character; one that finds the mood */
    int who, lines, tokens, shown;  /* speaker; lines so far; tokens of this line; 1: no output */
    int feeling;                    /* 1: the line is complete, its mood is being found */
    char line[1024], mood[64];      /* the line so far; its mood so far, as JSON */
} scene;

/* Feeds text to character `who`, and after it the words that begin a line of `speaker`. */
static flash_status tell(scene *s, int who, const char *text, const char *speaker)
{
    char all[1280];
    snprintf(all, sizeof all, "%s %s said, \"", text, speaker);
    return flash_session_feed_text(s->mind[who], all, 0);
}

static void begin(scene *s)
{
    for (int i = 0; i < 2; i++) {
        flash_session_reset(s->mind[i]);
        tell(s, i, "Tom and Lily were best friends. One day, they met in the park.", name[0]);
    }
    s->who = s->lines = s->tokens = s->feeling = 0;
    s->line[0] = 0;
}

/* Asks the third session for the mood of the line that is complete. */
static flash_status ask_mood(scene *s)
{
    char all[1280];
    snprintf(all, sizeof all, "\"%s\" said %s. %s felt", s->line, name[s->who], name[s->who]);
    flash_session_reset(s->heart);
    s->feeling = 1;
    s->mood[0] = 0;
    return flash_session_feed_text(s->heart, all, 0);
}

/* Prints the line with its mood, feeds it to the other character, and lets that one speak next. */
static void pass_on(scene *s)
{
    int next = !s->who;
    char mood[16] = "";
    const char *value = strchr(s->mood, ':'); /* {"mood": "happy"} with any white space */
    if (value) sscanf(value, ": \"%15[a-z]\"", mood);
    if (!s->shown) printf("%s (%s): %s\n", name[s->who], mood, s->line);
    strcat(s->line, "\"");
    if (++s->lines == LINES || tell(s, next, s->line, name[next])
        || tell(s, s->who, s->tokens == LINE_TOKENS ? "\"" : "", name[next])) {
        begin(s); /* the scene is over, or a context is full */
        s->shown = 1;
        return;
    }
    s->who = next;
    s->tokens = s->feeling = 0;
    s->line[0] = 0;
}

/* Lets the characters talk until the clock passes `until` [s]. All work of the model is done here,
   once in each frame. */
static flash_status frame(scene *s, double until)
{
    flash_budget budget = {0, until};
    flash_piece piece;
    while (now(NULL) < until) {
        flash_session *at = s->feeling ? s->heart : s->mind[s->who];
        char *to = s->feeling ? s->mood : s->line;
        size_t room = s->feeling ? sizeof s->mood : sizeof s->line;
        flash_status st = flash_session_next(at, &budget, &piece);
        if (st == FLASH_MORE) return FLASH_OK; /* time is up; the prompt is not yet read */
        if (st < 0 && st != FLASH_E_RANGE) return st;
        if (st == FLASH_OK && strlen(to) + piece.bytes + 2 < room)
            strncat(to, piece.text, piece.bytes);
        if (s->feeling) {
            if (st != FLASH_OK) /* the object is complete */
                pass_on(s);
        } else if ((st != FLASH_OK || ++s->tokens == LINE_TOKENS) && (st = ask_mood(s)) != 0) {
            return st;
        }
    }
    return FLASH_OK;
}

int main(int argc, char **argv)
{
    static scene s;
    flash_model *model;
    flash_error err;
    flash_model_desc md = {0};
    flash_session_desc sd = {0};
    flash_grammar *form;
    flash_grammar_desc gd = {0};
    static char rules[4096];
    int frames = (int)(HZ * (argc > 2 ? atof(argv[2]) : 10)), count[10] = {0}, late = 0, busy = 0;
    double budget = argc > 3 ? atof(argv[3]) : 2, longest = 0, busiest = 0;
    md.source.path = argc > 1 ? argv[1] : "examples/models/tale.gguf";
    md.host.clock = now;
    sd.sampler.temperature = 0.7f;
    sd.sampler.top_p = 0.9f;
    sd.sampler.stop = quote;
    sd.sampler.n_stop = 1;
    if (flash_model_load(&model, &md, &err)) {
        fprintf(stderr, "game: %s\n", err.text);
        return 1;
    }
    for (int i = 0; i < 2; i++) {
        sd.sampler.seed = (uint64_t)i + 1;
        if (flash_session_create(&s.mind[i], model, &sd)) {
            fprintf(stderr, "game: out of memory\n");
            return 1;
        }
    }
    gd.text = rules;
    if (flash_grammar_from_schema(schema, sizeof schema - 1, rules, sizeof rules, &gd.bytes, &err)
        || flash_grammar_create(&form, model, &gd, &err)) {
        fprintf(stderr, "game: %s\n", err.text);
        return 1;
    }
    memset(&sd.sampler, 0, sizeof sd.sampler);
    sd.sampler.grammar = form;
    if (flash_session_create(&s.heart, model, &sd)) {
        fprintf(stderr, "game: out of memory\n");
        return 1;
    }
    begin(&s);
    double next = now(NULL);
    for (int f = 0; f < frames; f++) {
        int bin = 0;
        clock_t used = clock();
        double start = now(NULL);
        flash_status st = frame(&s, start + budget / 1000);
        double took = 1000 * (now(NULL) - start);
        double work = 1000.0 * (double)(clock() - used) / CLOCKS_PER_SEC;
        if (st) {
            fprintf(stderr, "game: %s\n", flash_status_text(st));
            return 1;
        }
        while (took > edge[bin]) bin++;
        count[bin]++;
        late += took > budget + 1;
        longest = took > longest ? took : longest;
        busy += work > budget + 1;
        busiest = work > busiest ? work : busiest;
        next += 1.0 / HZ;
        rest(next - now(NULL));
    }
    printf("\nthe model's part of %d frames, budget %g ms:\n", frames, budget);
    for (int i = 0; i < 10; i++)
        if (count[i])
            printf("%5g to %4g ms %6d  %.2f %%\n", i ? edge[i - 1] : 0, i < 9 ? edge[i] : longest,
                   count[i], 100.0 * count[i] / frames);
    printf("%.2f %% within %g ms, the longest %.2f ms\n", 100 - 100.0 * late / frames, budget + 1,
           longest);
    printf("without waits for other programs: %.2f %%, %.2f ms\n", 100 - 100.0 * busy / frames,
           busiest);
    flash_session_free(s.mind[0]);
    flash_session_free(s.mind[1]);
    flash_session_free(s.heart);
    flash_grammar_free(form);
    flash_model_free(model);
    return 0;
}
