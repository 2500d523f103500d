/* chat.c - a conversation: appends each line of standard input to the text, and lets the model
   continue it.
   build    cc -std=c99 -O2 -I. examples/chat.c -o build/chat -lm
   run      build/chat model.gguf
   expect   after every line an answer, token by token, until the model ends the text or 128 tokens
            are written. The line /reset makes the model forget everything; the end of the input
            ends the program. No chat template is used: a base model continues your lines as it
            would continue a story. */
#define FLASH_IMPLEMENTATION
#include "flash.h"
#include <stdio.h>
#include <string.h>

enum { ANSWER = 128 }; /* tokens of an answer at most */

/* Prints one answer, token by token. Returns the status that ended it: FLASH_OK after ANSWER
   tokens. */
static flash_status answer(flash_session *s)
{
    flash_piece piece;
    flash_status st = FLASH_OK;
    for (int n = 0; n < ANSWER && (st = flash_session_next(s, NULL, &piece)) == FLASH_OK; n++) {
        fwrite(piece.text, 1, piece.bytes, stdout);
        fflush(stdout);
    }
    putchar('\n');
    return st;
}

int main(int argc, char **argv)
{
    flash_model *model;
    flash_session *s;
    flash_error err;
    flash_model_desc md = {0};
    flash_session_desc sd = {0};
    char line[4096] = "\n"; /* input goes behind the line feed, which later turns begin with */
    md.source.path = argc > 1 ? argv[1] : "model.gguf";
    sd.sampler.temperature = 0.8f;
    sd.sampler.top_p = 0.95f;
    if (flash_model_load(&model, &md, &err)) {
        fprintf(stderr, "chat: %s\n", err.text);
        return 1;
    }
    if (flash_session_create(&s, model, &sd)) {
        fprintf(stderr, "chat: out of memory\n");
        return 1;
    }
    while (printf("> "), fflush(stdout), fgets(line + 1, sizeof line - 1, stdin)) {
        int later = flash_session_position(s) > 0;
        flash_status st;
        line[1 + strcspn(line + 1, "\r\n")] = 0;
        if (!strcmp(line + 1, "/reset")) {
            flash_session_reset(s);
            continue;
        }
        st = flash_session_feed_text(s, later ? line : line + 1, later ? FLASH_TEXT_CONTINUE : 0);
        if (st == FLASH_OK) st = answer(s);
        if (st == FLASH_E_RANGE) {
            printf("(%d tokens are all it can hold: starting over)\n", flash_session_capacity(s));
            flash_session_reset(s);
        } else if (st < 0) {
            fprintf(stderr, "chat: %s\n", flash_status_text(st));
            return 1;
        }
    }
    putchar('\n');
    flash_session_free(s);
    flash_model_free(model);
    return 0;
}
