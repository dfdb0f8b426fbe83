// SPDX-License-Identifier: GPL-2.0-only

package fence

import (
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"netsysrq/auth"
	"netsysrq/internal/exchange"
	"netsysrq/internal/secret"
)

// fresh is how long after its last sign of life a call that was cut off is gone
// on with.
const fresh = 15 * time.Second

// notes are what a call that waits for the proof leaves to the next one for the
// same node, in case it is cut off.
//
// A manager whose timeout is shorter than a boot ends the agent and calls it
// again, and again: would each call reset the machine anew, it would never come
// up. So a call that begins right after one that was cut off goes on with the
// wait, as if the two were one. It must be right after: a node that has come back
// meanwhile, has been let in and has failed again is to be reset. A call that
// ends by itself, either way, leaves nothing.
type notes struct {
	path     string
	clock    exchange.Clock
	boot     auth.BootID
	accepted uint64 // CLOCK_BOOTTIME
}

func notesFor(dir string, key auth.KeyID, clock exchange.Clock) *notes {
	return &notes{path: filepath.Join(dir, key.String()), clock: clock}
}

// read returns the boot id that has accepted and how long ago that was, if a
// call is to be gone on with.
func (n *notes) read() (boot auth.BootID, ago time.Duration, ok bool) {
	text, err := secret.ReadFile(n.path, -1)
	if err != nil {
		return boot, 0, false
	}
	var id string
	var alive uint64
	if _, err := fmt.Sscanf(string(text), "%s %d %d", &id, &n.accepted, &alive); err != nil {
		return boot, 0, false
	}
	b, err := hex.DecodeString(id)
	now := n.clock.Boot()
	if err != nil || len(b) != len(boot) || n.accepted > alive || alive > now || now-alive > uint64(fresh) {
		return boot, 0, false
	}
	n.boot = auth.BootID(b)
	return n.boot, time.Duration(now - n.accepted), true
}

// begin notes that the host has accepted. Where nothing can be written, the next
// call begins anew, which is safe.
func (n *notes) begin(boot auth.BootID) {
	n.boot, n.accepted = boot, n.clock.Boot()
	if os.MkdirAll(filepath.Dir(n.path), 0o700) == nil {
		n.renew()
	}
}

// renew notes that the call is alive.
func (n *notes) renew() {
	temporary := fmt.Sprintf("%s.%d", n.path, os.Getpid())
	text := fmt.Appendf(nil, "%x %d %d\n", n.boot[:], n.accepted, n.clock.Boot())
	if os.WriteFile(temporary, text, 0o600) == nil {
		_ = os.Rename(temporary, n.path)
	}
}

func (n *notes) remove() { _ = os.Remove(n.path) }
