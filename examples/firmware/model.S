/* model.S - the file MODEL as it is, in ROM. */
    .section .rodata.model, "a"
    .balign 64
    .global model_begin, model_end
model_begin:
    .incbin MODEL
model_end:
