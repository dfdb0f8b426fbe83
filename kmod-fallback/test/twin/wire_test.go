// Package twin_test holds the C core of the kernel module, kmod-fallback/wire.c,
// against its Go twin, package auth: two readings of auth/PROTOCOL.md must not
// differ. The C is compiled with sanitizers and runs in a process of its own.
//
// It stands here because Go wants no C source beside its own where cgo is on.
package twin_test

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"netsysrq/auth"
)

// build compiles a program of kmod-fallback/test and returns its path. The test
// is skipped where there is nothing to compile it with.
func build(t *testing.T, name string) string {
	t.Helper()
	for _, tool := range []string{"make", "gcc"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s: %v", tool, err)
		}
	}
	probe := exec.Command("gcc", "-x", "c", "-fsanitize=address,undefined", "-o", filepath.Join(t.TempDir(), "probe"), "-", "-lsodium")
	probe.Stdin = strings.NewReader("#include <sodium.h>\nint main(void) { return sodium_init() < 0; }\n")
	if out, err := probe.CombinedOutput(); err != nil {
		t.Skipf("needs libsodium-dev and gcc's sanitizers: %v\n%s", err, out)
	}
	dir := t.TempDir()
	program := filepath.Join(dir, name)
	if out, err := exec.Command("make", "-C", "..", "BUILD="+dir, program).CombinedOutput(); err != nil {
		t.Fatalf("make %s: %v\n%s", name, err, out)
	}
	return program
}

