# flash.h itself needs no build. This builds what is around it: examples, tools, tests.
#   make test config=sanitize CC=clang
#   make test CC=s390x-linux-gnu-gcc CFLAGS=-static RUN=qemu-s390x B=build/s390x

config ?= release
B      ?= build$(if $(filter-out release,$(config)),/$(config))# the folder for what is built
RUN    ?=#              put before every program that is run: an emulator, a debugger
CFLAGS ?=#              added last, so that they win
LIBFLAGS ?=#            the same for flash.o alone
LDLIBS ?= -lm

FLAGS_release  = -O2# no -march: the file picks instruction sets itself; no -Ofast: results are exact
FLAGS_debug    = -O0 -g
FLAGS_sanitize = -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all
FLAGS_scalar   = -O2 -DFLASH_NO_SIMD
FLAGS_coverage = -O0 -g --coverage
ifeq ($(FLAGS_$(config)),)
$(error config=$(config): use release, debug, sanitize, scalar or coverage)
endif
WASM = clang --target=wasm32 -std=c99 -I. -Iexamples/web/include -O2 -msimd128 -mbulk-memory \
	-Wall -Wextra -nostdlib -Wl,--no-entry,--stack-first,--strip-all
COMPILE = $(CC) -std=c99 -I. -Wall -Wextra -Wpedantic $(FLAGS_$(config)) $(CFLAGS)

