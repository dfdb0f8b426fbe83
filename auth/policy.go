// SPDX-License-Identifier: GPL-2.0-only

package auth

import (
	"errors"
	"fmt"
	"math/bits"
	"strconv"
	"strings"
	"time"
)

// IsSysrqKey reports whether c can be a step.
func IsSysrqKey(c byte) bool { return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' }

// KeySet is what the owner of a key may do: a set of SysRq keys, and ReadLog.
type KeySet uint64

// ReadLog allows reading the kernel's log. It is written as the letter L.
const ReadLog KeySet = 1 << 36

// setLetters are what a KeySet is written with, in the order of its bits.
const setLetters = "0123456789abcdefghijklmnopqrstuvwxyzL"

// ParseKeySet reads a string such as "nsub", or "nsubL" with ReadLog.
func ParseKeySet(s string) (set KeySet, err error) {
	for _, c := range []byte(s) {
		i := strings.IndexByte(setLetters, c)
		if i < 0 {
			return 0, fmt.Errorf("%q is not a SysRq key: use the characters 0-9 and a-z, and L for the kernel's log", c)
		}
		set |= 1 << i
	}
	return set, nil
}

func keyBit(c byte) KeySet {
	if c <= '9' {
		return 1 << (c - '0')
	}
	return 1 << (c - 'a' + 10)
}

// Has reports whether the set holds key c.
func (s KeySet) Has(c byte) bool { return IsSysrqKey(c) && s&keyBit(c) != 0 }

// String returns the keys in order, digits first, ReadLog last.
func (s KeySet) String() string {
	var b strings.Builder
	for v := uint64(s) & (1<<len(setLetters) - 1); v != 0; v &= v - 1 {
		b.WriteByte(setLetters[bits.TrailingZeros64(v)])
	}
	return b.String()
}

// HasAll reports whether the set holds the key of every step.
func (s KeySet) HasAll(steps []Step) bool { return s.missing(steps) == 0 }

func (s KeySet) missing(steps []Step) (mask uint8) {
	for i, st := range steps {
		if !s.Has(st.Key) {
			mask |= 1 << i
		}
	}
	return mask
}

// AfterKill is the mask of the steps that follow the first e or i: those end
// every process, so a daemon does not live to run the rest.
func AfterKill(steps []Step) uint8 {
	for i, st := range steps {
		if st.Key == 'e' || st.Key == 'i' {
			return uint8(1<<len(steps)-1) &^ uint8(1<<(i+1)-1)
		}
	}
	return 0
}

// SysrqAll is a value of kernel.sysrq that allows everything.
const SysrqAll = 1

// sysrqBit is the bit of kernel.sysrq that allows a key, 0 where only the
// value 1 does (drivers/tty/sysrq.c, the enable_mask of each operation).
func sysrqBit(c byte) int {
	switch c {
	case '0', '1', '2', '3', '4', '5', '6', '7', '8', '9':
		return 0x2 // SYSRQ_ENABLE_LOG
	case 'k', 'r':
		return 0x4 // SYSRQ_ENABLE_KEYBOARD
	case 'c', 'l', 'm', 'p', 't', 'w', 'z':
		return 0x8 // SYSRQ_ENABLE_DUMP
	case 's':
		return 0x10 // SYSRQ_ENABLE_SYNC
	case 'u':
		return 0x20 // SYSRQ_ENABLE_REMOUNT
	case 'e', 'f', 'i', 'j':
		return 0x40 // SYSRQ_ENABLE_SIGNAL
	case 'b', 'o':
		return 0x80 // SYSRQ_ENABLE_BOOT
	case 'n':
		return 0x100 // SYSRQ_ENABLE_RTNICE
	}
	return 0
}

// Swallowed is the mask of the steps that the kernel would ignore under this
// value of kernel.sysrq when they come by handle_sysrq(). Writing to
// /proc/sysrq-trigger ignores kernel.sysrq.
func Swallowed(steps []Step, sysrq int) (mask uint8) {
	if sysrq == SysrqAll {
		return 0
	}
	for i, st := range steps {
		if sysrq&sysrqBit(st.Key) == 0 {
			mask |= 1 << i
		}
	}
	return mask
}

// Destructive reports whether the steps stop the machine or end processes, so
// that a person should confirm them.
func Destructive(steps []Step) bool {
	for _, st := range steps {
		if strings.IndexByte("bcefijkou", st.Key) >= 0 {
			return true
		}
	}
	return false
}

// EndsMachine reports whether a step leaves no time for a reply to leave.
func (s Step) EndsMachine() bool { return s.Key == 'b' || s.Key == 'o' || s.Key == 'c' }

// ErrSteps is wrapped by every error of ParseSteps.
var ErrSteps = errors.New("bad sequence")

// ParseSteps reads a sequence such as "n,s:2s,u:500ms,b" or, without pauses,
// "nsub". The pause after the colon is a time.Duration in whole units of 10 ms.
func ParseSteps(s string) ([]Step, error) {
	fields := strings.Split(s, ",")
	if !strings.ContainsAny(s, ",:") {
		fields = strings.Split(s, "")
	}
	if s == "" {
		return nil, fmt.Errorf("%w: it is empty; write SysRq keys, such as s,u,b", ErrSteps)
	}
	if len(fields) > MaxSteps {
		return nil, fmt.Errorf("%w: %d steps, at most %d fit into a request", ErrSteps, len(fields), MaxSteps)
	}
	var steps []Step
	sum := 0
	for _, f := range fields {
		key, pause, paused := strings.Cut(f, ":")
		if len(key) != 1 || !IsSysrqKey(key[0]) {
			return nil, fmt.Errorf("%w: %q is not a SysRq key; use one of 0-9, a-z", ErrSteps, key)
		}
		st := Step{Key: key[0]}
		if paused {
			d, err := time.ParseDuration(pause)
			if err != nil || d <= 0 {
				return nil, fmt.Errorf("%w: pause %q after %q; write for example 2s or 500ms", ErrSteps, pause, key)
			}
			if d%PauseUnit != 0 || d > MaxPause*PauseUnit {
				return nil, fmt.Errorf("%w: pause %q after %q must be a multiple of %v and at most %v", ErrSteps, pause, key, PauseUnit, MaxPause*PauseUnit)
			}
			st.Pause = uint16(d / PauseUnit)
		}
		sum += int(st.Pause)
		steps = append(steps, st)
	}
	if sum > MaxPause {
		return nil, fmt.Errorf("%w: the pauses add up to %v, at most %v", ErrSteps, time.Duration(sum)*PauseUnit, MaxPause*PauseUnit)
	}
	return steps, nil
}

// FormatSteps writes steps in the form that ParseSteps reads; "-" if there are none.
func FormatSteps(steps []Step) string {
	if len(steps) == 0 {
		return "-"
	}
	var b strings.Builder
	for i, st := range steps {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteByte(st.Key)
		if st.Pause == 0 {
			continue
		}
		b.WriteByte(':')
		if st.Pause%100 == 0 {
			b.WriteString(strconv.Itoa(int(st.Pause)/100) + "s")
		} else {
			b.WriteString(strconv.Itoa(int(st.Pause)*10) + "ms")
		}
	}
	return b.String()
}

// SetSteps puts steps into r. There must be at most MaxSteps.
func (r *Request) SetSteps(steps []Step) {
	r.Steps = [MaxSteps]Step{}
	r.Count = uint8(copy(r.Steps[:], steps))
}
