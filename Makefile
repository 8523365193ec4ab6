# SPDX-License-Identifier: LGPL-2.1-or-later
#
#   make            build/lunferry
#   make demo       a real NFS server and a real iSCSI target on loopback, and a copy there and back
#   make check      unit tests; as root end-to-end tests too
#   make help       all targets

.DEFAULT_GOAL := all
SHELL := bash
BUILD ?= build
PREFIX ?= /usr/local
DESTDIR ?=
VERSION := 0.1.0

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
LIBS := libiscsi libnfs blkid
CPPFLAGS += -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -Iinclude -DLUNFERRY_VERSION='"$(VERSION)"'
ALL_CFLAGS = -std=gnu11 $(OPT) $(WARN) $(HARDEN) -pthread $(shell pkg-config --cflags $(LIBS)) $(CFLAGS)
ALL_LDFLAGS = -pie -Wl,-z,relro,-z,now -pthread $(if $(SANITIZE),-fsanitize=$(SANITIZE)) $(LDFLAGS)
ALL_LIBS = $(shell pkg-config --libs $(LIBS))

LIB_SOURCES := $(wildcard src/util/*.c src/block/*.c src/format/*.c src/copy/*.c src/bench/*.c \
                          drivers/*.c drivers/*/*.c)
CLI_SOURCES := $(wildcard src/cli/*.c)
UNIT_SOURCES := $(wildcard tests/unit/test_*.c)
UNIT_HELPERS := $(filter-out $(UNIT_SOURCES),$(wildcard tests/unit/*.c))
LIB_OBJECTS := $(LIB_SOURCES:%.c=$(BUILD)/obj/%.o)
CLI_OBJECTS := $(CLI_SOURCES:%.c=$(BUILD)/obj/%.o)
UNIT_HELPER_OBJECTS := $(UNIT_HELPERS:%.c=$(BUILD)/obj/%.o)
UNIT_TESTS := $(UNIT_SOURCES:tests/unit/%.c=$(BUILD)/tests/%)

.PHONY: all
all: $(BUILD)/lunferry

$(BUILD)/obj/%.o: %.c | tools
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(ALL_CFLAGS) -MMD -MP -c -o $@ $<

# An archive, so that a unit test links only what it uses.
$(BUILD)/liblunferry.a: $(LIB_OBJECTS)
	@rm -f $@
	ar rcs $@ $^

$(BUILD)/lunferry: $(CLI_OBJECTS) $(BUILD)/liblunferry.a
	$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $^ $(ALL_LIBS)

$(BUILD)/tests/test_%: $(BUILD)/obj/tests/unit/test_%.o $(UNIT_HELPER_OBJECTS) $(BUILD)/liblunferry.a
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $^ $(ALL_LIBS) -lcmocka

$(BUILD)/tests/relay: tests/servers/relay.c | tools
	@mkdir -p $(@D)
	$(CC) -D_GNU_SOURCE $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $<

-include $(shell find $(BUILD)/obj -name '*.d' 2>/dev/null)

# What a build needs; fetched only where it is missing.
.PHONY: tools test-tools
tools:
	@scripts/setup build
test-tools:
	@scripts/setup test
