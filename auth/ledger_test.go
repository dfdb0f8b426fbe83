// SPDX-License-Identifier: GPL-2.0-only

package auth

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// script runs one file of testdata/ledger, whose grammar is in
// testdata/README.md.
type script struct {
	t      *testing.T
	line   int
	header map[string]string
	ledger *Ledger
	cfg    Config
	draws  uint64
	real0  int64 // ms
	boot0  int64 // ms
	at     int64 // ms of script time
	step   int64 // ms that CLOCK_REALTIME was stepped by
}

func TestLedgerScripts(t *testing.T) {
	paths, err := filepath.Glob("testdata/ledger/*.txt")
	if err != nil || len(paths) < 30 {
		t.Fatalf("%d scripts, error %v", len(paths), err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txt"), func(t *testing.T) {
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			s := &script{t: t, header: map[string]string{}}
			s.run(string(b))
		})
	}
}

func (s *script) fatalf(format string, args ...any) {
	s.t.Helper()
	s.t.Fatalf("line %d: %s", s.line, fmt.Sprintf(format, args...))
}

func (s *script) run(text string) {
	head := true
	for line := range strings.Lines(text) {
		s.line++
		line = strings.TrimSpace(line)
		switch {
		case line == "":
			if head {
				s.begin()
				head = false
			}
		case head:
			name, value, _ := strings.Cut(line, ":")
			s.header[name] = strings.TrimSpace(value)
		case line[0] == '#':
		default:
			s.event(line)
		}
	}
	if head {
		s.fatalf("no empty line after the header")
	}
}

func (s *script) begin() {
	s.real0, s.boot0 = s.number("real"), s.number("boot")
	s.cfg = Config{Sysrq: -1, Executor: Daemon, DryRun: s.header["dry-run"] == "yes", Random: s.random}
	if s.header["executor"] == "kernel" {
		s.cfg.Executor = Kernel
	}
	if v := s.header["sysrq"]; v != "none" {
		s.cfg.Sysrq = int(s.number("sysrq"))
	}
	for name := range s.header {
		switch name {
		case "comment", "real", "boot", "executor", "sysrq", "dry-run":
		default:
			s.fatalf("unknown header %q", name)
		}
	}
}

func (s *script) number(name string) int64 {
	n, err := strconv.ParseInt(s.header[name], 10, 64)
	if err != nil {
		s.fatalf("header %s: %v", name, err)
	}
	return n
}

// random yields the number of the draw, 16 bytes big-endian.
func (s *script) random(b []byte) bool {
	s.draws++
	clear(b)
	binary.BigEndian.PutUint64(b[8:], s.draws)
	return true
}

func (s *script) now() Instant {
	return Instant{
		Real: uint64(max(s.real0+s.at+s.step, 0)) * 1e6,
		Boot: uint64(s.boot0+s.at) * 1e6,
	}
}

// time reads "@31000" (ms after real:), "@31000+1ns", "0" (none) or "max".
func (s *script) time(v string) uint64 {
	switch v {
	case "0":
		return 0
	case "max":
		return ^uint64(0)
	}
	v, ok := strings.CutPrefix(v, "@")
	if !ok {
		s.fatalf("bad time %q", v)
	}
	var ns int64
	for _, sign := range []string{"+", "-"} {
		if i := strings.LastIndex(v, sign); i > 0 && strings.HasSuffix(v, "ns") {
			n, err := strconv.ParseInt(strings.TrimSuffix(v[i:], "ns"), 10, 64)
			if err != nil {
				s.fatalf("bad time %q", v)
			}
			ns, v = n, v[:i]
			break
		}
	}
	ms, err := strconv.ParseInt(v, 10, 64)
	if err != nil {
		s.fatalf("bad time %q", v)
	}
	return uint64(int64(uint64(s.real0+ms)*1e6) + ns)
}

func id(name string) (r RequestID) {
	for i := range r {
		r[i] = name[0]
	}
	return r
}

func keyID(name string) (id KeyID) {
	copy(id[:], name)
	return id
}

func (s *script) event(line string) {
	times, every := int64(1), int64(0)
	fields := strings.Fields(line)
	at, err := strconv.ParseInt(fields[0], 10, 64)
	if err != nil {
		s.fatalf("bad time %q", fields[0])
	}
	s.at, fields = at, fields[1:]
	if n, ok := strings.CutPrefix(fields[0], "x"); ok {
		if _, err := fmt.Sscanf(n, "%d/%d", &times, &every); err != nil {
			s.fatalf("bad repetition %q", fields[0])
		}
		fields = fields[1:]
	}
	var want []string
	for i, f := range fields {
		if f == "=>" {
			want, fields = fields[i+1:], fields[:i]
			break
		}
	}
	for range times {
		s.one(fields, want)
		s.at += every
	}
}

