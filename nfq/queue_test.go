// SPDX-License-Identifier: GPL-2.0-only

package nfq

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"testing"

	"github.com/mdlayher/netlink"
)

func TestConfigDefaults(t *testing.T) {
	cfg := Config{Handler: func(*Packet) Verdict { return Drop }}
	if err := cfg.complete(); err != nil {
		t.Fatal(err)
	}
	if cfg.MaxLen != 1024 || cfg.CopyRange != 512 || cfg.Batch != 32 || cfg.ReceiveBuffer != 1<<20 || cfg.Logger == nil {
		t.Errorf("got %+v", cfg)
	}
}

func TestConfigErrors(t *testing.T) {
	handler := func(*Packet) Verdict { return Drop }
	for name, cfg := range map[string]Config{
		"no handler":       {},
		"copy range":       {Handler: handler, CopyRange: 1 << 16},
		"negative batch":   {Handler: handler, Batch: -1},
		"impossible batch": {Handler: handler, Batch: 1025},
	} {
		if q, err := Open(cfg); err == nil {
			q.Close()
			t.Errorf("%s: opened", name)
		}
	}
}

func TestBindErrors(t *testing.T) {
	for errno, want := range map[syscall.Errno]error{
		syscall.EBUSY:      ErrQueueOwned,
		syscall.EINVAL:     ErrUnsupported,
		syscall.EOPNOTSUPP: ErrUnsupported,
	} {
		err := bindError(nil, fmt.Errorf("library: %w", &netlink.OpError{Op: "receive", Err: errno}))
		if !errors.Is(err, want) || !errors.Is(err, errno) {
			t.Errorf("%v became %v", errno, err)
		}
	}
	err := bindError(nil, os.ErrDeadlineExceeded)
	if errors.Is(err, ErrQueueOwned) || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}
