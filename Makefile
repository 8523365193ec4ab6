# SPDX-License-Identifier: LGPL-2.1-or-later
#
#   make            build/lunferry
#   make demo       a real NFS server and a real iSCSI target on loopback, and a copy there and back
#   make check      unit tests, tests with scripted servers; as root end-to-end tests too
#   make help       all targets

.DEFAULT_GOAL := all
SHELL := bash
BUILD ?= build
PREFIX ?= /usr/local
DESTDIR ?=
VERSION := 0.1.0

# V=1 shows the commands.
V ?= 0
Q := $(if $(filter 1,$(V)),,@)
say = $(if $(filter 1,$(V)),,@printf '  %-5s %s\n' $(1) $@)

CC ?= cc
OPT ?= -O2 -g
WARN := -Wall -Wextra -Wshadow -Wvla -Wmissing-prototypes -Wstrict-prototypes -Wpointer-arith \
        -Wwrite-strings -Wformat=2 -Wundef
HARDEN := -fPIE -fstack-protector-strong -D_FORTIFY_SOURCE=2
SANITIZE ?=
ifneq ($(SANITIZE),)
HARDEN := -fPIE -fno-omit-frame-pointer -fsanitize=$(SANITIZE)
endif
ifneq ($(WERROR),)
WARN += -Werror
endif
LIBS := libiscsi libnfs blkid libcrypto jansson libisal libzstd zlib
CPPFLAGS += -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -Iinclude -DLUNFERRY_VERSION='"$(VERSION)"' \
            -DLIBNFS_BUILD_VERSION='"$(shell pkg-config --modversion libnfs)"'
ALL_CFLAGS = -std=gnu11 $(OPT) $(WARN) $(HARDEN) -pthread $(shell pkg-config --cflags $(LIBS)) $(CFLAGS)
ALL_LDFLAGS = -pie -Wl,-z,relro,-z,now -pthread $(if $(SANITIZE),-fsanitize=$(SANITIZE)) $(LDFLAGS)
ALL_LIBS = $(shell pkg-config --libs $(LIBS))

LIB_SOURCES := $(wildcard src/util/*.c src/block/*.c src/format/*.c src/copy/*.c src/bench/*.c \
                          drivers/*.c drivers/*/*.c)
