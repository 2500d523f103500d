/* cmd_chat.c - flash chat: each line of standard input is a question; its answer streams. */
#include "cli.h"
#include <stdlib.h>
#include <string.h>

typedef struct chat_turn {
    flash_role role;
    char *text; /* [bytes] */
    size_t bytes;
} chat_turn;

/* A conversation: all its turns as text. The session has the first `fed` of them. */
typedef struct chat {
    const flash_model *m;
    flash_session *s;
    const flash_chat_format *format;
    chat_turn *turn; /* [n] of cap: the system prompt if there is one, then questions and answers */
    size_t n, cap;
    size_t system;     /* number of turns of the system, 0 or 1 */
    size_t fed;        /* number of turns in the session */
    flash_role before; /* role of the last turn in the session */
    int room;          /* tokens that must be left for an answer */
} chat;

/* ---- texts ------------------------------------------------------------------- */

/* Appends text, [bytes], to t->text, whose memory is *cap bytes. */
static void append(chat_turn *t, size_t *cap, const char *text, size_t bytes)
{
    if (t->bytes + bytes >= *cap) t->text = realloc(t->text, *cap = 2 * (t->bytes + bytes) + 64);
    if (!t->text) cli_fail("out of memory");
    memcpy(t->text + t->bytes, text, bytes);
    t->bytes += bytes;
}

/* Reads a line of standard input, without its end, into *t. Returns 0 at the end of input. */
static int read_line(chat_turn *t)
{
    size_t cap = 0;
    int c;
    append(t, &cap, "", 0);
    while ((c = getchar()) != EOF && c != '\n') {
        char byte = (char)c;
        append(t, &cap, &byte, 1);
    }
    if (t->bytes && t->text[t->bytes - 1] == '\r') t->bytes--;
    return c != EOF || t->bytes;
}

static int blank(const chat_turn *t)
{
    for (size_t i = 0; i < t->bytes; i++)
        if (t->text[i] != ' ' && t->text[i] != '\t') return 0;
    return 1;
}

/* ---- the conversation --------------------------------------------------------- */

static void add(chat *c, chat_turn t)
{
    if (c->n == c->cap) c->turn = realloc(c->turn, (c->cap = 2 * c->cap + 16) * sizeof *c->turn);
    if (!c->turn) cli_fail("out of memory");
    c->turn[c->n++] = t;
}

/* Removes n turns, from turn i on, and resets the session, which has to read the other turns
   again. */
static void forget(chat *c, size_t i, size_t n)
{
    for (size_t k = i; k < i + n; k++) free(c->turn[k].text);
    c->n -= n;
    memmove(c->turn + i, c->turn + i + n, (c->n - i) * sizeof *c->turn);
    flash_session_reset(c->s);
    c->fed = 0;
    c->before = FLASH_ROLE_NONE;
}

/* Queues a turn. Returns FLASH_E_RANGE if fewer than `room` tokens of the context would be left
   after it. */
static flash_status feed(chat *c, flash_role role, const char *text, size_t bytes, int room)
{
    int left = flash_session_capacity(c->s) - flash_session_position(c->s)
        - flash_session_pending(c->s) - room;
    size_t cap = left > 0 ? (size_t)left : 0, n;
    int32_t *ids = malloc((cap + 1) * sizeof *ids);
    flash_status st = !ids
        ? FLASH_E_MEMORY
        : flash_chat_tokenize(c->m, c->format, c->before, role, text, bytes, ids, cap, &n);
    if (!st) st = flash_session_feed(c->s, ids, n);
    c->before = role;
    free(ids);
    return st;
}

/* Queues the turns that the session does not have yet, and the tokens that make the model answer.
   As long as there is no room for these, forgets the older half of the questions and answers. */
static flash_status ask(chat *c)
{
    for (;;) {
        flash_status st = FLASH_OK;
        for (; !st && c->fed < c->n; c->fed++) {
            const chat_turn *t = c->turn + c->fed;
            st = feed(c, t->role, t->text, t->bytes, 0);
        }
        if (!st) st = feed(c, FLASH_ROLE_ASSISTANT, NULL, 0, c->room);
        size_t pairs = (c->n - c->system) / 2; /* the last question has no answer yet */
        if (st != FLASH_E_RANGE || !pairs) return st;
        pairs = (pairs + 1) / 2;
        forget(c, c->system, 2 * pairs);
        if (cli_is_terminal(stderr))
            fprintf(stderr, "[context full: the oldest %lu answers are forgotten]\n",
                    (unsigned long)pairs);
    }
}

/* Prints an answer as it comes, and adds it to the conversation. */
static flash_status answer(chat *c, int n_max, int speed)
{
    chat_turn t = {FLASH_ROLE_ASSISTANT, NULL, 0};
    flash_piece piece;
    flash_status st = FLASH_OK;
    int prompt = flash_session_pending(c->s), n = 0;
    size_t cap = 0;
    double begun = cli_seconds(), first = begun;
    append(&t, &cap, "", 0);
    while (!st && !ferror(stdout) && (!n_max || n < n_max)) {
        st = flash_session_next(c->s, NULL, &piece);
        if (st == FLASH_E_CANCELLED && !cli_interrupted) /* Ctrl-C after the last answer */
            st = FLASH_OK;
        else if (!st) {
            const char *p = piece.text;
            size_t bytes = piece.bytes;
            for (; !t.bytes && bytes && (*p == ' ' || *p == '\n'); p++) bytes--;
            append(&t, &cap, p, bytes);
            fwrite(p, 1, bytes, stdout);
            fflush(stdout);
            if (!n) first = cli_seconds();
            n += piece.token >= 0;
        }
    }
    putchar('\n');
    fflush(stdout);
    if (speed && n)
        fprintf(stderr, "[%d tokens read, %.3g/s; %d written, %.3g/s]\n", prompt,
                prompt / (first - begun), n, n > 1 ? (n - 1) / (cli_seconds() - first) : 0.0);
    add(c, t);
    c->fed = c->n;
    if (st == FLASH_END_OF_TEXT && flash_session_pending(c->s)) {
        forget(c, c->n, 0); /* a stop string is in the session: read all again without it */
    } else if (n && st != FLASH_END_OF_TEXT) {
        flash_session_step(c->s, NULL);                             /* works on the last token */
        flash_session_truncate(c->s, flash_session_position(c->s)); /* drops text held back */
    }
    return st;
}