func run(t *testing.T, program string, args ...string) {
	t.Helper()
	out, err := exec.Command(program, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
}

func TestVectors(t *testing.T) {
	run(t, build(t, "vectors"), "../../../auth/testdata/vectors")
}

func TestLedgerScripts(t *testing.T) {
	run(t, build(t, "ledger"), "../../../auth/testdata/ledger")
}

// TestInvariants plays random events and checks what PROTOCOL.md section 5.5
// promises; make -C kmod-fallback/test fuzz does so by libFuzzer.
func TestInvariants(t *testing.T) { run(t, build(t, "random_ledger")) }

// constants are those of wire.h, as Go has them.
var constants = map[string]any{
	"SECOND": 1e9, "PACKET_SIZE": auth.PacketSize, "HEADER_SIZE": auth.HeaderSize, "BODY_SIZE": auth.BodySize,
	"PIECE_SIZE": auth.PieceSize, "PIECE_HEAD": auth.PieceHead, "TEXT_SIZE": auth.TextSize, "MAX_PIECES": auth.MaxPieces,
	"READ_LOG": uint64(auth.ReadLog), "LAST": auth.Last, "CUT": auth.Cut, "OP_LOG": auth.OpLog,
	"MAX_STEPS": auth.MaxSteps, "MAX_PAUSE": auth.MaxPause, "DEFAULT_BOUND": auth.DefaultBound,
	"W": auth.Window, "C": auth.ChallengeTTL, "RENEW": auth.Renew, "STEP": auth.ClockStep,
	"ANSWERS": auth.Answers, "ACTIVE": auth.Active, "BUDGET": auth.Budget, "REFILL": auth.Refill,
	"LATE": auth.Late, "GRACE": auth.Grace, "PORT": auth.Port,
	"KEYS":     16, // Go has no bound
	"KEY_SIZE": auth.KeySize, "KEY_ID_SIZE": len(auth.KeyID{}), "ID_SIZE": len(auth.RequestID{}),
	"CHALLENGE_SIZE": len(auth.Challenge{}), "BOOT_ID_SIZE": len(auth.BootID{}),
	"NONCE_SIZE": auth.NonceSize, "TAG_SIZE": auth.TagSize,
	// Not exported by Go; what they do is in the vectors.
	"VERSION": 1, "TYPE_REQUEST": 1, "TYPE_REPLY": 2, "TYPE_PIECE": 3, "OFF_TEXT": 40 + auth.PieceHead, "OFF_VERSION": 4, "OFF_TYPE": 5, "OFF_RESERVED": 6,
	"OFF_KEY_ID": 8, "OFF_NONCE": 16, "OFF_BODY": 40,

	"OP_STATUS": auth.OpStatus, "OP_RUN": auth.OpRun,
	"REHEARSE": auth.Rehearse, "DRILL": auth.Drill, "NOW": auth.Now,
	"STATUS": auth.Status, "ACCEPTED": auth.Accepted, "STALE": auth.Stale, "REFUSED_POLICY": auth.RefPolicy,
	"REFUSED_SYSRQ": auth.RefSysrq, "VETOED": auth.Vetoed, "BUSY": auth.Busy, "MALFORMED": auth.Malformed,
	"NOBODY": 0, "DAEMON": auth.Daemon, "KERNEL": auth.Kernel,
	"SETTLE_TAKEN": auth.Taken, "SETTLE_VETOED": auth.Forbidden, "SETTLE_DEADLINE": auth.Deadline,
	"REPEAT": auth.Repeat, "REHEARSED": auth.Rehearsed, "DRY_RUN": auth.DryRun, "CLOCK_TRUSTED": auth.ClockTrusted, "ARMED": auth.Armed,

	"REASON_OK": auth.OK, "REASON_DATAGRAM": auth.ReasonDatagram, "REASON_SOURCE": auth.ReasonSource,
	"REASON_LATE": auth.ReasonLate, "REASON_LENGTH": auth.ReasonLength, "REASON_MAGIC": auth.ReasonMagic,
	"REASON_VERSION": auth.ReasonVersion, "REASON_TYPE": auth.ReasonType, "REASON_RESERVED": auth.ReasonReserved,
	"REASON_UNKNOWN_KEY": auth.ReasonUnknownKey, "REASON_FORGED": auth.ReasonForged,
	"REASON_MALFORMED": auth.ReasonMalformed, "REASON_STALE": auth.ReasonStale, "REASON_REPEAT": auth.ReasonRepeat,
	"REASON_PENDING": auth.ReasonPending, "REASON_BUDGET": auth.ReasonBudget, "REASON_NOT_ALLOWED": auth.ReasonNotAllowed,
	"REASON_AFTER_KILL": auth.ReasonAfterKill, "REASON_MASKED": auth.ReasonMasked, "REASON_BUSY": auth.ReasonBusy,
	"REASON_VETOED": auth.ReasonVetoed,
	"REASONS":       auth.ReasonOtherRequest, // the host's end there
}

// internal are the names that only C has.
var internal = regexp.MustCompile(`^NSRQ_(WIRE_H|MAGIC|LOG_END|STATE_\w+|FIELD_\w+|WELL_FORMED)$`)

// TestConstants prints every constant of wire.h from C. One that is not in the
// table above, or no longer in wire.h, fails too.
func TestConstants(t *testing.T) {
	text, err := os.ReadFile("../../wire.h")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{}
	for name, value := range constants {
		want["NSRQ_"+name] = fmt.Sprintf("%.0f", toFloat(value))
	}
	var names []string
	for _, m := range regexp.MustCompile(`(?m)^#define (NSRQ_\w+)`).FindAllStringSubmatch(string(text), -1) {
		names = append(names, m[1])
	}
	for _, m := range regexp.MustCompile(`enum nsrq_\w+ \{([^}]*)\}`).FindAllStringSubmatch(string(text), -1) {
		names = append(names, regexp.MustCompile(`NSRQ_\w+`).FindAllString(m[1], -1)...)
	}
	names = slices.DeleteFunc(names, internal.MatchString)

	source := "#include <stdio.h>\n#include \"wire.h\"\nint main(void) {\n"
	for _, name := range names {
		source += fmt.Sprintf("printf(\"%s %%llu\\n\", 0ULL + %s);\n", name, name)
	}
	build(t, "vectors") // skips where nothing can be compiled
	program := filepath.Join(t.TempDir(), "constants")
	gcc := exec.Command("gcc", "-std=gnu11", "-I../..", "-x", "c", "-o", program, "-")
	gcc.Stdin = strings.NewReader(source + "return 0; }\n")
	if out, err := gcc.CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v\n%s", err, out)
	}
	out, err := exec.Command(program).Output()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for line := range strings.Lines(string(out)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		got[name] = value
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if got[name] != want[name] {
			t.Errorf("%s is %q in C, %s in Go", name, got[name], want[name])
		}
		delete(got, name)
	}
	for name := range got {
		t.Errorf("%s has no twin in the table of this test", name)
	}
}

func toFloat(v any) float64 {
	var f float64
	if _, err := fmt.Sscan(fmt.Sprintf("%d", v), &f); err != nil {
		fmt.Sscan(fmt.Sprint(v), &f)
	}
	return f
}