CLI_SOURCES := $(wildcard src/cli/*.c)
UNIT_SOURCES := $(wildcard tests/unit/test_*.c)
# The other target for fuzzing has a registry of drivers of its own, and its test that alone.
READER_SOURCES := $(filter-out tests/fuzz/fuzz_qcow2.c,$(wildcard tests/fuzz/*.c))
READER_OBJECTS := $(READER_SOURCES:%.c=$(BUILD)/obj/%.o)
UNIT_HELPERS := $(filter-out $(UNIT_SOURCES),$(wildcard tests/unit/*.c)) tests/fuzz/fuzz_qcow2.c
LIB_OBJECTS := $(LIB_SOURCES:%.c=$(BUILD)/obj/%.o)
CLI_OBJECTS := $(CLI_SOURCES:%.c=$(BUILD)/obj/%.o)
UNIT_HELPER_OBJECTS := $(UNIT_HELPERS:%.c=$(BUILD)/obj/%.o)
UNIT_TESTS := $(UNIT_SOURCES:tests/unit/%.c=$(BUILD)/tests/%)
FORMATTED := $(wildcard include/*/*.h src/*/*.[ch] drivers/*.[ch] drivers/*/*.[ch] \
                        tests/unit/*.[ch] tests/fuzz/*.[ch] tests/servers/*.[ch] tests/bench/*.[ch])
SCRIPTS := $(wildcard scripts/* tests/run tests/lab tests/*.sh tests/e2e/*.sh tests/bench/*.sh \
                     tests/fuzz/seeds .ci/run)

.PHONY: all
all: $(BUILD)/lunferry

$(BUILD)/obj/%.o: %.c | build-tools
	@mkdir -p $(@D)
	$(call say,CC)
	$(Q)$(CC) $(CPPFLAGS) $(ALL_CFLAGS) -MMD -MP -c -o $@ $<

$(BUILD)/obj/tests/%.o: CPPFLAGS += -I.

# An archive, so that a unit test links only what it uses, and may stand in for the rest.
$(BUILD)/liblunferry.a: $(LIB_OBJECTS)
	@rm -f $@
	$(call say,AR)
	$(Q)ar rcs $@ $^

$(BUILD)/lunferry: $(CLI_OBJECTS) $(BUILD)/liblunferry.a
	$(call say,LD)
	$(Q)$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $^ $(ALL_LIBS)

$(BUILD)/tests/test_%: $(BUILD)/obj/tests/unit/test_%.o $(UNIT_HELPER_OBJECTS) $(BUILD)/liblunferry.a
	@mkdir -p $(@D)
	$(call say,LD)
	$(Q)$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $^ $(ALL_LIBS) -lcmocka

$(BUILD)/tests/test_fuzz_reader: $(BUILD)/obj/tests/unit/test_fuzz_reader.o $(READER_OBJECTS) \
                                $(BUILD)/liblunferry.a
	@mkdir -p $(@D)
	$(call say,LD)
	$(Q)$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $^ $(ALL_LIBS) -lcmocka

$(BUILD)/tests/relay: $(BUILD)/obj/tests/servers/relay.o
	@mkdir -p $(@D)
	$(call say,LD)
	$(Q)$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $^

$(BUILD)/tests/bench_%: $(BUILD)/obj/tests/bench/%.o $(BUILD)/liblunferry.a
	@mkdir -p $(@D)
	$(call say,LD)
	$(Q)$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $^ $(ALL_LIBS)

# Objects are kept, however they came to be made.
.SECONDARY:

-include $(shell find $(BUILD)/obj -name '*.d' 2>/dev/null)

# What is missing on this machine is installed (or named, without the right to).
.PHONY: build-tools test-tools lint-tools bench-tools
build-tools test-tools lint-tools bench-tools: %-tools:
	@scripts/setup $*

.PHONY: demo
demo: all | test-tools
	tests/lab scripts/demo

.PHONY: test-programs check check-unit check-scripted check-e2e check-sanitize
test-programs: all $(UNIT_TESTS) $(BUILD)/tests/relay
$(UNIT_TESTS) $(BUILD)/tests/relay: | test-tools

# Unit and scripted tests as anyone; end-to-end tests too as root. What could not run is printed.
check: test-programs check-layers
	BUILD=$(BUILD) tests/run

check-unit: test-programs
	BUILD=$(BUILD) tests/run unit

check-scripted: all
	BUILD=$(BUILD) tests/run scripted

check-e2e: test-programs
	BUILD=$(BUILD) tests/run e2e

# The end-to-end tests in which several threads are at work on one copy: all of them would take the
# thread sanitizer half an hour. Of the scripted ones nearly all have one thread.
THREADED = lanes|cut_each|killed_at_ten|three_sources|increments_with

check-sanitize:
	ORACLE_CASES=0.25 $(MAKE) BUILD=$(BUILD)/asan SANITIZE=address,undefined OPT='-O1 -g' check
	E2E_TESTS='$(THREADED)' $(MAKE) BUILD=$(BUILD)/tsan SANITIZE=thread OPT='-O1 -g' \
	    check-unit check-e2e

# libFuzzer: headers alone, then whole images, each for FUZZ_TIME seconds. What it finds is left in $(BUILD)/fuzz, also
# the inputs that reach new code, from which it goes on the next time.
FUZZ_TIME ?= 60
FUZZ_BUILD = clang $(CPPFLAGS) -I. -std=gnu11 -O1 -g -fsanitize=fuzzer,address,undefined \
             -fno-sanitize-recover=all
FUZZ_RUN = ASAN_OPTIONS=detect_leaks=1:quarantine_size_mb=16 ./$(1) -max_total_time=$(FUZZ_TIME) \
           -malloc_limit_mb=64 -rss_limit_mb=1024 -timeout=60 -print_final_stats=1
HEADER_FUZZED := $(wildcard src/format/qcow2_header*.c) src/format/qcow2_checks.c \
                 src/format/qcow2_snapshot.c src/block/error.c
READER_FUZZED := $(filter-out src/block/registry.c,$(wildcard src/format/*.c src/block/*.c src/util/*.c))

$(BUILD)/fuzz/header: tests/fuzz/fuzz_qcow2.c $(HEADER_FUZZED) | lint-tools
	@mkdir -p $(@D)
	$(call say,FUZZ)
	$(Q)$(FUZZ_BUILD) -o $@ $^

$(BUILD)/fuzz/reader: $(READER_SOURCES) $(READER_FUZZED) | lint-tools
	@mkdir -p $(@D)
	$(call say,FUZZ)
	$(Q)$(FUZZ_BUILD) -o $@ $^ -pthread $(ALL_LIBS)

.PHONY: fuzz
fuzz: $(BUILD)/fuzz/header $(BUILD)/fuzz/reader $(BUILD)/tests/test_fuzz_qcow2
	@mkdir -p $(<D)/corpus $(<D)/corpus-reader
	FUZZ_CORPUS=$(<D)/corpus $(BUILD)/tests/test_fuzz_qcow2
	cd $(<D) && $(call FUZZ_RUN,header) -max_len=65536 corpus
	cd $(<D) && $(call FUZZ_RUN,reader) -max_len=393216 corpus-reader $(CURDIR)/tests/fuzz/corpus

.PHONY: bench
bench: all $(BUILD)/tests/relay $(BUILD)/tests/bench_zeros | bench-tools test-tools
	BUILD=$(BUILD) tests/bench/run $(BENCH)

.PHONY: lint check-layers format
lint: check-layers | lint-tools
	clang-format --dry-run --Werror $(FORMATTED)
	shellcheck -x $(SCRIPTS)
	cppcheck --quiet --error-exitcode=1 --std=c11 --enable=warning,performance,portability \
	    --inline-suppr --suppress=missingIncludeSystem -D_GNU_SOURCE -Iinclude -I. \
	    src drivers tests/servers
	clang-tidy --quiet --warnings-as-errors='*' $(LIB_SOURCES) $(CLI_SOURCES) -- -std=gnu11 \
	    $(CPPFLAGS)
	$(MAKE) CC=gcc WERROR=1 BUILD=$(BUILD)/gcc test-programs
	$(MAKE) CC=clang WERROR=1 BUILD=$(BUILD)/clang test-programs

check-layers:
	scripts/check-layers

format: | lint-tools
	clang-format -i $(FORMATTED)

.PHONY: install dist clean help
install: all
	install -D -m 755 $(BUILD)/lunferry $(DESTDIR)$(PREFIX)/bin/lunferry

dist:
	@mkdir -p $(BUILD)
	git archive --prefix=lunferry-$(VERSION)/ -o $(BUILD)/lunferry-$(VERSION).tar.gz HEAD

clean:
	rm -rf $(BUILD)

help:
	@echo "make                 build/lunferry"
	@echo "make demo            a copy there and back between a real NFS server and a real iSCSI target"
	@echo "make check           all tests that the user's rights allow (check-unit, check-scripted, check-e2e: a part)"
	@echo "make check-sanitize  the same under the address, undefined and thread sanitizers"
	@echo "make fuzz            hostile images, by libFuzzer, for twice FUZZ_TIME=$(FUZZ_TIME) seconds"
	@echo "make bench           lunferry and qemu-img side by side; BENCH=--help tells more"
	@echo "make lint            layers, format, static analysis, gcc and clang without a warning"
	@echo "make format          clang-format in place"
	@echo "make install         PREFIX=$(PREFIX), DESTDIR="
	@echo "make dist            a source archive of HEAD"
	@echo "make clean           remove build/"