func (s *script) one(f, want []string) {
	now := s.now()
	arg := func(i int) string {
		if i >= len(f) {
			s.fatalf("%s: argument %d is missing", f[0], i)
		}
		return f[i]
	}
	switch f[0] {
	case "begin":
		s.ledger = NewLedger(s.cfg, now)
	case "install":
		allowed := ""
		if len(f) > 2 && f[2] != "-" {
			allowed = f[2]
		}
		set, err := ParseKeySet(allowed)
		if err != nil {
			s.fatalf("%v", err)
		}
		s.ledger.Install(now, keyID(arg(1)), set)
	case "remove":
		s.ledger.Remove(now, keyID(arg(1)))
	case "sync":
		asked := now
		if len(f) > 2 {
			// The clock when asked stood so many ms ahead of the present one.
			ahead, err := strconv.ParseInt(strings.TrimPrefix(arg(2), "asked="), 10, 64)
			if err != nil {
				s.fatalf("%v", err)
			}
			asked.Real += uint64(ahead * 1e6)
		}
		s.ledger.Synchronised(now, arg(1) == "on", asked)
	case "step":
		n, err := strconv.ParseInt(arg(1), 10, 64)
		if err != nil {
			s.fatalf("%v", err)
		}
		s.step += n
	case "floor":
		if got, w := s.ledger.Floor(keyID(arg(1))), s.time(want[0]); got != w {
			s.fatalf("floor is %d ns, want %d (%+v)", got, w, time.Duration(got-w))
		}
	case "settle":
		how, known := map[string]Settlement{"taken": Taken, "vetoed": Forbidden, "deadline": Deadline}[arg(3)]
		if !known {
			s.fatalf("unknown settlement %q", arg(3))
		}
		d, ok := s.ledger.Settle(now, keyID(arg(1)), id(arg(2)), how)
		if !ok {
			if want[0] != "late" {
				s.fatalf("settled too late, want %v", want)
			}
			return
		}
		s.compare(&d, want)
	case "finish":
		s.ledger.Finish(now, keyID(arg(1)), id(arg(2)))
	case "cut":
		if !s.ledger.Final(keyID(arg(1)), id(arg(2))) {
			s.fatalf("request is not final")
		}
	case "status", "run", "log", "malformed":
		s.request(now, f, want)
	default:
		s.fatalf("unknown event %q", f[0])
	}
}

func (s *script) request(now Instant, f, want []string) {
	req := Request{ID: id("#")}
	switch f[0] {
	case "run", "malformed":
		req.Op = OpRun
	case "log":
		req.Op, req.From, req.Pieces = OpLog, LogEnd, 1
	}
	from := Source(0)
	args := f[2:]
	if len(args) > 0 && !strings.Contains(args[0], "=") {
		req.ID, args = id(args[0]), args[1:]
	}
	for _, a := range args {
		name, v, _ := strings.Cut(a, "=")
		switch name {
		case "time":
			req.Time = s.time(v)
		case "c":
			switch v {
			case "0":
			case "x":
				req.Challenge = Challenge{0xff}
			default:
				n, err := strconv.ParseUint(v, 10, 64)
				if err != nil {
					s.fatalf("%v", err)
				}
				binary.BigEndian.PutUint64(req.Challenge[8:], n)
			}
		case "steps":
			if v == "-" {
				break
			}
			steps, err := ParseSteps(v)
			if err != nil {
				s.fatalf("%v", err)
			}
			req.SetSteps(steps)
		case "flags":
			for w := range strings.SplitSeq(v, ",") {
				switch w {
				case "rehearse":
					req.Flags |= Rehearse
				case "drill":
					req.Flags |= Drill
				case "now":
					req.Flags |= Now
				default:
					s.fatalf("unknown flag %q", w)
				}
			}
		case "from":
			n, err := strconv.ParseUint(v, 10, 64)
			if err != nil {
				s.fatalf("%v", err)
			}
			from = Source(n)
		default:
			s.fatalf("unknown argument %q", a)
		}
	}
	var d Decision
	if f[0] == "malformed" {
		d = s.ledger.JudgeMalformed(now, keyID(f[1]), &req)
	} else {
		d = s.ledger.Judge(now, keyID(f[1]), &req, from)
	}
	s.compare(&d, want)
}

func (s *script) compare(d *Decision, want []string) {
	got := map[string]string{"result": d.Result.String()}
	switch {
	case d.Silent:
		got = map[string]string{"result": "silence"}
	case d.Pending:
		got = map[string]string{"result": "pending"}
	case d.Pieces:
		got = map[string]string{"result": "pieces"}
	}
	if !d.Silent && !d.Pending {
		if c := binary.BigEndian.Uint64(d.Challenge[8:]); c != 0 {
			got["c"] = strconv.FormatUint(c, 10)
		}
		if d.Mask != 0 {
			got["mask"] = strconv.Itoa(int(d.Mask))
		}
		got["age"] = strconv.Itoa(int(d.Age))
		got["by"] = d.By.String()
		for w := range strings.SplitSeq(d.Flags.String(), ",") {
			if d.Pieces {
				break // they carry no flags
			}
			if w == "clock-trusted" {
				w = "trusted"
			}
			if w != "" {
				got[w] = ""
			}
		}
	}
	expected := map[string]string{"result": want[0]}
	for _, w := range want[1:] {
		name, v, _ := strings.Cut(w, "=")
		if name == "mask" && v == "0" {
			continue
		}
		expected[name] = v
	}
	for _, name := range []string{"age", "by"} {
		if _, asked := expected[name]; !asked {
			delete(got, name)
		}
	}
	if fmt.Sprint(got) != fmt.Sprint(expected) {
		s.fatalf("answer %v, want %v", got, expected)
	}
	if run := d.Run || d.Cut; run && d.Result != Accepted {
		s.fatalf("result %v and yet to be run", d.Result)
	}
}
