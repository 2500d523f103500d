/* hello.c - a model continues a text.
   build    cc -std=c99 -O2 -I. examples/hello.c -o build/hello -lm
   run      build/hello model.gguf "Once upon a time"
   expect   the continuation, until the model ends the text or the context is full */
#define FLASH_IMPLEMENTATION
#include "flash.h"
#include <stdio.h>

int main(int argc, char **argv)
{
    flash_model *model;
    flash_session *s;
    flash_piece piece;
    flash_error err;
    flash_model_desc md = {0};
    flash_session_desc sd = {0};
    md.source.path = argc > 1 ? argv[1] : "model.gguf";
    if (flash_model_load(&model, &md, &err)) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    if (flash_session_create(&s, model, &sd)) {
        fprintf(stderr, "out of memory\n");
        return 1;
    }
    flash_session_feed_text(s, argc > 2 ? argv[2] : "Once upon a time", 0);
    while (flash_session_next(s, NULL, &piece) == FLASH_OK)
        fwrite(piece.text, 1, piece.bytes, stdout);
    putchar('\n');
    flash_session_free(s);
    flash_model_free(model);
    return 0;
}