/* ---- formats -------------------------------------------------------------------- */

static const char *formats(char text[400])
{
    size_t n, used = 0;
    const flash_chat_format *f = flash_chat_formats(&n);
    for (size_t i = 0; i < n && used < 400; i++)
        used += (size_t)snprintf(text + used, 400 - used, "%s%s", i ? ", " : "", f[i].name);
    return text;
}

static const flash_chat_format *format_of(const flash_model *m, const char *path)
{
    const flash_chat_format *f = flash_chat_of(m);
    char names[400];
    flash_value v;
    if (!f)
        cli_fail("%s: %s; choose a format with --format: %s", path,
                 flash_gguf_find(flash_model_gguf(m), "tokenizer.chat_template", &v)
                     ? "there is no chat template"
                     : "the chat template is none of the known",
                 formats(names));
    return f;
}

enum { CTX = FLASH_CONTEXT_MAX };

int cmd_chat(int argc, char **argv)
{
    const char *system = NULL, *name = NULL;
    char names[400], notes[1200];
    int n_max = 0, speed = 0, status = 0;
    size_t cap = 0;
    chat c = {0};
    cli_form form = {0};
    flash_model_desc md = {0};
    flash_session_desc sd = {0};
    const cli_option options[] = {
        {"--system", "TEXT", CLI_TEXT, &system, 0, 0, "system prompt (none)"},
        {"--format", "NAME", CLI_TEXT, &name, 0, 0, "chat format (that of the model's template)"},
        {"-n", "N", CLI_INT, &n_max, 1, CTX, "at most N tokens an answer"},
        {"-c", "CTX", CLI_INT, &sd.n_ctx, 1, CTX, "context in tokens (as trained, at most 4096)"},
        CLI_SAMPLER_OPTIONS(sd.sampler),
        CLI_FORM_OPTIONS(form),
        CLI_RUN_OPTIONS(md, sd),
        {"--speed", NULL, CLI_FLAG, &speed, 0, 0, "tell tokens per second after each answer"},
        {0}};
    snprintf(
        notes, sizeof notes,
        "Each line of standard input is a question. Ctrl-C stops the answer; at the prompt it\n"
        "ends the chat, as the end of input does. Where the context has no room for a question\n"
        "and an answer (N tokens, at most half of it; a quarter without -n) the older half of\n"
        "questions and answers is forgotten, the system prompt never, and the rest is read again.\n"
        "Formats: %s.\n",
        formats(names));
    md.source.path = cli_parse(argc, argv, options, notes);
    if (name && !(c.format = flash_chat_find(name)))
        cli_usage("--format %s: choose from %s", name, formats(names));

    cli_check_form(&form);
    flash_model *m = cli_load(&md);
    flash_grammar *g = cli_grammar(m, &form);
    sd.sampler.grammar = g;
    c.m = m;
    if (!c.format) c.format = format_of(m, md.source.path);
    if (flash_token_find(m, c.format->end) < 0) { /* else that token ends the answer */
        sd.sampler.stop = &c.format->end;
        sd.sampler.n_stop = 1;
    }
    c.s = cli_session(m, &sd);
    c.room = flash_session_capacity(c.s) / (n_max ? 2 : 4);
    if (n_max && n_max < c.room) c.room = n_max;
    if (system) {
        chat_turn t = {FLASH_ROLE_SYSTEM, NULL, 0};
        append(&t, &cap, system, strlen(system));
        add(&c, t);
        c.system = 1;
    }

    cli_binary(stdout);
    int talk = cli_is_terminal(stdin) && cli_is_terminal(stderr);
    while (!ferror(stdout)) {
        chat_turn t = {FLASH_ROLE_USER, NULL, 0};
        if (talk) fprintf(stderr, "> ");
        if (!read_line(&t)) {
            free(t.text);
            break;
        }
        if (blank(&t)) {
            free(t.text);
            continue;
        }
        add(&c, t);
        cli_interrupts(c.s);
        flash_status st = ask(&c);
        if (st == FLASH_E_RANGE) {
            fprintf(stderr,
                    "flash chat: no room for this question in a context of %d tokens; "
                    "shorten it or raise -c\n",
                    flash_session_capacity(c.s));
            forget(&c, c.n - 1, 1);
            status = 1;
        } else if (!st) {
            st = answer(&c, n_max, speed);
            if (st == FLASH_E_RANGE)
                fprintf(stderr,
                        "flash chat: the answer ends because the context of %d tokens is "
                        "full; -c sets it\n",
                        flash_session_capacity(c.s));
        }
        cli_interrupts(NULL);
        if (st < 0 && st != FLASH_E_RANGE && st != FLASH_E_CANCELLED)
            cli_fail("%s", flash_status_text(st));
    }
    if (talk) fputc('\n', stderr);
    flash_session_free(c.s);
    flash_grammar_free(g);
    flash_model_free(m);
    for (size_t i = 0; i < c.n; i++) free(c.turn[i].text);
    free(c.turn);
    return status;
}
