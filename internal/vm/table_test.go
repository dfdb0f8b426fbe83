// SPDX-License-Identifier: GPL-2.0-only

package vm

import (
	"bytes"
	"strings"
	"testing"
)

func TestTable(t *testing.T) {
	good := Attempt{Kernel: "6.1", Scenario: FIFOHogs.Name, Outcome: WasReset, Judged: true, First: 280, Reset: 340}
	slow, late, bad, broken, other := good, good, good, good, good
	slow.First, slow.Reset, slow.Unconfirmed = 310, 20240, "s u"
	late.First, late.Judged = 900, false
	bad.Scenario, bad.Outcome, bad.First = Memory.Name, WasNotReset, 9999
	broken.Outcome = EmulatorBroke
	other.Kernel, other.Executor = "7.2", "daemon"

	var file bytes.Buffer
	for _, a := range []Attempt{other, good, slow, late, bad, broken} {
		if err := a.Write(&file); err != nil {
			t.Fatal(err)
		}
	}
	attempts, err := ReadAttempts(&file)
	if err != nil || len(attempts) != 6 {
		t.Fatal(attempts, err)
	}
	got := Table(attempts)
	for _, want := range []string{
		"| hung | 6.1 | 7.2 |\n|---|---|---|\n",
		"| FIFO-99 hogs on all CPUs, rt_runtime -1 | 3 of 3, 310 ms, 20.2 s ² | 1 of 1, 280 ms, 0.3 s ¹ |\n",
		"is for when it does) | **0 of 1** | not tried |\n",
		"\n¹ In", "\n² In",
		"CPUs: 1.",
		"ended them: 1 (6.1).",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	for summary, of := range map[string][]Attempt{
		"kernels 6.1 and 7.2 were hung on purpose in 2 ways, and then sent what\none `netsysrq reboot` sends. **4 of 5** attempts brought": attempts,
		"kernels 6.1 were hung on purpose in 1 ways, and then sent what\none `netsysrq reboot` sends. All 2 attempts brought":              {good, slow, broken},
	} {
		if got := Summary(of); !strings.Contains(got, summary) {
			t.Errorf("no %q in\n%s", summary, got)
		}
	}
	for _, line := range []string{`{"kernel":1}`, `{"kernle":"6.1"}`, `x`} {
		if _, err := ReadAttempts(strings.NewReader(line + "\n")); err == nil {
			t.Errorf("%s was read", line)
		}
	}
}
