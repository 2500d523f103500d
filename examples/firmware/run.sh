#!/bin/sh
# Builds the firmware around tale.gguf in Q8_0 and in Q4_0, runs both in qemu, compares what they
# write with what flash writes here, and says what they take. Called by `make firmware`.
B=${B:-build}
F=examples/firmware
O=$B/firmware
N=63 # tokens: with the one that begins a text 64, what keys and values are stored by
CC=${ARM_CC:-arm-none-eabi-gcc}
CPU='-mcpu=cortex-m4 -mthumb -mfloat-abi=hard -mfpu=fpv4-sp-d16'
mkdir -p $O
passed=0 failed=0

build() # TYPE
{
    $CC -std=gnu99 $CPU -Os -I. -Wall -Wextra -Werror -ffunction-sections -fdata-sections \
        -DTOKENS=$N -DMODEL="\"$O/$1.gguf\"" $F/main.c $F/board.c $F/model.S \
        -nostartfiles --specs=nano.specs -Wl,--gc-sections -T $F/link.ld -lm -o $O/$1.elf
}

# As the board's: the text, then a line of its own in brackets.
emulate() # TYPE
{
    timeout 300 qemu-system-arm -M mps2-an386 -display none -serial none -monitor none \
        -chardev stdio,id=console,signal=off -semihosting-config enable=on,chardev=console \
        -kernel $O/$1.elf </dev/null >$O/$1.out
}

text() # TYPE: what flash writes here, and for Q8_0 always wrote
{
    { $RUN $B/flash run $O/$1.gguf --temp 0 -n $N; echo; } >$O/$1.here
    sed '$d' $O/$1.out >$O/$1.text
    cmp $O/$1.here $O/$1.text &&
        { [ $1 != q8_0 ] || head -c $(($(wc -c <$O/$1.text) - 1)) tests/golden/tale.txt |
            sed '$s/$/\n/' | cmp - $O/$1.text; }
}

cp examples/models/tale.gguf $O/q8_0.gguf
$RUN $B/flash quantize $O/q8_0.gguf $O/q4_0.gguf Q4_0 >/dev/null
for type in q8_0 q4_0; do
    if build $type && emulate $type && text $type; then
        passed=$((passed + 1))
        ${CC%gcc}size -A $O/$type.elf | awk -v type=$type '
            { size[$1] = $2 }
            END { code = size[".text"] + size[".ARM.exidx"] + size[".data"]
                  ram = size[".data"] + size[".bss"] + size[".stack"]
                  print type ": the text of the PC, byte for byte; memory as said before"
                  printf "  flash: program %d + model %d = %d bytes\n", code, size[".model"],
                      code + size[".model"]
                  printf "  RAM: %d bytes with a stack of %d\n", ram, size[".stack"] }'
        sed 's/^/  /' $O/$type.out
    else
        failed=$((failed + 1))
        echo "FAILED firmware, $type: $O/$type.out"
        tail -3 $O/$type.out
    fi
done
echo "$passed passed, $failed failed"
[ $failed = 0 ]
