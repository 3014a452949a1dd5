# flashmoe: make, make demo, make test. `make help` lists the rest.
MODE    ?= release
BUILD   ?= $(if $(filter release,$(MODE)),build,build/$(MODE))

CSTD        := -std=c11 -D_POSIX_C_SOURCE=200809L -D_DEFAULT_SOURCE -ffp-contract=off
WARN        := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla
OPT_release := -O3 -g
OPT_debug   := -O1 -g3 -fno-omit-frame-pointer -DFM_DEBUG
OPT_asan    := $(OPT_debug) -fsanitize=address,undefined -fno-sanitize-recover=all
OPT_tsan    := $(OPT_debug) -fsanitize=thread
$(if $(OPT_$(MODE)),,$(error MODE=$(MODE): expected release, debug, asan or tsan))

PKGS     := liburing libpcre2-8 libutf8proc jansson libedit
PKG_CFLAGS := $(shell pkg-config --cflags $(PKGS) 2>/dev/null)
PKG_LIBS   := $(shell pkg-config --libs $(PKGS) 2>/dev/null)
ALLFLAGS = $(CSTD) $(WARN) $(OPT_$(MODE)) -Iinclude -Isrc -Itests -pthread -MMD -MP $(PKG_CFLAGS) $(CFLAGS)
LIBS     = $(PKG_LIBS) -pthread -lm

SRC      := $(sort $(wildcard src/*/*.c src/*/*/*.c))
LIB_SRC  := $(filter-out src/cli/%,$(SRC))
CLI_SRC  := $(filter src/cli/%,$(SRC))
UNIT_SRC := $(sort $(wildcard tests/unit/test_*.c tests/model/test_*.c))
HELP_SRC := $(sort $(wildcard tests/support/*.c)) tests/tiny/tiny_model.c

LIB_OBJ  := $(LIB_SRC:%.c=$(BUILD)/%.o)
CLI_OBJ  := $(CLI_SRC:%.c=$(BUILD)/%.o)
# Test programs link a library of their own, built with fault injection.
TLIB_OBJ := $(LIB_SRC:%.c=$(BUILD)/t/%.o)
HELP_OBJ := $(wildcard $(HELP_SRC))
HELP_OBJ := $(HELP_OBJ:%.c=$(BUILD)/t/%.o)
UNIT_BIN := $(UNIT_SRC:%.c=$(BUILD)/t/%)

all: $(BUILD)/flashmoe

# One instruction set = one suffix = one flag set. Nothing else in the tree gets these.
$(BUILD)/%_avx2.o $(BUILD)/t/%_avx2.o: ISA := -mavx2 -mfma -mf16c
$(BUILD)/%_avx512.o $(BUILD)/t/%_avx512.o: ISA := -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni -mfma -mf16c

$(BUILD)/t/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(ALLFLAGS) -DFM_FAULTS $(ISA) -c $< -o $@
$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(ALLFLAGS) $(ISA) -c $< -o $@

$(BUILD)/libflashmoe.a: $(LIB_OBJ)
	rm -f $@ && ar rcs $@ $^
$(BUILD)/t/libflashmoe.a: $(TLIB_OBJ)
	rm -f $@ && ar rcs $@ $^
$(BUILD)/flashmoe: $(CLI_OBJ) $(BUILD)/libflashmoe.a
	$(CC) $(OPT_$(MODE)) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LIBS)
$(UNIT_BIN): %: %.o $(HELP_OBJ) $(BUILD)/t/libflashmoe.a
	$(CC) $(OPT_$(MODE)) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LIBS) -lcmocka

unit: $(UNIT_BIN)

clean:
	rm -rf build

.PHONY: all unit clean
.SECONDARY:
-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
