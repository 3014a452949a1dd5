# flashmoe: make, make demo, make test. `make help` lists the rest.
MODE    ?= release
BUILD   ?= $(if $(filter release,$(MODE)),build,build/$(MODE))
PREFIX  ?= /usr/local
JOBS    ?= $(shell nproc 2>/dev/null || echo 2)

CSTD        := -std=c11 -D_POSIX_C_SOURCE=200809L -D_DEFAULT_SOURCE -ffp-contract=off
WARN        := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla
OPT_release := -O3 -g
OPT_debug   := -O1 -g3 -fno-omit-frame-pointer -DFM_DEBUG
OPT_asan    := $(OPT_debug) -fsanitize=address,undefined -fno-sanitize-recover=all
OPT_tsan    := $(OPT_debug) -fsanitize=thread
OPT_fuzz    := $(OPT_asan) -fsanitize=fuzzer-no-link
$(if $(OPT_$(MODE)),,$(error MODE=$(MODE): expected release, debug, asan, tsan or fuzz))

PKGS       := liburing libpcre2-8 libutf8proc jansson
PKG_CFLAGS := $(shell pkg-config --cflags $(PKGS) 2>/dev/null)
PKG_LIBS   := $(shell pkg-config --libs $(PKGS) 2>/dev/null)
ALLFLAGS    = $(CSTD) $(WARN) $(if $(filter 1,$(WERROR)),-Werror) $(OPT_$(MODE)) -Iinclude -Isrc -Itests -Itools -pthread -MMD -MP \
              $(PKG_CFLAGS) $(CFLAGS)
# V=1 shows every command in full.
SAY         = @$(if $(V),:,echo "  $(1)  $@"); $(if $(V),set -x;)
LINK        = $(CC) $(OPT_$(MODE)) $(CFLAGS) $(LDFLAGS)
LIBS        = $(PKG_LIBS) -pthread -lm

# demo and test install what is missing first, so only the other goals need the libraries now.
ifneq ($(filter-out test demo setup check-layers format clean help,$(or $(MAKECMDGOALS),all)),)
ifeq ($(PKG_LIBS),)
$(error pkg-config does not find all of $(PKGS); scripts/setup.sh installs or names what is missing)
endif
endif