# In tools/, a file with main is a program; the others are the subcommands of flash.c (and what
# bench_train is compared with).
PROGRAMS = $(shell grep -ls '^int main' tools/*.c)
CLI      = $(filter-out $(filter-out tools/flash.c,$(PROGRAMS)) tools/naive_train.c,$(wildcard tools/*.c))
TOOLS    = $(patsubst tools/%.c,$(B)/%,$(filter-out tools/flash.c,$(PROGRAMS))) $(B)/flash
EXAMPLES = $(patsubst examples/%.c,$(B)/%,$(wildcard examples/*.c))
TESTS    = $(patsubst tests/%.c,$(B)/tests/%,$(wildcard tests/test_*.c))
MAKERS   = $(patsubst tests/%.c,$(B)/tests/%,$(wildcard tests/mk*.c))
REPLAYS  = $(patsubst tests/fuzz/%.c,$(B)/tests/%,$(wildcard tests/fuzz/fuzz_*.c))
# Programs that only use the library link $(B)/flash.o, which is compiled once. The others contain
# the implementation themselves, because they look at its internals.
OWN      = $(notdir $(shell grep -ls '^\#define FLASH_.*IMPLEMENTATION' tools/*.c tests/*.c tests/fuzz/*.c))
lib      = $(if $(filter $(@F).c,$(OWN)),,$(B)/flash.o)
SCRIPTS  = $(patsubst tests/%.sh,$(B)/tests/%,$(wildcard tests/test_*.sh))
LOGS     = $(patsubst %,%.log,$(TESTS) $(REPLAYS) $(SCRIPTS))
FUZZERS  = $(patsubst tests/fuzz/fuzz_%.c,fuzz-%,$(wildcard tests/fuzz/fuzz_*.c))
FUZZ_SECONDS ?= 300
FUZZ_CFLAGS ?= -O1 -g
FUZZ_ARGS ?= -print_final_stats=1

all: $(EXAMPLES) $(TOOLS) ## examples and tools (the default)

test: $(LOGS) ## all tests; config=release|debug|sanitize|scalar|coverage, CC, CFLAGS, RUN
	@awk -f tests/sum.awk $^

programs: all $(TESTS) $(MAKERS) $(REPLAYS) ## all that can be built, running nothing

# A story needs no more than an example, which is there sooner.
STORY = One day, a little dog
run: $(if $(MODEL)$(ARGS),$(B)/flash,$(B)/hello) ## a story; MODEL=file.gguf ARGS='-p TEXT': other text
ifeq ($(MODEL)$(ARGS),)
	@printf '%s' "$(STORY)"; $(RUN) $(B)/hello examples/models/tale.gguf "$(STORY)"
else
	@$(RUN) $(B)/flash run "$(or $(MODEL),examples/models/tale.gguf)" $(ARGS)
endif

lint: ## what can be checked without running: warnings, symbols, macros, table of contents
	@sh tools/lint.sh

matrix: ## tests sanitized, emulated and with other compilers; ONLY=PATTERN: some of them
	@ONLY='$(ONLY)' sh tools/matrix.sh

matrix-full: ## all compilers x standards x options, all tests emulated; before a release
	@FULL=1 ONLY='$(ONLY)' sh tools/matrix.sh

fuzz: $(FUZZERS) ## libFuzzer (clang), FUZZ_SECONDS=300 for each target

peer: $(B)/flash $(B)/tests/mkallowed ## comparison with llama.cpp, PEER_DIR=folder: see tests/peer.sh
	@B="$(B)" RUN="$(RUN)" PEER_DIR="$(PEER_DIR)" sh tests/peer.sh

bench-peer: $(B)/flash ## speed next to llama.cpp's, PEER_DIR=folder: see tools/bench_peer.sh
	@B="$(B)" RUN="$(RUN)" PEER_DIR="$(PEER_DIR)" sh tools/bench_peer.sh $(ARGS)

bench-search: $(B)/bench_search ## how good the search is, on problems whose best is known; ARGS='NAME -s SEEDS'
	@$(B)/bench_search $(ARGS)

bench-prune: $(B)/bench_prune $(B)/tests/mkllama2c ## what cuts cost and training heals; ARGS='[MODEL TEXT] [THREADS [STEPS]]'
	@B="$(B)" sh tools/bench_prune.sh $(ARGS)

bench-step: $(B)/bench_step ## how late budgeted steps come back; ARGS='[MODEL [MS [ROUNDS [THREADS]]]]'
	@$(RUN) $(B)/bench_step $(ARGS)

bench-train: $(B)/bench_train ## speed of training next to plain loops; ARGS='THREADS ROUNDS'
	@$(B)/bench_train $(ARGS)

bench-paper: $(B)/flash $(B)/bench_paper ## the paper's space at its sizes: measured, searched, verified; 12 minutes, alone
	@mkdir -p $(B)/paper
	@$(B)/flash measure --space paper --n 50 -p 2048 -t 2 --rounds 2 -r 1 --resume -o $(B)/paper/device.profile
	@$(B)/flash fit $(B)/paper/device.profile --least -o $(B)/paper/device.latency
	@$(B)/bench_paper $(B)/paper/device.latency $(ARGS)

design-demo: $(B)/flash ## models designed for this machine; ARGS=quick: 2 minutes. In $(B)/design, or -quick
	@B="$(B)" RUN="$(RUN)" sh tools/design_demo.sh $(B)/design$(addprefix -,$(filter quick,$(ARGS))) $(ARGS)

firmware: $(B)/flash ## a model on a bare Cortex-M4 in qemu: the same text, the flash and RAM it takes
	@B="$(B)" RUN="$(RUN)" sh examples/firmware/run.sh

web: $(B)/flash ## a page that tells stories, in $(B)/web; tried in a headless Chromium
	@mkdir -p $(B)/web
	@cp examples/web/index.html examples/web/worker.js examples/models/tale.gguf $(B)/web
	$(WASM) examples/web/web.c -o $(B)/web/flash.wasm
	@node examples/web/test.mjs $(B) $(RUN)

game: $(B)/game ## two characters talk in 2 ms of each frame, 10 seconds: how long frames are held up
	@$(RUN) $(B)/game examples/models/tale.gguf $(ARGS)

chat-static: ## examples/chat.c as one static binary of at most 400 kB (musl)
	@B="$(B)" sh examples/static.sh

size: ## bytes of code by part, macros and target; of the runtime by section
	@B="$(B)" sh tools/size.sh

mutate: ## changes of flash.h that no test notices; N=100 SECTION=name SEED=1 RETRY=1
	@N=$(N) SECTION=$(SECTION) SEED=$(SEED) RETRY=$(RETRY) sh tools/mutate.sh

format: ## every C file in the one style of .clang-format
	@sh tools/format.sh -i

coverage: ## tests with gcc's line counts of flash.h
	-@$(MAKE) test config=coverage
	@sh tools/coverage.sh

clean: ## remove build/
	rm -rf build

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]*:.*## / { printf "%-12s %s\n", $$1, $$2 }' Makefile

$(EXAMPLES): $(B)/%: examples/%.c flash.h $(B)/flags
	$(COMPILE) $< -o $@ $(LDLIBS)

$(B)/flash.o: tests/compile/impl.c flash.h $(B)/flags
	$(COMPILE) $(LIBFLAGS) -c $< -o $@

$(B)/flash: $(CLI) $(wildcard tools/*.h) $(B)/flash.o
	$(COMPILE) $(CLI) $(B)/flash.o -o $@ $(LDLIBS)

# Plain loops at their best: -O3, and threads where a program with OpenMP links. The result goes to
# a file: as root, tcc would remove a device.
OPENMP = $(shell mkdir -p $(B); \
    echo 'int omp_get_max_threads(void); int main(void) { return omp_get_max_threads() < 1; }' | \
    $(CC) -fopenmp $(CFLAGS) -xc - -o $(B)/openmp 2>/dev/null && echo -fopenmp)
$(B)/naive_train.o: tools/naive_train.c tools/naive_train.h $(B)/flags
	$(COMPILE) -O3 $(OPENMP) -c $< -o $@

$(B)/bench_train: tools/bench_train.c $(B)/naive_train.o tools/naive_train.h flash.h $(B)/flags
	$(COMPILE) $< $(B)/naive_train.o -o $@ $(OPENMP) $(LDLIBS)

$(filter-out $(B)/flash $(B)/bench_train,$(TOOLS)): $(B)/%: tools/%.c $(B)/flash.o
	$(COMPILE) $< $(lib) -o $@ $(LDLIBS)

$(TESTS) $(MAKERS): $(B)/tests/%: tests/%.c $(wildcard tests/*.h) tests/fuzz/seeds.h $(B)/flash.o
	$(COMPILE) $< $(lib) -o $@ $(LDLIBS)

$(B)/bench_prune $(B)/tests/test_prune: tools/skips.h

# For test_embed; empty where the compiler makes none, or programs are static.
$(B)/tests/test_embed.log: $(B)/tests/plugin.so
$(B)/tests/plugin.so: tests/plugin.c tests/plugin.h flash.h $(B)/flags
	@$(if $(findstring -static,$(CFLAGS)),false,$(COMPILE) -shared -fPIC $< -o $@ $(LDLIBS)) || : >$@

$(REPLAYS): $(B)/tests/%: tests/fuzz/%.c $(wildcard tests/fuzz/*.h) tests/mkmodel.h $(B)/flash.o
	$(COMPILE) -DFUZZ_MAIN $< $(lib) -o $@ $(LDLIBS)

# A test's log ends with its exit code and its seconds, for tests/sum.awk; a failing test does not
# stop the others.
LOG = >$@ 2>&1; echo "exit $$?, $$(($$(date +%s) - from)) s" >>$@; sed '$$d' $@
$(patsubst %,%.log,$(TESTS)): $(B)/tests/%.log: $(B)/tests/% FORCE
	@from=$$(date +%s); $(RUN) $< $(LOG)
$(patsubst %,%.log,$(REPLAYS)): $(B)/tests/fuzz_%.log: $(B)/tests/fuzz_% FORCE
	@from=$$(date +%s); $(RUN) $< tests/fuzz/corpus/$*/* $(LOG)
$(patsubst %,%.log,$(SCRIPTS)): $(B)/tests/%.log: tests/%.sh $(B)/flash $(EXAMPLES) $(MAKERS) FORCE
	@from=$$(date +%s); B="$(B)" RUN="$(RUN)" CC="$(CC)" CFLAGS="$(CFLAGS)" sh $< $(LOG)

FUZZ_COMPILE = clang -std=c99 $(FUZZ_CFLAGS) -fsanitize=address,undefined -fno-sanitize-recover=all
build/fuzz/flash.o: tests/compile/impl.c flash.h
	@mkdir -p build/fuzz
	$(FUZZ_COMPILE) -fsanitize=fuzzer-no-link -c $< -o $@
fuzz-%: tests/fuzz/fuzz_%.c build/fuzz/flash.o
	@mkdir -p build/fuzz/$*
	$(FUZZ_COMPILE) -fsanitize=fuzzer $< $(if $(filter fuzz_$*.c,$(OWN)),,build/fuzz/flash.o) \
	    -o build/fuzz/fuzz_$* -lm
	build/fuzz/fuzz_$* -max_total_time=$(FUZZ_SECONDS) -timeout=10 $(FUZZ_ARGS) \
	    -artifact_prefix=build/fuzz/$*- $(patsubst %,-dict=%,$(wildcard tests/fuzz/$*.dict)) \
	    build/fuzz/$* $(wildcard tests/fuzz/corpus/$*)

# Changes when the command does: another compiler or other flags build everything anew.
$(B)/flags: FORCE
	@mkdir -p $(B)/tests
	@echo '$(COMPILE) $(LIBFLAGS)' | cmp -s - $@ || echo '$(COMPILE) $(LIBFLAGS)' >$@

FORCE:
.PHONY: all test programs run lint matrix matrix-full firmware web game chat-static size fuzz peer bench-peer bench-search bench-step \
    bench-train bench-prune bench-paper design-demo mutate format coverage clean help FORCE
