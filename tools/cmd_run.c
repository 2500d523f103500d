/* cmd_run.c - flash run: continues a prompt, or begins a text, and writes it as it comes. */
#include "cli.h"
#include <stdlib.h>
#include <string.h>

/* Works on the prompt in slices, so that progress can be shown between them. */
static flash_status run_prompt(flash_session *s, const int32_t *ids, size_t n)
{
    flash_budget budget = {0};
    flash_status st = flash_session_feed(s, ids, n);
    if (st == FLASH_E_RANGE)
        cli_fail("the prompt has %lu tokens, the context holds %d: shorten it or raise -c",
                 (unsigned long)n + (unsigned long)flash_session_position(s)
                     + (unsigned long)flash_session_pending(s),
                 flash_session_capacity(s));
    budget.tokens = 32;
    cli_progress("prompt", 0, 1);
    while (st >= 0 && flash_session_pending(s)) {
        st = flash_session_step(s, &budget);
        cli_progress("prompt", flash_session_progress(s), 1);
    }
    cli_progress("prompt", 1, 1);
    return st < 0 ? st : FLASH_OK;
}

enum { CTX = FLASH_CONTEXT_MAX };

int cmd_run(int argc, char **argv)
{
    const char *prompt = NULL, *file = NULL, *session = NULL;
    char *text = NULL;
    int32_t *ids = NULL;
    int n_max = 0, echo = 0, special = 0, no_bos = 0, goes_on = 0;
    size_t bytes = 0, n_ids = 0;
    flash_model_desc md = {0};
    flash_session_desc sd = {0};
    cli_form form = {0};
    flash_piece piece;
    flash_status st = FLASH_OK;
    const cli_option options[] = {
        {"-p", "TEXT", CLI_TEXT, &prompt, 0, 0, "prompt (none: a text from its beginning)"},
        {"-f", "FILE", CLI_TEXT, &file, 0, 0, "prompt from a file, - is standard input"},
        {"-n", "N", CLI_INT, &n_max, 1, CTX, "at most N tokens (until text or context end)"},
        {"-c", "CTX", CLI_INT, &sd.n_ctx, 1, CTX, "context in tokens (as trained, at most 4096)"},
        CLI_SAMPLER_OPTIONS(sd.sampler),
        CLI_FORM_OPTIONS(form),
        CLI_RUN_OPTIONS(md, sd),
        {"--special", NULL, CLI_FLAG, &special, 0, 0, "read control tokens in the prompt"},
        {"--no-bos", NULL, CLI_FLAG, &no_bos, 0, 0, "do not begin the prompt with BOS"},
        {"--session", "FILE", CLI_TEXT, &session, 0, 0,
         "go on from FILE if there is one; save to it"},
        {"--echo", NULL, CLI_FLAG, &echo, 0, 0, "write the prompt, too"},
        {0}};
    md.source.path = cli_parse(
        argc, argv, options,
        "Writes the continuation as it comes, not the prompt. Ctrl-C ends it (exit 130).\n"
        "With --session the prompt, if there is one, follows what the last run read and wrote,\n"
        "and random numbers go on; the model and --kv are to be the same.\n");
    if (prompt && file) cli_usage("-p or -f, not both");
    cli_check_form(&form);
    if (session) cli_may_write(session);

    if (prompt)
        bytes = strlen(prompt);
    else if (file)
        prompt = text = cli_read(file, &bytes);

    unsigned flags = (special ? FLASH_TEXT_SPECIAL : 0) | (no_bos ? FLASH_TEXT_NO_BOS : 0);
    flash_model *m = cli_load(&md);
    flash_grammar *g = cli_grammar(m, &form);
    sd.sampler.grammar = g;
    flash_session *s = cli_session(m, &sd);
    if (session)
        goes_on = cli_restore(session, s) && flash_session_position(s) + flash_session_pending(s);
    if (goes_on) flags |= FLASH_TEXT_CONTINUE;
    if (prompt) ids = cli_tokenize(m, prompt, bytes, flags, &n_ids);
    if (!n_ids && !goes_on && (no_bos || flash_token_bos(m) < 0))
        cli_fail("nothing to begin with: no prompt and no BOS; give one with -p");
    cli_interrupts(s);
    if (n_ids) st = run_prompt(s, ids, n_ids);

    cli_binary(stdout);
    if (echo && prompt) fwrite(prompt, 1, bytes, stdout);
    for (int n = 0; !st && !ferror(stdout) && (!n_max || n < n_max); n += piece.token >= 0) {
        st = flash_session_next(s, NULL, &piece);
        if (st) break;
        fwrite(piece.text, 1, piece.bytes, stdout);
        fflush(stdout);
    }
    if (cli_is_terminal(stdout)) putchar('\n');
    if (st < 0 && st != FLASH_E_RANGE && st != FLASH_E_CANCELLED)
        cli_fail("%s", flash_status_text(st));
    if (st == FLASH_E_RANGE && cli_is_terminal(stderr))
        fprintf(stderr, "flash run: the context of %d tokens is full; -c sets it\n",
                flash_session_capacity(s));
    cli_interrupts(NULL);
    fflush(stdout);
    if (session) cli_save(session, s);
    flash_session_free(s);
    flash_grammar_free(g);
    flash_model_free(m);
    free(ids);
    free(text);
    return cli_interrupted ? 130 : 0;
}