# Sources by pattern. Instruction sets of another processor are left out, nothing else.
MACHINE  := $(shell $(CC) -dumpmachine 2>/dev/null | cut -d- -f1)
X86      := $(filter x86_64 i686 amd64,$(MACHINE))
ARM      := $(filter aarch64 arm64,$(MACHINE))
SRC      := $(sort $(wildcard src/*/*.c src/*/*/*.c))
SRC      := $(filter-out $(if $(X86),,src/kernel/x86/% src/quant/x86/%) $(if $(ARM),,src/kernel/arm/%),$(SRC))
LIB_SRC  := $(filter-out src/cli/%,$(SRC))
CLI_SRC  := $(filter src/cli/%,$(SRC))
TEST_SRC := $(sort $(wildcard tests/unit/test_*.c tests/model/test_*.c))
FUZZ_SRC := $(sort $(wildcard tests/fuzz/fuzz_*.c))
HELP_SRC := $(sort $(wildcard tests/support/*.c) \
              $(filter-out %/tiny_main.c,$(wildcard tests/tiny/*.c)))

# Compiled again, with AVX-VNNI: matmul_avx2.h. Compilers before GCC 11 and clang 12, and assemblers of their time, do not know it; the
# set is left out then.
VNNI     := $(if $(X86),$(shell echo 'void f(void) { __asm__("{vex} vpdpwssd %ymm0, %ymm0, %ymm0"); }' | \
              $(CC) -mavxvnni -c -x c -o /dev/null - >/dev/null 2>&1 && echo -mavxvnni))
VNNI_SRC := $(if $(VNNI),$(foreach f,set q32 q256 planar book,src/kernel/x86/matmul_$(f)_avx2.c))
VNNI_OBJ := $(VNNI_SRC:%_avx2.c=$(BUILD)/%_avxvnni.o)

LIB_OBJ  := $(LIB_SRC:%.c=$(BUILD)/%.o) $(VNNI_OBJ)
CLI_OBJ  := $(CLI_SRC:%.c=$(BUILD)/%.o)
# Test programs link a library of their own, built with fault injection; folders that no fault reaches
# (a file there may not include os/fault.h) are compiled once for both.
FAULTY   := src/os/% src/store/% src/engine/%
TLIB_OBJ := $(patsubst %.c,$(BUILD)/t/%.o,$(filter $(FAULTY),$(LIB_SRC))) \
            $(patsubst %.c,$(BUILD)/%.o,$(filter-out $(FAULTY),$(LIB_SRC))) $(VNNI_OBJ)
TCLI_OBJ := $(CLI_SRC:%.c=$(BUILD)/%.o)
HELP_OBJ := $(HELP_SRC:%.c=$(BUILD)/t/%.o)
TEST_BIN := $(TEST_SRC:%.c=$(BUILD)/t/%)
FUZZ_BIN := $(FUZZ_SRC:%.c=$(BUILD)/t/%)
UNIT_BIN := $(filter $(BUILD)/t/tests/unit/%,$(TEST_BIN))
TINY_BIN := $(BUILD)/t/tests/tiny/tiny-gguf
# Programs of the kernels that need no library: tests/cli/test_arm64.sh builds them for another processor, too.
ALONE_OBJ := $(patsubst %.c,$(BUILD)/%.o,$(filter src/kernel/% src/base/error.c src/os/facts.c src/model/top_positions.c \
               $(filter-out src/quant/encode%,$(wildcard src/quant/*.c)),$(LIB_SRC))) \
             $(VNNI_OBJ) $(BUILD)/t/tests/support/random_weights.o
ALONE_BIN := $(addprefix $(BUILD)/alone/,arm/kernel_hashes unit/test_ops unit/test_attend unit/test_attend_rows unit/test_index unit/test_delta)
TOOL_BIN := $(patsubst %.c,$(BUILD)/%,$(sort $(wildcard tools/*.c bench/*.c)))
REPLAY_OBJ := $(patsubst %.c,$(BUILD)/%.o,$(wildcard tools/replay/*.c))
SHAPE_OBJ := $(patsubst %.c,$(BUILD)/%.o,$(wildcard tools/shape/*.c))
FMT_DIRS := include src tests bench tools

all: $(BUILD)/flashmoe

# Kernels parse nothing, and clang takes ten minutes for some of them with sanitizers.
$(BUILD)/src/kernel/x86/%.o $(BUILD)/src/quant/x86/%.o $(BUILD)/src/kernel/arm/%.o: OPT_fuzz := -O1 -g

# One instruction set = one suffix = one flag set. Nothing else in the tree gets these, and no other processor.
AVX512 := -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni -mfma -mf16c
$(BUILD)/%_avx2.o $(BUILD)/t/%_avx2.o: ISA := $(if $(X86),-mavx2 -mfma -mf16c)
$(VNNI_OBJ): ISA := -mavx2 -mfma -mf16c $(VNNI) -DFM_SET_AVXVNNI
$(BUILD)/src/kernel/kernel.o: ISA := $(if $(VNNI),-DFM_AVXVNNI)
$(BUILD)/%_avx512.o $(BUILD)/t/%_avx512.o: ISA := $(if $(X86),$(AVX512))
$(BUILD)/%_vbmi.o $(BUILD)/t/%_vbmi.o: ISA := $(if $(X86),$(AVX512) -mavx512vbmi)
# Compilers before GCC 11 and clang 12 do not know AMX; the set is left out then.
AMX := $(if $(X86),$(shell $(CC) -mamx-tile -mamx-int8 -E -x c /dev/null >/dev/null 2>&1 && echo -mamx-tile -mamx-int8))
$(BUILD)/%_amx.o $(BUILD)/t/%_amx.o: ISA := $(if $(X86),$(AVX512) $(AMX))
$(BUILD)/%_neon.o $(BUILD)/t/%_neon.o: ISA := $(if $(ARM),-march=armv8.2-a+dotprod)
# The same with matrix products of bytes before GCC 10 and clang 11.
I8MM := $(if $(ARM),$(shell $(CC) -march=armv8.2-a+dotprod+i8mm -E -x c /dev/null >/dev/null 2>&1 && echo +i8mm))
$(BUILD)/%_i8mm.o $(BUILD)/t/%_i8mm.o: ISA := $(if $(ARM),-march=armv8.2-a+dotprod$(I8MM))
# Vectors of 32 bytes without AVX: all of them are inlined, so how they would be passed is no matter.
$(BUILD)/src/quant/encode_generic.o $(BUILD)/t/src/quant/encode_generic.o: ISA := -Wno-psabi

# What only one part of the program uses: `t` in the path means fault injection is compiled in.
$(BUILD)/t/%.o: %.c
	@mkdir -p $(@D)
	$(call SAY,CC) $(CC) $(ALLFLAGS) -DFM_FAULTS $(ISA) -c $< -o $@
$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	$(call SAY,CC) $(CC) $(ALLFLAGS) $(ISA) -c $< -o $@
$(VNNI_OBJ): $(BUILD)/%_avxvnni.o: %_avx2.c
	@mkdir -p $(@D)
	$(call SAY,CC) $(CC) $(ALLFLAGS) $(ISA) -c $< -o $@

$(BUILD)/libflashmoe.a: $(LIB_OBJ)
$(BUILD)/t/libflashmoe.a: $(TLIB_OBJ)
%/libflashmoe.a:
	$(call SAY,AR) rm -f $@ && ar rcs $@ $^
$(BUILD)/flashmoe: $(CLI_OBJ) $(BUILD)/libflashmoe.a
	$(call SAY,LD) $(LINK) -o $@ $^ $(LIBS)
$(BUILD)/t/flashmoe: $(TCLI_OBJ) $(BUILD)/t/libflashmoe.a
	$(call SAY,LD) $(LINK) -o $@ $^ $(LIBS)
# test_cli*.c look at the option tables, which live in src/cli.
$(BUILD)/t/tests/unit/test_cl%: EXTRA = $(filter-out %/main.o,$(TCLI_OBJ))
$(filter $(BUILD)/t/tests/unit/test_cli%,$(TEST_BIN)): $(TCLI_OBJ)
$(TEST_BIN): %: %.o $(HELP_OBJ) $(BUILD)/t/libflashmoe.a
	$(call SAY,LD) $(LINK) -o $@ $< $(EXTRA) $(HELP_OBJ) $(BUILD)/t/libflashmoe.a $(LIBS) -lcmocka
$(ALONE_BIN): $(BUILD)/alone/%: $(BUILD)/t/tests/%.o $(ALONE_OBJ)
	@mkdir -p $(@D)
	$(call SAY,LD) $(LINK) -o $@ $^ -pthread -lm
$(TINY_BIN): $(BUILD)/t/tests/tiny/tiny_main.o $(filter $(BUILD)/t/tests/tiny/%,$(HELP_OBJ))
	$(call SAY,LD) $(LINK) -o $@ $^ -lm
$(TOOL_BIN): %: %.o $(BUILD)/libflashmoe.a
	$(call SAY,LD) $(LINK) -o $@ $(filter %.o,$^) $(BUILD)/libflashmoe.a $(LIBS)
$(BUILD)/tools/cache_replay: $(REPLAY_OBJ)
$(BUILD)/tools/shape_gguf: $(SHAPE_OBJ)
# Without a fuzzer a target is linked with a main() that replays files.
FUZZ_MAIN := $(if $(filter fuzz,$(MODE)),,$(BUILD)/t/tests/fuzz/replay.o)
$(FUZZ_BIN): %: %.o $(FUZZ_MAIN) $(BUILD)/t/libflashmoe.a
	$(call SAY,LD) $(LINK) $(if $(FUZZ_MAIN),,-fsanitize=fuzzer) -o $@ $^ $(LIBS)

unit: $(UNIT_BIN)
tools: $(TOOL_BIN)
test-programs: $(BUILD)/flashmoe $(BUILD)/t/flashmoe $(TEST_BIN) $(FUZZ_BIN) $(TINY_BIN) $(TOOL_BIN) \
               $(BUILD)/alone/arm/kernel_hashes
# With what stands in for a part of this processor, which another one must be able to leave out.
alone: $(ALONE_BIN) $(filter %/emulated_amx.o,$(HELP_OBJ))

# ---- tests: everything in this mode; in release also what the sanitizers are best at -----------
# Fast programs under address+undefined, and the parts with threads of their own under thread.
ASAN_SET := $(patsubst %.c,%,$(filter tests/unit/% tests/model/test_steady%,$(TEST_SRC)) $(FUZZ_SRC))
TSAN_SET := $(patsubst %.c,%,$(filter tests/unit/test_pool% tests/unit/test_populate% tests/unit/test_store% \
              tests/unit/test_io% tests/model/test_steady%,$(TEST_SRC)))

test: setup
	+$(MAKE) --no-print-directory -j$(JOBS) test-programs
	+$(if $(filter release,$(MODE)),$(MAKE) --no-print-directory -j$(JOBS) sanitizer-programs)
	@tests/run.sh $(BUILD) check-layers $(TEST_SRC:%.c=%) $(FUZZ_SRC:%.c=%) \
	  $(sort $(wildcard tests/cli/test_*.sh)) \
	  $(if $(filter release,$(MODE)),$(ASAN_SET:%=asan:%) $(TSAN_SET:%=tsan:%))

sanitizer-programs:
	+$(if $(ASAN_SET),$(MAKE) --no-print-directory MODE=asan BUILD=$(BUILD)/asan $(ASAN_SET:%=$(BUILD)/asan/t/%))
	+$(if $(TSAN_SET),$(MAKE) --no-print-directory MODE=tsan BUILD=$(BUILD)/tsan $(TSAN_SET:%=$(BUILD)/tsan/t/%))

# ---- the model that ships, in less memory than it is large --------------------------------------
DEMO_MODEL  ?= $(firstword $(wildcard model/*.gguf))
DEMO_MEMORY ?= 24M
demo:
	@scripts/setup.sh --build
	+$(MAKE) --no-print-directory -j$(JOBS) all
	@scripts/demo.sh $(BUILD)/flashmoe "$(DEMO_MODEL)" $(DEMO_MEMORY)

# ---- the rest ------------------------------------------------------------------------------------
setup:
	@scripts/setup.sh

FUZZ_SECONDS ?= 60
fuzz:
	+$(MAKE) --no-print-directory -j$(JOBS) MODE=fuzz CC=clang fuzz-programs
	@scripts/fuzz.sh build/fuzz $(FUZZ_SECONDS) $(FUZZ_SRC:%.c=%)
fuzz-programs: $(FUZZ_BIN)

bench: all
	@scripts/bench.sh $(BUILD)/flashmoe "$(DEMO_MODEL)"

check-layers:
	@python3 tools/check_layers.py --self-test
	@python3 tools/check_layers.py .

format:
	find $(FMT_DIRS) -name '*.[ch]' | xargs clang-format -i

install: all
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/lib $(DESTDIR)$(PREFIX)/include
	install -m 755 $(BUILD)/flashmoe $(DESTDIR)$(PREFIX)/bin/
	install -m 644 $(BUILD)/libflashmoe.a $(DESTDIR)$(PREFIX)/lib/
	install -m 644 include/flashmoe.h $(DESTDIR)$(PREFIX)/include/

clean:
	rm -rf build

help:
	@echo 'make              build/flashmoe'
	@echo 'make demo         install what is missing, build, run the model in model/'
	@echo 'make test         install what is missing, build, run all tests'
	@echo 'make unit         the test programs of tests/unit, built'
	@echo 'make tools        the programs of tools/ and bench/ in build/tools/ and build/bench/'
	@echo 'make fuzz         fuzz every parser for FUZZ_SECONDS (60) each; needs clang'
	@echo 'make bench        time the model in model/ with several budgets'
	@echo 'make check-layers which folder may include which'
	@echo 'make format       clang-format over the tree'
	@echo 'make install      into PREFIX ($(PREFIX)); DESTDIR is respected'
	@echo 'make clean        remove build/'
	@echo 'MODE=release|debug|asan|tsan (others than release build into build/MODE); V=1 shows commands, WERROR=1 makes warnings errors'

.PHONY: all unit tools test alone test-programs sanitizer-programs demo setup fuzz fuzz-programs bench \
        check-layers format install clean help
.SECONDARY:
-include $(wildcard $(patsubst %.o,%.d,$(LIB_OBJ) $(CLI_OBJ) $(TLIB_OBJ) $(TCLI_OBJ) $(HELP_OBJ)) \
           $(TEST_BIN:=.d) $(FUZZ_BIN:=.d) $(BUILD)/t/tests/fuzz/replay.d \
           $(BUILD)/t/tests/tiny/tiny_main.d $(BUILD)/t/tests/arm/kernel_hashes.d \
           $(TOOL_BIN:=.d) $(REPLAY_OBJ:.o=.d) $(SHAPE_OBJ:.o=.d))
